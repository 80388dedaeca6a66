"""BS-RoFormer and Mel-Band RoFormer: transformers over time and over bands that make a complex mask for each stem.

Lu, Wang, Kong, Hung 2023 (BS-RoFormer) and Wang, Lu, Won 2023 (Mel-Band RoFormer), as the community trains them: the
bands of a frame become vectors; blocks attend along time in each band, then across the bands of each frame; small
networks, one a band and stem, make masks. Gains of normalisations are folded into the weights behind them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import roformer_bands
from .roformer_layers import Transformer, unit

#: The longest frame in samples, and the longest sound that is heard at a time in seconds.
_WINDOW, _SECONDS = 1 << 17, 600


@dataclass(frozen=True, kw_only=True)
class RoformerConfig:
    """Sizes of a RoFormer separator and the spectrum it works on."""

    stems: tuple[str, ...]
    """What it has masks for."""
    rest: str = ""
    """A name for what the stems leave of the mixture, which then is a stem like the others; empty: none."""
    rate: int = 44100
    channels: int = 2
    window: int = 2048
    """Samples of a frame."""
    taper: int = 2048
    """Samples of the frame's Hann window, in its middle."""
    hop: int = 512
    orthonormal: bool = False
    """Whether spectra are divided by the square root of the frame."""
    bands: tuple[int, ...] = ()
    """Bins of each band, one after the other; empty for mel bands."""
    mel_bands: int = 0
    first_bin: int = 0
    """The first bin of the first band; bins outside all bands are silent in the stems."""
    width: int = 384
    blocks: int = 6
    heads: int = 8
    head: int = 64
    hidden: int = 1536
    """Inner width of the feed-forward layers."""
    depths: tuple[int, int, int] = (0, 1, 1)
    """Layers of a block that attend between channels, along time, across bands."""
    mask_hidden: int = 1536
    mask_layers: int = 2
    """Linear layers of a mask network."""
    block_norm: bool = False
    """Whether each transformer's output is normalised (Mel-Band RoFormer)."""
    final_norm: bool = True
    """Whether the last block's output is normalised (BS-RoFormer)."""
    skips: bool = False
    """Whether a block also hears the sum of all earlier ones."""
    values: str = "none"
    """Whether attention also takes values of the first block: none, plain, or swapped (see ``roformer_layers``)."""
    streams: int = 1
    """Residual streams (see ``roformer_streams``)."""
    rounds: int = 2
    """How often the mixing of streams is normalised."""
    zero_dc: bool = False
    """Whether the stems have no constant part."""
    seconds: float = 8.0
    """What it hears at a time: as much as in training."""
    overlap: float = 2.0
    """How many times each moment is heard."""

    def __post_init__(self) -> None:
        names = (*self.stems, self.rest) if self.rest else self.stems
        if not self.stems or len(set(names)) != len(names) or not all(names):
            raise ValueError(f"stems must be different names, one or more, got {names}")
        if self.channels not in (1, 2):
            raise ValueError(f"a RoFormer hears 1 or 2 channels, not {self.channels}")
        sizes = (self.rate, self.hop, self.width, self.blocks, self.heads, self.hidden, self.mask_hidden,
                 self.mask_layers, *self.depths[1:], self.streams, self.rounds)  # fmt: skip
        if min(sizes) < 1 or self.depths[0] < 0 or self.head < 2 or self.head % 2:
            raise ValueError("sizes must be positive, and head even")
        if not 0 < self.seconds <= _SECONDS or not 1 <= self.overlap <= 64:
            raise ValueError(
                f"{self.seconds} s at a time, {self.overlap} times: at most {_SECONDS} s, and 1 to 64 times"
            )
        if self.window % 2 or self.window > _WINDOW or not 2 * self.hop <= self.taper <= self.window:
            raise ValueError(f"a hop of {self.hop} and a window of {self.window}: the window must be even and hold two")
        if bool(self.bands) == bool(self.mel_bands):
            raise ValueError("name the bins of the bands, or a number of mel bands, not both")
        if self.values not in ("none", "plain", "swapped"):
            raise ValueError(f"values must be none, plain or swapped, not {self.values!r}")
        if min(self.bands, default=1) < 1 or self.first_bin < 0 or self.ranges[-1][1] > self.window // 2 + 1:
            raise ValueError(f"the bands end at bin {self.ranges[-1][1]} of {self.window // 2 + 1}")

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """First bin of each band and the bin after its last one."""
        if self.mel_bands:
            return roformer_bands.mel(self.mel_bands, self.window, self.rate)
        return roformer_bands.in_a_row(self.bands, self.first_bin)


class Roformer(nn.Module):
    """Mixture [B, C, T] -> stems [B, N, C, T] of the masks."""

    shares: Tensor
    taper: Tensor
    time_speeds: Tensor
    band_speeds: Tensor

    def __init__(self, config: RoformerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.ranges = c.ranges
        sizes = [2 * c.channels * (stop - start) for start, stop in self.ranges]
        self.split = nn.ModuleList(nn.Linear(size, c.width) for size in sizes)
        inner = (c.width, c.heads, c.head, c.hidden)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                Transformer(
                    inner, depth, place == 0, c.values if block else "none", c.block_norm, (c.streams, c.rounds)
                )
                for place, depth in enumerate(c.depths) if depth
            )
            for block in range(c.blocks)
        )  # fmt: skip
        self.gain = nn.Parameter(torch.full((c.width,), c.width**0.5)) if c.final_norm else None
        self.masks = nn.ModuleList(nn.ModuleList(_mask(c, size) for size in sizes) for _ in c.stems)
        speeds = 10000.0 ** (-torch.arange(0, c.head, 2) / c.head)
        self.register_buffer("time_speeds", speeds.clone())
        self.register_buffer("band_speeds", speeds.clone())
        counts = torch.zeros(c.window // 2 + 1)
        for start, stop in self.ranges:
            counts[start:stop] += 1
        self.register_buffer("shares", 1 / counts.clamp_min(1), persistent=False)
        self.register_buffer("taper", torch.hann_window(c.taper), persistent=False)

    def forward(self, wav: Tensor, keep: Sequence[int] | None = None) -> Tensor:
        """wav: [B, C, T] -> stems [B, N, C, T]; only those numbered in ``keep``, in that order, when given."""
        c, length = self.config, wav.shape[-1]
        if wav.dim() != 3 or wav.shape[1] != c.channels or not length:
            raise ValueError(f"need sound [batch, {c.channels}, samples], got {tuple(wav.shape)}")
        padded = functional.pad(wav.float(), (0, max(0, c.window - length)))  # a spectrum mirrors its edges
        with torch.autocast(wav.device.type, enabled=False):
            spec = self._analysed(padded)
            features = torch.view_as_real(spec).flatten(3)  # [B, J, bins, C * 2]
            x = self._bands(features)
        x = self._attended(x)
        with torch.autocast(wav.device.type, enabled=False):
            x = x.float() if self.gain is None else unit(x.float()) * self.gain
            rows = [self._masked(x, spec, number) for number in (range(len(c.stems)) if keep is None else keep)]
            made = torch.stack(rows, 1).flatten(0, 2)
            out: Tensor = torch.istft(
                made, c.window, c.hop, c.taper, self.taper, normalized=c.orthonormal, length=padded.shape[-1]
            )
        return out.view(len(wav), len(rows), c.channels, -1)[..., :length]

    def _analysed(self, wav: Tensor) -> Tensor:
        """[B, C, T] -> [B, J, bins, C], complex."""
        c = self.config
        spec = torch.stft(
            wav.flatten(0, 1), c.window, c.hop, c.taper, self.taper, normalized=c.orthonormal, return_complex=True
        )
        return spec.view(-1, c.channels, *spec.shape[1:]).permute(0, 3, 2, 1).contiguous()

    def _bands(self, features: Tensor) -> Tensor:
        """[B, J, bins, C * 2] -> a vector for each band, [B, J, K, D]."""
        parts = [features[:, :, start:stop].flatten(2) for start, stop in self.ranges]
        return torch.stack([enter(unit(part)) for enter, part in zip(self.split, parts, strict=True)], 2)

    def _attended(self, x: Tensor) -> Tensor:
        """[B, J, K, D] -> the same, after all blocks."""
        c, (batch, frames, bands, _) = self.config, x.shape
        along, across = _turns(self.time_speeds, frames), _turns(self.band_speeds, bands)
        # the first block hands its values on: those of attention between channels, along time, across bands
        hand, firsts = c.values != "none", [None, None, None]
        past: Tensor | None = None
        # Streams are items of the batch, and a transformer takes items that follow one another for streams of one.
        # Along time and across bands these are neighbouring bands and frames: as the package does it, and its weights.
        x, batch = x.repeat_interleave(c.streams, 0), batch * c.streams
        for number, block in enumerate(self.blocks):
            start = number == 0 and hand
            layers = list(block)  # type: ignore[call-overload]
            if c.depths[0]:
                made, values = layers.pop(0)(x.flatten(1, 2), None, firsts[0], start)
                firsts[0] = values if start else firsts[0]
                x = made.unflatten(1, (frames, bands))
            if past is not None:
                x = x + past
            made, values = layers[0](x.transpose(1, 2).flatten(0, 1), along, firsts[1], start)
            firsts[1] = values if start else firsts[1]
            x = made.unflatten(0, (batch, bands)).transpose(1, 2)
            made, values = layers[1](x.flatten(0, 1), across, firsts[2], start)
            firsts[2] = values if start else firsts[2]
            x = made.unflatten(0, (batch, frames))
            if c.skips:
                past = x if past is None else past + x
        return x.view(-1, c.streams, *x.shape[1:]).sum(1) if c.streams > 1 else x

    def _masked(self, x: Tensor, spec: Tensor, number: int) -> Tensor:
        """[B, J, K, D] and the spectrum [B, J, bins, C] -> the stem's spectrum [B, C, bins, J]."""
        c = self.config
        mask = torch.zeros_like(torch.view_as_real(spec))
        layers: nn.ModuleList = self.masks[number]  # type: ignore[assignment]
        for (start, stop), make, band in zip(self.ranges, layers, x.unbind(2), strict=True):
            mask[:, :, start:stop] += make(band).unflatten(-1, (stop - start, c.channels, 2))
        if c.mel_bands:
            mask *= self.shares[:, None, None]
        made = spec * torch.view_as_complex(mask)
        if c.zero_dc:
            made[:, :, 0] = 0
        return made.permute(0, 3, 2, 1)


def _mask(c: RoformerConfig, size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    widths = [c.width, *[c.mask_hidden] * (c.mask_layers - 1), 2 * size]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1], nn.GLU(-1))


def _turns(speeds: Tensor, steps: int) -> Tensor:
    """Speeds [head / 2] in radians a step -> numbers of length one [steps, head / 2], complex."""
    angles = torch.outer(torch.arange(steps, device=speeds.device, dtype=torch.float32), speeds.float())
    return torch.polar(torch.ones_like(angles), angles)
