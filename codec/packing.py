"""Whole numbers to bytes and back: bit packing, variable-length integers, check sums.

Everything here works on Python integers and numpy arrays and is the same on every machine. Letters: K codebooks,
F frames.
"""

from __future__ import annotations

from binascii import crc_hqx

import numpy as np

#: Hard limits of the file format, checked before anything is allocated.
MAX_BITS, MAX_BOOKS, MAX_FRAMES = 14, 64, 4096
_BLOCK = 1 << 16  # codes per step, a multiple of eight


def packed_size(books: int, frames: int, bits: int) -> int:
    """Bytes that ``books`` x ``frames`` codes of ``bits`` bits fill, the last byte padded."""
    return (books * frames * bits + 7) // 8


def pack(codes: np.ndarray, bits: int) -> bytes:
    """Codes [K, F] in 0..2^bits - 1 to bytes: frame after frame, book after book, least significant bit first."""
    flat, out = np.ascontiguousarray(codes.T).reshape(-1, 1), []
    for at in range(0, len(flat), _BLOCK):
        part = flat[at : at + _BLOCK] >> np.arange(bits) & 1
        out.append(np.packbits(part.astype(np.uint8), bitorder="little").tobytes())
    return b"".join(out)


def unpack(data: bytes, books: int, frames: int, bits: int) -> np.ndarray:
    """The inverse of :func:`pack`: codes int64 [K, F]. ``data`` must hold ``packed_size`` bytes."""
    count = books * frames
    flat, raw = np.empty(count, np.int64), np.frombuffer(data, np.uint8)
    for at in range(0, count, _BLOCK):  # bit by bit costs ten times the memory: block by block
        size = min(_BLOCK, count - at)
        part = np.unpackbits(raw[at * bits // 8 :][: bits * _BLOCK // 8], count=size * bits, bitorder="little")
        flat[at : at + size] = part.reshape(size, bits) @ (1 << np.arange(bits))
    return np.ascontiguousarray(flat.reshape(frames, books).T)


def crc16(data: bytes, seed: int = 0xFFFF) -> int:
    """CRC-16/IBM-3740: polynomial 0x1021, start 0xFFFF, not reflected. ``seed`` goes on from an earlier part."""
    return crc_hqx(data, seed)


def put_varint(value: int) -> bytes:
    """A number >= 0 in groups of seven bits, the lowest first; the top bit says that more follow (LEB128)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def get_varint(data: bytes, at: int, limit: int) -> tuple[int, int]:
    """Read a number from ``data[at:]`` -> (number, place after it). Raises ValueError past ``limit`` or the end."""
    value = 0
    for index in range(10):
        if at >= len(data):
            raise ValueError("ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value > limit:
                raise ValueError(f"a number of {value}, at most {limit}")
            return value, at
    raise ValueError("a number of more than ten bytes")
