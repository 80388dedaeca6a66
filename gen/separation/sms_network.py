"""An experiment: a stem that is played again instead of being cut out of the mixture.

Gabrielli, "Music source separation with DDSP" (2024), regresses the controls of a sinusoids-plus-noise synthesiser from
the mixture's spectrogram. Here the stem has one voice, so its partials are harmonics of one pitch, which is read off a
grid of pitches like CREPE's (Kim et al., 2018): a pitch cannot be found by following the gradient of a spectral loss.
What the stem sounds like is kept, its phases are not: the rest, which is the mixture less the stem, still holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...codec.stft import analyse, mel_filters
from . import sms
from .network import StemNetwork, checked

#: Lowest bins that are heard one by one, and mel bands over all of them.
_BINS, _MELS = 256, 64
#: Multiples of a pitch that are looked at to tell whether it sounds (Bittner et al., 2017); half of it tells octaves.
_MULTIPLES = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class SmsConfig:
    """Sizes of a network that plays a stem again."""

    stems: tuple[str, ...] = ("bass", "rest")
    """The stem, which has one voice, and a name for what is left."""
    rate: int = 32000
    """Sample rate in Hz."""
    channels: int = 2
    window: int = 8192
    """Samples of a frame that is heard; low notes need long ones."""
    hop: int = 512
    """Samples from frame to frame, heard and played."""
    width: int = 128
    reach: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 8)
    """Frames to the neighbours that a layer looks at, layer by layer."""
    harmonics: int = 48
    bands: int = 33
    """Magnitudes of the noise's filter."""
    lowest: int = 24
    """MIDI pitch."""
    highest: int = 72
    steps: int = 4
    """Places of the grid in a semitone."""

    def __post_init__(self) -> None:
        if len(self.stems) != 2 or self.stems[0] == self.stems[1]:
            raise ValueError(f"stems are one stem and the rest, got {self.stems}")
        if self.channels not in (1, 2) or self.hop < 1 or self.window % (2 * self.hop) or self.window < 2 * _BINS:
            raise ValueError(f"channels are 1 or 2, window {self.window} at least {2 * _BINS} and twice {self.hop}'s")
        sizes = (self.width, *self.reach, self.harmonics, self.bands - 1, self.steps, self.highest - self.lowest)
        if not self.reach or min(sizes) < 1 or not 0 <= self.lowest < self.highest <= 127:
            raise ValueError("width, reach, harmonics, steps must be positive, bands 2 or more, lowest below highest")

    @property
    def grid(self) -> int:
        """Places of the grid of pitches."""
        return (self.highest - self.lowest) * self.steps + 1


@dataclass(frozen=True)
class Controls:
    """What a synthesiser is told, frame by frame."""

    logits: Tensor
    """[B, F, grid]: how likely each pitch is."""
    amplitude: Tensor
    """[B, F] of the harmonics together."""
    shares: Tensor
    """[B, F, H] of each harmonic, summing to one."""
    noise: Tensor
    """[B, F, M]: magnitudes of the filter of the noise."""


class SmsNetwork(StemNetwork):
    """Mixture [B, C, T] -> a stem played again and the rest, [B, 2, C, T]; the same on all channels."""

    def __init__(self, config: SmsConfig) -> None:
        super().__init__()
        self.config: SmsConfig = config
        c = config
        self.enter = nn.Linear(_BINS + _MELS, c.width)
        self.layers = nn.ModuleList(nn.Conv1d(c.width, c.width, 3, padding=reach, dilation=reach) for reach in c.reach)
        self.norms = nn.ModuleList(nn.LayerNorm(c.width) for _ in c.reach)
        self.norm = nn.LayerNorm(c.width)
        # one rule for all pitches: what a few seconds teach about one holds for the others
        self.salience = nn.Sequential(nn.Linear(len(_MULTIPLES), 24), nn.GELU(), nn.Linear(24, 1))
        self.leave = nn.Linear(c.width, c.grid + 1 + c.harmonics + c.bands)

    def forward(self, wav: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """wav: [B, C, T] -> [B, 2, C, T]; only those numbered in ``keep``, in that order, when given."""
        wav = checked(wav, self.config.channels)
        stem = self.played(self.controls(wav))[:, None, : wav.shape[-1]].expand(-1, wav.shape[1], -1)
        made = torch.stack([stem, wav - stem], 1)
        return made if keep is None else made[:, list(keep)]

    def controls(self, wav: Tensor) -> Controls:
        """wav: [B, C, T] -> controls of F = ceil(T / hop) frames."""
        c = self.config
        mono = functional.pad(wav.mean(1), (0, -wav.shape[-1] % c.hop))
        size = analyse(mono, c.window, c.hop).abs()  # [B, F, bins]
        mels = size @ mel_filters(c.rate, c.window, _MELS).to(size).T
        x = self.enter(torch.cat([(10 * size[..., :_BINS]).log1p(), (100 * mels).log1p()], -1))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + layer(functional.gelu(norm(x)).transpose(1, 2)).transpose(1, 2)
        logits, amplitude, shares, noise = self.leave(self.norm(x)).float().split([c.grid, 1, c.harmonics, c.bands], -1)
        logits = logits + self.salience((10 * self._multiples(size)).log1p())[..., 0].float()
        # far below the mixture to begin with
        return Controls(logits, _positive(amplitude[..., 0] - 1), shares.softmax(-1), _positive(noise - 5))

    def _multiples(self, size: Tensor) -> Tensor:
        """Magnitudes [B, F, bins] -> those at the multiples of each pitch of the grid, [B, F, grid, P]."""
        c = self.config
        pitch = c.lowest + torch.arange(c.grid, dtype=torch.float64) / c.steps
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        place = (hertz[:, None] * torch.tensor(_MULTIPLES, dtype=torch.float64) * c.window / c.rate).to(size)
        place = place.clamp(max=c.window // 2 - 1)
        left = place.floor().long()
        share = place - left
        return size[..., left] * (1 - share) + size[..., left + 1] * share

    def played(self, controls: Controls) -> Tensor:
        """Controls of F frames -> wav [B, F * hop]."""
        c = self.config
        tone = sms.harmonics(self.f0(controls.logits), controls.amplitude, controls.shares, c.rate, c.hop)
        noise = sms.white(tone.shape[1], tone.device).expand_as(tone)
        return tone + sms.filtered_noise(controls.noise, noise, c.hop)

    def f0(self, logits: Tensor) -> Tensor:
        """Hz of the pitches [B, F, grid] -> [B, F]: the mean of the most likely one and its neighbours (Kim et al.)."""
        c = self.config
        best = logits.argmax(-1, keepdim=True)
        places = best + torch.arange(-c.steps, c.steps + 1, device=logits.device)
        inside = (places >= 0) & (places < c.grid)
        places = places.clamp(0, c.grid - 1)
        weight = logits.gather(-1, places).masked_fill(~inside, -torch.inf).softmax(-1)
        pitch = c.lowest + (weight * places).sum(-1) / c.steps
        hertz: Tensor = 440 * 2 ** ((pitch - 69) / 12)
        return hertz


def _positive(x: Tensor) -> Tensor:
    """From any number to one above 0 (Engel et al., appendix B.4)."""
    return 2 * x.sigmoid() ** 2.3 + 1e-7
