"""What a decoding step looks back on: attention over a static key-value cache in 32, 16 or 8 bits.

One step of a long context reads the whole cache, so its cost is the cache's size over the memory's bandwidth. In
bfloat16 that is halved (a batched product of one query; torch's own fused attention is several times slower there), in
8 bits quartered. The 8-bit form keeps one scale per position and head for keys and for values, as KIVI does for values
(Liu et al., 2024, arXiv:2402.02750, section 3), and is computed by a loop that numba compiles; without numba (extra
``fast``) the engines take 16 bits.

Rows are attended one by one by products of one shape, so a row's result does not depend on its neighbours.
"""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .fast_kernel import LANES, kernel

#: Forms of the cache, by bits per number.
FORMS: tuple[str, ...] = ("fp32", "bf16", "int8")


def best_form(precision: str) -> str:
    """The form of cache that goes with a precision of weights on this machine."""
    if precision == "fp32":
        return "fp32"
    if precision == "int8" and importlib.util.find_spec("numba") is not None:
        return "int8"
    return "bf16"


def memory(form: str, shape: tuple[int, int, int, int], length: int) -> Memory:
    """An empty cache; ``shape``: layers, rows, heads, size of a head; ``length``: positions it can take."""
    kinds = {"fp32": Memory, "bf16": HalfMemory, "int8": ByteMemory}
    if form not in kinds:
        raise ValueError(f"unknown form of cache {form!r}: {', '.join(FORMS)}")
    if min(*shape, length) < 1:
        raise ValueError(f"every size of a cache must be positive, got {shape} and {length} positions")
    try:
        return kinds[form](shape, length)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        raise RuntimeError(
            f"no memory for an attention cache of {shape[1]} rows and {length} steps: ask for a shorter duration, "
            "fewer pieces at once, or set guidance to 1"
        ) from error


class Memory:
    """Keys and values in float32."""

    dtype = torch.float32

    def __init__(self, shape: tuple[int, int, int, int], length: int) -> None:
        self.shape = shape
        self.length = length
        """Positions there is room for."""
        self.seen = 0
        """Positions taken so far."""
        self._scale = shape[3] ** -0.5
        self._make()

    @property
    def rows(self) -> int:
        """Sequences."""
        return self.shape[1]

    @property
    def bytes(self) -> int:
        """What one step at the present length reads."""
        layers, rows, heads, head = self.shape
        return 2 * layers * rows * heads * head * self.seen * self.dtype.itemsize

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """The next position of every row: qkv [R, 3 D] -> attended values [R, D]. Count it with :meth:`commit`."""
        rows, heads, head = self.shape[1:]
        q, k, v = qkv.view(rows, 3, heads, 1, head).unbind(1)
        end = self.seen + 1
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, self.seen] = k[:, :, 0]
        values[:, :, self.seen] = v[:, :, 0]
        y = F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end])
        return y.view(rows, heads * head)

    def fill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keep k, v [R, H, S, E] of the first S positions."""
        self._keys[layer, :, :, : k.shape[2]] = k
        self._values[layer, :, :, : k.shape[2]] = v

    def commit(self, count: int = 1) -> None:
        """Count the positions that all layers have seen."""
        self.seen += count

    def _make(self) -> None:
        layers, rows, heads, head = self.shape
        self._keys = torch.zeros(layers, rows, heads, self.length, head, dtype=self.dtype)
        self._values = torch.zeros_like(self._keys)


class HalfMemory(Memory):
    """Keys and values in bfloat16; sums and the softmax in float32."""

    dtype = torch.bfloat16

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """The next position of every row: qkv [R, 3 D] -> attended values [R, D]."""
        rows, heads, head = self.shape[1:]
        parts = qkv.view(rows, 3, heads, head)
        half = (parts[:, 0] * self._scale).to(self.dtype).unsqueeze(2)
        end = self.seen + 1
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, self.seen] = parts[:, 1]
        values[:, :, self.seen] = parts[:, 2]
        out = qkv.new_empty(rows, heads * head)
        for row in range(rows):
            scores = torch.bmm(half[row], keys[row, :, :end].mT)
            weights = scores.softmax(-1, dtype=torch.float32).to(self.dtype)
            out[row] = torch.bmm(weights, values[row, :, :end]).view(-1)
        return out


class ByteMemory(Memory):
    """Keys and values in 8 bits with a scale per position and head; the loop of :mod:`descant.lm.fast_kernel`."""

    dtype = torch.int8

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """The next position of every row: qkv [R, 3 D] -> attended values [R, D]."""
        rows, heads, head = self.shape[1:]
        out = torch.empty(rows, heads * head)
        self._run(
            qkv.view(rows, 3, heads, head).numpy(), out.numpy().reshape(rows, heads, head), *self._kept[layer],
            *self._room, self.seen, self._factor, 0, heads,
        )  # fmt: skip
        return out

    def fill(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keep k, v [R, H, S, E] of the first S positions."""
        count = k.shape[2]
        whole, scale = _rounded(k)
        blocks = math.ceil(count / LANES)
        padded = F.pad(whole, (0, 0, 0, blocks * LANES - count))
        # [R, H, S, E] -> [R, H, blocks, E, lanes]
        self._keys[layer, :, :, :blocks] = padded.view(*k.shape[:2], blocks, LANES, -1).transpose(3, 4)
        self._key_scale[layer, :, :, :count] = scale
        self._values[layer, :, :, :count], self._value_scale[layer, :, :, :count] = _rounded(v)

    def _make(self) -> None:
        layers, rows, heads, head = self.shape
        self._run = kernel()
        blocks = math.ceil(self.length / LANES)
        length = blocks * LANES
        self._keys = torch.zeros(layers, rows, heads, blocks, head, LANES, dtype=torch.int8)
        self._values = torch.zeros(layers, rows, heads, length, head, dtype=torch.int8)
        self._key_scale = torch.zeros(layers, rows, heads, length)
        self._value_scale = torch.zeros(layers, rows, heads, length)
        self._kept = [
            tuple(each[layer].numpy() for each in (self._keys, self._values, self._key_scale, self._value_scale))
            for layer in range(layers)
        ]
        self.stored = length
        """Positions there is memory for."""
        parts = (self._keys, self._values, self._key_scale, self._value_scale)
        self.whole = tuple(part.numpy() for part in parts)
        """Keys, values and their scales, of all layers."""
        bits = torch.zeros(length, dtype=torch.int32)
        # the second is the first, seen as float32: that is how the loop makes powers of two
        self._room = (torch.zeros(length).numpy(), bits.numpy(), bits.view(torch.float32).numpy())
        self._factor = np.float32(self._scale)


def _rounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """[R, H, S, E] -> whole numbers int8 of the same shape and scales [R, H, S]."""
    scale = x.abs().amax(-1).clamp(min=1e-20) / 127
    return (x / scale[..., None]).round().to(torch.int8), scale
