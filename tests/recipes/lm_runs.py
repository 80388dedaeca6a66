"""A language-model run of twenty very small steps, for the tests; as a script, one process of such runs."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from descant.recipes.lm import LMRecipe, LMTask, recipe
from descant.recipes.loop import override, run
from descant.recipes.piece import Piece, Stem, write_pieces
from descant.recipes.tokens import TokenSet
from descant.recipes.world import World

STEPS = 20


def small(**settings: str) -> LMRecipe:
    """Twenty steps in float32, so that a shared batch differs from a whole one by rounding only."""
    return override(recipe("nano"), {  # type: ignore[no-any-return]
        "lm.width": "16", "lm.cardinality": "32", "lm.window": "32", "lm.text_vocab": "64", "lm.text_width": "8",
        "lm.text_tokens": "4", "frames": "24", "steps": str(STEPS), "batch": "4", "warmup": "4", "ema": "0.9",
        "validate_every": "10", "log_every": "5", "save_seconds": "0", "device": "cpu", **settings,
    })  # fmt: skip


def shards(folder: Path) -> Path:
    """Four pieces whose tokens repeat, with conditions to drop."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    pieces = [
        Piece(
            id=f"p{n}", layer="builtin", split="train", seed=n, duration=2.0, genre=("jazz", "rock")[n % 2],
            style="plain", tempo=60.0 + 20 * n, beats_per_bar=4, key=("C major", "A minor")[n % 2],
            chords=((0.0, 1.0, "C"), (1.0, 2.0, "Am")), melody=(),
            stems=(Stem(role="lead", instrument="flute", program=73, notes=((0.0, 1.0, 60, 90),)),),
            captions=tuple(f"{mood} {('jazz', 'rock')[n % 2]} with flute" for mood in ("calm", "bright", "slow")),
        )
        for n in range(4)
    ]  # fmt: skip
    rows = [np.resize(rng.integers(0, 32, (7 + n, 4)), (100, 4)).astype(np.uint16) for n in range(4)]
    np.savez(folder / "tokens-00000.npz", codes=np.concatenate(rows), starts=np.arange(5) * 100)
    write_pieces(folder / "pieces-00000.jsonl.gz", pieces)
    mark = {"codec": "0" * 16, "books": 4, "rate": 32000, "hop": 640, "cardinality": 32}
    (folder / "tokens.json").write_text(json.dumps(mark))
    return folder


class Dies(LMTask):
    """Killed outright on entering step 13."""

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        if step == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(step, ema)


def go(config: LMRecipe, data: Path, out: Path, world: World, kind: type[LMTask] = LMTask, stop: int | None = None):
    """Train into ``out``, or until killed."""
    run(kind(config, TokenSet(data), TokenSet(data), world), config, out, stop, quiet=True, world=world)


def state(out: Path) -> dict[str, Tensor]:
    """Weights and their averages in the checkpoint of ``out``."""
    found = torch.load(out / "checkpoint.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("model", "ema") for name, value in found[part].items()}


def moments(out: Path) -> dict[str, Tensor]:
    """Everything else that training moves, as named tensors."""
    rows: dict[str, Tensor] = {}

    def walk(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            rows[name] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)

    walk("optimisers", torch.load(out / "checkpoint.pt", weights_only=True)["optimisers"])
    return rows


def main() -> None:
    """One process of two: DATA OUT kill | rest | zero."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data, out, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    here = World.join("cpu")
    if mode == "kill":
        go(small(), data, out / "killed", here, Dies)
    elif mode == "rest":
        go(small(), data, out / "killed", here)
        go(small(), data, out / "whole", here)
        go(small(optimiser="adamw", accumulate="2"), data, out / "adamw", here)
    else:
        from descant.recipes.engine import ZeroTask

        for stage in "123":
            config = small(optimiser="adamw", zero=stage, accumulate="2" if stage == "2" else "1")
            if stage == "3":
                go(config, data, out / "zero3", here, ZeroTask, stop=8)
            go(config, data, out / f"zero{stage}", here, ZeroTask)
        config = small(optimiser="adamw", zero="2", accumulate="2")
        go(config, data, out / "again2", here, ZeroTask, stop=8)
        go(config, data, out / "again2", here, ZeroTask)
    here.leave()


if __name__ == "__main__":
    main()
