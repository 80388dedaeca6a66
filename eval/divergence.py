"""Divergence of what a tagger hears in generated and reference clips, pair by pair, each direction by its name.

Leading tools report opposite directions under one word: audiocraft's KLD is KL(reference || generated),
stable-audio-metrics' is KL(generated || reference). Here every figure says which it is. All is computed from logits in
log space and float64, without an epsilon, so identical audio gives exactly 0 and nothing else does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from . import vectors as sets
from .metric import Result, average, unavailable
from .recipe import Recipe

Form = Literal["softmax", "bernoulli"]
#: Names of the three figures.
FORWARD, BACKWARD, JS = "KL(reference||generated)", "KL(generated||reference)", "JS"


def kl(
    generated: Any, reference: Any, form: Form = "softmax", recipe: Recipe | None = None, level: float = 0.95
) -> dict[str, Result]:
    """Both Kullback-Leibler divergences and Jensen-Shannon's between a tagger's outputs for paired clips, in nats.

    Both sets hold logits [N, V]: :class:`~descant.eval.vectors.Vectors` paired by clip name, or arrays paired by row.
    Logits are averaged over the windows of a clip first, so that a long clip counts once. ``softmax`` takes a clip's
    tags as one distribution (papers do, for multi-label taggers too); ``bernoulli`` takes every tag as present or
    absent and sums over tags. Lower is better. Sets whose clips differ give results with a reason.
    """
    if form not in _LOGS:
        raise ValueError(f"form is {form!r}; allowed are {' and '.join(_LOGS)}")
    recipe_id = "none" if recipe is None else recipe.id
    one, two = sets.of(generated), sets.of(reference)
    reason = _problem(one, two)
    if reason:
        return {name: unavailable(name, "lower", reason, recipe_id) for name in (FORWARD, BACKWARD, JS)}
    if one.dim != two.dim:
        raise ValueError(f"{one.dim} and {two.dim} tags: use one tagger for both sets")
    one, two = one.ordered(), two.ordered()
    found = divergences(two.means().data, one.means().data, form)
    return {
        name: average(name, "lower", dict(zip(one.names, values.tolist(), strict=True)), recipe_id, level)
        for name, values in found.items()
    }


def divergences(reference: Tensor, generated: Tensor, form: Form = "softmax") -> dict[str, Tensor]:
    """Logits [N, V] of reference and generated clips -> {figure: float64 [N]}, in nats."""
    p, q = (_LOGS[form](logits.double()) for logits in (reference, generated))
    # the mixture of both, in log space
    middle = torch.logaddexp(p, q) - math.log(2)
    js = (_relative(p, middle) + _relative(q, middle)) / 2
    # equal rows: logaddexp rounds, the divergence is 0 nonetheless
    js = torch.where((p == q).flatten(1).all(dim=1), 0.0, js.clamp(min=0))
    return {FORWARD: _relative(p, q).clamp(min=0), BACKWARD: _relative(q, p).clamp(min=0), JS: js}


def _relative(p: Tensor, q: Tensor) -> Tensor:
    """Sum of p (log p - log q) over all but the first dimension."""
    return (p.exp() * (p - q)).flatten(1).sum(dim=1)


def _softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(dim=1)


def _bernoulli(logits: Tensor) -> Tensor:
    """Log probabilities of present and absent [N, V, 2]; log(1 - sigmoid(z)) is log sigmoid(-z), exactly."""
    return torch.stack([torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)], dim=2)


_LOGS: Mapping[str, Callable[[Tensor], Tensor]] = {"softmax": _softmax, "bernoulli": _bernoulli}


def _problem(one: sets.Vectors, two: sets.Vectors) -> str:
    for what, item in (("generated", one), ("reference", two)):
        problem = item.problem()
        if problem:
            return f"the {what} set {problem}"
    odd = sorted(set(one.names) ^ set(two.names))
    if odd:
        some = ", ".join(odd[:3]) + (", ..." if len(odd) > 3 else "")
        return f"{len(odd)} clips have no partner in the other set: {some}; give both sets the same clip names"
    return ""
