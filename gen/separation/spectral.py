"""Spectra of any number of samples and back, and chunks whose frames lie where the whole recording's would."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...codec import stft
from .contract import Layout


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Frames of ``window`` samples every ``hop`` at ``rate`` Hz."""

    rate: int = 44100
    window: int = 2048
    hop: int = 512

    def __post_init__(self) -> None:
        if self.rate < 1000 or self.window < 16 or self.window % 2:
            raise ValueError(f"need a rate of 1000 or more and an even window of 16 or more, got {self}")
        if not 1 <= self.hop <= self.window // 2 or self.hop % 2:
            raise ValueError(f"a hop of {self.hop} must be even and at most half the window of {self.window}")

    @property
    def bins(self) -> int:
        """Frequencies of a frame."""
        return self.window // 2 + 1

    def hertz(self) -> Tensor:
        """The frequency of each bin in Hz, [bins]."""
        return torch.arange(self.bins, dtype=torch.float64) * self.rate / self.window

    def frames(self, seconds: float) -> int:
        """Frames in a stretch of time, at least one."""
        return max(1, round(seconds * self.rate / self.hop))

    def analyse(self, wav: Tensor) -> Tensor:
        """wav [..., T] -> complex [..., J, bins]; the last hop is filled with zeros."""
        return stft.analyse(torch.nn.functional.pad(wav, (0, -wav.shape[-1] % self.hop)), self.window, self.hop)

    def synthesise(self, spec: Tensor, length: int) -> Tensor:
        """The inverse of :meth:`analyse`: complex [..., J, bins] -> wav [..., length]."""
        return stft.synthesise(spec, self.window, self.hop)[..., :length]

    def layout(self, chunk: float, context: float, fade: float = 0.25) -> Layout:
        """Chunks of about so many seconds, cut between hops: each sees the frames that the whole recording has.

        With as much context as a method looks around, chunks then give what the whole would have given.
        """
        seconds = [max(1, round(value * self.rate / self.hop)) * self.hop / self.rate for value in (chunk, context)]
        return Layout(chunk=seconds[0], before=seconds[1], after=seconds[1], fade=min(fade, seconds[0]))
