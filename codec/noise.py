"""The noise part of a decoded spectrum: random phases keyed by the codes, and the power they are expected to have.

A decoder that draws noise cannot be trained by comparing one draw with one recording: two equally good noises differ
by some 6 dB in every bin, so a spectral loss prefers any steady tone at the mean level to noise of the right kind.
:func:`expected_power` tells the loss what the noise amounts to on average instead.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

#: Rows of the noise table: a power of two, see :func:`table`.
ROWS = 512


def rows(codes: Tensor) -> Tensor:
    """Row of the noise table for each frame of codes [B, K, F] -> [B, F]: neighbouring codes get unrelated rows."""
    mixed = torch.zeros_like(codes[:, 0])
    for k in range(codes.shape[1]):
        # below 2^32 times below 2^30: no product overflows 64 bits
        mixed = (mixed + codes[:, k] + 1) * 747796405 % 4294967291
    return (mixed >> 8) % ROWS


def table(count: int, channels: int, bins: int) -> Tensor:
    """Random phases, complex [count, channels, bins] of magnitude 1: integer arithmetic, so the same everywhere."""
    state = torch.arange(count * channels * bins, dtype=torch.int64) + 1
    for _ in range(3):  # a multiplicative congruential mix, modulo the prime below 2^32
        state = (state * 747796405 + 0x9E3779B9) % 4294967291
        state = state ^ (state >> 15)
    angle = (state % 65536).double() * (2 * torch.pi / 65536)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64).reshape(count, channels, bins)


def expected_power(level: Tensor, window: int, hop: int, length: int, other: int) -> Tensor:
    """Expected power spectra, at another window, of noise synthesised from magnitudes ``level`` with random phases.

    level: [B, J, window // 2 + 1] at ``window`` and ``hop`` -> [B, frames, other // 2 + 1], frames of ``other`` samples
    a quarter apart within ``length`` samples, nothing padded, Hann windows on both sides. Independent phases in
    overlapping frames keep the share hop / window of their power; the rest is a weighted mean over the frames and bins
    that an ``other`` frame covers.
    """
    over_time, over_bins = _spread(window, hop, length, other, level.shape[1])
    gain = other * hop / window
    power: Tensor = over_time.to(level.device) @ (level.float().square() @ over_bins.to(level.device)) * gain
    return power


def expected_energy(level: Tensor, window: int, hop: int) -> Tensor:
    """Expected energy (sum of squared samples) of that noise: level [B, J, bins] -> [B]."""
    return level.float().square().sum((1, 2)) * (2 * hop**2 / (0.375 * window**2))


@functools.lru_cache(maxsize=64)
def _spread(window: int, hop: int, length: int, other: int, frames: int) -> tuple[Tensor, Tensor]:
    weight = torch.hann_window(other, dtype=torch.float64).square()
    # frame j is centred on the middle of its hop; levels between centres are interpolated
    place = (torch.arange(length, dtype=torch.float64) / hop - 0.5).clamp(0, frames - 1)
    low = place.floor().long().clamp(max=max(frames - 2, 0))
    share = torch.zeros(length, frames, dtype=torch.float64)
    index = torch.arange(length)
    share[index, low] += 1 - (place - low)
    share[index, (low + 1).clamp(max=frames - 1)] += place - low
    starts = range(0, length - other + 1, other // 4)
    over_time = torch.stack([weight @ share[start : start + other] for start in starts])
    over_time /= over_time.sum(1, keepdim=True)
    # bin spacing in units of 1 / samples: a triangle as wide as the coarser of the two
    ours = torch.arange(other // 2 + 1, dtype=torch.float64) / other
    theirs = torch.arange(window // 2 + 1, dtype=torch.float64) / window
    over_bins = (1 - (ours[None] - theirs[:, None]).abs() * min(window, other)).clamp(min=0)
    over_bins /= over_bins.sum(0, keepdim=True)
    return over_time.float(), over_bins.float()


#: Mean magnitude of noise whose power is 1 (Rayleigh).
MEAN_MAGNITUDE = math.sqrt(math.pi) / 2
