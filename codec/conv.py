"""Causal convolutional blocks over frames, channels last.

ConvNeXt blocks (Liu et al., 2022, section 2; used for audio by Vocos, Siuzdak, 2023) with two changes: the depthwise
convolution is causal, shifted by ``ahead`` future frames when asked, and tensors stay [B, F, D] throughout, so that
all the arithmetic that matters is one matrix product per layer.

Every block runs in two ways: ``forward`` over a whole signal, and ``step`` over the next few frames of one, with what
it still needs of the past handed in and out as a tensor. Both do the same arithmetic in the same order, see
:func:`steady`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Fewest rows of a matrix product that rounds as a large one does.
_ROWS = 4


def steady(layer: Callable[[Tensor], Tensor], x: Tensor, factor: int = 1) -> Tensor:
    """Apply a layer that treats every frame, or every ``factor`` frames, alone: x [B, factor * n, D] -> [B, n, E].

    The result is rounded as within a long signal: matrix libraries have kernels of their own for one to three rows
    that add up in another order, and a code that lies between two entries of a book would flip. A few rows of zeros
    keep them from it.
    """
    count = x.shape[1] // factor
    if x.shape[0] * count >= _ROWS:
        return layer(x)
    return layer(nn.functional.pad(x, (0, 0, 0, factor * (_ROWS - count))))[:, :count]


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
        return self._whole(nn.functional.pad(x.transpose(1, 2), (self.past, self.ahead)))

    @property
    def past(self) -> int:
        """Past frames it sees."""
        return int(self.weight.shape[-1]) - 1 - self.ahead

    def step(self, x: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
        """The next frames x [B, n, D], after ``held`` [B, h, D] -> outputs that are complete [B, m, D], held.

        A signal starts with ``past`` frames of zeros held; outputs come ``ahead`` frames late.
        """
        x = torch.cat([held, x], 1)
        span = self.past + self.ahead
        ready = self._whole(x.transpose(1, 2)) if x.shape[1] > span else x[:, :0]
        return ready, x[:, max(0, x.shape[1] - span) :]

    def _whole(self, x: Tensor) -> Tensor:
        # [B, D, past + F + ahead] -> [B, F, D]
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
        return x + self._branch(self.depthwise(x))

    def step(self, x: Tensor, held: Tensor, exact: bool = True) -> tuple[Tensor, Tensor]:
        """The next frames x [B, n, D], after ``held`` [B, h, D] -> outputs that are complete [B, m, D], held.

        exact: round as :meth:`forward` does, see :func:`steady`; without it one frame alone is a third faster.
        """
        y, after = self.depthwise.step(x, held)
        # an output stands beside the frame it is centred on: the first ones wait among the held
        centre = torch.cat([held, x], 1)[:, self.depthwise.past : self.depthwise.past + y.shape[1]]
        if not y.shape[1]:
            return y, after
        return centre + (steady(self._branch, y) if exact else self._branch(y)), after

    def start(self, batch: int) -> Tensor:
        """What is held before the first frame: zeros [B, past, D]."""
        return self.scale.new_zeros(batch, self.depthwise.past, len(self.scale))

    def _branch(self, y: Tensor) -> Tensor:
        branch: Tensor = self.scale * self.down(nn.functional.gelu(self.up(self.norm(y))))
        return branch


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
