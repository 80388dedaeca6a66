"""A separator run of eight very small steps, for the tests; as a script, one process of such a run."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from descant.recipes.loop import override, run
from descant.recipes.separator import SeparatorTask, recipe
from descant.recipes.separator_config import SeparatorRecipe
from descant.recipes.stems_data import StemCorpus
from descant.recipes.world import World

STEPS = 8


def small(**settings: str) -> SeparatorRecipe:
    """Eight steps in float32, so that a shared batch differs from a whole one by rounding only."""
    return override(recipe("nano"), {  # type: ignore[no-any-return]
        "steps": str(STEPS), "batch": "4", "warmup": "2", "ema": "0.9", "validate_every": "1000", "log_every": "4",
        "save_seconds": "0", "device": "cpu", **settings,
    })  # fmt: skip


class Dies(SeparatorTask):
    """Killed outright on entering step ``at_step``."""

    at_step = -1

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        if step == self.at_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(step, ema)


def go(config: SeparatorRecipe, packed: Path, out: Path, world: World, die: int = -1) -> None:
    """Train into ``out``, or until killed."""
    task = Dies(config, StemCorpus(packed), StemCorpus(packed), world)
    task.at_step = die
    run(task, config, out, quiet=True, world=world)


def weights(out: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint and their averages."""
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    return {f"model.{k}": v for k, v in state["model"].items()} | {f"ema.{k}": v for k, v in state["ema"].items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    packed, out = Path(sys.argv[1]), Path(sys.argv[2])
    here = World.join("cpu")
    if sys.argv[3] == "kill":
        go(small(), packed, out / "killed", here, die=5)
    go(small(), packed, out / "killed", here)
    if sys.argv[3] == "both":
        go(small(), packed, out / "whole", here)
    here.leave()
