"""Ears before playing: a stem encoder learns to hear beat and chords in tokens, before a language model listens to it.

What other stems add to the next token's likelihood is little, as the model's own past tells it nearly as much, and so
a stem encoder that starts from nothing learns slowly from the language model's loss. But a trained model knows what
to do with beats and chords that it is told. So the encoder first learns to say the same vectors from tokens alone,
where the labels are known: regression, which costs a tenth of a step of training. A teacher of features for a
conditioner that is learnt from scratch otherwise, after FitNets (Romero et al., 2015, section 2.2).

Its table of tokens begins with the language model's own, turned to the directions in which that differs most.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..lm.condition import ConditionBatch, collate, drop
from ..lm.model import TokenLM
from .jobs import KINDS, JobSet
from .loop import stream
from .optimiser import optimisers

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Learning rate at its peak, steps up to it, and the share of it at the end.
_LR, _WARMUP, _END = 2.5e-3, 50, 0.1
#: Standard deviation of the table at birth, as of a drawn one.
_SCALE = 0.25


def teach(
    lm: TokenLM, data: JobSet, steps: int, *, batch: int = 8, frames: int = 500, seed: int = 0, bf16: bool = False,
    quiet: bool = True,
) -> list[float]:  # fmt: skip
    """Train the stem encoder of ``lm``, and nothing else, for ``steps`` steps -> the share of variance missed, of each.

    Labels must say where beats and chords are. Raises ValueError for data in which no stems are heard.
    """
    from tqdm import tqdm

    _begin(lm)
    encoder, device = lm.conditioner.stems, lm.embed.weight.device
    moved = optimisers("ears", encoder, lambda name: "blocks." in name, (0.9, 0.95), 0.05)
    lessons = heard(data, batch, frames, seed)
    missed: list[float] = []
    for step in tqdm(range(steps), disable=quiet, unit="step", desc="ears"):
        told = next(lessons).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = miss(lm, told)
        encoder.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        rate = _LR * min(1.0, (step + 1) / _WARMUP) * (_END + (1 - _END) * (1 - step / steps))
        for optimiser in moved.values():
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("scale", 1.0)
            optimiser.step()
        missed.append(float(loss.detach()))
    return missed


def heard(data: JobSet, batch: int, frames: int, seed: int = 0) -> Iterator[ConditionBatch]:
    """Batches whose rows are told their beat and chords and hear something, but for a few (which teach nothing).

    Raises ValueError where none do.
    """
    kinds = {kind: float(kind == "stem") for kind in KINDS}
    listening = JobSet(data.targets, replace(data.jobs, **kinds, untold=0.0))
    step = empty = 0
    while True:
        crops = listening.draw(batch, frames, stream(seed, step, 5))
        told = collate([crop.condition for crop in crops], frames, frame_rate=data.frame_rate)
        if told.roles is not None:
            told = drop(told, {"each_stem": 0.2}, stream(seed, step, 6))
        step += 1
        empty = 0 if told.roles is not None and bool((told.roles > 0).any()) else empty + 1
        if empty > 100:
            raise ValueError("no stems are heard in these targets: prepare songs with more than one stem")
        if not empty:
            yield told


def miss(lm: TokenLM, told: ConditionBatch) -> Tensor:
    """The share of what beat and chords would add, as a variance over frames, that the encoder does not hear."""
    if told.stems is None or told.roles is None:
        raise ValueError("the batch has no stems")
    conditioner = lm.conditioner
    with torch.no_grad():
        # what is missing when neither is told
        wanted = conditioner.aligned(told) - conditioner.aligned(told.null())
    there = (told.roles > 0).any(1)
    found = conditioner.stems(told.stems, told.roles).float()
    wanted = wanted.float()[there]
    missed: Tensor = (found[there] - wanted).square().mean() / wanted.var().clamp(min=1e-6)
    return missed


def _begin(lm: TokenLM) -> None:
    """Give the encoder's table what the language model knows of the tokens: its own rows, turned and cut."""
    table = lm.conditioner.stems.embed.weight
    with torch.no_grad():
        rows = lm.embed.weight.detach().float()
        rows = rows - rows.mean(0)
        _, _, directions = torch.linalg.svd(rows, full_matrices=False)
        turned = rows @ directions[: table.shape[1]].t()
        table.copy_(turned * (_SCALE / turned.std()))
