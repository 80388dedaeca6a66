"""Tempo from audio: spectral flux, periodicity, a comb over beats, and a choice among metrical levels.

The periodicity is the product of two views of the onset envelope: autocorrelation, which also rises at multiples of
the beat period, and the spectrum, which also rises at fractions of it; their product keeps what both see (Peeters,
"Time variable tempo detection and beat marking", 2005). The prior follows Ellis ("Beat tracking by dynamic
programming", 2007); which multiple is the beat is weighed in :mod:`descant.eval.metre`. Written for the judge alone:
nothing here labels or conditions what a generator learns from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.stft import mel_filters, stft
from . import metre

#: Values of the onset envelope a second.
ENVELOPE_RATE = 200
#: Multiples of the strongest periodicity that are considered whether or not they are peaks.
_RELATED = (0.5, 2.0, 1 / 3, 3.0, 2 / 3, 1.5, 0.25, 4.0)


@dataclass(frozen=True, kw_only=True)
class TempoSettings:
    """What the estimator expects of music."""

    low: float = 45.0
    """Slowest tempo considered, BPM."""
    high: float = 220.0
    """Fastest tempo considered, BPM."""
    centre: float = 120.0
    """Centre of the prior, BPM."""
    spread: float = 0.6
    """Standard deviation of the prior, octaves."""

    def __post_init__(self) -> None:
        if not 0 < self.low < self.centre < self.high:
            raise ValueError(f"need 0 < low < centre < high BPM, not {self.low}, {self.centre}, {self.high}")
        if self.spread <= 0:
            raise ValueError(f"spread is {self.spread}: it must be positive, in octaves")


@dataclass(frozen=True, kw_only=True)
class Tempo:
    """An estimate."""

    bpm: float
    """The best candidate; 0 when there is no periodicity at all (silence)."""
    candidates: tuple[tuple[float, float], ...]
    """(BPM, weight) of the metrical levels considered, best first, weights relative to the best."""
    strength: float
    """Autocorrelation of the onset envelope at the beat, -1 to 1: how regular the beat is."""


def onset_envelope(wav: Tensor, rate: int) -> Tensor:
    """How much new energy arrives, 200 values a second, mean 0 and deviation 1 (all zero for silence).

    wav: [T] or [C, T] at ``rate`` Hz -> [F]. Rectified rise of 40 log-mel bands over 15 ms, local mean removed.
    """
    return onset_envelopes(wav, rate)[0]


def onset_envelopes(wav: Tensor, rate: int) -> Tensor:
    """:func:`onset_envelope` and the same of the low, middle and high bands alone (``metre.BANDS``): [4, F]."""
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    level = mono.square().mean().sqrt()
    if mono.numel() < rate // 2 or not torch.isfinite(level) or float(level) < 1e-6:
        return torch.zeros(4, max(1, mono.numel() * ENVELOPE_RATE // rate))
    n_fft = 1 << round(math.log2(rate * 0.032))
    hop = rate // ENVELOPE_RATE
    top = min(11_000.0, rate / 2)
    filters = mel_filters(rate, n_fft, 40, 30.0, top)
    bands = torch.log1p(100 * (filters @ stft(mono / level, n_fft, hop).abs()))
    rise = (bands[:, 3:] - bands[:, :-3]).clamp(min=0)
    centres = filters.argmax(dim=1) * rate / n_fft
    groups = [torch.ones(40, dtype=torch.bool), *((centres >= low) & (centres < high) for low, high in metre.BANDS)]
    rows = [rise[group].mean(dim=0) if bool(group.any()) else torch.zeros(rise.shape[1]) for group in groups]
    rises = torch.nn.functional.pad(torch.stack(rows), (2, 1))
    width = ENVELOPE_RATE // 2 | 1
    mean = torch.nn.functional.avg_pool1d(rises[:, None], width, 1, width // 2, count_include_pad=False)[:, 0]
    flux = (rises - mean).clamp(min=0)
    flux = flux - flux.mean(dim=1, keepdim=True)
    return flux / flux.std(dim=1, keepdim=True).clamp(min=1e-9)


def tempo(wav: Tensor, rate: int, settings: TempoSettings | None = None) -> Tempo:
    """Estimate the tempo of [T] or [C, T] at ``rate`` Hz. Needs about 5 s; works best from 8 s on."""
    chosen = settings or TempoSettings()
    flux = onset_envelopes(wav, rate)
    if float(flux[0].abs().max()) == 0:
        return Tempo(bpm=0.0, candidates=(), strength=0.0)
    correlation = autocorrelation(flux[0])
    levels = metrical_levels(flux[0], chosen)
    if not levels:
        return Tempo(bpm=0.0, candidates=(), strength=0.0)
    bpm = torch.tensor(levels, dtype=torch.float64)
    chance = metre.choose(metre.measure(flux[0], flux[1:], 60 * ENVELOPE_RATE / bpm), log_prior(bpm, chosen))
    order = chance.argsort(descending=True)
    candidates = tuple((_refine(correlation, levels[i]), float(chance[i] / chance.max())) for i in order.tolist())
    strength = float(_at(correlation, torch.tensor([60 * ENVELOPE_RATE / candidates[0][0]], dtype=torch.float64)))
    return Tempo(bpm=candidates[0][0], candidates=candidates, strength=strength)


def metrical_levels(flux: Tensor, settings: TempoSettings) -> list[float]:
    """Candidate tempi in BPM of an onset envelope [F]: what it repeats at, and simple multiples of the strongest."""
    correlation = autocorrelation(flux)
    steps = int(math.log2(settings.high / settings.low) * 240)
    grid = settings.low * 2 ** (torch.arange(steps + 1, dtype=torch.float64) / 240)
    weight = _periodicity(flux, correlation, grid)
    weight = weight * log_prior(grid, settings).exp()
    ranked = sorted(((float(weight[i]), float(grid[i])) for i in _peaks(weight)), reverse=True)
    if not ranked or ranked[0][0] <= 0:
        return []
    best = ranked[0][1]
    wanted = [best, *(best * factor for factor in _RELATED), *(bpm for value, bpm in ranked[1:] if value > 0)]
    levels: list[float] = []
    for bpm in wanted:
        # ripples on one hill are one candidate
        fits = settings.low <= bpm <= settings.high
        if fits and len(levels) < 12 and all(abs(bpm / other - 1) > 0.03 for other in levels):
            levels.append(bpm)
    return levels


def log_prior(bpm: Tensor, settings: TempoSettings) -> Tensor:
    """Logarithm of the log-normal prior over tempi [G], 0 at its centre."""
    return -0.5 * (torch.log2(bpm / settings.centre) / settings.spread).square()


def relation(estimated: float, true: float, tolerance: float = 0.04) -> str:
    """Name how an estimate relates to the truth: ``exact``, a metrical multiple, or ``other``.

    Multiples are ``double``, ``half``, ``triple``, ``third``, ``3/2`` and ``2/3``. MIREX accuracy 1 counts ``exact``
    alone, accuracy 2 also the first four (Gouyon et al., 2006). Raises ValueError unless the truth is positive.
    """
    if true <= 0:
        raise ValueError(f"the true tempo is {true}: it must be positive")
    names = (("exact", 1.0), ("double", 2.0), ("half", 0.5), ("triple", 3.0), ("third", 1 / 3), ("3/2", 1.5),
             ("2/3", 2 / 3))  # fmt: skip
    for name, factor in names:
        if abs(estimated / (true * factor) - 1) <= tolerance:
            return name
    return "other"


def autocorrelation(flux: Tensor) -> Tensor:
    """Autocorrelation of an onset envelope [F] -> [F] (float64), each lag divided by its overlap, 1 at lag 0."""
    count = flux.numel()
    power = torch.fft.rfft(flux.double(), 2 * count).abs().square()
    raw = torch.fft.irfft(power, 2 * count)[:count]
    # the longest lags overlap too little to mean anything: damp them by never dividing by less than a quarter
    overlap = torch.arange(count, 0, -1, dtype=torch.float64).clamp(min=count / 4)
    value = raw / overlap
    scaled: Tensor = value / value[0].clamp(min=1e-12)
    return scaled


def _periodicity(flux: Tensor, correlation: Tensor, grid: Tensor) -> Tensor:
    """Non-negative weight [G] of each tempo of ``grid`` (BPM): comb over the autocorrelation times the spectrum."""
    lag = 60 * ENVELOPE_RATE / grid
    comb = torch.zeros_like(grid)
    for multiple in (1, 2, 3, 4):
        comb += _smooth_at(correlation, lag * multiple)
    comb = (comb / 4).clamp(min=0)
    size = 1 << (8 * flux.numel()).bit_length()
    spectrum = torch.fft.rfft(flux.double() * torch.hann_window(flux.numel(), dtype=torch.float64), size).abs()
    place = grid / 60 / ENVELOPE_RATE * size
    value = _at(spectrum, place)
    weight: Tensor = comb * (value / spectrum.max().clamp(min=1e-12)).pow(0.25)
    return weight


def _smooth_at(values: Tensor, place: Tensor) -> Tensor:
    """Largest of ``values`` within two steps of ``place``, so that swing and jitter still count."""
    return torch.stack([_at(values, place + step) for step in (-2, -1, 0, 1, 2)]).amax(dim=0)


def _at(values: Tensor, place: Tensor) -> Tensor:
    """Linear interpolation of ``values`` [N] at fractional ``place``; 0 beyond the end."""
    left = place.floor().long()
    share = place - left
    inside = (left >= 0) & (left + 1 < values.numel())
    left = left.clamp(0, values.numel() - 2)
    return torch.where(inside, values[left] * (1 - share) + values[left + 1] * share, 0.0)


def _peaks(values: Tensor) -> list[int]:
    inner = (values[1:-1] >= values[:-2]) & (values[1:-1] > values[2:])
    found: list[int] = (inner.nonzero().flatten() + 1).tolist()
    return found or [int(values.argmax())]


def _refine(correlation: Tensor, bpm: float) -> float:
    """Sharpen a tempo within 2 % by the long multiples of its period, where a small error adds up."""
    fine = bpm * 2 ** torch.linspace(-0.03, 0.03, 121, dtype=torch.float64)
    lag = 60 * ENVELOPE_RATE / fine
    total = torch.zeros_like(fine)
    for multiple in range(1, 17):
        total += _at(correlation, lag * multiple)
    return float(fine[total.argmax()])
