"""The codec: samples <-> tokens.

STFT in, ConvNeXt trunk at the frame rate, residual vector quantiser, ConvNeXt trunk, inverse STFT out. The shape is
SoundStream's (Zeghidour et al., 2021) with a spectral head on both sides as Vocos (Siuzdak, 2023) has on one: all
learned layers run at 50 or 100 frames per second rather than at the sample rate, which is what makes it fast on a CPU.
Convolutions are causal; encoding looks one frame ahead, and so do the overlapping windows of the inverse transform.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base import CodecModule
from .conv import ConvNeXt, Downsample, Upsample
from .noise import ROWS, rows, table
from .rvq import Quantised, ResidualVQ
from .stft import analyse, synthesise

if TYPE_CHECKING:
    from . import stream


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Everything that fixes a codec's shape; stored beside the weights and validated on creation."""

    rate: int = 32000
    """Sample rate in Hz."""
    channels: int = 1
    """1 mono, 2 stereo (coded as mid and side)."""
    hop: int = 640
    """Samples per token frame: 32000 / 640 = 50 frames per second."""
    window: int = 1280
    """STFT window in samples; its hop is half a token frame."""
    books: int = 8
    cardinality: int = 1024
    code_dim: int = 8
    """Dimensions in which codes are looked up."""
    outer: int = 256
    """Width at 100 frames per second."""
    inner: int = 384
    """Width at 50 frames per second."""
    encoder_blocks: tuple[int, int] = (3, 2)
    """ConvNeXt blocks before and after the encoder's halving of the rate."""
    decoder_blocks: tuple[int, int] = (2, 4)
    """ConvNeXt blocks before and after the decoder's doubling of the rate."""
    lookup: str = "ema"
    """How codes are looked up and what moves them: ``ema`` (nearest, averages) or ``gradient`` (angle, as in DAC)."""
    lift: tuple[float, ...] = ()
    """For 1, 2, ... books, dB by which decoding raises the sound: a decoder that learned from squared errors makes what
    it is unsure of too soft. Measured after training (``recipes/codec_lift.py``); no code depends on it."""

    def __post_init__(self) -> None:
        for name in ("rate", "hop", "window", "books", "cardinality", "code_dim", "outer", "inner"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"CodecConfig.{name} must be a positive integer, got {value!r}")
        if self.channels not in (1, 2):
            raise ValueError(f"CodecConfig.channels must be 1 or 2, got {self.channels!r}")
        if self.hop % 2 or self.window < self.hop or (self.window - self.hop // 2) % 2:
            raise ValueError(f"hop {self.hop} must be even and window {self.window} an even number at least as long")
        if self.cardinality > 1 << 14 or self.books > 64:
            raise ValueError(f"{self.books} books of {self.cardinality} codes: at most 64 books of 16384 codes")
        if self.lookup not in ("ema", "gradient"):
            raise ValueError(f"CodecConfig.lookup must be 'ema' or 'gradient', got {self.lookup!r}")
        object.__setattr__(self, "lift", tuple(float(level) for level in self.lift))
        if len(self.lift) not in (0, self.books) or not all(-12.0 <= level <= 12.0 for level in self.lift):
            raise ValueError(f"CodecConfig.lift must be {self.books} levels in -12..12 dB or none, got {self.lift!r}")
        for name in ("encoder_blocks", "decoder_blocks"):
            pair = tuple(getattr(self, name))
            if len(pair) != 2 or any(not isinstance(count, int) or not 0 <= count <= 64 for count in pair):
                raise ValueError(f"CodecConfig.{name} must be two counts in 0..64, got {pair!r}")
            object.__setattr__(self, name, pair)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON.

        A setting younger than the first release is left out at its default: a codec keeps its fingerprint.
        """
        row = asdict(self)
        if self.lookup == "ema":
            del row["lookup"]
        if not self.lift:
            del row["lift"]
        return row

    @staticmethod
    def from_dict(row: dict[str, Any]) -> CodecConfig:
        """Inverse of :meth:`to_dict`. Raises ValueError on unknown keys."""
        unknown = sorted(set(row) - set(CodecConfig.__dataclass_fields__))
        if unknown:
            raise ValueError(f"unknown codec settings {unknown}; known: {sorted(CodecConfig.__dataclass_fields__)}")
        return CodecConfig(**row)


def tiny() -> CodecConfig:
    """The embedded preset: 32 kHz mono, 50 frames/s, 8 books of 1024 (0.5 kbps each, 4 kbps in all)."""
    return CodecConfig()


def tiny_stereo() -> CodecConfig:
    """:func:`tiny` in stereo (mid and side), narrower so that it stays as small: 4 kbps for both channels."""
    return CodecConfig(channels=2, outer=240, inner=368)


def hifi48() -> CodecConfig:
    """48 kHz stereo (mid and side), 50 frames/s, 16 books of 1024: 0.5 to 8 kbps."""
    return CodecConfig(
        rate=48000, channels=2, hop=960, window=1920, books=16, outer=512, inner=768, encoder_blocks=(4, 4),
        decoder_blocks=(4, 8),
    )  # fmt: skip


def hifi48_small() -> CodecConfig:
    """:func:`hifi48` at less than half its size: the same codes per second, for smaller machines."""
    return CodecConfig(
        rate=48000, channels=2, hop=960, window=1920, books=16, outer=320, inner=512, encoder_blocks=(3, 3),
        decoder_blocks=(3, 5),
    )  # fmt: skip


def nano() -> CodecConfig:
    """A very small network of the same geometry, for tests and trials."""
    return CodecConfig(outer=48, inner=64, encoder_blocks=(1, 1), decoder_blocks=(1, 1), cardinality=64)


class Encoder(nn.Module):
    """Samples to latent frames."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.window // 2 + 1
        before, after = config.encoder_blocks
        self.enter = nn.Linear(2 * bins * config.channels, config.outer)
        self.fast = nn.Sequential(*(ConvNeXt(config.outer) for _ in range(before)))
        self.down = Downsample(config.outer, config.inner)
        self.slow = nn.Sequential(*(ConvNeXt(config.inner, ahead=int(i == 0)) for i in range(after)))
        self.norm = nn.LayerNorm(config.inner, elementwise_affine=False)

    def forward(self, wav: Tensor, frames: Tensor | None = None) -> Tensor:
        """wav: [B, C, T] with T a multiple of hop -> latent [B, F, D], of unit variance per frame.

        frames: [B], the length of each item where they differ; what follows is silence that no frame looks ahead to.
        """
        x = self.features(analyse(mid_side(wav), self.config.window, self.config.hop // 2))
        x = self.down(self.fast(self.enter(x)))
        if frames is not None:
            x = x * (torch.arange(x.shape[1], device=x.device) < frames[:, None])[..., None]
        latent: Tensor = self.norm(self.slow(x).float())
        return latent

    def features(self, spec: Tensor) -> Tensor:
        """What the network sees of spectra: complex [B, C, J, bins] -> [B, J, C * bins * 2]."""
        # Power compression |X|^0.3 keeps the phase and brings quiet partials within reach. As exp and log, because
        # pow rounds the last elements of a tensor otherwise than the first: a chunk would differ from the whole.
        magnitude = spec.abs().clamp(min=1e-5)
        spec = torch.view_as_real(spec * magnitude.log().mul(-0.7).exp())
        return spec.permute(0, 2, 1, 3, 4).flatten(2)


class Decoder(nn.Module):
    """Latent frames to samples.

    What has a phase worth keeping comes from a magnitude and a direction; what has none (cymbals, breath, reverberation
    at a few kilobits per second) from a magnitude and noise. Without the second part a decoder repeats the phase it is
    unsure of in every frame, which sounds as a buzz at the frame rate. The split is the one of harmonic-plus-noise
    synthesis (Serra & Smith, 1990), left to the losses to learn. The noise is a function of the codes, so decoding is
    deterministic, wherever a chunk begins.
    """

    noise: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.window // 2 + 1
        before, after = config.decoder_blocks
        self.slow = nn.Sequential(*(ConvNeXt(config.inner) for _ in range(before)))
        self.up = Upsample(config.inner, config.outer)
        self.fast = nn.Sequential(*(ConvNeXt(config.outer) for _ in range(after)))
        self.norm = nn.LayerNorm(config.outer)
        self.leave = nn.Linear(config.outer, 4 * bins * config.channels)
        with torch.no_grad():  # start near the level of music, the noise a little below
            self.leave.bias.view(config.channels, 4, bins)[:, 0] = -3.0
            self.leave.bias.view(config.channels, 4, bins)[:, 3] = -5.0
        self.register_buffer("noise", table(2 * ROWS, config.channels, bins), persistent=False)

    def forward(self, latent: Tensor, rows: Tensor, gain: float = 1.0) -> Tensor:
        """latent: [B, F, D]; rows: [B, F], the noise of each frame -> wav [B, C, F * hop]; gain as :meth:`spectra`."""
        return self.wave(self.spectra(self.trunk(latent), rows, gain))

    def trunk(self, latent: Tensor) -> Tensor:
        """latent: [B, F, D] -> what the head reads, [B, 2 * F, D'], two frames per token."""
        x: Tensor = self.fast(self.up(self.slow(latent)))
        return x

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk's x [B, J, D] means: spectra with a phase, complex [B, C, J, bins], and the noise's levels."""
        x = self.leave(self.norm(x)).float()
        # [B, J, C * 4 * bins] -> [B, C, J, 4, bins]
        x = x.reshape(*x.shape[:2], self.config.channels, 4, -1).transpose(1, 2)
        level, real, imaginary, breath = x.unbind(-2)
        # A log-magnitude and a direction in the plane, softly normalised. An angle would have to be learned across
        # its jump from pi to -pi; a direction has no jump, and a short one may say "unsure" (after the parallel phase
        # estimate of Ai & Ling, APNet, 2023). The clamp keeps a wild frame finite.
        length = level.clamp(max=6.0).exp() * torch.rsqrt(real.square() + imaginary.square() + 1.0)
        return torch.complex(length * real, length * imaginary), breath.clamp(max=6.0).exp()

    def spectra(self, x: Tensor, rows: Tensor, gain: float = 1.0) -> Tensor:
        """The head: x [B, J, D] at two frames per token, rows [B, J / 2] -> complex [B, C, J, bins].

        gain: on all of it; training knows none.
        """
        spec, breath = self.parts(x)
        return gain * (spec + breath * self.phases(rows))

    def gain(self, books: int) -> float:
        """What :attr:`CodecConfig.lift` says for so many books, as a factor."""
        return 10 ** (self.config.lift[books - 1] / 20) if self.config.lift else 1.0

    def phases(self, rows: Tensor) -> Tensor:
        """The noise's phases: rows [B, F] of the table -> complex [B, C, 2 * F, bins] of magnitude 1."""
        # two STFT frames per token frame: [B, F] -> [B, 2 * F] rows of the table -> [B, C, J, bins]
        pairs = (2 * rows[..., None] + torch.arange(2, device=rows.device)).flatten(1)
        return self.noise[pairs].transpose(1, 2)

    def wave(self, spec: Tensor) -> Tensor:
        """Spectra [B, C, J, bins] -> wav [B, C, F * hop]."""
        return left_right(synthesise(spec, self.config.window, self.config.hop // 2))


class Codec(CodecModule):
    """A neural audio codec: :meth:`encode` and :meth:`decode`; ``rate`` in Hz, ``hop`` in samples per frame."""

    config: CodecConfig
    statistics = (".total", ".count")
    playback = ("lift",)

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantiser = ResidualVQ(
            config.inner, config.books, config.cardinality, config.code_dim, lookup=config.lookup
        )
        self.decoder = Decoder(config)

    @torch.no_grad()
    def encode(self, wav: Tensor, books: int | None = None) -> Tensor:
        """wav: [B, C, T] at ``rate`` -> codes int64 [B, K, F], F = ceil(T / hop); the end is padded with silence.

        books: how many books to compute (all by default). Raises ValueError on wrong shapes, emptiness, NaN.
        """
        wav = self._check(wav)
        wav = nn.functional.pad(wav, (0, -wav.shape[-1] % self.hop))
        with torch.autocast(wav.device.type, enabled=False):
            return self.quantiser.encode(self.encoder(wav), books)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K, F], K <= books -> wav [B, C, F * hop]. Raises ValueError on codes out of range."""
        latent = self.decode_latent(codes)
        with torch.autocast(codes.device.type, enabled=False):
            wav: Tensor = self.decoder(latent, rows(codes), self.decoder.gain(codes.shape[1]))
        return wav

    def _latent(self, codes: Tensor) -> Tensor:
        return self.quantiser.decode(codes)

    def encoder_stream(self, books: int | None = None) -> stream.Encoder:
        """A fresh encoder that takes audio piece by piece, see :mod:`descant.codec.stream`."""
        from . import stream

        return stream.Encoder(self, books)

    def decoder_stream(self) -> stream.Decoder:
        """A fresh decoder that takes codes frame by frame, see :mod:`descant.codec.stream`."""
        from . import stream

        return stream.Decoder(self)

    def save(self, folder: str | os.PathLike[str], format: str = "descant") -> None:  # noqa: A002 - the public name
        """Write the codec into ``folder``, see :mod:`descant.codec.pretrained`. format: ``"descant"``, its only one."""
        from .pretrained import save

        if format != "descant":
            raise ValueError(f"this codec has no {format!r} format: use 'descant'")
        save(self, folder)

    def forward(
        self, wav: Tensor, keep: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Quantised | None]:
        """Training pass. wav: [B, C, T], T a multiple of hop; keep: [B] books per item, None = no quantisation.

        Returns the reconstruction [B, C, T] and the quantiser's result.
        """
        latent, drawn, quantised = self.latent(wav, keep, generator)
        return self.decoder(latent, drawn), quantised

    def latent(
        self, wav: Tensor, keep: Tensor | None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Quantised | None]:
        """First half of :meth:`forward`: latent [B, F, D], the noise's rows [B, F], the quantiser's result."""
        latent = self.encoder(wav)
        if keep is None:
            return latent, torch.randint(ROWS, latent.shape[:2], generator=generator).to(wav.device), None
        with torch.autocast(wav.device.type, enabled=False):
            quantised = self.quantiser(latent, keep, generator)
        return quantised.latent, rows(quantised.codes), quantised


def mid_side(wav: Tensor) -> Tensor:
    """Left and right to mid and side: wav [B, C, T] -> [B, C, T]; mono stays as it is."""
    if wav.shape[1] == 1:
        return wav
    left, right = wav.unbind(1)
    return torch.stack([(left + right) / 2, (left - right) / 2], 1)


def left_right(wav: Tensor) -> Tensor:
    """Inverse of :func:`mid_side`: wav [B, C, T] -> [B, C, T]."""
    if wav.shape[1] == 1:
        return wav
    mid, side = wav.unbind(1)
    return torch.stack([mid + side, mid - side], 1)
