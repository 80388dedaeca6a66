"""What a codec run can be told: schedule, losses, adversary, and the named recipes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..codec import discriminator, official
from ..codec.model import CodecConfig, hifi48, hifi48_small, nano, tiny, tiny_stereo
from ..codec.official import DacConfig, EncodecConfig
from .codec_data import Mixture
from .loop import LoopConfig

AnyConfig = CodecConfig | EncodecConfig | DacConfig


@dataclass(frozen=True, kw_only=True)
class CodecRecipe(LoopConfig, Mixture):
    """A codec run. Stages are places on the schedule: steps, or what ``minutes`` makes of them."""

    codec: AnyConfig = field(default_factory=tiny)
    init: str = ""
    """Folder of an exported codec to start from; its books are kept, so quantisation is on from the first step."""
    warm: int = 700
    """Where quantisation starts."""
    freeze: int = 7500
    """Where encoder and books freeze at their averaged weights; 0 never."""
    adversary: int = -1
    """Where the discriminators enter; -1 at the freeze, 0 never."""
    settle: int = 100
    """Batches from which the books find their place around the averaged encoder at the freeze."""
    crop: float = 0.6
    """Seconds per item."""
    dropout: float = 0.5
    """Share of items that use fewer than all books."""
    mel_weight: float = 15.0
    phase_weight: float = 5.0
    wave_weight: float = 0.0
    """Of the distance of samples (L1)."""
    signal_weight: float = 2.0
    """Of the logarithm of the error's energy over the signal's, the noise counted as error."""
    commitment_weight: float = 1.0
    matrix_scale: float = 2.0
    """Learning rate of the networks' inner matrices (Muon) over that of the rest (AdamW); our own family only."""
    judges: tuple[str, ...] = ("stft",)
    """Discriminators: stft, bands, period, period-quarter."""
    windows: tuple[int, ...] = (2048, 1024, 512)
    """STFT windows of the spectral ones, in samples."""
    filters: int = 12
    """Filters of the spectral ones."""
    judges_at_once: int = 0
    """How many of them are asked in a step, in turn; 0 all."""
    judge_crop: float = 0.0
    """Seconds of each item that they see; 0 all of it."""
    judge_share: float = 1.0
    """Share of the steps in which they learn."""
    judge_lr: float = 3e-4
    head_start: int = 100
    """Steps in which they learn alone, before the codec hears of them."""
    adversarial: str = "hinge"
    """``hinge`` or ``lsgan``."""
    adversarial_weight: float = 0.15
    """Norm of the adversarial gradient, the reconstruction's being 1."""
    feature_weight: float = 0.3
    """The same for feature matching."""
    balance: float = 0.99
    """Decay of the balancer's averages."""
    polish_lr: float = 1e-4
    """Learning rate after the freeze."""
    polish_batch: int = 6
    dev_items: int = 12
    """Excerpts of four seconds of each kind of held-out audio that a validation takes."""

    def __post_init__(self) -> None:
        LoopConfig.__post_init__(self)
        Mixture.__post_init__(self)
        if min(self.warm, self.freeze, self.settle, self.head_start, self.judges_at_once) < 0 or self.adversary < -1:
            raise ValueError("warm, freeze, settle, head_start and judges_at_once cannot be negative")
        if self.crop <= 0 or self.judge_crop < 0 or self.filters < 1 or min(self.polish_batch, self.dev_items) < 1:
            raise ValueError("crop, filters, polish_batch and dev_items must be positive, judge_crop 0 or more")
        for name in ("dropout", "judge_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share in 0..1, got {getattr(self, name)}")
        if self.adversarial not in ("hinge", "lsgan"):
            raise ValueError(f"adversarial must be hinge or lsgan, got {self.adversarial!r}")
        unknown = sorted(set(self.judges) - set(discriminator.KINDS))
        if unknown or not self.judges:
            raise ValueError(f"judges must be of {', '.join(discriminator.KINDS)}, got {','.join(self.judges)!r}")

    @property
    def channels(self) -> int:
        """Channels of the codec's audio."""
        return 1 if isinstance(self.codec, DacConfig) else self.codec.channels

    @property
    def judged_from(self) -> int:
        """Where the discriminators enter; beyond the end when they never do."""
        place = self.freeze if self.adversary == -1 else self.adversary
        return place or self.steps + 1

    def frozen(self, place: int) -> bool:
        """Whether encoder and books are frozen at ``place``."""
        return 0 < self.freeze <= place


def recipe(name: str) -> CodecRecipe:
    """The named runs. Raises ValueError on an unknown name.

    ``tiny`` (the shipped model, one CPU core), ``tiny-stereo``, ``hifi48``, ``hifi48-small`` (GPU), ``musicgen32``,
    ``encodec24``, ``dac44`` (the published architectures, from scratch), ``nano`` (seconds, for trials).
    """
    match name:
        case "tiny":
            return CodecRecipe(steps=4600, freeze=3600, adversary=0, batch=16, polish_batch=16, lr=1e-3, final_lr=2e-5,
                               polish_lr=3e-4, beta1=0.8, warm=400, warmup=50, settle=400, judge_crop=0.3)  # fmt: skip
        case "tiny-stereo":
            return CodecRecipe(codec=tiny_stereo(), steps=12000, freeze=10500, batch=12, lr=1e-3, final_lr=5e-5,
                               beta1=0.8, judge_crop=0.3)  # fmt: skip
        case "hifi48" | "hifi48-small":
            return CodecRecipe(
                codec=hifi48() if name == "hifi48" else hifi48_small(), steps=200_000, batch=48, polish_batch=32,
                lr=5e-4, final_lr=2e-5, beta1=0.8, warmup=1000, warm=4000, freeze=100_000, settle=400, crop=1.0,
                windows=(4096, 2048, 1024), judge_crop=0.5, validate_every=2000, ema=0.9995,
                judges=("bands", "period-quarter"), filters=32, judges_at_once=4,
            )  # fmt: skip
        case "musicgen32" | "encodec24":
            return CodecRecipe(
                codec=official.musicgen32() if name == "musicgen32" else official.encodec24(), steps=400_000, batch=64,
                lr=3e-4, final_lr=1e-5, beta1=0.5, beta2=0.9, warm=4000, freeze=0, adversary=20_000, crop=1.0,
                wave_weight=0.1, windows=(2048, 1024, 512, 256, 128), filters=32, judge_share=2 / 3,
                validate_every=4000,
            )  # fmt: skip
        case "dac44":
            return CodecRecipe(
                codec=replace(official.dac44(), weight_norm=True), steps=400_000, batch=72, lr=1e-4, final_lr=1e-5,
                beta1=0.8, warm=4000, freeze=0, adversary=10_000, crop=0.384, adversarial="lsgan", filters=32,
                judges=("bands", "period"), windows=(2048, 1024, 512), validate_every=4000,
            )  # fmt: skip
        case "nano":
            return CodecRecipe(codec=nano(), steps=60, batch=4, warm=15, freeze=50, filters=4, settle=5, head_start=2,
                               polish_batch=2, validate_every=30, warmup=5, log_every=5)  # fmt: skip
    raise ValueError(f"unknown codec recipe {name!r}: choose from {', '.join(NAMES)}")


#: The names :func:`recipe` knows.
NAMES = ("tiny", "tiny-stereo", "hifi48", "hifi48-small", "musicgen32", "encodec24", "dac44", "nano")
