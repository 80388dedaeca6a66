"""Running medians, exact and fast, with nothing but minima and maxima.

Neighbouring windows share most of their samples. As in "Fast Median Filters using Separable Sorting Networks" (Adams,
ACM Transactions on Graphics 40(4), 2021), here in one dimension: a tile of outputs sorts what all its windows share
once; then it is halved, each half takes in the samples that its own windows share, and what can no longer be the median
is dropped, until every tile is one output. A window of 31 costs about 36 minima or maxima an output, each over a long
row of outputs at a time; nothing depends on the values, and no value is ever changed, so the bits are those of any
other correct median.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

#: Tiles times columns that are filtered together: the samples in use then stay in a core's cache.
_AREA = 16384
#: Columns of them: long enough for vector instructions, short enough for several tiles.
_COLUMNS = 256

#: Comparators of a sorting network: places, and whether the smaller and the larger value is wanted.
_Network = tuple[tuple[int, int, bool, bool], ...]


def running_median(values: Tensor, size: int, dim: int = -1) -> Tensor:
    """Median of the ``size`` values around each value along one axis: [..] -> [..], floats, no NaN.

    Beyond the edges the values are mirrored, the edge itself twice; of an even number of values the upper middle one is
    taken: equal to ``scipy.ndimage.median_filter(mode="reflect")``, bit for bit. Raises ValueError for a size below 1.
    """
    if size < 1 or not values.dim() or not values.is_floating_point():
        raise ValueError(f"need floats and a size of 1 or more, got {values.dtype} {tuple(values.shape)} and {size}")
    if size == 1 or not values.numel():
        return values.clone()
    out = torch.empty_like(values)
    if values.dim() == 1:
        _filter(values[:, None], out[:, None], size)
        return out
    # the filtered axis second to last, one other axis last: both stay views, so that what is written reaches `out`
    last = -2 if dim in (-1, values.dim() - 1) else -1
    source, target = (x.movedim((dim, last), (-2, -1)) for x in (values, out))
    for place in itertools.product(*map(range, source.shape[:-2])):
        _filter(source[place], target[place], size)
    return out


def median_of(rows: list[Tensor]) -> Tensor:
    """Median of tensors of one shape, value by value; the mean of the middle two when their number is even."""
    count = len(rows)
    if not count:
        raise ValueError("no tensors: a median needs at least one")
    middle = _sorted(rows, count, (count - 1) // 2, count // 2 + 1)
    return middle[0] if len(middle) == 1 else (middle[0] + middle[1]) / 2


def _filter(source: Tensor, target: Tensor, size: int) -> None:
    """Medians along the first axis of a matrix [n, M] into another."""
    length, width = source.shape
    rank = size // 2
    tile = 1 << ((size - rank).bit_length() - 1)
    columns = min(width, _COLUMNS)
    tiles = min(max(1, _AREA // columns), -(-length // tile))
    for left in range(0, width, columns):
        right = min(left + columns, width)
        for top in range(0, length, tiles * tile):
            held = _mirrored(source[:, left:right], top - rank, tiles * tile + size - 1)
            made = source.new_empty(tiles * tile, right - left)
            _medians(held, made, size, tile)
            stop = min(top + tiles * tile, length)
            target[top:stop, left:right] = made[: stop - top]


def _mirrored(source: Tensor, start: int, count: int) -> Tensor:
    """Rows ``start`` to ``start + count`` of a matrix that is mirrored at both ends for ever, copied."""
    length = source.shape[0]
    held = source.new_empty(count, source.shape[1])
    first, last = max(0, -start), max(0, min(count, length - start))
    held[first:last] = source[start + first : start + last]
    for begin, end in ((0, min(first, count)), (max(first, last), count)):
        if begin < end:
            places = torch.arange(start + begin, start + end).remainder(2 * length)
            held[begin:end] = source[torch.minimum(places, 2 * length - 1 - places)]
    return held


def _medians(held: Tensor, made: Tensor, size: int, tile: int) -> None:
    """Medians of the windows that begin at each row of ``held`` [n + size - 1, M] into ``made`` [n, M]."""
    width, count, rank = held.shape[1], made.shape[0] // tile, size // 2
    # what all windows of a tile share; of its sorted values only those that can still be the median
    shared = size - tile + 1
    rows = [held.as_strided((1, count, width), (0, tile * width, 1), (tile - 1 + i) * width) for i in range(shared)]
    rows = _sorted(rows, shared, rank - tile + 1, rank + 1)
    half, tiles = tile // 2, 1
    while half:
        # halves of each tile: the first takes samples before the shared ones, the second samples behind them
        shape, steps = (tiles, 2, count, width), (2 * half * width, (size - half + 1) * width, tile * width, 1)
        more = _sorted([held.as_strided(shape, steps, (half - 1 + i) * width) for i in range(half)], half, 0, half)
        old = [row[:, None] for row in rows]
        # half-cleaners (Batcher, 1968): of two sorted rows, the larger half; then of that and the rest the smaller
        rows = _merged([torch.maximum(old[i], more[half - 1 - i]) for i in range(half)])
        rows = [torch.minimum(rows[i], old[2 * half - 1 - i]) for i in range(half)]
        rows = [row.reshape(2 * tiles, count, width) for row in _merged(rows)]
        half, tiles = half // 2, 2 * tiles
    made.view(count, tile, width).copy_(rows[0].transpose(0, 1))


def _sorted(rows: list[Tensor], count: int, first: int, last: int) -> list[Tensor]:
    """The values of ranks ``first`` to ``last`` of ``count`` rows, element by element."""
    return _through(rows, _sorter(count, first, last))[first:last]


def _merged(rows: list[Tensor]) -> list[Tensor]:
    """Sort rows that first rise and then fall, or the reverse; a power of two of them."""
    return _through(rows, _merger(len(rows)))


def _through(rows: list[Tensor], network: _Network) -> list[Tensor]:
    rows = list(rows)
    for low, high, smaller, larger in network:
        one, other = rows[low], rows[high]
        if smaller:
            rows[low] = torch.minimum(one, other)
        if larger:
            rows[high] = torch.maximum(one, other)
    return rows


@functools.lru_cache(maxsize=64)
def _sorter(count: int, first: int, last: int) -> _Network:
    """Batcher's merge exchange (Knuth, The Art of Computer Programming 3, 5.2.2 M), without what nobody asks for."""
    pairs = []
    top = 1 << max(0, (count - 1).bit_length() - 1)
    step = top
    while step and count > 1:
        stride, offset, gap = top, 0, step
        while True:
            pairs += [(i, i + gap) for i in range(count - gap) if i & step == offset]
            if stride == step:
                break
            gap, stride, offset = stride - step, stride >> 1, step
        step >>= 1
    wanted = set(range(first, last))
    kept = []
    for low, high in reversed(pairs):
        if low in wanted or high in wanted:
            kept.append((low, high, low in wanted, high in wanted))
            wanted |= {low, high}
    return tuple(reversed(kept))


@functools.lru_cache(maxsize=16)
def _merger(count: int) -> _Network:
    pairs = []
    gap = count // 2
    while gap:
        pairs += [(i, i + gap, True, True) for i in range(count) if not i & gap]
        gap //= 2
    return tuple(pairs)
