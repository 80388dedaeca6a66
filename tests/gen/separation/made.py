"""Separators with random weights and sounds to take apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from descant.gen.separation.bandsplit import BandSplit, BandSplitConfig
from descant.gen.separation.bandsplit_separator import BandSplitSeparator
from descant.gen.separation.contract import Layout, Separator, WrapSeparator
from descant.gen.separation.convtasnet import ConvTasNet, ConvTasNetConfig
from descant.gen.separation.network import NetworkSeparator
from descant.gen.separation.openunmix import OpenUnmix, OpenUnmixConfig
from descant.gen.separation.openunmix_separator import OpenUnmixSeparator, OpenUnmixSettings
from descant.gen.separation.registry import EMBEDDED, REGISTRY
from descant.gen.separation.roformer_separator import RoformerSeparator
from descant.gen.separation.sms_network import SmsConfig, SmsNetwork
from descant.gen.separation.unet import MaskUNet, MaskUNetConfig

from . import roformer_made

SMALL = Layout(chunk=0.4, before=0.1, after=0.15, fade=0.05)


def tiny(**changes: object) -> BandSplitConfig:
    sizes: dict[str, object] = {
        "rate": 16000, "window": 512, "hop": 128, "bands": 8, "width": 8, "hidden": 12, "mixed": 12, "reach": (1, 2),
        "mixed_reach": (2,), "level_seconds": 0.2,
    }  # fmt: skip
    return BandSplitConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def network(seed: int = 0, **changes: object) -> BandSplit:
    torch.manual_seed(seed)
    made = BandSplit(tiny(**changes))
    with torch.no_grad():
        for layer in made.leave:
            layer.weight.mul_(6)  # type: ignore[union-attr, operator]  # masks far from equal shares
    return made.eval()


def convtasnet(seed: int = 0, **changes: object) -> ConvTasNet:
    sizes: dict[str, object] = {
        "stems": ("drums", "bass", "rest"), "rate": 16000, "filters": 12, "kernel": 16, "width": 8, "hidden": 12,
        "blocks": 2, "repeats": 2,
    }  # fmt: skip
    torch.manual_seed(seed)
    return ConvTasNet(ConvTasNetConfig(**{**sizes, **changes})).eval()  # type: ignore[arg-type]


def unet(seed: int = 0, **changes: object) -> MaskUNet:
    sizes: dict[str, object] = {
        "stems": ("drums", "bass", "rest"), "rate": 16000, "window": 256, "hop": 64, "widths": (4, 6, 8),
    }  # fmt: skip
    torch.manual_seed(seed)
    return MaskUNet(MaskUNetConfig(**{**sizes, **changes})).eval()  # type: ignore[arg-type]


def sms(seed: int = 0, **changes: object) -> SmsNetwork:
    sizes: dict[str, object] = {
        "rate": 16000, "window": 1024, "hop": 256, "width": 12, "reach": (1, 2), "harmonics": 8, "bands": 9,
    }  # fmt: skip
    torch.manual_seed(seed)
    return SmsNetwork(SmsConfig(**{**sizes, **changes})).eval()  # type: ignore[arg-type]


class Filters(nn.Module):
    """Two FIR filters: not consistent with the mix, and not without a memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.register_buffer("taps", torch.randn(2, 1, 65) * 0.1)

    def forward(self, wav: Tensor) -> Tensor:
        """wav: [B, C, T] -> [B, 2, C, T]."""
        out = nn.functional.conv1d(wav.flatten(0, 1)[:, None], self.taps, padding=32)  # type: ignore[arg-type]
        return out.unflatten(0, wav.shape[:2]).transpose(1, 2)


class Bend(nn.Module):
    """Not linear: hears how loud the mix is."""

    def forward(self, wav: Tensor) -> Tensor:
        """wav: [B, C, T] -> [B, 2, C, T]."""
        return torch.stack([wav.tanh(), (2 * wav).sin() * 0.3], 1)


def _with(method: Separator, layout: Layout) -> Separator:
    method.layout = layout
    return method


def _demucs(count: int) -> Separator:
    from .demucs_made import of, transformer

    return of(*(transformer(seed, segment=0.8) for seed in range(count)))


def openunmix(seed: int = 0, count: int = 3, **changes: object) -> OpenUnmixSeparator:
    sizes: dict[str, object] = {"bins": 129, "kept": 100, "hidden": 12, "layers": 2}
    torch.manual_seed(seed)
    networks = {}
    for name in ("vocals", "drums", "bass", "other")[:count]:
        networks[name] = OpenUnmix(OpenUnmixConfig(**{**sizes, **changes}))  # type: ignore[arg-type]
        networks[name].bn3.weight.data.uniform_(0.2, 2)
        networks[name].output_mean.data.uniform_(-0.2, 1)
    return OpenUnmixSeparator(networks, OpenUnmixSettings(rate=16000, hop=64), SMALL)


#: Every registered separator, and some with random weights that have other layouts, rates and channels.
SEPARATORS: dict[str, Callable[[], Separator]] = {
    **{name: make for name, make in REGISTRY.items() if name != "embedded" or (EMBEDDED / "config.json").exists()},
    "openunmix": openunmix,
    "openunmix-mono": lambda: openunmix(channels=1, count=2, causal=True),
    "demucs": lambda: _demucs(1),
    "demucs-bag": lambda: _demucs(2),
    "bandsplit": lambda: BandSplitSeparator(network(), SMALL),
    "bandsplit-causal": lambda: BandSplitSeparator(network(causal=True), SMALL),
    "bandsplit-mono": lambda: BandSplitSeparator(network(channels=1), SMALL),
    "convtasnet": lambda: NetworkSeparator(convtasnet(), SMALL),
    "convtasnet-causal-mono": lambda: NetworkSeparator(convtasnet(causal=True, channels=1, consistent=False), SMALL),
    "sms": lambda: NetworkSeparator(sms(), SMALL),
    "unet": lambda: NetworkSeparator(unet(), SMALL),
    "unet-sigmoid-mono": lambda: NetworkSeparator(unet(mask="sigmoid", channels=1), SMALL),
    "roformer": lambda: RoformerSeparator(roformer_made.network(), SMALL),
    "roformer-mel-rest": lambda: RoformerSeparator(
        roformer_made.network(stems=("vocals",), rest="other", channels=1, bands=(), mel_bands=12, streams=2)
    ),
    "filters-any-rate": lambda: _with(WrapSeparator(Filters(), ("a", "b"), 16000, None, levelled=False), SMALL),
    "bend-levelled-batched": lambda: WrapSeparator(
        Bend(), ("a", "b"), 22050, 1, Layout(chunk=0.3, before=0.05, after=0.05, fade=0.1, batch=3)
    ),
}


def sound(seconds: float, rate: int, channels: int = 2, seed: int = 0) -> Tensor:
    """Notes, noise and clicks, [C, T]."""
    dice = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * rate)) / rate
    rows = []
    for channel in range(channels):
        wav = 0.05 * torch.randn(len(time), generator=dice)
        for partial in (1, 2, 3):
            wav = wav + 0.2 / partial * torch.sin(2 * math.pi * 220 * (1 + 0.3 * channel) * partial * time)
        wav = wav + (torch.rand(len(time), generator=dice) > 0.999).float() * 0.5
        rows.append(wav)
    return torch.stack(rows)


def blocks(wav: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """wav [C, T] in blocks whose sizes go round ``sizes``."""
    parts, at, number = [], 0, 0
    while at < wav.shape[-1]:
        size = sizes[number % len(sizes)]
        parts.append(wav[:, at : at + size])
        at, number = at + size, number + 1
    return parts
