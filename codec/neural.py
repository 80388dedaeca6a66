"""What EnCodec and DAC share beyond :mod:`descant.codec.base`: training, streams, files, half precision."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from .base import CodecModule
from .euclid import EuclideanRVQ, FactorisedRVQ
from .official import DacConfig, EncodecConfig
from .rvq import Quantised

if TYPE_CHECKING:
    from .chunked import ChunkedDecoder, ChunkedEncoder

T = TypeVar("T")
Self = TypeVar("Self", bound="NeuralCodec")


class NeuralCodec(CodecModule):
    """A codec with an encoder, a residual quantiser and a decoder that carry the names of published files."""

    config: EncodecConfig | DacConfig
    statistics = (".inited", ".cluster_size", ".embed_avg")
    encoder: nn.Module
    decoder: nn.Module
    quantizer: EuclideanRVQ | FactorisedRVQ

    def __init__(self) -> None:
        super().__init__()
        self.bf16 = False
        self._cache: dict[str, tuple[object, Any]] = {}

    @property
    def quantiser(self) -> EuclideanRVQ | FactorisedRVQ:
        """The books, as the training recipe calls them; files say ``quantizer``."""
        return self.quantizer

    @property
    def fingerprint(self) -> bytes:
        """Sixteen bytes that name this very model; training statistics do not count."""
        return self._cached("fingerprint", lambda: super(NeuralCodec, self).fingerprint)

    def books_for(self, kbps: float) -> int:
        """How many books ``kbps`` pays for. Raises ValueError when that is none, or more than there are."""
        each = self.frame_rate * math.log2(self.cardinality) / 1000
        books = math.floor(kbps / each + 1e-6)
        if not 1 <= books <= self.books:
            raise ValueError(
                f"{kbps} kbps is not to be had: one book costs {each:.3g} kbps and there are {self.books} "
                f"({self.books * each:.4g} kbps); ask for something between"
            )
        return books

    def to_bf16(self: Self) -> Self:
        """Compute the networks in bfloat16 from now on (faster, codes may differ); the lookup stays float32."""
        self.bf16 = True
        return self

    def _latent(self, codes: Tensor) -> Tensor:
        return self.quantizer.decode(codes)

    def forward(
        self, wav: Tensor, keep: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Quantised | None]:
        """Training pass. wav: [B, C, T], T a multiple of hop; keep: [B] books per item, None = no quantisation.

        Returns the reconstruction [B, C, T] and the quantiser's result.
        """
        latent = self.encoder(wav)
        if keep is None:
            return self.decoder(latent), None
        with torch.autocast(wav.device.type, enabled=False):
            quantised = self.quantizer(latent, keep, generator)
        return self.decoder(quantised.latent), quantised

    def encoder_stream(self, books: int | None = None) -> ChunkedEncoder:
        """A fresh encoder that takes audio piece by piece, see :mod:`descant.codec.chunked`."""
        from .seanet_stream import encoder_stream

        return encoder_stream(self, books)

    def decoder_stream(self) -> ChunkedDecoder:
        """A fresh decoder that takes codes frame by frame, see :mod:`descant.codec.chunked`."""
        from .seanet_stream import decoder_stream

        return decoder_stream(self)

    def save(self, folder: str | os.PathLike[str], format: str = "descant") -> None:  # noqa: A002 - the public name
        """Write config.json and model.safetensors; format: ``"descant"`` or ``"transformers"``."""
        from .pretrained import save
        from .transformers_format import save as save_foreign

        if format == "descant":
            save(self, folder)
        elif format == "transformers":
            save_foreign(self, folder)
        else:
            raise ValueError(f"format must be 'descant' or 'transformers', got {format!r}")

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode, or evaluation: weights are about to change, so what was derived from them is forgotten."""
        self._cache.clear()
        return super().train(mode)

    def _cached(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` derives from the weights, made again when a weight has changed."""
        weights = self.state_dict(keep_vars=True).values()
        stamp = (self.bf16, *((value.data_ptr(), value._version) for value in weights))
        if name not in self._cache or self._cache[name][0] != stamp:
            self._cache[name] = (stamp, make())
        made: T = self._cache[name][1]
        return made
