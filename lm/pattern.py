"""The order in which a language model sees K parallel codebooks: delayed or parallel, and the exact way back.

The delay pattern of MusicGen (Copet et al., 2023, arXiv:2306.05284): step 0 holds special tokens only, codebook k of
frame t sits at step 1 + t + delay[k], and cells without a token hold the special token. With delays 0, 1, ... K-1
one step writes K tokens, yet every codebook sees the coarser ones of its own frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pattern:
    """An order of codebooks; ``delays[k]`` is how many steps codebook k waits."""

    delays: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.delays or min(self.delays) < 0:
            raise ValueError(f"delays {self.delays}: give one non-negative delay per codebook")

    @staticmethod
    def delayed(books: int) -> Pattern:
        """Codebook k waits k steps."""
        return Pattern(tuple(range(books)))

    @staticmethod
    def parallel(books: int) -> Pattern:
        """All codebooks of a frame share one step."""
        return Pattern((0,) * books)

    @property
    def books(self) -> int:
        """K."""
        return len(self.delays)

    @property
    def tail(self) -> int:
        """Steps after the first codebook's last token: the largest delay."""
        return max(self.delays)

    def steps(self, frames: int) -> int:
        """S for F frames: the empty first step, the frames and the tail."""
        return 1 + frames + self.tail

    def apply(self, codes: Tensor, special: int) -> Tensor:
        """Codes [B, K, F] -> sequence [B, K, S]; empty cells hold ``special``."""
        self._check(codes)
        batch, books, frames = codes.shape
        sequence = codes.new_full((batch, books, self.steps(frames)), special)
        for book, delay in enumerate(self.delays):
            sequence[:, book, 1 + delay : 1 + delay + frames] = codes[:, book]
        return sequence

    def revert(self, sequence: Tensor) -> Tensor:
        """Sequence [B, K, S] -> codes [B, K, F = S - 1 - tail], the exact inverse of :meth:`apply`."""
        self._check(sequence)
        frames = sequence.shape[2] - 1 - self.tail
        if frames < 0:
            raise ValueError(f"a sequence of {sequence.shape[2]} steps is shorter than this pattern's {1 + self.tail}")
        rows = [sequence[:, book, 1 + delay : 1 + delay + frames] for book, delay in enumerate(self.delays)]
        return torch.stack(rows, dim=1)

    def mask(self, frames: int) -> Tensor:
        """Which cells hold tokens: bool [K, S]."""
        where = torch.arange(self.steps(frames)) - 1 - torch.tensor(self.delays)[:, None]
        return (where >= 0) & (where < frames)

    def _check(self, value: Tensor) -> None:
        if value.dim() != 3 or value.shape[1] != self.books:
            raise ValueError(f"expected [B, {self.books}, frames], got {list(value.shape)}")


def delay(codes: Tensor, special: int) -> Tensor:
    """Codes [B, K, F] -> delayed sequence [B, K, S = F + K]."""
    return Pattern.delayed(codes.shape[1]).apply(codes, special)


def undelay(sequence: Tensor) -> Tensor:
    """Delayed sequence [B, K, S] -> codes [B, K, F = S - K]."""
    return Pattern.delayed(sequence.shape[1]).revert(sequence)
