"""Harmonic and percussive sound by median filters: what lasts lies flat in a spectrogram, what strikes stands upright.

FitzGerald, "Harmonic/Percussive Separation using Median Filtering" (DAFx 2010): a median over time removes strikes, one
over frequency removes tones, and the two are made into masks (his equations 1 to 9). Driedger, Müller and Disch,
"Extending Harmonic-Percussive Separation of Audio Signals" (ISMIR 2014): a margin by which one must exceed the other
leaves a rest that is neither. :func:`hpss` gives what ``librosa.decompose.hpss`` gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .contract import Layout, Separator
from .hpss_kernel import running_median
from .masks import softmask
from .spectral import Grid


@dataclass(frozen=True, kw_only=True)
class HpssSettings:
    """Median filters and masks."""

    kernel: tuple[int, int] = (31, 31)
    """Frames of the harmonic median, bins of the percussive one."""
    power: float = 2.0
    """Of the masks: 1 or 2 are soft, infinity is yes or no."""
    margin: tuple[float, float] = (1.0, 1.0)
    """How many times the harmonic must exceed the percussive to be called so, and the reverse."""

    def __post_init__(self) -> None:
        if min(self.kernel) < 1 or not self.power > 0 or not min(self.margin) >= 1:
            raise ValueError(f"kernels and margins must be 1 or more, the power more than 0: got {self}")


def hpss(
    spec: Tensor, kernel: int | tuple[int, int] = 31, power: float = 2.0,
    margin: float | tuple[float, float] = 1.0, mask: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Harmonic and percussive part of a spectrogram, or with ``mask`` their masks: [..., bins, frames] -> two of those.

    spec: magnitudes or complex. kernel, margin: one for both, or (harmonic, percussive). With margins of 1 the parts
    add up to ``spec``. The values of ``librosa.decompose.hpss``. Raises ValueError for what is out of range.
    """
    settings = HpssSettings(
        kernel=kernel if isinstance(kernel, tuple) else (kernel, kernel), power=power,
        margin=margin if isinstance(margin, tuple) else (margin, margin),
    )  # fmt: skip
    if spec.dim() < 2:
        raise ValueError(f"need a spectrogram [..., bins, frames], got {tuple(spec.shape)}")
    harmonic, percussive = hpss_masks(spec.abs(), settings)
    return (harmonic, percussive) if mask else (spec * harmonic, spec * percussive)


def hpss_masks(magnitude: Tensor, settings: HpssSettings) -> tuple[Tensor, Tensor]:
    """Harmonic and percussive mask: magnitudes [..., bins, frames] -> two of those, in 0 to 1."""
    lasting = running_median(magnitude, settings.kernel[0], -1)
    striking = running_median(magnitude, settings.kernel[1], -2)
    first, second = settings.margin
    # without margins silence is split, so that the masks add up to one; yes or no may be neither where both are equal
    plain = first == 1 and second == 1
    harmonic = softmask(lasting, striking * first if first != 1 else striking, settings.power, plain)
    if plain and not math.isinf(settings.power):
        return harmonic, 1 - harmonic
    return harmonic, softmask(striking, lasting * second if second != 1 else lasting, settings.power, plain)


class HPSS(Separator):
    """``harmonic`` and ``percussive``; with a margin above 1 also ``rest``, which is neither (Driedger et al. 2014)."""

    def __init__(self, settings: HpssSettings | None = None, grid: Grid | None = None) -> None:
        self.settings, self.grid = settings or HpssSettings(), grid or Grid()
        self.stems = ("harmonic", "percussive") + (("rest",) if max(self.settings.margin) > 1 else ())
        self.rate, self.layout = self.grid.rate, _layout(self.settings, self.grid)

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        spec = self.grid.analyse(wav)
        harmonic, percussive = hpss_masks(spec.abs().transpose(-1, -2), self.settings)
        masks = [harmonic, percussive, 1 - harmonic - percussive if 2 in keep else None]
        made = [spec * mask.transpose(-1, -2) for mask in (masks[number] for number in keep) if mask is not None]
        return torch.stack([self.grid.synthesise(part, wav.shape[-1]) for part in made], 1)


@dataclass(frozen=True, kw_only=True)
class TwoStageSettings:
    """Two resolutions: a voice moves too much to last in long frames, and too little to strike in short ones."""

    long: Grid = field(default_factory=lambda: Grid(window=16384, hop=4096))
    short: Grid = field(default_factory=lambda: Grid(window=1024, hop=256))
    long_masks: HpssSettings = field(default_factory=lambda: HpssSettings(kernel=(17, 17)))
    short_masks: HpssSettings = field(default_factory=lambda: HpssSettings(kernel=(17, 17)))

    def __post_init__(self) -> None:
        if self.long.rate != self.short.rate or self.long.window <= self.short.window:
            raise ValueError(f"need one rate, and long frames longer than short ones: got {self.long}, {self.short}")


class TwoStageHPSS(Separator):
    """``harmonic``, ``vocals`` and ``percussive``: twice harmonic against percussive, in long frames, then short ones.

    Tachibana, Ono and Sagayama, "Singing Voice Enhancement in Monaural Music Signals Based on Two-stage
    Harmonic/Percussive Sound Separation on Multiple Resolution Spectrograms" (IEEE/ACM TASLP 22(1), 2014), with the
    median filters of FitzGerald and Gainza, "Single Channel Vocal Separation using Median Filtering and Factorisation
    Techniques" (ISAST Transactions 4(1), 2010).
    """

    stems = ("harmonic", "vocals", "percussive")

    def __init__(self, settings: TwoStageSettings | None = None) -> None:
        self.settings = settings or TwoStageSettings()
        self.rate = self.settings.long.rate
        self.layout = _layout(self.settings.long_masks, self.settings.long)
        self._long = HPSS(self.settings.long_masks, self.settings.long)
        self._short = HPSS(self.settings.short_masks, self.settings.short)

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        harmonic = self._long.estimate(wav, (0,))[:, 0]
        if tuple(keep) == (0,):
            return harmonic[:, None]
        rest = wav - harmonic
        vocals = self._short.estimate(rest, (0,))[:, 0]
        made = (harmonic, vocals, rest - vocals)
        return torch.stack([made[number] for number in keep], 1)


def _layout(settings: HpssSettings, grid: Grid) -> Layout:
    """Chunks with as much context as the median over time and the frames reach."""
    reach = (settings.kernel[0] // 2 + 1) * grid.hop + grid.window
    return grid.layout(10.0, (reach + grid.hop) / grid.rate)
