"""Means with intervals for scores of excerpts: several of one recording are not independent, so recordings are drawn.

Used by the codec report: intervals, paired differences, and the rate another codec needs for the same score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from .bench_codec_clips import Clip

#: Bootstrap draws.
REPEATS = 4000


def interval(values: Mapping[str, float], clips: Mapping[str, Clip], level: float = 0.95) -> list[float]:
    """Mean over excerpts and its percentile interval: [mean, low, high].

    values: digest of a clip -> score. Whole recordings are drawn with replacement (the cluster bootstrap: Davison &
    Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8). Raises ValueError for no or infinite values.
    """
    if not values:
        raise ValueError("no scores to average: score at least one excerpt")
    bad = [digest for digest, value in values.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f"the score of {clips[bad[0]].name} is {values[bad[0]]}: leave such excerpts out")
    groups: dict[str, list[float]] = {}
    for digest, value in values.items():
        groups.setdefault(clips[digest].recording, []).append(value)
    total = torch.tensor([sum(group) for group in groups.values()], dtype=torch.float64)
    count = torch.tensor([float(len(group)) for group in groups.values()], dtype=torch.float64)
    mean = float(total.sum() / count.sum())
    draws = torch.randint(len(groups), (REPEATS, len(groups)), generator=torch.Generator().manual_seed(0))
    means = total[draws].sum(dim=1) / count[draws].sum(dim=1)
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return [mean, min(low, mean), max(high, mean)]  # equal values: the quantiles are off by rounding


def paired(ours: Mapping[str, float], other: Mapping[str, float], clips: Mapping[str, Clip]) -> list[float]:
    """Ours minus the other on the excerpts both have: [mean, low, high]."""
    return interval({digest: ours[digest] - other[digest] for digest in ours if digest in other}, clips)


def rate_for(score: float, curve: Sequence[tuple[float, float]], higher_is_better: bool) -> tuple[str, float] | None:
    """The rate at which a curve of (kbps, score) reaches ``score``: ("=", kbps) by linear interpolation between its
    points, ("<", lowest) or (">", highest) beyond its ends; None without a curve.

    The lowest such rate is taken where the curve is not monotonic.
    """
    points = sorted(curve)
    if not points:
        return None
    sign = 1 if higher_is_better else -1
    values = [sign * value for _, value in points]
    wanted = sign * score
    if values[0] >= wanted:
        return "<", points[0][0]
    for place in range(1, len(points)):
        low, high = values[place - 1], values[place]
        if high >= wanted:
            left, right = points[place - 1][0], points[place][0]
            return "=", left + (right - left) * (wanted - low) / (high - low)
    return ">", points[-1][0]
