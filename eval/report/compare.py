"""Two reports side by side: differences, paired clip by clip wherever both scored the same clips.

What is hard or easy about a prompt is in both systems' figures and cancels in their difference, so a paired difference
is surer than either figure. Rows of other recipes are refused, and so is a distance to another reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..frechet import frechet_compare
from ..metric import Result, average, unavailable, with_interval
from ..recipe import RecipeMismatch, require_same
from .bundle import Bundle, load
from .inputs import some
from .names import group, split
from .results import RESULTS, VECTORS, Report, read, row_of

SCHEMA = "descant-comparison/1"
_FLIPS = 10_000


def against(report: Report, mine: Bundle | None, reference: Bundle | None, other: str | Path) -> dict[str, Any]:
    """The block ``comparison`` of a report: this one minus the one in ``other`` (its folder or ``results.json``).

    Raises ValueError when it cannot be read, :class:`RecipeMismatch` when no recipe of it is one of this report.
    """
    where = Path(other)
    where = where / RESULTS if where.is_dir() else where
    second = read(where)
    theirs = load(where.parent / VECTORS) if (where.parent / VECTORS).is_file() else None
    rows = compare(report, second, mine, theirs, reference)
    return {
        "schema": SCHEMA,
        "against": {"name": second.generated.name, "file": str(where.resolve()), "created": second.created,
                    "digest": second.generated.digest, "valid": second.valid},
        "rows": [row_of(item) for item in rows],
        "per_clip": {item.metric: dict(item.per_clip) for item in rows if item.per_clip},
    }  # fmt: skip


def compare(
    first: Report, second: Report, mine: Bundle | None = None, theirs: Bundle | None = None,
    reference: Bundle | None = None,
) -> list[Result]:  # fmt: skip
    """First minus second for every row of the first; ``extra`` has both values and p, two-sided, that they are equal.

    The bundles are the vectors of both sets of clips and of the reference: with them Fréchet distances are compared
    clip by clip. Raises :class:`RecipeMismatch` when the reports have no recipe in common.
    """
    ids = {item.recipe.rpartition(":")[2] for item in second.results}
    if not any(item.recipe.rpartition(":")[2] in ids for item in first.results):
        raise RecipeMismatch(
            f"no recipe of {first.generated.name} is one of {second.generated.name}: their figures cannot be compared; "
            "score both with the same recipes and judges"
        )
    table = {item.metric: item for item in second.results}
    same = None if first.reference is None or second.reference is None else (
        first.reference.digest == second.reference.digest
    )  # fmt: skip
    found = []
    for item in first.results:
        reason = _refusal(item, table.get(item.metric), same)
        if reason:
            found.append(unavailable(item.metric, item.direction, reason, item.recipe))
            continue
        other = table[item.metric]
        result = None
        if split(item.metric)[0].startswith("frechet"):
            result = _frechet(first, item, mine, theirs, reference)
        elif item.per_clip and other.per_clip:
            result = _paired(item, other)
        found.append(result or _unpaired(item, other))
    return found


def _refusal(item: Result, other: Result | None, same: bool | None) -> str:
    if other is None:
        return "the other report has no such row"
    try:
        require_same(item.recipe, other.recipe)
    except RecipeMismatch as error:
        return str(error)
    for result, which in ((item, "this"), (other, "the other")):
        if result.value is None:
            return f"{which} report has no value: {result.reason}"
    if same is False and group(item.metric) == "distance":
        return "the reports have different references: score both against one"
    return ""


def _frechet(
    report: Report, item: Result, mine: Bundle | None, theirs: Bundle | None, reference: Bundle | None
) -> Result | None:
    if mine is None or theirs is None or reference is None:
        return None
    key = _key(report, item, mine)
    if key is None or key not in theirs.vectors or key not in reference.vectors:
        return None
    sets = (mine.vectors[key], theirs.vectors[key], reference.vectors[key])
    result = frechet_compare(*sets, report.recipes[item.recipe], seed=report.seed)
    if result.value is None:
        return None
    return replace(result, metric=item.metric, direction=item.direction, notes=("paired clip by clip", *result.notes))


def _key(report: Report, item: Result, mine: Bundle) -> str | None:
    """The hearing behind a row: the one whose recipe differs from the row's in the settings of the metric alone."""
    wanted = report.recipes[item.recipe].to_json()
    plain = {name: value for name, value in wanted.items() if name not in ("name", "departs", "settings", "digest")}
    for key, row in mine.recipes.items():
        if key in mine.vectors and all(row.get(name) == value for name, value in plain.items()):
            return key
    return None


def _paired(item: Result, other: Result) -> Result | None:
    common = sorted(set(item.per_clip) & set(other.per_clip))
    if len(common) < 2:
        return None
    apart = {name: item.per_clip[name] - other.per_clip[name] for name in common}
    result = average(item.metric, item.direction, apart, item.recipe, item.level)
    if result.value is None:
        return None
    notes = ["paired clip by clip"]
    odd = sorted(set(item.per_clip) ^ set(other.per_clip))
    if odd:
        notes.append(f"{len(odd)} clips are in one report only: {some(odd)}")
    extra = {"first": sum(item.per_clip[name] for name in common) / len(common),
             "second": sum(other.per_clip[name] for name in common) / len(common), "p": _flipped(apart)}  # fmt: skip
    return replace(result, notes=tuple(notes), left_out=len(odd), extra=extra)


def _unpaired(item: Result, other: Result) -> Result:
    one, two = item.best, other.best
    if one is None or two is None:
        raise ValueError(f"{item.metric}: a row without a value cannot be compared")
    extra = {"first": one, "second": two}
    result = Result(
        metric=item.metric, direction=item.direction, recipe=item.recipe, value=one - two, clips=item.clips,
        extra=extra, notes=("not paired: its interval is that of two independent figures",),
    )  # fmt: skip
    if item.error is None or other.error is None:
        return replace(result, notes=("not paired, and no error is known",))
    return with_interval(result, math.hypot(item.error, other.error), max(1, min(item.clips, other.clips) - 1))


def _flipped(apart: Mapping[str, float], seed: int = 0) -> float:
    """Two-sided p of the mean difference under random exchange of the systems, clip by clip (Fisher, 1935)."""
    values = torch.tensor([apart[name] for name in sorted(apart)], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    reached = 0
    seen = float(values.mean().abs()) - 1e-12
    for start in range(0, _FLIPS, 1000):
        signs = torch.randint(0, 2, (min(1000, _FLIPS - start), values.numel()), generator=generator) * 2 - 1
        reached += int(((signs * values).mean(dim=1).abs() >= seen).sum())
    return (reached + 1) / (_FLIPS + 1)
