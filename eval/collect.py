"""Metrics fed batch by batch: all vectors kept, or, for any number of clips, sixteen groups of statistics.

:class:`Collect` turns any function of two sets into a mergeable :class:`~descant.eval.metric.Metric`; its result is bit
for bit that of the function on everything at once, however the clips were dealt out to batches and processes.
:class:`FrechetStream` holds a fixed amount of memory instead.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .frechet import extrapolate
from .gaussian import Gaussian, Statistics, Transport, distance, of_statistics
from .metric import Direction, Result, unavailable, with_interval
from .recipe import Recipe
from .vectors import Vectors, join

Side = Literal["generated", "reference", "text"]


@dataclass(frozen=True)
class Batch:
    """Vectors of some clips of one side; all windows of a clip come in one batch."""

    side: Side
    vectors: Vectors


class Collect:
    """Keep all vectors and hand both sets to ``function(generated, reference, recipe) -> Result`` at the end.

    For scores of audio against captions the second set is ``text``. Memory: 4 D bytes per window.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Vectors, Vectors, Recipe], Result],
        recipe: Recipe,
        second: Side = "reference",
        direction: Direction = "lower",
    ) -> None:
        self.name, self.direction, self.recipe = name, direction, recipe.id
        self.needs = frozenset({"generated", second})
        self._function, self._recipe, self._second = function, recipe, second
        self._sets: dict[str, list[Vectors]] = {"generated": [], second: []}

    def update(self, batch: Batch) -> None:
        """Take in a batch. Raises ValueError for a side this metric does not use."""
        if batch.side not in self._sets:
            raise ValueError(f"{self.name} has no side {batch.side!r}; it takes {' and '.join(self._sets)}")
        self._sets[batch.side].append(batch.vectors)

    def state(self) -> dict[str, Tensor]:
        """Both sets as tensors, ``side.data``, ``side.clip`` and ``side.names``."""
        found: dict[str, Tensor] = {}
        for side, parts in self._sets.items():
            if parts:
                found |= {f"{side}.{name}": value for name, value in join(parts).state().items()}
        return found

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in another state. A clip that is in both is found out by :meth:`result`."""
        for side, parts in self._sets.items():
            own = {name.partition(".")[2]: value for name, value in state.items() if name.startswith(f"{side}.")}
            if own:
                parts.append(Vectors.from_state(own))

    def result(self) -> Result:
        """The function of everything taken in. Raises ValueError when a clip came twice."""
        for side, parts in self._sets.items():
            if not parts:
                return unavailable(self.name, self.direction, f"the {side} set holds no clip", self.recipe)
        one, two = (join(self._sets[side]).ordered() for side in ("generated", self._second))
        return self._function(one, two, self._recipe)


class FrechetStream:
    """Fréchet distance in memory that does not grow with the clips: groups of statistics, 2 x ``groups`` x D^2 doubles.

    A clip's name decides its group, so processes agree without talking. Groups stand in for clips in the correction and
    in the error; contributions of single clips are not known here.
    """

    name = "frechet"
    direction: Direction = "lower"
    needs = frozenset({"generated", "reference"})

    def __init__(self, dim: int, recipe: Recipe, groups: int = 16, seed: int = 0) -> None:
        if groups < 4 or groups % 4:
            raise ValueError(f"{groups} groups: need a multiple of 4, 16 is a good number")
        self.recipe, self.dim, self.groups, self.seed = recipe.id, dim, groups, seed
        self._clips = {side: [0] * groups for side in ("generated", "reference")}
        self._gathered = {side: [Statistics(dim) for _ in range(groups)] for side in ("generated", "reference")}

    def update(self, batch: Batch) -> None:
        """Take in a batch. Raises ValueError for the side ``text`` and for vectors that are not finite."""
        if batch.side not in self._gathered:
            raise ValueError(f"{self.name} has no side {batch.side!r}; it takes generated and reference")
        problem = batch.vectors.problem() if batch.vectors.names else None
        if problem:
            raise ValueError(f"the batch {problem}: leave them out and count them")
        places = [int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % self.groups for name in batch.vectors.names]
        place = torch.tensor(places, dtype=torch.int64)
        for group in sorted(set(places)):
            self._gathered[batch.side][group].update(batch.vectors.data[place[batch.vectors.clip] == group])
            self._clips[batch.side][group] += places.count(group)

    def state(self) -> dict[str, Tensor]:
        """Clips, counts, means and scatters of all groups of both sides."""
        found: dict[str, Tensor] = {}
        for side, gathered in self._gathered.items():
            found[f"{side}.clips"] = torch.tensor(self._clips[side])
            found[f"{side}.count"] = torch.tensor([item.count for item in gathered])
            found[f"{side}.mean"] = torch.stack([item.mean for item in gathered])
            found[f"{side}.scatter"] = torch.stack([item.scatter for item in gathered])
        return found

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in another state. Raises ValueError when its groups or dimensions differ."""
        for side, gathered in self._gathered.items():
            clips, count, mean, scatter = (state[f"{side}.{name}"] for name in ("clips", "count", "mean", "scatter"))
            if mean.shape != (self.groups, self.dim):
                raise ValueError(f"a state of {tuple(mean.shape)} does not merge with {(self.groups, self.dim)}")
            for group, item in enumerate(gathered):
                own = {"count": count[group], "mean": mean[group], "scatter": scatter[group]}
                item.merge(Statistics.from_state(own))
                self._clips[side][group] += int(clips[group])

    def result(self) -> Result:
        """Distance, correction by halves and quarters of the groups, error from the groups' influences."""
        whole = {side: self._union(side, range(self.groups)) for side in self._gathered}
        clips = {side: sum(counts) for side, counts in self._clips.items()}
        for side, item in whole.items():
            if item.count < 2:
                reason = f"the {side} set holds {'a single window' if item.count else 'no clip'}"
                return unavailable(self.name, "lower", reason, self.recipe, clips["generated"])
        one, two = of_statistics(whole["generated"]), of_statistics(whole["reference"])
        plain = distance(one, two)
        result = Result(
            metric=self.name, direction="lower", recipe=self.recipe, value=plain, clips=clips["generated"],
            windows=whole["generated"].count, extra={"reference_clips": float(clips["reference"])},
        )  # fmt: skip
        if min(min(counts) for counts in self._clips.values()) < 2:
            return replace(result, notes=("some groups have fewer than 2 clips: no correction, no interval",))
        corrected, doubt = self._corrected(plain)
        variance = self._variance("generated", one, two) + self._variance("reference", two, one) + doubt**2
        return with_interval(replace(result, corrected=corrected), math.sqrt(variance), self.groups - 1)

    def _union(self, side: str, groups: range | list[int]) -> Statistics:
        total = Statistics(self.dim)
        for group in groups:
            total.merge(self._gathered[side][group])
        return total

    def _corrected(self, plain: float, splits: int = 8) -> tuple[float, float]:
        generator = torch.Generator().manual_seed(self.seed)
        totals: dict[int, list[float]] = {2: [], 4: []}
        for _ in range(splits):
            orders = {side: torch.randperm(self.groups, generator=generator).tolist() for side in self._gathered}
            for share, found in totals.items():
                size = self.groups // share
                # disjoint parts, so that their mean size is exactly this share of the set
                for start in range(0, self.groups, size):
                    one, two = (
                        of_statistics(self._union(side, order[start : start + size])) for side, order in orders.items()
                    )
                    found.append(distance(one, two))
        half, quarter = (sum(found) / len(found) for found in totals.values())
        first, second = extrapolate([4, 2], [plain, half]), extrapolate([4, 2, 1], [plain, half, quarter])
        return second, abs(second - first)

    def _variance(self, side: str, source: Gaussian, target: Gaussian) -> float:
        move = Transport(source, target)
        sums = torch.tensor([move.influence_of(item) for item in self._gathered[side]], dtype=torch.float64)
        total = sum(item.count for item in self._gathered[side])
        return float((sums * self.groups / total).var() / self.groups)
