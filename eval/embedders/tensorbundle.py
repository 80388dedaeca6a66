"""TensorFlow's checkpoints (V2 bundles) read without TensorFlow: tensors by name, nothing executed, all bounds checked.

A bundle is an ``.index`` beside ``.data-00000-of-00001``. The index is a sorted string table in LevelDB's format (its
doc/table_format.md) from tensor names to ``BundleEntryProto`` (tensorflow/core/protobuf/tensor_bundle.proto), the data
the tensors' bytes one after another. Only the tensors asked for are read. Every block and every tensor carries a
CRC-32C (Castagnoli; RFC 3720, appendix B.4) in LevelDB's masked form, and all of them that are read are checked.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

#: Bytes an index may have; those of models with a thousand tensors have 50 000.
INDEX_LIMIT = 4 << 20
_KEY_LIMIT = 4096
_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}
#: Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where a tensor lies."""

    dtype: str
    """Of numpy, little-endian."""
    shape: tuple[int, ...]
    offset: int
    size: int
    """Bytes."""
    crc: int
    """Masked CRC-32C of the bytes."""


def read(index: bytes, data: BinaryIO, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Tensors by name, from the bytes of an index and its data file, which must be able to seek.

    Raises ValueError in one line for a name that is not there and for anything damaged or out of bounds.
    """
    found = entries(index, names)
    length = data.seek(0, 2)
    out = {}
    # in the order of the file: seeking back in a compressed archive starts over
    for name in sorted(found, key=lambda key: found[key].offset):
        entry = found[name]
        if entry.offset + entry.size > length:
            raise ValueError(f"{name} ends at byte {entry.offset + entry.size} of {length}: the data file is cut short")
        data.seek(entry.offset)
        content = data.read(entry.size)
        if len(content) != entry.size:
            raise ValueError(f"{name} has {len(content)} of its {entry.size} bytes: the data file is cut short")
        if _masked(crc32c(content)) != entry.crc:
            raise ValueError(f"the checksum of {name} does not fit: the data file is damaged, fetch it again")
        out[name] = np.frombuffer(content, entry.dtype).reshape(entry.shape)
    return out


def entries(index: bytes, names: Iterable[str]) -> dict[str, Entry]:
    """Entries of the tensors ``names``; the index is walked whole. Raises ValueError like :func:`read`."""
    wanted = {name.encode() for name in names}
    found: dict[str, Entry] = {}
    header = False
    for key, value in _items(index):
        if not header:
            _check_header(key, value)
            header = True
        elif key in wanted:
            name = key.decode()
            found[name] = _entry(name, value)
    if not header:
        raise ValueError("the index is empty: it is of no checkpoint")
    missing = sorted(wanted - {name.encode() for name in found})
    if missing:
        some = ", ".join(name.decode() for name in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(f"the checkpoint has no {some}: is it of another model?")
    return found


def crc32c(data: bytes) -> int:
    """CRC-32C of some bytes, unmasked: ``crc32c(b"123456789") == 0xE3069283``."""
    # side by side: the bytes are cut in lanes that advance together, then each is shifted past those that follow
    lanes = max(1, math.isqrt(len(data)))
    width = len(data) // lanes
    table = _table()
    rows = np.frombuffer(data, np.uint8, lanes * width).reshape(lanes, width)
    state = np.zeros(lanes, np.uint32)
    for column in np.ascontiguousarray(rows.T):
        state = table[(state ^ column) & 0xFF] ^ (state >> np.uint32(8))
    # what `width` zero bytes do to a state is linear: enough to know it for each of its four bytes
    shift = (np.arange(256, dtype=np.uint32) << np.arange(0, 32, 8, dtype=np.uint32)[:, None]).reshape(-1)
    for _ in range(width):
        shift = table[shift & 0xFF] ^ (shift >> np.uint32(8))
    moved = shift.tolist()
    total = 0xFFFFFFFF
    for lane in state.tolist():
        total = (
            moved[total & 0xFF]
            ^ moved[256 + (total >> 8 & 0xFF)]
            ^ moved[512 + (total >> 16 & 0xFF)]
            ^ moved[768 + (total >> 24)]
            ^ lane
        )
    steps = table.tolist()
    for byte in data[lanes * width :]:
        total = steps[(total ^ byte) & 0xFF] ^ (total >> 8)
    return int(total ^ 0xFFFFFFFF)


@functools.lru_cache(maxsize=1)
def _table() -> NDArray[np.uint32]:
    state = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        state = (state >> np.uint32(1)) ^ np.where(state & 1, np.uint32(0x82F63B78), np.uint32(0))
    return state


def _masked(crc: int) -> int:
    """LevelDB's mask, so that a checksum of checksums is none."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _items(index: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the table, in strictly rising order of keys."""
    if not _FOOTER <= len(index) <= INDEX_LIMIT:
        raise ValueError(f"an index of {len(index)} bytes, allowed are {_FOOTER} to {INDEX_LIMIT}: name an .index file")
    if struct.unpack("<Q", index[-8:])[0] != _MAGIC:
        raise ValueError("the index does not end as TensorFlow's do: it is cut short or no checkpoint of version 2")
    footer = index[-_FOOTER:-8]
    place = 0
    handles = []
    for _ in range(4):
        number, place = _varint(footer, place)
        handles.append(number)
    body = index[:-_FOOTER]
    last: bytes | None = None
    for _, handle in _block(body, handles[2], handles[3]):
        offset, place = _varint(handle, 0)
        size, _ = _varint(handle, place)
        for key, value in _block(body, offset, size):
            # strictly rising: also what stops a block from being walked twice
            if last is not None and key <= last:
                raise ValueError("the names of the index are out of order: it is damaged, fetch it again")
            last = key
            yield key, value


def _block(body: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block, keys put together from what they share with the one before."""
    end = offset + size
    if end + 5 > len(body) or size < 4:
        raise ValueError(f"a block of {size} bytes at {offset} of {len(body)}: the index is damaged, fetch it again")
    if body[end] != 0:
        raise ValueError(f"the index is compressed (type {body[end]}), as TensorFlow's never are: fetch it again")
    if _masked(crc32c(body[offset : end + 1])) != struct.unpack_from("<I", body, end + 1)[0]:
        raise ValueError("a checksum of the index does not fit: it is damaged, fetch it again")
    block = body[offset:end]
    restarts = struct.unpack_from("<I", block, size - 4)[0]
    stop = size - 4 - 4 * restarts
    if stop < 0:
        raise ValueError(f"a block with {restarts} restarts in {size} bytes: the index is damaged, fetch it again")
    place, key = 0, b""
    while place < stop:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or shared + fresh > _KEY_LIMIT or place + fresh + length > stop:
            raise ValueError(f"an entry at byte {place} leaves its block: the index is damaged, fetch it again")
        key = key[:shared] + block[place : place + fresh]
        place += fresh
        yield key, block[place : place + length]
        place += length


def _check_header(key: bytes, value: bytes) -> None:
    """BundleHeaderProto, under the empty name: one file of data, little-endian."""
    if key:
        raise ValueError("the index has no header: it is of no checkpoint")
    fields = _fields(value)
    shards, big = _number(fields, 1), _number(fields, 2)
    if shards != 1 or big:
        raise ValueError(f"{shards} data files, {'big' if big else 'little'}-endian: need one, little-endian")


def _entry(name: str, value: bytes) -> Entry:
    """BundleEntryProto."""
    fields = _fields(value)
    if 7 in fields:
        raise ValueError(f"{name} is stored in slices: save the model in one piece")
    code = _number(fields, 1)
    if code not in _DTYPES:
        raise ValueError(f"{name} is of TensorFlow's type {code}; allowed are {', '.join(map(str, _DTYPES))}")
    shape = _shape(name, _bytes(fields, 2))
    offset, size = _number(fields, 4), _number(fields, 5)
    need = math.prod(shape) * np.dtype(_DTYPES[code]).itemsize
    if size != need or _number(fields, 3) != 0:
        raise ValueError(f"{name} of shape {shape} has {size} bytes, not {need}: the index is damaged, fetch it again")
    return Entry(dtype=_DTYPES[code], shape=shape, offset=offset, size=size, crc=_number(fields, 6))


def _shape(name: str, value: bytes) -> tuple[int, ...]:
    """TensorShapeProto."""
    fields = _fields(value)
    sizes = []
    for item in fields.get(2, []):
        if not isinstance(item, bytes):
            raise ValueError(f"{name} has a damaged shape: fetch the checkpoint again")
        sizes.append(_number(_fields(item), 1))
    # a negative or absurd size comes as a varint of 64 bits
    if len(sizes) > 8 or max(sizes, default=0) >= 1 << 31 or _number(fields, 3):
        raise ValueError(f"{name} has the shape {tuple(sizes[:8])}: need at most 8 known dimensions below 2^31")
    return tuple(sizes)


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a protocol buffer by number: integers, or the bytes of strings and messages."""
    out: dict[int, list[int | bytes]] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, place = _varint(message, place)
        elif kind in (_BYTES, _FIXED32, _FIXED64):
            size = {_FIXED32: 4, _FIXED64: 8}.get(kind, 0)
            if kind == _BYTES:
                size, place = _varint(message, place)
            if place + size > len(message):
                raise ValueError("a field leaves its message: the index is damaged, fetch it again")
            value = message[place : place + size]
            value = value if kind == _BYTES else int.from_bytes(value, "little")
            place += size
        else:
            raise ValueError(f"a field of wire type {kind}: the index is damaged, fetch it again")
        out.setdefault(tag >> 3, []).append(value)
    return out


def _number(fields: dict[int, list[int | bytes]], number: int) -> int:
    """The last value of an integer field, 0 when absent, as protocol buffers have it."""
    value = fields.get(number, [0])[-1]
    if isinstance(value, bytes):
        raise ValueError(f"field {number} is no number: the index is damaged, fetch it again")
    return value


def _bytes(fields: dict[int, list[int | bytes]], number: int) -> bytes:
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is no message: the index is damaged, fetch it again")
    return value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A base-128 number of at most 64 bits at ``place``, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if number >> 64:
                break
            return number, place
    raise ValueError("a number runs out of its bytes: the index is damaged, fetch it again")
