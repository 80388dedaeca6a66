"""Separators by name, and the front door."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import pretrained
from .checkpoint import Look, look
from .contract import Separator
from .stems import Stems

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ...codec.audio import Audio

#: Where the package keeps the trained default.
EMBEDDED = Path(__file__).resolve().parent.parent / "weights" / "separator"


def _embedded() -> Separator:
    from .bandsplit_separator import BandSplitSeparator

    return BandSplitSeparator.load(EMBEDDED)


def _hpss() -> Separator:
    from .hpss import HPSS

    return HPSS()


def _hpss_rest() -> Separator:
    from .hpss import HPSS, HpssSettings

    return HPSS(HpssSettings(margin=(2.0, 2.0)))


def _two_stage() -> Separator:
    from .hpss import TwoStageHPSS

    return TwoStageHPSS()


def _centre() -> Separator:
    from .centre import Centre

    return Centre()


def _repet_sim() -> Separator:
    from .repet import RepetSim

    return RepetSim()


def _repet() -> Separator:
    from .repet import Repet

    return Repet()


def _rpca() -> Separator:
    from .rpca import RPCA

    return RPCA()


def _nmf() -> Separator:
    from .nmf_separators import HarmonicNMF

    return HarmonicNMF()


def _demucs(name: str) -> Separator:
    from .demucs_files import named

    return named(name)


def _openunmix(name: str) -> Separator:
    from .openunmix_files import named

    return named(name)


#: Name -> what makes it, with nothing but the package. A new method is one more row.
REGISTRY: dict[str, Callable[[], Separator]] = {
    "embedded": _embedded,
    "hpss": _hpss,
    "hpss-rest": _hpss_rest,
    "two-stage": _two_stage,
    "centre": _centre,
    "repet-sim": _repet_sim,
    "repet": _repet,
    "rpca": _rpca,
    "nmf": _nmf,
}


#: Name -> what makes it, when that needs an extra or weights the user has to have: a ValueError says what is missing.
OUTSIDE: dict[str, Callable[[], Separator]] = {
    **{name: partial(_demucs, name) for name in ("htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi")},
    **{name: partial(_openunmix, name) for name in ("umx", "umxhq", "umxl")},
}


class Foreign(NamedTuple):
    """A kind of checkpoint that another project wrote."""

    matches: Callable[[Look], bool]
    load: Callable[[Path], Separator]


class ForeignFolder(NamedTuple):
    """A kind of folder that another project wrote."""

    matches: Callable[[Path], bool]
    load: Callable[[Path], Separator]


def _demucs_file() -> Foreign:
    from .demucs import load
    from .demucs_files import is_file

    return Foreign(is_file, load)


def _demucs_folder() -> ForeignFolder:
    from .demucs import load
    from .demucs_files import is_folder

    return ForeignFolder(is_folder, load)


def _openunmix_file() -> Foreign:
    from .openunmix_files import is_file, load

    return Foreign(is_file, load)


def _openunmix_folder() -> ForeignFolder:
    from .openunmix_files import is_folder, load

    return ForeignFolder(is_folder, load)


def _roformer_file() -> Foreign:
    from .roformer_checkpoint import matches
    from .roformer_separator import RoformerSeparator

    return Foreign(matches, RoformerSeparator.load)


#: Project or architecture -> how to tell its checkpoint files, and what loads one. A new kind is one more row.
CHECKPOINTS: dict[str, Callable[[], Foreign]] = {
    "Demucs": _demucs_file,
    "Open-Unmix": _openunmix_file,
    "RoFormer": _roformer_file,
}


#: Project -> how to tell its folder, and what loads one, for folders that are not ours.
FOLDERS: dict[str, Callable[[], ForeignFolder]] = {"Demucs": _demucs_folder, "Open-Unmix": _openunmix_folder}


def get(model: str | os.PathLike[str] = "embedded") -> Separator:
    """A separator by name, from a folder (:mod:`descant.gen.separation.pretrained`), or from another project's file.

    Raises ValueError for a name that does not exist, and for folders and files that hold no separator.
    """
    if isinstance(model, str) and model in REGISTRY:
        return REGISTRY[model]()
    if isinstance(model, str) and model in OUTSIDE:
        return OUTSIDE[model]()
    path = Path(model)
    if path.is_dir():
        for folder in FOLDERS.values():
            ours, load = folder()
            if ours(path):
                return load(path)
        return pretrained.separator(path)
    if path.is_file():
        return _foreign(path)
    names = ", ".join([*REGISTRY, *OUTSIDE])
    raise ValueError(f"no separator {str(model)!r}: choose {names}, or name a folder or a checkpoint with one")


def _foreign(path: Path) -> Separator:
    found = look(path)
    for kind in CHECKPOINTS.values():
        matches, load = kind()
        if matches(found):
            return load(path)
    if found.classes:
        raise ValueError(
            f"{path} holds more than tensors ({min(found.classes)}): save its state dict alone, if you trust it"
        )
    raise ValueError(f"{path} is no checkpoint of {', '.join(CHECKPOINTS)}: its tensors begin with {min(found.names)}")


def separate(
    audio: str | os.PathLike[str] | Audio | Tensor | np.ndarray, sample_rate: int | None = None, *,
    model: str | os.PathLike[str] | Separator = "embedded", stems: str | Sequence[str] | None = None,
) -> Stems:  # fmt: skip
    """Take a sound apart: a file, an ``Audio``, or samples [T] or [C, T] at ``sample_rate`` Hz.

    model: a name, a folder, or a separator. stems: which ones (None: all): names, ``-name`` for all but it, ``a+b`` for
    two as one. The stems have the sound's own rate, channels and length, and with ``.residual`` they add up to it.
    """
    separator = model if isinstance(model, Separator) else get(model)
    return separator.separate(audio, sample_rate, stems=stems)
