"""The key-value cache of decoding: a permanent prefix, then a ring of the last ``window`` steps. Constant memory.

Keys of steps are stored rotated by their absolute position. Those of the prefix are kept unrotated beside it and
turned anew once the window has begun to slide (all layers in one product), so that the prefix stays as near to the
current step as it was when training ended its window. The order inside the ring does not matter to attention.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attention import attend, banded, causal, heads, rope_table, rotate, unit

_CHUNK = 1024


class Cache:
    """Keys and values of one decoding run of ``rows`` sequences that advance together."""

    def __init__(self, shape: tuple[int, int, int, int], length: int, window: int, device: torch.device) -> None:
        layers, rows, heads, head = shape
        self.length = length
        """Prefix positions."""
        self.window = window
        self.steps = 0
        """Steps taken so far."""
        self._keys = torch.zeros(layers, rows, heads, length + window, head, device=device)
        self._values = torch.zeros_like(self._keys)
        self._prefix = torch.zeros(layers, rows, heads, length, head, device=device)
        self._table = torch.empty(0, head // 2, dtype=torch.complex64, device=device)
        self._first = 0
        self._turn = self._table

    @property
    def rows(self) -> int:
        """Sequences."""
        return self._keys.shape[1]

    def begin(self, layer: int, qkv: Tensor) -> Tensor:
        """First call of a layer, prefix and steps: qkv [B, L + S, 3, H, E] -> [B, L + S, H * E]; S <= window."""
        positions, head = qkv.shape[1], qkv.shape[-1]
        table = rope_table(0, positions, head).to(qkv.device)
        q, k, v = heads(qkv, table)
        self._keys[layer, :, :, :positions] = k
        self._values[layer, :, :, :positions] = v
        self._prefix[layer] = unit(qkv[:, : self.length, 1]).transpose(1, 2)
        return causal(q, k, v)

    def advance(self, count: int) -> None:
        """Announce ``count`` further steps before the first layer sees them: choose positions, turn the prefix."""
        start = self.length + self.steps
        if start < self._first or start + count > self._first + len(self._table):
            self._first = start
            self._table = rope_table(start, max(count, _CHUNK), 2 * self._table.shape[1]).to(self._keys.device)
        self._turn = self._table[start - self._first : start - self._first + count]
        shift = self.steps - (self.window - 1)
        if count == 1 and shift > 0 and self.length:
            table = rope_table(shift, self.length, 2 * self._table.shape[1]).to(self._keys.device)
            self._keys[:, :, :, : self.length] = rotate(self._prefix, table)

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        """Further steps of a layer: qkv [B, S, 3, H, E] -> [B, S, H * E]; S <= window."""
        if qkv.shape[1] > 1:
            return self._several(layer, qkv)
        q, k, v = heads(qkv, self._turn)
        slot = self.length + self.steps % self.window
        self._keys[layer, :, :, slot] = k[:, :, 0]
        self._values[layer, :, :, slot] = v[:, :, 0]
        end = self.length + min(self.steps + 1, self.window)
        return attend(q, self._keys[layer, :, :, :end], self._values[layer, :, :, :end])

    def commit(self, count: int) -> None:
        """Count the steps all layers have seen."""
        self.steps += count

    def _several(self, layer: int, qkv: Tensor) -> Tensor:
        old = torch.arange(max(0, self.steps - self.window + 1), self.steps, device=qkv.device)
        slots = self.length + old % self.window
        past = self._keys[layer][:, :, slots], self._values[layer][:, :, slots]
        prefix = self._prefix[layer], self._values[layer, :, :, : self.length]
        out, (k, v) = banded(qkv, prefix, past, self.steps, self.window)
        new = torch.arange(self.steps, self.steps + qkv.shape[1], device=qkv.device)
        slots = self.length + new % self.window
        self._keys[layer][:, :, slots] = k
        self._values[layer][:, :, slots] = v
        return out
