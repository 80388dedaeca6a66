"""Genre and instruments as a judge's tags hear them, against what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..metric import Result, average, unavailable
from ..vectors import Vectors
from .inputs import About, some
from .judges import Line

#: Logit from which an instrument counts as heard where the judge has no thresholds of its own.
_EVEN = 0.0


def rows(line: Line, judge: Any, tags: Sequence[str], logits: Vectors, about: Mapping[str, About]) -> list[Result]:
    """``genre`` (share of clips whose likeliest genre is the one asked for) and ``instruments`` (mean F1 of a clip).

    ``logits`` are of ``tags`` and averaged over a clip. ``extra`` has the chance level: the same answers, dealt out to
    the clips at random.
    """
    means = logits.ordered().means()
    heard = {name: means.data[place] for place, name in enumerate(means.names)}
    return [
        _genre(line, _names(judge, "genres"), list(tags), heard, about),
        _instruments(line, judge, list(tags), heard, about),
    ]


def absent(suffix: str, recipe: str, reason: str) -> list[Result]:
    """Both rows without values."""
    return [unavailable(f"{name}@{suffix}", "higher", reason, recipe) for name in ("genre", "instruments")]


def _names(judge: Any, kind: str) -> tuple[str, ...]:
    return tuple(getattr(getattr(judge, "config", None), kind, ()))


def _genre(
    line: Line, genres: Sequence[str], tags: list[str], heard: Mapping[str, torch.Tensor], about: Mapping[str, About]
) -> Result:
    metric = f"genre@{line.suffix}"
    asked = {clip: str(item.genre).lower() for clip, item in about.items() if item.genre}
    if not asked:
        return unavailable(metric, "higher", "no clip has a genre label: --labels FILE, or a .json beside each clip",
                           line.recipe.id)  # fmt: skip
    # a judge that does not say which of its tags are genres is asked about the genres that were asked for
    wanted = [name.lower() for name in genres] or sorted(set(asked.values()))
    places = {tag.lower(): place for place, tag in enumerate(tags) if tag.lower() in wanted}
    if len(places) < 2:
        reason = f"the judge knows {some(sorted(places)) or 'none'} of the genres: need two"
        return unavailable(metric, "higher", reason, line.recipe.id)
    known = {clip: genre for clip, genre in asked.items() if genre in places and clip in heard}
    order = sorted(places)
    columns = torch.tensor([places[name] for name in order])
    said = {clip: order[int(heard[clip][columns].argmax())] for clip in known}
    scores = {clip: float(said[clip] == genre) for clip, genre in known.items()}
    return _scored(metric, line, scores, asked, _shuffled(said, known))


def _instruments(
    line: Line, judge: Any, tags: list[str], heard: Mapping[str, torch.Tensor], about: Mapping[str, About]
) -> Result:
    metric = f"instruments@{line.suffix}"
    asked = {clip: frozenset(name.lower() for name in item.instruments) for clip, item in about.items()
             if item.instruments}  # fmt: skip
    if not asked:
        reason = "no clip has instrument labels: --labels FILE, or a .json beside each clip"
        return unavailable(metric, "higher", reason, line.recipe.id)
    names = [name.lower() for name in _names(judge, "instruments")] or sorted(set().union(*asked.values()))
    places = {tag.lower(): place for place, tag in enumerate(tags) if tag.lower() in names}
    known = {clip: wanted & set(places) for clip, wanted in asked.items() if wanted & set(places) and clip in heard}
    if not known:
        return unavailable(metric, "higher", "the judge knows none of the instruments asked for", line.recipe.id)
    limits = getattr(getattr(judge, "config", None), "thresholds", ())
    bars = {name.lower(): _logit(limit) for name, limit in zip(_names(judge, "instruments"), limits, strict=False)}
    said = {
        clip: frozenset(name for name, place in places.items() if float(heard[clip][place]) >= bars.get(name, _EVEN))
        for clip in known
    }
    scores = {clip: _f1(said[clip], wanted) for clip, wanted in known.items()}
    clips = sorted(known)
    # every answer against every other clip's request, for as many as make the mean steady
    some_of = clips[:200]
    others = [_f1(said[one], known[two]) for one in some_of for two in some_of if one != two]
    result = _scored(metric, line, scores, asked, sum(others) / len(others) if others else None)
    odd = sorted(set().union(*asked.values()) - set(places))
    return replace(result, notes=(*result.notes, f"the judge does not know {some(odd)}")) if odd else result


def _scored(
    metric: str, line: Line, scores: Mapping[str, float], asked: Mapping[str, object], chance: float | None
) -> Result:
    if not scores:
        reason = f"none of the {len(asked)} labelled clips could be scored: the judge knows none of their labels"
        return unavailable(metric, "higher", reason, line.recipe.id)
    result = average(metric, "higher", scores, line.recipe.id)
    missing = sorted(set(asked) - set(scores))
    if missing:
        note = f"{len(missing)} labelled clips were not heard, or have a label the judge lacks: {some(missing)}"
        result = replace(result, left_out=len(missing), notes=(*result.notes, note))
    return result if chance is None or result.value is None else replace(result, extra={"chance": chance})


def _shuffled(said: Mapping[str, str], known: Mapping[str, str]) -> float | None:
    """How often a clip's answer fits another clip's request."""
    count = len(said)
    if count < 2:
        return None
    hits = sum(
        sum(one == name for one in said.values()) * sum(two == name for two in known.values())
        for name in set(said.values())
    )
    own = sum(said[clip] == known[clip] for clip in said)
    return (hits - own) / (count * (count - 1))


def _f1(said: frozenset[str], asked: frozenset[str] | set[str]) -> float:
    return 2 * len(said & asked) / (len(said) + len(asked)) if said or asked else 1.0


def _logit(chance: float) -> float:
    return float(torch.logit(torch.tensor(float(chance), dtype=torch.float64), eps=1e-9))
