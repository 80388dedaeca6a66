"""What a ``.dsc`` file says about itself, what comes out of it, and what can be wrong with it. See docs/format.md."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .groups import MAX_RATE, Shape
from .packing import MAX_BITS, MAX_BOOKS, MAX_FRAMES

if TYPE_CHECKING:
    from .contract import Codec

MAGIC = b"DSC\x01"
SUFFIX = ".dsc"
_HEADER = struct.Struct("<4s16sIBBBHHHQI")
_UNKNOWN = (1 << 64) - 1


class BitstreamError(ValueError):
    """A file that cannot be read; the message is one line that says what to do."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says about all of its chunks.

    fingerprint names the codec that made it; rate in Hz; hop in samples per frame; books at most; bits per book;
    samples per channel in all (None: not known when writing began, see the trailer); pre_skip: samples to drop from
    the beginning of the decoded sound; chunk_frames: frames of every chunk but the short ones.
    """

    fingerprint: bytes
    rate: int
    channels: int
    books: int
    bits: int
    hop: int
    samples: int | None = None
    pre_skip: int = 0
    chunk_frames: int = 125

    def __post_init__(self) -> None:
        if len(self.fingerprint) != 16:
            raise ValueError(f"a fingerprint has 16 bytes, got {len(self.fingerprint)}")
        limits = {
            "rate": (1, MAX_RATE), "channels": (1, 8), "books": (1, MAX_BOOKS), "bits": (1, MAX_BITS),
            "hop": (1, 65535), "pre_skip": (0, 65535), "chunk_frames": (1, MAX_FRAMES),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must lie in {low}..{high}, got {value!r}")
        if self.samples is not None and not 0 <= self.samples < _UNKNOWN:
            raise ValueError(f"samples must lie in 0..2^64 - 2 or be None, got {self.samples!r}")

    @staticmethod
    def of(codec: Codec, *, books: int | None = None, samples: int | None = None, pre_skip: int = 0) -> Header:
        """The header for files of ``codec``: chunks of about two and a half seconds."""
        return Header(
            fingerprint=codec.fingerprint, rate=codec.rate, channels=codec.channels,
            books=codec.books if books is None else books, bits=max(1, (codec.cardinality - 1).bit_length()),
            hop=codec.hop, samples=samples, pre_skip=pre_skip,
            chunk_frames=min(MAX_FRAMES, max(1, round(2.5 * codec.frame_rate))),
        )  # fmt: skip

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.hop

    @property
    def shape(self) -> Shape:
        """What group headers need to know."""
        return Shape(chunk_frames=self.chunk_frames, books=self.books, bits=self.bits)

    def to_bytes(self) -> bytes:
        """The 45 bytes at the beginning of a file."""
        samples = _UNKNOWN if self.samples is None else self.samples
        rest = (self.rate, self.channels, self.books, self.bits, self.hop, self.pre_skip, self.chunk_frames, samples)
        body = _HEADER.pack(MAGIC, self.fingerprint, *rest, 0)[:-4]
        return body + zlib.crc32(body).to_bytes(4, "little")

    @staticmethod
    def from_bytes(data: bytes) -> Header:
        """Inverse of :meth:`to_bytes`. Raises BitstreamError."""
        if data[:3] != MAGIC[:3]:
            raise BitstreamError("is no descant file (it does not begin with 'DSC'); name a .dsc file")
        if len(data) < _HEADER.size:
            raise BitstreamError(f"ends inside its header, after {len(data)} of {_HEADER.size} bytes; copy it again")
        if data[3] != MAGIC[3]:
            raise BitstreamError(f"has format version {data[3]}, this program reads version {MAGIC[3]}; update descant")
        _, fingerprint, rate, channels, books, bits, hop, skip, frames, samples, check = _HEADER.unpack(data)
        if zlib.crc32(data[: _HEADER.size - 4]) != check:
            raise BitstreamError("has a damaged header, without which nothing can be decoded; copy it again")
        try:
            return Header(
                fingerprint=fingerprint, rate=rate, channels=channels, books=books, bits=bits, hop=hop,
                samples=None if samples == _UNKNOWN else samples, pre_skip=skip, chunk_frames=frames,
            )  # fmt: skip
        except ValueError as error:
            raise BitstreamError(f"has an impossible header ({error}); encode it again") from None


HEADER_BYTES = _HEADER.size


@dataclass(frozen=True)
class Chunk:
    """Codes int64 [K, F] from frame ``start`` on; ``gain`` in dB belongs on the decoded sound.

    ``damaged``: the codes were lost; these are the ones before, repeated, and the gain fades.
    """

    start: int
    codes: Tensor
    gain: float = 0.0
    damaged: bool = False


@dataclass(frozen=True)
class Damage:
    """``frames`` frames from ``start`` on were lost (0: nothing audible was); ``reason`` in words."""

    start: int
    frames: int
    reason: str

    def __str__(self) -> str:
        return f"frames {self.start} to {self.start + self.frames}: {self.reason}" if self.frames else self.reason


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What is in a file: its good chunks, frames in all and those that were lost, coders and numbers of books used."""

    chunks: int
    frames: int
    lost: int
    coders: tuple[str, ...]
    books: tuple[int, ...]
