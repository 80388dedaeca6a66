"""Masks: which share of each time and frequency belongs to whom."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def softmask(wanted: Tensor, other: Tensor, power: float = 2.0, split: bool = False) -> Tensor:
    """``wanted ** power / (wanted ** power + other ** power)``: [..], [..], not negative -> [..] in 0 to 1.

    An infinite power asks which is larger. Where both are below the smallest normal number the share is 0, or one half
    with ``split``. The values of ``librosa.util.softmask``. Raises ValueError for a power of 0 or less.
    """
    if not power > 0:
        raise ValueError(f"a mask's power must be more than 0, got {power}: 1 for magnitudes, 2 for energies")
    if math.isinf(power):
        return (wanted > other).to(wanted.dtype)
    # relative to the larger one, so that no power overflows or vanishes
    top = torch.maximum(wanted, other)
    silent = top < torch.finfo(top.dtype).tiny
    top.masked_fill_(silent, 1)
    share, rest = _raised(wanted / top, power), _raised(other / top, power)
    share.div_(rest.add_(share))
    return share.masked_fill_(silent, 0.5 if split else 0.0)


def shares(parts: Tensor, power: float = 2.0, split: bool = True) -> Tensor:
    """Shares of several models in their sum: parts [N, ..], not negative -> [N, ..].

    Where all are nothing, they are equal with ``split`` and else 0.

    The generalised Wiener filter (Liutkus and Badeau, ICASSP 2015): magnitudes with a power of 2 are Wiener's own.
    """
    top = parts.amax(0)
    silent = top < torch.finfo(top.dtype).tiny
    found = _raised(parts / top.masked_fill(silent, 1), power)
    found /= found.sum(0).masked_fill_(silent, 1)
    return found.masked_fill_(silent, 1 / len(parts) if split else 0.0)


def _raised(values: Tensor, power: float) -> Tensor:
    """``values ** power`` in place."""
    if power == 1:
        return values
    return values.mul_(values) if power == 2 else values.pow_(power)
