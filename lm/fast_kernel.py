"""The loop of 8-bit attention, compiled by numba at its first use (a few seconds)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

#: Positions that lie side by side in a block of keys: their scores are computed together, without a sum across lanes.
LANES = 64
_F, _I = np.float32, np.int32
_ZERO, _ONE, _TOP = _F(0), _F(1), _F(127)
_LOG2E, _LOW = _F(1.4426950408889634), _F(-126)
# 2^f on [0, 1): the Taylor series of exp(f ln 2), to 1e-7
_C1, _C2, _C3 = _F(0.6931471805599453), _F(0.2402265069591007), _F(0.05550410866482158)
_C4, _C5, _C6 = _F(0.009618129107628477), _F(0.0013333558146428443), _F(0.00015403530393381608)


@functools.lru_cache(maxsize=1)
def kernel() -> Callable[..., None]:
    """The compiled loop; see :func:`attend`. Raises ModuleNotFoundError naming the extra where numba is missing."""
    try:
        import numba
    except ImportError as error:
        raise ModuleNotFoundError(
            "the 8-bit attention cache needs numba: pip install 'descant[fast]', or choose the cache 'bf16'"
        ) from error
    # sums may be reordered into lanes; compilation fixes the order, so equal inputs give equal results
    made: Callable[..., None] = numba.njit(nogil=True, fastmath={"reassoc", "contract", "nsz", "nnan"})(attend)
    return made


def attend(
    qkv: Any, out: Any, keys: Any, values: Any, key_scale: Any, value_scale: Any, scores: Any, bits: Any, powers: Any,
    seen: int, factor: Any, first: int, end: int,
) -> None:  # fmt: skip
    """Keep the next position's keys and values of every row and of heads first ... end - 1; attend to all positions.

    qkv: float32 [R, 3, H, E]. out: float32 [R, H, E]. keys: int8 [R, H, blocks, E, LANES]. values: int8 [R, H, T, E].
    Scales: float32 [R, H, T]. scores: float32 [T], bits: int32 [T] and powers, the same memory as float32 [T]: room.
    factor (float32) multiplies the scores. Plain Python, and slow unless compiled.
    """
    rows, _, _, size = qkv.shape
    count = seen + 1
    for row in range(rows):
        for head in range(first, end):
            key, value, query, y = qkv[row, 1, head], qkv[row, 2, head], qkv[row, 0, head], out[row, head]
            top_key, top_value = _F(1e-20), _F(1e-20)
            for e in range(size):
                top_key = max(top_key, abs(key[e]))
                top_value = max(top_value, abs(value[e]))
            key_scale[row, head, seen] = top_key / _TOP
            value_scale[row, head, seen] = top_value / _TOP
            for e in range(size):
                keys[row, head, seen // LANES, e, seen % LANES] = np.int8(np.rint(key[e] * (_TOP / top_key)))
                values[row, head, seen, e] = np.int8(np.rint(value[e] * (_TOP / top_value)))
            for block in range((count + LANES - 1) // LANES):
                part = scores[block * LANES : (block + 1) * LANES]
                for lane in range(LANES):
                    part[lane] = _ZERO
                for e in range(size):
                    lanes, q = keys[row, head, block, e], query[e]
                    for lane in range(LANES):
                        part[lane] += q * _F(lanes[lane])
            scale = key_scale[row, head]
            best = scores[0] * scale[0] * factor
            for t in range(count):
                scores[t] = scores[t] * scale[t] * factor
                best = max(best, scores[t])
            # exp by a power of two times a polynomial: a call per position would cost as much as the rest together
            for t in range(count):
                power = max((scores[t] - best) * _LOG2E, _LOW)
                whole = np.floor(power)
                f = power - whole
                bits[t] = (_I(whole) + _I(127)) << _I(23)
                scores[t] = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
            total = _ZERO
            scale = value_scale[row, head]
            for t in range(count):
                weight = scores[t] * powers[t]
                total += weight
                scores[t] = weight * scale[t]
            for e in range(size):
                y[e] = _ZERO
            for t in range(count):
                weight, line = scores[t], values[row, head, t]
                for e in range(size):
                    y[e] += weight * _F(line[e])
            for e in range(size):
                y[e] = y[e] / total
