"""Fast decoding of our own language model on a CPU.

At the sizes a processor can play in real time, most of a step is not arithmetic but the asking for it: module calls,
tables, copies. :class:`FastTokenLM` reads the weights of a :class:`descant.lm.model.TokenLM` with the fewest
operations per step, in fp32 (the numbers of the model, up to the order of sums) or int8 (rows that do not see each
other: a piece's tokens are the same in any batch, since every sum of floats is one row's, of one shape).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import PEAK
from .cache import Cache
from .condition import ConditionBatch
from .conditioner import Conditioned
from .fast_graph_token import GraphTokenLM
from .fast_linear import PRECISIONS, on_cpu, product, stored
from .fast_threads import Watch, threads
from .model import TokenLM
from .transformer import Block

_EPS = 1e-6


class _Layer:
    """One block's products and norms."""

    def __init__(self, block: Block, precision: str) -> None:
        self.qkv, self.out, self.up, self.down = (
            product(layer.weight, precision) for layer in (block.qkv, block.out, block.up, block.down)
        )
        self.attention_norm, self.mlp_norm = block.attention_norm.weight.detach(), block.mlp_norm.weight.detach()


class FastTokenLM:
    """A TokenLM arranged for decoding: ``sample`` and ``stream`` of :mod:`descant.lm.sample` take it as a model.

    fp32 shares the model's weights, int8 and bf16 copy them; conditions are always read in the model's own float32.
    """

    def __init__(self, model: TokenLM, precision: str = "int8") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}: {', '.join(PRECISIONS)}")
        weight = model.embed.weight
        on_cpu(weight)
        if weight.dtype != torch.float32:
            raise ValueError(f"the fast engines start from float32 weights, not {weight.dtype}: model.float()")
        self.model = model
        self.config, self.pattern, self.special = model.config, model.pattern, model.special
        self.precision = precision
        blocks = [cast(Block, block) for block in model.stack.blocks]
        with torch.no_grad():
            self._layers = [_Layer(block, precision) for block in blocks]
            self._heads = product(model.heads.weight, precision)
        read = model.heads.weight.numel() + sum(
            layer.weight.numel() for block in blocks for layer in (block.qkv, block.out, block.up, block.down)
        )
        self.step_bytes = read * stored(precision)
        """Weights that one step reads."""
        self._watch = Watch(self.step_bytes)
        self._norm = model.stack.norm.weight.detach()
        self._embed = weight.detach()
        self._first = torch.arange(self.config.books)[:, None] * (self.config.cardinality + 1)
        self._apart = precision == "int8"

    def prepare(self, cond: ConditionBatch | Conditioned) -> Conditioned:
        """Run the conditioner, unless that has been done."""
        return self.model.prepare(cond)

    def cache(self, rows: int) -> Cache:
        """An empty cache for ``rows`` sequences."""
        return self.model.cache(rows)

    @torch.no_grad()
    def next(self, codes: Tensor, cond: Conditioned, cache: Cache) -> Tensor:
        """The steps after those in the cache, [B, K, S] -> logits of the one that follows them, [R, K, V].

        R, the rows of ``cond``, is B or several times B: rows of guidance share their tokens.
        """
        prefix, added = cond
        rows, seen, count = len(prefix), cache.steps, codes.shape[2]
        if codes.shape[1] != self.config.books or not len(codes) or rows % len(codes) or not count:
            raise ValueError(f"steps must be [{rows}, {self.config.books}, S], got {list(codes.shape)}")
        if added.shape[1] < seen + count or cache.rows != rows:
            raise ValueError(
                f"conditions of {rows} rows and {added.shape[1]} steps, a cache of {cache.rows} rows: {seen + count} "
                "steps are needed; collate more frames"
            )
        with threads(self._watch.threads(rows * count if count > 1 else 1)):
            return self._next(codes, cond, cache)

    def _next(self, codes: Tensor, cond: Conditioned, cache: Cache) -> Tensor:
        prefix, added = cond
        rows, seen, count = len(prefix), cache.steps, codes.shape[2]
        each = F.embedding(codes + self._first, self._embed).unbind(1)
        x = each[0]
        for book in each[1:]:
            x = x + book
        if len(codes) < rows:
            x = x.repeat(rows // len(codes), 1, 1)
        x = x + added[:, seen : seen + count]
        if seen and count == 1:
            x = self._step(x[:, 0], cache)
        elif self._apart:
            parts = [cache.part(row) for row in range(rows)]
            x = torch.cat([self._read(x[r : r + 1], prefix[r : r + 1], part) for r, part in enumerate(parts)])
            cache.steps = parts[0].steps
        else:
            x = self._read(x, prefix, cache)
        logits = self._heads(F.rms_norm(x, (x.shape[-1],), self._norm, _EPS))
        return logits.view(rows, self.config.books, -1)

    def _step(self, x: Tensor, cache: Cache) -> Tensor:
        """One position of every row, [R, D] -> [R, D]."""
        rows, width = x.shape
        heads, head = self.config.heads, width // self.config.heads
        shape, norm, apart = (width,), F.rms_norm, self._apart and rows > 1
        cache.advance(1)
        turn, slot, end = cache.turn, cache.slot, cache.end
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            qkv = layer.qkv(norm(x, shape, layer.attention_norm, _EPS)).view(rows, 3, heads, head)
            pairs = norm(qkv[:, :2], (head,), None, _EPS).reshape(rows, 2, heads, head // 2, 2)
            qk = torch.view_as_real(torch.view_as_complex(pairs) * turn).view(rows, 2, heads, head)
            keys[:, :, slot] = qk[:, 1]
            values[:, :, slot] = qkv[:, 2]
            q, keys, values = qk[:, 0].unsqueeze(2), keys[:, :, :end], values[:, :, :end]
            if apart:
                y = torch.cat([
                    _attend(q[row : row + 1], keys[row : row + 1], values[row : row + 1]) for row in range(rows)
                ])  # fmt: skip
            else:
                y = _attend(q, keys, values)
            x = x + layer.out(y)
            x = x + layer.down(F.gelu(layer.up(norm(x, shape, layer.mlp_norm, _EPS))))
        cache.commit(1)
        return x

    def _read(self, x: Tensor, prefix: Tensor, cache: Cache) -> Tensor:
        """Several positions, [R, S, D], at most a window at a time -> the last one's [R, D]."""
        for part in torch.split(x, self.config.window, 1):
            count = part.shape[1]
            if cache.steps == 0:
                part = torch.cat([prefix, part], 1)
                mix = cache.begin
            else:
                cache.advance(count)
                mix = cache.step
            for index, layer in enumerate(self._layers):
                rows, length, _ = part.shape
                qkv = layer.qkv(_normed(part, layer.attention_norm)).view(rows, length, 3, self.config.heads, -1)
                part = part + layer.out(mix(index, qkv).flatten(0, 1)).view_as(part)
                y = F.gelu(layer.up(_normed(part, layer.mlp_norm)))
                part = part + layer.down(y).view_as(part)
            cache.commit(count)
        return part[:, -1]


class _Plain:
    """A model as it is, where the fast engine does not apply: on another device, or in half precision."""

    def __init__(self, model: TokenLM) -> None:
        self.prepare, self.cache = model.prepare, model.cache
        self._model = model

    def next(self, codes: Tensor, cond: Conditioned, cache: Cache) -> Tensor:
        """[B, K, S] -> [R, K, V]; see :meth:`FastTokenLM.next`."""
        codes = codes.repeat(len(cond.prefix) // len(codes), 1, 1)
        return self._model(codes, cond, cache)[:, :, -1]  # type: ignore[no-any-return]


def engine(model: TokenLM | FastTokenLM | GraphTokenLM) -> FastTokenLM | GraphTokenLM | _Plain:
    """What decodes for ``model``: itself if it is an engine, else the fastest one that gives the same numbers."""
    if isinstance(model, FastTokenLM | GraphTokenLM):
        return model
    if model.embed.weight.device.type == "cpu" and model.embed.weight.dtype == torch.float32:
        return FastTokenLM(model, "fp32")
    return _Plain(model)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [R, H, 1, E], k and v [R, H, T, E] -> [R, H * E]."""
    return F.scaled_dot_product_attention(q, k, v, scale=PEAK / q.shape[-1]).flatten(1)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    """[R, S, D] -> [R S, D]."""
    return F.rms_norm(x, (x.shape[-1],), weight, _EPS).flatten(0, 1)
