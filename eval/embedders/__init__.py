"""Judges that other people trained, read from their own files: one module each, all of them ``Embedder`` s.

``load(name, source)`` is the door; ``KNOWN`` says which names there are, which file each needs and who publishes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..embed import Embedder

__all__ = ["KNOWN", "Known", "load"]


@dataclass(frozen=True, kw_only=True)
class Known:
    """A judge by name: what it gives and where its weights come from."""

    kind: str
    """The module that reads it."""
    file: str = ""
    """The file it needs, by the name it is published under; empty when it needs none."""
    origin: str = ""
    """Who publishes it."""
    gives: str = "vectors"


_VGGISH = "torchvggish by harritaylor, release v0.1, or Google's vggish_model.ckpt converted"
_PASST = "PaSST by kkoutini, its releases"
_PANNS = "PANNs by Kong et al., Zenodo record 3987831"
_LAION = "LAION-CLAP, on the hub as lukewys/laion_clap"
_MUSICNN = "the package musicnn: pip install --no-deps musicnn"
_MUSICNNS = {
    "musicnn-mtt": "MTT_musicnn", "musicnn-msd": "MSD_musicnn",
    "musicnn-mtt-vgg": "MTT_vgg", "musicnn-msd-vgg": "MSD_vgg",
}  # fmt: skip
_TAGS, _TEXT = "vectors and 527 tags", "vectors of audio and text"
_CHECKPOINTS = (
    "630k-audioset-best", "630k-audioset-fusion-best", "630k-best", "630k-fusion-best",
    "music_audioset_epoch_15_esc_90.14", "music_speech_audioset_epoch_15_esc_89.98", "music_speech_epoch_15_esc_89.25",
)  # fmt: skip


def _passt(file: str) -> Known:
    return Known(kind="passt", file=file, origin=_PASST, gives=_TAGS)


#: Every judge that :func:`load` knows, by the names that recipes use.
KNOWN: Mapping[str, Known] = {
    "logmel-1": Known(kind="logmel"),
    "descant-judge": Known(kind="judge", gives="vectors of audio and of text, and tags"),
    "vggish-google": Known(kind="vggish", file="vggish-10086976.pth", origin=_VGGISH),
    "vggish-torch": Known(kind="vggish", file="vggish-10086976.pth", origin=_VGGISH),
    "panns-cnn14-32k": Known(kind="panns", file="Cnn14_mAP=0.431.pth", origin=_PANNS, gives=_TAGS),
    "panns-cnn14-16k": Known(kind="panns", file="Cnn14_16k_mAP=0.438.pth", origin=_PANNS, gives=_TAGS),
    "passt-s-swa-p16-128-ap476": _passt("passt-s-f128-p16-s10-ap.476-swa.pt"),
    "passt-s-swa-p16-s16-128-ap473": _passt("passt-s-f128-p16-s16-ap.473-swa.pt"),
    "passt-s-20sec-p16-s10-ap474": _passt("passt-s-f128-20sec-p16-s10-ap.474-swa.pt"),
    **{
        name: Known(kind="musicnn", file=folder, origin=_MUSICNN, gives="vectors and 50 tags")
        for name, folder in _MUSICNNS.items()
    },
    "clap": Known(kind="clap", file="model.safetensors", origin="any ClapModel in transformers' format", gives=_TEXT),
    **{
        f"laion-clap-{name}{end}": Known(kind=kind, file=f"{name}.pt", origin=_LAION, gives=_TEXT)
        for name in _CHECKPOINTS
        for end, kind in (("", "clap"), ("-package", "laion_package"))
    },
}


def load(name: str, source: str | os.PathLike[str] | None = None) -> Embedder:
    """The judge ``name`` with weights from ``source``: a file, a folder with the published file in it, or a hub id.

    ``logmel-1`` has no weights, ``descant-judge`` carries its own, ``musicnn-*`` finds its package.

    Raises ValueError for an unknown name, for a judge that needs a source and got none, and for weights that do not
    fit; FileNotFoundError when they are not where ``source`` says.
    """
    known = KNOWN.get(name)
    if known is None:
        names = ", ".join(key for key in KNOWN if not key.endswith("-package"))
        raise ValueError(f"no judge is called {name!r}; there are {names} (laion-clap-* also with -package)")
    if known.kind == "logmel":
        from ..logmel import LogMel

        return LogMel()
    if known.kind == "judge":
        from .. import judge

        return judge.load(source)
    if known.kind == "musicnn":
        from . import musicnn

        return musicnn.load(source, known.file)
    if source is None:
        raise ValueError(
            f"{name} needs weights of its own: {known.file} ({known.origin}); name the file, its folder, or a hub id"
        )
    if known.kind == "vggish":
        from . import vggish

        return vggish.load(name, source)
    if known.kind == "panns":
        from . import panns

        return panns.load(name, source)
    if known.kind == "passt":
        from . import passt

        return passt.load(name, source, known.file)
    if known.kind == "laion_package":
        from . import laion_package

        return laion_package.load(name, source, (known.file,))
    from . import clap

    return clap.load(name, source, (known.file,))
