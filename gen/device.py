"""Where a model computes: the device by name, models moved there whole, a codec that is asked from the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..codec.contract import Codec
from ..lm.fast_graph import on_device

if TYPE_CHECKING:
    from ..lm.model import TokenLM
    from ..lm.musicgen import MusicGenLM


def device_of(name: str, precision: str = "fp32") -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:1`` -> the device. Raises ValueError for what is not there or cannot decode so."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r}: choose cpu, cuda or, of several GPUs, cuda:0, cuda:1 ...")
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ValueError(
            f"device {name!r}: torch {torch.__version__} sees {count or 'no'} CUDA device(s) here; leave --device out, "
            "or install a torch for your GPU (https://pytorch.org/get-started)"
        )
    if precision == "int8":
        raise ValueError("precision 'int8' is for the CPU: choose bf16, the fastest on a GPU")
    return device


def moved_lm(lm: TokenLM, device: torch.device) -> TokenLM:
    """Our own model on ``device``, in float32: what decodes in bfloat16 makes copies."""
    with on_device(device, "the language model"):
        return lm.to(device)


def moved_musicgen(lm: MusicGenLM, device: torch.device, precision: str) -> MusicGenLM:
    """A MusicGen on ``device``, in the precision it decodes in; its text encoder stays where it is."""
    if device.type == "cpu":
        return lm  # the engines there take float32 and make copies
    with on_device(device, "the language model"):
        return lm.to(device, torch.bfloat16 if precision == "bf16" else torch.float32)


def moved_codec(codec: Codec, device: torch.device) -> Codec:
    """A codec that computes on ``device`` and takes and gives tensors of the CPU."""
    if device.type == "cpu":
        return codec
    with on_device(device, "the codec"):
        cast(nn.Module, codec).to(device)
    return cast(Codec, Elsewhere(codec, device))


class Elsewhere:
    """A :class:`descant.codec.contract.Codec`, or one of its streams, on another device than what it is given."""

    def __init__(self, inner: Any, device: torch.device) -> None:
        self._inner, self._device = inner, device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, wav: Tensor, books: int | None = None) -> Tensor:
        """wav [B, C, T] -> codes [B, K, F]."""
        return self._inner.encode(wav.to(self._device), books).cpu()  # type: ignore[no-any-return]

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, K, F] -> wav [B, C, F * hop]."""
        return self._inner.decode(codes.to(self._device)).cpu()  # type: ignore[no-any-return]

    def decode_latent(self, codes: Tensor) -> Tensor:
        """Codes [B, K, F] -> latent [B, F, D]."""
        return self._inner.decode_latent(codes.to(self._device)).cpu()  # type: ignore[no-any-return]

    def encoder_stream(self, books: int | None = None) -> Any:
        """A fresh stateful encoder."""
        return Elsewhere(self._inner.encoder_stream(books), self._device)

    def decoder_stream(self) -> Any:
        """A fresh stateful decoder."""
        return Elsewhere(self._inner.decoder_stream(), self._device)

    def push(self, part: Tensor) -> Tensor:
        """Of a stream: the next samples or codes [B, ...] -> what is certain by now."""
        return self._inner.push(part.to(self._device)).cpu()  # type: ignore[no-any-return]

    def finish(self) -> Tensor:
        """Of a stream: what is left, [B, ...]."""
        return self._inner.finish().cpu()  # type: ignore[no-any-return]
