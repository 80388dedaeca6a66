"""MusicGen written out from its formulas: slow, nothing fused, cached or saved; what the real decoder is checked with.

It reads the library's tensors by their own names, one matrix at a time, and computes a whole sequence at once with
attention as sums and exponentials (Vaswani et al., 2017, arXiv:1706.03762, section 3.2.1; Copet et al., 2023,
arXiv:2306.05284). It shares with :mod:`descant.lm.musicgen_decoder` neither code nor the order of its sums.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .musicgen_config import MusicGenConfig
from .shards import Shards


class Plain:
    """The decoder in a folder of the transformers library's format, without text encoder; float64."""

    def __init__(self, config: MusicGenConfig, weights: Shards) -> None:
        self.config = config
        self.weights = weights
        self.stem = "decoder.model.decoder." if "decoder.lm_heads.0.weight" in weights.names else "model.decoder."

    def logits(self, steps: Tensor, states: Tensor | None, prefix: Tensor | None = None) -> Tensor:
        """Steps of one piece [K, S], text states [L, D] of text models, prefix [L, D] of melody models -> [K, S, V].

        The states are projected, padding left out; None is a piece without text.
        """
        skip = 0 if prefix is None else len(prefix)
        x = torch.stack([
            self._get(f"embed_tokens.{book}.weight")[row] for book, row in enumerate(steps)
        ]).sum(0)  # fmt: skip
        x = x if prefix is None else torch.cat([prefix.double(), x])
        x = x + self._positions(len(x))
        for layer in range(self.config.layers):
            x = self._layer(x, f"layers.{layer}.", states)
        x = self._norm(x[skip:], "layer_norm")
        lead = self.stem.removesuffix("model.decoder.")
        heads = [self.weights.weight(f"{lead}lm_heads.{book}.weight").double() for book in range(self.config.books)]
        return torch.stack([x @ head.T for head in heads])

    def _layer(self, x: Tensor, name: str, states: Tensor | None) -> Tensor:
        y = self._norm(x, f"{name}self_attn_layer_norm")
        x = x + self._attend(y, y, f"{name}self_attn.", causal=True)
        if not self.config.melody and states is not None:
            y = self._norm(x, f"{name}encoder_attn_layer_norm")
            x = x + self._attend(y, states.double(), f"{name}encoder_attn.", causal=False)
        y = self._norm(x, f"{name}final_layer_norm") @ self._get(f"{name}fc1.weight").T
        y = y.clamp(min=0) if self.config.activation == "relu" else y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
        return x + y @ self._get(f"{name}fc2.weight").T

    def _attend(self, x: Tensor, to: Tensor, name: str, causal: bool) -> Tensor:
        q, k, v = (each @ self._get(f"{name}{part}_proj.weight").T for each, part in ((x, "q"), (to, "k"), (to, "v")))
        size, out = self.config.width // self.config.heads, []
        for head in range(self.config.heads):
            part = slice(head * size, (head + 1) * size)
            score = q[:, part] @ k[:, part].T / math.sqrt(size)
            if causal:
                score = score.masked_fill(torch.ones_like(score).triu(1).bool(), -torch.inf)
            share = torch.exp(score - score.amax(1, keepdim=True))
            out.append(share / share.sum(1, keepdim=True) @ v[:, part])
        return torch.cat(out, 1) @ self._get(f"{name}out_proj.weight").T

    def _norm(self, x: Tensor, name: str) -> Tensor:
        away = x - x.mean(-1, keepdim=True)
        scaled = away / torch.sqrt(away.square().mean(-1, keepdim=True) + 1e-5)
        return scaled * self._get(f"{name}.weight") + self._get(f"{name}.bias")

    def _positions(self, count: int) -> Tensor:
        half = self.config.width // 2
        angle = [[place * 10000 ** (-i / (half - 1)) for i in range(half)] for place in range(count)]
        table = torch.tensor(angle, dtype=torch.float64)
        return torch.cat([table.cos(), table.sin()], 1)

    def _get(self, name: str) -> Tensor:
        return self.weights.weight(self.stem + name).double()
