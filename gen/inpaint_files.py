"""A stretch of a file played anew, and loops as files. Files of any length: only what is near the stretch is held."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..codec.formats import rate_for
from ..codec.sink import sound
from . import inpaint as verbs
from . import stem_files
from .generate import Music, Progress
from .request import Request

if TYPE_CHECKING:
    from .load import Studio


def inpaint_file(
    studio: Studio, source: str | os.PathLike[str], target: str | os.PathLike[str], stretch: tuple[float, float],
    request: Request | None = None, progress: Progress | None = None,
) -> Music:  # fmt: skip
    """:func:`descant.gen.inpaint.inpaint` of a file of any length into another; the result's ``wav`` is the stretch.

    The rate stays that of ``source`` unless the format of ``target`` does not know it.
    """
    verbs.check(studio)
    start, end = stretch
    verbs.check_stretch(start, end)
    about = audio.info(source)
    rate = rate_for(target, about.rate)
    first, last = verbs.near(studio, start, end, rate)
    given = _window(source, rate, first, last)
    if given.shape[-1] < last - first:  # the end was met: the length is known
        verbs.check_stretch(start, end, (first + given.shape[-1]) / rate)
    shift = first / rate
    made = verbs.played(studio, Audio(given, rate), start - shift, end - shift, request, progress)
    place = 0
    length = round(about.samples * rate / about.rate)
    with sound(target, rate, about.channels, samples=length, like=source) as out:
        for block in audio.blocks(source, rate=rate):
            low, high = max(place, first), min(place + block.shape[-1], first + given.shape[-1])
            if low < high:
                block[:, low - place : high - place] = made.wav[:, low - first : high - first]
            out.add(block)
            place += block.shape[-1]
    wav = made.wav[:, round(start * rate) - first : round(end * rate) - first]
    return replace(made, wav=wav, notes=(*made.notes, *_resampled(target, about.rate)))


def loop_file(
    studio: Studio, source: str | os.PathLike[str], target: str | os.PathLike[str], request: Request | None = None, *,
    seconds: float | None = None, times: int = 1, progress: Progress | None = None,
) -> Music:  # fmt: skip
    """:func:`descant.gen.inpaint.loop` of a file into another, played ``times`` times; the result is one round."""
    given = stem_files.read(source)
    made = verbs.loop(studio, given, request, seconds, progress)
    samples = made.wav.shape[-1] * times
    with sound(target, given.rate, given.wav.shape[0], samples=samples, like=source) as out:
        for _ in range(times):
            out.add(made.wav)
    notes = _resampled(target, given.rate)
    if Path(target).suffix.lower() == ".mp3":
        notes.append("MP3 files begin and end with a little silence: write .wav, .flac or .ogg to loop without a gap")
    return replace(made, notes=(*made.notes, *notes))


def _window(source: str | os.PathLike[str], rate: int, first: int, last: int) -> Tensor:
    """Samples ``first`` to ``last`` of a file at ``rate``, [C, T]; shorter where the file ends, empty beyond it."""
    held, place = [torch.zeros(audio.info(source).channels, 0)], 0
    for block in audio.blocks(source, rate=rate):
        if place + block.shape[-1] > first:  # even an empty view would keep its block in memory
            held.append(block[:, max(0, first - place) : last - place].clone())
        place += block.shape[-1]
        if place >= last:
            break
    return torch.cat(held, 1)


def _resampled(target: str | os.PathLike[str], rate: int) -> list[str]:
    known = rate_for(target, rate)
    kind = Path(target).suffix
    return [] if known == rate else [f"resampled from {rate} to {known} Hz, which {kind} files can hold"]
