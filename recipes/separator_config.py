"""Settings of a separator's training, and the recipes by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..gen.separation.bandsplit import BandSplitConfig
from ..gen.separation.convtasnet import ConvTasNetConfig
from ..gen.separation.sms_network import SmsConfig
from ..gen.separation.unet import MaskUNetConfig
from .loop import LoopConfig
from .stems_data import Mixing

NAMES: tuple[str, ...] = (
    "embedded", "embedded-causal", "conv-tasnet", "conv-tasnet-causal", "conv-tasnet-mixit", "mask-unet",
    "sms-experiment", "nano",
)  # fmt: skip
#: What a network's outputs are compared with.
LOSSES: tuple[str, ...] = ("named", "pit", "mixit")


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """Music without stems beside the stems: a mean teacher's estimates of it are learned from."""

    data: str = ""
    """Folder of packed audio, or of packed stems whose sums are used; empty for none."""
    weight: float = 0.5
    """Of the loss on it, once the ramp has ended."""
    ramp: int = 1000
    """Steps over which the weight rises (Laine & Aila, 2017)."""
    decay: float = 0.999
    """How slowly the teacher follows the network."""
    batch: int = 2
    """Mixes a step."""

    def __post_init__(self) -> None:
        if self.weight < 0 or self.ramp < 0 or not 0 <= self.decay < 1 or self.batch < 2 or self.batch % 2:
            raise ValueError(
                f"unlabelled music needs a weight and a ramp of 0 or more, a decay from 0 to below 1 and an even "
                f"batch, got {self.weight}, {self.ramp}, {self.decay} and {self.batch}"
            )


@dataclass(frozen=True, kw_only=True)
class SeparatorRecipe(LoopConfig):
    """A run: the loop's settings, the network, the data and what counts."""

    network: BandSplitConfig | ConvTasNetConfig | MaskUNetConfig | SmsConfig = field(default_factory=BandSplitConfig)
    mixing: Mixing = field(default_factory=Mixing)
    loss: str = "named"
    """``named``: output n is stem n. ``pit``: the outputs have no names, the best order counts. ``mixit``: there are no
    stems: the network hears two songs at once, and its outputs are shared out so that they make the two."""
    unlabelled: Unlabelled = field(default_factory=Unlabelled)
    crop: float = 3.0
    """Seconds of an item."""
    level_weight: float = 1.0
    """Of the logarithm of the error's energy, stem by stem: what utterance SDR measures."""
    waveform_weight: float = 0.5
    """Of the L1 of samples."""
    spectral_weight: float = 0.5
    """Of the multi-resolution distance of spectra; the windows take turns."""
    spectral_every: int = 2
    """Steps from one that counts it to the next; it takes as long as half the network."""
    matrix_scale: float = 2.5
    """Learning rate of the matrices inside the network over that of the rest, where Muon moves them."""
    dev_items: int = 28
    """Songs that are separated when the run validates itself."""
    init: str = ""
    """Folder of an exported separator to start from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.level_weight, self.waveform_weight, self.spectral_weight)
        if min(weights) < 0 or not sum(weights):
            raise ValueError(f"the weights of the losses must not be negative, nor all be zero: {weights}")
        if self.crop * self.network.rate < 4096 or min(self.dev_items, self.spectral_every) < 1:
            raise ValueError(
                f"crop {self.crop} s must hold 4096 samples, dev_items {self.dev_items} and spectral_every "
                f"{self.spectral_every} be 1 or more"
            )
        if self.loss not in LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}: one of {', '.join(LOSSES)}")
        most = {"named": len(self.network.stems), "pit": 8, "mixit": 10}[self.loss]
        if len(self.network.stems) > most:
            raise ValueError(f"{len(self.network.stems)} stems are too many for loss={self.loss}: at most {most}")
        if isinstance(self.network, SmsConfig) and (self.loss != "named" or self.unlabelled.data):
            raise ValueError("the experiment knows neither loss=pit, loss=mixit nor unlabelled.data: leave them out")
        if self.unlabelled.data and self.loss == "mixit":
            raise ValueError("loss=mixit learns from music without stems already: leave unlabelled.data out")


def recipe(name: str) -> SeparatorRecipe:
    """The recipe of that name. Raises ValueError when there is none."""
    if name == "embedded":
        return SeparatorRecipe(steps=4200, batch=4, lr=1.2e-3, final_lr=1e-5, warmup=60, ema=0.995, weight_decay=0.01,
                               validate_every=400, save_seconds=180.0)  # fmt: skip
    if name == "embedded-causal":
        return replace(recipe("embedded"), network=BandSplitConfig(causal=True))
    if name in ("conv-tasnet", "conv-tasnet-causal"):
        return replace(recipe("embedded"), lr=1e-3, network=ConvTasNetConfig(causal=name.endswith("causal")))
    if name == "conv-tasnet-mixit":
        parts = tuple(f"part{number}" for number in range(1, 9))
        return replace(recipe("conv-tasnet"), network=ConvTasNetConfig(stems=parts), loss="mixit")
    if name == "mask-unet":
        return replace(recipe("embedded"), lr=1e-3, network=MaskUNetConfig())
    if name == "sms-experiment":
        # the losses are its own: spectral_weight is the multi-scale distance's, level_weight that of the pitch
        return replace(recipe("embedded"), lr=1e-3, network=SmsConfig(), waveform_weight=0.0, spectral_weight=1.0,
                       level_weight=0.3)  # fmt: skip
    if name == "nano":
        tiny = BandSplitConfig(
            rate=8000, window=512, hop=128, bands=8, width=8, hidden=16, mixed=16, reach=(1, 2), mixed_reach=(2,)
        )
        return SeparatorRecipe(
            network=tiny, steps=20, batch=2, crop=0.6, lr=3e-3, warmup=5, validate_every=10, ema=0.9, dev_items=2,
            bf16=False,
        )  # fmt: skip
    raise ValueError(f"unknown separator recipe {name!r}: one of {', '.join(NAMES)}")
