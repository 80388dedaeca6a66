"""Given music from files, no longer than can be worked on; accompaniments into files that add up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..codec.formats import rate_for
from ..codec.sink import sound
from .request import DURATION_LIMITS

if TYPE_CHECKING:
    from .accompany import Accompaniment

#: Most samples, of all channels, that are read from one file: ten minutes of stereo at 96 kHz and a little more.
VALUES = 1 << 27
#: Before a role, in the name of a file: a stem that was added.
NEW = "new-"
_FINER = ("PCM_32", "FLOAT", "DOUBLE")


def check_length(path: str | os.PathLike[str]) -> audio.AudioInfo:
    """What a file is. Raises ValueError for one that is too long to be worked on, by its header, or no sound."""
    about = audio.info(path)
    _limit(path, about.samples, about)
    return about


def read(path: str | os.PathLike[str]) -> Audio:
    """The whole of a sound file. Raises ValueError for a longer one than can be worked on, without holding it."""
    about = check_length(path)
    most = min(DURATION_LIMITS[1] + 1, VALUES / (about.rate * about.channels) + 1)
    found = audio.read(path, duration=most)  # a header's word on the length is not taken
    _limit(path, found.wav.shape[-1], about)
    return found


def _limit(path: str | os.PathLike[str], samples: int, about: audio.AudioInfo) -> None:
    seconds = samples / about.rate
    if seconds > DURATION_LIMITS[1]:
        raise ValueError(
            f"{path} lasts {seconds:,.0f} s: at most {DURATION_LIMITS[1]:g} s can be worked on at once; cut it"
        )
    if samples * about.channels > VALUES:
        raise ValueError(
            f"{path} holds {samples * about.channels:,} samples in its {about.channels} channels at {about.rate} Hz: "
            f"at most {VALUES:,} can be worked on at once; cut it, or lower its rate"
        )


def together(sounds: Sequence[Audio]) -> Audio:
    """Sounds added up: at the first one's rate, in as many channels and as long as any of them needs."""
    rate, channels = sounds[0].rate, max(one.wav.shape[0] for one in sounds)
    wavs = [audio.to_channels(audio.resample(one.wav, one.rate, rate), channels) for one in sounds]
    length = max(wav.shape[-1] for wav in wavs)
    return Audio(torch.stack([torch.nn.functional.pad(wav, (0, length - wav.shape[-1])) for wav in wavs]).sum(0), rate)


def write(
    made: Accompaniment, mix: str | os.PathLike[str] | None, folder: str | os.PathLike[str] | None = None, *,
    only_new: bool = False, suffix: str = "wav", sources: Iterable[str | os.PathLike[str]] = (),
) -> tuple[dict[str, Path], list[str]]:  # fmt: skip
    """Write the mix to a file, and every stem to a file in ``folder``: files by stem, and what there is to know.

    The stems add up to the mix: where one of the files would clip, all are turned down alike. only_new: of the new
    stems alone. suffix: of the stems. sources: files that were given; the samples of new ones are no coarser. All
    files appear together, when everything is written.
    """
    new = {f"{NEW}{role}": wav for role, wav in made.added.items()}
    stems = new if only_new else {**made.given, **new}
    rows: dict[Path, Tensor] = {}
    if mix is not None:
        rows[Path(mix)] = torch.stack(list(stems.values())).sum(0)
    files = {} if folder is None else {name: Path(folder) / f"{name}.{suffix}" for name in stems}
    rows.update((path, stems[name]) for name, path in files.items())
    peak = max(float(wav.abs().max()) for wav in rows.values())
    gain, notes = min(1.0, 0.999 / peak) if peak > 1 else 1.0, []
    if peak > 1:
        what = "the mix and all stems are" if mix is not None and files else "it is" if mix is not None else "all are"
        notes.append(f"{what} turned down by {20 * torch.tensor(1 / gain).log10():.1f} dB, so that nothing clips")
    if mix is not None and rate_for(mix, made.rate) != made.rate:
        kind = Path(mix).suffix
        notes.append(f"resampled from {made.rate} to {rate_for(mix, made.rate)} Hz, which {kind} files can hold")
    finest = next((path for path in sources if audio.info(path).format.endswith(_FINER)), None)
    if files:
        Path(folder or "").mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        for path, wav in rows.items():
            _add(stack, path, wav * gain, (made.rate, finest))
    return files, notes


def _add(stack: contextlib.ExitStack, path: Path, wav: Tensor, kind: tuple[int, str | os.PathLike[str] | None]) -> None:
    rate, like = kind
    sink = stack.enter_context(sound(path, rate, wav.shape[0], samples=wav.shape[-1], like=like))
    sink.add(wav)


def gathered(files: Mapping[str, Sequence[Path]]) -> dict[str, Audio]:
    """Stems by role from the files of each."""
    return {role: together([read(path) for path in paths]) for role, paths in files.items()}
