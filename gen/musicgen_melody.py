"""The melody that a MusicGen follows: any sound, checked once, and what of it belongs to a window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..lm import chroma
from .fit import mono
from .melody import check
from .request import RequestError

#: Shortest sound that is followed, s: about one frame of the model's ear.
SHORTEST = 0.5
_SILENCE = 1e-4  # -80 dB of full scale


@dataclass(frozen=True)
class Lead:
    """A melody, mono [1, T] at 32 kHz."""

    wav: Tensor

    def whole(self) -> Tensor:
        """Its first 30 s as pitch classes [1, F, 12], as the transformers library has it.

        Where it is shorter, the model begins it again after its last frame, which is up to an eighth of a second late.
        """
        return chroma.chroma(self.wav)

    def window(self, start: float) -> Tensor:
        """30 s of it from ``start`` seconds on, begun again where it ends, as AudioCraft has it: [1, F, 12]."""
        place = torch.arange(chroma.LONGEST * chroma.RATE) + round(start * chroma.RATE)
        return chroma.chroma(self.wav[:, place % self.wav.shape[1]])


def lead(melody: Audio | Tensor, seconds: float | None) -> tuple[Lead, tuple[str, ...]]:
    """The melody given for ``seconds`` of music (None: endless), and what to know about it.

    Raises RequestError for a melody as numbers, ValueError for sound without a tune.
    """
    if isinstance(melody, Tensor):
        raise RequestError("MusicGen takes a melody as sound, not as numbers: give descant.read(...) of a file")
    wav, length = melody.wav.float(), melody.wav.shape[-1] / melody.rate
    if length < SHORTEST:
        raise ValueError(f"the melody lasts {length:.2f} s: give {SHORTEST:g} s or more")
    if float(wav.abs().max()) < _SILENCE:
        raise ValueError("the melody is silent: there is nothing to follow")
    one = mono(wav)
    if seconds is not None:  # what lies beyond the music is not followed, and need not be held
        one = one[:, : math.ceil((seconds + chroma.LONGEST) * melody.rate)]
    one = audio.resample(one, melody.rate, chroma.RATE)
    check(one, chroma.RATE)
    notes: tuple[str, ...] = ()
    if seconds is None or length < seconds - 0.05:
        notes = (f"the melody lasts {length:.1f} s and is begun again where it ends",)
    elif length > seconds + 0.05:
        notes = (f"the melody lasts {length:.1f} s: its first {seconds:g} s are followed",)
    return Lead(one), notes
