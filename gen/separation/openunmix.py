"""Open-Unmix: how loud one stem is in each time and frequency of a mixture, by three layers of LSTMs.

Stöter, Uhlich, Liutkus and Mitsufuji, "Open-Unmix - A Reference Implementation for Music Source Separation" (2019); the
architecture is that of Uhlich et al., "Improving music source separation based on deep neural networks through data
augmentation and network blending" (2017). Parameters have the names of version 1.3 of the ``openunmix`` package.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class OpenUnmixConfig:
    """Sizes of a network."""

    bins: int = 2049
    """Bins of the spectra: half the window and one."""
    kept: int = 1487
    """Lowest bins that it hears: up to 16 kHz."""
    channels: int = 2
    """1 or 2."""
    hidden: int = 512
    """Width of the layers; even, unless causal."""
    layers: int = 3
    """LSTMs on top of each other."""
    causal: bool = False
    """Whether they only run forward in time."""

    def __post_init__(self) -> None:
        if not 1 < self.kept <= self.bins <= 65537 or self.channels not in (1, 2):
            raise ValueError(f"kept must be 2 to bins, bins at most 65537 and channels 1 or 2, got {self}")
        if not 1 <= self.hidden <= 8192 or not 1 <= self.layers <= 16 or (self.hidden % 2 and not self.causal):
            raise ValueError(f"hidden must be 1 to 8192, and even when it looks both ways; layers 1 to 16; got {self}")


class OpenUnmix(nn.Module):
    """The network of one stem."""

    def __init__(self, config: OpenUnmixConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or OpenUnmixConfig()
        ways = 1 if config.causal else 2
        self.input_mean = nn.Parameter(torch.zeros(config.kept))
        self.input_scale = nn.Parameter(torch.ones(config.kept))
        self.output_scale = nn.Parameter(torch.ones(config.bins))
        self.output_mean = nn.Parameter(torch.ones(config.bins))
        self.fc1 = nn.Linear(config.kept * config.channels, config.hidden, bias=False)
        self.bn1 = nn.BatchNorm1d(config.hidden)
        self.lstm = nn.LSTM(
            config.hidden, config.hidden // ways, config.layers, bidirectional=not config.causal,
            dropout=0.4 if config.layers > 1 else 0.0,
        )  # fmt: skip
        self.fc2 = nn.Linear(2 * config.hidden, config.hidden, bias=False)
        self.bn2 = nn.BatchNorm1d(config.hidden)
        self.fc3 = nn.Linear(config.hidden, config.bins * config.channels, bias=False)
        self.bn3 = nn.BatchNorm1d(config.bins * config.channels)

    def forward(self, magnitude: Tensor) -> Tensor:
        """Magnitudes of a mixture [B, C, K, F] -> of the stem, [B, C, K, F]; K bins."""
        batch, channels, _, frames = magnitude.shape
        heard = magnitude[:, :, : self.config.kept].permute(3, 0, 1, 2)  # [F, B, C, K]
        heard = (heard + self.input_mean) * self.input_scale
        first = self.bn1(self.fc1(heard.reshape(frames * batch, -1))).tanh().unflatten(0, (frames, batch))
        recalled, _ = self.lstm(first)
        second = self.bn2(self.fc2(torch.cat([first, recalled], -1).flatten(0, 1))).relu()
        gain: Tensor = self.bn3(self.fc3(second)).reshape(frames, batch, channels, self.config.bins)
        gain = (gain * self.output_scale + self.output_mean).relu()
        return gain.permute(1, 2, 3, 0) * magnitude
