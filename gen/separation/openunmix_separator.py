"""Open-Unmix networks, one a stem, and the filter that makes their stems fit together, as a separator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from .contract import Layout, Separator
from .openunmix import OpenUnmix
from .openunmix_filter import FilterSettings, wiener


@dataclass(frozen=True, kw_only=True)
class OpenUnmixSettings:
    """Spectra, and what is done with the magnitudes that the networks find."""

    rate: int = 44100
    """Hz."""
    hop: int = 1024
    """Samples from frame to frame; the window follows from the networks' bins."""
    filter: FilterSettings = field(default_factory=FilterSettings)
    level: float | None = 0.15
    """Root mean square of the sound that networks hear, which know how loud music is; None: as loud as it comes."""

    def __post_init__(self) -> None:
        if self.rate < 1000 or self.hop < 1 or (self.level is not None and not self.level > 0):
            raise ValueError(f"rate must be 1000 or more, hop 1 or more and level more than 0, got {self}")


class OpenUnmixSeparator(Separator):
    """Networks by stem. With filter iterations all of them are run for any stem: the filter weighs all stems.

    Raises ValueError for networks that differ in size.
    """

    precisions = ("fp32", "bf16")

    def __init__(
        self, networks: Mapping[str, OpenUnmix], settings: OpenUnmixSettings | None = None, layout: Layout | None = None
    ) -> None:
        self.settings = settings = settings or OpenUnmixSettings()
        self.networks = nn.ModuleDict(dict(networks)).eval()
        sizes = {(network.config.bins, network.config.channels) for network in networks.values()}
        if len(sizes) != 1:
            raise ValueError(f"the networks must have the same bins and channels, got {sorted(sizes) or 'none'}")
        (bins, self.channels), *_ = sizes
        self.window = 2 * (bins - 1)
        if settings.hop > self.window // 2:
            raise ValueError(f"a hop of {settings.hop} is more than half the window of {self.window}")
        self.stems, self.rate, self.grain = tuple(networks), settings.rate, settings.hop
        self.levelled = settings.level is not None
        self.layout = layout or _layout(settings)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.networks.parameters()).device

    def estimate(self, wav: Tensor, keep: Sequence[int]) -> Tensor:
        """wav [B, C, T] -> stems [B, len(keep), C, T]."""
        level = self.settings.level or 1.0
        spec = self._analysed(wav * level)
        alone = self.settings.filter.iterations == 0 and not self.settings.filter.shares
        names = [self.stems[number] for number in keep] if alone else list(self.stems)
        magnitude = spec.abs()
        found = torch.stack([self.networks[name](magnitude).float() for name in names], 1)  # [B, N, C, K, F]
        wanted = range(len(keep)) if alone else keep
        rows = [wiener(one, mix, self._filter, wanted) for one, mix in zip(found, spec, strict=True)]
        return self._synthesised(torch.stack(rows), wav.shape[-1]) / level

    @property
    def _filter(self) -> FilterSettings:
        # one stem alone would be the whole mixture to the filter
        plain = self.settings.filter
        if len(self.stems) > 1 or plain.residual or not plain.iterations:
            return plain
        return replace(plain, residual=True)

    def _analysed(self, wav: Tensor) -> Tensor:
        """wav [B, C, T] -> complex [B, C, K, F]."""
        # frames reflect the ends, for which there must be more than half a window
        short = max(0, self.window // 2 + 1 - wav.shape[-1])
        flat = torch.nn.functional.pad(wav.flatten(0, 1).float(), (0, short))
        spec = torch.stft(flat, self.window, self.settings.hop, window=self._hann(wav), return_complex=True)
        return spec.reshape(*wav.shape[:2], *spec.shape[1:])

    def _synthesised(self, spec: Tensor, length: int) -> Tensor:
        """Complex [B, N, C, K, F] -> wav [B, N, C, length]."""
        flat = spec.flatten(0, 2)
        whole = max(length, self.window // 2 + 1)
        wav = torch.istft(flat, self.window, self.settings.hop, window=self._hann(flat), length=whole)
        return wav[:, :length].reshape(*spec.shape[:3], length)

    def _hann(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.window, device=like.device)


def _layout(settings: OpenUnmixSettings) -> Layout:
    """Chunks of 8 s or a little more, in which, with a second around them, the filter has whole stretches."""
    frame, around = settings.hop / settings.rate, max(4, round(settings.rate / settings.hop))
    beside = 2 * around + around // 4
    stretches = -(-(8 * around + beside) // settings.filter.frames)
    chunk = stretches * settings.filter.frames - 1 - beside  # n samples make n / hop + 1 frames
    return Layout(chunk=chunk * frame, before=around * frame, after=around * frame, fade=around // 4 * frame)
