"""Changing the sample rate of a stream, the same however it comes in pieces."""

from __future__ import annotations

import numpy as np
import soxr
import torch
from torch import Tensor

from ...codec.formats import QUALITY

#: Samples given to the resampler at a time; always as many, so that its arithmetic never depends on the pieces.
_GRAIN = 1 << 15


class Rate:
    """``before`` Hz in, ``after`` Hz out, ``channels`` wide; nothing happens where both are equal."""

    def __init__(self, before: int, after: int, channels: int) -> None:
        self._same, self.channels = before == after, channels
        self._resampler = None if self._same else soxr.ResampleStream(before, after, channels, "float32", QUALITY)
        self._held = torch.zeros(channels, 0)

    def push(self, wav: Tensor) -> Tensor:
        """Take [C, t] -> what is ready, [C, t']."""
        if self._same:
            return wav
        self._held = torch.cat([self._held, wav], -1)
        whole = self._held.shape[-1] // _GRAIN * _GRAIN
        done = [self._through(part, False) for part in torch.split(self._held[:, :whole], _GRAIN, -1) if whole]
        self._held = self._held[:, whole:].clone()
        return torch.cat([torch.zeros(self.channels, 0), *done], -1)

    def finish(self) -> Tensor:
        """End the stream -> the rest, [C, t']."""
        if self._same:
            return torch.zeros(self.channels, 0)
        rest = self._through(self._held, True)
        self._held = torch.zeros(self.channels, 0)
        return rest

    def _through(self, wav: Tensor, last: bool) -> Tensor:
        if self._resampler is None:
            return wav
        out = self._resampler.resample_chunk(np.ascontiguousarray(wav.numpy().T), last)
        return torch.from_numpy(np.ascontiguousarray(out.T))
