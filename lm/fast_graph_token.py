"""Decoding of our own language model as one fixed program per step, for GPUs; see :mod:`descant.lm.fast_graph`.

The cache is a ring of constant size, so one program serves music of any length. What changes with the position is
computed from it: the step's rotation (angles in double precision), its slot in the ring, and the prefix's rotation,
which follows the window once that slides (:mod:`descant.lm.cache` says why).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import PEAK, unit
from .condition import ConditionBatch
from .conditioner import Conditioned
from .fast_attend import attention
from .fast_graph import Program, Step, on_device
from .model import TokenLM
from .transformer import Block

if TYPE_CHECKING:
    from .sample import SamplingSettings

_EPS = 1e-6


class GraphTokenLM:
    """A TokenLM arranged for decoding on a GPU: ``sample`` and ``stream`` of :mod:`descant.lm.sample` take it.

    ``model`` stays in float32 and reads the conditions; half: decode in bfloat16, with copies of the weights.
    attention_by: one of :data:`descant.lm.fast_attend.ATTENTIONS`. compiled: pass the step through ``torch.compile``.
    """

    def __init__(self, model: TokenLM, half: bool = False, attention_by: str = "sdpa", compiled: bool = False) -> None:
        if model.embed.weight.dtype != torch.float32:
            raise ValueError(f"this engine starts from float32 weights, not {model.embed.weight.dtype}: model.float()")
        self.model = model
        self.config, self.pattern, self.special = model.config, model.pattern, model.special
        self.dtype = torch.bfloat16 if half else torch.float32
        self.device = model.embed.weight.device
        self.compiled = compiled
        self._attend = attention(attention_by)
        blocks = [cast(Block, block) for block in model.stack.blocks]
        with torch.no_grad():
            self._layers = [_Layer(block, self.dtype) for block in blocks]
            self._embed, self._norm, self._out = (
                weight.detach().to(self.dtype)
                for weight in (model.embed.weight, model.stack.norm.weight, model.heads.weight)
            )
        self._kept: tuple[tuple[int, ...], Program] | None = None

    def prepare(self, cond: ConditionBatch | Conditioned) -> Conditioned:
        """Run the conditioner, unless that has been done."""
        return self.model.prepare(cond)

    def columns(
        self, sequence: Tensor, first: int, told: tuple[Conditioned, Tensor | None], settings: SamplingSettings,
        seeds: Sequence[int],
    ) -> Iterator[int]:  # fmt: skip
        """Fill the columns of ``sequence`` [B, K, S + 1], -1 where a token is to be drawn; yield step after step.

        told: conditions of the rows of guidance, pieces within patterns, and the patterns' factors [P, 1, 1]; None for
        one pattern. The first ``first`` columns are read at once.
        """
        ready, factors = told
        shape = len(sequence), len(ready.prefix)
        kept, self._kept = self._kept, None
        program = kept[1] if kept is not None and kept[0] == shape else None
        kept = None  # what is not used gives its memory back before more is taken
        with on_device(self.device, f"{shape[0]} piece(s)"), torch.inference_mode():
            if program is None:
                program = Program(_Step(self, shape), self.compiled)
            made = cast(_Step, program.step)
            program.prepare(settings, [made.length(first)])
            made.begin(ready, factors, sequence[:, :, :first])
        try:
            yield from program.columns(sequence, first, settings, seeds)
        finally:
            self._kept = shape, program


class _Step(Step):
    """One step of every row."""

    def __init__(self, engine: GraphTokenLM, shape: tuple[int, int]) -> None:
        self._engine = engine
        model, config, device = engine.model, engine.config, engine.device
        self.pieces, self._rows = shape
        self.books, self.cardinality, self.device = config.books, config.cardinality, device
        self._patterns = self._rows // self.pieces
        self._heads, self._head = config.heads, model.stack.head
        self._prefix, self._window = config.prefix, config.window
        self.position = torch.zeros(1, dtype=torch.long, device=device)
        most = self._prefix + self._window
        size = (config.layers, 2, self._rows, config.heads, most, self._head)
        self.kept = torch.zeros(size, dtype=engine.dtype, device=device)
        """Turned keys and values of the prefix, then the ring: [L, 2, R, H, T, E]."""
        self._sinks = torch.zeros(config.layers, self._rows, config.heads, self._prefix, self._head, device=device)
        self._factors = torch.ones(self._patterns, 1, 1, 1, device=device)
        self._added = torch.zeros(self.block, self._rows, config.width, dtype=engine.dtype, device=device)
        self._whole = torch.zeros(self._rows, 0, config.width)
        self._at = torch.arange(most, device=device)
        self._open = torch.zeros(1, 1, 1, most, dtype=engine.dtype, device=device)
        self._first = torch.arange(self.books, device=device) * (self.cardinality + 1)
        pairs = torch.arange(0, self._head, 2, dtype=torch.float64, device=device)
        self._rates = 10000.0 ** (-pairs / self._head)

    def length(self, step: int) -> int:
        """The prefix and the whole ring."""
        return self._prefix + self._window

    def begin(self, ready: Conditioned, factors: Tensor | None, known: Tensor) -> None:
        """Read the prefix and the first columns ``known`` [B, K, S], at once and by the model itself."""
        model = self._engine.model
        cache = model.cache(self._rows)
        columns = known.to(self.device).repeat(self._patterns, 1, 1)
        if known.shape[2]:
            model(columns, ready, cache)
        else:
            model.stack(ready.prefix, cache.begin)
        self.kept[:, 0], self.kept[:, 1] = cache.keys, cache.values
        self._sinks.copy_(cache.sinks)
        if factors is not None:
            self._factors.copy_(factors[..., None])
        self._whole = ready.added
        self.position.fill_(known.shape[2])

    def load(self, start: int, count: int) -> None:
        """Lay ready the vectors that conditions add to these steps."""
        self._added[:count].copy_(self._whole[:, start : start + count].transpose(0, 1))

    def logits(self, tokens: Tensor, slot: Tensor, length: int) -> Tensor:
        """Tokens [B, K] -> logits [B, K, V], guided."""
        engine, norm, width = self._engine, F.rms_norm, (self._engine.config.width,)
        at, shape = self.position, (self._rows, 3, self._heads, self._head)
        x = F.embedding(tokens + self._first, engine._embed).sum(1)
        x = x.repeat(self._patterns, 1) + self._added.index_select(0, slot)[0]
        cos, sin = self._turns(self._prefix + at)
        shift = (at - (self._window - 1)).clamp(min=0)
        sinks = _turned(self._sinks, *self._turns(shift + self._at[: self._prefix]))
        self.kept[:, 0, :, :, : self._prefix].copy_(sinks)
        place = self._prefix + at % self._window
        bias = self._open.masked_fill(self._at >= self._prefix + (at + 1).clamp(max=self._window), float("-inf"))
        for index, layer in enumerate(engine._layers):
            qkv = F.linear(norm(x, width, layer.attention_norm, _EPS), layer.qkv).view(shape)
            qk = _turned(unit(qkv[:, :2]), cos, sin).to(x.dtype)
            kept = self.kept[index]
            kept.index_copy_(3, place, torch.stack([qk[:, 1], qkv[:, 2]])[:, :, :, None])
            y = engine._attend(qk[:, 0, :, None], kept[0], kept[1], bias, PEAK / self._head)
            x = torch.addmm(x, y, layer.out)
            x = torch.addmm(x, F.gelu(F.linear(norm(x, width, layer.mlp_norm, _EPS), layer.up)), layer.down)
        logits = F.linear(norm(x, width, engine._norm, _EPS), engine._out).float()
        rows = logits.view(self._patterns, self.pieces, self.books, self.cardinality)
        return (rows * self._factors).sum(0)

    def _turns(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [S] -> cosines and sines of their rotations, float32 [S, E / 2]; in double precision until then."""
        angles = at.double()[:, None] * self._rates
        return angles.cos().float(), angles.sin().float()


class _Layer:
    """One block's weights, matrices that are added to the stream transposed."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        each = (block.qkv, block.out, block.up, block.down, block.attention_norm, block.mlp_norm)
        qkv, out, up, down, first, second = (layer.weight.detach().to(dtype) for layer in each)
        self.qkv, self.out, self.up, self.down = qkv, out.t(), up, down.t()
        self.attention_norm, self.mlp_norm = first, second


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x float32 [..., E] turned pair by pair by [..., E / 2]; see :func:`descant.lm.attention.rotate`."""
    even, odd = x.view(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
