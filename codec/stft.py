"""Short-time Fourier transforms and filter banks: the only place that owns windows.

Two framings live here. :func:`stft` centres its frames and mirrors the edges, as librosa does; losses and metrics
use it. :func:`analyse` and :func:`synthesise` are the codec's own pair: frame ``j`` is centred on the middle of its
hop, edges are padded with zeros, and frame ``j`` never needs more than ``(window - hop) / 2`` samples beyond its hop.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor


@functools.lru_cache(maxsize=64)
def _hann(size: int, device: torch.device) -> Tensor:
    # float64 first: the periodic Hann window summed at hop = size / 4 is then constant to 1e-7
    # a window first made inside inference mode could otherwise never be trained through
    with torch.inference_mode(False):
        return torch.hann_window(size, periodic=True, dtype=torch.float64).float().to(device)


def stft(wav: Tensor, n_fft: int, hop: int) -> Tensor:
    """Centred STFT with a periodic Hann window and reflected edges (zero-padded when too short to reflect).

    wav: [..., T] -> complex [..., n_fft // 2 + 1, 1 + T // hop]. Equal to ``librosa.stft(..., pad_mode="reflect")``.
    """
    lead = wav.shape[:-1]
    flat = wav.reshape(-1, wav.shape[-1]).float()
    mode = "reflect" if wav.shape[-1] > n_fft // 2 else "constant"
    flat = torch.nn.functional.pad(flat[:, None], (n_fft // 2, n_fft // 2), mode=mode)[:, 0]
    return spectra(flat, n_fft, hop).transpose(1, 2).reshape(*lead, n_fft // 2 + 1, -1)


def spectra(wav: Tensor, n_fft: int, hop: int) -> Tensor:
    """Hann-windowed spectra of all whole frames: wav [N, T] -> complex [N, J, n_fft // 2 + 1], nothing padded.

    Its gradient is written out: autograd's own for a real FFT runs a complex one of twice the size.
    """
    spec: Tensor = _Spectra.apply(wav, n_fft, hop)  # type: ignore[no-untyped-call]
    return spec


class _Spectra(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, wav: Tensor, n_fft: int, hop: int) -> Tensor:
        """wav: [N, T] -> complex [N, J, n_fft // 2 + 1]."""
        ctx.sizes = (n_fft, hop, wav.shape[-1])
        spec: Tensor = torch.fft.rfft(wav.unfold(-1, n_fft, hop) * _hann(n_fft, wav.device))
        return spec

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """grad: complex [N, J, n_fft // 2 + 1] -> [N, T]."""
        n_fft, hop, length = ctx.sizes
        # x -> rfft(x) is linear; its adjoint is n * irfft with the bins that irfft counts twice halved
        scale = torch.full((grad.shape[-1],), 0.5 * n_fft, device=grad.device)
        scale[0] = n_fft
        if n_fft % 2 == 0:
            scale[-1] = n_fft
        frames = torch.fft.irfft(grad * scale, n=n_fft) * _hann(n_fft, grad.device)
        out = overlap_add(frames, hop)
        return torch.nn.functional.pad(out, (0, length - out.shape[-1])), None, None


def mel(wav: Tensor, rate: int, n_fft: int, hop: int, bands: int) -> Tensor:
    """Power mel spectrogram. wav: [..., T] -> [..., bands, frames]; rate in Hz."""
    power = stft(wav, n_fft, hop).abs().square()
    bank = mel_filters(rate, n_fft, bands).to(wav.device)
    banded: Tensor = bank @ power
    return banded


@functools.lru_cache(maxsize=64)
def mel_filters(rate: int, n_fft: int, bands: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Slaney-style mel filter bank [bands, n_fft // 2 + 1], area-normalised (Slaney, Auditory Toolbox, 1998).

    rate, low and high in Hz (high defaults to rate / 2). Equal to ``librosa.filters.mel``.
    """
    edges = _mel_to_hz(torch.linspace(_hz_to_mel(low), _hz_to_mel(high or rate / 2), bands + 2, dtype=torch.float64))
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    rise = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rise, fall).clamp(min=0)
    return (triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).float()


@functools.lru_cache(maxsize=16)
def chroma_filters(rate: int, n_fft: int, width: float = 1.0, low: float = 55.0, high: float = 4200.0) -> Tensor:
    """Pitch-class filter bank [12, n_fft // 2 + 1], row 0 = C, A4 = 440 Hz.

    Each bin feeds the two nearest classes with a raised cosine of ``width`` semitones; bins outside ``low``..``high``
    (Hz) feed none. rate in Hz.
    """
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    semitone = 69 + 12 * torch.log2(bins.clamp(min=1e-3) / 440.0)
    distance = (semitone[None] - torch.arange(12, dtype=torch.float64)[:, None] + 6) % 12 - 6
    weight = torch.where(distance.abs() < width, 0.5 + 0.5 * torch.cos(math.pi * distance / width), 0.0)
    return (weight * ((bins >= low) & (bins <= high))).float()


def analyse(wav: Tensor, window: int, hop: int) -> Tensor:
    """Codec framing: wav [..., T], T a multiple of hop -> complex [..., T // hop, window // 2 + 1], frames first."""
    side = (window - hop) // 2
    return analyse_whole(torch.nn.functional.pad(wav.float(), (side, side)), window, hop)


def analyse_whole(wav: Tensor, window: int, hop: int) -> Tensor:
    """:func:`analyse` of whole windows, nothing padded: wav [..., T] -> complex [..., J, window // 2 + 1]."""
    frames = wav.unfold(-1, window, hop) * _hann(window, wav.device)
    spec: Tensor = torch.fft.rfft(frames, norm="ortho")
    return spec


def synthesise(spec: Tensor, window: int, hop: int) -> Tensor:
    """Inverse of :func:`analyse` by weighted overlap-add: complex [..., J, window // 2 + 1] -> wav [..., J * hop].

    The squared windows are divided out exactly, at the edges too, so ``synthesise(analyse(x)) == x``
    (Griffin & Lim, 1984, equation 6).
    """
    side, count = (window - hop) // 2, spec.shape[-2]
    wav = overlap_add(windowed(spec, window), hop)[..., side : side + count * hop]
    weight = overlap_weight(window, hop, count, spec.device)[side : side + count * hop].clamp(min=1e-8)
    out: Tensor = wav / weight
    return out


def windowed(spec: Tensor, window: int) -> Tensor:
    """Inverse transforms under the window, to be overlapped: complex [..., J, window // 2 + 1] -> [..., J, window]."""
    frames: Tensor = torch.fft.irfft(spec, n=window, norm="ortho") * _hann(window, spec.device)
    return frames


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """Add up frames [..., J, W] that begin ``hop`` samples apart -> [..., (J - 1) * hop + W]."""
    count, window = frames.shape[-2:]
    steps = -(-window // hop)
    if steps * hop != window:
        frames = torch.nn.functional.pad(frames, (0, steps * hop - window))
    out = frames.new_zeros((*frames.shape[:-2], count + steps - 1, hop))
    for step, part in enumerate(torch.split(frames, hop, dim=-1)):
        out[..., step : step + count, :] += part
    return out.flatten(-2)[..., : (count - 1) * hop + window]


def overlap_weight(window: int, hop: int, count: int, device: torch.device) -> Tensor:
    """Squared windows of ``count`` frames added up, [(count - 1) * hop + window]: what :func:`synthesise` divides by.

    After ``ceil(window / hop)`` frames it repeats itself every hop until the last ones.
    """
    steps = -(-window // hop)
    short = _short_weight(window, hop, min(count, 2 * steps), device)
    if count <= 2 * steps:
        return short
    middle = short[(steps - 1) * hop : steps * hop].repeat(count - 2 * steps)
    return torch.cat([short[: steps * hop], middle, short[steps * hop :]])


@functools.lru_cache(maxsize=64)
def _short_weight(window: int, hop: int, count: int, device: torch.device) -> Tensor:
    return overlap_add(_hann(window, device).square().expand(count, window), hop)


def _hz_to_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + math.log(hz / 1000) * 27 / math.log(6.4)


def _mel_to_hz(mels: Tensor) -> Tensor:
    return torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * math.log(6.4) / 27))
