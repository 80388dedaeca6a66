"""EnCodec as a codec of the house: 24 kHz, 32 kHz (MusicGen's) and 48 kHz, weights in the published format.

Défossez et al., High Fidelity Neural Audio Compression, 2022. See :mod:`descant.codec.official` for configurations and
:func:`descant.codec.load` for files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .contract import Segment, count_books
from .euclid import EuclideanRVQ
from .neural import NeuralCodec
from .official import EncodecConfig
from .seanet import Decoder, Encoder
from .seanet_cpu import Plan, plan

#: Segments that pass the LSTM together: its weights are read once for all of them. More only cost memory.
_TOGETHER = 8
#: Below this share of the channels' power the mono downmix has lost the signal (sides of opposite sign): -40 dB.
_CANCELLED = 1e-4


class EncodecCodec(NeuralCodec):
    """EnCodec: :meth:`encode` and :meth:`decode`, or :meth:`segments` and :meth:`from_segments` with their levels.

    In evaluation mode on a CPU the networks run as :mod:`descant.codec.seanet_cpu` arranges them, item by item, so that
    the codes of a signal do not depend on what else is in the batch.
    """

    config: EncodecConfig
    encoder: Encoder
    decoder: Decoder
    quantizer: EuclideanRVQ

    def __init__(self, config: EncodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = EuclideanRVQ(config.width, config.books, config.cardinality)

    @property
    def segmented(self) -> bool:
        """Whether audio is cut into overlapping segments (48 kHz): then only :meth:`segments` keeps their levels."""
        return self.config.segment is not None

    @torch.no_grad()
    def encode(self, wav: Tensor, books: int | None = None) -> Tensor:
        """wav: [B, C, T] at ``rate`` -> codes int64 [B, K, F], F = ceil(T / hop).

        books: how many books to compute (all by default). A segmented model takes the signal second by second, without
        overlap, and as loud as it is: it was trained at an RMS of 1 in mono, which the caller sees to and undoes; use
        :meth:`segments` to have both done. Raises ValueError on wrong shapes, emptiness, NaN.
        """
        wav = self._check(wav)
        count = count_books(books, self.books)
        length = self._block() * self.hop or wav.shape[-1]
        latents = self._latents([wav[..., start : start + length] for start in range(0, wav.shape[-1], length)])
        return torch.cat([self._lookup(latent, count) for latent in latents], 2)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K, F], K <= books -> wav [B, C, F * hop]; of a segmented model, see :meth:`encode`.

        Raises ValueError on codes out of range.
        """
        latent = self.decode_latent(codes)
        block = self._block() or latent.shape[1]
        return torch.cat(self._wavs([latent[:, at : at + block] for at in range(0, latent.shape[1], block)]), 2)

    @torch.no_grad()
    def segments(self, wav: Tensor, books: int | None = None) -> list[Segment]:
        """wav: [B, C, T] -> its overlapping segments, each with codes int64 [B, K, F] and scale [B].

        A model that does not cut its input gives one segment of scale 1. Where the mono downmix has lost the signal,
        because the sides are of opposite sign, its level is that of the channels: otherwise it would decode to silence.
        """
        wav = self._check(wav)
        count = count_books(books, self.books)
        length, stride = self.config.segment_length, self.config.segment_stride
        if length is None or stride is None:
            pieces = [wav]
        else:
            pieces = [wav[..., start : start + length] for start in range(0, wav.shape[-1], stride)]
        scales = [self._scale(piece) for piece in pieces]
        latents = self._latents([piece / scale for piece, scale in zip(pieces, scales, strict=True)])
        return [
            Segment(self._lookup(latent, count), scale.view(-1))
            for latent, scale in zip(latents, scales, strict=True)
        ]  # fmt: skip

    @torch.no_grad()
    def from_segments(self, segments: list[Segment], length: int) -> Tensor:
        """Segments of a signal of ``length`` samples -> wav [B, C, length], cross-faded where they overlap.

        Raises ValueError when they do not reach ``length``, or reach beyond it by more than a frame.
        """
        if not segments or any(segment.scale.shape != segment.codes.shape[:1] for segment in segments):
            raise ValueError(
                "from_segments wants segments with codes [B, K, F] and scale [B], as segments() gives them"
            )
        wavs = self._wavs([self.decode_latent(segment.codes) for segment in segments])
        wavs = [wav * segment.scale.view(-1, 1, 1) for wav, segment in zip(wavs, segments, strict=True)]
        if self.config.segment_stride is None and len(wavs) > 1:
            raise ValueError(f"this model does not cut its input, got {len(wavs)} segments")
        out = _overlap_add(wavs, self.config.segment_stride or 1)
        if not 0 <= length <= out.shape[-1]:
            raise ValueError(f"{len(segments)} segments hold {out.shape[-1]} samples, {length} were asked for")
        return out[..., :length]

    def _block(self) -> int:
        """Frames per separate run of the network, 0 for all at once."""
        return 0 if self.config.segment_length is None else max(1, self.config.segment_length // self.hop)

    def _scale(self, wav: Tensor) -> Tensor:
        """Level of wav [B, C, T], [B, 1, 1]."""
        if not self.config.normalize:
            return wav.new_ones(wav.shape[0], 1, 1)
        mono = wav.sum(1, keepdim=True) / wav.shape[1]
        power, whole = mono.pow(2).mean(-1, keepdim=True), wav.pow(2).mean((1, 2), keepdim=True)
        return torch.where(power < _CANCELLED * whole, whole, power).sqrt() + 1e-8

    def _lookup(self, latent: Tensor, books: int) -> Tensor:
        with torch.autocast(latent.device.type, enabled=False):
            return torch.cat([self.quantizer.encode(item[None], books) for item in latent.float()])

    def _latents(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """[B, C, T] each -> [B, F, D] each."""
        if not self._planned(wavs[0]):
            return [self._plain(self.encoder, wav) for wav in wavs]
        run = self._cached("encoder", lambda: plan(self.encoder, self._dtype()))
        return _items(run, [wav.transpose(1, 2) for wav in wavs])

    def _wavs(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """[B, F, D] each -> [B, C, F * hop] each."""
        if not self._planned(latents[0]):
            return [self._plain(self.decoder, latent) for latent in latents]
        run = self._cached("decoder", lambda: plan(self.decoder, self._dtype()))
        return [wav.transpose(1, 2).contiguous() for wav in _items(run, list(latents))]

    def _planned(self, like: Tensor) -> bool:
        return not self.training and like.device.type == "cpu"

    def _plain(self, net: torch.nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            out: Tensor = net(x)
        return out.float()

    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.bf16 else torch.float32


def _items(run: Plan, pieces: list[Tensor]) -> list[Tensor]:
    """Run every item [T, C] of every piece [B, T, C] -> [B, T', C'] each."""
    out: list[Tensor] = []
    for start in range(0, len(pieces), _TOGETHER):
        group = pieces[start : start + _TOGETHER]
        # item by item, the segments of one signal together: what a signal becomes depends on nothing beside it
        items = [run([piece[b] for piece in group]) for b in range(group[0].shape[0])]
        out.extend(torch.stack(rows) for rows in zip(*items, strict=True))
    return out


def _overlap_add(wavs: list[Tensor], stride: int) -> Tensor:
    """Frames [B, C, L] every ``stride`` samples, weighted by a triangle and by the sum of the weights divided."""
    length = wavs[0].shape[-1]
    ramp = torch.linspace(0, 1, length + 2, device=wavs[0].device)[1:-1]
    weight = 0.5 - (ramp - 0.5).abs()
    total = stride * (len(wavs) - 1) + wavs[-1].shape[-1]
    out, share = wavs[0].new_zeros(*wavs[0].shape[:2], total), wavs[0].new_zeros(total)
    for index, wav in enumerate(wavs):
        part = slice(index * stride, index * stride + wav.shape[-1])
        out[..., part] += weight[: wav.shape[-1]] * wav
        share[part] += weight[: wav.shape[-1]]
    return out / share
