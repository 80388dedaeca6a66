"""A codec run of a dozen very small steps through all stages, for the tests; as a script, one process of such a run."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from descant.recipes.codec_config import CodecRecipe, recipe
from descant.recipes.codec_task import CodecTask
from descant.recipes.corpus import Corpus, Packer
from descant.recipes.loop import override, run
from descant.recipes.world import World


def small(**settings: str) -> CodecRecipe:
    """Every stage within twelve steps; float32, so that a shared batch differs from a whole one by rounding only."""
    return override(recipe("nano"), {  # type: ignore[no-any-return]
        "codec.outer": "16", "codec.inner": "24", "codec.cardinality": "16", "codec.books": "2", "steps": "12",
        "warm": "3", "freeze": "8", "settle": "2", "head_start": "1", "crop": "0.2", "batch": "4", "bf16": "false",
        "windows": "512,256", "warmup": "2", "log_every": "4", "validate_every": "1000", "save_seconds": "0",
        "remix": "0.5", "resample": "0.5", "dev_items": "1", **settings,
    })  # fmt: skip


def pack(folder: Path, rate: int = 32000, channels: int = 1, seconds: int = 3) -> Path:
    """A mix, a stem and a recording: plucked chords, the recording with noise up to the edge of the band."""
    packer = Packer(folder, rate, channels)
    time = torch.arange(rate * seconds) / rate
    for number, kind in enumerate(("mix", "stem", "real")):
        tones = [torch.sin(2 * torch.pi * f * time) for f in (110 * (number + 2), 165 * (number + 2))]
        wav = torch.stack(tones)[: max(1, channels)] if channels == 2 else sum(tones)[None]  # type: ignore[index]
        wav = wav * torch.exp(-3 * (time % 0.5)) * 0.2
        if kind == "real":
            wav = wav + 0.01 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
        packer.add(kind, kind, wav)
    packer.close()
    return folder


class Dies(CodecTask):
    """Killed outright on entering step ``at_step``."""

    at_step = -1

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        if step == self.at_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(step, ema)


def go(config: CodecRecipe, packed: Path, out: Path, world: World, die: int = -1) -> None:
    """Train into ``out``, or until killed."""
    task = Dies(config, Corpus(packed), {}, world)
    task.at_step = die
    run(task, config, out, quiet=True, world=world)


def weights(out: Path) -> dict[str, Tensor]:
    """Everything a checkpoint holds that training moves."""
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    rows = {f"model.{k}": v for k, v in state["model"].items()} | {f"ema.{k}": v for k, v in state["ema"].items()}
    for name, tensors in state["extra"].items():
        rows |= {f"{name}.{k}": v for k, v in tensors.items()}
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    packed, out = Path(sys.argv[1]), Path(sys.argv[2])
    here = World.join("cpu")
    if sys.argv[3] == "kill":
        go(small(), packed, out / "killed", here, die=9)
    go(small(), packed, out / "killed", here)
    if sys.argv[3] == "both":
        go(small(), packed, out / "whole", here)
    here.leave()
