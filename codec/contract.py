"""What every codec offers, whatever is inside: the contract that streams, files, recipes and models rely on.

Letters: B batch, C channels, T samples, F token frames, K codebooks, D width of the latent.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

#: Bytes of a fingerprint.
FINGERPRINT_BYTES = 16


@runtime_checkable
class Codec(Protocol):
    """A codec: samples to whole numbers and back. :func:`descant.codec.load` returns one.

    A codec is deterministic: the same samples give the same codes and the same codes the same samples.
    """

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def channels(self) -> int:
        """Channels of the audio it takes and gives."""

    @property
    def hop(self) -> int:
        """Samples per token frame."""

    @property
    def books(self) -> int:
        """Number of codebooks K; fewer may be asked of :meth:`encode` and given to :meth:`decode`."""

    @property
    def cardinality(self) -> int:
        """Codes per book V: codes lie in 0..V - 1."""

    @property
    def frame_rate(self) -> float:
        """Token frames per second: rate / hop."""

    @property
    def fingerprint(self) -> bytes:
        """Sixteen bytes that name this very model, see :func:`fingerprint`: codes are readable by no other."""

    def encode(self, wav: Tensor, books: int | None = None) -> Tensor:
        """wav: [B, C, T] at ``rate`` -> codes int64 [B, K, F], F = ceil(T / hop); books: how many (None: all)."""

    def decode(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K, F], 1 <= K <= ``books`` -> wav [B, C, F * hop]."""

    def decode_latent(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K, F] -> latent [B, F, D], what the decoder network sees."""

    def encoder_stream(self, books: int | None = None) -> Any:
        """A fresh stateful encoder, see :mod:`descant.codec.stream`."""

    def decoder_stream(self) -> Any:
        """A fresh stateful decoder, see :mod:`descant.codec.stream`."""

    def save(self, folder: str | os.PathLike[str], format: str = "descant") -> None:  # noqa: A002 - the public name
        """Write the codec into a folder; format: ``"descant"`` or ``"transformers"`` where that library has it."""


@dataclass(frozen=True)
class Segment:
    """One separately normalised stretch of a signal: codes int64 [B, K, F]; scale [B], the level it decodes to."""

    codes: Tensor
    scale: Tensor


@runtime_checkable
class SegmentedCodec(Codec, Protocol):
    """A codec that cuts its input into overlapping segments and normalises each one (EnCodec 48 kHz)."""

    def segments(self, wav: Tensor, books: int | None = None) -> list[Segment]:
        """wav: [B, C, T] -> its segments in order, each with codes [B, K, F] and scale [B]."""

    def from_segments(self, segments: list[Segment], length: int) -> Tensor:
        """Segments of a signal of ``length`` samples -> wav [B, C, length], overlapped and added."""


def check_wav(wav: Tensor, channels: int, who: str, empty: bool = False) -> Tensor:
    """Return wav [B, C, T] in float32. Raises ValueError for what no codec takes; empty: whether T may be 0."""
    if wav.dim() != 3 or wav.shape[1] != channels or wav.shape[0] == 0:
        length = "n" if empty else "T"
        seen = list(wav.shape)
        raise ValueError(f"{who} wants [B, {channels}, {length}] samples, got {seen}: mix or reshape first")
    if wav.shape[-1] == 0 and not empty:
        raise ValueError(f"{who} got no samples")
    wav = wav.float()
    if not torch.isfinite(wav).all():
        raise ValueError(f"{who} got NaN or infinite samples: clean the audio first")
    return wav


def check_codes(codes: Tensor, codec: Codec, who: str, empty: bool = False) -> Tensor:
    """Return codes [B, K, F] as int64. Raises ValueError for what ``codec`` cannot have made; empty: F may be 0."""
    fits = codes.dim() == 3 and codes.shape[0] and 1 <= codes.shape[1] <= codec.books
    if not fits or (codes.shape[2] == 0 and not empty):
        lengths = "n" if empty else "F >= 1"
        raise ValueError(f"{who} wants codes [B >= 1, 1..{codec.books}, {lengths}], got {list(codes.shape)}")
    if codes.is_floating_point() or codes.dtype == torch.bool:
        raise ValueError(f"{who} wants whole numbers, got {codes.dtype}")
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codec.cardinality:
        seen = f"{int(codes.min())}..{int(codes.max())}"
        raise ValueError(f"codes must lie in 0..{codec.cardinality - 1}, got {seen}")
    return codes.long()


def count_books(books: int | None, most: int) -> int:
    """``books`` or all ``most`` of them. Raises ValueError when there are not that many."""
    count = most if books is None else books
    if not 1 <= count <= most:
        raise ValueError(f"books must lie in 1..{most}, got {books}")
    return count


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Sixteen bytes of SHA-256 over a configuration (JSON, sorted keys) and weights (sorted names, shapes, bytes).

    Weights are taken as they are stored, before anything is derived from them: what is derived may differ in the last
    bit from machine to machine. A tensor stored in half precision counts with the float32 values it stands for, so a
    codec keeps its name when its file is rewritten in another precision that loses nothing.
    """
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        value = value.float() if value.is_floating_point() else value
        digest.update(f"\0{name}\0{list(value.shape)}\0{str(value.dtype).removeprefix('torch.')}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.digest()[:FINGERPRINT_BYTES]
