"""A step of MusicGen in 8 bits without torch: weights, cache and room laid out for one compiled loop.

Asking torch for the thousand small operations of a step takes as long as a quarter of the weights; and on several
threads each of them would be a meeting. Here a step is one call (:mod:`descant.lm.fast_step_kernel`), and threads meet
six times a layer, at barriers where they look instead of sleeping.
"""

from __future__ import annotations

import functools
import importlib.util
import platform
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .fast_memory import ByteMemory
from .fast_step_kernel import levels, padded, step
from .musicgen_config import MusicGenConfig
from .musicgen_decoder import Block
from .quant import rounded

#: Threads that can share a step.
MOST = 8
#: Matrices of a block, by their names there.
PRODUCTS: tuple[str, ...] = ("qkv", "out", "fc1", "fc2")


@functools.lru_cache(maxsize=1)
def possible() -> bool:
    """Whether numba and the processor's instructions are there."""
    fits = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.cpu.get_cpu_capability() != "DEFAULT"
    return fits and importlib.util.find_spec("numba") is not None


class Texts:
    """Cross-attention of every layer and piece, folded: what is asked of a row, and what comes back."""

    def __init__(self, shape: tuple[int, int, int, int], counts: Sequence[int]) -> None:
        """shape: layers, pieces, heads, width; counts: tokens of each piece, 0 for none."""
        layers, pieces, heads, width = shape
        tokens = max([1, *counts])
        self.heads, self.tokens, self.counts = heads, tokens, np.array(counts, dtype=np.int64)
        self.outer = padded(heads * tokens)
        self._asked = torch.zeros(layers, pieces, heads, tokens, padded(width), dtype=torch.int8)
        self._asked_scale = torch.zeros(layers, pieces, heads, tokens)
        self._given = torch.zeros(layers, pieces, width, self.outer, dtype=torch.int8)
        self._given_scale = torch.zeros(layers, pieces, width)
        most = (np.float32(levels(width)), np.float32(levels(heads * tokens)))
        self.told = (
            self.counts, self._asked.numpy().reshape(-1), self._asked_scale.flatten(2).numpy(),
            self._given.numpy().reshape(-1), self._given_scale.numpy(), heads, *most,
        )  # fmt: skip

    def put(self, layer: int, piece: int, asked: Tensor, given: Tensor) -> None:
        """What :func:`folded` made of one piece's text: asked [H L, D], given [D, H L]."""
        count, width = int(self.counts[piece]), len(given)
        whole, scale = rounded(asked)
        self._asked[layer, piece, :, :count, :width] = whole.view(self.heads, count, width)
        self._asked_scale[layer, piece, :, :count] = scale.view(self.heads, count)
        whole, scale = rounded(given)
        room = self._given[layer, piece, :, : self.heads * self.tokens].view(width, self.heads, self.tokens)
        room[:, :, :count] = whole.view(width, self.heads, count)
        self._given_scale[layer, piece] = scale


class FusedStep:
    """The layers and heads of a model; :meth:`run` is one position of all rows."""

    def __init__(
        self, config: MusicGenConfig, blocks: Sequence[Block], norm: torch.nn.LayerNorm, heads: Tensor
    ) -> None:
        self.config = config
        width = config.width
        self._stored = {name: _stacked([getattr(block, name).weight for block in blocks]) for name in PRODUCTS}
        norms = torch.zeros(len(blocks), 3, 2, width)
        for row, block in zip(norms, blocks, strict=True):
            row[0] = _gains(block.attention_norm)
            row[1] = _gains(block.cross_norm) if block.cross else 0.0
            row[2] = _gains(block.mlp_norm)
        parts = [part for name in PRODUCTS for part in _flat(*self._stored[name])]
        last, last_scale = _flat(*_stacked([heads]))
        self._layers = (*parts, norms.numpy(), last, last_scale[0], _gains(norm).numpy())
        self._eps = np.float32(norm.eps)
        self._room: dict[tuple[int, int, int], tuple[Any, Any]] = {}
        self._sync = np.zeros(1, dtype=np.int64)
        self._team: ThreadPoolExecutor | None = None
        self._alone = threading.Lock()

    def matrix(self, name: str, layer: int) -> tuple[Tensor, Tensor]:
        """One of :data:`PRODUCTS` of a layer: whole numbers int8 [N, D], and scales [N]."""
        whole, scale = self._stored[name]
        return whole[layer, :, : self.config.ffn if name == "fc2" else self.config.width], scale[layer]

    def run(self, x: Tensor, text: Texts, cache: ByteMemory, threads: int = 1) -> Tensor:
        """Embedded rows float32 [R, D] at the cache's next position -> logits [R, K V]; count it with ``commit``.

        threads: at most :data:`MOST` and one per head. Calls from several threads wait for each other.
        """
        config, work = self.config, step()
        threads = max(1, min(threads, MOST, config.heads))
        width, deep = config.width, config.ffn
        sizes = (
            config.heads, config.activation == "relu", self._eps, np.float32((width // config.heads) ** -0.5),
            padded(width), np.float32(levels(width)), padded(deep), np.float32(levels(deep)), text.outer,
        )  # fmt: skip
        with self._alone:
            shared, own = self._rooms(len(x), cache.stored, text.heads * text.tokens)
            shared[0][:] = x.numpy()
            self._sync[0] = 0
            rest = (sizes, self._layers, text.told, cache.whole, shared, own, cache.seen)
            if threads > 1 and self._team is None:
                self._team = ThreadPoolExecutor(MOST - 1, thread_name_prefix="descant-step")
            others = [
                self._team.submit(work, (me, threads, self._sync), *rest) for me in range(1, threads) if self._team
            ]
            work((0, threads, self._sync), *rest)
            for job in others:
                job.result()
            return torch.from_numpy(shared[4].copy())

    def _rooms(self, rows: int, length: int, told: int) -> tuple[Any, Any]:
        """What threads share, and what each has for itself."""
        config, key = self.config, (rows, length, told)
        if key not in self._room:
            width, deep = config.width, config.ffn
            wide = max(padded(width), padded(deep), padded(told))
            shapes = [(rows, width), (rows, 3 * width), (rows, width), (rows, deep),
                      (rows, config.books * config.cardinality), (1, told)]  # fmt: skip
            shared = tuple(np.zeros(shape, dtype=np.float32) for shape in shapes)
            bits = np.zeros((MOST, length), dtype=np.int32)
            # the last is the one before it, seen as float32: that is how the attention makes powers of two
            own = (
                np.zeros((MOST, rows * wide), dtype=np.int16), np.zeros((MOST, rows), dtype=np.float32),
                np.zeros((MOST, wide), dtype=np.float32), np.zeros((MOST, length), dtype=np.float32), bits,
                bits.view(np.float32),
            )  # fmt: skip
            self._room = {key: (shared, own)}
        return self._room[key]


def folded(block: Block, states: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-attention of a block to a text's states [L, D], as two products: of a row [1, D] by the first's rows
    [H L, D] come the scores, of the shares [1, H L] by the second's [D, H L] what is added to the row."""
    width, head = states.shape[1], block.head
    k, v = (part.view(-1, width // head, head).transpose(0, 1) for part in block.cross_kv(states).chunk(2, -1))
    heads, scale = width // head, head**-0.5
    # scores of head h and token l are x . (W_q,h^T k_h,l): [H, L, E] x [H, E, D] -> [H L, D]
    asked = torch.bmm(k * scale, block.cross_q.weight.view(heads, head, width)).flatten(0, 1)
    # what token l of head h adds to the stream is W_o,h v_h,l: [H, L, E] x [H, E, D] -> [H L, D]
    given = torch.bmm(v, block.cross_out.weight.view(width, heads, head).permute(1, 2, 0)).flatten(0, 1)
    return asked, given.T.contiguous()


def _stacked(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Matrices [N, D] of all layers -> whole numbers int8 [L, N, D padded], and scales [L, N]."""
    each = [rounded(weight) for weight in weights]
    columns = weights[0].shape[1]
    whole = torch.stack([F.pad(part, (0, padded(columns) - columns)) for part, _ in each])
    return whole, torch.stack([scale for _, scale in each])


def _flat(whole: Tensor, scale: Tensor) -> tuple[Any, Any]:
    """The same memory as the compiled loop reads it."""
    return whole.numpy().reshape(-1), scale.numpy()


def _gains(norm: torch.nn.LayerNorm) -> Tensor:
    """[2, D]"""
    return torch.stack([norm.weight.detach(), norm.bias.detach()]).float()
