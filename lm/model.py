"""The language model over codec tokens: a windowed decoder-only transformer with typed conditions.

One step of the delay pattern is one position: the embeddings of its K tokens are summed, the frame's conditions added,
and K heads predict the next step's tokens, as in MusicGen (Copet et al., 2023, arXiv:2306.05284). What differs: rotary
positions and a sliding window instead of absolute ones, so that generation never has to start over; conditions aligned
to frames instead of text alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import banded, causal, heads, rope_table, unit
from .cache import Cache
from .condition import ROLES, Condition, ConditionBatch
from .conditioner import Conditioned, Conditioner, StemEncoder
from .pattern import Order, named
from .text import Tokenizer
from .transformer import Stack

if TYPE_CHECKING:
    from .sample import Progress, SamplingSettings


@dataclass(frozen=True, kw_only=True)
class LMConfig:
    """Sizes of a :class:`TokenLM`."""

    width: int
    layers: int
    heads: int
    books: int = 4
    cardinality: int = 1024
    window: int = 512
    """Steps a position can look back on, itself included; also the natural training length in frames."""
    frame_rate: float = 50.0
    pattern: str = "delay"
    """The order of codebooks, one of :data:`descant.lm.pattern.NAMES`."""
    text_vocab: int = 2048
    text_tokens: int = 30
    """Tokens of a text that are kept."""
    text_width: int = 128
    sinks: int = 2
    """Learned positions that always lead the prefix."""
    guidance_bins: int = 0
    """Rows for the weight of guidance as an input (:mod:`descant.lm.guidance_token`); 0: it is none."""
    targets: int = 0
    """Roles (:data:`descant.lm.condition.ROLES`, the mix first) that can be written by themselves; 0: none."""

    def __post_init__(self) -> None:
        sizes = (self.width, self.layers, self.heads, self.books, self.cardinality, self.window, self.text_vocab)
        if min(*sizes, self.text_tokens, self.text_width, self.sinks) < 1 or not 0 < self.frame_rate < float("inf"):
            raise ValueError(f"every size must be positive: {self}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} over {self.heads} heads: a head's size must be a whole, even number")
        if not 0 <= self.targets <= len(ROLES):
            raise ValueError(f"targets {self.targets} is outside 0 (everything together) to {len(ROLES)}")
        if not 0 <= self.guidance_bins <= 1024:
            raise ValueError(f"guidance_bins {self.guidance_bins} is outside 0 (none) to 1024")
        named(self.pattern, self.books)
        if self.text_width % max(1, self.text_width // 64) or self.text_width % 2 or self.width % 4:
            raise ValueError(f"text_width {self.text_width} must be even and width {self.width} a multiple of 4")

    @property
    def prefix(self) -> int:
        """L, the prefix's length."""
        return self.sinks + self.text_tokens

    def check_frames(self, frames: int) -> None:
        """Raise ValueError when a piece of so many frames is longer than the order of codebooks allows."""
        if not named(self.pattern, self.books).endless and frames > self.window:
            raise ValueError(
                f"{frames} frames: a {self.pattern} model must see a frame's first token when it writes the others, so "
                f"{self.window} at once is the most, prompt included: ask for a shorter duration"
            )


def nano() -> LMConfig:
    """For tests, demonstrations and a first run on a CPU."""
    return LMConfig(width=256, layers=8, heads=4)


def embedded() -> LMConfig:
    """The size the package ships."""
    return LMConfig(width=384, layers=10, heads=6)


def base() -> LMConfig:
    """Twice the embedded size."""
    return LMConfig(width=512, layers=12, heads=8)


class TokenLM(nn.Module):
    """Tokens of K codebooks, conditioned. ``tokenizer``: bytes of :func:`descant.lm.text.train_tokenizer`."""

    def __init__(self, config: LMConfig, tokenizer: bytes | None = None) -> None:
        super().__init__()
        self.config = config
        self.pattern: Order = named(config.pattern, config.books)
        width = config.width
        self.embed = nn.Embedding(config.books * (config.cardinality + 1), width)
        nn.init.normal_(self.embed.weight, std=0.3)
        stems = StemEncoder(config.books, config.cardinality, width // 2, width, config.window)
        text = (config.text_vocab, config.text_width)
        self.conditioner = Conditioner(
            width, (config.sinks, config.text_tokens), text, stems, config.guidance_bins, config.targets
        )
        self.stack = Stack(width, config.layers, config.heads)
        self.heads = nn.Linear(width, config.books * config.cardinality, bias=False)
        nn.init.normal_(self.heads.weight, std=0.5 * width**-0.5)
        self._tables: dict[tuple[int, torch.device], Tensor] = {}
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    @property
    def special(self) -> int:
        """The token of cells without a token."""
        return self.config.cardinality

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The text tokenizer, if the model has one."""
        return self.conditioner.tokenizer

    def set_tokenizer(self, data: bytes) -> None:
        """Use the tokenizer in ``data``. Raises ValueError when it has more pieces than the model has rows."""
        tokenizer = Tokenizer(data)
        if len(tokenizer) > self.config.text_vocab:
            raise ValueError(f"the tokenizer has {len(tokenizer)} pieces, the model rows for {self.config.text_vocab}")
        self.conditioner.tokenizer = tokenizer

    def forward(self, codes: Tensor, cond: ConditionBatch | Conditioned, cache: Cache | None = None) -> Tensor:
        """Steps of the pattern, [B, K, S] of tokens or :attr:`special` -> logits [B, K, S, V] of each following step.

        ``cond`` covers the frames that the steps write, from frame 0: in the delay pattern a frame a step, in the
        coarse-first pattern all frames there are to be. With a ``cache`` the steps follow those it has seen. B may be 1
        where ``cond`` has more rows.
        """
        x = self._hidden(codes, cond, cache)
        return self._logits(x).transpose(1, 2)

    def loss(self, codes: Tensor, cond: ConditionBatch | Conditioned, skip: int = 0) -> tuple[Tensor, Tensor]:
        """Codes [B, K, F] -> mean cross-entropy over the codebooks (nats) and that of each, [K]; both carry gradients.

        In the delay pattern steps 0 ... F - 1 are the inputs, so a full window of frames is a full window of steps: the
        last frames are learnt in their coarse codebooks only. Cells without a token count for nothing, whether the
        pattern leaves them empty or ``codes`` marks them with -1. ``skip`` leaves out the first steps: with K of them
        no empty cell is left and the model sees a window that has slid away from the beginning, as it does in long
        generation.
        """
        inputs, targets = self.steps(codes, skip)
        prefix, added = self.prepare(cond)
        if not self.pattern.endless and added.shape[1] != inputs.shape[2]:
            raise ValueError(f"the conditions must cover the {codes.shape[2]} frames of the codes, no more and no less")
        x = self._hidden(inputs, Conditioned(prefix, added[:, skip:]), None)
        logits = self._logits(x).flatten(0, 2).float()
        targets = targets.transpose(1, 2).reshape(-1)
        each = F.cross_entropy(logits, targets, ignore_index=-1, reduction="none").view(-1, self.config.books)
        counts = (targets.view(-1, self.config.books) >= 0).sum(0)
        books = each.sum(0) / counts.clamp(min=1)
        return books.sum() / (counts > 0).sum().clamp(min=1), books

    def steps(self, codes: Tensor, skip: int = 0) -> tuple[Tensor, Tensor]:
        """Codes [B, K, F] -> what the model reads, [B, K, S - skip], and what it is to predict, -1 where nothing is."""
        self._check_codes(codes)
        self.config.check_frames(codes.shape[2])
        count = self.pattern.inputs(codes.shape[2])
        if not 0 <= skip < count or (skip and not self.pattern.endless):
            raise ValueError(
                f"skip {skip} must leave some of the {count} steps"
                if self.pattern.endless else f"skip {skip}: this pattern is always read from its beginning"
            )  # fmt: skip
        sequence = self.pattern.apply(codes, -1)
        inputs, targets = sequence[:, :, skip:count], sequence[:, :, skip + 1 : count + 1]
        return inputs.masked_fill(inputs < 0, self.special), targets

    def prepare(self, cond: ConditionBatch | Conditioned) -> Conditioned:
        """Run the conditioner and lay its frames out by steps, unless that has been done."""
        if isinstance(cond, Conditioned):
            return cond
        prefix, added = self.conditioner(cond)
        return Conditioned(prefix, self.pattern.spread(added))

    def cache(self, rows: int) -> Cache:
        """An empty cache for ``rows`` sequences."""
        shape = (self.config.layers, rows, self.config.heads, self.stack.head)
        return Cache(shape, self.config.prefix, self.config.window, self.embed.weight.device)

    def generate(
        self, frames: int, conds: Sequence[Condition], *, prompt: Tensor | None = None,
        settings: SamplingSettings | None = None, seeds: int | Sequence[int] = 0, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """``frames`` new frames of B pieces -> codes [B, K, F0 + frames]: :func:`descant.lm.sample.sample_batch`."""
        from .sample import sample_batch

        return sample_batch(self, frames, conds, prompt=prompt, settings=settings, seeds=seeds, progress=progress)

    def save(self, folder: str | Path, half: bool = True) -> None:
        """Write config.json, model.safetensors (float16 if ``half``) and tokenizer.model to ``folder``."""
        from .pretrained import save

        save(self, folder, half)

    def _check_codes(self, codes: Tensor) -> None:
        books, top = self.config.books, self.config.cardinality
        if codes.dim() != 3 or codes.shape[1] != books or codes.shape[2] < 1 or codes.is_floating_point():
            raise ValueError(f"codes must be whole numbers [B, {books}, frames], got {list(codes.shape)} {codes.dtype}")
        low, high = (int(value) for value in codes.aminmax())
        if low < -1 or high >= top:
            raise ValueError(f"codes range over {low} ... {high}: tokens are 0 ... {top - 1}, -1 marks an absent one")

    def _logits(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, K, V]."""
        return self.heads(x).unflatten(-1, (self.config.books, -1))  # type: ignore[no-any-return]

    def _hidden(self, codes: Tensor, cond: ConditionBatch | Conditioned, cache: Cache | None) -> Tensor:
        """[B, K, S] -> [B, S, D]."""
        prefix, added = self.prepare(cond)
        steps, seen = codes.shape[2], 0 if cache is None else cache.steps
        if codes.dim() != 3 or codes.shape[1] != self.config.books or codes.shape[0] not in (1, prefix.shape[0]):
            rows = prefix.shape[0]
            raise ValueError(
                f"steps must be [{rows}, {self.config.books}, S] as the conditions, got {list(codes.shape)}"
            )
        if added.shape[1] < seen + steps:
            raise ValueError(f"conditions cover {added.shape[1]} steps, {seen + steps} are needed: collate more frames")
        first = torch.arange(self.config.books, device=codes.device) * (self.config.cardinality + 1)
        x = self.embed(codes.transpose(1, 2) + first).sum(2) + added[:, seen : seen + steps]
        if cache is None:
            return self._uncached(prefix, x)
        return self._cached(prefix, x, cache)

    def _uncached(self, prefix: Tensor, x: Tensor) -> Tensor:
        """Prefix [B, L, D] and all steps [B, S, D] -> [B, S, D]."""
        length, window, steps = prefix.shape[1], self.config.window, x.shape[1]
        table = self._table(length + min(steps, window), x.device)

        def mix(_: int, qkv: Tensor) -> Tensor:
            if steps <= window:
                return causal(*heads(qkv, table))
            lead = causal(*heads(qkv[:, :length], table[:length]))
            sinks = unit(qkv[:, :length, 1]).transpose(1, 2), qkv[:, :length, 2].transpose(1, 2)
            return torch.cat([lead, banded(qkv[:, length:], sinks, None, 0, window)[0]], 1)

        return self.stack(torch.cat([prefix, x], 1), mix)[:, length:]  # type: ignore[no-any-return]

    def _cached(self, prefix: Tensor, x: Tensor, cache: Cache) -> Tensor:
        """The next steps [B, S, D] -> [B, S, D], at most a window at a time."""
        if cache.rows != prefix.shape[0]:
            raise ValueError(f"the cache holds {cache.rows} rows, the conditions {prefix.shape[0]}")
        parts = []
        for part in torch.split(x, self.config.window, 1):
            count = part.shape[1]
            if cache.steps == 0:
                part = self.stack(torch.cat([prefix, part], 1), cache.begin)[:, prefix.shape[1] :]
            else:
                cache.advance(count)
                part = self.stack(part, cache.step)
            cache.commit(count)
            parts.append(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _table(self, count: int, device: torch.device) -> Tensor:
        if (count, device) not in self._tables:
            self._tables = {(count, device): rope_table(0, count, self.stack.head).to(device)}
        return self._tables[count, device]
