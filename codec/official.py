"""Configurations of the official codecs: EnCodec 24, 32 and 48 kHz and DAC 44.1, 24 and 16 kHz.

EnCodec: Défossez et al., High Fidelity Neural Audio Compression, 2022; the 32 kHz one is MusicGen's (Copet et al.,
2023). DAC: Kumar et al., High-Fidelity Audio Compression with Improved RVQGAN, 2023. A configuration that comes from a
file is checked value by value before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

T = TypeVar("T")

#: What a file may ask for at most; the official models stay far below.
_MOST = {"rate": 768000, "channels": 2, "filters": 512, "width": 4096, "kernel": 63, "layers": 8, "bits": 14}


@dataclass(frozen=True, kw_only=True)
class EncodecConfig:
    """Everything that fixes an EnCodec model; the defaults are those of the 24 kHz model."""

    rate: int = 24000
    """Sample rate in Hz."""
    channels: int = 1
    bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)
    """Bit rates in kbps the model was trained for; the last one fixes the number of books."""
    cardinality: int = 1024
    width: int = 128
    """Width of the latent and of the book vectors."""
    filters: int = 32
    """Width at the sample rate; it doubles with every ratio."""
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    """Up-sampling of the decoder, coarse to fine; the encoder takes them in reverse."""
    residual_layers: int = 1
    kernel: int = 7
    last_kernel: int = 7
    residual_kernel: int = 3
    dilation_growth: int = 2
    compress: int = 2
    """Residual branches are this much narrower."""
    lstm_layers: int = 2
    causal: bool = True
    group_norm: bool = False
    """Convolutions followed by normalisation over channels and time, instead of weight normalisation."""
    conv_shortcut: bool = True
    """A 1x1 convolution beside each residual branch, instead of the identity."""
    reflect: bool = True
    """Borders are padded by reflection, otherwise by zeros."""
    trim_right_ratio: float = 1.0
    """Share of the surplus of a causal transposed convolution that is cut on the right."""
    normalize: bool = False
    """Each segment is divided by its level."""
    segment: float | None = None
    """Seconds per segment; None takes the signal whole."""
    overlap: float | None = None
    """Share of a segment that overlaps the next one."""

    def __post_init__(self) -> None:
        _whole(self, rate=_MOST["rate"], channels=_MOST["channels"], width=_MOST["width"], filters=_MOST["filters"],
               residual_layers=_MOST["layers"], kernel=_MOST["kernel"], last_kernel=_MOST["kernel"],
               residual_kernel=_MOST["kernel"], dilation_growth=8, compress=64,
               cardinality=1 << _MOST["bits"])  # fmt: skip
        _flags(self, "causal", "group_norm", "conv_shortcut", "reflect", "normalize")
        if not _is_int(self.lstm_layers) or not 0 <= self.lstm_layers <= _MOST["layers"]:
            raise ValueError(f"lstm_layers must lie in 0..{_MOST['layers']}, got {self.lstm_layers!r}")
        object.__setattr__(self, "ratios", _ratios(self.ratios, self.filters))
        if self.cardinality & (self.cardinality - 1):
            raise ValueError(f"cardinality must be a power of two, got {self.cardinality}")
        if self.compress > self.filters:
            raise ValueError(f"compress {self.compress} leaves nothing of {self.filters} filters")
        if self.causal and self.group_norm:
            raise ValueError("a causal model cannot be normalised over time: causal and group_norm exclude each other")
        _number(self, "trim_right_ratio", 0.0, 1.0)
        if not self.causal and self.trim_right_ratio != 1.0:
            raise ValueError("trim_right_ratio other than 1 is for causal models")
        self._check_bandwidths()
        self._check_segments()

    def _check_bandwidths(self) -> None:
        rates = self.bandwidths
        if not isinstance(rates, list | tuple) or not 1 <= len(rates) <= 64:
            raise ValueError(f"bandwidths must be 1 to 64 numbers, got {rates!r}")
        for rate in rates:
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1e4:
                raise ValueError(f"bandwidths must lie in 0..10000 kbps, got {rate!r}")
        object.__setattr__(self, "bandwidths", tuple(float(rate) for rate in rates))
        if not 1 <= self.books <= 64:
            raise ValueError(f"{self.bandwidths[-1]} kbps makes {self.books} books, 1 to 64 can be")

    def _check_segments(self) -> None:
        if (self.segment is None) != (self.overlap is None):
            raise ValueError(f"segment {self.segment!r} and overlap {self.overlap!r} go together")
        if self.segment is not None:
            _number(self, "segment", 0.01, 60.0)
            _number(self, "overlap", 0.0, 0.9)

    @property
    def hop(self) -> int:
        """Samples per token frame."""
        return math.prod(self.ratios)

    @property
    def frames_per_second(self) -> int:
        """Token frames per second, rounded up as the bit rates count them."""
        return math.ceil(self.rate / self.hop)

    @property
    def bits(self) -> int:
        """Bits per code."""
        return self.cardinality.bit_length() - 1

    @property
    def books(self) -> int:
        """Number of codebooks: what the highest bit rate pays for."""
        return int(1000 * self.bandwidths[-1] // (self.frames_per_second * max(1, self.bits)))

    @property
    def segment_length(self) -> int | None:
        """Samples per segment, None for the whole signal."""
        return None if self.segment is None else int(self.segment * self.rate)

    @property
    def segment_stride(self) -> int | None:
        """Samples from one segment to the next."""
        length, overlap = self.segment_length, self.overlap
        return None if length is None or overlap is None else max(1, int((1.0 - overlap) * length))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return _plain(self)

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> EncodecConfig:
        """Inverse of :meth:`to_dict`. Raises ValueError on unknown keys and on values that cannot be."""
        return _build(EncodecConfig, row)


@dataclass(frozen=True, kw_only=True)
class DacConfig:
    """Everything that fixes a DAC model; the defaults are those of the 44.1 kHz model."""

    rate: int = 44100
    """Sample rate in Hz."""
    ratios: tuple[int, ...] = (2, 4, 8, 8)
    """Down-sampling of the encoder, fine to coarse."""
    decoder_ratios: tuple[int, ...] | None = None
    """Up-sampling of the decoder, coarse to fine; None: the reverse of ``ratios``."""
    encoder_width: int = 64
    """Width at the sample rate in the encoder; it doubles with every ratio."""
    decoder_width: int = 1536
    """Width at the frame rate in the decoder; it halves with every ratio."""
    books: int = 9
    cardinality: int = 1024
    code_dim: int = 8
    """Dimensions in which codes are looked up."""
    weight_norm: bool = False
    """Convolutions keep magnitude and direction apart, as in training; otherwise they are folded."""
    quantizer_dropout: float = 0.0
    commitment_loss_weight: float = 0.25
    codebook_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        _whole(self, rate=_MOST["rate"], encoder_width=_MOST["filters"], decoder_width=8192, books=64,
               cardinality=1 << _MOST["bits"], code_dim=1024)  # fmt: skip
        _flags(self, "weight_norm")
        object.__setattr__(self, "ratios", _ratios(self.ratios, self.encoder_width))
        up = self.ratios[::-1] if self.decoder_ratios is None else self.decoder_ratios
        object.__setattr__(self, "decoder_ratios", _ratios(up, 1))
        if math.prod(self.up_ratios) != self.hop:
            raise ValueError(f"decoder_ratios {self.up_ratios} do not undo ratios {self.ratios}")
        if self.decoder_width % (1 << len(self.up_ratios)):
            raise ValueError(f"decoder_width {self.decoder_width} cannot be halved {len(self.up_ratios)} times")
        if self.cardinality & (self.cardinality - 1):
            raise ValueError(f"cardinality must be a power of two, got {self.cardinality}")
        _number(self, "quantizer_dropout", 0.0, 1.0)
        _number(self, "commitment_loss_weight", 0.0, 1e3)
        _number(self, "codebook_loss_weight", 0.0, 1e3)

    @property
    def channels(self) -> int:
        """One: DAC is mono."""
        return 1

    @property
    def up_ratios(self) -> tuple[int, ...]:
        """Up-sampling of the decoder, coarse to fine."""
        return self.decoder_ratios or ()

    @property
    def hop(self) -> int:
        """Samples per token frame."""
        return math.prod(self.ratios)

    @property
    def width(self) -> int:
        """Width of the latent."""
        return self.encoder_width << len(self.ratios)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return _plain(self)

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> DacConfig:
        """Inverse of :meth:`to_dict`. Raises ValueError on unknown keys and on values that cannot be."""
        return _build(DacConfig, row)


def encodec24() -> EncodecConfig:
    """facebook/encodec_24khz: mono, causal, 75 frames/s, 1.5 to 24 kbps."""
    return EncodecConfig()


def encodec48() -> EncodecConfig:
    """facebook/encodec_48khz: stereo, one-second segments with their own level, 150 frames/s, 3 to 24 kbps."""
    return EncodecConfig(rate=48000, channels=2, bandwidths=(3.0, 6.0, 12.0, 24.0), causal=False, group_norm=True,
                         normalize=True, segment=1.0, overlap=0.01)  # fmt: skip


def musicgen32() -> EncodecConfig:
    """facebook/encodec_32khz, the codec of MusicGen: mono, 50 frames/s, 4 books of 2048 (2.2 kbps)."""
    return EncodecConfig(rate=32000, bandwidths=(2.2,), cardinality=2048, filters=64, ratios=(8, 5, 4, 4), causal=False,
                         conv_shortcut=False)  # fmt: skip


def dac44() -> DacConfig:
    """descript/dac_44khz: mono, 86 frames/s, 9 books of 1024 (7.8 kbps)."""
    return DacConfig()


def dac24() -> DacConfig:
    """descript/dac_24khz: mono, 75 frames/s, 32 books of 1024 (24 kbps)."""
    return DacConfig(rate=24000, ratios=(2, 4, 5, 8), books=32)


def dac16() -> DacConfig:
    """descript/dac_16khz: mono, 50 frames/s, 12 books of 1024 (6 kbps)."""
    return DacConfig(rate=16000, ratios=(2, 4, 5, 8), books=12)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(config: object, **most: int) -> None:
    for name, limit in most.items():
        value = getattr(config, name)
        if not _is_int(value) or not 1 <= value <= limit:
            raise ValueError(f"{name} must be a whole number in 1..{limit}, got {value!r}")


def _flags(config: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ValueError(f"{name} must be true or false, got {getattr(config, name)!r}")


def _number(config: object, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in {low}..{high}, got {value!r}")
    object.__setattr__(config, name, float(value))


def _ratios(value: object, width: int) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 8:
        raise ValueError(f"ratios must be 1 to 8 whole numbers, got {value!r}")
    ratios = tuple(value)
    if any(not _is_int(ratio) or not 2 <= ratio <= 64 for ratio in ratios) or math.prod(ratios) > 1 << 16:
        raise ValueError(f"ratios must lie in 2..64 and multiply to at most {1 << 16}, got {value!r}")
    if width << len(ratios) > 8192:
        raise ValueError(f"{width} filters doubled {len(ratios)} times are more than 8192")
    return ratios


def _plain(config: Any) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def _build(kind: type[T], row: Mapping[str, Any]) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(row) - known)
    if unknown:
        raise ValueError(f"unknown codec settings {unknown}; known: {sorted(known)}")
    return kind(**row)
