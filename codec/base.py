"""What our own codecs and EnCodec and DAC share: the public face, the checks of what comes in, the name."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from . import contract
from .contract import check_codes, check_wav


class Shape(Protocol):
    """What a codec's configuration says whatever is inside; their own classes explain the rest."""

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""

    @property
    def channels(self) -> int:
        """Channels of the audio."""

    @property
    def hop(self) -> int:
        """Samples per token frame."""

    @property
    def books(self) -> int:
        """Number of codebooks K."""

    @property
    def cardinality(self) -> int:
        """Codes per book V."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""


class CodecModule(nn.Module, ABC):
    """A codec that is a network: subclasses bring the arithmetic."""

    config: Shape
    #: Ends of the names of training statistics: part of the file, no part of what the codec computes.
    statistics: ClassVar[tuple[str, ...]] = ()
    #: Settings on which no code depends: a codec keeps its name, and its files their codec, when they change.
    playback: ClassVar[tuple[str, ...]] = ()

    @property
    def rate(self) -> int:
        """Sample rate in Hz."""
        return self.config.rate

    @property
    def channels(self) -> int:
        """Channels of the audio it takes and gives."""
        return self.config.channels

    @property
    def hop(self) -> int:
        """Samples per token frame."""
        return self.config.hop

    @property
    def books(self) -> int:
        """Number of codebooks K."""
        return self.config.books

    @property
    def cardinality(self) -> int:
        """Codes per book V."""
        return self.config.cardinality

    @property
    def frame_rate(self) -> float:
        """Token frames per second."""
        return self.config.rate / self.config.hop

    @property
    def fingerprint(self) -> bytes:
        """Sixteen bytes that name this very model; training statistics do not count."""
        config = {name: value for name, value in self.config.to_dict().items() if name not in self.playback}
        weights = {name: value for name, value in self.state_dict().items() if not name.endswith(self.statistics)}
        return contract.fingerprint({"family": type(self).__name__, **config}, weights)

    @abstractmethod
    def encode(self, wav: Tensor, books: int | None = None) -> Tensor:
        """wav: [B, C, T] at ``rate`` -> codes int64 [B, K, F], F = ceil(T / hop).

        books: how many books to compute (all by default). Raises ValueError on wrong shapes, emptiness, NaN.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K, F], K <= books -> wav [B, C, F * hop]. Raises ValueError on codes out of range."""

    @abstractmethod
    def encoder_stream(self, books: int | None = None) -> Any:
        """A fresh encoder that takes audio piece by piece."""

    @abstractmethod
    def decoder_stream(self) -> Any:
        """A fresh decoder that takes codes frame by frame."""

    @abstractmethod
    def save(self, folder: str | os.PathLike[str], format: str = "descant") -> None:  # noqa: A002 - the public name
        """Write the codec into a folder."""

    @abstractmethod
    def _latent(self, codes: Tensor) -> Tensor:
        # checked codes int64 [B, K, F] -> latent [B, F, D]
        ...

    @torch.no_grad()
    def decode_latent(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K, F], K <= books -> latent [B, F, D], what the decoder network sees.

        Raises ValueError on codes out of range.
        """
        codes = check_codes(codes, self, "decode")
        with torch.autocast(codes.device.type, enabled=False):
            return self._latent(codes)

    def _check(self, wav: Tensor) -> Tensor:
        return check_wav(wav, self.channels, "encode")
