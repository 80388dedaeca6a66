"""The file format ``.dsc``: codes of one recording, in chunks that stand alone. docs/format.md is its description.

    header (45 bytes) | group | group | ... | trailer

A *chunk* is about 2.5 seconds of codes with a check sum of its own: a damaged one is concealed, the rest plays. Two
bytes of check sum are all it carries, because at 2 kbps every byte per second costs 0.4 %; what is needed to find
one's way again after damage (a sync word, the frame number, the sizes) stands once per *group* of fifteen chunks. A
writer therefore holds 37 seconds before it writes; ``group=1`` writes every chunk at once and costs 10 bytes more for
each. Nothing in a file is code, a name or a path, and every size is checked before memory is asked for.

Here is the writer; the reader is in :mod:`descant.codec.bitreader`, the header in :mod:`descant.codec.header`.
"""

from __future__ import annotations

import zlib
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from torch import Tensor

from .bitreader import Reader
from .groups import MAX_GROUP_CODES, MAX_RATE, MAX_TRAILER, PACKED, Group, Trailer, seal
from .header import SUFFIX, BitstreamError, Chunk, Damage, Header, Survey
from .packing import pack, packed_size

if TYPE_CHECKING:
    from .entropy import Coder

__all__ = ["SUFFIX", "BitstreamError", "Chunk", "Damage", "Header", "Reader", "Survey", "Writer"]
#: Groups between two seek points: four minutes of full groups.
_POINT_EVERY = 8
_MAX_POINTS = (MAX_TRAILER - 64) // 16


class Writer:
    """Writes a file, front to back, so that pipes will do.

    coder: ``"packed"``, or ``"entropy"`` for fewer bytes: with ``tables`` (:func:`descant.codec.entropy.load`) the
    codec's context model, without them an adaptive model. group: chunks that share a group header, 1 to 255.
    """

    def __init__(
        self, file: BinaryIO, header: Header, coder: Literal["packed", "entropy"] = "packed",
        tables: Coder | None = None, group: int = 15,
    ) -> None:  # fmt: skip
        if coder not in ("packed", "entropy"):
            raise ValueError(f"unknown coder {coder!r}: use 'packed' or 'entropy'")
        if not 1 <= group <= 255:
            raise ValueError(f"a group has 1 to 255 chunks, got {group}")
        self.header, self._file, self._limit = header, file, group
        self._coder = _coder(tables) if coder == "entropy" else None
        self._held: list[np.ndarray] = []  # codes [K, F] of the chunk being filled, and their common gain
        self._held_frames = self._gain = 0
        self._chunks: list[tuple[np.ndarray, int]] = []  # full chunks of the group being filled
        self._written = 0  # frames in groups written
        self._bytes = self._check = self._groups = 0
        self._points: list[tuple[int, int]] = []
        self._every = _POINT_EVERY
        self._closed = False
        self._put(header.to_bytes())
        self._bytes = 0  # seek points count from the first group

    @property
    def frames(self) -> int:
        """Frames given so far."""
        return self._written + sum(int(codes.shape[1]) for codes, _ in self._chunks) + self._held_frames

    def write(self, codes: Tensor, gain: float = 0.0) -> None:
        """Append codes [K, F], F free, K <= header.books; ``gain`` in dB, -128 to 127.99, rounded to 1/256 dB.

        Calls of the same K and gain run together and are cut into chunks; a change of either begins a new chunk.
        """
        if self._closed:
            raise ValueError("the file is closed: open a new Writer")
        if codes.dim() != 2 or not 1 <= codes.shape[0] <= self.header.books or codes.is_floating_point():
            seen = f"{codes.dtype} {list(codes.shape)}"
            raise ValueError(f"write wants whole numbers [1..{self.header.books}, F], got {seen}")
        level = round(gain * 256) if abs(gain) < 1e6 else 1 << 20
        if not -32768 <= level <= 32767:
            raise ValueError(f"a gain of {gain} dB does not fit: -128 to 127.99")
        if codes.shape[1] == 0:
            return
        rows = codes.detach().cpu().numpy().astype(np.int64)
        if rows.min() < 0 or rows.max() >= 1 << self.header.bits:
            raise ValueError(f"codes must lie in 0..{(1 << self.header.bits) - 1}, got {rows.min()}..{rows.max()}")
        if self._held and (level != self._gain or len(rows) != len(self._held[0])):
            self._cut()
        self._gain = level
        size = self.header.chunk_frames
        while rows.shape[1]:
            take = min(size - self._held_frames, rows.shape[1])
            self._held.append(rows[:, :take])
            self._held_frames += take
            rows = rows[:, take:]
            if self._held_frames == size:
                self._cut()

    def close(self, samples: int | None = None, source: tuple[int, int] | None = None) -> None:
        """Write what is held and the trailer. samples: length per channel in all (None: frames * hop - pre_skip).

        source: rate and samples of what was encoded, which go into the file where the rate is not the codec's.
        """
        if self._closed:
            return
        self._cut()
        self._flush()
        frames = self._written
        count = max(0, frames * self.header.hop - self.header.pre_skip) if samples is None else samples
        if not 0 <= count < (1 << 64) - 1:
            raise ValueError(f"samples must lie in 0..2^64 - 2, got {samples}")
        if source is not None and not (1 <= source[0] <= MAX_RATE and 0 <= source[1] < (1 << 64) - 1):
            raise ValueError(f"a source has 1 to {MAX_RATE} Hz and 0 to 2^64 - 2 samples, got {source}")
        if source is not None and source[0] == self.header.rate:
            source = None  # its length is ``samples``
        trailer = Trailer(samples=count, frames=frames, points=tuple(self._points), source=source, check=self._check)
        self._file.write(trailer.to_bytes())
        self._file.flush()
        self._closed = True

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _cut(self) -> None:
        """End the chunk being filled."""
        if not self._held:
            return
        codes = np.concatenate(self._held, 1) if len(self._held) > 1 else self._held[0]
        self._held, self._held_frames = [], 0
        if self._chunks and len(codes) != len(self._chunks[0][0]):
            self._flush()
        self._chunks.append((codes, self._gain))
        full = len(self._chunks) == min(self._limit, MAX_GROUP_CODES // (self.header.chunk_frames * len(codes)))
        if full or codes.shape[1] < self.header.chunk_frames:  # only the last chunk of a group may be short
            self._flush()

    def _flush(self) -> None:
        """Write the group being filled."""
        if not self._chunks:
            return
        bits, rows = self.header.bits, [codes for codes, _ in self._chunks]
        packed = [packed_size(len(codes), codes.shape[1], bits) for codes in rows]
        bodies: list[bytes | None] = [None] * len(rows)
        if self._coder is not None:
            found = self._coder.encode(rows, bits)
            bodies = [body if len(body) < size else None for body, size in zip(found, packed, strict=True)]
        saved = sum(size - len(body) for body, size in zip(bodies, packed, strict=True) if body is not None)
        coded = self._coder is not None and saved > 3 * len(rows) + 4  # sizes and the name of the tables are not free
        payloads = [body if coded and body else pack(codes, bits) for body, codes in zip(bodies, rows, strict=True)]
        group = Group(
            start=self._written, frames=tuple(codes.shape[1] for codes in rows), books=len(rows[0]),
            gains=tuple(gain for _, gain in self._chunks),
            coder=self._coder.mode if coded and self._coder else PACKED,
            tables=self._coder.identity if coded and self._coder else 0, sizes=tuple(map(len, payloads)),
        )  # fmt: skip
        if group.end > 1 << 32:
            raise ValueError("a file holds at most 2^32 frames: begin a new one")
        self._point(group.start)
        out, at = bytearray(group.to_bytes(self.header.shape)), group.start
        for codes, payload in zip(rows, payloads, strict=True):
            out += payload + seal(at, payload)
            at += codes.shape[1]
        self._put(bytes(out))
        self._written, self._groups, self._chunks = at, self._groups + 1, []

    def _point(self, frame: int) -> None:
        """Remember where this group begins, if it is one of every ``_every``; thin the points out before they crowd."""
        if self._groups and self._groups % self._every == 0:
            self._points.append((frame, self._bytes))
            if len(self._points) > _MAX_POINTS:
                self._points, self._every = self._points[1::2], 2 * self._every

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._check = zlib.crc32(data, self._check)
        self._bytes += len(data)


def _coder(tables: Coder | None) -> Coder:
    if tables is not None:
        return tables
    from .entropy import Adaptive

    return Adaptive()
