"""musicnn (Pons and Serra, "musicnn: pre-trained CNNs for music audio tagging", 2019): 50 tags and 200 numbers for 3 s.

An independent judge that works offline: code and weights come with the package ``musicnn`` (ISC licence), of which only
the checkpoint files are read; neither it nor TensorFlow is imported. Its networks react to the level, so the recipe
should set one, as those of ``descant-v1`` do.
"""

from __future__ import annotations

import importlib.util
import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from ...codec.stft import mel_filters, stft
from . import tensorbundle
from .ear import Ear, Tagger, digest, filled
from .musicnn_nets import BANDS, FRAMES, Musicnn, Vgg, names, turned

#: Environment variable that names the wheel or the folder.
VARIABLE = "DESCANT_MUSICNN"
_RATE, _N_FFT, _HOP = 16_000, 512, 256
#: The largest number of float16, and where rounding begins to give infinity.
_HALF_MAX, _HALF_END = 65_504.0, 65_520.0
_INDEX, _DATA = ".index", ".data-00000-of-00001"
#: Bytes the data of a model may have; the largest has 9.5 million.
_DATA_LIMIT = 64 << 20

#: The 50 most frequent tags of MagnaTagATune and of the Million Song Dataset, in the networks' order.
TAGS: Mapping[str, tuple[str, ...]] = {
    "MTT": (
        "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
        "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
        "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo",
        "man", "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello",
        "no voice", "weird", "country", "metal", "female voice", "choral",
    ),
    "MSD": (
        "rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s", "alternative rock",
        "jazz", "beautiful", "metal", "chillout", "male vocalists", "classic rock", "soul", "indie rock", "Mellow",
        "electronica", "80s", "folk", "90s", "chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient",
        "acoustic", "experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country", "easy listening",
        "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock", "60s", "rnb", "indie pop", "sad",
        "House", "happy",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Model:
    """One of the package's checkpoints."""

    judge: str
    """The judge's name in recipes."""
    data: str
    """What it was trained on, a key of :data:`TAGS`."""
    plain: bool = False
    """Whether it is the plain stack (vgg)."""


#: The checkpoints by the names of their folders.
MODELS: Mapping[str, Model] = {
    "MTT_musicnn": Model(judge="musicnn-mtt", data="MTT"),
    "MSD_musicnn": Model(judge="musicnn-msd", data="MSD"),
    "MTT_vgg": Model(judge="musicnn-mtt-vgg", data="MTT", plain=True),
    "MSD_vgg": Model(judge="musicnn-msd-vgg", data="MSD", plain=True),
}


class Tags(Tagger):
    """The judge's tags: ``embed`` gives logits [B, 50] for a Bernoulli KL; ``tags`` are their names."""

    def __init__(self, ear: Ear, tags: tuple[str, ...]) -> None:
        super().__init__(ear, len(tags))
        self.tags = tags


class MusicNN(Ear):
    """The judge; see :func:`load`. Windows of 3 s, as it was trained on."""

    rate, rows, window = _RATE, 4, 3.0

    def __init__(self, model: Model, network: nn.Module, digest: str) -> None:
        super().__init__(model.judge, network, digest)
        self.model, self.dim = model, Vgg.dim if model.plain else Musicnn.dim

    @property
    def tags(self) -> tuple[str, ...]:
        """Names of the 50 tags, in order."""
        return TAGS[self.model.data]

    @property
    def tagger(self) -> Tags:
        """The same network's tags, as logits."""
        return Tags(self, self.tags)

    def hear(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """wav [B, T] -> tag logits [B, 50], vectors [B, 200] (vgg: [B, 256]).

        T below one transform (512) is refused; vgg takes 3 s only (187 frames of 256 samples and less than one more).
        """
        length = wav.shape[1]
        if self.model.plain and length // _HOP != FRAMES:
            raise ValueError(f"{self.id} hears windows of 3 s, not of {length / _RATE:g} s: use musicnn-mtt or -msd")
        if length < _N_FFT:
            raise ValueError(f"{self.id} needs windows of at least {_N_FFT} samples at {_RATE} Hz, not {length}")
        found: tuple[Tensor, Tensor] = self.network(patches(wav))
        return found


def patches(wav: Tensor) -> Tensor:
    """Log-mel as musicnn's ``batch_data``: wav [B, T] at 16 kHz -> [B, T // 256, 96], multiples of float16's steps.

    Slaney mel power of centred 512-point Hann frames with mirrored edges (librosa's defaults when the weights were
    trained), then log10(1 + 10000 x), every step rounded to float16. There 10000 x overflows to infinity from
    x = 6.55 on, a loud bass note, and the network makes nonsense of it; here the logarithm goes on in float32.
    """
    frames = wav.shape[1] // _HOP
    power = stft(wav, _N_FFT, _HOP)[..., :frames].abs().square()
    mel = (mel_filters(_RATE, _N_FFT, BANDS).to(wav) @ power).transpose(1, 2)
    scaled = _half(mel.clamp(max=_HALF_MAX)) * 10_000
    return _half((_half(_half(scaled) + 1)).log10())


def _half(x: Tensor) -> Tensor:
    """Rounded to float16 where that is finite."""
    return torch.where(x < _HALF_END, x.clamp(max=_HALF_MAX).half().float(), x)


def load(path: str | os.PathLike[str] | None = None, model: str = "MTT_musicnn") -> MusicNN:
    """The judge with the weights of one of :data:`MODELS`.

    path: the wheel, the unpacked or installed package, or the model's own folder; without it the variable
    DESCANT_MUSICNN, then the installed package. Raises FileNotFoundError when there are no weights, ValueError for an
    unknown model and for files that are damaged or of another model.
    """
    if model not in MODELS:
        raise ValueError(f"musicnn has no model {model!r}; there are {', '.join(MODELS)}")
    kind = MODELS[model]
    source = _source(path)
    with torch.device("meta"):
        network = Vgg() if kind.plain else Musicnn()
    try:
        with _opened(source, model) as (index, data):
            arrays = tensorbundle.read(index.read(tensorbundle.INDEX_LIMIT + 1), data, names(network).values())
        # a copy: torch wants arrays that can be written to
        state = turned(network, {name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    except ValueError as error:
        raise ValueError(f"{source}, {model}: {error}") from error
    return MusicNN(kind, filled(network, state, f"{source}, {model}"), digest(state))


def _source(path: str | os.PathLike[str] | None) -> Path:
    """The wheel or folder that is meant."""
    given = path if path is not None else os.environ.get(VARIABLE)
    if given:
        if not Path(given).exists():
            said = f" ({VARIABLE})" if path is None else ""
            raise FileNotFoundError(f"{given}{said}: no such file or folder; name musicnn's wheel or folder")
        return Path(given)
    # looked up, not imported: importing the package imports TensorFlow
    spec = importlib.util.find_spec("musicnn")
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        return Path(folder)
    raise FileNotFoundError(
        "the judge musicnn needs the weights in the package musicnn: pip install --no-deps musicnn==0.1.0, or name its "
        f"wheel or folder by path or in {VARIABLE}"
    )


@contextmanager
def _opened(source: Path, model: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Index and data of a checkpoint, open."""
    if source.is_file():
        yield _member(source, model, _INDEX, tensorbundle.INDEX_LIMIT), _member(source, model, _DATA, _DATA_LIMIT)
        return
    folders = [source / model, source / "musicnn" / model]
    if source.name == model or source.name not in MODELS:
        folders.append(source)
    folder = next((folder for folder in folders if (folder / _INDEX).is_file() and (folder / _DATA).is_file()), None)
    if folder is None:
        raise FileNotFoundError(f"{source} has no {model}/{_INDEX} and {model}/{_DATA}: name musicnn's wheel or folder")
    with ExitStack() as stack:
        yield stack.enter_context((folder / _INDEX).open("rb")), stack.enter_context((folder / _DATA).open("rb"))


def _member(wheel: Path, model: str, file: str, limit: int) -> BinaryIO:
    """A file of the wheel, unpacked in memory."""
    name = f"musicnn/{model}/{file}"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(name) as packed:
            content = packed.read(limit + 1)
    except KeyError as error:
        raise FileNotFoundError(f"{wheel} has no {name}: name the wheel of musicnn 0.1.0") from error
    # RuntimeError (or a kind of it) is how zipfile names an encrypted member and an unknown compression
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(f"no wheel, or damaged ({error}): name the wheel of musicnn 0.1.0") from error
    if len(content) > limit:
        raise ValueError(f"{name} has more than {limit} bytes: name the wheel of musicnn 0.1.0")
    return io.BytesIO(content)
