"""MusicGen's decoder: pre-norm blocks with fused products, a static key-value cache, exact savings under guidance.

The blocks are those of Copet et al., 2023 (arXiv:2306.05284), section 3: layer normalisation, causal self-attention,
cross-attention to the text, a two-layer perceptron; no biases in the products. Query, key and value are one product,
those of the text are computed once for a piece of music.

What is saved costs no exactness: a row without text attends to values that are zero, and without biases its
cross-attention is zero, so such rows leave the layer out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .musicgen_config import MusicGenConfig


def positions(start: int, count: int, width: int) -> Tensor:
    """Sinusoidal positions [count, width]: cosines first, and the slowest one at 1 / 10000 exactly."""
    half = width // 2
    speed = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
    angle = torch.arange(start, start + count).float()[:, None] * speed
    return torch.cat([angle.cos(), angle.sin()], 1)


@dataclass(frozen=True)
class Told:
    """What the first rows of a batch attend to: keys and values of each layer [B, H, L, E], mask [B, 1, 1, L]."""

    keys: list[Tensor]
    values: list[Tensor]
    mask: Tensor | None

    @property
    def rows(self) -> int:
        """B."""
        return self.keys[0].shape[0]


class StaticCache:
    """Keys and values of ``rows`` sequences of at most ``length`` positions, allocated at once."""

    def __init__(self, config: MusicGenConfig, rows: int, length: int, like: Tensor) -> None:
        head = config.width // config.heads
        shape = (config.layers, rows, config.heads, length, head)
        try:
            self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
            self.values = torch.zeros_like(self.keys)
        except (RuntimeError, MemoryError) as error:
            size = 2 * math.prod(shape) * like.element_size() / 1e9
            raise RuntimeError(
                f"no memory for {size:.1f} GB of attention cache ({rows} rows of {length} steps): ask for a shorter "
                "duration or fewer pieces at once, or set guidance to 1"
            ) from error
        self.seen = 0

    @property
    def length(self) -> int:
        """Positions there is room for."""
        return self.keys.shape[3]

    @property
    def rows(self) -> int:
        """Sequences."""
        return self.keys.shape[1]

    def add(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep k, v [R, H, S, E] of the next positions; return all there are, [R, H, seen + S, E]."""
        end = self.seen + k.shape[2]
        self.keys[layer, :, :, self.seen : end] = k
        self.values[layer, :, :, self.seen : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """A copy of the first ``count`` positions, each [layers, R, H, count, E]."""
        return self.keys[:, :, :, :count].clone(), self.values[:, :, :, :count].clone()

    def take(self, keys: Tensor, values: Tensor) -> None:
        """Begin with what :meth:`first` gave of a cache of as many rows."""
        self.seen = keys.shape[3]
        self.keys[:, :, :, : self.seen], self.values[:, :, :, : self.seen] = keys, values


class Block(nn.Module):
    """One layer."""

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        width = config.width
        self.head = width // config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.cross = not config.melody
        if self.cross:
            self.cross_norm = nn.LayerNorm(width)
            self.cross_q = nn.Linear(width, width, bias=False)
            self.cross_kv = nn.Linear(width, 2 * width, bias=False)
            self.cross_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.ffn, bias=False)
        self.fc2 = nn.Linear(config.ffn, width, bias=False)
        self.relu = config.activation == "relu"

    def tell(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Text states [B, L, D] -> keys and values [B, H, L, E]."""
        k, v = self.cross_kv(states).chunk(2, -1)
        return self._heads(k), self._heads(v)

    def forward(self, x: Tensor, layer: int, told: Told | None = None, cache: StaticCache | None = None) -> Tensor:
        """Positions [R, S, D] after those in the cache -> [R, S, D]; the first rows attend to what is ``told``."""
        x = x + self.out(self._look_back(self.qkv(self.attention_norm(x)), layer, cache))
        if told is not None:
            rows = told.rows
            q = self._heads(self.cross_q(self.cross_norm(x[:rows])))
            y = F.scaled_dot_product_attention(q, told.keys[layer], told.values[layer], attn_mask=told.mask)
            y = self.cross_out(y.transpose(1, 2).flatten(2))
            x = x + y if rows == len(x) else torch.cat([x[:rows] + y, x[rows:]])
        y = self.fc1(self.mlp_norm(x))
        added: Tensor = self.fc2(F.relu(y) if self.relu else F.gelu(y))
        return x + added

    def _look_back(self, qkv: Tensor, layer: int, cache: StaticCache | None) -> Tensor:
        """qkv [R, S, 3 D] -> attended values [R, S, D]."""
        q, k, v = (self._heads(part) for part in qkv.chunk(3, -1))
        steps, seen = q.shape[2], 0
        if cache is not None:
            seen = cache.seen
            k, v = cache.add(layer, k, v)
        mask = None
        if steps > 1 and seen:
            # SDPA's own causal mask begins at the first key, ours at the first new one
            mask = torch.ones(steps, seen + steps, dtype=torch.bool, device=q.device).tril(seen)
        y: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=steps > 1 and not seen)
        return y.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        """[R, S, D] -> [R, H, S, E]."""
        rows, steps, width = x.shape
        return x.view(rows, steps, width // self.head, self.head).transpose(1, 2)
