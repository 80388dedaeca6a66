"""MusicGen's language model: text or melody in, tokens out, numerically that of the transformers library.

Conventions that decide whether the numbers agree, as that library has them: the text's projection is zeroed where the
tokenizer padded, and padding is not attended to in the text models but is in the melody models; a row without text has
states of zero *after* the projection; a row without melody has pitch class 0 in every frame, projected. Guidance mixes
raw logits, before temperature.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from .musicgen_config import MusicGenConfig
from .musicgen_decoder import Block, StaticCache, Told, positions
from .pattern import Pattern

if TYPE_CHECKING:
    from .musicgen_sample import Progress
    from .sample import SamplingSettings
    from .t5 import TextEncoder


@dataclass(frozen=True)
class Conditions:
    """What B pieces are told: ``states`` [B, L, D], projected; of melody models the whole prefix."""

    states: Tensor
    mask: Tensor | None
    """bool [B, L], which states are attended to; None in melody models, which attend to all."""
    null: Tensor | None
    """The prefix [B, L, D] of guidance's unconditional rows in melody models; text models leave those rows out."""

    @property
    def rows(self) -> int:
        """B."""
        return self.states.shape[0]


@dataclass(frozen=True)
class Ready:
    """Conditions in the form the layers read, made once for a piece by :meth:`MusicGenLM.ready`."""

    told: Told | None
    prefix: Tensor | None
    """[R, L, D] of melody models."""
    rows: int
    """R: B, or 2 B under guidance, the unconditional rows last."""
    kept: list[tuple[Tensor, Tensor]] | None = None
    """Keys and values [L, R, H, T, E] of the prefix, once it was read; None does not keep them."""

    @property
    def length(self) -> int:
        """Positions before the first step."""
        return 0 if self.prefix is None else self.prefix.shape[1]


class MusicGenLM(nn.Module):
    """A MusicGen decoder with its projections, and its text encoder where it has one (:attr:`text`)."""

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        self.config = config
        width, books, card = config.width, config.books, config.cardinality
        self.pattern: Pattern = config.pattern
        self.embed = nn.Embedding(books * (card + 1), width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Linear(width, books * card, bias=False)
        self.project_text = nn.Linear(config.text_width, width) if config.projects_text else None
        self.project_chroma = nn.Linear(config.chroma_bins, width) if config.projects_chroma else None
        for name, weight in self.named_parameters():
            if weight.dim() == 2 and not weight.is_meta:
                nn.init.normal_(weight, std=0.02)
            elif name.startswith("project") and not weight.is_meta:
                nn.init.zeros_(weight)
        self._table = torch.empty(0, width)
        self.text: TextEncoder | None = None
        """Reads sentences; None in a decoder that came or was built alone."""
        self.source: Path | None = None
        """The folder the weights came from: it has the codec and the tokenizer too."""

    @property
    def special(self) -> int:
        """The token of cells without a token."""
        return self.config.cardinality

    def condition(self, texts: Sequence[str | None], chroma: Tensor | None = None) -> Conditions:
        """Sentences, None for no condition at all, and a melody -> conditions.

        chroma: [B or 1, F, P] of :func:`descant.lm.chroma.chroma` at 32 kHz; None is the model's own "no melody".
        """
        if not texts:
            raise ValueError("no sentences: give one per piece, None for music without a sentence")
        if self.text is None:
            if any(text is not None for text in texts):
                raise ValueError("this decoder has no text encoder: load a whole MusicGen model, or give states")
            states = torch.zeros(len(texts), 1, self.config.text_width)
            return self.condition_states(states, torch.zeros(len(texts), 1, dtype=torch.bool), chroma)
        states, mask = self.text.encode(texts)
        return self.condition_states(states, mask, chroma)

    def condition_states(self, states: Tensor, mask: Tensor | None = None, chroma: Tensor | None = None) -> Conditions:
        """The text encoder's states [B, L, width of the text] and mask [B, L] -> conditions; ``mask`` None is all."""
        weight = self.norm.weight
        if states.dim() != 3 or states.shape[2] != self.config.text_width or not states.numel():
            raise ValueError(f"text states must be [B, L, {self.config.text_width}], got {list(states.shape)}")
        mask = torch.ones(states.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
        if mask.shape != states.shape[:2]:
            raise ValueError(f"a mask {list(mask.shape)} does not fit text states {list(states.shape)}")
        states, mask = states.to(weight), mask.to(weight.device)
        if self.project_text is not None:
            states = self.project_text(states)
        states = states * mask[..., None]
        if not self.config.melody:
            if chroma is not None:
                raise ValueError("this model does not take a melody: facebook/musicgen-melody does")
            return Conditions(states, mask, None)
        lead = self._lead(chroma, len(states))
        return Conditions(
            torch.cat([lead, states], 1), None, torch.cat([self._lead(None, len(states)), torch.zeros_like(states)], 1)
        )

    def _lead(self, chroma: Tensor | None, rows: int) -> Tensor:
        """chroma [B or 1, F, P] -> the prefix's melody [B, frames, D]."""
        bins, frames = self.config.chroma_bins, self.config.chroma_frames
        if chroma is None:
            chroma = torch.zeros(rows, 1, bins)
            chroma[:, :, 0] = 1.0
        if chroma.dim() != 3 or chroma.shape[0] not in (1, rows) or chroma.shape[2] != bins or not chroma.shape[1]:
            raise ValueError(f"a melody must be [{rows} or 1, F >= 1, {bins}], got {list(chroma.shape)}")
        chroma = chroma.to(self.norm.weight).expand(rows, -1, -1)
        lead = chroma if self.project_chroma is None else self.project_chroma(chroma)
        return lead.repeat(1, math.ceil(frames / lead.shape[1]), 1)[:, :frames]

    def ready(self, cond: Conditions, guided: bool = False, keep: bool = False) -> Ready:
        """Bring conditions into the form the layers read; ``guided`` adds the unconditional rows.

        keep: for several pieces of music, which then read a melody model's prefix once.
        """
        rows = cond.rows * (2 if guided else 1)
        if self.config.melody:
            if cond.null is None:
                raise ValueError("these conditions are of a text model")
            prefix = torch.cat([cond.states, cond.null]) if guided else cond.states
            return Ready(None, prefix, rows, [] if keep else None)
        mask = cond.mask
        if mask is not None:
            # a row without text has states of zero: seeing them all or none gives zero, but none is not defined
            mask = mask | ~mask.any(1, keepdim=True)
            mask = None if bool(mask.all()) else mask[:, None, None]
        pairs = [block.tell(cond.states) for block in cast("Iterable[Block]", self.blocks)]
        return Ready(Told([k for k, _ in pairs], [v for _, v in pairs], mask), None, rows)

    def cache(self, ready: Ready, steps: int) -> StaticCache:
        """An empty cache with room for the prefix and ``steps`` steps."""
        return StaticCache(self.config, ready.rows, ready.length + steps, self.norm.weight)

    def forward(self, steps: Tensor, cond: Conditions | Ready, cache: StaticCache | None = None) -> Tensor:
        """Steps of the pattern, [B, K, S] of tokens or :attr:`special` -> logits [R, K, S, V] of each following step.

        With a ``cache`` the steps follow those it has seen. R is B, or 2 B of conditions made ready for guidance.
        """
        config = self.config
        ready = cond if isinstance(cond, Ready) else self.ready(cond)
        if steps.dim() != 3 or steps.shape[1] != config.books or not len(steps) or ready.rows % len(steps):
            raise ValueError(f"steps must be [{ready.rows}, {config.books}, S], got {list(steps.shape)}")
        first = torch.arange(config.books, device=steps.device) * (config.cardinality + 1)
        x = self.embed(steps.transpose(1, 2) + first).sum(2)
        x = x.repeat(ready.rows // len(x), 1, 1)  # rows of guidance share their tokens
        if cache is not None and not cache.seen and ready.kept and cache.length >= ready.length:
            cache.take(*ready.kept[0])
        seen = 0 if cache is None else cache.seen
        skip = 0
        if ready.prefix is not None and not seen:
            skip = ready.length
            x = torch.cat([ready.prefix, x], 1)
        if cache is not None and (cache.rows != ready.rows or seen + x.shape[1] > cache.length):
            raise ValueError(
                f"a cache of {cache.rows} rows and {cache.length} positions cannot take {ready.rows} rows up to "
                f"position {seen + x.shape[1]}"
            )
        x = x + self._positions(seen, x.shape[1]).to(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, ready.told, cache)
        if cache is not None:
            cache.seen = seen + x.shape[1]
            if skip and ready.kept == []:
                ready.kept.append(cache.first(skip))
        logits: Tensor = self.heads(self.norm(x[:, skip:]))
        return logits.view(*logits.shape[:2], config.books, config.cardinality).transpose(1, 2)

    def logits(self, codes: Tensor, cond: Conditions) -> Tensor:
        """Codes [B, K, F] -> logits [B, K, F, V]: what the model expected at each of them."""
        sequence = self.pattern.apply(codes, self.special)
        found = self(sequence[:, :, :-1], cond)
        frames = codes.shape[2]
        rows = [found[:, book, delay : delay + frames] for book, delay in enumerate(self.pattern.delays)]
        return torch.stack(rows, 1)

    def stream(
        self, frames: int, cond: Conditions, *, prompt: Tensor | None = None, settings: SamplingSettings | None = None,
        seed: int | Sequence[int] = 0, ready: Ready | None = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Yield the codes [B, K] of one new frame after another; see :func:`descant.lm.musicgen_sample.stream`."""
        from .musicgen_sample import stream

        return stream(self, frames, cond, prompt=prompt, settings=settings, seed=seed, ready=ready)

    def generate(
        self, frames: int, cond: Conditions, *, prompt: Tensor | None = None, settings: SamplingSettings | None = None,
        seed: int | Sequence[int] = 0, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """``frames`` new frames -> codes [B, K, F0 + frames]; see :func:`descant.lm.musicgen_sample.generate`."""
        from .musicgen_sample import generate

        return generate(self, frames, cond, prompt=prompt, settings=settings, seed=seed, progress=progress)

    def save(self, folder: str | os.PathLike[str], format: str = "transformers") -> None:  # noqa: A002 - the public name
        """Write the model as the transformers library reads it; see :func:`descant.lm.musicgen_save.save`."""
        from .musicgen_save import save

        if format != "transformers":
            raise ValueError(f"format {format!r}: a MusicGen is written in the 'transformers' format")
        save(self, folder)

    def _positions(self, start: int, count: int) -> Tensor:
        if start + count > len(self._table) or self._table.device != self.norm.weight.device:
            rows = max(2048, 1 << (start + count - 1).bit_length())
            self._table = positions(0, rows, self.config.width).to(self.norm.weight.device)
        return self._table[start : start + count]
