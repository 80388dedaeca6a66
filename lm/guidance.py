"""Guidance: rows of the batch with some controls left out, and how their logits add up.

Classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598) moves logits from those without conditions, u, away
through those with them, c: u + w (c - u). With a weight per control it is the sum u + sum_i w_i (c_i - u), c_i having
control i (and what is not named) alone; nested, as in MusicGen-Style (Rouard et al., 2024, arXiv:2407.12563, "double"
guidance), it is u + w_1 (c_1 + w_2 (c_12 - c_1) - u), each control given on top of those before.

All of these are sums of rows with fixed factors, so a plan is a list of (controls left out, factor). Rows that come out
equal are computed once, rows of factor 0 not at all: guidance 1 costs one row, like no guidance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .condition import CONTROLS, Condition

#: Controls that can have a weight of their own; ``rest`` are all of them that are not named. ``target`` is what is
#: written, a stem by itself: rows that leave it out write everything, and only naming it makes such rows.
NAMES: tuple[str, ...] = (*(name for name in CONTROLS if name not in ("each_stem", "all")), "rest", "target")
#: One weight for all controls, or one for each of some.
Weights = float | Mapping[str, float]
_ALL = frozenset(NAMES) - {"rest", "target"}


def checked(weights: Weights) -> Weights:
    """Refuse weights that are no weights."""
    each = weights.items() if isinstance(weights, Mapping) else [("guidance", weights)]
    if isinstance(weights, Mapping) and (not weights or set(weights) - set(NAMES)):
        odd = ", ".join(sorted(set(weights) - set(NAMES))) or "nothing"
        raise ValueError(f"guidance for {odd}: name one or more of {', '.join(NAMES)}")
    for name, value in each:
        if not 0.0 <= value <= 100.0:
            raise ValueError(f"guidance {value} of {name} is outside 0 to 100" if name != "guidance" else
                             f"guidance {value} is outside 0 to 100")  # fmt: skip
    return weights


def present(conditions: Sequence[Condition]) -> frozenset[str]:
    """Controls that at least one of the conditions gives."""
    given = set()
    for condition in conditions:
        given |= {
            name for name, value in (
                ("text", (condition.text or "").strip()), ("genre", condition.genre), ("tempo", condition.tempo),
                ("instruments", condition.instruments), ("beat", condition.tempo), ("key", condition.key),
                ("chords", condition.chords), ("stems", condition.stems),
            ) if value
        }  # fmt: skip
        if condition.melody is not None:
            given.add("melody")
        if condition.target not in (None, "mix"):
            given.add("target")
    return frozenset(given)


def plan(weights: Weights, nested: bool, given: frozenset[str], negative: bool) -> list[tuple[frozenset[str], float]]:
    """Rows as (controls left out, factor), the unconditional row first; factors add up to 1.

    given: controls there are; leaving out one that is not there changes nothing, so such rows are one row. negative:
    the row without controls is another condition's, and hence equal to no other: it is marked by leaving out ``rest``.
    """
    groups: list[tuple[frozenset[str], float]]
    if isinstance(weights, Mapping):
        named = frozenset(weights) - {"rest"}
        groups = [(_ALL - named if name == "rest" else frozenset({name}), value) for name, value in weights.items()]
    else:
        groups = [(_ALL, weights)]
    every = frozenset().union(*(group for group, _ in groups))
    free = every | {"rest"} if negative else every & given
    factors: dict[frozenset[str], float] = {free: 1.0}

    def add(row: frozenset[str], factor: float) -> None:
        factors[row] = factors.get(row, 0.0) + factor

    before, left, product = free, every, 1.0
    for group, value in groups:
        left = (left if nested else every) - group
        row = left & given
        if nested:
            # r_(i-1) + w_i (what follows - r_(i-1))
            product *= value
        factor = product if nested else value
        add(row, factor)
        add(before if nested else free, -factor)
        before = row
    rows = [(row, factor) for row, factor in factors.items() if abs(factor) > 1e-9]
    return rows or [(free, 1.0)]
