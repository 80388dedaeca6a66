"""How well clips fit their captions in a joint space of audio and text, with what it would be by chance.

A mean cosine alone says nothing: checkpoints differ in their offset. So it comes with the mean over shuffled captions,
the permutation test that compares the two, and retrieval within the set: how often a clip finds its own caption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from . import vectors as sets
from .metric import Result, average, unavailable
from .recipe import Recipe
from .statistics import matching_test

_NAME = "clap"
#: Ranks of the retrieval figures.
RANKS: tuple[int, ...] = (1, 5, 10)
#: Clip-by-caption cells beyond which the permutation test gets fewer shuffles, to bound its memory.
_CELLS = 20_000_000


def clap_score(
    audio: Any, text: Any, captions: Sequence[str] | None = None, recipe: Recipe | None = None, level: float = 0.95
) -> Result:
    """Mean cosine of clips and their captions; higher is better.

    audio, text: vectors [N, D] of one joint model, as :class:`~descant.eval.vectors.Vectors` paired by clip name (a
    caption's vector carries its clip's name), or arrays paired by row. Windows of a clip are averaged as they are, then
    normalised. ``captions``, one for each clip of ``text`` in its order, tell equal captions, which then count as one
    target. ``extra``: ``chance`` (the mean over all other clips' captions), ``above_chance``, ``p`` of the permutation
    test, and ``audio_to_text R@k``, ``text_to_audio R@k`` with ``chance R@k`` for k = 1, 5, 10 below N. Memory: 9 bytes
    per pair of clip and caption, twice.
    """
    recipe_id = "none" if recipe is None else recipe.id
    one, two = sets.of(audio), sets.of(text)
    reason = _problem(one, two)
    if reason:
        return unavailable(_NAME, "higher", reason, recipe_id)
    if one.dim != two.dim:
        raise ValueError(f"audio has {one.dim} dimensions, text {two.dim}: both must come from one joint model")
    if captions is not None and len(captions) != len(two.names):
        raise ValueError(f"{len(captions)} captions for {len(two.names)} clips: give one for each clip of text")
    said = None if captions is None else dict(zip(two.names, captions, strict=True))
    one, two = one.ordered(), two.ordered()
    left, right = one.means().data, two.means().data
    flat = [n for n, length in zip(one.names, left.norm(dim=1) * right.norm(dim=1), strict=True) if float(length) == 0]
    if flat:
        some = ", ".join(flat[:3])
        return unavailable(_NAME, "higher", f"{len(flat)} clips or captions have a zero vector: {some}", recipe_id)
    left, right = (item / item.norm(dim=1, keepdim=True) for item in (left, right))
    own = (left * right).sum(dim=1)
    per_clip = dict(zip(one.names, own.tolist(), strict=True))
    result = replace(average(_NAME, "higher", per_clip, recipe_id, level), windows=one.windows)
    if len(per_clip) < 2:
        return replace(result, notes=(*result.notes, "one caption has no chance level"))
    table = left @ right.T
    table.diagonal().copy_(own)
    return replace(
        result, extra=_chance(table) | retrieval(table, None if said is None else [said[clip] for clip in one.names])
    )


def retrieval(table: Tensor, captions: Sequence[str] | None = None) -> dict[str, float]:
    """R@k both ways from similarities [N, N], row = clip, column = caption, and what R@k is by chance.

    Equal captions are one target: a clip that finds its caption's twin has found it. Ties count as what a random order
    among them would give on average.
    """
    count = table.shape[0]
    if table.ndim != 2 or table.shape[1] != count or count < 2:
        raise ValueError(f"similarities have shape {tuple(table.shape)}: need [N, N] with N >= 2, clips by captions")
    kinds = list(captions) if captions is not None else list(range(count))
    index = {kind: place for place, kind in enumerate(dict.fromkeys(kinds))}
    kind = torch.tensor([index[item] for item in kinds])
    same = kind[:, None] == kind[None]
    found: dict[str, float] = {}
    for name, scores in (("audio_to_text", table), ("text_to_audio", table.T)):
        best = torch.where(same, scores, -math.inf).amax(dim=1, keepdim=True)
        ahead = ((scores > best) & ~same).sum(dim=1)
        tied = ((scores == best) & ~same).sum(dim=1)
        for rank in RANKS:
            if rank < count:
                # own target is equally likely to be first, second, ... of the tied
                hit = ((rank - ahead).clamp(min=0) / (tied + 1)).clamp(max=1)
                found[f"{name} R@{rank}"] = float(hit.double().mean())
        found[f"{name} median rank"] = float((ahead + tied / 2 + 1).double().median())
    for rank in RANKS:
        if rank < count:
            found[f"chance R@{rank}"] = _chance_hit(same.sum(dim=1), count, rank)
    return found


def _chance_hit(targets: Tensor, count: int, rank: int) -> float:
    """Mean probability that a random choice of ``rank`` out of ``count`` holds one of a row's targets."""
    miss = torch.ones(targets.numel(), dtype=torch.float64)
    for drawn in range(rank):
        miss *= ((count - targets - drawn).clamp(min=0)).double() / (count - drawn)
    return float(1 - miss.mean())


def _chance(table: Tensor) -> dict[str, float]:
    count = table.shape[0]
    shuffles = max(1000, min(10_000, _CELLS // count))
    test = matching_test(table, shuffles=shuffles)
    own = float(table.diagonal().mean())
    return {"chance": test.shuffled, "above_chance": own - test.shuffled, "p": test.p}


def _problem(one: sets.Vectors, two: sets.Vectors) -> str:
    for what, item in (("audio", one), ("text", two)):
        problem = item.problem()
        if problem:
            return f"the {what} set {problem}"
    silent = sorted(set(one.names) - set(two.names))
    spare = sorted(set(two.names) - set(one.names))
    if silent or spare:
        some = ", ".join((silent or spare)[:3])
        what = "clips have no caption" if silent else "captions have no clip"
        return f"{len(silent or spare)} {what}: {some}; captions must carry the names of the clips"
    return ""
