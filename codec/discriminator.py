"""Multi-scale STFT discriminator (Défossez et al., EnCodec, 2022, section 3.4 and figure 2).

Each scale sees the complex STFT of one window length as two real channels and scores every patch of it. Frequency
is strided, time is dilated, so that one network sees both a partial's drift and an attack.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .stft import stft


class ScaleDiscriminator(nn.Module):
    """One window length."""

    def __init__(self, window: int, filters: int, channels: int = 1) -> None:
        super().__init__()
        self.window = window
        # (time, frequency) kernels; dilation grows in time, stride halves frequency
        layers: list[nn.Module] = [nn.Conv2d(2 * channels, filters, (3, 9), padding=(1, 4))]
        for dilation in (1, 2, 4):
            layers.append(
                nn.Conv2d(filters, filters, (3, 9), stride=(1, 2), dilation=(dilation, 1), padding=(dilation, 4))
            )
        layers.append(nn.Conv2d(filters, filters, (3, 3), padding=(1, 1)))
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.score = weight_norm(nn.Conv2d(filters, 1, (3, 3), padding=(1, 1)))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """wav: [B, C, T] -> score map [B, 1, frames, bins / 8] and the layers' features."""
        spec = torch.view_as_real(stft(wav, self.window, self.window // 4))
        # [B, C, bins, frames, 2] -> [B, 2 * C, frames, bins]
        x = spec.permute(0, 4, 1, 3, 2).flatten(1, 2)
        features = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.score(x), features


class MultiScaleSTFT(nn.Module):
    """Several window lengths side by side."""

    def __init__(self, windows: Sequence[int] = (2048, 1024, 512, 256), filters: int = 32, channels: int = 1) -> None:
        super().__init__()
        self.scales = nn.ModuleList(ScaleDiscriminator(window, filters, channels) for window in windows)

    def forward(self, wav: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """wav: [B, C, T] -> score maps and features, a list each, one entry per scale."""
        results = [scale(wav) for scale in self.scales]
        return [score for score, _ in results], [features for _, features in results]
