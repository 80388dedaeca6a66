"""Two channels in one sequence of codebooks, as MusicGen's stereo models have them: L0, R0, L1, R1 ..."""

from __future__ import annotations

import torch
from torch import Tensor


def interleave(left: Tensor, right: Tensor) -> Tensor:
    """Codes of two channels, each [B, K, F] -> [B, 2 K, F]."""
    if left.dim() != 3 or left.shape != right.shape:
        raise ValueError(f"two channels must be [B, K, F] alike, got {list(left.shape)} and {list(right.shape)}")
    return torch.stack([left, right], 2).flatten(1, 2)


def deinterleave(codes: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 2 K, F] -> codes of the left and the right channel, each [B, K, F]: the inverse of :func:`interleave`."""
    if codes.dim() != 3 or codes.shape[1] % 2:
        raise ValueError(f"codes of two channels must be [B, an even number, F], got {list(codes.shape)}")
    return codes[:, ::2], codes[:, 1::2]
