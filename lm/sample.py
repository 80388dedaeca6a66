"""Sampling codes: temperature, top-k, top-p and min-p, classifier-free guidance, and reproducible noise.

The noise of a token is keyed by (seed of its piece, step, codebook), where the order of codebooks is not the delay
pattern by the frame instead of the step. The same seed gives the same tokens however many frames are asked for, in how
many pieces they are taken and whatever else is generated beside them: exactly in int8, whose rows do not see each
other; in fp32 as far as sums of another order allow, which shows where two tokens are as good as equally likely. (A
coarse-first model sees how long the piece is to be, so there another length is other music.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .condition import Condition, collate, drop
from .conditioner import Conditioned
from .fast_graph_token import GraphTokenLM
from .fast_token import FastTokenLM, engine
from .guidance import Weights, checked, plan, present
from .guidance_token import TOP
from .model import LMConfig, TokenLM
from .pattern import Order, Pattern
from .room import with_room

_WORD = (1 << 64) - 1
#: A language model of ours, or an engine that decodes for one.
Model = TokenLM | FastTokenLM | GraphTokenLM
#: Called with (frames done, frames).
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How tokens are drawn from logits."""

    temperature: float | tuple[float, ...] = 1.0
    """0 takes the most likely token; a tuple gives each codebook its own."""
    top_k: int = 250
    """Keep the k likeliest tokens, and ties with the last of them; 0 keeps all."""
    top_p: float = 1.0
    """Keep the fewest tokens whose probabilities reach this sum; 1 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest's probability."""
    guidance: Weights = 3.0
    """Weight of the conditions: logits become u + guidance * (c - u), u without and c with them; 1 is plain.

    Or a weight for each of several controls, such as ``{"text": 3, "stems": 2}``; names as in
    :data:`descant.lm.guidance.NAMES`, ``rest`` for all others. What is not named is given to every row. A model that
    takes the weight as an input (:mod:`descant.lm.guidance_token`) is told one number of up to 8; of names it is not.
    """
    nested: bool = False
    """With weights by name: each control on top of those named before it, instead of each alone."""

    def __post_init__(self) -> None:
        each = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)
        if not each or not all(0.0 <= value <= 100.0 for value in each):
            raise ValueError(f"temperature {self.temperature} is outside 0 to 100")
        if self.top_k < 0:
            raise ValueError(f"top_k {self.top_k} must be 0 (all) or more")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p {self.top_p} is outside 0 (excluded) to 1")
        if not 0.0 <= self.min_p < 1.0:
            raise ValueError(f"min_p {self.min_p} is outside 0 to 1 (excluded)")
        checked(self.guidance)

    @property
    def weight(self) -> float:
        """The one weight of guidance, for models whose conditions cannot be weighed apart."""
        if not isinstance(self.guidance, float | int):
            raise ValueError("this model's conditions cannot be weighed apart: give guidance as one number")
        return float(self.guidance)

    def temperatures(self, books: int) -> tuple[float, ...]:
        """One temperature per codebook."""
        each = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,) * books
        if len(each) != books:
            raise ValueError(f"{len(each)} temperatures for {books} codebooks: give one, or one per codebook")
        return each


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Logits [..., V], temperature applied -> [..., V] with -inf where a token is ruled out."""
    size = logits.shape[-1]
    if 0 < settings.top_k < size:
        least = logits.topk(settings.top_k, -1, sorted=False).values.amin(-1, keepdim=True)
        logits = logits.masked_fill(logits < least, float("-inf"))
    if settings.top_p < 1.0:
        order = logits.sort(-1, descending=True)
        share = order.values.softmax(-1)
        # a token goes when those before it already reach the sum: the likeliest always stays
        gone = share.cumsum(-1) - share >= settings.top_p
        logits = logits.masked_fill(gone.scatter(-1, order.indices, gone), float("-inf"))
    if settings.min_p > 0.0:
        share = logits.softmax(-1)
        logits = logits.masked_fill(share < settings.min_p * share.amax(-1, keepdim=True), float("-inf"))
    return logits


def noise(seed: int, step: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Gumbel noise [K, V] of one step, a function of (seed, step, codebook) alone; ``generator`` is overwritten."""
    generator.manual_seed(_mix(_mix(seed & _WORD) ^ (step & _WORD)))
    uniform = torch.rand(shape, generator=generator).clamp_(min=1e-20)
    return uniform.log_().neg_().log_().neg_()


def choose(logits: Tensor, settings: SamplingSettings, gumbel: Tensor) -> Tensor:
    """Logits [K, V] -> tokens [K]: the largest of filtered logits plus Gumbel noise is a draw from their softmax."""
    each = settings.temperatures(len(logits))
    if min(each) == max(each) > 0.0:
        return (filter_logits(logits / each[0], settings) + gumbel).argmax(-1)
    heat = torch.tensor(each, device=logits.device)[:, None]
    cold = heat == 0
    scores = filter_logits(logits / heat.masked_fill(cold, 1.0), settings)
    return (scores + gumbel.masked_fill(cold, 0.0)).argmax(-1)


def stream(
    model: Model, frames: int, cond: Condition, *, prompt: Tensor | None = None,
    settings: SamplingSettings | None = None, seed: int = 0, negative: Condition | None = None,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield the codes [K] of one new frame after another, as soon as its last codebook is drawn.

    Arguments as for :func:`sample`, which collects what this yields.
    """
    known = _prompt(model, prompt)[None]
    rows = stream_batch(model, frames, [cond], prompt=known, settings=settings, seeds=[seed], negative=negative)
    return (row[0] for row in rows)


def sample(
    model: Model, frames: int, cond: Condition, *, prompt: Tensor | None = None,
    settings: SamplingSettings | None = None, seed: int = 0, progress: Progress | None = None,
    negative: Condition | None = None,
) -> Tensor:  # fmt: skip
    """Generate ``frames`` frames of one piece; any number, also beyond the model's window.

    ``prompt``: codes [K, F0] to continue. ``cond`` counts its times from frame 0, the prompt's first. ``negative`` is
    what guidance leads away from, instead of no condition at all. ``progress`` is called with (frames done, frames).
    Returns the prompt and what follows it, [K, F0 + frames].
    """
    known = _prompt(model, prompt)[None]
    return sample_batch(
        model, frames, [cond], prompt=known, settings=settings, seeds=[seed], progress=progress, negative=negative
    )[0]


def stream_batch(
    model: Model, frames: int, conds: Sequence[Condition], *, prompt: Tensor | None = None,
    settings: SamplingSettings | None = None, seeds: int | Sequence[int] = 0, negative: Condition | None = None,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield the codes [B, K] of one new frame of B pieces after another; see :func:`sample_batch`.

    Raises ValueError for a model that finishes no frame before it has begun the last one.
    """
    if not model.pattern.endless:
        raise ValueError(
            f"a {model.config.pattern} model writes the first codebook of the whole piece before the others, so there "
            "is nothing to play before the end: make it whole, or use a model with the delay pattern"
        )
    return _frames(model, frames, conds, prompt, settings, (seeds, negative))


def _frames(
    model: Model, frames: int, conds: Sequence[Condition], prompt: Tensor | None, settings: SamplingSettings | None,
    way: tuple[int | Sequence[int], Condition | None],
) -> Iterator[Tensor]:  # fmt: skip
    """As :func:`stream_batch`, of any model; ``way``: seeds and the negative condition."""
    settings, (seeds, negative) = settings or SamplingSettings(), way
    settings.temperatures(model.config.books)
    size = len(conds)
    if not size:
        raise ValueError("no conditions: give one per piece, Condition() for music without any")
    each = [seeds + row for row in range(size)] if isinstance(seeds, int) else list(seeds)
    if len(each) != size:
        raise ValueError(f"{len(each)} seeds for {size} pieces: give one for all, or one per piece")
    if prompt is not None and (prompt.dim() != 3 or prompt.shape[0] not in (1, size)):
        raise ValueError(
            f"prompts must be whole numbers [{size}, {model.config.books}, frames], got {list(prompt.shape)}"
        )
    pieces = prompt if prompt is not None else [None] * size
    known = torch.stack([_prompt(model, piece) for piece in pieces]).expand(size, -1, -1)
    if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
        raise ValueError(f"{frames!r} frames: ask for a whole number of them, at least one")
    model.config.check_frames(known.shape[2] + frames)
    return with_room(_run(model, frames, (conds, negative), known, settings, each), size, known.shape[2] + frames)


def sample_batch(
    model: Model, frames: int, conds: Sequence[Condition], *, prompt: Tensor | None = None,
    settings: SamplingSettings | None = None, seeds: int | Sequence[int] = 0, progress: Progress | None = None,
    negative: Condition | None = None,
) -> Tensor:  # fmt: skip
    """Generate ``frames`` frames of B pieces at once, one per condition.

    ``prompt``: codes [B or 1, K, F0] to continue. ``seeds``: one per piece; a single one is the first piece's, the
    others follow it. A piece is the same alone and in any company, see the module. Other arguments as for
    :func:`sample`. Returns the prompts and what follows them, [B, K, F0 + frames].
    """
    rows = _frames(model, frames, conds, prompt, settings, (seeds, negative))
    parts = []
    for row in rows:
        parts.append(row)
        if progress is not None:
            progress(len(parts), frames)
    new = torch.stack(parts, 2)
    if prompt is None:
        return new
    return torch.cat([prompt.long().cpu().expand(len(new), -1, -1), new], 2)


def _run(
    model: Model, frames: int, conds: tuple[Sequence[Condition], Condition | None], known: Tensor,
    settings: SamplingSettings, seeds: Sequence[int],
) -> Iterator[Tensor]:  # fmt: skip
    pattern, first, total = model.pattern, known.shape[2], known.shape[2] + frames
    # beyond the end the model goes on writing coarse tokens, as it did in training at the end of a window; they are cut
    reach = total + pattern.tail
    sequence = _layout(known, pattern, frames, model.special)[:, :, : pattern.inputs(reach) + 1]
    places, books = pattern.places(total), torch.arange(model.config.books)
    last = places.amax(0).tolist()
    with torch.inference_mode():
        fast = engine(model)
        told = _rows(model, conds, reach, settings)
    if not isinstance(fast, GraphTokenLM):
        sequence = sequence.to(told[0].prefix.device)
        done = _columns(fast, pattern, sequence, told, settings, seeds)
    elif isinstance(pattern, Pattern):
        done = fast.columns(sequence, first, told, settings, seeds)
    else:
        raise ValueError(f"this engine writes no {model.config.pattern} pattern: sample from the model itself")
    frame = first
    for step in done:
        while frame < total and last[frame] <= step + 1:
            yield sequence[:, books, places[:, frame]].cpu().clone()
            frame += 1


def _columns(
    fast: Any, pattern: Order, sequence: Tensor, told: tuple[Conditioned, Tensor | None], settings: SamplingSettings,
    seeds: Sequence[int],
) -> Iterator[int]:  # fmt: skip
    """Fill the cells of ``sequence`` [B, K, S + 1] that hold -1; yield s when column s + 1 is there."""
    (size, books, _), generator = sequence.shape, torch.Generator()
    ready, factors = told
    frames = pattern.frames(sequence.shape[2])
    with torch.inference_mode():
        cache = fast.cache(len(ready.prefix))
    start = 0
    # what is given, at the beginning or in between, is read at once
    for step in ((sequence < 0).any(1).any(0).nonzero()[:, 0] - 1).tolist():
        with torch.inference_mode():
            logits = fast.next(sequence[:, :, start : step + 1], ready, cache).float()
            logits = logits.view(-1, size, *logits.shape[1:])
            moment = pattern.moment(step + 1, frames)
            for piece, seed in enumerate(seeds):
                # piece by piece: sums of one shape, whatever the batch
                mixed = logits[0, piece] if factors is None else (logits[:, piece] * factors).sum(0)
                gumbel = noise(seed, moment, (books, mixed.shape[1]), generator)
                drawn = choose(mixed, settings, gumbel.to(logits.device))
                # the next column: cells before the start stay special, cells of the prompt stay as they are
                column = sequence[piece, :, step + 1]
                sequence[piece, :, step + 1] = torch.where(column < 0, drawn, column)
        start = step + 1
        yield step


def _layout(known: Tensor, pattern: Order, frames: int, special: int) -> Tensor:
    """Prompts [B, K, F0] -> the pattern's sequence [B, K, S] with -1 where tokens are to be drawn."""
    size, books, _ = known.shape
    return pattern.apply(torch.cat([known, known.new_full((size, books, frames + pattern.tail), -1)], 2), special)


def _rows(
    model: Model, conds: tuple[Sequence[Condition], Condition | None], frames: int, settings: SamplingSettings
) -> tuple[Conditioned, Tensor | None]:
    """The rows of guidance, pieces within patterns, and the patterns' factors [P, 1, 1]; None for one pattern.

    Pieces are prepared one by one: a text's encoding must not depend on how long its neighbour's is.
    """
    pieces, negative = conds
    told = negative is None and _can_be_told(model.config, settings.guidance)
    chosen = plan(1.0 if told else settings.guidance, settings.nested, present(pieces), negative is not None)
    parts = []
    for left_out, _ in chosen:
        for piece in pieces:
            given = negative if negative is not None and "rest" in left_out else piece
            batch = collate([given], frames, 0, model.config.frame_rate)
            if given is piece and left_out:
                batch = drop(batch, dict.fromkeys(left_out - {"target"}, 1.0), torch.Generator())
                if "target" in left_out and batch.target is not None:
                    batch = replace(batch, target=torch.zeros_like(batch.target))
            if told and present([piece]):
                batch = replace(batch, guidance=torch.tensor([settings.weight]))
            parts.append(model.prepare(batch))
    ready = Conditioned(torch.cat([part.prefix for part in parts]), torch.cat([part.added for part in parts]))
    if len(chosen) == 1:
        return ready, None
    factors = torch.tensor([factor for _, factor in chosen], device=ready.prefix.device)
    return ready, factors[:, None, None]


def _can_be_told(config: LMConfig, guidance: Weights) -> bool:
    """Whether the weight of guidance is an input of the model, which then does in one row what else takes two."""
    return bool(config.guidance_bins) and not isinstance(guidance, Mapping) and 1.0 < guidance <= TOP


def _prompt(model: Model, prompt: Tensor | None) -> Tensor:
    """Checked prompt [K, F0] on the CPU; F0 = 0 without one."""
    books, top = model.config.books, model.config.cardinality
    if prompt is None:
        return torch.empty(books, 0, dtype=torch.long)
    if prompt.dim() != 2 or prompt.shape[0] != books or prompt.is_floating_point():
        raise ValueError(f"a prompt must be whole numbers [{books}, frames], got {list(prompt.shape)} {prompt.dtype}")
    if prompt.numel():
        low, high = int(prompt.min()), int(prompt.max())
        if low < 0 or high >= top:
            raise ValueError(f"a prompt's tokens must lie in 0 ... {top - 1}, got {low} ... {high}")
    return prompt.long().cpu()


def _mix(value: int) -> int:
    """SplitMix64's finaliser (Steele et al., 2014): neighbouring keys give unrelated ones."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)
