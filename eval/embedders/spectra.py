"""The spectra that other people's networks were trained on, each as its authors compute it.

Mel banks differ in the scale (HTK's or Slaney's), in whether a triangle is straight over mel or over Hz, and in its
height. :func:`descant.codec.stft.mel_filters` is Slaney's; the other two are here.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from ...codec.stft import stft


def frames(wav: Tensor, window: Tensor, n_fft: int, hop: int) -> Tensor:
    """Spectra of all whole windows, nothing padded: wav [B, T] -> complex [B, F, n_fft // 2 + 1].

    A window shorter than ``n_fft`` is followed by zeros.
    """
    spectra: Tensor = torch.fft.rfft(wav.unfold(-1, window.numel(), hop) * window, n=n_fft)
    return spectra


def log_mel(wav: Tensor, bank: Tensor, n_fft: int, hop: int) -> Tensor:
    """Decibels of banded power, floor 1e-10, frames centred: wav [B, T], bank [M, n_fft // 2 + 1] -> [B, F, M].

    What torchlibrosa's ``Spectrogram`` and ``LogmelFilterBank`` give without ``top_db``.
    """
    power = stft(wav, n_fft, hop).abs().square().transpose(1, 2)
    return 10.0 * (power @ bank.T).clamp(min=1e-10).log10()


@functools.lru_cache(maxsize=16)
def mel_triangles(rate: int, n_fft: int, bands: int, low: float, high: float) -> Tensor:
    """HTK mel bank with triangles straight over mel and of height 1 [bands, n_fft // 2 + 1]; low and high in Hz.

    The bank of VGGish and of Kaldi: band ``i`` rises from edge ``i`` to edge ``i + 1`` and falls to edge ``i + 2``.
    """
    edges = torch.linspace(_mel(low), _mel(high), bands + 2, dtype=torch.float64)
    points = 1127.0 * torch.log1p(_bins(rate, n_fft) / 700.0)
    bank = _triangles(points, edges)
    bank[:, 0] = 0.0
    return bank.float()


@functools.lru_cache(maxsize=16)
def hertz_triangles(rate: int, n_fft: int, bands: int, low: float, high: float) -> Tensor:
    """HTK mel bank with triangles straight over Hz and of height 1 [bands, n_fft // 2 + 1]; low and high in Hz.

    ``librosa.filters.mel(htk=True, norm=None)``, which is torchaudio's default.
    """
    edges = 700.0 * torch.expm1(torch.linspace(_mel(low), _mel(high), bands + 2, dtype=torch.float64) / 1127.0)
    return _triangles(_bins(rate, n_fft), edges).float()


def at_least(wav: Tensor, samples: int) -> Tensor:
    """Zeros behind what is shorter: wav [B, T] -> [B, max(T, samples)]."""
    return torch.nn.functional.pad(wav, (0, max(0, samples - wav.shape[-1])))


def _bins(rate: int, n_fft: int) -> Tensor:
    return torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft


def _triangles(points: Tensor, edges: Tensor) -> Tensor:
    rise = (points[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - points[None]) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp(min=0)


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)
