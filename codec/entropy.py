"""Fewer bits for the same codes: entropy coders for the chunks of a ``.dsc`` file, in whole numbers only.

What a decoder reads must be what the encoder wrote to the last bit, on every machine, so nothing here depends on the
order or the rounding of floating-point sums. Two models exist:

* :class:`Adaptive` needs nothing and saves what repeats: silence, held tones of an exact synthesiser;
* the context model of a codec (:mod:`descant.codec.context`), trained by ``recipes/entropy.py``.

Both treat every chunk alone, so that a damaged chunk harms no other. Letters: K codebooks, F frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from .groups import ADAPTIVE
from .rans import PRECISION, STATE_BITS, TOTAL, Stream, encode_stream


class Coder(Protocol):
    """Codes chunks. ``mode`` and ``identity`` are what a group's header says of it."""

    @property
    def mode(self) -> int:
        """Number of the coder in the file format."""

    @property
    def identity(self) -> int:
        """Which tables: 32 bits; 0 where there are none."""

    def encode(self, chunks: Sequence[np.ndarray], bits: int) -> list[bytes]:
        """chunks: codes int64 [K, F] each, below 2^bits, the same K -> bytes of each."""

    def decode(self, coded: Sequence[bytes], books: int, frames: Sequence[int], bits: int) -> list[np.ndarray | None]:
        """The inverse: codes int64 [K, F] of each, F = frames[i]; None where the bytes make no sense."""


class Adaptive:
    """Asks before every code whether it is that of the frame before, and learns within the chunk how likely that is.

    The likelihood is kept per book and for the two cases that the book before repeated or did not.
    """

    mode, identity = ADAPTIVE, 0
    _RARE = TOTAL // 64  # the chance of a repetition at the beginning of a chunk

    def encode(self, chunks: Sequence[np.ndarray], bits: int) -> list[bytes]:
        """chunks: codes int64 [K, F] each, below 2^bits -> bytes of each."""
        return [self._encode(codes, bits) for codes in chunks]

    def _encode(self, codes: np.ndarray, bits: int) -> bytes:
        books = len(codes)
        chance = [[self._RARE] * 2 for _ in range(books)]
        flat = codes.T.reshape(-1).tolist()
        plain = tail(len(flat), bits)
        starts, sizes = [], []
        for index, code in enumerate(flat[: len(flat) - plain]):
            book = index % books
            if index >= books:
                was = book > 0 and flat[index - 1] == flat[index - 1 - books]
                same = code == flat[index - books]
                share = chance[book][was]
                starts.append(0 if same else share)
                sizes.append(share if same else TOTAL - share)
                chance[book][was] = _learn(share, same)
                if same:
                    continue
            starts.append(code << PRECISION - bits)
            sizes.append(1 << PRECISION - bits)
        return encode_stream(starts, sizes, join(flat[len(flat) - plain :], bits))

    def decode(self, coded: Sequence[bytes], books: int, frames: Sequence[int], bits: int) -> list[np.ndarray | None]:
        """The inverse: codes int64 [K, F] of each, F = frames[i]; None where the bytes make no sense."""
        return [self._decode(data, books, length, bits) for data, length in zip(coded, frames, strict=True)]

    def _decode(self, data: bytes, books: int, frames: int, bits: int) -> np.ndarray | None:
        chance = [[self._RARE] * 2 for _ in range(books)]
        flat: list[int] = []
        stream = Stream(data)
        for index in range(books * frames - tail(books * frames, bits)):
            book = index % books
            if index >= books:
                was = book > 0 and flat[index - 1] == flat[index - 1 - books]
                share = chance[book][was]
                same = stream.slot < share
                stream.take(0 if same else share, share if same else TOTAL - share)
                chance[book][was] = _learn(share, same)
                if same:
                    flat.append(flat[index - books])
                    continue
            code = stream.slot >> PRECISION - bits
            stream.take(code << PRECISION - bits, 1 << PRECISION - bits)
            flat.append(code)
        return finish(flat, stream.finish(), books, frames, bits)


def _learn(share: int, same: bool) -> int:
    """Move a chance, out of 2^16, a sixteenth of the way to what happened; it stays within 1/128 ... 31/32."""
    share += (TOTAL - share >> 4) if same else -(share >> 4)
    return min(max(share, TOTAL // 128), TOTAL - TOTAL // 32)


def tail(count: int, bits: int) -> int:
    """How many of ``count`` codes, the last ones, are stored as plain bits in the coder's first state."""
    return min(count, STATE_BITS // bits)


def join(codes: Sequence[int], bits: int) -> int:
    """The last codes as one number, the first of them lowest."""
    return sum(code << bits * index for index, code in enumerate(codes))


def finish(flat: list[int], seed: int | None, books: int, frames: int, bits: int) -> np.ndarray | None:
    """Add the last codes, found in ``seed``, and give all their shape [K, F]; None where the seed makes no sense."""
    plain = books * frames - len(flat)
    if seed is None or seed >> plain * bits:
        return None
    flat = flat + [seed >> bits * index & (1 << bits) - 1 for index in range(plain)]
    return np.ascontiguousarray(np.array(flat, np.int64).reshape(frames, books).T)
