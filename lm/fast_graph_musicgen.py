"""Decoding of MusicGen as one fixed program per step, for GPUs; see :mod:`descant.lm.fast_graph`.

The weights are the model's own, in the precision it has on its device. The cache has the length of the whole piece and
is looked at up to the next multiple of 512, with a program recorded for each; texts are padded to a multiple of 32
tokens, which the attention leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .fast_attend import attention
from .fast_graph import GRANULE, Program, Step, on_device, rounded_up
from .fast_verbs import Verbs
from .musicgen import Conditions, MusicGenLM
from .musicgen_decoder import Block

if TYPE_CHECKING:
    from .sample import SamplingSettings

_TEXT = 32


class GraphMusicGen(Verbs):
    """A MusicGen arranged for decoding on a GPU; stands in for ``model`` in :mod:`descant.lm.musicgen_sample`.

    attention: one of :data:`descant.lm.fast_attend.ATTENTIONS`. compiled: pass the step through ``torch.compile``
    first, which fuses its small operations; it takes a minute at the first piece of a shape.
    """

    def __init__(
        self, model: MusicGenLM, attention_by: str = "sdpa", compiled: bool = False, granule: int = GRANULE
    ) -> None:
        self.model = model
        self.config, self.pattern, self.special, self.norm = model.config, model.pattern, model.special, model.norm
        self.compiled, self.granule = compiled, granule
        self._attend = attention(attention_by)
        self._kept: tuple[tuple[int, ...], Program] | None = None

    def condition(self, texts: Sequence[str | None], chroma: Tensor | None = None) -> Conditions:
        """Sentences and a melody -> conditions, as :meth:`descant.lm.musicgen.MusicGenLM.condition`."""
        return self.model.condition(texts, chroma)

    def columns(
        self, sequence: Tensor, first: int, cond: Conditions, settings: SamplingSettings, seeds: Sequence[int]
    ) -> Iterator[int]:
        """Fill the columns of ``sequence`` [B, K, S + 1], -1 where a token is to be drawn; yield step after step.

        The first ``first`` columns are read at once, column s + 1 is there when s is yielded. What was recorded for a
        shape is kept for the next piece of that shape; while one is being made, another gets buffers of its own.
        """
        pieces, guided = len(sequence), settings.weight != 1.0
        lead = cond.states.shape[1] if self.config.melody else 0
        text = 0 if self.config.melody or not bool(cond.states.any()) else rounded_up(cond.states.shape[1], _TEXT)
        steps = sequence.shape[2] - 1
        shape = (pieces, int(guided), rounded_up(lead + steps, self.granule), lead, text)
        kept, self._kept = self._kept, None
        program = kept[1] if kept is not None and kept[0] == shape else None
        kept = None  # what is not used gives its memory back before more is taken
        with on_device(self.norm.weight.device, f"{pieces} piece(s) of {steps} steps"), torch.inference_mode():
            if program is None:
                program = Program(_Step(self, shape), self.compiled)
            made = cast(_Step, program.step)
            needed = sorted({made.length(at) for at in range(first, steps)})
            program.prepare(settings, needed)
            made.begin(cond, settings.weight, sequence[:, :, :first])
        try:
            yield from program.columns(sequence, first, settings, seeds)
        finally:
            self._kept = shape, program


class _Step(Step):
    """One step of every row; products, sums and the order of rows are those of the model's own blocks."""

    def __init__(self, engine: GraphMusicGen, shape: tuple[int, ...]) -> None:
        self.pieces, self._guided, self._most, self._lead, text = shape
        model = engine.model
        self._model, self._granule, self._attend = model, engine.granule, engine._attend
        config, weight = model.config, model.norm.weight
        self.books, self.cardinality, self.device = config.books, config.cardinality, weight.device
        self.rows = self.pieces * (1 + self._guided)
        self._heads, self._head = config.heads, config.width // config.heads
        self._layers = [_Layer(cast(Block, block)) for block in model.blocks]
        self.position = torch.zeros(1, dtype=torch.long, device=self.device)
        size = (config.layers, 2, self.rows, config.heads, self._most, self._head)
        self.kept = torch.zeros(size, dtype=weight.dtype, device=self.device)
        """Keys and values, [L, 2, R, H, T, E]."""
        size = (config.layers, 2, self.pieces, config.heads, text, self._head)
        self._told = torch.zeros(size, dtype=weight.dtype, device=self.device) if text else None
        self._told_bias = torch.zeros(self.pieces, 1, 1, text, dtype=weight.dtype, device=self.device)
        self._weight = torch.ones(1, device=self.device)
        self._table = model._positions(0, self._most).to(weight)
        self._at = torch.arange(self._most, device=self.device)
        self._open = torch.zeros(1, 1, 1, self._most, dtype=weight.dtype, device=self.device)
        self._embed, self._out = model.embed.weight.detach(), model.heads.weight.detach()
        self._first = torch.arange(self.books, device=self.device) * (self.cardinality + 1)
        self._act: Callable[[Tensor], Tensor] = F.relu if config.activation == "relu" else F.gelu

    def length(self, step: int) -> int:
        """The least multiple of the granule that holds the step's position."""
        return min(self._most, rounded_up(self._lead + step + 1, self._granule))

    def begin(self, cond: Conditions, weight: float, known: Tensor) -> None:
        """Read the conditions and the first columns ``known`` [B, K, S], at once and by the model itself."""
        model, count = self._model, self._lead + known.shape[2]
        ready = model.ready(cond, bool(self._guided))
        self._weight.fill_(weight)
        if ready.told is not None and self._told is not None:
            keys, values = torch.stack(ready.told.keys), torch.stack(ready.told.values)
            length = keys.shape[3]
            self._told.zero_()
            self._told[:, 0, :, :, :length], self._told[:, 1, :, :, :length] = keys, values
            seen = torch.zeros(self._told_bias.shape, dtype=torch.bool, device=self.device)
            seen[..., :length] = True if ready.told.mask is None else ready.told.mask
            self._told_bias.zero_().masked_fill_(~seen, float("-inf"))
        if count:
            cache = model.cache(ready, known.shape[2])
            model(known.to(self.device), ready, cache)
            self.kept[:, 0, :, :, :count], self.kept[:, 1, :, :, :count] = cache.keys, cache.values
        self.position.fill_(count)

    def logits(self, tokens: Tensor, slot: Tensor, length: int) -> Tensor:
        """Tokens [B, K] -> logits [B, K, V], guided."""
        norm, attend, rows = F.layer_norm, self._attend, (self.rows, 3, self._heads, 1, self._head)
        factor = self._head**-0.5
        x = F.embedding(tokens + self._first, self._embed).sum(1)
        if self._guided:
            x = x.repeat(2, 1)  # rows of guidance share their tokens
        x = x + self._table.index_select(0, self.position)
        bias = self._open[..., :length].masked_fill(self._at[:length] > self.position, float("-inf"))
        for index, layer in enumerate(self._layers):
            qkv = F.linear(norm(x, *layer.attention_norm), layer.qkv).view(rows).transpose(0, 1)
            kept = self.kept[index]
            kept.index_copy_(3, self.position, qkv[1:])
            y = attend(qkv[0], kept[0, :, :, :length], kept[1, :, :, :length], bias, factor)
            x = torch.addmm(x, y, layer.out)
            if self._told is not None and layer.cross_norm is not None:
                x = self._cross(x, index, layer)
            x = torch.addmm(x, self._act(F.linear(norm(x, *layer.mlp_norm), layer.fc1)), layer.fc2)
        logits = F.linear(norm(x, *_norm(self._model.norm)), self._out).float()
        logits = logits.view(self.rows, self.books, self.cardinality)
        if not self._guided:
            return logits
        told, free = logits.chunk(2)
        return free + (told - free) * self._weight

    def _cross(self, x: Tensor, index: int, layer: _Layer) -> Tensor:
        """Attention of the guided rows to the text; the others see nothing there, which changes nothing."""
        told = cast(Tensor, self._told)[index]
        row = x[: self.pieces]
        q = F.linear(F.layer_norm(row, *layer.cross_norm), layer.cross_q).view(self.pieces, self._heads, 1, self._head)
        y = self._attend(q, told[0], told[1], self._told_bias, self._head**-0.5)
        row = torch.addmm(row, y, layer.cross_out)
        return torch.cat([row, x[self.pieces :]]) if self._guided else row


class _Layer:
    """One block's weights, matrices that are added to the stream transposed."""

    def __init__(self, block: Block) -> None:
        self.qkv, self.out = block.qkv.weight.detach(), block.out.weight.detach().t()
        self.fc1, self.fc2 = block.fc1.weight.detach(), block.fc2.weight.detach().t()
        self.attention_norm, self.mlp_norm = _norm(block.attention_norm), _norm(block.mlp_norm)
        self.cross_norm: Any = None
        if block.cross:
            self.cross_norm = _norm(block.cross_norm)
            self.cross_q, self.cross_out = block.cross_q.weight.detach(), block.cross_out.weight.detach().t()


def _norm(module: torch.nn.LayerNorm) -> tuple[Any, Tensor, Tensor, float]:
    """What ``F.layer_norm`` takes after its input."""
    return module.normalized_shape, module.weight.detach(), module.bias.detach(), module.eps
