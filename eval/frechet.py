"""Fréchet distance of two sets of clips, with what its bare number hides: bias, error, and which clips make it.

The plain distance of N clips lies above the distance of the distributions by about b / N, often by more than systems
differ. Here whole clips are the unit of everything: the bias is estimated from random halves and quarters of the
clips (never from windows, which are not independent, and never with replacement, which only finds the bias of the
set), and the standard error is the delta method's, from the influence of each clip on the distance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import vectors as sets
from .gaussian import Gaussian, Transport, distance, of_samples
from .metric import Result, t_quantile, unavailable, with_interval
from .recipe import Recipe
from .vectors import Vectors

_NAME = "frechet"
#: Clips from which a set is halved, and quartered, to find its bias.
_HALVES, _QUARTERS = 8, 16


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Distances of smaller sets and the line through them, for the plot of FAD against 1 / N."""

    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    """Mean distance at each size."""
    intercept: float
    """The distance extrapolated to infinitely many clips."""
    slope: float
    r2: float
    """Share of the variance of ``distances`` that the line explains."""


@dataclass(frozen=True)
class _Side:
    """A set of clips, or a Gaussian that is taken as it is."""

    all: Gaussian
    clips: Vectors | None

    def part(self, chosen: Tensor | None) -> Gaussian:
        if self.clips is None or chosen is None:
            return self.all
        mask = torch.zeros(len(self.clips.names), dtype=torch.bool)
        mask[chosen] = True
        return of_samples(self.clips.data[mask[self.clips.clip]])

    @property
    def count(self) -> int:
        return 0 if self.clips is None else len(self.clips.names)


def frechet_distance(
    generated: Any, reference: Any, recipe: Recipe | None = None, splits: int = 8, seed: int = 0, level: float = 0.95
) -> Result:
    """Squared Fréchet distance of generated clips from reference clips; lower is better.

    Both are :class:`~descant.eval.vectors.Vectors` (or arrays [N, D], each row then counting as a clip); the reference
    may be a :class:`~descant.eval.gaussian.Gaussian` where only published statistics exist, which are then taken as
    exact. ``value`` is the plain distance of other tools, ``corrected`` has its bias removed by ``splits`` random
    halvings of both sets (it can fall below 0 where the sets do not differ), ``error`` counts the clips of both.
    ``per_clip`` is each clip's share: what moving its windows along the optimal map costs; the mean over windows is the
    distance. A set without clips, with NaN, or with a single window gives a result with a reason.
    """
    recipe_id = "none" if recipe is None else recipe.id
    one, two, reason = _sides(generated, reference)
    if one is None or two is None or one.clips is None:
        return unavailable(_NAME, "lower", reason, recipe_id)
    move = Transport(one.all, two.all)
    plain = distance(one.all, two.all)
    weights = one.clips.counts.double()
    shares = (one.clips.per_clip(move.cost(one.clips.data)) / weights).tolist()
    result = Result(
        metric=_NAME, direction="lower", recipe=recipe_id, value=plain, level=level,
        clips=one.count, windows=one.clips.windows, notes=_notes(one, two),
        per_clip=dict(zip(one.clips.names, shares, strict=True)), extra=_extra(one, two),
    )  # fmt: skip
    corrected, doubt = _corrected([(one, 1.0)], two, [plain], splits, seed)
    result = replace(result, corrected=corrected)
    clips = _pull(move, one)
    if clips.numel() < 2:
        return result
    variance = _variance(clips) + doubt**2
    if two.clips is not None and two.count > 1:
        variance += _variance(_pull(Transport(two.all, one.all), two))
    return with_interval(result, math.sqrt(variance), one.count - 1)


def frechet_compare(
    first: Any, second: Any, reference: Any, recipe: Recipe | None = None, splits: int = 8, seed: int = 0
) -> Result:
    """Distance of one system minus that of another on the same clips; negative when the first is better.

    Clips are paired by name, so what is hard or easy about a prompt cancels: the error is that of the difference, far
    below those of both figures. ``extra`` holds both plain distances and ``p``, two-sided, that they are equal. Sets
    whose clips differ give a result with a reason.
    """
    recipe_id = "none" if recipe is None else recipe.id
    name = "frechet difference"
    one, two, reason = _sides(first, reference)
    other, _, why = _sides(second, reference)
    if one is None or other is None or two is None or one.clips is None or other.clips is None:
        return unavailable(name, "none", reason or why, recipe_id)
    if one.clips.names != other.clips.names:
        odd = sorted(set(one.clips.names) ^ set(other.clips.names))
        reason = f"the systems have different clips, such as {', '.join(odd[:3])}: compare them on the same prompts"
        return unavailable(name, "none", reason, recipe_id)
    plain = [distance(side.all, two.all) for side in (one, other)]
    corrected, doubt = _corrected([(one, 1.0), (other, -1.0)], two, plain, splits, seed)
    pulls = _pull(Transport(one.all, two.all), one) - _pull(Transport(other.all, two.all), other)
    result = Result(
        metric=name, direction="none", recipe=recipe_id, value=plain[0] - plain[1], corrected=corrected,
        clips=one.count, windows=one.clips.windows + other.clips.windows, notes=_notes(one, two),
        per_clip=dict(zip(one.clips.names, pulls.tolist(), strict=True)),
    )  # fmt: skip
    extra = {"first": plain[0], "second": plain[1]}
    if one.count < 2:
        return replace(result, extra=extra)
    variance = _variance(pulls) + doubt**2
    if two.clips is not None and two.count > 1:
        back = _pull(Transport(two.all, one.all), two) - _pull(Transport(two.all, other.all), two)
        variance += _variance(back)
    result = with_interval(result, math.sqrt(variance), one.count - 1)
    return replace(result, extra=extra | {"p": _p_value(result, one.count - 1)})


def frechet_infinity(generated: Any, reference: Any, repeats: int = 8, seed: int = 0) -> Curve:
    """Extrapolate the distance to infinitely many generated clips (after Chong and Forsyth, 2020), as a cross-check.

    Eight sizes from a quarter of the clips to all of them, evenly spaced in 1 / N, drawn without replacement and by
    clip; a line through the means, weighted by size. Raises ValueError below 16 clips or for sets with a problem.
    """
    one, two, reason = _sides(generated, reference)
    if one is None or two is None or one.clips is None:
        raise ValueError(reason)
    count = one.count
    if count < _QUARTERS:
        raise ValueError(f"{count} clips are too few to extrapolate: need {_QUARTERS}")
    generator = torch.Generator().manual_seed(seed)
    sizes = sorted({round(1 / u) for u in torch.linspace(4 / count, 1 / count, 8, dtype=torch.float64).tolist()})
    means = []
    for size in sizes:
        picks = [torch.randperm(count, generator=generator)[:size] for _ in range(repeats if size < count else 1)]
        means.append(sum(distance(one.part(pick), two.all) for pick in picks) / len(picks))
    x = 1 / torch.tensor(sizes, dtype=torch.float64)
    y, weight = torch.tensor(means, dtype=torch.float64), torch.tensor(sizes, dtype=torch.float64)
    weight = weight / weight.sum()
    centre_x, centre_y = (weight * x).sum(), (weight * y).sum()
    slope = (weight * (x - centre_x) * (y - centre_y)).sum() / (weight * (x - centre_x).square()).sum()
    left = (weight * (y - centre_y - slope * (x - centre_x)).square()).sum()
    total = (weight * (y - centre_y).square()).sum()
    return Curve(
        sizes=tuple(sizes), distances=tuple(means), intercept=float(centre_y - slope * centre_x), slope=float(slope),
        r2=float(1 - left / total) if float(total) > 0 else 1.0,
    )  # fmt: skip


def extrapolate(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The value at infinite size of the polynomial in 1 / size through the points (Richardson, 1911)."""
    total = 0.0
    for index, (size, value) in enumerate(zip(sizes, values, strict=True)):
        weight = 1.0
        for place, other in enumerate(sizes):
            if place != index:
                weight *= size / (size - other)
        total += weight * value
    return total


def _sides(generated: Any, reference: Any) -> tuple[_Side | None, _Side | None, str]:
    """Both sets ready for use, or None for the one that cannot be used, and why."""
    found: list[_Side | None] = []
    for what, item in (("generated", generated), ("reference", reference)):
        if isinstance(item, Gaussian):
            found.append(_Side(item, None))
            continue
        clips = sets.of(item)
        problem = clips.problem() or ("holds a single window" if clips.windows < 2 else None)
        if problem:
            return None, None, f"the {what} set {problem}"
        ordered = clips.ordered()
        found.append(_Side(of_samples(ordered.data), ordered))
    one, two = found
    if one is None or two is None or one.clips is None:
        raise ValueError("the generated set must be clips, not statistics: pass vectors")
    if one.all.mean.shape != two.all.mean.shape:
        sizes = one.all.mean.numel(), two.all.mean.numel()
        raise ValueError(f"{sizes[0]} and {sizes[1]} dimensions: use one embedder for both sets")
    return one, two, ""


def _corrected(
    systems: Sequence[tuple[_Side, float]], reference: _Side, plain: Sequence[float], splits: int, seed: int
) -> tuple[float | None, float]:
    """Bias-corrected signed sum of the systems' distances, and how far its two orders of correction disagree."""
    if splits < 1:
        raise ValueError(f"splits is {splits}: need at least 1 random halving, 8 is a good number")
    count = systems[0][0].count
    if count < _HALVES:
        return None, 0.0
    generator = torch.Generator().manual_seed(seed)
    totals: list[list[float]] = [[], []]
    for _ in range(splits):
        mine = _nested(count, generator)
        theirs = _nested(reference.count, generator)
        for depth, (parts, others) in enumerate(zip(mine, theirs, strict=True)):
            if depth and count < _QUARTERS:
                continue
            for part, other in zip(parts, others, strict=True):
                against = reference.part(other)
                totals[depth].append(sum(sign * distance(side.part(part), against) for side, sign in systems))
    whole = sum(sign * value for (_, sign), value in zip(systems, plain, strict=True))
    half = sum(totals[0]) / len(totals[0])
    first = extrapolate([count, count // 2], [whole, half])
    if not totals[1]:
        return first, abs(first - whole) / 2
    quarter = sum(totals[1]) / len(totals[1])
    second = extrapolate([count, count // 2, count // 4], [whole, half, quarter])
    return second, abs(second - first)


def _nested(count: int, generator: torch.Generator) -> list[list[Tensor | None]]:
    """Two disjoint random halves of ``count`` clips, and a quarter out of each; None, for all, where they are few."""
    if count < _HALVES:
        return [[None, None], [None, None]]
    order = torch.randperm(count, generator=generator)
    half, quarter = count // 2, max(2, count // 4)
    return [[order[:half], order[half : 2 * half]], [order[:quarter], order[half : half + quarter]]]


def _pull(move: Transport, side: _Side) -> Tensor:
    """Influence of each clip of the map's source on the distance, [clips], such that their mean's error is its own."""
    if side.clips is None:
        return torch.zeros(0, dtype=torch.float64)
    sums = side.clips.per_clip(move.influence(side.clips.data))
    return sums * (side.count / side.clips.windows)


def _variance(pulls: Tensor) -> float:
    return float(pulls.var() / pulls.numel())


def _p_value(result: Result, freedom: int) -> float:
    """Two-sided p of Student's t by bisection of its quantile."""
    if not result.error or result.best is None:
        return 1.0
    score, low, high = abs(result.best) / result.error, 0.5, 1.0 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_quantile(middle, freedom) < score else (low, middle)
    return 2 * (1 - low)


def _notes(one: _Side, two: _Side) -> tuple[str, ...]:
    dim, notes = one.all.mean.numel(), []
    windows = one.clips.windows if one.clips is not None else 0
    if one.count < 4 * dim or windows < 10 * dim:
        notes.append(
            f"{one.count} clips, {windows} windows are few for {dim} dimensions (4 and 10 times as many are plenty): "
            "compare sets of equal size only"
        )
    if one.count < _HALVES:
        notes.append(f"fewer than {_HALVES} clips: no bias correction" + ("" if one.count > 1 else ", no interval"))
    if two.clips is None:
        notes.append("the reference is given as statistics, which are taken as exact")
    elif two.count < _HALVES:
        notes.append(f"fewer than {_HALVES} reference clips: their part of the bias stays in")
    return tuple(notes)


def _extra(one: _Side, two: _Side) -> dict[str, float]:
    extra = {"dimensions": float(one.all.mean.numel()), "effective_rank": _effective_rank(one.all)}
    if two.clips is not None:
        extra |= {"reference_clips": float(two.count), "reference_windows": float(two.clips.windows)}
    return extra


def _effective_rank(gaussian: Gaussian) -> float:
    """(tr C)^2 / tr C^2: dimensions that carry the variance (participation ratio)."""
    square = gaussian.factor @ gaussian.factor.T if gaussian.factor.shape[0] < gaussian.factor.shape[1] else (
        gaussian.factor.T @ gaussian.factor
    )  # fmt: skip
    norm = float(square.square().sum())
    return gaussian.trace**2 / norm if norm > 0 else 0.0
