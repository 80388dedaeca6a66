"""Faster, slower, higher or lower: by the spectrum of the whole, or by a phase vocoder where pitch and tempo part.

The vocoder is Flanagan & Golden's ("Phase vocoder", 1966) as Laroche & Dolson describe it (1999, section II):
magnitudes are read at another speed, and phases go on at the frequency that was heard. All channels are turned by the
same angle, so that a stereo image stays where it is.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..codec.stft import analyse, synthesise

#: Lengths between the two steps are multiples of this: a thousandth of a semitone, and transforms that are fast.
_GRAIN = 20
#: Durations that differ by less than this share are one: below what a phase vocoder would spoil.
_SAME = 0.001


def resize(wav: Tensor, length: int) -> Tensor:
    """Play faster or slower: [..., T] -> [..., length], by cutting or padding the spectrum of the whole."""
    if wav.shape[-1] == length:
        return wav
    spectrum = torch.fft.rfft(wav)
    bins = length // 2 + 1
    spectrum = torch.nn.functional.pad(spectrum, (0, max(0, bins - spectrum.shape[-1])))[..., :bins]
    out: Tensor = torch.fft.irfft(spectrum, n=length) * (length / wav.shape[-1])
    return out


def stretch(wav: Tensor, length: int, semitones: float = 0.0, rate: int = 32000) -> Tensor:
    """Bring to another length and another pitch: wav [C, T] at ``rate`` Hz -> [C, length], ``semitones`` higher.

    Where the new length alone gives that pitch, as on a turntable, nothing but the speed is changed.
    """
    if not wav.shape[-1] or length < 1:
        raise ValueError(f"{wav.shape[-1]} samples cannot become {length}: both must be 1 or more")
    between = max(_GRAIN, round(length * 2 ** (semitones / 12) / _GRAIN) * _GRAIN)
    if abs(between / wav.shape[-1] - 1) > _SAME:
        wav = vocoder(wav, between, rate)
    return resize(wav, length)


def vocoder(wav: Tensor, length: int, rate: int = 32000) -> Tensor:
    """Longer or shorter at the same pitch: wav [C, T] at ``rate`` Hz -> [C, length]; frames are about 64 ms long."""
    before = wav.shape[-1]
    window = 1 << max(6, round(math.log2(0.064 * rate)))
    hop = window // 4
    spec = analyse(torch.nn.functional.pad(wav, (0, -before % hop)), window, hop)  # [C, J, bins]
    frames = -(-length // hop)
    # frames are centred on their hops
    place = ((torch.arange(frames, dtype=torch.float64) + 0.5) * before / length - 0.5).clamp(0, spec.shape[1] - 1)
    left = place.floor().long()
    right = (left + 1).clamp(max=spec.shape[1] - 1)
    share = (place - left)[None, :, None].float()
    size = spec.abs()
    size = (1 - share) * size[:, left] + share * size[:, right]
    phase = spec.angle().double()
    lead = _lead(spec).angle().double()
    # what a bin turns by in a hop: its own frequency, and what was heard beyond that
    own = 2 * math.pi * hop / window * torch.arange(spec.shape[2], dtype=torch.float64)
    beyond = lead[right] - lead[left] - own
    step = own + beyond - 2 * math.pi * (beyond / (2 * math.pi)).round()
    turned = lead[left[:1]] + torch.cat([torch.zeros_like(step[:1]), step[:-1].cumsum(0)])
    angle = (phase[:, left] + (turned - lead[left])).remainder(2 * math.pi).float()
    return synthesise(torch.polar(size, angle), window, hop)[:, :length]


def _lead(spec: Tensor) -> Tensor:
    """One spectrum [J, bins] that phases are taken from: the sum of the channels, or what they differ by if louder."""
    if len(spec) == 1:
        return spec[0]
    middle, side = spec.mean(0), spec[0] - spec[1]
    return middle if float(middle.abs().square().sum()) >= 0.25 * float(side.abs().square().sum()) else side
