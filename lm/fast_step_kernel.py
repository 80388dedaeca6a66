"""A whole step of MusicGen in 8 bits as one compiled loop, by one thread or by several that meet at barriers.

Weights are whole numbers of 8 bits with a scale per row. Activations are rounded row by row to as many bits as keep the
sums of products within 32: eleven and a sign, up to 8,192 columns. Products of whole numbers are summed exactly,
whatever the order, and every sum of floats is one row's, so a row's result depends neither on its neighbours nor on the
number of threads.

numba compiles it at the first use, five seconds or so. Its own way of writing products of 8-bit numbers is several
times slower than the processor can: :mod:`descant.lm.fast_step_words` names the instruction.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .fast_kernel import attend

#: Columns that :func:`_dots` takes at once: rows of weights and activations are padded to multiples of it.
LANES = 32
_F, _I = np.float32, np.int32
_ZERO, _HALF, _ONE, _LOW = _F(0), _F(0.5), _F(1), _F(-126)
_LOG2E, _ROOT = _F(1.4426950408889634), _F(0.7071067811865476)
# 2^f on [0, 1), as in fast_kernel
_C1, _C2, _C3 = _F(0.6931471805599453), _F(0.2402265069591007), _F(0.05550410866482158)
_C4, _C5, _C6 = _F(0.009618129107628477), _F(0.0013333558146428443), _F(0.00015403530393381608)
# erf to 1.5e-7: Abramowitz and Stegun, 1964, formula 7.1.26
_P = _F(0.3275911)
_A1, _A2, _A3, _A4, _A5 = _F(0.254829592), _F(-0.284496736), _F(1.421413741), _F(-1.453152027), _F(1.061405429)
_FAST = frozenset({"reassoc", "contract", "nsz", "nnan"})


def levels(columns: int) -> int:
    """The largest whole number that activations are rounded to: sums over so many columns stay below 2^31."""
    return min(2047, ((1 << 31) - 1) // (127 * columns))


def padded(columns: int) -> int:
    """Columns of a stored row."""
    return -(-columns // LANES) * LANES


@functools.lru_cache(maxsize=1)
def step() -> Callable[..., None]:
    """The compiled step; arguments as for the function inside :func:`_step`."""
    import numba

    from .fast_step_words import words

    def made(function: Any, fast: bool = True, inner: bool = True) -> Any:
        # what only the loop calls needs no way in from Python, which would take as long to compile as itself
        way: dict[str, Any] = {"no_cpython_wrapper": inner, "no_cfunc_wrapper": inner}
        way |= {"nogil": True, "error_model": "numpy", "fastmath": set(_FAST) if fast else False}
        return numba.njit(**way)(function)

    dots, power, meet = words()
    rounded = made(_rounded)
    # rows take turns in two lines of it, which must not be rearranged each in its own way
    product = made(_product(dots), fast=False)
    norm, exp = made(_norm(rounded)), made(_exp(power))
    told = made(_told((rounded, product, norm, made(_softmax(exp)), meet)))
    parts = (rounded, product, norm, made(_act(exp)), told, made(attend), meet)
    compiled: Callable[..., None] = made(_step(parts), inner=False)
    return compiled


def _rounded(line: Any, most: Any, whole: Any, base: int) -> Any:
    """Round a row float32 [K] to whole numbers up to ``most`` in int16 whole[base : base + K]; returns its scale."""
    top = _F(1e-20)
    for k in range(len(line)):
        top = max(top, abs(line[k]))
    factor = most / top
    for k in range(len(line)):
        whole[base + k] = np.int16(np.rint(line[k] * factor))
    return top / most


def _product(dots: Any) -> Any:
    def product(matrix: Any, start: int, scale: Any, span: Any, given: Any, out: Any, add: bool) -> None:
        """Columns span[0] ... span[1] - 1 of ``out`` [R, N]: rows of whole numbers times rows of matrix[start:].

        given: activations int16 [R K], K, and their scales [R]. add: to what ``out`` holds.
        """
        whole, size, tops = given
        rows = len(out)
        for n in range(span[0], span[1]):
            for row in range(0, rows, 2):
                other = min(row + 1, rows - 1)
                a, b = dots(matrix, start + n * size, whole, row * size, other * size, size)
                one, two = _F(a) * scale[n] * tops[row], _F(b) * scale[n] * tops[other]
                out[row, n] = out[row, n] + one if add else one
                if other > row:
                    out[other, n] = out[other, n] + two if add else two

    return product


def _norm(rounded: Any) -> Any:
    def norm(x: Any, gains: Any, eps: Any, most: Any, wide: Any, given: Any) -> None:
        """Layer normalisation of x [R, D] by gains [2, D], rounded into ``given``; wide: room, float32 [D or more]."""
        whole, padded, tops = given
        width = x.shape[1]
        size = _F(width)
        for row in range(len(x)):
            line, total, spread = x[row], _ZERO, _ZERO
            for k in range(width):
                total += line[k]
            mean = total / size
            for k in range(width):
                spread += (line[k] - mean) * (line[k] - mean)
            inverse = _ONE / np.sqrt(spread / size + eps)
            for k in range(width):
                wide[k] = (line[k] - mean) * inverse * gains[0, k] + gains[1, k]
            tops[row] = rounded(wide[:width], most, whole, row * padded)

    return norm


def _exp(power: Any) -> Any:
    def exp(x: Any) -> Any:
        """Of x <= 0: a power of two times a polynomial."""
        turn = max(x * _LOG2E, _LOW)
        floor = np.floor(turn)
        f = turn - floor
        return power(_I(floor)) * (_ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6))))))

    return exp


def _act(exp: Any) -> Any:
    def act(line: Any, relu: bool) -> None:
        """x (1 + erf(x / sqrt 2)) / 2 of a row, in place; or x where it is positive."""
        for k in range(len(line)):
            x = line[k]
            if relu:
                line[k] = max(x, _ZERO)
            else:
                z = abs(x) * _ROOT
                t = _ONE / (_ONE + _P * z)
                # half of what is missing from erf to 1
                rest = _HALF * t * (_A1 + t * (_A2 + t * (_A3 + t * (_A4 + t * _A5)))) * exp(-z * z)
                line[k] = x * (_ONE - rest) if x > _ZERO else x * rest

    return act


def _softmax(exp: Any) -> Any:
    def softmax(line: Any, count: int) -> None:
        """Of the first ``count`` numbers, in place; the others become 0."""
        best, total = line[0], _ZERO
        for k in range(count):
            best = max(best, line[k])
        for k in range(count):
            line[k] = exp(line[k] - best)
            total += line[k]
        for k in range(len(line)):
            line[k] = line[k] / total if k < count else _ZERO

    return softmax


def _told(parts: Any) -> Any:
    rounded, product, norm, softmax, meet = parts

    def told(x: Any, layer: int, text: Any, gains: Any, eps: Any, team: Any, room: Any) -> None:
        """Cross-attention, folded: a piece's row [1, D] asks its text's tokens, softmax per head, what they give.

        text: tokens of each piece; matrix and scales of what is asked, and of what is given; heads; largest whole
        numbers of both. team: which thread, of how many, barrier. room: int16, scales and float32 [1, H T] of all.
        """
        counts, asked, asked_scale, given, given_scale, heads, most, most_given = text
        me, size, sync = team
        whole, tops, wide, shares, inner, outer = room
        pieces, width, tokens = len(counts), x.shape[1], shares.shape[1] // heads
        lower, upper = heads * me // size, heads * (me + 1) // size
        begin, end = width * me // size, width * (me + 1) // size
        for piece in range(pieces):
            if counts[piece] == 0:
                continue  # nothing is told, nothing is added
            row, at = x[piece : piece + 1], layer * pieces + piece
            norm(row, gains, eps, most, wide, (whole, inner, tops))
            product(
                asked, at * heads * tokens * inner, asked_scale[layer, piece], (lower * tokens, upper * tokens),
                (whole, inner, tops), shares, False,
            )  # fmt: skip
            for head in range(lower, upper):
                softmax(shares[0, head * tokens : (head + 1) * tokens], counts[piece])
            meet(sync, size)
            tops[0] = rounded(shares[0], most_given, whole, 0)
            product(given, at * width * outer, given_scale[layer, piece], (begin, end), (whole, outer, tops), row, True)
            meet(sync, size)

    return told


def _step(parts: Any) -> Any:
    rounded, product, norm, act, told, look, meet = parts

    def step(team: Any, sizes: Any, layers: Any, text: Any, cache: Any, shared: Any, own: Any, seen: int) -> None:
        """One position of all rows, this thread's share: its heads, and its columns of every other product.

        team: which thread, of how many, barrier int64 [1]. sizes: heads, relu, eps, factor of scores, and of width and
        inner width the columns stored and the largest whole number. layers: matrices and scales, norms [L, 3, 2, D],
        heads, last norm. text: as for :func:`_told`. cache: keys, values and their scales. shared: x [R, D], queries
        [R, 3 D], attended [R, D], inner [R, F], logits [R, N], text's shares. own: a row for each thread. seen:
        positions in the cache.
        """
        me, size, sync = team
        heads, relu, eps, factor, inner, most, inner_f, most_f, outer = sizes
        qkv, qkv_s, out, out_s, fc1, fc1_s, fc2, fc2_s, norms, last, last_s, last_norm = layers
        keys, values, key_s, value_s = cache
        x, asked, y, h, logits, shares = shared
        whole, tops, wide, scores, bits, powers = own[0][me], own[1][me], own[2][me], own[3][me], own[4][me], own[5][me]
        rows, width, deep = len(x), x.shape[1], h.shape[1]
        e = width // heads
        lower, upper = heads * me // size, heads * (me + 1) // size
        begin, end = width * me // size, width * (me + 1) // size
        first, stop = deep * me // size, deep * (me + 1) // size
        apart, joined = asked.reshape(rows, 3, heads, e), y.reshape(rows, heads, e)
        narrow, broad = (whole, inner, tops), (whole, inner_f, tops)
        for layer in range(len(norms)):
            norm(x, norms[layer, 0], eps, most, wide, narrow)
            for part in range(3):
                span = (part * width + lower * e, part * width + upper * e)
                product(qkv, layer * 3 * width * inner, qkv_s[layer], span, narrow, asked, False)
            look(apart, joined, keys[layer], values[layer], key_s[layer], value_s[layer], scores, bits, powers, seen,
                 factor, lower, upper)  # fmt: skip
            meet(sync, size)
            for row in range(rows):
                tops[row] = rounded(y[row], most, whole, row * inner)
            product(out, layer * width * inner, out_s[layer], (begin, end), narrow, x, True)
            meet(sync, size)
            told(x, layer, text, norms[layer, 1], eps, team, (whole, tops, wide, shares, inner, outer))
            norm(x, norms[layer, 2], eps, most, wide, narrow)
            product(fc1, layer * deep * inner, fc1_s[layer], (first, stop), narrow, h, False)
            for row in range(rows):
                act(h[row, first:stop], relu)
            meet(sync, size)
            for row in range(rows):
                tops[row] = rounded(h[row], most_f, whole, row * inner_f)
            product(fc2, layer * width * inner_f, fc2_s[layer], (begin, end), broad, x, True)
            meet(sync, size)
        norm(x, last_norm, eps, most, wide, narrow)
        count = logits.shape[1]
        product(last, 0, last_s, (count * me // size, count * (me + 1) // size), narrow, logits, False)

    return step
