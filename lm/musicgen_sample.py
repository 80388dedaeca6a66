"""Tokens from a :class:`descant.lm.musicgen.MusicGenLM`: a batch at a time, guided, reproducible, as a stream.

The noise of a token is keyed by (seed of its piece, step, codebook), as for our own model: a piece does not depend on
what else is in its batch, as far as arithmetic allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .fast_graph_musicgen import GraphMusicGen
from .musicgen import Conditions, MusicGenLM
from .room import with_room
from .sample import SamplingSettings, choose, noise

#: Called with (frames done, frames).
Progress = Callable[[int, int], None]
#: Frames that can be asked for at once; longer music is made window by window.
MOST_FRAMES = 1 << 17


def stream(
    model: MusicGenLM, frames: int, cond: Conditions, *, prompt: Tensor | None = None,
    settings: SamplingSettings | None = None, seed: int | Sequence[int] = 0, ready: Any = None,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield the codes [B, K] of one new frame after another, as soon as its last codebook is drawn.

    Arguments as for :func:`generate`, which collects what this yields. ready: what ``model.ready`` made of ``cond``,
    for several pieces with the same conditions; engines for GPUs make it anew.
    """
    settings = settings or SamplingSettings()
    settings.temperatures(model.config.books)
    if isinstance(frames, bool) or not isinstance(frames, int) or not 1 <= frames <= MOST_FRAMES:
        raise ValueError(f"{frames!r} frames: ask for a whole number, 1 to {MOST_FRAMES}")
    known = _prompt(model, prompt, cond.rows)
    seeds = [seed + row for row in range(cond.rows)] if isinstance(seed, int) else list(seed)
    if len(seeds) != cond.rows:
        raise ValueError(f"{len(seeds)} seeds for {cond.rows} pieces: give one for all, or one per piece")
    if ready is not None and ready.rows != cond.rows * (1 if settings.weight == 1.0 else 2):
        raise ValueError(f"{ready.rows} rows were made ready for {cond.rows} pieces: make them with the same guidance")
    rows = _run(model, frames, (cond, ready), known, settings, seeds)
    return with_room(rows, len(seeds), known.shape[2] + frames)


def generate(
    model: MusicGenLM, frames: int, cond: Conditions, *, prompt: Tensor | None = None,
    settings: SamplingSettings | None = None, seed: int | Sequence[int] = 0, progress: Progress | None = None,
) -> Tensor:  # fmt: skip
    """Generate ``frames`` frames of B pieces.

    prompt: codes [B or 1, K, F0] to continue. seed: one per piece; a single one is the first piece's, the others follow
    it. ``progress`` is called with (frames done, frames). Returns the prompt and what follows, [B, K, F0 + frames].
    """
    parts = []
    for row in stream(model, frames, cond, prompt=prompt, settings=settings, seed=seed):
        parts.append(row)
        if progress is not None:
            progress(len(parts), frames)
    return torch.cat([_prompt(model, prompt, cond.rows), torch.stack(parts, 2)], 2)


def _run(
    model: MusicGenLM, frames: int, told: tuple[Conditions, Any], known: Tensor, settings: SamplingSettings,
    seeds: Sequence[int],
) -> Iterator[Tensor]:  # fmt: skip
    config, pattern = model.config, model.pattern
    rows, first = known.shape[0], known.shape[2]
    total = first + frames
    delays, books = torch.tensor(pattern.delays), torch.arange(config.books)
    open_cells = known.new_full((rows, config.books, frames), -1)
    sequence = pattern.apply(torch.cat([known, open_cells], 2), model.special)
    if isinstance(model, GraphMusicGen):
        steps = model.columns(sequence, first, told[0], settings, seeds)
    else:
        sequence = sequence.to(model.norm.weight.device)
        steps = _columns(model, sequence, first, told, settings, seeds)
    for step in steps:
        frame = step - pattern.tail
        if first <= frame < total:
            yield sequence[:, books, 1 + frame + delays].cpu().clone()


def _columns(
    model: MusicGenLM, sequence: Tensor, first: int, told: tuple[Conditions, Any], settings: SamplingSettings,
    seeds: Sequence[int],
) -> Iterator[int]:  # fmt: skip
    """Fill the cells of ``sequence`` [B, K, S + 1] that hold -1; yield s when column s + 1 is there."""
    steps = sequence.shape[2] - 1
    weight = settings.weight
    guided = weight != 1.0
    generator = torch.Generator()
    with torch.inference_mode():
        ready = model.ready(told[0], guided) if told[1] is None else told[1]
        cache = model.cache(ready, steps)
    start = 0
    for step in range(first, steps):
        with torch.inference_mode():
            logits = model(sequence[:, :, start : step + 1], ready, cache)[:, :, -1].float()
            if guided:
                led, free = logits.chunk(2)
                logits = free + (led - free) * weight
            drawn = torch.stack([_draw(one, settings, seeds[i], step + 1, generator) for i, one in enumerate(logits)])
            # cells before the start and after the end stay special, cells of the prompt stay as they are
            column = sequence[:, :, step + 1]
            sequence[:, :, step + 1] = torch.where(column < 0, drawn, column)
        start = step + 1
        yield step


def _draw(logits: Tensor, settings: SamplingSettings, seed: int, step: int, generator: torch.Generator) -> Tensor:
    """logits [K, V] -> tokens [K]."""
    gumbel = noise(seed, step, (logits.shape[0], logits.shape[1]), generator)
    return choose(logits, settings, gumbel.to(logits.device))


def _prompt(model: MusicGenLM, prompt: Tensor | None, rows: int) -> Tensor:
    """Checked prompt [B, K, F0] on the CPU; F0 = 0 without one."""
    books, top = model.config.books, model.config.cardinality
    if prompt is None:
        return torch.empty(rows, books, 0, dtype=torch.long)
    if prompt.dim() != 3 or prompt.shape[0] not in (1, rows) or prompt.shape[1] != books or prompt.is_floating_point():
        raise ValueError(
            f"a prompt must be whole numbers [{rows}, {books}, frames], got {list(prompt.shape)} {prompt.dtype}"
        )
    if prompt.numel():
        low, high = (int(value) for value in prompt.aminmax())
        if low < 0 or high >= top:
            raise ValueError(f"a prompt's tokens must lie in 0 ... {top - 1}, got {low} ... {high}")
    return prompt.long().cpu().expand(rows, -1, -1)
