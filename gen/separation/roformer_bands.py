"""Which bins of a spectrum belong to which band of a RoFormer.

BS-RoFormer cuts the spectrum into bands that follow one another (Lu et al. 2023, section 3.2); Mel-Band RoFormer takes
the triangles of a mel filter bank, each overlapping its neighbours by half (Wang et al. 2023, section 2.1).
"""

from __future__ import annotations

import itertools
import math

import numpy as np

#: Bins of the 62 bands of BS-RoFormer at a window of 2048 samples.
DEFAULT: tuple[int, ...] = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)


def in_a_row(widths: tuple[int, ...], first: int = 0) -> tuple[tuple[int, int], ...]:
    """Bands of so many bins, one after the other from bin ``first`` -> first bin and bin after the last, of each."""
    ends = [first]
    for width in widths:
        ends.append(ends[-1] + width)
    return tuple(itertools.pairwise(ends))


def mel(bands: int, window: int, rate: int) -> tuple[tuple[int, int], ...]:
    """Bins below each triangle of a mel filter bank with Slaney's scale, from 0 Hz to half the rate.

    The triangles themselves are zero at the first bin and at the last one; these belong to the outer bands. Raises
    ValueError when bands would be empty or bins belong to none.
    """
    bins = window // 2 + 1
    edges = _hz(np.linspace(0.0, _mel(rate / 2), bands + 2))
    frequencies = np.arange(bins) * (rate / window)
    found = []
    for band in range(bands):
        low, middle, high = edges[band : band + 3]
        rise, fall = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
        # float32, as filter banks are stored: what vanishes there is no member
        inside = np.flatnonzero((np.minimum(rise, fall) * 2.0 / (high - low)).astype(np.float32) > 0)
        start, stop = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
        start = 0 if band == 0 else start
        found.append((start, bins if band == bands - 1 else stop))
    reached = 0
    for start, stop in found:
        if start > reached or stop <= start:
            raise ValueError(f"{bands} mel bands do not cover {bins} bins at {rate} Hz: use fewer bands")
        reached = max(reached, stop)
    return tuple(found)


def _mel(hz: float) -> float:
    """Slaney's scale: even steps up to 1000 Hz, then 27 to each factor of 6.4."""
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


def _hz(mels: np.ndarray) -> np.ndarray:
    slow: np.ndarray = mels * 200 / 3
    return np.where(mels < 15, slow, 1000 * np.exp((mels - 15) * math.log(6.4) / 27))
