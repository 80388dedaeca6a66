"""Conv-TasNet: a learned basis in place of the spectrum, and masks from a stack of dilated convolutions.

Luo & Mesgarani, "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation", 2019. An
encoder turns overlapping pieces of sound into weights of learned filters, a temporal convolutional network estimates
one mask for each stem, a decoder turns masked weights back into sound. Letters in brackets are the paper's. For stereo
the filters span both channels, as in Défossez et al. (2019, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .network import StemNetwork, checked, consistent

_EPS = 1e-8


@dataclass(frozen=True, kw_only=True)
class ConvTasNetConfig:
    """Sizes of a Conv-TasNet."""

    stems: tuple[str, ...] = ("drums", "bass", "lead", "other")
    """What it takes a mixture apart into."""
    rate: int = 32000
    """Sample rate in Hz."""
    channels: int = 2
    filters: int = 256
    """Learned filters (N)."""
    kernel: int = 64
    """Samples of a filter (L); frames are half of it apart."""
    width: int = 128
    """Channels between the blocks (B and Sc)."""
    hidden: int = 256
    """Channels inside a block (H)."""
    taps: int = 3
    """Frames that a block's convolution looks at (P)."""
    blocks: int = 8
    """Blocks of a repeat, each dilated twice as far as the one before (X)."""
    repeats: int = 3
    """How often the blocks come (R)."""
    mask: str = "sigmoid"
    """``sigmoid`` or ``relu``."""
    causal: bool = False
    """Look back only, with cumulative norms: the delay is one filter."""
    consistent: bool = True
    """Share what the stems leave of the mixture among them, in training too."""

    def __post_init__(self) -> None:
        if len(self.stems) < 2 or len(set(self.stems)) != len(self.stems):
            raise ValueError(f"stems must be two or more different names, got {self.stems}")
        if self.channels not in (1, 2):
            raise ValueError(f"a Conv-TasNet hears 1 or 2 channels, not {self.channels}")
        if self.kernel < 2 or self.kernel % 2 or self.taps < 1 or not self.taps % 2:
            raise ValueError(f"kernel {self.kernel} must be even, taps {self.taps} odd")
        if not 1 <= self.blocks <= 20 or min(self.filters, self.width, self.hidden, self.repeats, self.rate) < 1:
            raise ValueError("filters, width, hidden, repeats and rate must be positive, blocks 1 to 20")
        if self.blocks * self.repeats > 512:
            raise ValueError(f"{self.blocks} blocks {self.repeats} times are too many: at most 512 in all")
        if self.mask not in ("sigmoid", "relu"):
            raise ValueError(f"unknown mask {self.mask!r}: sigmoid or relu")

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return self.kernel // 2

    @property
    def context(self) -> int:
        """Samples on either side of a sample that masks look at; the norms hear everything, or all that came before."""
        frames: int = self.repeats * (2**self.blocks - 1) * (self.taps - 1)
        return (frames if self.causal else frames // 2) * self.hop + self.kernel


class ConvTasNet(StemNetwork):
    """Mixture [B, C, T] -> stems [B, N, C, T]."""

    def __init__(self, config: ConvTasNetConfig) -> None:
        super().__init__()
        self.config: ConvTasNetConfig = config
        c = config
        self.encoder = nn.Conv1d(c.channels, c.filters, c.kernel, c.hop, bias=False)
        self.norm = _norm(c.filters, c.causal)
        self.enter = nn.Conv1d(c.filters, c.width, 1)
        last = c.repeats * c.blocks - 1
        self.blocks = nn.ModuleList(
            Block(c, 2 ** (number % c.blocks), number < last) for number in range(c.repeats * c.blocks)
        )
        self.bend = nn.PReLU()
        self.leave = nn.Conv1d(c.width, len(c.stems) * c.filters, 1)
        self.decoder = nn.ConvTranspose1d(c.filters, c.channels, c.kernel, c.hop, bias=False)

    def forward(self, wav: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """wav: [B, C, T] -> stems [B, N, C, T]; only those numbered in ``keep``, in that order, when given."""
        c, length = self.config, wav.shape[-1]
        wav = checked(wav, c.channels)
        # a hop of silence on both sides, so that every sample lies in two frames
        padded = functional.pad(wav, (c.hop, -length % c.hop + c.hop))
        weights = self.encoder(padded)
        rows = None if keep is None or c.consistent else list(keep)
        masks = self.masks(weights, rows)
        out = self.decoder((masks * weights[:, None]).flatten(0, 1)).unflatten(0, masks.shape[:2])
        out = out[..., c.hop : c.hop + length].float()
        if c.consistent:
            out = consistent(out, wav)
            out = out if keep is None else out[:, list(keep)]
        made: Tensor = out
        return made

    def masks(self, weights: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """Weights of the filters [B, F, J] -> masks [B, N, F, J], those of the stems in ``keep``."""
        c = self.config
        x = self.enter(self.norm(weights))
        total = torch.zeros(())
        for block in self.blocks:
            x, skipped = block(x)
            total = total.to(skipped) + skipped
        matrix, bias = self.leave.weight, self.leave.bias
        if keep is not None and bias is not None:
            matrix = matrix.view(-1, c.filters, c.width, 1)[list(keep)].flatten(0, 1)
            bias = bias.view(-1, c.filters)[list(keep)].flatten()
        made = functional.conv1d(self.bend(total), matrix, bias).view(len(x), -1, c.filters, x.shape[-1])
        return made.sigmoid() if c.mask == "sigmoid" else made.relu()


class Block(nn.Module):
    """Pointwise, dilated depthwise and pointwise convolution (figure 1C of the paper)."""

    def __init__(self, config: ConvTasNetConfig, dilation: int, goes_on: bool) -> None:
        super().__init__()
        c = config
        self.up = nn.Conv1d(c.width, c.hidden, 1)
        self.bend_up, self.norm_up = nn.PReLU(), _norm(c.hidden, c.causal)
        self.along = nn.Conv1d(c.hidden, c.hidden, c.taps, dilation=dilation, groups=c.hidden)
        self.bend_along, self.norm_along = nn.PReLU(), _norm(c.hidden, c.causal)
        self.down = nn.Conv1d(c.hidden, c.width, 1) if goes_on else None
        self.skip = nn.Conv1d(c.hidden, c.width, 1)
        reach = (c.taps - 1) * dilation
        self.sides = (reach, 0) if c.causal else (reach // 2, reach // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, D, J] -> what goes on to the next block and what skips to the end, [B, D, J] each."""
        h = self.norm_up(self.bend_up(self.up(x)))
        h = self.norm_along(self.bend_along(self.along(functional.pad(h, self.sides))))
        return (x if self.down is None else x + self.down(h)), self.skip(h)


class CumulativeNorm(nn.Module):
    """Cumulative layer norm (equations 9 and 10 of the paper): over all channels and all frames so far."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, D, J] -> [B, D, J]."""
        count = torch.arange(1, x.shape[-1] + 1, device=x.device) * x.shape[1]
        # sums over many frames need more digits than the frames have
        mean = x.double().sum(1).cumsum(1) / count
        power = x.double().square().sum(1).cumsum(1) / count
        scale = (power - mean.square()).clamp(min=0).add(_EPS).rsqrt().float()[:, None]
        return (x - mean.float()[:, None]) * scale * self.weight[:, None] + self.bias[:, None]


def _norm(channels: int, causal: bool) -> nn.Module:
    """Global layer norm (equations 7 and 8), or the cumulative one."""
    return CumulativeNorm(channels) if causal else nn.GroupNorm(1, channels, eps=_EPS)
