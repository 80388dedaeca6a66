"""Runs whose states DeepSpeed spreads over two gloo processes: each stage ends where one process ends, and resumes."""

from pathlib import Path

import pytest
import torch

from descant.recipes.engine import ZeroTask, configuration
from descant.recipes.tokens import TokenSet
from descant.recipes.world import World

from .lm_runs import moments, shards, small, state
from .test_lm_processes import alone, gap
from .two import two


def test_every_stage_is_one_process_and_resumes(tmp_path: Path) -> None:
    data = shards(tmp_path / "data")
    assert two("lm_runs.py", data, tmp_path, "zero") == [0, 0]
    one = alone(data, tmp_path / "one", optimiser="adamw")
    for stage in "123":
        assert gap(tmp_path / f"zero{stage}", one) <= 1e-5
        log = (tmp_path / f"zero{stage}" / "log.jsonl").read_text()
        assert "val/ce_0" in log and "nan" not in log.lower()
    # stopped at step 8 and gone on (as stage 3 was) from a checkpoint that holds the whole of everything
    for read in (state, moments):
        through, again = read(tmp_path / "zero2"), read(tmp_path / "again2")
        assert through.keys() == again.keys() and through
        assert [name for name in through if not torch.equal(through[name], again[name])] == []


def test_the_recipe_and_the_file_do_not_contradict(tmp_path: Path) -> None:
    world = World(size=2)
    for stage in "123":
        found = configuration(small(zero=stage, optimiser="adamw", accumulate="2"), world)
        assert found["zero_optimization"]["stage"] == int(stage)
        assert found["train_micro_batch_size_per_gpu"] == 1 and found["gradient_accumulation_steps"] == 2
    path = tmp_path / "mine.json"
    path.write_text('{"gradient_clipping": 3}')
    with pytest.raises(ValueError, match="gradient_clipping, which the recipe decides"):
        configuration(small(zero=str(path), optimiser="adamw"), world)
    path.write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        configuration(small(zero=str(path), optimiser="adamw"), world)
    with pytest.raises(ValueError, match="1, 2 and 3 are built in"):
        configuration(small(zero="4", optimiser="adamw"), world)


def test_what_cannot_be_spread_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = TokenSet(shards(tmp_path / "data"))
    with pytest.raises(ValueError, match="optimiser=adamw"):
        small(zero="2")
    with pytest.raises(ValueError, match="there is one"):
        ZeroTask(small(zero="2", optimiser="adamw"), data, data, World())
    # launched as two, joined as one: each would train a model of its own
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were launched but this one trains among 1"):
        ZeroTask(small(zero="2", optimiser="adamw"), data, data, World())
