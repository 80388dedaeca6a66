"""Fidelity and diversity apart: is every generated clip like some reference clip, and every reference clip matched?

Precision and recall by k-nearest-neighbour balls (Kynkäänniemi et al., 2019), density and coverage (Naeem et al.,
2020), which outliers disturb less. A clip is one point, the mean of its windows: windows of one clip are each other's
nearest neighbours and would shrink every ball.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import vectors as sets
from .metric import Result, average, unavailable
from .recipe import Recipe

NAMES: tuple[str, ...] = ("precision", "recall", "density", "coverage")
_BLOCK = 512


def neighbours(
    generated: Any, reference: Any, k: int = 5, recipe: Recipe | None = None, level: float = 0.95
) -> dict[str, Result]:
    """``precision``, ``recall``, ``density`` and ``coverage`` of generated clips; higher is better.

    Sets as for :func:`~descant.eval.frechet.frechet_distance`. Precision and density are means over generated clips,
    recall and coverage over reference clips; their intervals take the other set as given. Recall falls with the number
    of generated clips: compare sets of equal size. Fewer than k + 1 clips in a set give results with a reason.
    """
    if k < 1:
        raise ValueError(f"k is {k}: need at least 1 neighbour, 5 is usual")
    recipe_id = "none" if recipe is None else recipe.id
    one, two = sets.of(generated), sets.of(reference)
    for what, item in (("generated", one), ("reference", two)):
        problem = item.problem()
        if problem is None and len(item.names) <= k:
            problem = f"has {len(item.names)} clips: need more than k = {k}"
        if problem:
            reason = f"the {what} set {problem}"
            return {name: unavailable(name, "higher", reason, recipe_id, len(one.names)) for name in NAMES}
    if one.dim != two.dim:
        raise ValueError(f"{one.dim} and {two.dim} dimensions: use one embedder for both sets")
    one, two = one.ordered().means(), two.ordered().means()
    precision, recall, density, coverage = _measure(one.data, two.data, k)
    rows = {
        "precision": (precision, one),
        "recall": (recall, two),
        "density": (density, one),
        "coverage": (coverage, two),
    }
    return {
        name: replace(
            average(name, "higher", dict(zip(item.names, values.tolist(), strict=True)), recipe_id, level),
            clips=len(one.names), extra={"k": float(k), "reference_clips": float(len(two.names))},
        )
        for name, (values, item) in rows.items()
    }  # fmt: skip


def _measure(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values per generated point [N], per reference point [M], [N], [M]."""
    ball_x, ball_y = _radii(x, k), _radii(y, k)
    inside = torch.zeros(x.shape[0], dtype=torch.float64)
    reached = torch.zeros(y.shape[0], dtype=torch.bool)
    nearest = torch.full((y.shape[0],), torch.inf, dtype=torch.float64)
    for start, apart in _blocks(x, y):
        stop = start + apart.shape[0]
        inside[start:stop] = (apart <= ball_y[None]).double().sum(dim=1)
        reached |= (apart <= ball_x[start:stop, None]).any(dim=0)
        nearest = torch.minimum(nearest, apart.amin(dim=0))
    return (inside > 0).double(), reached.double(), inside / k, (nearest <= ball_y).double()


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of every point [N, D] to its k-th neighbour -> [N]."""
    found = []
    for start, apart in _blocks(points, points):
        rows = torch.arange(apart.shape[0])
        apart[rows, start + rows] = -1.0  # itself comes first, whatever its twins
        found.append(apart.kthvalue(k + 1, dim=1).values)
    return torch.cat(found)


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Distances of a block of rows of x to all of y: (first row, [n, M]); differences, not squares: twins are at 0."""
    for start in range(0, x.shape[0], _BLOCK):
        yield start, torch.cdist(x[start : start + _BLOCK], y, compute_mode="donot_use_mm_for_euclid_dist")
