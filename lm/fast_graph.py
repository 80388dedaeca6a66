"""Decoding as one fixed program: a step is a plain function of tensors that never move, recorded once on a GPU.

Asking a GPU for the three hundred small operations of a step takes many times longer than the operations. Here nothing
in a step depends on the host: the position is a tensor, the cache has its final size, tokens are drawn where the logits
are, and what a step needs from outside lies ready for a whole block of steps. So the step can be captured as a CUDA
graph (``torch.cuda.CUDAGraph``) and asked for with one call; the host waits once a block. On other devices the same
function runs operation by operation.

The noise is that of :mod:`descant.lm.sample`, made on the host while the device works: the same seed draws the same
tokens on every device, as far as their logits agree.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .room import room

if TYPE_CHECKING:
    from .sample import SamplingSettings

#: Steps between two looks of the host, at most, and numbers of noise in a block, at most.
BLOCK, _MOST_NOISE = 32, 1 << 22
#: Threads that make noise.
_MAKERS = 8
#: Lengths of the cache that a step may be recorded for are multiples of this.
GRANULE = 512


class Step(ABC):
    """One step of a model over buffers of its own; :class:`Program` draws from its logits.

    A step belongs to a number of pieces and rows, and to a length of its cache.
    """

    device: torch.device
    pieces: int
    """B."""
    books: int
    cardinality: int
    position: Tensor
    """int64 [1]: where the next step goes in the cache."""

    @property
    def block(self) -> int:
        """Steps between two looks of the host."""
        return max(1, min(BLOCK, _MOST_NOISE // (self.pieces * self.books * self.cardinality)))

    @abstractmethod
    def logits(self, tokens: Tensor, slot: Tensor, length: int) -> Tensor:
        """The last column's tokens [B, K] -> guided logits float32 [B, K, V]; looks at ``length`` cache positions.

        slot: int64 [1], the step's place in its block.
        """

    @abstractmethod
    def length(self, step: int) -> int:
        """How much of the cache the step number ``step`` has to look at."""

    def load(self, start: int, count: int) -> None:  # noqa: B027 - most models have nothing to lay ready
        """Lay ready what steps start ... start + count - 1 are told."""


class Program:
    """A :class:`Step` and the drawing of its tokens, over blocks of steps."""

    def __init__(self, step: Step, compiled: bool = False) -> None:
        self.step = step
        shape, device = (step.pieces, step.books), step.device
        self.block = step.block
        self.tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self.given = torch.zeros(self.block, *shape, dtype=torch.long, device=device)
        """The columns of the block, -1 where a token is to be drawn; [N, B, K]."""
        self.drawn = torch.zeros_like(self.given)
        self.slot = torch.zeros(1, dtype=torch.long, device=device)
        self.noise = torch.zeros(self.block, *shape, step.cardinality, device=device)
        self.heat = torch.ones(step.books, 1, device=device)
        self.warm = torch.ones(step.books, 1, device=device)
        """1 where noise counts, 0 for codebooks at temperature 0."""
        self.compiled = compiled
        from .sample import filter_logits  # which knows the engines, and so this module

        self._filter = filter_logits
        self._ready: dict[tuple[int, int, float, float], Callable[[], None]] = {}
        self._pool: Any = None

    def run(self, length: int, settings: SamplingSettings) -> None:
        """One step: logits, a draw, on to the next place."""
        logits = self.step.logits(self.tokens, self.slot, length)
        noise = self.noise.index_select(0, self.slot)[0] * self.warm
        drawn = (self._filter(logits / self.heat, settings) + noise).argmax(-1)
        # cells before the start and after the end stay special, cells of the prompt stay as they are
        given = self.given.index_select(0, self.slot)[0]
        column = torch.where(given < 0, drawn, given)
        self.drawn.index_copy_(0, self.slot, column[None])
        self.tokens.copy_(column)
        self.slot.add_(1)
        self.step.position.add_(1)

    def prepare(self, settings: SamplingSettings, lengths: Sequence[int]) -> None:
        """Record the steps for these lengths of cache and ways of drawing, unless that has been done.

        Overwrites all buffers: the cache is to be filled afterwards.
        """
        each = torch.tensor(settings.temperatures(self.step.books), device=self.step.device)[:, None]
        self.heat.copy_(each.masked_fill(each == 0, 1.0))
        self.warm.copy_((each > 0).float())
        for length in lengths:
            key = self._key(settings, length)
            if key not in self._ready:
                self._ready[key] = self._recorded(settings, length)

    def columns(self, sequence: Tensor, first: int, settings: SamplingSettings, seeds: Sequence[int]) -> Iterator[int]:
        """Write what is drawn into ``sequence`` [B, K, S + 1], which holds -1 where it goes; yield step after step.

        ``first``: steps that the cache has seen. Step s reads column s and writes column s + 1.
        """
        steps = sequence.shape[2] - 1
        with torch.inference_mode():
            self.tokens.copy_(sequence[:, :, first])
        makers = min(len(seeds), _MAKERS, os.cpu_count() or 1)
        with ThreadPoolExecutor(makers) as pool:
            blocks = [(at, min(self.block, steps - at)) for at in range(first, steps, self.block)]
            noise = _Noise(self, settings, seeds, pool)
            waiting = noise.ask(*blocks[0])
            for index, (start, count) in enumerate(blocks):
                with torch.inference_mode():
                    self._launch(sequence, start, count, settings, noise.get(waiting, count))
                    if index + 1 < len(blocks):
                        waiting = noise.ask(*blocks[index + 1])
                    made = self.drawn[:count].cpu()  # here the host waits
                sequence[:, :, start + 1 : start + 1 + count] = made.permute(1, 2, 0)
                yield from range(start, start + count)

    def _launch(
        self, sequence: Tensor, start: int, count: int, settings: SamplingSettings, noise: Tensor | None
    ) -> None:
        self.given[:count].copy_(sequence[:, :, start + 1 : start + 1 + count].permute(2, 0, 1))
        if noise is not None:
            self.noise[:count].copy_(noise, non_blocking=True)
        self.step.load(start, count)
        self.slot.zero_()
        for at in range(start, start + count):
            self._ready[self._key(settings, self.step.length(at))]()

    def _key(self, settings: SamplingSettings, length: int) -> tuple[int, int, float, float]:
        return length, settings.top_k, settings.top_p, settings.min_p

    def _recorded(self, settings: SamplingSettings, length: int) -> Callable[[], None]:
        def run() -> None:
            self.run(length, settings)

        work: Callable[[], None] = run
        if self.compiled:
            work = torch.compile(run, fullgraph=True, dynamic=False)
        if self.step.device.type != "cuda":
            return work
        return self._captured(work)

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """``work`` as a CUDA graph, after three runs in earnest: libraries set themselves up in the first ones."""
        side = torch.cuda.Stream(self.step.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.step.device))
        with torch.inference_mode(), torch.cuda.device(self.step.device):
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._rewind()
                    work()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            self._rewind()
            with torch.cuda.graph(graph, pool=self._pool):
                work()
        self._pool = graph.pool()  # graphs run one after another: they may share memory
        return graph.replay

    def _rewind(self) -> None:
        self.slot.zero_()
        self.step.position.zero_()
        self.tokens.zero_()


class _Noise:
    """Blocks of noise, made by threads of the host in two buffers that take turns."""

    def __init__(
        self, program: Program, settings: SamplingSettings, seeds: Sequence[int], pool: ThreadPoolExecutor
    ) -> None:
        self._seeds, self._pool = seeds, pool
        self._shape = (program.step.books, program.step.cardinality)
        self._wanted = max(settings.temperatures(program.step.books)) > 0.0
        # a copy from page-locked memory does not hold the host up
        pinned = program.step.device.type == "cuda"
        count = 2 if self._wanted else 0
        with torch.inference_mode(False):  # other threads write into them
            self._buffers = [torch.empty(program.noise.shape, pin_memory=pinned) for _ in range(count)]

    def ask(self, start: int, count: int) -> tuple[Tensor, list[Future[None]]] | None:
        """Begin with steps start ... start + count - 1."""
        if not self._wanted:
            return None
        self._buffers.reverse()
        buffer = self._buffers[0]
        return buffer, [self._pool.submit(self._make, buffer, piece, start, count) for piece in range(len(self._seeds))]

    def get(self, waiting: tuple[Tensor, list[Future[None]]] | None, count: int) -> Tensor | None:
        """What was asked for, [N, B, K, V]."""
        if waiting is None:
            return None
        for job in waiting[1]:
            job.result()
        return waiting[0][:count]

    def _make(self, buffer: Tensor, piece: int, start: int, count: int) -> None:
        from .sample import noise

        generator = torch.Generator()
        for row in range(count):
            # a step's tokens belong to the column after it
            buffer[row, piece] = noise(self._seeds[piece], start + row + 1, self._shape, generator)


def rounded_up(count: int, granule: int) -> int:
    """The least multiple of ``granule`` that is not less than ``count``, and at least one."""
    return max(1, math.ceil(count / granule)) * granule


def on_device(device: torch.device, what: str) -> AbstractContextManager[None]:
    """Inside, a device that runs out of memory says in one line what to lower."""
    lower = (
        "ask for a shorter duration, fewer pieces at once or guidance 1, choose the precision bf16, or a smaller model"
    )
    return room(f"{what} on {device}", lower)
