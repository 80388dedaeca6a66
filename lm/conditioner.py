"""From a batch of conditions to what the language model adds and prepends.

Two ways in. Text becomes a *prefix* of constant length: learned null vectors, the first ``sinks`` of which always stay
and the rest of which give way to the encoded tokens. A constant length needs no mask, so training keeps the plain
causal kernel, and the null vectors double as attention sinks. Everything else is *added* per frame: genre, instruments,
tempo and key the same for all frames, beat, chords, melody and stems each at its frame. The row of frame f joins the
input of the step that predicts codebook 0 of frame f, so that a control is known one step before the first token it
concerns; beat and chords are also shown ``AHEAD`` frames early.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .condition import ROLES, TEMPO_BINS, ConditionBatch
from .guidance_token import GuidanceToken
from .text import TextEncoder, Tokenizer, pad
from .transformer import Stack
from .vocab import GENRES, INSTRUMENTS, KEYS

#: beat: flag and 4 harmonics each of beat and bar; chords 25. Twice: now and ahead.
_HARMONICS = 4
_RHYTHM = 1 + 4 * _HARMONICS


class Conditioned(NamedTuple):
    """Conditions as the model uses them."""

    prefix: Tensor
    """[B, L, D]"""
    added: Tensor
    """[B, F, D]"""

    def rows(self, other: Conditioned) -> Conditioned:
        """These rows, then ``other``'s: [2B, ...]."""
        return Conditioned(torch.cat([self.prefix, other.prefix]), torch.cat([self.added, other.added]))


class StemEncoder(nn.Module):
    """Tokens of other stems to a per-frame feature: summed books and role, two bidirectional blocks, zero at birth.

    The last projection starts at zero, so a model that never saw stems is not disturbed by them.
    """

    def __init__(self, books: int, cardinality: int, width: int, out: int, window: int) -> None:
        super().__init__()
        self.books, self.cardinality, self.window = books, cardinality, window
        self.embed = nn.Embedding(books * (cardinality + 1), width)
        self.role = nn.Embedding(1 + len(ROLES), width)
        nn.init.normal_(self.embed.weight, std=0.25)
        nn.init.normal_(self.role.weight, std=0.25)
        self.stack = Stack(width, 2, max(1, width // 64))
        self.project = nn.Linear(width, out, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, codes: Tensor, roles: Tensor) -> Tensor:
        """Codes [B, N, K, F] (-1 = no token) and roles [B, N] (0 = no stem) -> [B, F, D]; zero where no stem is."""
        top = int(codes.max())
        if codes.shape[2] > self.books or top >= self.cardinality:
            raise ValueError(
                f"stem codes {list(codes.shape)} up to {top}: {self.books} books of {self.cardinality} fit"
            )
        there = (codes >= 0) & (roles > 0)[:, :, None, None]
        offsets = torch.arange(codes.shape[2], device=codes.device)[:, None] * (self.cardinality + 1)
        x = (self.embed(codes.clamp(min=0) + offsets) * there[..., None]).sum(2)
        present = there.any(2)
        x = ((x + self.role(roles)[:, :, None]) * present[..., None]).sum(1)
        out: Tensor = self.project(self._blocks(x)) * present.any(1)[..., None]
        return out

    def _blocks(self, x: Tensor) -> Tensor:
        """[B, F, W] -> [B, F, W], both ways; beyond the window in overlapping pieces of which the middles are kept."""
        frames, window = x.shape[1], self.window
        if frames <= window:
            return self.stack.both_ways(x)
        parts, edge = [], window // 4
        done = 0
        while done < frames:
            start = max(0, min(done - edge, frames - window))
            end = frames if start + window >= frames else start + window - edge
            parts.append(self.stack.both_ways(x[:, start : start + window])[:, done - start : end - start])
            done = end
        return torch.cat(parts, 1)


class Conditioner(nn.Module):
    """All controls of a language model of width D."""

    def __init__(
        self, width: int, prefix: tuple[int, int], text: tuple[int, int], stems: StemEncoder, bins: int = 0,
        targets: int = 0,
    ) -> None:  # fmt: skip
        """``prefix``: sinks and text tokens. ``text``: vocabulary and width of the text encoder. ``bins``: rows for the
        weight of guidance, if it is an input. ``targets``: roles that can be written by themselves, if any."""
        super().__init__()
        self.sinks, self.text_tokens = prefix
        self.tokenizer: Tokenizer | None = None
        self.null = nn.Parameter(torch.empty(sum(prefix), width))
        nn.init.normal_(self.null, std=0.3)
        self.text = TextEncoder(*text, width)
        self.genre = nn.Embedding(1 + len(GENRES), width)
        self.tempo = nn.Embedding(1 + TEMPO_BINS, width)
        self.key = nn.Embedding(1 + len(KEYS), width)
        self.instruments = nn.Embedding(1 + len(INSTRUMENTS), width)
        for table in (self.genre, self.tempo, self.key, self.instruments):
            nn.init.normal_(table.weight, std=0.1)
        self.rhythm = nn.Linear(2 * (_RHYTHM + 25), width)
        self.harmony = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.rhythm.weight, std=0.25)
        nn.init.normal_(self.harmony.weight, std=0.3 * width**-0.5)
        self.melody = nn.Linear(13, width, bias=False)
        nn.init.zeros_(self.melody.weight)
        self.stems = stems
        self.guidance = GuidanceToken(bins, width) if bins else None
        self.target = nn.Embedding(targets, width) if targets else None
        if self.target is not None:
            nn.init.zeros_(self.target.weight)

    def forward(self, batch: ConditionBatch) -> Conditioned:
        """Batch of B samples, F frames -> prefix [B, L, D] and added [B, F, D]."""
        batch = batch.to(self.null.device)
        instruments = torch.cat([(batch.instruments.sum(1, keepdim=True) == 0).float(), batch.instruments], 1)
        fixed = self.genre(batch.genre) + self.tempo(batch.tempo) + self.key(batch.key)
        fixed = fixed + instruments @ self.instruments.weight
        if batch.guidance is not None:
            if self.guidance is None:
                raise ValueError("the weight of guidance is no input of this model: leave it out of the batch")
            fixed = fixed + self.guidance(batch.guidance)
        if batch.target is not None and (self.target is not None or bool(batch.target.any())):
            fixed = fixed + self._aim(batch.target)
        added = fixed[:, None] + self.aligned(batch) + self.melody(batch.melody)
        if batch.stems is not None and batch.roles is not None:
            added = added + self.stems(batch.stems, batch.roles)
        return Conditioned(self._prefix(batch.text), added)

    def aligned(self, batch: ConditionBatch) -> Tensor:
        """What beat and chords add to each frame, [B, F, D]."""
        beats = batch.beat.shape[-1]
        parts = [_harmonics(batch.beat), batch.chords, _harmonics(batch.ahead[..., :beats]), batch.ahead[..., beats:]]
        return self.harmony(F.gelu(self.rhythm(torch.cat(parts, -1))))  # type: ignore[no-any-return]

    def _aim(self, target: Tensor) -> Tensor:
        """[B] -> [B, D]; nothing where everything is written."""
        rows = 0 if self.target is None else self.target.num_embeddings
        if self.target is None or int(target.max()) >= rows:
            role = ROLES[int(target.max())]
            raise ValueError(f"this model writes all instruments together, no stem of its own for {role!r}")
        return self.target(target) * (target > 0)[:, None]  # type: ignore[no-any-return]

    def _prefix(self, texts: tuple[str | None, ...]) -> Tensor:
        """B texts -> [B, L, D]."""
        null = self.null.expand(len(texts), -1, -1)
        given = [text is not None and bool(text.strip()) for text in texts]
        if not any(given):
            return null
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer: give typed controls instead of text, or train one first")
        rows = [self.tokenizer.encode(text or "", self.text_tokens) for text in texts]
        ids, mask = pad(rows, self.null.device)
        encoded = self.text(ids, mask)
        space = self.text_tokens - ids.shape[1]
        encoded = F.pad(encoded, (0, 0, self.sinks, space)).to(null.dtype)
        return torch.where(F.pad(mask, (self.sinks, space))[..., None], encoded, null)


def _harmonics(beat: Tensor) -> Tensor:
    """Beat features [B, F, 5] -> [B, F, 17]: four harmonics of both phases (8ths, 16ths, beats of the bar), the flag.

    Powers of a unit complex number; an absent phase is 0 and stays 0.
    """
    phase = torch.complex(beat[..., 1:4:2].contiguous(), beat[..., 0:3:2].contiguous())
    square = phase * phase
    powers = torch.stack([phase, square, square * phase, square * square], -1)
    return torch.cat([torch.view_as_real(powers).flatten(-3), beat[..., 4:]], -1)
