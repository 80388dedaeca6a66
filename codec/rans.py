"""An entropy coder in whole numbers: asymmetric numeral systems (Duda, 2013, the range variant), byte by byte.

The state is below 2^32, frequencies sum to 2^16. Two things are particular: many independent streams are decoded in
step (numpy arrays over *lanes*), and the encoder does not begin with an empty state but with its last codes in it,
which saves three bytes a stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Frequencies of a distribution sum to 2^PRECISION.
PRECISION = 16
TOTAL = 1 << PRECISION
_LOW = 1 << 24
#: Bits of plain data that fit into the first state.
STATE_BITS = 24


def encode_stream(starts: Sequence[int], sizes: Sequence[int], seed: int = 0) -> bytes:
    """Code symbols, each given by the first of its slots in 0..2^16 - 1 and their number (at least 1).

    seed: 24 bits of plain data, which the decoder finds at its end.
    """
    state, out = _LOW | seed, bytearray()
    for start, size in zip(reversed(starts), reversed(sizes), strict=True):
        while state >= size << PRECISION:
            out.append(state & 0xFF)
            state >>= 8
        state = (state // size << PRECISION) + state % size + start
    out += state.to_bytes(4, "little")
    return bytes(out[::-1])


class Stream:
    """Decodes one stream, symbol by symbol."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 4
        self._state = int.from_bytes(data[:4], "big")

    @property
    def slot(self) -> int:
        """The slot in which the next symbol lies."""
        return self._state & (TOTAL - 1)

    def take(self, start: int, size: int) -> None:
        """Go on: the symbol was the one that owns ``size`` slots from ``start`` on."""
        state = size * (self._state >> PRECISION) + (self._state & (TOTAL - 1)) - start
        for _ in range(2):
            if state < _LOW:
                # a stream that ran out goes on over zeros and is found out at the end
                state = state << 8 | (self._data[self._at] if self._at < len(self._data) else 0)
                self._at += 1
        self._state = state

    def finish(self) -> int | None:
        """The plain data the stream was begun with; None if it did not end where it should."""
        whole = self._at == len(self._data) and _LOW <= self._state < 2 * _LOW
        return self._state - _LOW if whole else None


class Lanes:
    """Decodes several streams in step. ``slots`` tells where each stands; ``take`` goes on by one symbol each."""

    def __init__(self, streams: Sequence[bytes]) -> None:
        self._sizes = np.array([len(data) for data in streams])
        width = int(self._sizes.max()) + 4
        self._data = np.zeros((len(streams), width), np.int64)
        for row, data in zip(self._data, streams, strict=True):
            row[: len(data)] = np.frombuffer(data, np.uint8)
        self._state = (self._data[:, :4] << np.array([24, 16, 8, 0])).sum(1)
        self._at = np.full(len(streams), 4)
        self._rows = np.arange(len(streams))

    def slots(self, count: int) -> np.ndarray:
        """The slots [count] in which the next symbols of the first ``count`` streams lie."""
        found: np.ndarray = self._state[:count] & (TOTAL - 1)
        return found

    def take(self, start: np.ndarray, size: np.ndarray) -> None:
        """The first len(start) streams had the symbols that own ``size`` slots from ``start`` on."""
        count = len(start)
        state = self._state[:count]
        state[:] = size * (state >> PRECISION) + (state & (TOTAL - 1)) - start
        for _ in range(2):
            low = np.flatnonzero(state < _LOW)
            if not len(low):
                break
            # a stream that ran out goes on over zeros and is found out at the end
            at = np.minimum(self._at[low], self._data.shape[1] - 1)
            state[low] = state[low] << 8 | self._data[low, at]
            self._at[low] += 1

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """The plain data every stream was begun with, and whether it ended where it should."""
        whole = (self._at == self._sizes) & (self._state >= _LOW) & (self._state < 2 * _LOW)
        return self._state & (_LOW - 1), whole
