"""A compact band-split network: all stems in one pass, whose sum is the mixture.

The spectrum is cut into bands that widen with frequency, each with projections of its own, because a spectrogram is not
an image: what a pattern means depends on where it lies (Luo & Yu, "Music source separation with band-split RNN", 2023).
In place of their recurrent layers stand dilated convolutions along time, so that the network sees a bounded stretch of
sound on each side, can be made causal, and runs as a few large matrix products.

What goes in is magnitudes and phase differences (between the channels, neighbouring bins and neighbouring frames) over
the level around them. So a louder or inverted mixture has the same masks, by construction.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...codec.stft import analyse, synthesise

#: Features of a bin for each of two channels: magnitudes 2, phase differences of channels, bins and frames 2 each.
_FEATURES = {1: 5, 2: 8}
#: Outputs of a bin for each stem: its share, and a complex correction for each channel.
_SHARE = 1
#: Magnitudes over the level around them below which there is nothing but rounding, whose phase is noise.
_FLOOR = 3e-5


@dataclass(frozen=True, kw_only=True)
class BandSplitConfig:
    """Sizes of a band-split network."""

    stems: tuple[str, ...] = ("drums", "bass", "lead", "other")
    """What it takes a mixture apart into."""
    rate: int = 32000
    """Sample rate in Hz."""
    channels: int = 2
    window: int = 2048
    """Samples of a frame."""
    hop: int = 512
    bands: int = 32
    """How many bands the spectrum is cut into."""
    width: int = 64
    """Features of a band."""
    hidden: int = 128
    """Features inside the blocks that look along time."""
    mixed: int = 192
    """Features inside the blocks that look across all bands."""
    reach: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Frames to the neighbours that a block along time looks at, block by block."""
    mixed_reach: tuple[int, ...] = (2, 8, 24)
    """The same for the blocks across bands; they are spread evenly among the others."""
    level_seconds: float = 2.0
    """Stretch of sound whose level everything is measured by."""
    causal: bool = False
    """Look back only, for live use: the delay is one window."""

    def __post_init__(self) -> None:
        if len(self.stems) < 2 or len(set(self.stems)) != len(self.stems):
            raise ValueError(f"stems must be two or more different names, got {self.stems}")
        if self.channels not in _FEATURES:
            raise ValueError(f"a band-split network hears 1 or 2 channels, not {self.channels}")
        if self.hop < 1 or self.window % (2 * self.hop):
            raise ValueError(f"window {self.window} must be an even multiple of hop {self.hop}, such as 2048 and 512")
        if not 1 <= self.bands <= self.window // 8:
            raise ValueError(f"{self.bands} bands do not fit {self.window // 2 + 1} bins: at most {self.window // 8}")
        sizes = (self.width, self.hidden, self.mixed, self.rate, *self.reach, *self.mixed_reach)
        if not self.reach or min(sizes) < 1 or self.level_seconds <= 0:
            raise ValueError("width, hidden, mixed, rate, level_seconds and every reach must be positive")

    @property
    def bins(self) -> int:
        """Bins of a frame."""
        return self.window // 2 + 1

    @property
    def edges(self) -> tuple[int, ...]:
        """Where the bands begin, and where the last one ends: even steps on the mel scale, two bins at least."""
        return _edges(self.bins, self.bands, self.rate / self.window)

    @property
    def level_frames(self) -> int:
        """Frames over which the level is taken; odd."""
        return 2 * round(self.level_seconds * self.rate / self.hop / 2) + 1

    @property
    def context(self) -> int:
        """Samples on either side of a sample that its estimate depends on."""
        frames = sum(self.reach) + sum(self.mixed_reach) + 1 + self.level_frames // 2
        return frames * self.hop + self.window


class BandSplit(nn.Module):
    """Mixture [B, C, T] -> stems [B, N, C, T] whose sum is the mixture."""

    def __init__(self, config: BandSplitConfig) -> None:
        super().__init__()
        self.config = c = config
        widths = [b - a for a, b in zip(c.edges, c.edges[1:], strict=False)]
        features = _FEATURES[c.channels]
        outputs = len(c.stems) * (_SHARE + 2 * c.channels)
        self.enter = nn.ModuleList(nn.Linear(width * features, c.width) for width in widths)
        blocks: list[nn.Module] = []
        every = max(1, len(c.reach) // max(1, len(c.mixed_reach)))
        mixed = list(c.mixed_reach)
        for number, reach in enumerate(c.reach):
            blocks.append(Along(c.width, c.hidden, reach, c.causal))
            if mixed and number % every == every - 1:
                blocks.append(Across(c.bands, c.width, c.mixed, mixed.pop(0), c.causal))
        blocks.extend(Across(c.bands, c.width, c.mixed, reach, c.causal) for reach in mixed)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(c.width)
        self.leave = nn.ModuleList(nn.Linear(c.width, outputs * width) for width in widths)
        for layer in self.leave:
            nn.init.normal_(layer.weight, std=0.1 / math.sqrt(c.width))  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, wav: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """wav: [B, C, T] -> stems [B, N, C, T]; only those numbered in ``keep``, in that order, when given."""
        c, length = self.config, wav.shape[-1]
        if wav.dim() != 3 or wav.shape[1] != c.channels or not length:
            raise ValueError(f"need sound [batch, {c.channels}, samples], got {tuple(wav.shape)}")
        padded = functional.pad(wav.float(), (0, -length % c.hop))
        spec = analyse(padded, c.window, c.hop)  # [B, C, J, bins]
        made = self.masks(spec, keep) * spec[:, None]
        out: Tensor = synthesise(made, c.window, c.hop)[..., :length]
        return out

    def masks(self, spec: Tensor, keep: Sequence[int] | None = None, pasts: Sequence[Past] | None = None) -> Tensor:
        """Complex masks, one a stem, that sum to one: spectra [B, C, J, bins] -> [B, N, C, J, bins].

        pasts: two more than there are blocks, when the frames go on a stream; they are brought up to date.
        """
        c = self.config
        if pasts is not None and not c.causal:
            raise ValueError("only a causal network goes on from what it has heard: this one looks ahead")
        with torch.no_grad():
            features = self._features(spec, pasts)
        x = torch.stack([
            layer(features[:, :, start:end].flatten(2))
            for layer, start, end in zip(self.enter, c.edges, c.edges[1:], strict=False)
        ], 2)  # fmt: skip
        for number, block in enumerate(self.blocks):
            x = block(x, None if pasts is None else pasts[number + 2])
        bands = self.norm(x).unbind(2)
        outputs = len(c.stems) * (_SHARE + 2 * c.channels)
        made = torch.cat(
            [layer(band).unflatten(-1, (outputs, -1)) for layer, band in zip(self.leave, bands, strict=True)], -1
        ).float()
        count, frames = len(c.stems), made.shape[1]
        share = made[:, :, :count].softmax(2)
        turn = made[:, :, count:].view(len(made), frames, 2, count, c.channels, -1)
        turn = turn - turn.mean(3, keepdim=True)  # corrections cancel, shares sum to one
        if keep is not None:
            share, turn = share[:, :, list(keep)], turn[:, :, :, list(keep)]
        mask = torch.complex(share[:, :, :, None] + turn[:, :, 0], turn[:, :, 1])  # [B, J, N, C, bins]
        return mask.permute(0, 2, 3, 1, 4)

    def _features(self, spec: Tensor, pasts: Sequence[Past] | None = None) -> Tensor:
        """Spectra [B, C, J, bins] -> [B, J, bins, features], the same for a louder or an inverted mixture."""
        spec = spec * self._over_level(spec, None if pasts is None else pasts[0])
        size = (spec.real.square() + spec.imag.square() + _FLOOR**2).pow(0.15)
        parts = [*size.unbind(1)]
        middle = spec.mean(1)
        before = functional.pad(middle, (0, 0, 1, 0)) if pasts is None else pasts[1].before(middle, 1)
        pairs = [_turn(middle, before[:, :-1]),
                 _turn(middle, functional.pad(middle[..., :-1], (1, 0)))]  # fmt: skip
        if self.config.channels == 2:
            pairs.append(_turn(spec[:, 0], spec[:, 1]))
        for pair in pairs:
            parts += [pair.real, pair.imag]
        return torch.stack(parts, -1)

    def _over_level(self, spec: Tensor, past: Past | None = None) -> Tensor:
        """One over the level around each frame [B, 1, J, 1]; 0 where all is silent."""
        frames = self.config.level_frames
        power = (spec.real.square() + spec.imag.square()).mean((1, 3))[:, None]
        if self.config.causal:
            # a frame of ones beside each power counts how many there are
            heard = torch.stack([power[:, 0], torch.ones_like(power[:, 0])], -1)  # [B, J, 2]
            joined = (Past() if past is None else past).before(heard, frames - 1)
            sums = functional.avg_pool1d(joined.transpose(1, 2), frames, 1)
            level = sums[:, :1] / sums[:, 1:]
        else:
            level = functional.avg_pool1d(power, frames, 1, frames // 2, count_include_pad=False)
        level = level.sqrt()
        return torch.where(level > 0, 1 / level, 0.0)[:, 0, None, :, None].nan_to_num(posinf=0.0)


class Along(nn.Module):
    """Each band looks along time: residual block with neighbours ``reach`` frames away."""

    def __init__(self, width: int, hidden: int, reach: int, causal: bool) -> None:
        super().__init__()
        self.reach, self.causal = reach, causal
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(3 * width, hidden)
        self.down = nn.Linear(hidden, width)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """x: [B, J, K, D] -> [B, J, K, D]; past: what came before, when x goes on a stream."""
        near = _neighbours(self.norm(x), self.reach, self.causal, past)
        out: Tensor = x + self.down(functional.gelu(self.up(near), approximate="tanh"))
        return out


class Across(nn.Module):
    """All bands of a frame, and of neighbours ``reach`` frames away, through one bottleneck."""

    def __init__(self, bands: int, width: int, mixed: int, reach: int, causal: bool) -> None:
        super().__init__()
        self.reach, self.causal = reach, causal
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(bands * width, mixed)
        self.mix = nn.Linear(3 * mixed, mixed)
        self.up = nn.Linear(mixed, bands * width)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """x: [B, J, K, D] -> [B, J, K, D]; past: what came before, when x goes on a stream."""
        h = functional.gelu(self.down(self.norm(x).flatten(2)), approximate="tanh")
        h = functional.gelu(self.mix(_neighbours(h, self.reach, self.causal, past)), approximate="tanh")
        out: Tensor = x + self.up(h).view_as(x)
        return out


class Past:
    """What a causal layer remembers of a stream."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    def before(self, x: Tensor, count: int) -> Tensor:
        """x: [B, J, ..] -> [B, count + J, ..] with the ``count`` frames before it, zeros where there were none."""
        kept = x.new_zeros((x.shape[0], count, *x.shape[2:])) if self._kept is None else self._kept
        joined = torch.cat([kept, x], 1)
        self._kept = joined[:, joined.shape[1] - count :].clone()
        return joined


def _neighbours(x: Tensor, reach: int, causal: bool, past: Past | None = None) -> Tensor:
    """[B, J, .., D] -> [B, J, .., 3 D]: each frame beside two others; zeros where there are none."""
    frames = x.shape[1]
    if past is not None:
        padded = past.before(x, 2 * reach)
    else:
        before, after = (2 * reach, 0) if causal else (reach, reach)
        padded = functional.pad(x, (*[0, 0] * (x.dim() - 2), before, after))
    return torch.cat([padded[:, n * reach : n * reach + frames] for n in range(3)], -1)


def _turn(a: Tensor, b: Tensor) -> Tensor:
    """The phase difference of two spectra, as long as the geometric mean of their magnitudes to the power 0.6."""
    product = a * b.conj()
    return product * (product.real.square() + product.imag.square() + _FLOOR**4).pow(-0.35)


@functools.lru_cache(maxsize=16)
def _edges(bins: int, bands: int, step: float) -> tuple[int, ...]:
    top = math.log1p((bins - 1) * step / 700)
    edges = [0]
    for band in range(1, bands):
        wanted = round(700 * math.expm1(top * band / bands) / step)
        # what is left must hold two bins for each band that follows
        edges.append(min(max(wanted, edges[-1] + 2), bins - 2 * (bands - band)))
    return (*edges, bins)
