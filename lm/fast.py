"""Fast decoding of MusicGen on a CPU: the same weights and numbers, arranged for one step at a time.

A step at batch 1 reads every weight once and does little with it, so its cost is the weights' size over the memory's
bandwidth. :class:`FastMusicGen` takes the place of a :class:`descant.lm.musicgen.MusicGenLM` in sampling and differs in

* the weights' precision, 32, 16 or 8 bits (:mod:`descant.lm.fast_linear`), and the cache's, likewise
  (:mod:`descant.lm.fast_memory`);
* cross-attention folded: the text is fixed for a piece, so W_q K^T and V W_o are multiplied once, and padding is left
  out instead of masked. With H heads of size E it pays up to L = E tokens; longer texts are attended to as usual;
* rows without text, guidance's among them, leave cross-attention out: attending to zeros gives zero. They share the
  token embeddings of the guided rows;
* few calls: every operation that torch is asked for costs microseconds, and a step has hundreds. In 8 bits, weights and
  cache, a step is one call on an x86 with numba (:mod:`descant.lm.fast_step`), which threads can share.

In fp32 all of this is exact up to the order of sums. In int8 a row's numbers do not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .fast_linear import PRECISIONS, Product, each_row, on_cpu, product, stored
from .fast_memory import FORMS, ByteMemory, Memory, best_form, memory
from .fast_step import FusedStep, Texts, folded, possible
from .fast_threads import Watch, threads
from .fast_verbs import Verbs
from .musicgen import Conditions, MusicGenLM
from .musicgen_decoder import Block
from .quant import QuantLinear

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Told:
    """What the layers read beside the tokens, made once for a piece by :meth:`FastMusicGen.ready`."""

    prefix: Tensor | None
    """[R, L, D] of melody models."""
    rows: int
    """R: B, or 2 B under guidance, the unconditional rows last."""
    texts: Texts | None
    """For :class:`descant.lm.fast_step.FusedStep`, where it is used."""
    make: Callable[[], list[list[Product | None]]]
    kept: list[tuple[Tensor, Tensor]] | None = None
    """Keys and values [R, H, L, E] of the prefix in each layer, once it was read; None does not keep them."""

    @property
    def length(self) -> int:
        """Positions before the first step."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    @cached_property
    def cross(self) -> list[list[Product | None]]:
        """[layer][piece]: cross-attention of a piece's row [1, D]; None for pieces without text."""
        return self.make()


class _Layer:
    """One block's products; where a fused step has the weights, each is made when it is first asked for."""

    def __init__(self, block: Block, precision: str, stored: Callable[[str], tuple[Tensor, Tensor]] | None) -> None:
        self.attention_norm = _norm(block.attention_norm)
        self.mlp_norm = _norm(block.mlp_norm)
        self.cross_norm = _norm(block.cross_norm) if block.cross else None
        self.block, self.precision, self._stored = block, precision, stored
        if stored is None:
            _ = self.qkv, self.out, self.fc1, self.fc2

    @cached_property
    def qkv(self) -> Product:
        """[M, D] -> [M, 3 D]."""
        return self._product("qkv")

    @cached_property
    def out(self) -> Product:
        """[M, D] -> [M, D]."""
        return self._product("out")

    @cached_property
    def fc1(self) -> Product:
        """[M, D] -> [M, F]."""
        return self._product("fc1")

    @cached_property
    def fc2(self) -> Product:
        """[M, F] -> [M, D]."""
        return self._product("fc2")

    def _product(self, name: str) -> Product:
        if self._stored is not None:
            return QuantLinear(*self._stored(name)).rows()
        return product(getattr(self.block, name).weight, self.precision)

    @cached_property
    def _long(self) -> tuple[Product, Product]:
        return product(self.block.cross_q.weight, self.precision), product(self.block.cross_out.weight, self.precision)

    def cross(self, states: Tensor) -> Product:
        """Cross-attention of one piece to its text's states [L, D] -> a function of its normalised row [1, D]."""
        heads = states.shape[1] // self.block.head
        if len(states) > self.block.head:
            return self._unfolded(states)
        scores, mix = (product(weight, self.precision) for weight in folded(self.block, states))

        def attended(x: Tensor) -> Tensor:
            return mix(scores(x).view(heads, -1).softmax(-1).view(1, -1))

        return attended

    def _unfolded(self, states: Tensor) -> Product:
        ask, give = self._long
        head = self.block.head
        k, v = (part.view(-1, part.shape[1] // head, head).transpose(0, 1) for part in
                self.block.cross_kv(states).chunk(2, -1))  # fmt: skip

        def attended(x: Tensor) -> Tensor:
            y = F.scaled_dot_product_attention(ask(x).view(1, -1, 1, head), k[None], v[None])
            return give(y.view(1, -1))

        return attended


class FastMusicGen(Verbs):
    """A MusicGen arranged for decoding; stands in for ``model`` in :func:`descant.lm.musicgen_sample.generate`.

    precision: of the weights, one of ``fp32``, ``bf16``, ``int8``; ``form``: of the attention cache, the same names, by
    default what goes with the precision on this machine. Weights of fp32 are shared with ``model``; the others are
    copies, and ``model`` is only kept for its text encoder, its projections and its embeddings.
    """

    def __init__(self, model: MusicGenLM, precision: str = "int8", form: str | None = None) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"unknown precision {precision!r}: {', '.join(PRECISIONS)}")
        if form is not None and form not in FORMS:
            raise ValueError(f"unknown form of cache {form!r}: {', '.join(FORMS)}")
        on_cpu(model.norm.weight)
        if model.norm.weight.dtype != torch.float32:
            raise ValueError(
                f"the fast engines start from float32 weights, got {model.norm.weight.dtype}: model.float()"
            )
        self.model = model
        self.config, self.pattern, self.special = model.config, model.pattern, model.special
        self.norm = model.norm
        self.precision = precision
        self.form = best_form(precision) if form is None else form
        blocks = [cast(Block, block) for block in model.blocks]
        with torch.no_grad():
            self._fused: FusedStep | None = None
            if precision == self.form == "int8" and possible():
                self._fused = FusedStep(model.config, blocks, model.norm, model.heads.weight)
            self._layers = [
                _Layer(block, precision, partial(self._fused.matrix, layer=index) if self._fused else None)
                for index, block in enumerate(blocks)
            ]
            self._heads = product(model.heads.weight, precision)
        read = model.heads.weight.numel() + sum(
            layer.weight.numel() for block in blocks for layer in (block.qkv, block.out, block.fc1, block.fc2)
        )
        self.step_bytes = read * stored(precision)
        """Weights that one step reads, those of cross-attention not counted."""
        self._watch = Watch(self.step_bytes)
        self._last = _norm(model.norm)
        self._act: Callable[[Tensor], Tensor] = F.relu if self.config.activation == "relu" else F.gelu
        books = torch.arange(self.config.books)
        self._first = books * (self.config.cardinality + 1)

    def condition(self, texts: Sequence[str | None], chroma: Tensor | None = None) -> Conditions:
        """Sentences and a melody -> conditions, as :meth:`descant.lm.musicgen.MusicGenLM.condition`."""
        return self.model.condition(texts, chroma)

    @torch.no_grad()
    def ready(self, cond: Conditions, guided: bool = False, keep: bool = False) -> Told:
        """Fold conditions into the layers; ``guided`` adds the unconditional rows.

        keep: for several pieces of music, which then read a melody model's prefix once.
        """
        rows = cond.rows * (2 if guided else 1)
        if self.config.melody:
            if cond.null is None:
                raise ValueError("these conditions are of a text model")
            prefix = torch.cat([cond.states, cond.null]) if guided else cond.states
            return Told(prefix, rows, self._texts([]), list, [] if keep else None)
        texts: list[Tensor | None] = []
        for piece in range(cond.rows):
            states = cond.states[piece] if cond.mask is None else cond.states[piece][cond.mask[piece]]
            # states of zero, as a missing text has, change nothing
            texts.append(states if bool(states.any()) else None)

        @torch.no_grad()
        def make() -> list[list[Product | None]]:
            return [[None if text is None else layer.cross(text) for text in texts] for layer in self._layers]

        return Told(None, rows, self._texts(texts), make)

    def _texts(self, texts: Sequence[Tensor | None]) -> Texts | None:
        """Texts as the fused step reads them; None without one, or where folding one would not pay."""
        config = self.config
        counts = [0 if text is None else len(text) for text in texts]
        if self._fused is None or max([0, *counts]) > config.width // config.heads:
            return None
        made = Texts((config.layers, len(texts), config.heads, config.width), counts)
        for piece, text in enumerate(texts):
            for index, layer in enumerate(self._layers):
                if text is not None:
                    made.put(index, piece, *folded(layer.block, text))
        return made

    def cache(self, ready: Told, steps: int) -> Memory:
        """An empty cache with room for the prefix and ``steps`` steps."""
        config = self.config
        shape = (config.layers, ready.rows, config.heads, config.width // config.heads)
        return memory(self.form, shape, ready.length + steps)

    @torch.no_grad()
    def __call__(self, steps: Tensor, cond: Conditions | Told, cache: Memory | None = None) -> Tensor:
        """Steps of the pattern, [B, K, S] of tokens or ``special`` -> logits [R, K, S, V] of each following step.

        With a ``cache`` the steps follow those it has seen.
        """
        ready = cond if isinstance(cond, Told) else self.ready(cond)
        books = self.config.books
        if steps.dim() != 3 or steps.shape[1] != books or not len(steps) or ready.rows % len(steps):
            raise ValueError(f"steps must be [{ready.rows}, {books}, S], got {list(steps.shape)}")
        count = steps.shape[2]
        cache = self.cache(ready, count) if cache is None else cache
        skip = ready.length if not cache.seen else 0
        if cache.rows != ready.rows or cache.seen + skip + count > cache.length:
            raise ValueError(
                f"a cache of {cache.rows} rows and {cache.length} positions cannot take {ready.rows} rows up to "
                f"position {cache.seen + skip + count}"
            )
        most = self._watch.threads(ready.rows * (skip + count) if skip + count > 1 and not cache.seen else 1)
        with threads(most):
            return self._decode(steps, ready, cache, skip, most)

    def _decode(self, steps: Tensor, ready: Told, cache: Memory, skip: int, most: int) -> Tensor:
        books, count = self.config.books, steps.shape[2]
        x = F.embedding(steps.transpose(1, 2) + self._first, self.model.embed.weight).sum(2)
        x = x.repeat(ready.rows // len(x), 1, 1)
        if cache.seen == 0 and skip + count > 1:
            past = ready.length if ready.kept else 0
            if ready.prefix is not None and not past:
                x = torch.cat([ready.prefix, x], 1)
            x = self._read(x, ready, cache, past)[:, skip - past :]
        elif self._fused is not None and ready.texts is not None:
            rows = []
            for at in range(count):
                row = x[:, at] + self._positions(cache.seen, 1)
                rows.append(self._fused.run(row, ready.texts, cast(ByteMemory, cache), most))
                cache.commit()
            return torch.stack(rows, 1).view(ready.rows, count, books, -1).transpose(1, 2)
        else:
            x = torch.stack([self._step(x[:, at], ready, cache) for at in range(count)], 1)
        logits = self._heads(F.layer_norm(x, *self._last).flatten(0, 1))
        return logits.view(ready.rows, count, books, -1).transpose(1, 2)

    def _step(self, x: Tensor, ready: Told, cache: Memory) -> Tensor:
        """One position of every row, [R, D] -> [R, D]."""
        x = x + self._positions(cache.seen, 1)
        norm, act = F.layer_norm, self._act
        for index, layer in enumerate(self._layers):
            x += layer.out(cache.attend(index, layer.qkv(norm(x, *layer.attention_norm))))
            if layer.cross_norm is not None:
                for piece, cross in enumerate(ready.cross[index]):
                    if cross is not None:
                        row = x[piece : piece + 1]
                        row += cross(norm(row, *layer.cross_norm))
            x += layer.fc2(act(layer.fc1(norm(x, *layer.mlp_norm))))
        cache.commit()
        return x

    def _read(self, x: Tensor, ready: Told, cache: Memory, past: int = 0) -> Tensor:
        """All first positions at once, [R, S, D] -> [R, S, D]; row by row where that keeps rows apart.

        past: positions of the prefix that were read for another piece.
        """
        rows, count, width = x.shape
        shape = (rows, count, 3, self.config.heads, -1)
        x = x + self._positions(past, count)
        norm = F.layer_norm
        # SDPA's own causal mask begins at the first key, ours at the first new one
        mask = torch.ones(count, past + count, dtype=torch.bool).tril(past) if past else None
        found: list[tuple[Tensor, Tensor]] = []
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(norm(x, *layer.attention_norm).flatten(0, 1)).view(shape)
            q, k, v = qkv.transpose(1, 3).unbind(2)
            if past and ready.kept:
                k, v = (torch.cat(pair, 2) for pair in zip(ready.kept[index], (k, v), strict=True))
            elif ready.kept is not None:
                found.append((k[:, :, : ready.length].clone(), v[:, :, : ready.length].clone()))
            cache.fill(index, k, v)
            y = torch.cat([
                F.scaled_dot_product_attention(
                    q[r : r + 1], k[r : r + 1], v[r : r + 1], attn_mask=mask, is_causal=count > 1 and not past
                )
                for r in range(rows)
            ])  # fmt: skip
            x = x + layer.out(y.transpose(1, 2).flatten(2).flatten(0, 1)).view(rows, count, width)
            if layer.cross_norm is not None:
                for piece, cross in enumerate(ready.cross[index]):
                    if cross is not None:
                        x[piece] += each_row(cross, norm(x[piece], *layer.cross_norm))
            y = self._act(layer.fc1(norm(x, *layer.mlp_norm).flatten(0, 1)))
            x = x + layer.fc2(y).view(rows, count, width)
        if ready.kept is not None:
            ready.kept.extend(found)
        cache.commit(past + count)
        return x

    def _positions(self, start: int, count: int) -> Tensor:
        return self.model._positions(start, count)


def _norm(module: torch.nn.LayerNorm) -> tuple[Any, Tensor, Tensor, float]:
    """What ``F.layer_norm`` takes after its input."""
    return module.normalized_shape, module.weight.detach(), module.bias.detach(), module.eps
