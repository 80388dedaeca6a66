"""Rows that compare sets of vectors: Fréchet and kernel distance, coverage, KL, audio-text score, diversity.

A row that cannot be computed has its reason; clips that are in one set only are left out of paired rows, named and
counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import divergence, diversity
from ..clap import clap_score
from ..coverage import neighbours
from ..frechet import frechet_distance, frechet_infinity
from ..kernel import kernel_distance
from ..metric import Result, unavailable
from ..recipe import Recipe
from ..vectors import Vectors
from .bundle import Bundle
from .inputs import some
from .judges import Line, template
from .names import direction, split
from .results import Plot

_NO_REFERENCE = "needs reference clips: --reference DIR"
_NO_CAPTIONS = "needs captions: --prompts FILE, or a .txt beside each clip"
_KL_OF = {"kl-reference-generated": divergence.FORWARD, "kl-generated-reference": divergence.BACKWARD,
          "js": divergence.JS}  # fmt: skip
#: Clips from which distances against 1 / N are drawn.
_CURVE_CLIPS = 16


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What rows are made of."""

    generated: Bundle
    reference: Bundle | None
    captions: Mapping[str, str]
    seed: int = 0


def rows(line: Line, sets: Sets, text: Any = None) -> tuple[list[Result], dict[str, Plot]]:
    """The rows of a line and their curves. ``text``: the judge's ``embed_text``, for the line ``clap``."""
    if line.reason is not None or line.hearing is None:
        return _absent(line, line.reason or "nothing was heard"), {}
    mine, why, failed = sets.generated.about(line.hearing)
    if mine is None:
        return _absent(line, why), {}
    metric = line.metrics[0]
    curves: dict[str, Plot] = {}
    if metric == "clap":
        found = {"clap": _clap(mine, sets.captions, line.recipe, text)}
    elif metric == "diversity":
        found = _spread(mine, sets.captions, line.recipe)
    elif sets.reference is None:
        return _absent(line, _NO_REFERENCE), {}
    else:
        theirs, why, lost = sets.reference.about(line.hearing)
        if theirs is None:
            return _absent(line, why), {}
        # a clip that failed on one side has no partner, and its reason is known: that is no mismatch of names
        found, curves = _against(line, mine, theirs, sets.seed, {*failed, *lost})
        failed = {**{f"{name} (reference)": reason for name, reason in lost.items()}, **failed}
    return [
        replace(found[name], metric=full).with_left_out(failed)
        for name, full in zip(line.metrics, line.names, strict=True)
    ], curves


def paired(one: Vectors, two: Vectors, known: Iterable[str] = ()) -> tuple[Vectors, Vectors, tuple[str, ...], int]:
    """The clips that both sets have, notes on the others but those that are ``known``, and how many those are."""
    common = sorted(set(one.names) & set(two.names))
    notes, odd = [], 0
    for item, what in ((one, "generated clips have no reference"), (two, "reference clips have no generated")):
        spare = sorted(set(item.names) - set(common) - set(known))
        odd += len(spare)
        if spare:
            notes.append(f"{len(spare)} {what} of their name: {some(spare)}")
    return _only(one, common), _only(two, common), tuple(notes), odd


def _against(
    line: Line, mine: Vectors, theirs: Vectors, seed: int, known: Iterable[str]
) -> tuple[dict[str, Result], dict[str, Plot]]:
    metric, full = line.metrics[0], line.names[0]
    if metric in ("frechet", "frechet-clap"):
        return _frechet(metric, full, line, mine, theirs, seed)
    if metric == "kernel":
        result = kernel_distance(mine, theirs, line.recipe)
        return {metric: result}, _bandwidths(full, result)
    if metric == "precision":
        return neighbours(mine, theirs, 5, line.recipe), {}
    one, two, notes, odd = paired(mine, theirs, known)
    if not one.names:
        reason = f"no generated clip has the name of a reference clip (such as {some(mine.names[:1])})"
        return {name: unavailable(name, "lower", reason, line.recipe.id) for name in line.metrics}, {}
    form: Any = line.recipe.setting("form")
    table = divergence.kl(one, two, form, line.recipe)
    return {
        name: replace(table[_KL_OF[name]], left_out=odd, notes=(*table[_KL_OF[name]].notes, *notes))
        for name in line.metrics
    }, {}


def _frechet(
    metric: str, full: str, line: Line, mine: Vectors, theirs: Vectors, seed: int
) -> tuple[dict[str, Result], dict[str, Plot]]:
    result = frechet_distance(mine, theirs, line.recipe, splits=int(line.recipe.setting("splits")), seed=seed)
    if result.value is None or len(mine.names) < _CURVE_CLIPS:
        return {metric: result}, {}
    curve = frechet_infinity(mine, theirs, seed=seed)
    fit = {"intercept": curve.intercept, "slope": curve.slope, "r2": curve.r2}
    extra = {**result.extra, "at infinity": curve.intercept, "r2 of 1/N": curve.r2}
    plot = Plot(
        x=tuple(1 / size for size in curve.sizes), y=curve.distances, x_label="1 / clips",
        y_label="Fréchet distance, uncorrected", fit=fit,
    )  # fmt: skip
    return {metric: replace(result, extra=extra)}, {full: plot}


def _bandwidths(full: str, result: Result) -> dict[str, Plot]:
    if result.value is None:
        return {}
    factors = {float(name.split()[1]): value for name, value in result.extra.items() if name.endswith("bandwidths")}
    factors[1.0] = float(result.best or 0.0)
    order = sorted(factors)
    return {full: Plot(x=tuple(order), y=tuple(factors[one] for one in order), x_label="bandwidth, share of the median",
                       y_label="kernel distance")}  # fmt: skip


def _clap(mine: Vectors, captions: Mapping[str, str], recipe: Recipe, text: Any) -> Result:
    said = {name: captions[name] for name in mine.names if captions.get(name)}
    if not captions or not said:
        reason = _NO_CAPTIONS if not captions else f"no caption belongs to a clip (such as {some(mine.names[:1])})"
        return unavailable("clap", "higher", reason, recipe.id, len(mine.names))
    names = sorted(said)
    form = template(recipe)
    # every caption once: twins share a vector, and a text encoder's batches stay small
    kinds = sorted({form.replace("{}", said[name]) for name in names})
    table = torch.cat([text(kinds[start : start + 64]) for start in range(0, len(kinds), 64)])
    place = {caption: row for row, caption in enumerate(kinds)}
    rows_of = table[[place[form.replace("{}", said[name])] for name in names]]
    heard = _only(mine, names)
    vectors = Vectors(rows_of.float(), torch.arange(len(names)), tuple(names))
    result = clap_score(heard, vectors, [said[name] for name in names], recipe)
    silent = [name for name in mine.names if name not in said]
    if not silent:
        return result
    note = f"{len(silent)} clips have no caption: {some(silent)}"
    return replace(result, left_out=len(silent), notes=(*result.notes, note))


def _spread(mine: Vectors, captions: Mapping[str, str], recipe: Recipe) -> dict[str, Result]:
    means = mine.ordered().means()
    return spread_rows(means, captions, recipe)


def spread_rows(means: Vectors, captions: Mapping[str, str], recipe: Recipe) -> dict[str, Result]:
    """Diversity of clips, a vector each: ``diversity``, ``nearest``, ``vendi`` and ``within-prompt``."""
    names = ("diversity", "nearest", "vendi", "within-prompt")
    keep = [index for index, norm in enumerate(means.data.norm(dim=1).tolist()) if norm > 0 and math.isfinite(norm)]
    notes = () if len(keep) == len(means.names) else (f"{len(means.names) - len(keep)} clips have a zero vector",)
    count = len(keep)
    if count < 2:
        reason = f"{count} clips with a vector: diversity needs 2"
        return {name: unavailable(name, "none", reason, recipe.id, count) for name in names}
    data = means.data[keep].double()
    found = diversity.spread(data)
    values = {"diversity": found.distance, "nearest": found.nearest, "vendi": found.vendi}
    table = {
        name: Result(metric=name, direction="none", recipe=recipe.id, value=value, clips=count, notes=notes,
                     left_out=len(means.names) - count)
        for name, value in values.items()
    }  # fmt: skip
    prompts = [captions.get(means.names[index], f"\0{means.names[index]}") for index in keep]
    if len(set(prompts)) == len(prompts):
        reason = "no caption has two clips: make every prompt with several seeds"
        table["within-prompt"] = unavailable("within-prompt", "none", reason, recipe.id, count)
    else:
        value = diversity.within_prompts(data, prompts)
        table["within-prompt"] = replace(table["diversity"], metric="within-prompt", value=value)
    return table


def _absent(line: Line, reason: str) -> list[Result]:
    return [unavailable(full, direction(split(full)[0]), reason, line.recipe.id) for full in line.names]


def _only(item: Vectors, names: Sequence[str]) -> Vectors:
    wanted = set(names)
    kept = [index for index, name in enumerate(item.names) if name in wanted]
    if len(kept) == len(item.names):
        return item.ordered()
    if not kept:
        return Vectors(item.data[:0], item.clip[:0], ())
    return item.take(torch.tensor(kept, dtype=torch.int64)).ordered()
