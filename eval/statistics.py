"""How sure a figure is: means with intervals, and the permutation test that asks whether prompts matter at all.

A score that does not depend on the prompt cannot show adherence, however high it is. :func:`matching_test` therefore
compares the scores of clips against their own prompts with the scores against everybody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its confidence interval over ``count`` independent values."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, kw_only=True)
class Matching:
    """The outcome of :func:`matching_test`."""

    matched: Estimate
    """Clips against their own prompts."""
    shuffled: float
    """Clips against a random prompt of the same set: the chance level."""
    p: float
    """Share of random assignments that score at least as high, counting the observed one."""
    shuffles: int


def bootstrap(values: Sequence[float] | Tensor, level: float = 0.95, repeats: int = 4000, seed: int = 0) -> Estimate:
    """Mean of ``values`` [N] with a percentile bootstrap interval (Efron, 1979).

    Values must be independent (one per clip, never one per frame). Raises ValueError for no values, NaN or a bad level.
    """
    data = torch.as_tensor(values, dtype=torch.float64).flatten()
    if data.numel() == 0:
        raise ValueError("no values to average: pass at least one, a score per clip")
    if not torch.isfinite(data).all():
        raise ValueError("values hold NaN or infinity: decide what those clips count as before averaging")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: a confidence level lies between 0 and 1, such as 0.95")
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(data.numel(), (repeats, data.numel()), generator=generator)
    means = data[picks].mean(dim=1)
    tail = (1 - level) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Estimate(mean=float(data.mean()), low=low, high=high, count=data.numel())


def matching_test(scores: Tensor, shuffles: int = 10_000, seed: int = 0) -> Matching:
    """Do clips fit their own prompts better than other prompts? One-sided permutation test on paired data.

    scores: [N, N], row = clip, column = prompt, larger is better. The null re-assigns prompts to clips at random
    (Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005); the observed assignment counts as one of
    the shuffles, so p is never 0. Raises ValueError for a matrix that is not square, smaller than 2 or not finite.
    """
    table = scores.double()
    if table.ndim != 2 or table.shape[0] != table.shape[1] or table.shape[0] < 2:
        raise ValueError(f"scores have shape {tuple(scores.shape)}: need [N, N] with N >= 2, clips by prompts")
    if not torch.isfinite(table).all():
        raise ValueError("scores hold NaN or infinity: give every clip a score against every prompt")
    count = table.shape[0]
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(shuffles, count, generator=generator).argsort(dim=1)
    null = table[torch.arange(count), orders].mean(dim=1)
    observed = table.diagonal().mean()
    # a hair of slack: equal sums in another order must count as equal
    reached = int((null >= observed - 1e-12).sum())
    return Matching(
        matched=bootstrap(table.diagonal(), seed=seed),
        shuffled=float((table.sum() - table.trace()) / (count * (count - 1))),
        p=(reached + 1) / (shuffles + 1),
        shuffles=shuffles,
    )
