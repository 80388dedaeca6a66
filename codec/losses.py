"""Reconstruction and adversarial losses.

Log-mel distances are blind to phase, so a complex-STFT distance stands beside them; one without the other gives
either buzzing or blurred sound.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .stft import mel_filters, spectra

#: (window, mel bands) of the multi-scale log-mel loss, hop = window / 4 (Kumar et al., DAC, 2023, section 3.4).
MEL_SCALES: tuple[tuple[int, int], ...] = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
#: Windows of the complex-STFT loss.
PHASE_SCALES: tuple[int, ...] = (2048, 512, 128)


def spectral_loss(
    output: Tensor, target: Tensor, rate: int, scales: Sequence[tuple[int, int]] = MEL_SCALES
) -> tuple[Tensor, Tensor]:
    """Multi-scale mel and phase losses of output against target, both [B, C, T]; rate in Hz.

    mel: mean over ``scales``, (window, bands) pairs, of the L1 distance of log10 mel magnitudes.
    phase: mean over those of :data:`PHASE_SCALES` among them of mean |X - Y| / mean |Y| per item over complex STFTs;
    relative, so that quiet passages weigh as much as loud ones.
    Both share their transforms; no gradient reaches the target.
    """
    mel_total, phase_total = output.new_zeros(()), output.new_zeros(())
    count = 0
    for window, bands in scales:
        bank = mel_filters(rate, window, bands).to(output.device).t()
        with torch.no_grad():
            theirs = _frames(target, window)
            their_level = _level(theirs, bank)
        ours = _frames(output, window)
        mel_total = mel_total + (_level(ours, bank) - their_level).abs().mean()
        if window in PHASE_SCALES:
            count += 1
            error = (ours - theirs).square().sum(-1).add(1e-10).sqrt().mean((1, 2))
            scale = theirs.square().sum(-1).sqrt().mean((1, 2))
            phase_total = phase_total + (error / (scale + 1e-3)).mean()
    return mel_total / len(scales), phase_total / max(count, 1)


def _frames(wav: Tensor, window: int) -> Tensor:
    # [B, C, T] -> [B * C, J, bins, 2]; no padding: crops have no edges worth modelling
    return torch.view_as_real(spectra(wav.reshape(-1, wav.shape[-1]), window, window // 4))


def _level(frames: Tensor, bank: Tensor) -> Tensor:
    # the floor keeps the square root's gradient finite in silence
    magnitude = frames.square().sum(-1).add(1e-10).sqrt()
    return (magnitude @ bank).clamp(min=1e-5).log10()


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Hinge loss of the discriminators' scores on real and generated audio (Lim & Ye, Geometric GAN, 2017)."""
    terms = [(1 - r).relu().mean() + (1 + f).relu().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Generator's side of the hinge loss."""
    return torch.stack([-f.mean() for f in fake]).mean()


def feature_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Relative feature matching: L1 of each layer over the layer's mean magnitude (Défossez et al., 2022, eq. 2)."""
    terms = []
    for layers_real, layers_fake in zip(real, fake, strict=True):
        for r, f in zip(layers_real, layers_fake, strict=True):
            terms.append((f - r.detach()).abs().mean() / r.detach().abs().mean().clamp(min=1e-3))
    return torch.stack(terms).mean()
