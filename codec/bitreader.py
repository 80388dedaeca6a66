"""The reader of ``.dsc`` files: front to back, from a pipe or a disk, through whatever damage there is."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from .groups import (
    ADAPTIVE,
    CONTEXT,
    GROUP_SYNC,
    MAX_GROUP_HEADER,
    MAX_TRAILER,
    TRAILER_SYNC,
    Group,
    Trailer,
    read_group,
    read_trailer,
    seal,
)  # fmt: skip
from .header import HEADER_BYTES, BitstreamError, Chunk, Damage, Header, Survey
from .packing import packed_size, unpack

if TYPE_CHECKING:
    from .entropy import Coder

_BLOCK = 1 << 16
#: Frames that may be missing from a file in all, and more for every byte read: a longer jump is not believed.
_MAX_GAP, _GAP_PER_BYTE = 1 << 15, 8
_MAX_REPORTS = 10_000
_FADE_DB, _SILENT_DB = 6.0, -96.0


class Reader:
    """Reads a file, front to back: ``for chunk in reader``. Raises BitstreamError, and nothing else for bad content.

    tables: what the codec brings for files written with them. cardinality: codes from there on count as damage.
    ``header``; ``damage``: what was wrong so far (at most 10,000 reports); ``samples``, ``frames``: length if known (a
    trailer is read when it is reached, in a file that can seek at once). Chunks that were lost come as ``damaged``
    ones, so that what follows keeps its place; a file that was cut ends where it was cut.
    """

    def __init__(self, file: BinaryIO, tables: Coder | None = None, cardinality: int | None = None) -> None:
        self._file, self._tables = file, tables
        self._seekable = file.seekable()
        base = file.tell() if self._seekable else 0
        self.damage: list[Damage] = []
        self._buffer = bytearray()
        self._ended = self._jumped = self._done = False
        self._read = getattr(file, "read1", file.read)  # what is there, not what is asked for: a pipe may be slow
        self._need(HEADER_BYTES)
        self.header = Header.from_bytes(bytes(self._buffer[:HEADER_BYTES]))
        self._shape = self.header.shape
        self._top = 1 << self.header.bits if cardinality is None else min(cardinality, 1 << self.header.bits)
        self._check = self._passed = self._lost = 0  # check sum and number of the bytes read; frames made up
        self._take(HEADER_BYTES)
        self._first = base + HEADER_BYTES  # where the first group stands
        self._expected = 0  # the frame that comes next
        self._skip_to = 0  # after seek: chunks that end at or before it are passed over
        self._last: np.ndarray | None = None
        self._fade = _SILENT_DB  # gain of the last chunk, or of its latest repetition
        self._end: tuple[int, int] | None = None  # frames in all and bytes passed over, once the trailer was reached
        self._trailer = self._find_trailer() if self._seekable else None
        self.frames = None if self._trailer is None else self._trailer.frames
        self.samples = self.header.samples if self._trailer is None else self._trailer.samples
        #: Rate and samples of the sound that was encoded, where its rate was not the codec's.
        self.source = None if self._trailer is None else self._trailer.source

    def __iter__(self) -> Iterator[Chunk]:
        while (found := self._next_group()) is not None:
            group, skipped = found
            yield from self._conceal(group.start, skipped)
            yield from self._chunks(group)
        if self._end is not None:
            yield from self._conceal(*self._end)

    def seek(self, frame: int) -> int:
        """Go to the chunk that holds ``frame`` and return the chunk's first frame; the file must be able to seek."""
        if not self._seekable:
            raise ValueError("this file cannot seek (a pipe?): read it from the beginning")
        if frame < 0 or (self.frames is not None and frame >= max(1, self.frames)):
            raise ValueError(f"frame {frame} lies outside the file, which has {self.frames} frames")
        points = self._trailer.points if self._trailer else ()
        at = bisect_right(points, (frame, 1 << 62)) - 1
        start, offset = points[at] if at >= 0 else (0, 0)
        while True:  # from the seek point on, over whole groups
            self._go(self._first + offset, start)
            group, length = self._group() or (None, 0)
            if group is None or group.start < start or group.end > frame:
                break
            start, offset = group.end, offset + length + group.body
        self._skip_to = frame
        for size in group.frames if group is not None and group.start == start else ():
            if start + size > frame:
                break
            start += size
        return start

    def _go(self, place: int, frame: int) -> None:
        """Go on reading at a byte of the file, where ``frame`` is expected."""
        self._file.seek(place)
        self._buffer.clear()
        self._ended = self._done = False
        self._jumped, self._end, self._lost = True, None, 0
        self._expected, self._skip_to = frame, 0
        self._last, self._fade = None, _SILENT_DB

    def _next_group(self) -> tuple[Group, int] | None:
        """The next believable group, its header taken from the buffer, and how many bytes before it made no sense."""
        skipped = 0
        while not self._done:
            found = self._group()
            if found is not None and self._believable(found[0].start):
                self._take(found[1])
                return found[0], skipped
            if self._buffer.startswith(TRAILER_SYNC):
                self._need(MAX_TRAILER)
                end = read_trailer(bytes(self._buffer[:MAX_TRAILER]))
                if end is not None:
                    self._finish(*end, skipped)
                    break
            if not self._buffer:
                self._cut(skipped)
                break
            # on to the next byte that may begin something; the last one may be half a sync word
            places = [at for sync in (GROUP_SYNC, TRAILER_SYNC) if (at := self._buffer.find(sync, 1)) > 0]
            step = min(places, default=len(self._buffer) if self._ended else max(1, len(self._buffer) - 1))
            self._take(step)
            skipped += step
        return None

    def _group(self) -> tuple[Group, int] | None:
        """The group header at the beginning of the buffer, which is left as it is."""
        for size in (32, MAX_GROUP_HEADER):  # a live stream may not have more to give yet
            self._need(size)
            found = read_group(bytes(self._buffer[:size]), self._shape)
            if found is not None:
                return found
        return None

    def _believable(self, frame: int) -> bool:
        """Whether the file may go on at ``frame``: what is made up must be in proportion to what was read."""
        return 0 <= frame - self._expected <= _MAX_GAP + _GAP_PER_BYTE * self._passed - self._lost

    def survey(self) -> Survey:
        """Go through the rest of the file without decoding: what is in it, and (``damage``) what is wrong with it."""
        chunks, lost, coders, books = 0, 0, set[int](), set[int]()
        while (found := self._next_group()) is not None:
            lost += sum(chunk.codes.shape[1] for chunk in self._conceal(found[0].start, found[1]))
            for start, frames, _, _ in self._sealed(found[0]):
                lost += sum(chunk.codes.shape[1] for chunk in self._conceal(start, 0))
                self._expected, chunks = start + frames, chunks + 1
            coders.add(found[0].coder)
            books.add(found[0].books)
        if self._end is not None:
            lost += sum(chunk.codes.shape[1] for chunk in self._conceal(*self._end))
        names = tuple(name for number, name in enumerate(("packed", "entropy", "adaptive")) if number in coders)
        return Survey(chunks=chunks, frames=self._expected, lost=lost, coders=names, books=tuple(sorted(books)))

    def _sealed(self, group: Group) -> list[tuple[int, int, int, bytes]]:
        """First frame, frames, gain and bytes of the chunks whose check sum is right.

        From the last of them on, the search for the next group begins: what was taken out or put in need not be as
        long as the header says.
        """
        self._need(group.body)
        data = bytes(self._buffer[: group.body])
        found = []
        start, at, good = group.start, 0, 0
        for size, frames, gain in zip(group.sizes, group.frames, group.gains, strict=True):
            body, at = data[at : at + size], at + size + 2
            if len(data) >= at and data[at - 2 : at] == seal(start, body):
                if start + frames > self._skip_to:
                    found.append((start, frames, gain, body))
                good = at
            start += frames
        self._take(good)
        return found

    def _chunks(self, group: Group) -> Iterator[Chunk]:
        """The group's good chunks, and stand-ins for those between them."""
        found = self._sealed(group)
        rows = self._decode(group, [row[3] for row in found], [row[1] for row in found])
        for (start, frames, gain, _), codes in zip(found, rows, strict=True):
            if codes is None or codes.max() >= self._top:
                continue  # a right check sum over wrong codes: concealed with what comes next
            yield from self._conceal(start, 0)
            self._expected = start + frames
            self._last, self._fade = codes, gain / 256
            yield Chunk(start, torch.from_numpy(codes), gain / 256)

    def _decode(self, group: Group, coded: list[bytes], frames: list[int]) -> list[np.ndarray | None]:
        """Codes of each chunk; one that is as long as if it were packed is packed, whatever its group says."""
        bits, books = self.header.bits, group.books
        pairs = list(zip(coded, frames, strict=True))
        packed = [len(body) == packed_size(books, length, bits) for body, length in pairs]
        mixed = [pair for pair, raw in zip(pairs, packed, strict=True) if not raw]
        decoded = iter(
            self._coder(group).decode([a for a, _ in mixed], books, [b for _, b in mixed], bits) if mixed else []
        )
        return [
            unpack(body, books, length, bits) if raw else next(decoded)
            for (body, length), raw in zip(pairs, packed, strict=True)
        ]

    def _coder(self, group: Group) -> Coder:
        if group.coder == ADAPTIVE:
            from .entropy import Adaptive

            return Adaptive()
        if self._tables is None or self._tables.mode != CONTEXT:
            raise BitstreamError("is entropy coded with tables of its codec; load the codec that wrote it, with tables")
        if self._tables.identity != group.tables:
            seen = f"{group.tables:08x}, these are {self._tables.identity:08x}"
            raise BitstreamError(f"is entropy coded with other tables ({seen}); load the codec that wrote it")
        return self._tables

    def _conceal(self, until: int, skipped: int) -> Iterator[Chunk]:
        """Stand-ins for the frames up to ``until``: what came before, repeated and fading."""
        start = max(self._expected, self._skip_to if self._last is None else 0)
        start = min(start, until) if self._expected < until else until
        if start < until:
            reason = f"damaged ({skipped} bytes passed over)" if skipped else "damaged or missing"
            self._note(start, until - start, reason)
        elif skipped:
            self._note(until, 0, f"{skipped} bytes that make no sense were passed over")
        self._lost += until - start
        while start < until:
            frames = min(self.header.chunk_frames, until - start)
            books = self.header.books if self._last is None else len(self._last)
            codes = np.zeros((books, frames), np.int64)
            if self._last is not None:
                codes[:] = self._last[:, np.arange(frames) % self._last.shape[1]]
            self._fade = max(self._fade - _FADE_DB, _SILENT_DB)
            yield Chunk(start, torch.from_numpy(codes), self._fade, damaged=True)
            start += frames
        self._expected = until

    def _note(self, start: int, frames: int, reason: str) -> None:
        """Add to the reports, or to the last one if this goes on where that ended; a hostile file fills no memory."""
        last = self.damage[-1] if self.damage else None
        if last is not None and last.frames and frames and last.start + last.frames == start:
            self.damage[-1] = Damage(last.start, last.frames + frames, last.reason)
        elif len(self.damage) < _MAX_REPORTS:
            self.damage.append(Damage(start, frames, reason))

    def _finish(self, trailer: Trailer, length: int, skipped: int) -> None:
        """The trailer stands at the beginning of the buffer."""
        self._done = True
        whole = not (self.damage or skipped or self._jumped)
        if whole and trailer.check != self._check:
            self._note(self._expected, 0, "the check sum of the whole file is wrong; some codes may be")
        del self._buffer[:length]
        self._need(1)
        if self._buffer:
            self._note(trailer.frames, 0, "there is something after the end; it was not read")
        if trailer.frames < self._expected or not self._believable(trailer.frames):
            seen = f"announces {trailer.frames} frames, but holds {self._expected}"
            self._note(self._expected, 0, seen)
            return
        self.frames, self.samples, self.source = trailer.frames, trailer.samples, trailer.source
        self._end = (trailer.frames, skipped)

    def _cut(self, skipped: int) -> None:
        """The file ends without a trailer."""
        self._done = True
        rest = f" and {skipped} bytes that make no whole chunk" if skipped else ""
        seen = f"ends early, after frame {self._expected}{rest}: it was cut off or never finished"
        self._note(self._expected, 0, seen)

    def _find_trailer(self) -> Trailer | None:
        """The trailer of a file that can seek; the place in it stays what it was."""
        place = self._file.tell()
        size = self._file.seek(0, 2)
        self._file.seek(max(self._first, size - MAX_TRAILER))
        tail = self._file.read(MAX_TRAILER)
        self._file.seek(place)
        at = tail.rfind(TRAILER_SYNC)
        while at >= 0:
            found = (
                read_trailer(tail[at:]) if int.from_bytes(tail[at + 2 : at + 4], "little") == len(tail) - at else None
            )
            if found is not None:
                return found[0]
            at = tail.rfind(TRAILER_SYNC, 0, at)
        return None

    def _need(self, count: int) -> None:
        """Have ``count`` bytes in the buffer, if the file has them."""
        while len(self._buffer) < count and not self._ended:
            data = self._read(_BLOCK)
            self._buffer += data
            self._ended = not data

    def _take(self, count: int) -> None:
        """Drop bytes from the beginning of the buffer."""
        self._check = zlib.crc32(self._buffer[:count], self._check)
        self._passed += count
        del self._buffer[:count]
