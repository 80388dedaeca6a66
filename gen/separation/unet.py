"""A U-Net on magnitudes: masks for all stems from a picture of the spectrum.

Jansson et al., "Singing voice separation with deep U-Net convolutional networks", 2017; the same idea at scale is
Spleeter (Hennequin et al., 2020). Strided convolutions make the picture smaller, transposed ones make it large again,
and each layer on the way up also sees its twin on the way down. Stems keep the mixture's phase.

Two things differ from the papers: any length is taken at once, not in patches of a fixed one, and layers are normed by
item instead of by batch, so that what a sound gives does not depend on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...codec.stft import analyse, synthesise
from .network import StemNetwork, checked, consistent


@dataclass(frozen=True, kw_only=True)
class MaskUNetConfig:
    """Sizes of a U-Net."""

    stems: tuple[str, ...] = ("drums", "bass", "lead", "other")
    """What it takes a mixture apart into."""
    rate: int = 32000
    """Sample rate in Hz."""
    channels: int = 2
    window: int = 2048
    """Samples of a frame."""
    hop: int = 512
    widths: tuple[int, ...] = (16, 32, 64, 96, 128, 160)
    """Features of each layer; each halves time and frequency."""
    kernel: int = 5
    """Frames and bins that a layer looks at; odd."""
    mask: str = "softmax"
    """``softmax``: the masks are shares, and stems add up; ``sigmoid``: each mask by itself, what is left is shared."""
    drop: float = 0.0
    """Share of the features that training drops in the first three layers on the way up."""

    def __post_init__(self) -> None:
        if len(self.stems) < 2 or len(set(self.stems)) != len(self.stems):
            raise ValueError(f"stems must be two or more different names, got {self.stems}")
        if self.channels not in (1, 2):
            raise ValueError(f"a U-Net hears 1 or 2 channels, not {self.channels}")
        if self.hop < 1 or self.window % (2 * self.hop):
            raise ValueError(f"window {self.window} must be an even multiple of hop {self.hop}, such as 2048 and 512")
        if not self.widths or min(*self.widths, self.rate) < 1 or self.kernel < 3 or not self.kernel % 2:
            raise ValueError(f"widths {self.widths} and rate must be positive, kernel {self.kernel} odd, 3 or more")
        if self.window // 2 % 2 ** len(self.widths):
            raise ValueError(f"{len(self.widths)} layers cannot halve {self.window // 2} bins: use fewer widths")
        if self.mask not in ("softmax", "sigmoid") or not 0 <= self.drop < 1:
            raise ValueError(f"mask {self.mask!r} must be softmax or sigmoid, drop {self.drop} from 0 to below 1")


class MaskUNet(StemNetwork):
    """Mixture [B, C, T] -> stems [B, N, C, T] that add up to it."""

    signed = False

    def __init__(self, config: MaskUNetConfig) -> None:
        super().__init__()
        self.config: MaskUNetConfig = config
        c = config
        sizes = (c.channels, *c.widths)
        self.down = nn.ModuleList(Down(a, b, c.kernel) for a, b in pairwise(sizes))
        ups = []
        for place, width in enumerate(reversed(c.widths)):
            # but for the innermost, each hears its twin beside what comes from below
            into = width * (2 if place else 1)
            out = c.widths[-place - 2] if place + 1 < len(c.widths) else len(c.stems) * c.channels
            ups.append(Up(into, out, c.kernel, c.drop if place < 3 else 0.0, place + 1 == len(c.widths)))
        self.up = nn.ModuleList(ups)

    def forward(self, wav: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """wav: [B, C, T] -> stems [B, N, C, T]; only those numbered in ``keep``, in that order, when given."""
        c, length = self.config, wav.shape[-1]
        wav = checked(wav, c.channels)
        spec = analyse(functional.pad(wav, (0, -length % c.hop)), c.window, c.hop)  # [B, C, J, bins]
        masks = self.masks(spec.abs())
        if keep is not None and c.mask == "softmax":
            masks, keep = masks[:, list(keep)], None
        out = synthesise(masks * spec[:, None], c.window, c.hop)[..., :length]
        if c.mask == "sigmoid":
            out = consistent(out, wav)
        made: Tensor = out if keep is None else out[:, list(keep)]
        return made

    def masks(self, size: Tensor) -> Tensor:
        """Magnitudes [B, C, J, bins] -> masks from 0 to 1, [B, N, C, J, bins]."""
        c, frames = self.config, size.shape[2]
        # the highest bin would make the number of bins odd: it takes its neighbour's mask
        x = functional.pad(size[..., :-1].log1p(), (0, 0, 0, -frames % 2 ** len(c.widths)))
        twins = []
        for layer in self.down:
            x = layer(x)
            twins.append(x)
        for place, layer in enumerate(self.up):
            x = layer(x if not place else torch.cat([x, twins[-place - 1]], 1))
        x = x[:, :, :frames].float().reshape(len(x), len(c.stems), c.channels, frames, -1)
        made = x.softmax(1) if c.mask == "softmax" else x.sigmoid()
        return torch.cat([made, made[..., -1:]], -1)


class Down(nn.Module):
    """Half the frames, half the bins."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, 2, kernel // 2)
        self.norm = nn.GroupNorm(1, after)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, D, J, K] -> [B, E, J / 2, K / 2]."""
        out: Tensor = functional.leaky_relu(self.norm(self.conv(x)), 0.2)
        return out


class Up(nn.Module):
    """Twice the frames, twice the bins."""

    def __init__(self, before: int, after: int, kernel: int, drop: float, last: bool) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, kernel, 2, kernel // 2, output_padding=1)
        self.norm = None if last else nn.GroupNorm(1, after)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, D, J, K] -> [B, E, 2 J, 2 K]; the last layer gives logits."""
        x = self.conv(x)
        return x if self.norm is None else self.drop(functional.relu(self.norm(x)))
