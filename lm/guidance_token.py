"""The weight of guidance as an input of the model: one row of the batch instead of two.

Guidance costs a second row, without conditions, at every step. A model can learn what the two rows add up to, for every
weight, when it is told the weight (Meng et al., 2023, "On Distillation of Guided Diffusion Models", arXiv:2210.03142);
Magenta RealTime 2 is steered in this way. Here the weight is one more vector that is added to all frames:
:mod:`descant.recipes.distil` teaches it, :mod:`descant.lm.sample` uses it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Weights that a model can be told: from none, 1, to this one.
TOP = 8.0


class GuidanceToken(nn.Module):
    """A weight of guidance from 1 to :data:`TOP` -> a vector, linear between ``bins`` learned ones.

    Row i belongs to the weight 1 + (TOP - 1) (i + 1) / bins. There is none for 1: no guidance adds nothing, whatever
    was learnt. All rows are zero at birth.
    """

    def __init__(self, bins: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(bins, width))

    def forward(self, guidance: Tensor) -> Tensor:
        """[B] -> [B, D]. Raises ValueError for weights that cannot be told."""
        if not bool(((guidance >= 1.0) & (guidance <= TOP)).all()):
            raise ValueError(f"a model can be told weights of guidance from 1 to {TOP:g}, got {guidance.tolist()}")
        bins = len(self.weight)
        place = (guidance - 1.0) * (bins / (TOP - 1.0))
        lower = place.floor().clamp(max=bins - 1).long()
        share = (place - lower).to(self.weight.dtype)[:, None]
        table = F.pad(self.weight, (0, 0, 1, 0))
        return torch.lerp(table[lower], table[lower + 1], share)
