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
        self.keys = torch.zeros(layers, rows, heads, length + window, head, device=device)
        """Turned keys of the prefix, then the ring: [layers, B, H, L + window, E]; :attr:`values` likewise."""
        self.values = torch.zeros_like(self.keys)
        self._prefix = torch.zeros(layers, rows, heads, length, head, device=device)
        self._table = torch.empty(0, head // 2, dtype=torch.complex64, device=device)
        self._first = self._near = 0
        self._shifts = self._table
        self.turn = self._table
        """Rotations of the steps announced last, [S, E / 2]."""

    @property
    def rows(self) -> int:
        """Sequences."""
        return self.keys.shape[1]

    @property
    def sinks(self) -> Tensor:
        """Keys of the prefix, normalised but not turned: [layers, B, H, L, E]."""
        return self._prefix

    def part(self, row: int) -> Cache:
        """One row of this cache, in the same memory; counts its steps on its own."""
        layers, _, heads, _, head = self.keys.shape
        made = Cache((layers, 0, heads, head), self.length, self.window, self.keys.device)
        made.keys, made.values = self.keys[:, row : row + 1], self.values[:, row : row + 1]
        made._prefix = self._prefix[:, row : row + 1]
        made.steps = self.steps
        return made

    def begin(self, layer: int, qkv: Tensor) -> Tensor:
        """First call of a layer, prefix and steps: qkv [B, L + S, 3, H, E] -> [B, L + S, H * E]; S <= window."""
        positions, head = qkv.shape[1], qkv.shape[-1]
        table = rope_table(0, positions, head).to(qkv.device)
        q, k, v = heads(qkv, table)
        self.keys[layer, :, :, :positions] = k
        self.values[layer, :, :, :positions] = v
        self._prefix[layer] = unit(qkv[:, : self.length, 1]).transpose(1, 2)
        return causal(q, k, v)

    def advance(self, count: int) -> None:
        """Announce ``count`` further steps before the first layer sees them: choose positions, turn the prefix."""
        start = self.length + self.steps
        if start < self._first or start + count > self._first + len(self._table):
            self._first = start
            self._table = rope_table(start, max(count, _CHUNK), 2 * self._table.shape[1]).to(self.keys.device)
        self.turn = self._table[start - self._first : start - self._first + count]
        shift = self.steps - (self.window - 1)
        if count == 1 and shift > 0 and self.length:
            if shift < self._near or shift + self.length > self._near + len(self._shifts):
                self._near = shift
                self._shifts = rope_table(shift, _CHUNK + self.length, 2 * self._table.shape[1]).to(self.keys.device)
            at = shift - self._near
            self.keys[:, :, :, : self.length] = rotate(self._prefix, self._shifts[at : at + self.length])

    @property
    def slot(self) -> int:
        """Where the ring keeps the next step."""
        return self.length + self.steps % self.window

    @property
    def end(self) -> int:
        """Keys there are once the next step is in its slot."""
        return self.length + min(self.steps + 1, self.window)

    def step(self, layer: int, qkv: Tensor) -> Tensor:
        """Further steps of a layer: qkv [B, S, 3, H, E] -> [B, S, H * E]; S <= window."""
        if qkv.shape[1] > 1:
            return self._several(layer, qkv)
        q, k, v = heads(qkv, self.turn)
        self.keys[layer, :, :, self.slot] = k[:, :, 0]
        self.values[layer, :, :, self.slot] = v[:, :, 0]
        return attend(q, self.keys[layer, :, :, : self.end], self.values[layer, :, :, : self.end])

    def commit(self, count: int) -> None:
        """Count the steps all layers have seen."""
        self.steps += count

    def _several(self, layer: int, qkv: Tensor) -> Tensor:
        old = torch.arange(max(0, self.steps - self.window + 1), self.steps, device=qkv.device)
        slots = self.length + old % self.window
        past = self.keys[layer][:, :, slots], self.values[layer][:, :, slots]
        prefix = self._prefix[layer], self.values[layer, :, :, : self.length]
        out, (k, v) = banded(qkv, prefix, past, self.steps, self.window)
        new = torch.arange(self.steps, self.steps + qkv.shape[1], device=qkv.device)
        slots = self.length + new % self.window
        self.keys[layer][:, :, slots] = k
        self.values[layer][:, :, slots] = v
        return out
