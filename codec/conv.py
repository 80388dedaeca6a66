"""Causal convolutional blocks over frames, channels last.

ConvNeXt blocks (Liu et al., 2022, section 2; used for audio by Vocos, Siuzdak, 2023) with two changes: the depthwise
convolution is causal, shifted by ``ahead`` future frames when asked, and tensors stay [B, F, D] throughout, so that
all the arithmetic that matters is one matrix product per layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CausalDepthwise(nn.Module):
    """Depthwise convolution over ``kernel - 1 - ahead`` past and ``ahead`` future frames, zeros beyond the ends."""

    def __init__(self, width: int, kernel: int, ahead: int = 0) -> None:
        super().__init__()
        if not 0 <= ahead < kernel:
            raise ValueError(f"ahead must lie in 0..{kernel - 1}, got {ahead}")
        self.ahead = ahead
        self.weight = nn.Parameter(torch.randn(width, 1, kernel) * kernel**-0.5)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, F, D] -> [B, F, D]."""
        past = self.weight.shape[-1] - 1 - self.ahead
        x = nn.functional.pad(x.transpose(1, 2), (past, self.ahead))
        return nn.functional.conv1d(x, self.weight, self.bias, groups=x.shape[1]).transpose(1, 2)


class ConvNeXt(nn.Module):
    """Depthwise convolution, LayerNorm, two-layer GELU network, layer scale, residual."""

    def __init__(self, width: int, kernel: int = 7, expand: int = 3, ahead: int = 0, scale: float = 0.1) -> None:
        super().__init__()
        self.depthwise = CausalDepthwise(width, kernel, ahead)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expand * width)
        self.down = nn.Linear(expand * width, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, F, D] -> [B, F, D]."""
        y = self.norm(self.depthwise(x))
        branch: Tensor = self.scale * self.down(nn.functional.gelu(self.up(y)))
        return x + branch


class Downsample(nn.Module):
    """Halve the frame rate: LayerNorm, then each pair of frames through one matrix."""

    def __init__(self, width: int, out: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(factor * width, out)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, factor * F, D] -> [B, F, out]."""
        x = self.norm(x)
        # neighbouring frames side by side: [B, factor * F, D] -> [B, F, factor * D]
        mixed: Tensor = self.mix(x.reshape(x.shape[0], -1, self.factor * x.shape[2]))
        return mixed


class Upsample(nn.Module):
    """Multiply the frame rate: LayerNorm, then each frame through one matrix into ``factor`` frames."""

    def __init__(self, width: int, out: int, factor: int = 2) -> None:
        super().__init__()
        self.out = out
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, factor * out)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, F, D] -> [B, factor * F, out]."""
        x = self.mix(self.norm(x))
        # the inverse of Downsample's reshape: [B, F, factor * out] -> [B, factor * F, out]
        return x.reshape(x.shape[0], -1, self.out)
