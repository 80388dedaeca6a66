"""The experiment ``sms-experiment``: training a network to play a stem again (:mod:`..gen.separation.sms_network`)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..codec.stft import spectra
from ..gen.separation.sms_network import SmsNetwork
from .separator import SeparatorTask
from .separator_scores import held_out

#: Windows of the spectral distance (Engel et al., 2020, section 4.2).
WINDOWS: tuple[int, ...] = (2048, 1024, 512, 256, 128, 64)


class SmsTask(SeparatorTask):
    """Separator training whose stem is compared by its spectrum and its pitch, because its phases are its own."""

    network: SmsNetwork

    def parts(self, target: Tensor, step: int) -> dict[str, tuple[float, Tensor]]:
        """Losses of a batch of stems [B, 2, C, T]: name -> (weight, scalar)."""
        c = self.config
        level = target.sum(1).square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-8)
        stem = (target[:, 0] / level).mean(1)
        controls = self.network.controls(target.sum(1) / level)
        made = self.network.played(controls)[:, : stem.shape[-1]]
        found = {"spectral": (c.spectral_weight, distance(made, stem))}
        wanted = pitches(stem, self.network)
        voiced = wanted >= 0
        if bool(voiced.any()):
            found["pitch"] = c.level_weight, pitch_loss(controls.logits[voiced], wanted[voiced])
        return found

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Means over held-out songs in which the stem plays.

        ``spectral``: distance of the stem as played to the true one; ``mixture`` and ``silence``: of those to it;
        ``pitch``: how many of the frames with a clear pitch have it, to half a semitone.
        """
        rows = []
        network: SmsNetwork = model  # type: ignore[assignment]
        for stems in held_out(self.config, self.dev, self.device):
            if not bool(stems[0].any()):
                continue
            mix = stems.sum(0)[None]
            level = mix.square().mean().sqrt()
            stem = (stems[:1] / level).mean(1)
            controls = network.controls(mix / level)
            made = network.played(controls)[:, : stem.shape[-1]]
            wanted = pitches(stem, network)
            voiced = wanted >= 0
            right = (controls.logits.argmax(-1) - wanted).abs() * 2 <= network.config.steps
            share = right[voiced].double().mean() if bool(voiced.any()) else torch.tensor(math.nan)
            others = [(mix / level).mean(1), torch.zeros_like(stem)]
            rows.append(torch.stack([*(distance(one, stem).double() for one in (made, *others)), share]))
        if not rows:
            return {}
        means = torch.stack(rows).nanmean(0).tolist()
        return dict(zip(("spectral", "mixture", "silence", "pitch"), means, strict=True))


def distance(made: Tensor, stem: Tensor) -> Tensor:
    """Multi-scale spectral distance (Engel et al., equation 4) of wavs [B, T] of about unit level -> scalar.

    Magnitudes and their logarithms, over six windows with an overlap of three quarters.
    """
    total = made.new_zeros(())
    for window in WINDOWS:
        one, two = (_sizes(wav, window) for wav in (made, stem))
        total = total + (one - two).abs().mean() + ((one + 1e-3).log() - (two + 1e-3).log()).abs().mean()
    return total / len(WINDOWS)


def pitch_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of pitches, logits [M, grid] and places [M] -> scalar.

    A place's neighbours are nearly right: the target is a bell of one step's deviation (Kim et al., 2018, equation 3).
    """
    apart = torch.arange(logits.shape[-1], device=logits.device) - wanted[:, None]
    bell = (-0.5 * apart.float().square()).exp()
    return nn.functional.cross_entropy(logits, bell / bell.sum(-1, keepdim=True))


def pitches(stem: Tensor, network: SmsNetwork) -> Tensor:
    """Places on the network's grid of the pitch of a stem [B, T], frame by frame; -1 where it has none: [B, F].

    YIN (de Cheveigné & Kawahara, 2002, steps 2 to 4) of the true stem; frames 60 dB below the stem's loudest are left
    out. Only training asks for it.
    """
    c = network.config
    lags = math.ceil(c.rate / (440 * 2 ** ((c.lowest - 69) / 12)))
    size = max(c.window, 2 * lags)
    side = (size + lags - c.hop + 1) // 2
    padded = nn.functional.pad(stem, (side, side + size + lags - stem.shape[-1] % c.hop))
    frames = padded.unfold(-1, size + lags, c.hop)[:, : -(-stem.shape[-1] // c.hop)]
    first = frames[..., :size]
    spectrum = torch.fft.rfft(frames, 2 * (size + lags))
    product = torch.fft.irfft(spectrum * torch.fft.rfft(first, 2 * (size + lags)).conj())[..., :lags]
    squares = nn.functional.pad(frames.square().double().cumsum(-1), (1, 0))
    energy = (squares[..., size : size + lags] - squares[..., :lags]).float()
    difference = (energy[..., :1] + energy - 2 * product).clamp(min=0)
    count = torch.arange(lags, device=stem.device)
    clean = difference * count / difference.cumsum(-1).clamp(min=1e-9)
    least = math.floor(c.rate / (440 * 2 ** ((c.highest - 69) / 12)))
    dips = (clean[..., 1:-1] < 0.15) & (clean[..., 1:-1] <= clean[..., :-2]) & (clean[..., 1:-1] < clean[..., 2:])
    dips = dips & (count[1:-1] >= least)
    place = dips.float().argmax(-1) + 1
    a, b, d = (clean.gather(-1, (place + step)[..., None])[..., 0] for step in (-1, 0, 1))
    lag = place + 0.5 * (a - d) / (a - 2 * b + d).clamp(min=1e-9)
    pitch = 69 + 12 * (c.rate / lag / 440).log2()
    found = ((pitch - c.lowest) * c.steps).round().long()
    heard = energy[..., 0] > 1e-6 * energy[..., 0].amax(-1, keepdim=True).clamp(min=1e-9)
    good = dips.any(-1) & heard & (found >= 0) & (found < c.grid)
    return torch.where(good, found, -1)


def _sizes(wav: Tensor, window: int) -> Tensor:
    """Magnitudes of [B, T], the same for louder windows: [B, J, bins]."""
    padded = nn.functional.pad(wav, (window // 2, window // 2))
    spec = spectra(padded, window, window // 4)
    sizes: Tensor = (spec.real.square() + spec.imag.square() + 1e-12).sqrt() / window**0.5
    return sizes
