"""Which of the periodicities of a piece is its beat? A log-linear choice among metrically related candidates.

A loop repeats at its beat, at the bar and at every subdivision, and periodicity alone cannot tell 75 from 150 BPM. What
can: that the bass drum and the snare answer each other from beat to beat, that low sounds repeat over beats and high
ones within them, and how fast people tap. Each candidate gets a handful of such measurements, and the candidates are
weighed by a conditional logit (McFadden, 1974). Its weights were fitted to the training split of the built-in composer
by :func:`descant.recipes.bench_control.fit_tempo`; no loop of :mod:`descant.recipes.loops` was used.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Band edges in Hz: bass drum and bass, snare and most notes, cymbals.
BANDS: tuple[tuple[float, float], ...] = ((30.0, 180.0), (180.0, 3000.0), (5000.0, 11000.0))
_MULTIPLES = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0, 4.0)
_OF_BAND = ((1 / 2, 1.0, 2.0, 4.0), (1 / 2, 1.0, 2.0), (1 / 4, 1 / 2, 1.0, 2.0))
#: What :func:`measure` returns, in order.
NAMES: tuple[str, ...] = (
    *(f"all at {m:.3g}" for m in _MULTIPLES),
    *(f"{band} at {m:.3g}" for band, row in zip(("low", "mid", "high"), _OF_BAND, strict=True) for m in row),
    "answer after 1/2", "answer after 1", "answer after 2", "octaves from 120", "squared", "strokes",
)  # fmt: skip
#: Weight of each measurement.
WEIGHTS: tuple[float, ...] = (
    3.608, -2.434, -1.598, -3.92, 1.634, -1.9, 1.98, 1.559, 0.141, -0.118, 1.942, 1.621, 5.627, -0.043, 0.403,
    1.216, 2.734, -0.63, 2.607, 1.229, 2.407, 2.761, 2.041, 2.744, -2.86, -4.847,
)  # fmt: skip


def measure(whole: Tensor, bands: Tensor, periods: Tensor) -> Tensor:
    """Measurements of candidate beat periods.

    whole: onset envelope [F], bands: envelopes of :data:`BANDS` [3, F], both with mean 0 and deviation 1 (or all zero)
    at 200 values a second; periods: [G] in steps of the envelope -> float64 [G, len(NAMES)].
    """
    rows = [at(_correlate(whole, whole), periods * m, periods) for m in _MULTIPLES]
    for band, multiples in zip(bands, _OF_BAND, strict=True):
        own = _correlate(band, band)
        rows += [at(own, periods * m, periods) for m in multiples]
    answer = _correlate(bands[0], bands[1])
    rows += [at(answer, periods * m, periods) for m in (0.5, 1.0, 2.0)]
    octaves = torch.log2(100 / periods)
    rows += [octaves, octaves.square()]
    # strokes a beat, in octaves: one or two are usual
    strokes = _strokes(whole)
    rows.append((torch.log2((strokes * periods).clamp(min=0.1)) - 1).square())
    return torch.stack(rows, dim=1)


def choose(measured: Tensor, prior: Tensor) -> Tensor:
    """Probability of each candidate [G] from measurements [G, len(NAMES)] and log prior [G]."""
    score = measured @ torch.tensor(WEIGHTS, dtype=torch.float64) + prior
    return torch.softmax(score, dim=0)


def fit(examples: list[tuple[Tensor, Tensor, int]], ridge: float = 0.02, steps: int = 300) -> list[float]:
    """Weights of a conditional logit by maximum likelihood with a ridge penalty.

    examples: (measurements [G, len(NAMES)], log prior [G], index of the true candidate). Raises ValueError without any.
    """
    if not examples:
        raise ValueError("no examples to fit the choice of the beat to: render some labelled loops first")
    weights = torch.zeros(len(NAMES), dtype=torch.float64, requires_grad=True)
    climb = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        climb.zero_grad()
        terms = [torch.log_softmax(rows @ weights + prior, dim=0)[true] for rows, prior, true in examples]
        value = -torch.stack(terms).mean() + ridge * weights.square().mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    climb.step(loss)  # type: ignore[no-untyped-call]
    return [round(float(value), 3) for value in weights.detach()]


def at(values: Tensor, place: Tensor, periods: Tensor) -> Tensor:
    """Largest of ``values`` [F] within 1.5 % of a period (or one step) of ``place`` [G], interpolated; 0 outside."""
    reach = (0.015 * periods).clamp(min=1.0)
    best = torch.full_like(place, -math.inf)
    for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
        where = (place + share * reach).abs()
        left = where.floor().long()
        inside = left + 1 < values.numel()
        left = left.clamp(max=values.numel() - 2)
        weight = where - left
        value = values[left] * (1 - weight) + values[left + 1] * weight
        best = torch.maximum(best, torch.where(inside, value, 0.0))
    return best


def _correlate(left: Tensor, right: Tensor) -> Tensor:
    """Cross-correlation [F] at lags from 0, both ways averaged, each lag divided by its overlap."""
    count = left.numel()
    one, two = torch.fft.rfft(left.double(), 2 * count), torch.fft.rfft(right.double(), 2 * count)
    raw = torch.fft.irfft((one.conj() * two).real, 2 * count)[:count]
    value: Tensor = raw / torch.arange(count, 0, -1, dtype=torch.float64).clamp(min=count / 4)
    return value


def _strokes(whole: Tensor) -> float:
    """Onsets a step: peaks of the envelope above one deviation."""
    middle = whole[1:-1]
    peaks = (middle > whole[:-2]) & (middle >= whole[2:]) & (middle > 1.0)
    return float(peaks.sum()) / max(1, whole.numel())
