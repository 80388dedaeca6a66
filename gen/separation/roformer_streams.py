"""Residual streams around a layer: several copies of what goes through a network, mixed anew at every layer.

Hyper-connections (Zhu et al. 2024, algorithm 2) with a mixing matrix that leaves sums of streams as they are (Xie et
al. 2025, manifold-constrained): the matrix comes out of alternate normalisations of columns and rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Streams(nn.Module):
    """What a layer hears of its streams, how they are mixed, and how much of its output each stream gets."""

    def __init__(self, width: int, streams: int, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        # of each stream: its share of the layer's input, its shares of all streams, its share of the layer's output
        self.weight = nn.Parameter(torch.zeros(streams + 2, width))
        self.bias = nn.Parameter(torch.zeros(streams, streams + 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [.., R, D] of R streams -> input of the layer [.., D], mixed streams [.., R, D], shares [.., R, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
            made = functional.linear(x / length.clamp_min(1e-12), self.weight) + self.bias
            heard = (made[..., :1].sigmoid() * x).sum(-2)
            mix = made[..., 1:-1]
            mix = (mix - mix.amax(-2, keepdim=True)).exp()
            for _ in range(self.rounds):
                mix = functional.normalize(functional.normalize(mix, p=1.0, dim=-2), p=1.0, dim=-1)
            return heard, mix.transpose(-1, -2) @ x, 2 * made[..., -1:].sigmoid()
