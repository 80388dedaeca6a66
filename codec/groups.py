"""The bytes of a ``.dsc`` file between its header and its end: group headers and the trailer. See docs/format.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from .packing import crc16, get_varint, packed_size, put_varint

GROUP_SYNC, TRAILER_SYNC = b"\xd5\xca", b"\xd5\xe0"
#: Codes that one group may hold: a bound on what a reader must hold.
MAX_GROUP_CODES = 1 << 20
#: Coders of a group: codes packed, the codec's context model, the adaptive model that needs no tables.
PACKED, CONTEXT, ADAPTIVE = 0, 1, 2
#: Highest sample rate in Hz.
MAX_RATE = 1_000_000
#: Longest trailer, in bytes.
MAX_TRAILER = 1 << 14
#: Longest group header: 255 gains of two bytes and sizes of three.
MAX_GROUP_HEADER = 8 + 1 + 2 + 2 + 32 + 255 * 2 + 4 + 255 * 3 + 2
_CODER, _CHANGES, _BOOKS, _SHORT, _GAIN = 3, 4, 8, 16, 32
_START = struct.Struct("<2sBBI")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What group headers leave to the file's header: frames of a full chunk, books, bits per book."""

    chunk_frames: int
    books: int
    bits: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group: its first frame, the frames of each of its chunks, and how they are coded.

    gains: of each chunk, in 1/256 dB (empty: all 0). tables names the context model. sizes: bytes of each chunk's
    codes; one equal to the packed size is packed.
    """

    start: int
    frames: tuple[int, ...]
    books: int
    coder: int = PACKED
    gains: tuple[int, ...] = ()
    tables: int = 0
    sizes: tuple[int, ...] = field(default=())

    @property
    def end(self) -> int:
        """The frame after the last."""
        return self.start + sum(self.frames)

    @property
    def body(self) -> int:
        """Bytes of all chunks and their check sums."""
        return sum(self.sizes) + 2 * len(self.sizes)

    def to_bytes(self, shape: Shape) -> bytes:
        """The group's header."""
        short = self.frames[-1] != shape.chunk_frames
        gains = self.gains or (0,) * len(self.frames)
        changes = [i for i in range(1, len(gains)) if gains[i] != gains[i - 1]]
        flags = self.coder | bool(changes) * _CHANGES | (self.books != shape.books) * _BOOKS | short * _SHORT
        flags |= (gains[0] != 0) * _GAIN
        out = bytearray(_START.pack(GROUP_SYNC, flags, len(self.frames), self.start))
        if flags & _BOOKS:
            out.append(self.books)
        if short:
            out += self.frames[-1].to_bytes(2, "little")
        if flags & _GAIN:
            out += gains[0].to_bytes(2, "little", signed=True)
        if flags & _CHANGES:
            out += sum(1 << i for i in changes).to_bytes((len(gains) + 7) // 8, "little")
            for i in changes:
                out += gains[i].to_bytes(2, "little", signed=True)
        if self.coder == CONTEXT:
            out += self.tables.to_bytes(4, "little")
        if self.coder != PACKED:
            for size in self.sizes:
                out += put_varint(size)
        return bytes(out) + crc16(bytes(out)).to_bytes(2, "little")


def read_group(data: bytes, shape: Shape) -> tuple[Group, int] | None:
    """The group whose header stands at the beginning of ``data``, and the header's length; None where none does."""
    if len(data) < _START.size + 2 or data[:2] != GROUP_SYNC:
        return None
    _, flags, count, start = _START.unpack_from(data)
    coder, at = flags & _CODER, _START.size
    books, last, gain, tables, sizes = shape.books, shape.chunk_frames, 0, 0, []
    gains: tuple[int, ...] = ()
    if flags >= 2 * _GAIN or coder > ADAPTIVE or count == 0:
        return None
    try:
        if flags & _BOOKS:
            books, at = data[at], at + 1
        if flags & _SHORT:
            last, at = int.from_bytes(data[at : at + 2], "little"), at + 2
        if flags & _GAIN:
            gain, at = int.from_bytes(data[at : at + 2], "little", signed=True), at + 2
        gains = (gain,) * count
        if flags & _CHANGES:
            gains, at = _read_gains(data, at, gain, count)
        if coder == CONTEXT:
            tables, at = int.from_bytes(data[at : at + 4], "little"), at + 4
        frames = (shape.chunk_frames,) * (count - 1) + (last,)
        full = [packed_size(books, length, shape.bits) for length in frames]
        if coder == PACKED:
            sizes = full
        else:
            for limit in full:
                size, at = get_varint(data, at, limit)
                sizes.append(size)
    except (ValueError, IndexError):
        return None
    if len(data) < at + 2 or crc16(data[:at]) != int.from_bytes(data[at : at + 2], "little"):
        return None
    # the check sum is right, but whoever wrote it may have meant harm
    fits = 1 <= books <= shape.books and 1 <= last <= shape.chunk_frames and min(sizes) > 0
    if not fits or sum(frames) * books > MAX_GROUP_CODES or start + sum(frames) > 1 << 32:
        return None
    group = Group(start=start, frames=frames, books=books, coder=coder, gains=gains, tables=tables,
                  sizes=tuple(sizes))  # fmt: skip
    return group, at + 2


def _read_gains(data: bytes, at: int, gain: int, count: int) -> tuple[tuple[int, ...], int]:
    """The gains of all chunks, where some differ from the one before -> (gains, place after them)."""
    size = (count + 7) // 8
    changed, at = int.from_bytes(data[at : at + size], "little"), at + size
    gains = []
    for i in range(count):
        if changed >> i & 1:
            gain, at = int.from_bytes(data[at : at + 2], "little", signed=True), at + 2
        gains.append(gain)
    return tuple(gains), at


def seal(start: int, body: bytes) -> bytes:
    """The check sum of a chunk: over its first frame's number and its bytes, so that it fits nowhere else."""
    return crc16(body, crc16(start.to_bytes(4, "little"))).to_bytes(2, "little")


@dataclass(frozen=True, kw_only=True)
class Trailer:
    """The end of a file: samples and frames in all, seek points (frames, bytes from the first group), a CRC-32.

    source: rate in Hz and samples per channel of the sound that was encoded, where its rate was not the codec's.
    """

    samples: int
    frames: int
    points: tuple[tuple[int, int], ...] = ()
    source: tuple[int, int] | None = None
    check: int

    def to_bytes(self) -> bytes:
        """The trailer."""
        out = put_varint(self.samples) + put_varint(self.frames) + put_varint(len(self.points))
        frame = offset = 0
        for point in self.points:
            out += put_varint(point[0] - frame) + put_varint(point[1] - offset)
            frame, offset = point
        if self.source is not None:
            out += put_varint(self.source[0]) + put_varint(self.source[1])
        out += self.check.to_bytes(4, "little")
        out = TRAILER_SYNC + (len(out) + 6).to_bytes(2, "little") + out
        return out + crc16(out).to_bytes(2, "little")


def read_trailer(data: bytes) -> tuple[Trailer, int] | None:
    """The trailer at the beginning of ``data`` and its length; None where none stands or it is damaged."""
    size = int.from_bytes(data[2:4], "little")
    if data[:2] != TRAILER_SYNC or not 13 <= size <= min(MAX_TRAILER, len(data)):
        return None
    data = data[:size]
    if crc16(data[:-2]) != int.from_bytes(data[-2:], "little"):
        return None
    check, data = int.from_bytes(data[-6:-2], "little"), data[:-6]
    try:
        samples, at = get_varint(data, 4, (1 << 64) - 2)
        frames, at = get_varint(data, at, 1 << 32)
        count, at = get_varint(data, at, MAX_TRAILER)
        points, frame, offset = [], 0, 0
        for _ in range(count):
            step, at = get_varint(data, at, 1 << 32)
            more, at = get_varint(data, at, 1 << 48)
            frame, offset = frame + step, offset + more
            points.append((frame, offset))
        source = None
        if at < len(data):
            rate, at = get_varint(data, at, MAX_RATE)
            length, at = get_varint(data, at, (1 << 64) - 2)
            source = (rate, length)
    except ValueError:
        return None
    if at != len(data) or (source is not None and source[0] == 0):
        return None
    return Trailer(samples=samples, frames=frames, points=tuple(points), source=source, check=check), size
