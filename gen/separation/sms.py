"""Sinusoids plus filtered noise, made of controls that change slowly, with gradients for all of them.

Serra & Smith, "Spectral modeling synthesis", 1990, differentiable as in DDSP (Engel et al., 2020). Controls come frame
by frame; a frame is worth ``hop`` samples and lies in their middle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...codec.stft import overlap_add


def upsampled(controls: Tensor, hop: int) -> Tensor:
    """Controls [B, F, D] -> [B, F * hop, D], on straight lines from the middle of one frame to that of the next."""
    rows = controls.transpose(1, 2)
    return torch.nn.functional.interpolate(rows, scale_factor=hop, mode="linear", align_corners=False).transpose(1, 2)


def sinusoids(hertz: Tensor, amplitude: Tensor, rate: int, hop: int) -> Tensor:
    """Sum of sinusoids (Engel et al., equation 1): hertz [B, F, K], amplitude [B, F, K] -> wav [B, F * hop].

    Each begins with phase 0; what lies at or above half the rate is silent. ``rate`` in Hz.
    """
    frequency = upsampled(hertz, hop)
    phase = _phase(frequency, rate)
    level = upsampled(amplitude, hop) * (frequency < rate / 2)
    wav: Tensor = (level * phase.sin()).sum(-1)
    return wav


def harmonics(f0: Tensor, amplitude: Tensor, shares: Tensor, rate: int, hop: int) -> Tensor:
    """A harmonic tone: f0 [B, F] in Hz, amplitude [B, F], shares [B, F, H], not negative -> wav [B, F * hop].

    Shares are made to sum to one over the harmonics below half the rate (Engel et al., section 3.2).
    """
    hertz = f0[..., None] * torch.arange(1, shares.shape[-1] + 1, device=f0.device)
    shares = shares * (hertz < rate / 2)
    shares = shares / shares.sum(-1, keepdim=True).clamp(min=1e-8)
    # one phase for all of them, in place of a running sum for each
    phase = _phase(upsampled(f0[..., None], hop), rate)
    turned = phase * torch.arange(1, shares.shape[-1] + 1, device=f0.device)
    wav: Tensor = (upsampled(amplitude[..., None] * shares, hop) * turned.sin()).sum(-1)
    return wav


def _phase(hertz: Tensor, rate: int) -> Tensor:
    """What sinusoids [B, T, K] of these frequencies have turned by, from 0 to 2 pi."""
    # over a song, phases grow far beyond the digits of float32
    turned: Tensor = (2 * math.pi / rate * hertz.double()).cumsum(1).remainder(2 * math.pi).to(hertz.dtype)
    return turned


def filtered_noise(magnitudes: Tensor, noise: Tensor, hop: int) -> Tensor:
    """White noise through filters that change: magnitudes [B, F, M], noise [B, F * hop] -> wav [B, F * hop].

    Magnitudes are those at M frequencies from 0 to half the rate, M of 2 or more. Each frame's filter has 2 (M - 1)
    taps and no delay: the inverse transform of the magnitudes under a Hann window (frequency sampling; Engel et al.,
    appendix B.5).
    """
    batch, frames, count = magnitudes.shape
    if count < 2 or noise.shape != (batch, frames * hop):
        raise ValueError(f"need 2 magnitudes or more and noise [{batch}, {frames * hop}], got {tuple(noise.shape)}")
    taps = 2 * (count - 1)
    window = torch.hann_window(taps, periodic=True, dtype=noise.dtype, device=noise.device)
    response = torch.fft.irfft(magnitudes, n=taps).roll(taps // 2, -1) * window
    size = hop + taps - 1
    spectrum = torch.fft.rfft(noise.view(batch, frames, hop), size) * torch.fft.rfft(response, size)
    wav = overlap_add(torch.fft.irfft(spectrum, size), hop)
    return wav[:, taps // 2 : taps // 2 + frames * hop]


def white(count: int, device: torch.device, seed: int = 0) -> Tensor:
    """The same white noise every time, [count], mean square 1."""
    dice = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator=dice).to(device)
