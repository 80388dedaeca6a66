"""Sampling codes: temperature, top-k, top-p and min-p, classifier-free guidance, and reproducible noise.

The noise of a token is keyed by (seed, step, codebook). The same seed gives the same tokens however many frames are
asked for, in how many pieces they are taken and whatever else is generated beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .condition import Condition, collate
from .model import TokenLM

_WORD = (1 << 64) - 1


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
    guidance: float = 3.0
    """Weight of the conditions: logits become u + guidance * (c - u), u without and c with them; 1 is plain."""

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
        if not 0.0 <= self.guidance <= 100.0:
            raise ValueError(f"guidance {self.guidance} is outside 0 to 100")

    def temperatures(self, books: int) -> tuple[float, ...]:
        """One temperature per codebook."""
        each = self.temperature if isinstance(self.temperature, tuple) else (self.temperature,) * books
        if len(each) != books:
            raise ValueError(f"{len(each)} temperatures for {books} codebooks: give one, or one per codebook")
        return each


def filter_logits(logits: Tensor, settings: SamplingSettings) -> Tensor:
    """Logits [K, V], temperature applied -> [K, V] with -inf where a token is ruled out."""
    size = logits.shape[-1]
    if 0 < settings.top_k < size:
        least = logits.topk(settings.top_k, -1).values[..., -1:]
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
    heat = torch.tensor(settings.temperatures(len(logits)), device=logits.device)[:, None]
    cold = heat == 0
    scores = filter_logits(logits / heat.masked_fill(cold, 1.0), settings)
    return (scores + gumbel.masked_fill(cold, 0.0)).argmax(-1)


def stream(
    model: TokenLM,
    frames: int,
    cond: Condition,
    *,
    prompt: Tensor | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
) -> Iterator[Tensor]:
    """Yield the codes [K] of one new frame after another, as soon as its last codebook is drawn.

    Arguments as for :func:`sample`, which collects what this yields.
    """
    settings = settings or SamplingSettings()
    settings.temperatures(model.config.books)
    known = _prompt(model, prompt)
    if frames < 1:
        raise ValueError(f"{frames} frames: ask for at least one")
    return _run(model, frames, cond, known, settings, seed)


def sample(
    model: TokenLM,
    frames: int,
    cond: Condition,
    *,
    prompt: Tensor | None = None,
    settings: SamplingSettings | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Generate ``frames`` frames of one piece; any number, also beyond the model's window.

    ``prompt``: codes [K, F0] to continue. ``cond`` counts its times from frame 0, the prompt's first. ``progress`` is
    called with (frames done, frames). Returns the prompt and what follows it, [K, F0 + frames].
    """
    parts = [_prompt(model, prompt)]
    for row in stream(model, frames, cond, prompt=prompt, settings=settings, seed=seed):
        parts.append(row[:, None])
        if progress is not None:
            progress(len(parts) - 1, frames)
    return torch.cat(parts, 1)


def _run(
    model: TokenLM, frames: int, cond: Condition, known: Tensor, settings: SamplingSettings, seed: int
) -> Iterator[Tensor]:
    config, pattern = model.config, model.pattern
    first, total = known.shape[1], known.shape[1] + frames
    # beyond the end the model goes on writing coarse tokens, as it did in training at the end of a window; they are cut
    steps = total + pattern.tail
    delays = torch.tensor(pattern.delays)
    padded = torch.cat([known, known.new_full((config.books, frames + pattern.tail), -1)], 1)[None]
    sequence = pattern.apply(padded, model.special).to(model.embed.weight.device)
    generator = torch.Generator()
    with torch.inference_mode():
        batch = collate([cond], steps, 0, config.frame_rate)
        ready = model.prepare(batch)
        if settings.guidance != 1.0:
            ready = ready.rows(model.prepare(batch.null()))
        cache = model.cache(len(ready.prefix))
    start = 0
    for step in range(first, steps):
        with torch.inference_mode():
            logits = model(sequence[:, :, start : step + 1], ready, cache)[:, :, -1].float()
            if settings.guidance != 1.0:
                logits = logits[1:] + settings.guidance * (logits[:1] - logits[1:])
            gumbel = noise(seed, step + 1, (config.books, config.cardinality), generator)
            drawn = choose(logits[0], settings, gumbel.to(logits.device))
            # the next column: cells before the start stay special, cells of the prompt stay as they are
            column = sequence[0, :, step + 1]
            sequence[0, :, step + 1] = torch.where(column < 0, drawn, column)
        start = step + 1
        frame = step - pattern.tail
        if frame >= first:
            yield sequence[0, torch.arange(config.books), 1 + frame + delays].clone()


def _prompt(model: TokenLM, prompt: Tensor | None) -> Tensor:
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
