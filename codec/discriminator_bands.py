"""Complex multi-band, multi-resolution discriminator (Kumar et al., DAC, 2023, section 3.3).

As the multi-scale STFT discriminator, but each band of the spectrum has filters of its own: what gives a decoder away
near the upper edge (aliasing, a missing octave) is nothing like what gives it away in the bass.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .stft import stft

#: Edges of the bands as shares of half the sample rate.
BANDS: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


class BandDiscriminator(nn.Module):
    """One window length, five bands."""

    def __init__(self, window: int, filters: int = 32, channels: int = 1) -> None:
        super().__init__()
        self.window = window
        bins = window // 2 + 1
        self.edges = [(int(low * bins), int(high * bins)) for low, high in pairwise(BANDS)]
        self.bands = nn.ModuleList(_stack(2 * channels, filters) for _ in self.edges)
        self.score = weight_norm(nn.Conv2d(filters, 1, (3, 3), padding=(1, 1)))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """wav: [B, C, T] -> score map [B, 1, frames, about bins / 8] and the layers' features, band after band."""
        spec = torch.view_as_real(stft(wav, self.window, self.window // 4))
        # [B, C, bins, frames, 2] -> [B, 2 * C, frames, bins]
        spec = spec.permute(0, 4, 1, 3, 2).flatten(1, 2)
        features, ends = [], []
        for (low, high), layers in zip(self.edges, self.bands, strict=True):
            x = spec[..., low:high]
            for layer in layers:  # type: ignore[attr-defined]
                x = nn.functional.leaky_relu(layer(x), 0.1)
                features.append(x)
            ends.append(x)
        return self.score(torch.cat(ends, -1)), features


class MultiBand(nn.Module):
    """Several window lengths side by side."""

    def __init__(self, windows: Sequence[int] = (2048, 1024, 512), filters: int = 32, channels: int = 1) -> None:
        super().__init__()
        self.scales = nn.ModuleList(BandDiscriminator(window, filters, channels) for window in windows)

    def forward(self, wav: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """wav: [B, C, T] -> score maps and features, a list each, one entry per window."""
        results = [scale(wav) for scale in self.scales]
        return [score for score, _ in results], [features for _, features in results]


def _stack(channels: int, filters: int) -> nn.ModuleList:
    # (time, frequency) kernels; the three in the middle halve frequency
    layers: list[nn.Module] = [nn.Conv2d(channels, filters, (3, 9), padding=(1, 4))]
    layers += [nn.Conv2d(filters, filters, (3, 9), stride=(1, 2), padding=(1, 4)) for _ in range(3)]
    layers.append(nn.Conv2d(filters, filters, (3, 3), padding=(1, 1)))
    return nn.ModuleList(weight_norm(layer) for layer in layers)
