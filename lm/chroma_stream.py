"""The melody of :mod:`descant.lm.chroma` for recordings of any length, block by block, with the level of each frame."""

from __future__ import annotations

import torch
from torch import Tensor

from .chroma import HOP, SIZE, filters


class ChromaStream:
    """Pitch classes of a recording at 32 kHz that comes in blocks [t]; frame j is heard around j * 4096 samples.

    For the first 30 s they are those of :func:`descant.lm.chroma.chroma`, which reads no further. Memory does not grow
    with the recording.
    """

    def __init__(self) -> None:
        self._held = torch.zeros(0)
        self._begun = False
        self._bank, self._window = filters(), torch.hann_window(SIZE)

    def push(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Take [t] -> classes int64 [f] and levels in dB of full scale [f] of the frames that are certain."""
        if wav.dim() != 1:
            raise ValueError(f"the melody comes in blocks [samples], got {list(wav.shape)}")
        self._held = torch.cat([self._held, wav.float()])
        if not self._begun and self._held.numel() > SIZE:
            # mirrored at its beginning, as the whole would be
            self._held = torch.cat([self._held[1 : SIZE // 2 + 1].flip(0), self._held])
            self._begun = True
        return self._heard() if self._begun else (torch.zeros(0, dtype=torch.int64), torch.zeros(0))

    def finish(self) -> tuple[Tensor, Tensor]:
        """End the recording -> the rest: 1 + T // 4096 frames in all, five for less than half a second."""
        if not self._begun:
            short = max(0, SIZE - self._held.numel())
            wav = torch.nn.functional.pad(self._held, (short // 2, short - short // 2))
            self._held, self._begun = torch.cat([wav[1 : SIZE // 2 + 1].flip(0), wav]), True
        self._held = torch.cat([self._held, self._held[-SIZE // 2 - 1 : -1].flip(0)])
        return self._heard()

    def _heard(self) -> tuple[Tensor, Tensor]:
        classes, levels = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0)]
        while self._held.numel() >= SIZE:
            # at most so many at a time, so that a long block does not decide how much memory is used
            frames = self._held[: SIZE + 63 * HOP].unfold(0, SIZE, HOP)
            power = torch.fft.rfft(frames * self._window).abs().square() / self._window.square().sum()
            classes.append((power @ self._bank.T).argmax(1))
            levels.append(10 * frames.square().mean(1).clamp(min=1e-20).log10())
            self._held = self._held[frames.shape[0] * HOP :].clone()
        return torch.cat(classes), torch.cat(levels)
