"""Files of the ``encodec`` package, ``.ecdc``, in raw mode: read and written byte for byte as it does.

A big-endian header with JSON, then segment after segment: a float32 scale where the model normalises (48 kHz), and
codes of ten bits, frame after frame, book after book, lowest bit first, padded to a byte. The format has no check sum,
so a damaged file may well be read. Its other mode runs a language model in floating point and decodes only on machines
that round alike; it is refused. (Défossez et al., High Fidelity Neural Audio Compression, 2022; the package's
``compress.py`` and ``binary.py`` are the definition.)
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from .contract import Segment, SegmentedCodec
from .header import BitstreamError
from .packing import pack, packed_size, unpack

if TYPE_CHECKING:
    from .contract import Codec

MAGIC = b"ECDC"
SUFFIX = ".ecdc"
BITS = 10
_HEAD = struct.Struct("!4sBI")
_META = 4096  # longest JSON that is believed; the package writes about 60 bytes
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a model name stands for: rate, channels, samples per frame, books, samples per segment and between them."""

    rate: int
    channels: int
    hop: int
    books: int
    segment: int | None = None
    stride: int | None = None


KINDS = {
    "encodec_24khz": Kind(rate=24000, channels=1, hop=320, books=32),
    "encodec_48khz": Kind(rate=48000, channels=2, hop=320, books=16, segment=48000, stride=47520),
}


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a file holds: ``model``, ``samples`` per channel, codes int64 [K, F] of each segment, and their scales."""

    model: str
    samples: int
    codes: tuple[Tensor, ...]
    scales: tuple[float, ...] = ()

    @property
    def kind(self) -> Kind:
        """Geometry of the model."""
        return KINDS[self.model]


def lengths(model: str, samples: int) -> Iterator[int]:
    """Frames of each segment of a recording, one after the other: a header may announce any number."""
    kind = KINDS[model]
    for at in range(0, samples, kind.stride or samples):
        yield -(-min(samples - at, kind.segment or samples) // kind.hop)


def write(file: BinaryIO, recording: Recording) -> None:
    """Write a recording as the package's ``compress(..., use_lm=False)`` does. Raises ValueError for what cannot be."""
    wanted = list(lengths(_known(recording.model), recording.samples))
    books = {len(codes) for codes in recording.codes}
    normalised = recording.kind.segment is not None
    if [codes.shape[-1] for codes in recording.codes] != wanted or len(books) != 1:
        seen = [list(codes.shape) for codes in recording.codes[:3]]
        raise ValueError(f"{recording.samples} samples of {recording.model} have {wanted[:3]}... frames, got {seen}...")
    if not 1 <= min(books) <= recording.kind.books or len(recording.scales) != len(wanted) * normalised:
        raise ValueError(
            f"{recording.model} has 1 to {recording.kind.books} books and {'a' if normalised else 'no'} scale"
        )
    meta = {"m": recording.model, "al": recording.samples, "nc": min(books), "lm": False}
    data = json.dumps(meta).encode()
    file.write(_HEAD.pack(MAGIC, 0, len(data)) + data)
    for index, codes in enumerate(recording.codes):
        if codes.min() < 0 or codes.max() >= 1 << BITS:
            raise ValueError(f"codes must lie in 0..1023, got {int(codes.min())}..{int(codes.max())}")
        if normalised:
            file.write(struct.pack("!f", recording.scales[index]))
        file.write(pack(codes.cpu().numpy(), BITS))


def read(file: BinaryIO) -> Recording:
    """Read a raw-mode file. Raises BitstreamError for anything else; memory grows with the bytes that are there."""
    head = file.read(_HEAD.size)
    if head[:4] != MAGIC:
        raise BitstreamError("is no .ecdc file (it does not begin with 'ECDC')")
    if len(head) < _HEAD.size:
        raise BitstreamError("ends inside its header; copy it again")
    _, version, size = _HEAD.unpack(head)
    if version != 0 or size > _META:
        raise BitstreamError(f"has .ecdc version {version} and a header of {size} bytes; only version 0 is known")
    model, samples, books = _meta(_exactly(file, size))
    codes, scales = [], []
    for frames in lengths(model, samples):
        if KINDS[model].segment is not None:
            (scale,) = struct.unpack("!f", _exactly(file, 4))
            if not (math.isfinite(scale) and scale > 0):
                raise BitstreamError(f"has a segment scaled by {scale}; it is damaged, encode it again")
            scales.append(scale)
        data = _exactly(file, packed_size(books, frames, BITS))
        codes.append(torch.from_numpy(unpack(data, books, frames, BITS)))
    if file.read(1):
        raise BitstreamError(f"goes on after its announced {samples} samples; its header is damaged, encode it again")
    return Recording(model=model, samples=samples, codes=tuple(codes), scales=tuple(scales))


def of_wav(codec: Codec, wav: Tensor, books: int | None = None) -> Recording:
    """Encode wav [1, C, T] with EnCodec of 24 or 48 kHz."""
    model = _model_of(codec)
    if isinstance(codec, SegmentedCodec) and KINDS[model].segment is not None:
        segments = codec.segments(wav, books)
        scales = tuple(float(segment.scale[0]) for segment in segments)
        return Recording(model=model, samples=wav.shape[-1], codes=tuple(s.codes[0] for s in segments), scales=scales)
    return Recording(model=model, samples=wav.shape[-1], codes=(codec.encode(wav, books)[0],))


def to_wav(codec: Codec, recording: Recording) -> Tensor:
    """Decode a recording with the codec that made it -> wav [1, C, samples]."""
    if _model_of(codec) != recording.model:
        raise ValueError(f"this file needs the weights of {recording.model}: name them with --model")
    if isinstance(codec, SegmentedCodec) and recording.scales:
        pairs = zip(recording.codes, recording.scales, strict=True)
        segments = [Segment(codes[None], torch.tensor([scale])) for codes, scale in pairs]
        return codec.from_segments(segments, recording.samples)
    return codec.decode(recording.codes[0][None])[..., : recording.samples]


def _model_of(codec: Codec) -> str:
    for name, kind in KINDS.items():
        segmented = isinstance(codec, SegmentedCodec) == (kind.segment is not None)
        if (codec.rate, codec.channels, codec.hop) == (kind.rate, kind.channels, kind.hop) and segmented:
            return name
    raise ValueError(f".ecdc files hold EnCodec of 24 or 48 kHz, not a codec of {codec.rate} Hz and hop {codec.hop}")


def _known(model: object) -> str:
    if not isinstance(model, str) or model not in KINDS:
        raise ValueError(f"unknown model {str(model)[:40]!r}; .ecdc files are of {', '.join(KINDS)}")
    return model


def _meta(data: bytes) -> tuple[str, int, int]:
    """The JSON of the header -> model, samples, books."""
    try:
        meta: Any = json.loads(data)
        if not isinstance(meta, dict):
            raise ValueError("it is no mapping")
        model, samples, books, lm = (meta.get(name) for name in ("m", "al", "nc", "lm"))
        name = _known(model)
        if lm is not False:
            raise BitstreamError(
                "is coded with EnCodec's language model, which decodes only on the machine that wrote it; "
                "decode it there with the encodec package, or encode again without the language model"
            )
        return name, _within(samples, 1 << 40), _within(books, KINDS[name].books)
    except BitstreamError:
        raise
    except (ValueError, RecursionError) as error:
        raise BitstreamError(f"has a header that says nothing useful ({str(error)[:120]}); copy it again") from None


def _within(value: Any, limit: int) -> int:
    if type(value) is not int or not 1 <= value <= limit:
        raise ValueError(f"{str(value)[:40]} is not in 1..{limit}")
    return value


def _exactly(file: BinaryIO, size: int) -> bytes:
    """``size`` bytes, asked for piece by piece, so that a lie about the size costs nothing."""
    parts, left = [], size
    while left:
        data = file.read(min(left, _BLOCK))
        if not data:
            raise BitstreamError("ends early; copy it again")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)
