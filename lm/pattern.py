"""The order in which a language model sees K parallel codebooks, and the exact way back.

A :class:`Pattern` delays: MusicGen's (Copet et al., 2023, arXiv:2306.05284): step 0 holds special tokens only, codebook
k of frame t sits at step 1 + t + delay[k], and cells without a token hold the special token. With delays 0, 1, ... K-1
one step writes K tokens, yet every codebook sees the coarser ones of its own frame. The same paper's section 2.2 names
two others: :class:`Flat` gives each token a step of its own, :class:`CoarseFirst` writes the first codebook of the
whole piece before the finer ones (as Borsos et al., 2023, AudioLM, does in stages).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: Names of orders, as a model's configuration has them.
NAMES: tuple[str, ...] = ("delay", "parallel", "flat", "coarse-first")


class Order(ABC):
    """An order of codebooks: which step holds which token. Step 0 is empty in all of them."""

    @property
    @abstractmethod
    def books(self) -> int:
        """K."""

    @abstractmethod
    def steps(self, frames: int) -> int:
        """S for F frames, the empty first step included."""

    @abstractmethod
    def places(self, frames: int) -> Tensor:
        """The step of each token, [K, F]; no two tokens of a codebook share one."""

    @abstractmethod
    def frames(self, steps: int) -> int:
        """F of a sequence of S steps; below 0 where S is too short."""

    @property
    def tail(self) -> int:
        """Steps beyond the last frame's first token that still write it beside what would come next; 0 where frames do
        not overlap."""
        return 0

    @property
    def endless(self) -> bool:
        """Whether frames are finished in their order while later ones are unknown: what can be played as it is written,
        and go on for ever."""
        return True

    def inputs(self, frames: int) -> int:
        """Steps for which F frames of conditions are enough: all but the tail that follows the last frame."""
        return self.steps(frames) - 1 - self.tail

    @abstractmethod
    def spread(self, rows: Tensor) -> Tensor:
        """What is known of each frame, [B, F, D] -> of each step, [B, inputs(F), D]: of the frame whose tokens it
        predicts, of several the latest."""

    @abstractmethod
    def moment(self, step: int, frames: int) -> int:
        """The key of the noise that draws this step's tokens of F frames: a token's noise is keyed by it and by the
        token's codebook, and does not depend on F."""

    def apply(self, codes: Tensor, special: int) -> Tensor:
        """Codes [B, K, F] -> sequence [B, K, S]; empty cells hold ``special``."""
        self._check(codes)
        batch, books, frames = codes.shape
        sequence = codes.new_full((batch, books, self.steps(frames)), special)
        return sequence.scatter_(2, self.places(frames).to(codes.device).expand(batch, -1, -1), codes)

    def revert(self, sequence: Tensor) -> Tensor:
        """Sequence [B, K, S] -> codes [B, K, F], the exact inverse of :meth:`apply`."""
        self._check(sequence)
        count = sequence.shape[2]
        frames = self.frames(count)
        if frames < 0:
            raise ValueError(f"a sequence of {count} steps is shorter than this pattern's {self.steps(0)}")
        if self.steps(frames) != count:
            raise ValueError(f"a sequence of {count} steps is no whole number of frames in this pattern")
        return sequence.gather(2, self.places(frames).to(sequence.device).expand(len(sequence), -1, -1))

    def mask(self, frames: int) -> Tensor:
        """Which cells hold tokens: bool [K, S]."""
        empty = torch.zeros(self.books, self.steps(frames), dtype=torch.bool)
        return empty.scatter_(1, self.places(frames), True)

    def _check(self, value: Tensor) -> None:
        if value.dim() != 3 or value.shape[1] != self.books:
            raise ValueError(f"expected [B, {self.books}, frames], got {list(value.shape)}")


@dataclass(frozen=True)
class Pattern(Order):
    """An order in which ``delays[k]`` is how many steps codebook k waits."""

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
        """Steps after the last frame's first codebook: the largest delay."""
        return max(self.delays)

    def steps(self, frames: int) -> int:
        """S for F frames: the empty first step, the frames and the tail."""
        return 1 + frames + self.tail

    def frames(self, steps: int) -> int:
        """F of a sequence of S steps."""
        return steps - 1 - self.tail

    def places(self, frames: int) -> Tensor:
        """The step of each token, [K, F]: 1 + t + delay[k]."""
        return 1 + torch.arange(frames) + torch.tensor(self.delays)[:, None]

    def spread(self, rows: Tensor) -> Tensor:
        """[B, F, D] as it is: a frame a step."""
        return rows

    def moment(self, step: int, frames: int) -> int:
        """The step itself, 1 + t + delay[k]."""
        return step


@dataclass(frozen=True)
class Flat(Order):
    """One token a step, frame by frame and coarse to fine: K times as many steps, every token sees all before it."""

    count: int
    """K."""

    def __post_init__(self) -> None:
        _positive(self.count)

    @property
    def books(self) -> int:
        """K."""
        return self.count

    def steps(self, frames: int) -> int:
        """S for F frames."""
        return 1 + frames * self.count

    def frames(self, steps: int) -> int:
        """F of a sequence of S steps."""
        return (steps - 1) // self.count

    def places(self, frames: int) -> Tensor:
        """The step of each token, [K, F]: 1 + t K + k."""
        return 1 + torch.arange(frames) * self.count + torch.arange(self.count)[:, None]

    def spread(self, rows: Tensor) -> Tensor:
        """[B, F, D] -> [B, F K, D]: a frame for its K steps."""
        return rows.repeat_interleave(self.count, 1)

    def moment(self, step: int, frames: int) -> int:
        """1 + t."""
        return 1 + (step - 1) // self.count


@dataclass(frozen=True)
class CoarseFirst(Order):
    """The first codebook of all frames, then the others side by side: the coarse plan is known to its end.

    It needs the number of frames from the start, so it cannot be played while it is written.
    """

    count: int
    """K."""

    def __post_init__(self) -> None:
        _positive(self.count)

    @property
    def books(self) -> int:
        """K."""
        return self.count

    def steps(self, frames: int) -> int:
        """S for F frames."""
        return 1 + frames * min(self.count, 2)

    def frames(self, steps: int) -> int:
        """F of a sequence of S steps."""
        return (steps - 1) // min(self.count, 2)

    def places(self, frames: int) -> Tensor:
        """The step of each token, [K, F]: 1 + t for the first codebook, 1 + F + t for the others."""
        later = (torch.arange(self.count) > 0).long() * frames
        return 1 + torch.arange(frames) + later[:, None]

    @property
    def endless(self) -> bool:
        """Only with one codebook, where there is nothing finer to wait for."""
        return self.count == 1

    def spread(self, rows: Tensor) -> Tensor:
        """[B, F, D] -> [B, 2 F, D]: all frames for their first codebook, then all again."""
        return rows.repeat(1, min(self.count, 2), 1)

    def moment(self, step: int, frames: int) -> int:
        """1 + t."""
        return 1 + (step - 1) % frames


def named(name: str, books: int) -> Order:
    """The order called ``name``, one of :data:`NAMES`, of K codebooks. Raises ValueError."""
    if name not in NAMES:
        raise ValueError(f"unknown pattern {name!r}: {', '.join(NAMES)}")
    makers: dict[str, Callable[[int], Order]] = {
        "delay": Pattern.delayed, "parallel": Pattern.parallel, "flat": Flat, "coarse-first": CoarseFirst
    }  # fmt: skip
    return makers[name](books)


def delay(codes: Tensor, special: int) -> Tensor:
    """Codes [B, K, F] -> delayed sequence [B, K, S = F + K]."""
    return Pattern.delayed(codes.shape[1]).apply(codes, special)


def undelay(sequence: Tensor) -> Tensor:
    """Delayed sequence [B, K, S] -> codes [B, K, F = S - K]."""
    return Pattern.delayed(sequence.shape[1]).revert(sequence)


def _positive(count: int) -> None:
    if count < 1:
        raise ValueError(f"{count} codebooks: there is at least one")
