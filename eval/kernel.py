"""Kernel distance (KAD, squared MMD) of two sets of clips: unbiased, in blocks, with an error over clips.

``MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)`` with a Gaussian kernel (Gretton et al., 2012), as the kernel
audio distance 100 times that (Chung et al., "KAD", 2025). The bandwidth is the median distance within the *reference*,
so that it does not move with the system that is judged. Other tools leave out only pairs of a window with itself; but
windows of one clip resemble each other too, and ``corrected`` leaves out all pairs within a clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from . import vectors as sets
from .metric import Result, unavailable, with_interval
from .recipe import Recipe
from .vectors import Vectors

_NAME = "kernel"
_SCALE = 100.0
#: Reference windows whose distances give the median; more would not change its third digit.
_MEDIAN_WINDOWS = 2000
_BLOCK = 1024


@dataclass(frozen=True)
class _Sums:
    """Kernel sums of one bandwidth: per clip, over everything, and within clips."""

    rows: Tensor
    """Of every clip of the first set against all of the second, float64 [clips]."""
    columns: Tensor
    """The same for the second set."""
    within: Tensor
    """Of every clip against itself, pairs of a window with itself included; zeros between two sets."""


def kernel_distance(
    generated: Any,
    reference: Any,
    recipe: Recipe | None = None,
    bandwidth: float | None = None,
    factors: Sequence[float] = (0.5, 2.0),
    level: float = 0.95,
) -> Result:
    """100 x unbiased squared MMD of generated clips from reference clips; lower is better, around 0 for equal sources.

    Sets as for :func:`~descant.eval.frechet.frechet_distance`; ``bandwidth`` as stored with a reference, otherwise the
    median distance of its windows (a seeded subset of 2000). ``value`` leaves out windows paired with themselves, as
    the reference tool does; ``corrected`` all pairs within a clip. The error is the jackknife's over clips of both
    sets. ``extra`` has the bandwidth and the corrected value at ``factors`` times it. Memory does not grow with pairs.
    """
    recipe_id = "none" if recipe is None else recipe.id
    one, two = sets.of(generated), sets.of(reference)
    for what, item in (("generated", one), ("reference", two)):
        problem = item.problem() or ("holds a single window" if item.windows < 2 else None)
        if problem:
            return unavailable(_NAME, "lower", f"the {what} set {problem}", recipe_id, len(one.names))
    if one.dim != two.dim:
        raise ValueError(f"{one.dim} and {two.dim} dimensions: use one embedder for both sets")
    one, two = one.ordered(), two.ordered()
    width = median_distance(two) if bandwidth is None else bandwidth
    if not (math.isfinite(width) and width > 0):
        reason = "the reference windows are all equal: there is no distance to measure with"
        return unavailable(_NAME, "lower", reason, recipe_id, len(one.names))
    widths = [width, *(width * factor for factor in factors)]
    table = [_Table(*parts, one.counts, two.counts) for parts in zip(*_all_sums(one, two, widths), strict=True)]
    extra = {"bandwidth": width, "reference_clips": float(len(two.names))}
    paired = len(one.names) > 1 and len(two.names) > 1
    for factor, sums in zip(factors, table[1:], strict=True):
        extra[f"at {factor:g} bandwidths"] = _SCALE * (sums.between_clips() if paired else sums.between_windows())
    result = Result(
        metric=_NAME, direction="lower", recipe=recipe_id, value=_SCALE * table[0].between_windows(), level=level,
        clips=len(one.names), windows=one.windows, extra=extra,
    )  # fmt: skip
    if not paired:
        return replace(result, notes=("a set has one clip: no correction, no interval",))
    result = replace(result, corrected=_SCALE * table[0].between_clips())
    if min(len(one.names), len(two.names)) < 3:
        return replace(result, notes=("a set has two clips: no interval",))
    left, right = table[0].without_each()
    variance = sum(float((part.numel() - 1) * part.var(correction=0)) for part in (left, right))
    return with_interval(result, _SCALE * math.sqrt(variance), min(left.numel(), right.numel()) - 1)


def median_distance(reference: Vectors, seed: int = 0) -> float:
    """Median Euclidean distance between windows of a set: the bandwidth. A seeded subset of 2000 stands for more."""
    data = reference.ordered().data
    if data.shape[0] > _MEDIAN_WINDOWS:
        chosen = torch.randperm(data.shape[0], generator=torch.Generator().manual_seed(seed))[:_MEDIAN_WINDOWS]
        data = data[chosen.sort().values]
    apart = torch.pdist(data.double())
    return float(apart.median()) if apart.numel() else 0.0


class _Table:
    """The three kernel matrices of one bandwidth, summed by clip."""

    def __init__(self, xx: _Sums, yy: _Sums, xy: _Sums, counts_x: Tensor, counts_y: Tensor) -> None:
        self.xx, self.yy, self.xy = xx, yy, xy
        self.counts = (counts_x.double(), counts_y.double())

    def between_windows(self) -> float:
        """Squared MMD without pairs of a window with itself."""
        n, m = (float(counts.sum()) for counts in self.counts)
        # k(x, x) = 1
        inner_x = (float(self.xx.rows.sum()) - n) / (n * (n - 1))
        inner_y = (float(self.yy.rows.sum()) - m) / (m * (m - 1))
        return inner_x + inner_y - 2 * float(self.xy.rows.sum()) / (n * m)

    def between_clips(self) -> float:
        """Squared MMD without pairs within a clip."""
        return _inner(self.xx, self.counts[0]) + _inner(self.yy, self.counts[1]) - 2 * self._cross()

    def _cross(self) -> float:
        return float(self.xy.rows.sum() / (self.counts[0].sum() * self.counts[1].sum()))

    def without_each(self) -> tuple[Tensor, Tensor]:
        """:meth:`between_clips` leaving out each clip of the first set, and each of the second: [clips], [clips]."""
        total = self.xy.rows.sum()
        found = []
        own = ((self.xx, self.yy, self.xy.rows, 0), (self.yy, self.xx, self.xy.columns, 1))
        for mine, other, cross, side in own:
            counts, against = self.counts[side], self.counts[1 - side]
            left = counts.sum() - counts
            pairs = left.square() - (counts.square().sum() - counts.square())
            inner = (mine.rows.sum() - 2 * mine.rows + mine.within) - (mine.within.sum() - mine.within)
            between = (total - cross) / (left * against.sum())
            found.append(inner / pairs + _inner(other, against) - 2 * between)
        return found[0], found[1]


def _inner(sums: _Sums, counts: Tensor) -> float:
    pairs = counts.sum().square() - counts.square().sum()
    return float((sums.rows.sum() - sums.within.sum()) / pairs)


def _all_sums(one: Vectors, two: Vectors, widths: Sequence[float]) -> tuple[list[_Sums], list[_Sums], list[_Sums]]:
    """Sums within the first set, within the second, and between them, for every bandwidth."""
    # distances do not change when both are moved; near zero, squares cancel least
    centre = two.data.double().mean(dim=0)
    return _sums(one, one, widths, centre), _sums(two, two, widths, centre), _sums(one, two, widths, centre)


def _sums(one: Vectors, two: Vectors, widths: Sequence[float], centre: Tensor) -> list[_Sums]:
    same = one is two
    rows = torch.zeros(len(widths), one.windows, dtype=torch.float64)
    columns = torch.zeros(len(widths), two.windows, dtype=torch.float64)
    within = torch.zeros(len(widths), len(one.names), dtype=torch.float64)
    clips = torch.split(one.clip, _BLOCK)
    for top in range(0, one.windows, _BLOCK):
        left = one.data[top : top + _BLOCK].double() - centre
        # a set against itself is symmetric: the blocks below the diagonal are those above, transposed
        for start in range(top if same else 0, two.windows, _BLOCK):
            right = two.data[start : start + _BLOCK].double() - centre
            squares = torch.addmm(right.square().sum(dim=1)[None], left, right.T, alpha=-2)
            squares += left.square().sum(dim=1)[:, None]
            squares.clamp_(min=0)
            for place, width in enumerate(widths):
                kernel = (squares * (-0.5 / width**2)).exp_()
                rows[place, top : top + left.shape[0]] += kernel.sum(dim=1)
                if not same or start > top:
                    columns[place, start : start + right.shape[0]] += kernel.sum(dim=0)
                if same:
                    _within(within[place], kernel, clips[top // _BLOCK], clips[start // _BLOCK], start > top)
    if same:
        rows = columns = rows + columns
    found = []
    for place in range(len(widths)):
        sums = one.per_clip(rows[place]), two.per_clip(columns[place])
        found.append(_Sums(*sums, within[place]))
    return found


def _within(total: Tensor, kernel: Tensor, left: Tensor, right: Tensor, mirrored: bool) -> None:
    """Add the sums of a block's pairs within a clip to ``total`` [clips]; twice where the block stands for two."""
    if int(left.max()) < int(right.min()):  # sets are ordered by clip: most blocks have no clip in common
        return
    equal = torch.where(left[:, None] == right[None], kernel, 0.0).sum(dim=1)
    total.index_add_(0, left, equal, alpha=2.0 if mirrored else 1.0)
