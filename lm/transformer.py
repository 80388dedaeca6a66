"""Pre-norm transformer blocks without biases: RMSNorm, one projection for queries, keys and values, GELU times four.

RMSNorm after Zhang and Sennrich, 2019 (arXiv:1910.07467). How positions see each other is not a block's business: a
stack is handed a function that turns a layer's projections into its attention output, so that training, cached decoding
and the bidirectional encoders share their weights' code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend, heads, rope_table

#: (layer, qkv [B, S, 3, H, E]) -> [B, S, H * E]
Mixer = Callable[[int, Tensor], Tensor]


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-6)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_norm = RMSNorm(width)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        for layer in (self.qkv, self.up):
            nn.init.normal_(layer.weight, std=width**-0.5)
        # the residual stream receives 2 * layers contributions: keep their sum's size independent of depth
        nn.init.normal_(self.out.weight, std=(2 * layers * width) ** -0.5)
        nn.init.normal_(self.down.weight, std=(2 * layers * 4 * width) ** -0.5)

    def forward(self, x: Tensor, layer: int, mixer: Mixer) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        qkv = self.qkv(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        x = x + self.out(mixer(layer, qkv))
        out: Tensor = x + self.down(F.gelu(self.up(self.mlp_norm(x))))
        return out


class Stack(nn.Module):
    """Blocks and a last norm."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        if width % heads or (width // heads) % 2:
            raise ValueError(f"width {width} over {heads} heads: a head's size must be a whole, even number")
        self.head = width // heads
        self.blocks = nn.ModuleList(Block(width, heads, layers) for _ in range(layers))
        self.norm = RMSNorm(width)

    def forward(self, x: Tensor, mixer: Mixer) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, mixer)
        out: Tensor = self.norm(x)
        return out

    def both_ways(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, S, D], mask bool [B, S] (true = a real position) -> [B, S, D], every position seeing all real ones."""
        table = rope_table(0, x.shape[1], self.head).to(x.device)
        keys = None if mask is None else mask[:, None, None, :]
        out: Tensor = self(x, lambda _, qkv: attend(*heads(qkv, table), keys))
        return out
