"""Which notes sound when: a spectrogram explained by harmonic templates, non-negative and frame by frame.

Each frame of a log-frequency spectrum is written as a sum of notes (a fundamental and falling partials, smeared as the
window smears them) and of broad hills that take up drums and noise, by the multiplicative updates for the
Kullback-Leibler divergence (Lee & Seung, 2001) with the templates held fixed, as in NNLS chroma (Mauch & Dixon,
"Approximate note transcription for the improved identification of difficult chords", 2010). No weights are trained,
and nothing is shared with the chroma that conditions a generator.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.stft import stft

#: Lowest and highest note of the templates, MIDI.
LOWEST, HIGHEST = 28, 100
_PER_SEMITONE = 3
_CEILING = 112
_PARTIALS = 12
_HILLS = 10


@dataclass(frozen=True, kw_only=True)
class PitchSettings:
    """Frames and templates."""

    window: float = 0.19
    """Seconds of a frame, rounded to a power of two samples; longer for low notes and chords, shorter for runs."""
    hop: float = 0.02
    """Seconds from frame to frame, before rounding to samples."""
    decays: tuple[float, ...] = (0.5, 0.8)
    """Partial h has strength decay ** (h - 1); a note may mix these shapes."""
    rounds: int = 30
    """Multiplicative updates."""

    def __post_init__(self) -> None:
        if not (0.02 <= self.window <= 2 and 0.002 <= self.hop <= self.window):
            raise ValueError(f"window {self.window} s must lie in 0.02..2, hop {self.hop} s between 2 ms and a window")
        if not self.decays or not all(0 < decay < 1 for decay in self.decays) or self.rounds < 1:
            raise ValueError(f"decays {self.decays} must lie in 0..1 and rounds {self.rounds} be at least 1")


@dataclass(frozen=True, kw_only=True)
class NoteMap:
    """Strength of every note over time."""

    strength: Tensor
    """[HIGHEST - LOWEST + 1, F], amplitude-like, as loud as the music is after levelling to unit power."""
    hop: float
    """Seconds from frame to frame; frame j is centred on j * hop."""

    def chroma(self, low: int = LOWEST, high: int = HIGHEST) -> Tensor:
        """Strength folded into pitch classes [12, F] over notes ``low`` to ``high``, row 0 = C."""
        table = torch.zeros(12, self.strength.shape[1])
        for note in range(max(low, LOWEST), min(high, HIGHEST) + 1):
            table[note % 12] += self.strength[note - LOWEST]
        return table


def notes(wav: Tensor, rate: int, settings: PitchSettings | None = None, tuning: float = 0.0) -> NoteMap:
    """Note strengths of [T] or [C, T] at ``rate`` Hz, A4 = 440 Hz raised by ``tuning`` cents. Silence gives zeros."""
    chosen = settings or PitchSettings()
    n_fft = 1 << round(math.log2(rate * chosen.window))
    hop = max(1, round(rate * chosen.hop))
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    count = 1 + mono.numel() // hop
    level = mono.square().mean().sqrt() if mono.numel() else torch.zeros(())
    seconds = hop / rate
    if not torch.isfinite(level) or float(level) < 1e-6:
        return NoteMap(strength=torch.zeros(HIGHEST - LOWEST + 1, count), hop=seconds)
    spec = stft(mono / level, n_fft, hop).abs() * (2 / n_fft)
    bank = _log_filters(rate, n_fft)
    # the square root keeps loud partials from deciding alone
    heard = (bank @ spec).sqrt()
    templates = _templates(rate, n_fft, chosen.decays, round(tuning, 1))
    strength = _explain(heard, templates, chosen.rounds)
    shapes = len(chosen.decays)
    folded = strength[: shapes * (HIGHEST - LOWEST + 1)].reshape(shapes, -1, strength.shape[1]).sum(dim=0)
    return NoteMap(strength=folded.square(), hop=seconds)


def _explain(heard: Tensor, templates: Tensor, rounds: int) -> Tensor:
    """Non-negative strengths [R, F] with templates [bins, R] @ strengths ~ heard [bins, F]."""
    strength = (templates.T @ heard) / templates.square().sum(dim=0)[:, None]
    for _ in range(rounds):
        made = (templates @ strength).clamp(min=1e-9)
        strength = strength * (templates.T @ (heard / made))
    return strength


@functools.lru_cache(maxsize=8)
def _log_filters(rate: int, n_fft: int) -> Tensor:
    """Triangles a third of a semitone apart, [bins, n_fft // 2 + 1]; where bins are wider, a triangle is two bins."""
    centres = LOWEST - 2 + torch.arange((_CEILING - LOWEST + 2) * _PER_SEMITONE, dtype=torch.float64) / _PER_SEMITONE
    hertz = 440 * 2 ** ((centres - 69) / 12)
    bins = hertz / rate * n_fft
    width = (bins * (2 ** (1 / 12 / _PER_SEMITONE) - 1)).clamp(min=1.0)
    places = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    triangle = (1 - (places[None] - bins[:, None]).abs() / width[:, None]).clamp(min=0)
    inside = bins < n_fft // 2
    return (triangle * inside[:, None]).float()


@functools.lru_cache(maxsize=8)
def _templates(rate: int, n_fft: int, decays: tuple[float, ...], tuning: float) -> Tensor:
    """Notes in every shape, then hills of noise: [bins, len(decays) * notes + hills], columns sum to 1."""
    bank = _log_filters(rate, n_fft)
    places = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    columns = []
    for decay in decays:
        for note in range(LOWEST, HIGHEST + 1):
            first = 440 * 2 ** ((note - 69 + tuning / 100) / 12) / rate * n_fft
            spectrum = torch.zeros(n_fft // 2 + 1, dtype=torch.float64)
            for partial in range(1, _PARTIALS + 1):
                if first * partial < n_fft // 2 - 2:
                    spectrum += decay ** (partial - 1) * _lobe(places - first * partial)
            columns.append((bank @ spectrum.float()).sqrt())
    axis = torch.linspace(0, 1, bank.shape[0])
    for hill in torch.linspace(0, 1, _HILLS):
        columns.append(torch.exp(-0.5 * ((axis - hill) * _HILLS / 1.2).square()) * bank.sum(dim=1).sqrt())
    table = torch.stack(columns, dim=1)
    return table / table.sum(dim=0).clamp(min=1e-9)


def _lobe(distance: Tensor) -> Tensor:
    """Main lobe of a Hann window, 1 in the middle, 0 two bins away."""
    near = distance.abs().clamp(max=2 - 1e-9)
    lobe = torch.sinc(near) / (1 - near.square()).where((near - 1).abs() > 1e-6, torch.inf)
    lobe = torch.where((near - 1).abs() <= 1e-6, 0.5, lobe)
    return lobe.abs() * (distance.abs() < 2)
