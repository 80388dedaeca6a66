"""The dependency-free ear: statistics of log-mel spectra, their motion, and pitch classes. No weights, no training.

It hears bandwidth, noise, level and density, hardly melody and not meaning: good for smoke tests, negative controls
and as a second opinion that shares nothing with any trained judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.stft import chroma_filters, mel_filters, stft

#: Power below which nothing is heard: 90 dB under a full-scale sine.
_FLOOR = 1e-9


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """132 numbers a window: per mel band mean, deviation and mean motion of the log power, and 12 pitch classes."""

    rate: int = 32_000
    bands: int = 40
    n_fft: int = 2048
    hop: int = 640

    @property
    def id(self) -> str:
        """``logmel-1`` at its defaults, which are part of the recipes."""
        default = LogMel()
        if self == default:
            return "logmel-1"
        return f"logmel-1+{self.rate}.{self.bands}.{self.n_fft}.{self.hop}"

    @property
    def channels(self) -> int:
        """Mono."""
        return 1

    @property
    def dim(self) -> int:
        """Three numbers per band and the pitch classes."""
        return 3 * self.bands + 12

    def embed(self, windows: Tensor) -> Tensor:
        """Windows [B, 1, T] -> [B, D], log power in decades. Raises ValueError for windows below two hops."""
        if windows.ndim != 3 or windows.shape[1] != 1 or windows.shape[2] < 2 * self.hop:
            raise ValueError(f"windows have shape {tuple(windows.shape)}: need [B, 1, T], T >= {2 * self.hop}")
        spectrum = stft(windows[:, 0], self.n_fft, self.hop).abs().square() / (self.n_fft / 4) ** 2
        # times the width of a bin, so that a band holds the mean power of its bins, not their density
        bank = mel_filters(self.rate, self.n_fft, self.bands) * (self.rate / self.n_fft)
        logs = (bank @ spectrum + _FLOOR).log10()
        pitches = (chroma_filters(self.rate, self.n_fft) @ spectrum).mean(dim=-1)
        share = pitches / (pitches.sum(dim=-1, keepdim=True) + _FLOOR)
        motion = logs.diff(dim=-1).abs().mean(dim=-1)
        return torch.cat([logs.mean(dim=-1), logs.std(dim=-1), motion, share], dim=-1).float()
