"""Discriminators: networks that learn to tell decoded from original audio.

Here: the multi-scale STFT discriminator (Défossez et al., EnCodec, 2022, section 3.4 and figure 2) and :class:`Judges`,
several kinds side by side. Each scale sees the complex STFT of one window length as two real channels and scores every
patch of it. Frequency is strided, time is dilated, so that one network sees both a partial's drift and an attack.
The others: :mod:`descant.codec.discriminator_bands`, :mod:`descant.codec.discriminator_period`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .discriminator_bands import MultiBand
from .discriminator_period import MultiPeriod
from .stft import stft

#: What :func:`judges` can build.
KINDS = ("stft", "bands", "period", "period-quarter")


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


class Judges(nn.Module):
    """Single discriminators of any kinds in a row; a step may ask only some of them, which is what makes it cheap."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError(f"no discriminator asked for: name at least one of {', '.join(KINDS)}")
        self.members = nn.ModuleList(members)

    def __len__(self) -> int:
        return len(self.members)

    def forward(self, wav: Tensor, chosen: Sequence[int] | None = None) -> tuple[list[Tensor], list[list[Tensor]]]:
        """wav: [B, C, T] -> score maps and features of the members ``chosen`` (all by default), a list each."""
        results = [self.members[index](wav) for index in (range(len(self)) if chosen is None else chosen)]
        return [score for score, _ in results], [features for _, features in results]

    def turn(self, step: int, count: int) -> list[int]:
        """The ``count`` members whose turn it is at ``step`` (0: all): every member comes up equally often."""
        size = len(self)
        if count <= 0 or count >= size:
            return list(range(size))
        return sorted((step * count + offset) % size for offset in range(count))


def judges(kinds: Sequence[str], windows: Sequence[int], filters: int, channels: int = 1) -> Judges:
    """Build discriminators by :data:`KINDS`; windows (samples) and filters are those of the spectral ones.

    ``stft``: one per window. ``bands``: one per window of at least 512 samples. ``period``: one for each of five
    periods, ``period-quarter`` with a quarter of the filters. Raises ValueError on an unknown kind.
    """
    members: list[nn.Module] = []
    for kind in kinds:
        if kind == "stft":
            members += MultiScaleSTFT(windows, filters, channels).scales
        elif kind == "bands":
            members += MultiBand([window for window in windows if window >= 512], filters, channels).scales
        elif kind in ("period", "period-quarter"):
            members += MultiPeriod(width=1.0 if kind == "period" else 0.25, channels=channels).periods
        else:
            raise ValueError(f"unknown discriminator {kind!r}: choose from {', '.join(KINDS)}")
    return Judges(members)
