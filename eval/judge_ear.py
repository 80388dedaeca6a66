"""What the judge hears of a clip: timbre from a log-mel picture, rhythm from its flux, harmony from semitones.

The front end is a function of powers, which add up where sounds do not interfere: a recipe may mix stems by adding
their powers and never touch a waveform. Timbre goes through a convolutional network (after Kong et al., "PANNs", 2020,
at a twentieth of the size). Rhythm is the autocorrelation of the picture's flux in four registers over lags evenly
spaced in log time, harmony a network whose convolutions turn round the twelve pitch classes, so that a transposed clip
gives a transposed answer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..codec import stft

RATE = 32_000
HOP = 640
"""Samples from one frame of the picture to the next: 50 frames a second."""
BANDS = 128
SLOW = 6400
"""Samples from one frame of semitones to the next: five a second."""
OCTAVES = 6
"""From C2 (65 Hz) on."""
_N_FFT, _LONG = 2048, 8192
_FLOOR = 1e-5
_REGISTERS, _LAGS = 4, 96
#: Lags of the rhythm, in frames: 0.2 to 2.4 s.
_FIRST, _LAST = 10.0, 120.0


@dataclass(frozen=True, kw_only=True)
class Heard:
    """The front end's output for B clips."""

    mel: Tensor
    """Power in mel bands [B, 128, F], 50 frames a second."""
    semitones: Tensor
    """Power in semitones from C2 on [B, 72, G], five frames a second."""


def hear(wav: Tensor) -> Heard:
    """Clips [B, T] at 32 kHz, at least 1 s long -> :class:`Heard`. Raises ValueError for shorter ones."""
    if wav.dim() != 2 or wav.shape[1] < RATE:
        raise ValueError(f"the judge hears clips [B, T] of 1 s or more at {RATE} Hz, got {tuple(wav.shape)}")
    power = stft.stft(wav, _LONG, SLOW).abs().square()
    return Heard(mel=stft.mel(wav, RATE, _N_FFT, HOP, BANDS)[..., :-1], semitones=(_semitones() @ power)[..., :-1])


class Ear(nn.Module):
    """Powers -> vectors of timbre, rhythm and harmony, and the logits of keys that come of harmony alone."""

    def __init__(self, width: int, timbre: int, rhythm: int, tonal: int) -> None:
        super().__init__()
        sizes = (width, 2 * width, 4 * width, 8 * width)
        self.first = nn.Sequential(
            nn.Conv2d(1, width, (5, 7), stride=(2, 4), padding=(2, 3), bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(*(_block(a, b) for a, b in pairwise(sizes)))
        self.mix = nn.Sequential(nn.Conv1d(sizes[-1] * (BANDS // 16), timbre, 1), nn.ReLU())
        self.beat = nn.Sequential(nn.Linear(_REGISTERS * _LAGS, 192), nn.ReLU(), nn.Linear(192, rhythm), nn.ReLU())
        self.turn = nn.Conv2d(OCTAVES, tonal, (12, 1))
        self.turned = nn.Conv2d(tonal, tonal, (12, 1))
        self.modes = nn.Conv1d(tonal, 2, 1)

    def forward(self, heard: Heard) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> timbre [B, D1], rhythm [B, D2], harmony [B, D3 * 12] and logits of keys [B, 24] (12 major, 12 minor)."""
        level = heard.mel.mean(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        picture = (heard.mel / level + _FLOOR).log10()
        x = self.blocks(self.first(picture[:, None])).flatten(1, 2)
        x = self.mix(x)
        timbre = x.mean(dim=-1) + x.amax(dim=-1)
        harmony = self._harmony(heard.semitones)
        return timbre, self.beat(rhythm(picture)), harmony.flatten(1), self.modes(harmony).flatten(1)

    def _harmony(self, semitones: Tensor) -> Tensor:
        """Powers [B, 72, G] -> [B, D3, 12], turned with the music."""
        share = semitones / semitones.sum(dim=1, keepdim=True).clamp(min=1e-12)
        x = share.clamp(max=1.0).sqrt()
        x = x.reshape(len(x), OCTAVES, 12, -1)
        x = functional.relu(self.turn(functional.pad(x, (0, 0, 0, 11), mode="circular")))
        x = x.mean(dim=-1, keepdim=True)
        out: Tensor = functional.relu(self.turned(functional.pad(x, (0, 0, 0, 11), mode="circular")))[..., 0]
        return out


def rhythm(picture: Tensor) -> Tensor:
    """Log-mel [B, 128, F] -> autocorrelation of its rising flux [B, 4 registers x 96 lags], 1 at lag 0."""
    flux = (picture[..., 1:] - picture[..., :-1]).float().clamp(min=0)
    flux = flux.reshape(len(flux), _REGISTERS, -1, flux.shape[-1]).mean(dim=2)
    flux = flux - flux.mean(dim=-1, keepdim=True)
    frames = flux.shape[-1]
    size = 1 << (frames + int(_LAST) + 1).bit_length()
    power = torch.fft.rfft(flux, size).abs().square()
    correlation = torch.fft.irfft(power, size)[..., : int(_LAST) + 2]
    # later lags have fewer products in their sum
    count = (frames - torch.arange(correlation.shape[-1], device=flux.device)).clamp(min=1) / frames
    correlation = correlation / count / correlation[..., :1].clamp(min=1e-9)
    low, share = _lags(flux.device)
    out: Tensor = ((1 - share) * correlation[..., low] + share * correlation[..., low + 1]).flatten(1)
    return out


@functools.lru_cache(maxsize=4)
def _lags(device: torch.device) -> tuple[Tensor, Tensor]:
    lag = _FIRST * (_LAST / _FIRST) ** (torch.arange(_LAGS) / (_LAGS - 1))
    low = lag.floor().clamp(max=_LAST).long()
    return low.to(device), (lag - low).to(device)


@functools.lru_cache(maxsize=1)
def _semitones() -> Tensor:
    """Triangular bank [72, bins] over semitones, its first row at C2."""
    hertz = torch.arange(_LONG // 2 + 1, dtype=torch.float64) * RATE / _LONG
    pitch = 69 + 12 * torch.log2(hertz.clamp(min=1e-3) / 440)
    rows = 36 + torch.arange(12 * OCTAVES, dtype=torch.float64)
    return (1 - (pitch[None] - rows[:, None]).abs()).clamp(min=0).float()


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(), nn.AvgPool2d(2)
    )
