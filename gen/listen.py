"""What is heard in given music: its tempo with the place of the beats, and its key.

Conditions for music that is to fit what a person brings. (What music is *judged* by is in the ``eval`` room, made
otherwise on purpose.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..codec.stft import chroma_filters, mel, stft
from ..lm.vocab import KEYS

#: Slowest and fastest tempo that is looked for, quarter notes a minute.
TEMPI = (40.0, 240.0)
#: Values of the onset curve a second.
_CURVE = 100
_STEPS = 900
#: Harmonics of the beat and what they count: beats, and notes two, three and four times as fast.
_HARMONICS = ((1, 1.0), (2, 1.0), (3, 0.5), (4, 1.0))
#: Where tempi gather: centre and width in octaves.
_PRIOR = (110.0, 0.8)
_SILENCE = 1e-4
#: Major and minor: how much each degree above the tonic sounds (Albrecht & Shanahan, 2013).
_PROFILES = (
    (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
)
#: Least deviation of the pitch classes, of their mean: noise has 0.1 to 0.33, music 0.5 and more.
_EVEN = 0.36
#: Hz: above it are more overtones than notes.
_HIGHEST = 1000.0


@dataclass(frozen=True)
class Beat:
    """A steady beat."""

    tempo: float
    """Quarter notes a minute."""
    offset: float
    """Seconds from the beginning to the first beat."""
    strength: float
    """How much of the onset curve goes with the beat, 0 to 1; single clicks have about 0.15, noise 0.02."""


@dataclass(frozen=True)
class Key:
    """A key."""

    name: str
    """As in :data:`descant.lm.vocab.KEYS`."""
    margin: float
    """How much better it fits than the next best key, as a difference of correlations."""


def beat(wav: Tensor, rate: int, tempo: float | None = None) -> Beat | None:
    """The steady beat of wav [C, T], at ``tempo`` where it is known; None where there is none to be heard.

    The onset curve is compared with waves at each tempo and at two, three and four times its rate (a Fourier tempogram,
    Grosche, Müller & Kurth, 2010); where the waves' crests meet is the beat. Tempi near 110 are preferred among those
    that are multiples of each other.
    """
    curve, pace = onsets(wav, rate)
    length = len(curve) / pace
    if length < 1.5 or float(curve.std()) <= 0:
        return None
    if tempo is None:
        grid = torch.exp(torch.linspace(math.log(TEMPI[0]), math.log(TEMPI[1]), _STEPS, dtype=torch.float64))
        near = torch.exp(-0.5 * ((grid / _PRIOR[0]).log2() / _PRIOR[1]) ** 2)
        best = float(grid[(_fit(curve, pace, grid)[0] * near).argmax()])
        # then as finely as the length allows
        reach = 60.0 / length / 2
        grid = torch.linspace(max(TEMPI[0], best - reach), min(TEMPI[1], best + reach), 101, dtype=torch.float64)
        tempo = float(grid[_fit(curve, pace, grid)[0].argmax()])
    total, waves = _fit(curve, pace, torch.tensor([tempo], dtype=torch.float64))
    places = torch.linspace(0, 1, 241, dtype=torch.float64)[:-1]
    crests = torch.zeros_like(places)
    for row, (harmonic, weight) in enumerate(_HARMONICS):
        crests += weight * (waves[row, 0] * torch.exp(2j * math.pi * harmonic * places)).real
    offset = float(places[crests.argmax()]) * 60.0 / tempo
    return Beat(round(tempo, 3), offset, min(1.0, float(total[0]) / sum(weight for _, weight in _HARMONICS)))


def key(wav: Tensor, rate: int) -> Key | None:
    """The key of wav [C, T]; None for silence and for what has no pitches.

    Pitch classes of the peaks of the spectrum up to 1 kHz, correlated with how much each degree of a major or minor key
    sounds (Krumhansl, 1990, chapter 4). Peaks, because drums have none, and few overtones.
    """
    mono = wav.float().mean(0, keepdim=True)
    size = 1 << round(math.log2(rate * 0.5))
    if mono.shape[-1] < size or float(mono.abs().max()) < _SILENCE:
        return None
    sounds = (chroma_filters(rate, size, high=_HIGHEST)[:, 1:-1] @ peaks(mono, size, size // 2)).sum(1)
    if float(sounds.max()) <= 0 or float(sounds.std()) < _EVEN * float(sounds.mean()):
        return None
    profiles = torch.tensor(
        [[row[(pitch - tonic) % 12] for pitch in range(12)] for row in _PROFILES for tonic in range(12)]
    )
    fits = torch.corrcoef(torch.cat([sounds[None], profiles]))[0, 1:]
    order = fits.argsort(descending=True)
    return Key(KEYS[int(order[0])], float(fits[order[0]] - fits[order[1]]))


def peaks(mono: Tensor, size: int, hop: int) -> Tensor:
    """How much stands out of the spectrum of mono [1, T], log: [size // 2 - 1, F], the lowest and highest bin left out.

    Peaks among their neighbours and twice as loud as what is around: notes are, drums have none in frequency.
    """
    level = stft(mono, size, hop)[0].abs()
    around = F.avg_pool1d(level.t()[:, None], 31, 1, 15)[:, 0].t()
    middle = level[1:-1]
    high = (middle > level[:-2]) & (middle > level[2:]) & (middle > 2 * around[1:-1])
    return (middle * high / level.mean()).log1p()


def onsets(wav: Tensor, rate: int) -> tuple[Tensor, float]:
    """How much begins: [C, T] -> about a hundred values a second, mean 0, and how many a second exactly."""
    hop = max(1, rate // _CURVE)
    mono = wav.float().mean(0, keepdim=True)
    if mono.shape[-1] < 2048 or float(mono.abs().max()) < _SILENCE:
        return torch.zeros(mono.shape[-1] // hop), rate / hop
    level = (mel(mono / mono.abs().max(), rate, 1024, hop, 40)[0] + 1e-6).log()
    rise = level.diff(dim=-1).clamp(min=0).sum(0)
    return rise - rise.mean(), rate / hop


def _fit(curve: Tensor, pace: float, tempi: Tensor) -> tuple[Tensor, Tensor]:
    """Weighed magnitudes [n] of the curve's waves at each tempo, and the waves themselves [harmonics, n]."""
    # value i says what began between frames i and i + 1
    time = (torch.arange(len(curve), dtype=torch.float64) + 1) / pace
    scale = math.sqrt(len(curve)) * float(curve.norm()) + 1e-12
    rows = []
    for harmonic, _ in _HARMONICS:
        parts = []
        for some in torch.split(tempi, 64):
            angle = time * (2 * math.pi * harmonic / 60.0 * some[:, None])
            parts.append(torch.complex((angle.cos() * curve).sum(1), (-angle.sin() * curve).sum(1)))
        rows.append(torch.cat(parts) / scale)
    waves = torch.stack(rows)
    weights = torch.tensor([weight for _, weight in _HARMONICS], dtype=torch.float64)
    return (waves.abs() * weights[:, None]).sum(0), waves
