"""Reconstruction and adversarial losses.

Log-mel distances are blind to phase, so a complex-STFT distance stands beside them; one without the other gives
either buzzing or blurred sound. Stereo is compared as mid, side, left and right: left and right alone hear a wrong
side signal only where it is loud. Everything is a mean over items, so that a batch may be shared among processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .noise import MEAN_MAGNITUDE
from .stft import mel_filters, spectra

#: (window, mel bands) of the multi-scale log-mel loss, hop = window / 4 (Kumar et al., DAC, 2023, section 3.4).
MEL_SCALES: tuple[tuple[int, int], ...] = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
#: Windows of the complex-STFT loss.
PHASE_SCALES: tuple[int, ...] = (2048, 512, 128)
#: Weights of mid, side, left and right in a stereo loss, as :func:`views` orders them; their sum is 1.
VIEW_WEIGHTS: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 6, 1 / 6)


def spectral_loss(
    output: Tensor,
    target: Tensor,
    rate: int,
    scales: Sequence[tuple[int, int]] = MEL_SCALES,
    weights: Sequence[float] | None = None,
    noise: Callable[[int], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Multi-scale mel and phase losses of output against target, both [B, C, T]; rate in Hz.

    mel: mean over ``scales``, (window, bands) pairs, of the L1 distance of log10 mel magnitudes.
    phase: mean over those of :data:`PHASE_SCALES` among them of mean |X - Y| / mean |Y| per item over complex STFTs;
    relative, so that quiet passages weigh as much as loud ones.
    weights: of the channels, with sum 1 (equal by default).
    noise: window -> power [B * C, J, bins] that the output has beside ``output`` itself on average; mel counts it,
    phase does not.
    Both share their transforms; no gradient reaches the target.
    """
    channels = output.shape[1]
    if weights is not None and len(weights) != channels:
        raise ValueError(f"{len(weights)} weights for {channels} channels: give one each")
    share = output.new_tensor(weights if weights is not None else [1 / channels] * channels)
    # per row [B * C], so that their weighted sum is a mean over items
    row_weight = share.repeat(output.shape[0]) / output.shape[0]
    mel_total, phase_total = output.new_zeros(()), output.new_zeros(())
    count = 0
    for window, bands in scales:
        bank = mel_filters(rate, window, bands).to(output.device).t()
        with torch.no_grad():
            theirs = _frames(target, window)
            their_level = _level(theirs.square().sum(-1), bank)
        ours = _frames(output, window)
        power = ours.square().sum(-1)
        if noise is not None:
            power = power + noise(window) * MEAN_MAGNITUDE**2
        mel_total = mel_total + row_weight @ (_level(power, bank) - their_level).abs().mean((1, 2))
        if window in PHASE_SCALES:
            count += 1
            error = (ours - theirs).square().sum(-1).add(1e-10).sqrt().mean((1, 2))
            scale = theirs.square().sum(-1).sqrt().mean((1, 2))
            phase_total = phase_total + row_weight @ (error / (scale + 1e-3))
    return mel_total / len(scales), phase_total / max(count, 1)


def _frames(wav: Tensor, window: int) -> Tensor:
    # [B, C, T] -> [B * C, J, bins, 2]; no padding: crops have no edges worth modelling
    return torch.view_as_real(spectra(wav.reshape(-1, wav.shape[-1]), window, window // 4))


def _level(power: Tensor, bank: Tensor) -> Tensor:
    # the floor keeps the square root's gradient finite in silence
    magnitude = power.add(1e-10).sqrt()
    return (magnitude @ bank).clamp(min=1e-5).log10()


def signal_loss(output: Tensor, target: Tensor, noise: Tensor | float = 0.0) -> Tensor:
    """Mean over items of log10(energy of the error / energy of the target), both [B, C, T].

    noise: [B], energy that the output has beside ``output`` itself on average, all of it error. The logarithm gives
    every item the same say, loud or quiet, well or badly coded; it ends at 1e-3, -30 dB.
    """
    error = (output - target).square().sum((1, 2)) + noise
    energy = target.square().sum((1, 2))
    return ((error + 1e-3 * energy + 1e-2) / (energy + 1e-2)).log10().mean()


def views(wav: Tensor) -> Tensor:
    """What a loss should look at: mono as it is, stereo [B, 2, T] as mid, side, left, right [B, 4, T]."""
    if wav.shape[1] == 1:
        return wav
    left, right = wav.unbind(1)
    return torch.stack([(left + right) / 2, (left - right) / 2, left, right], 1)


def views_of_power(power: Tensor) -> Tensor:
    """Power of independent signals in the channels of :func:`views`: [B, 1, ..] as it is, mid and side [B, 2, ..]."""
    if power.shape[1] == 1:
        return power
    both = power.sum(1, keepdim=True)
    return torch.cat([power, both, both], 1)


def view_weights(channels: int) -> tuple[float, ...]:
    """Weights of the channels of :func:`views` for audio of ``channels`` channels."""
    return (1.0,) if channels == 1 else VIEW_WEIGHTS


def waveform_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of samples [B, C, T] (Défossez et al., 2022, section 3.4, the time-domain term)."""
    return (output - target).abs().mean()


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor], form: str = "hinge") -> Tensor:
    """The discriminators' own loss on their scores of real and generated audio, a mean over discriminators.

    form: ``hinge`` (Lim & Ye, Geometric GAN, 2017) or ``lsgan``, least squares (Mao et al., 2017, equation 2, with
    targets 1 and 0).
    """
    if _hinge(form):
        terms = [(1 - r).relu().mean() + (1 + f).relu().mean() for r, f in zip(real, fake, strict=True)]
    else:
        terms = [(1 - r).square().mean() + f.square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def adversarial_loss(fake: Sequence[Tensor], form: str = "hinge") -> Tensor:
    """Generator's side of :func:`discriminator_loss`."""
    terms = [-f.mean() for f in fake] if _hinge(form) else [(1 - f).square().mean() for f in fake]
    return torch.stack(terms).mean()


def feature_loss(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Relative feature matching: L1 of each layer over the layer's mean magnitude (Défossez et al., 2022, eq. 2).

    Layers [B, ..]; the magnitude is each item's own, so that an item's loss does not depend on its neighbours. No
    gradient reaches the real ones.
    """
    terms = []
    for layers_real, layers_fake in zip(real, fake, strict=True):
        for r, f in zip(layers_real, layers_fake, strict=True):
            r = r.detach()
            scale = r.abs().flatten(1).mean(1).clamp(min=1e-3)
            terms.append(((f - r).abs().flatten(1).mean(1) / scale).mean())
    return torch.stack(terms).mean()


def _hinge(form: str) -> bool:
    if form not in ("hinge", "lsgan"):
        raise ValueError(f"the adversarial loss is 'hinge' or 'lsgan', got {form!r}")
    return form == "hinge"
