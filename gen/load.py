"""Models by name or folder -> a :class:`Studio`: the codec and the language model that make music together."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from ..codec import pretrained as codec_files
from ..codec.contract import Codec
from ..lm import lora
from ..lm import pretrained as lm_files
from ..lm.fast_graph import on_device
from ..lm.fast_linear import PRECISIONS
from ..lm.model import TokenLM
from ..lm.musicgen_files import is_musicgen
from .device import device_of, moved_codec, moved_lm

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Unpack

    from ..codec.audio import Audio
    from .accompany import Accompaniment
    from .generate import Music
    from .stream import Playing

    #: Sound in memory, or the file it is in.
    Sound = Audio | str | os.PathLike[str]

#: Folder of the models the package carries.
SHELF = Path(__file__).resolve().parent / "weights"
#: Name -> (codec folder, language-model folder) inside :data:`SHELF`.
EMBEDDED = {"embedded": ("codec_tiny", "lm_embedded")}


class Wishes(TypedDict, total=False):
    """The fields of :class:`descant.gen.request.Request` beside its text, as keyword arguments."""

    genre: str | None
    instruments: Sequence[str]
    tempo: float | None
    key: str | None
    beats_per_bar: int | None
    chords: Sequence[str]
    duration: float
    seed: int | None
    temperature: float
    top_k: int
    top_p: float
    guidance: float | Mapping[str, float]
    nested: bool
    negative: str | None


@dataclass(frozen=True)
class Studio:
    """A codec and a language model over its tokens; of a MusicGen :class:`descant.gen.musicgen.MusicGenStudio`."""

    codec: Codec
    lm: TokenLM
    name: str = "embedded"
    threads: int | None = None
    """CPU threads used while it works; None leaves torch's setting."""
    precision: str = "fp32"
    """What the language model's weights are computed in: fp32, bf16 or int8, the fastest on a CPU."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision {self.precision!r}: {', '.join(PRECISIONS)}")
        self.check()

    def check(self) -> None:
        """Raise ValueError unless model and codec belong together."""
        lm, codec = self.lm.config, self.codec
        if lm.books > codec.books or lm.cardinality != codec.cardinality or lm.frame_rate != codec.frame_rate:
            raise ValueError(
                f"{self.name}: the model writes {lm.books} books of {lm.cardinality} at {lm.frame_rate:g} Hz, "
                f"the codec reads {codec.books} of {codec.cardinality} at {codec.frame_rate:g} Hz: "
                "they do not belong together"
            )

    def generate(
        self, text: str | None = None, melody: Sound | Tensor | None = None,
        stems: Mapping[str, Sound] | None = None, **wishes: Unpack[Wishes],
    ) -> Music:  # fmt: skip
        """Make new music from a sentence, typed wishes, or both; see :class:`descant.gen.request.Request`.

        melody (a sound, its file, or pitch classes [F, 12]) and stems (role -> sound or file) are for models that hear
        them, see :func:`descant.gen.against.generate`. Returns a :class:`descant.gen.generate.Music` with ``.wav``
        [C, T] and ``.rate``. Raises RequestError, and AudioError for files that hold no sound.
        """
        from .generate import generate
        from .request import Request

        heard = {role: sound(one) for role, one in (stems or {}).items()}
        return generate(self, Request(text=text, **wishes), melody=_melody(melody), stems=heard or None)

    def accompany(
        self, given: Sound | Mapping[str, Sound], add: Sequence[str], text: str | None = None, **wishes: Unpack[Wishes]
    ) -> Accompaniment:
        """Add parts such as ``["bass", "keys"]`` to a mix or to stems; see :func:`descant.gen.accompany.accompany`."""
        from .accompany import accompany
        from .request import Request

        if isinstance(given, Mapping):
            stems = {role: sound(one) for role, one in given.items()}
            return accompany(self, stems, add, Request(text=text, **wishes))
        return accompany(self, sound(given), add, Request(text=text, **wishes))

    def inpaint(
        self, given: Sound, start: float, end: float, text: str | None = None, **wishes: Unpack[Wishes]
    ) -> Music:
        """Play ``given`` from ``start`` to ``end`` (s) anew; see :func:`descant.gen.inpaint.inpaint`."""
        from .inpaint import inpaint
        from .request import Request

        return inpaint(self, sound(given), start, end, Request(text=text, **wishes))

    def loop(
        self, given: Sound, seconds: float | None = None, text: str | None = None, **wishes: Unpack[Wishes]
    ) -> Music:
        """``given`` with a bridge back to its beginning; see :func:`descant.gen.inpaint.loop`."""
        from .inpaint import loop
        from .request import Request

        return loop(self, sound(given), Request(text=text, **wishes), seconds)

    def extend(self, given: Sound, seconds: float = 10.0, text: str | None = None, **wishes: Unpack[Wishes]) -> Music:
        """Continue ``given`` by ``seconds``; see :mod:`descant.gen.extend`.

        Returns a :class:`descant.gen.generate.Music`: ``given`` at its own rate and channels, and what follows.
        """
        from .extend import extend
        from .request import Request

        wishes["duration"] = seconds
        return extend(self, sound(given), Request(text=text, **wishes))

    def stream(
        self, text: str | None = None, seconds: float | None = None, gain: float = 0.0,
        melody: Sound | Tensor | None = None, stems: Mapping[str, Sound] | None = None, **wishes: Unpack[Wishes],
    ) -> Playing:  # fmt: skip
        """Play new music while it is made; see :class:`descant.gen.stream.Playing`, an iterator of blocks of sound.

        seconds: how long; None plays until nobody asks any more. melody and stems: as for :meth:`generate`; what is
        made to go with them has an end, save of a MusicGen, which begins its melody again. Raises RequestError, and
        AudioError for files that hold no sound.
        """
        from .request import Request
        from .stream import play

        heard = {role: sound(one) for role, one in (stems or {}).items()}
        return play(self, Request(text=text, **wishes), seconds, gain, _melody(melody), heard or None)

    @cached_property
    def engine(self) -> Any:
        """What sampling asks: the language model itself, or its arrangement at another precision or for a GPU."""
        if self.lm.embed.weight.device.type != "cpu":
            from ..lm.fast_graph_token import GraphTokenLM

            return GraphTokenLM(self.lm, self.precision == "bf16")
        if self.precision == "fp32":
            return self.lm
        from ..lm.fast_token import FastTokenLM

        return FastTokenLM(self.lm, self.precision)

    @property
    def lookback(self) -> int:
        """Frames of given music that a continuation hears: half of what the model sees, the rest is what it plays."""
        return max(1, self.lm.config.window // self.lm.pattern.inputs(1) // 2)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Work without gradients on this studio's number of threads; torch's setting is restored afterwards.

        Raises RuntimeError, saying what to lower, when a GPU's memory does not suffice.
        """
        before = torch.get_num_threads()
        try:
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            # not inference_mode: what comes out may go into training
            with torch.no_grad(), on_device(next(self.lm.parameters()).device, "this music"):
                yield
        finally:
            torch.set_num_threads(before)


def load(
    name_or_folder: str | os.PathLike[str] = "embedded", threads: int | None = None, precision: str = "fp32",
    adapter: str | os.PathLike[str] | None = None, device: str = "cpu",
) -> Studio:  # fmt: skip
    """Load a model: ``"embedded"``, a folder, or a MusicGen.

    A folder holds a language model (as ``descant train lm`` exports it), which is joined to the embedded codec, or two
    folders whose names begin with ``codec`` and ``lm``. A MusicGen is a folder in the transformers library's format, or
    a hub id such as ``"facebook/musicgen-small"``, the one case in which something may be downloaded; see
    :func:`descant.gen.musicgen.load`. precision: of the language model's weights: fp32, or bf16 or int8, which give
    other music sooner. adapter: a file or folder of ``descant finetune``, added into the weights. device: ``cpu``, or
    ``cuda`` for models and codec on a GPU. Raises FileNotFoundError when files are missing and ValueError when they are
    damaged or do not fit together, or the device is not there.
    """
    place = device_of(device, precision)
    if threads is not None and not 1 <= threads <= 1024:
        raise ValueError(f"threads {threads} is outside 1 to 1024")
    name = os.fspath(name_or_folder)
    if name not in EMBEDDED and is_musicgen(name):
        from . import musicgen

        return musicgen.load(name, threads, precision, adapter, device)
    codec, lm = find(name)
    model = lm_files.load(lm)
    if adapter is not None:
        lora.merge(model, lora.load(adapter))
    return Studio(moved_codec(codec_files.load(codec), place), moved_lm(model, place), name, threads, precision)


def generate(
    text: str | None = None, melody: Sound | Tensor | None = None, stems: Mapping[str, Sound] | None = None,
    **wishes: Unpack[Wishes],
) -> Music:  # fmt: skip
    """:meth:`Studio.generate` with the embedded model, which is loaded once."""
    return _embedded().generate(text, melody, stems, **wishes)


def extend(given: Sound, seconds: float = 10.0, text: str | None = None, **wishes: Unpack[Wishes]) -> Music:
    """:meth:`Studio.extend` with the embedded model, which is loaded once."""
    return _embedded().extend(given, seconds, text, **wishes)


def accompany(
    given: Sound | Mapping[str, Sound], add: Sequence[str], text: str | None = None, **wishes: Unpack[Wishes]
) -> Accompaniment:
    """:meth:`Studio.accompany` with the embedded model, which is loaded once."""
    return _embedded().accompany(given, add, text, **wishes)


def sound(given: Sound) -> Audio:
    """Sound as it is, or read from its file. Raises AudioError for a file that holds none."""
    from ..codec import audio

    return given if isinstance(given, audio.Audio) else audio.read(given)


def _melody(given: Sound | Tensor | None) -> Audio | Tensor | None:
    return given if given is None or isinstance(given, torch.Tensor) else sound(given)


@cache
def _embedded() -> Studio:
    return load()


def find(name: str) -> tuple[Path, Path]:
    """Folders of the codec and the language model called ``name``. Raises FileNotFoundError saying what is missing."""
    if name in EMBEDDED:
        codec, lm = (SHELF / part for part in EMBEDDED[name])
        for folder in (codec, lm):
            if not _is_model(folder):
                raise FileNotFoundError(
                    f"the {name} model is incomplete: {folder} has no config.json and model.safetensors; "
                    "install descant again, or name a folder of your own with --model"
                )
        return codec, lm
    folder = Path(name)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no model {name!r}: it is neither a folder nor one of {', '.join(EMBEDDED)}, nor a hub id such as "
            "facebook/musicgen-small"
        )
    if is_musicgen(name):
        raise ValueError(f"{folder} is a MusicGen, which keeps its codec beside its own weights: load() reads it whole")
    if _is_model(folder):
        if "codec" in _format(folder):
            raise ValueError(f"{folder} is a codec; music needs a language model too: name a folder that holds both")
        return find("embedded")[0], folder
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.startswith(("codec", "lm")))
    for path in inside:
        # a broken codec must not silently give way to the embedded one
        if not _is_model(path):
            raise FileNotFoundError(f"{path} is incomplete: it must hold config.json and model.safetensors")
    codecs = [path for path in inside if path.name.startswith("codec")]
    models = [path for path in inside if path.name.startswith("lm")]
    if len(models) != 1 or len(codecs) > 1:
        raise FileNotFoundError(
            f"{folder} must hold one folder 'lm...' (and may hold one 'codec...') with config.json and "
            f"model.safetensors; found {[path.name for path in inside] or 'none'}"
        )
    return codecs[0] if codecs else find("embedded")[0], models[0]


def _is_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def _format(folder: Path) -> str:
    try:
        header = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(header.get("format", "")) if isinstance(header, dict) else ""
    except (OSError, ValueError):
        return ""  # the loader says what is wrong with it
