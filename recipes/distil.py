"""Guidance in one row: a finished model learns, told the weight, what its rows with and without conditions add up to.

After Meng et al., 2023, "On Distillation of Guided Diffusion Models" (arXiv:2210.03142), stage one. The teacher is the
model as it was: u + w (c - u) from two rows. The student starts from the same weights and has one row and the weight w,
drawn for each crop; what is lowered is the divergence of its tokens' distribution from the teacher's. A share of the
crops has no guidance (w = 1), so that the student remains the model it was: with the weights of single controls and
with negative prompts it still is asked for several rows.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..lm.condition import ConditionBatch
from ..lm.conditioner import Conditioned
from ..lm.guidance_token import TOP
from ..lm.model import TokenLM
from ..lm.pretrained import load
from .lm import LMRecipe, LMTask, Music
from .loop import stream
from .world import World

#: Share of crops that are taught without guidance.
PLAIN = 0.25
#: Weights whose divergence a validation reports.
VALIDATED: tuple[float, ...] = (2.0, 3.0, 6.0)


def divergence(
    student: TokenLM, teacher: TokenLM, codes: Tensor, batch: ConditionBatch, skip: int = 0
) -> tuple[Tensor, Tensor]:
    """KL in nats from the teacher's guided distribution to the student's one row: the mean over books, and of each [K].

    codes [B, K, F]; ``batch.guidance``, [B], says how strongly the teacher is guided; the student is told it.
    """
    inputs, targets = student.steps(codes, skip)
    wanted = guided(teacher, inputs, batch, skip)
    return apart(wanted, _logits(student, inputs, batch, skip).log_softmax(-1), targets)


@torch.no_grad()
def guided(teacher: TokenLM, inputs: Tensor, batch: ConditionBatch, skip: int = 0) -> Tensor:
    """Steps [B, K, S] -> logarithms of the guided probabilities, [B, K, S, V], from two rows each."""
    if batch.guidance is None:
        raise ValueError("the batch says no weight of guidance")
    told, free = (_logits(teacher, inputs, one, skip) for one in (replace(batch, guidance=None), batch.null()))
    return torch.lerp(free, told, batch.guidance.to(free)[:, None, None, None]).log_softmax(-1)


def apart(wanted: Tensor, found: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of probabilities [B, K, S, V] -> KL(wanted, found) in nats where ``targets`` [B, K, S] has tokens: the
    mean over books, and of each [K]."""
    there = (targets >= 0).float()
    books = ((wanted.exp() * (wanted - found)).sum(-1) * there).sum((0, 2)) / there.sum((0, 2)).clamp(min=1)
    return books.mean(), books


class DistilTask(LMTask):
    """One step of teaching guidance; crops, conditions and what is dropped of them as in training on music."""

    measures = "kl"

    def __init__(self, config: LMRecipe, data: Music, dev: Music, world: World | None = None) -> None:
        super().__init__(config, data, dev, world)
        self.teacher = load(config.init).requires_grad_(False).to(self.device)

    def objective(self, codes: Tensor, batch: ConditionBatch, skip: int) -> tuple[Tensor, Tensor]:
        """Codes [B, K, F] and conditions -> mean divergence, and that of each book [K]."""
        return divergence(self.lm, self.teacher, codes, batch, skip)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """As :meth:`LMTask.validate`, and the divergence from the guided teacher: ``told_3`` of the model told 3,
        ``untold_3`` of the teacher's one row with the conditions, which is what the model began with."""
        figures = super().validate(model)
        for weight in VALIDATED:
            rows = []
            for crops in itertools.chain.from_iterable(self.held_out.values()):
                codes, batch = self._collate(crops)
                batch = replace(batch, guidance=torch.full((batch.size,), weight)).to(self.device)
                with self.precision():
                    inputs, targets = self.lm.steps(codes)
                    wanted = guided(self.teacher, inputs, batch)
                    one = _logits(self.lm, inputs, batch, 0)
                    other = _logits(self.teacher, inputs, replace(batch, guidance=None), 0)
                    rows.append([float(apart(wanted, each.log_softmax(-1), targets)[0]) for each in (one, other)])
            told, untold = torch.tensor(rows).mean(0).tolist()
            figures |= {f"told_{weight:g}": told, f"untold_{weight:g}": untold}
        return figures

    def _parts(self, step: int) -> list[tuple[Tensor, ConditionBatch]]:
        c, own = self.config, self.world.share(self.config.batch)
        drawn = torch.rand(2, c.batch, generator=stream(c.seed, step, 2))
        # squared: small weights are what is asked for, and large ones, far from any one row, would outweigh them
        weights = torch.where(drawn[0] < PLAIN, 1.0, 1.0 + (TOP - 1.0) * drawn[1] ** 2)[own].chunk(c.accumulate)
        parts = zip(super()._parts(step), weights, strict=True)
        return [(codes, replace(batch, guidance=weight.to(self.device))) for (codes, batch), weight in parts]


def _logits(lm: TokenLM, inputs: Tensor, batch: ConditionBatch, skip: int) -> Tensor:
    """[B, K, S] -> [B, K, S, V], float32."""
    prefix, added = lm.prepare(batch)
    logits: Tensor = lm(inputs, Conditioned(prefix, added[:, skip:]))
    return logits.float()
