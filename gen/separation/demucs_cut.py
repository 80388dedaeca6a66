"""Recordings cut the way demucs cuts them: its padding, its segments, its triangles; and the whole-song frame it wants.

Défossez, "Hybrid Spectrogram and Waveform Source Separation" (2021), and the ``demucs`` package, whose ``apply_model``
gives the same stems without a random shift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .channels import Channels
from .engine import Cutter
from .stems import Choice

if TYPE_CHECKING:
    from .demucs import DemucsSeparator


class DemucsCutter(Cutter):
    """The engine's cutter, where pieces are completed to the length that the networks were trained with.

    What a piece lacks is taken from the recording on both sides alike, and is silence beyond its ends. The last chunk
    begins wherever there is still sound, though its predecessor may have heard all of it.
    """

    method: DemucsSeparator

    def __init__(self, method: DemucsSeparator, rate: int, channels: Channels, choice: Choice) -> None:
        super().__init__(method, rate, channels, choice)
        whole = self.before + self.chunk + self.fade + self.after
        method.check(whole)
        self._wanted = method.valid(whole)
        # a piece of one sample is completed from both sides
        self.past = self.before + self._wanted // 2 + 1
        self._sign: float | None = None

    def push(self, wav: Tensor) -> Tensor:
        """Take [C, t] -> estimates that are final by now, [N, C, t']."""
        return self._outward(super().push(self._inward(wav)))

    def finish(self) -> Tensor:
        """End the recording -> estimates of the rest, [N, C, t']."""
        return self._outward(super().finish())

    def _inward(self, wav: Tensor) -> Tensor:
        """Bring a recording into the frame in which the networks hear it."""
        if self.method.reference is not None:
            mean, deviation = self.method.reference
            return (wav - mean) / deviation
        if self._sign is None:
            loud = (wav != 0).any(0).nonzero()
            if not len(loud):
                return wav
            first = wav[:, int(loud[0])]
            # the polarity in which the first sample is positive: then an inverted mix is the same to the networks
            self._sign = float(first[first != 0][0].sign())
        return wav * self._sign

    def _outward(self, made: Tensor) -> Tensor:
        if self.method.reference is not None:
            mean, deviation = self.method.reference
            return made * deviation + mean
        return made if self._sign is None else made * self._sign

    def _reach(self, number: int) -> int:
        missing = self._wanted - (self.before + self.chunk + self.fade + self.after)
        if number * self.chunk < self.before:  # the first chunks have less before them, so more is missing
            missing = self.method.valid(super()._reach(number)) - super()._reach(number)
        return super()._reach(number) + missing - missing // 2

    def _last(self, number: int, end: int) -> bool:
        return (number + 1) * self.chunk >= end

    def _cut(self, number: int, end: int | None) -> tuple[Tensor, slice]:
        start = max(0, number * self.chunk - self.before)
        stop = super()._reach(number) if end is None else min(super()._reach(number), end)
        missing = self.method.valid(stop - start) - (stop - start)
        left, right = start - missing // 2, stop + missing - missing // 2
        held = self._held.all[:, max(0, left - self._start) : right - self._start]
        short = max(0, -left)
        piece = torch.nn.functional.pad(held, (short, right - left - short - held.shape[-1]))
        return piece, slice(number * self.chunk - left, stop - left)
