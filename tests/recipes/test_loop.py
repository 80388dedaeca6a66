import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from descant.recipes.loop import LoopConfig, cosine, override, run, stream


class Line:
    """Fits y = 2x + 1; every batch is a function of (seed, step)."""

    def __init__(self, die_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Linear(1, 1)
        self.extra: dict[str, nn.Module] = {}
        self.optimisers = {"line": torch.optim.AdamW(self.model.parameters(), 1.0)}
        self.die_at = die_at

    def lr(self, step: int) -> float:
        return cosine(step, 0, 40, 0.3, 0.0, 4)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        if step == self.die_at:
            os.kill(os.getpid(), signal.SIGTERM)
        x = torch.randn(8, 1, generator=stream(0, step))
        loss = (self.model(x) - 2 * x - 1).square().mean()
        self.optimisers["line"].zero_grad()
        loss.backward()
        self.optimisers["line"].step()
        return {"loss": float(loss.detach())}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return {"slope": float(next(model.parameters()).detach())}


class Big(Line):
    """Asks for more than any machine has at its third step."""

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        if step == 2:
            torch.empty(1 << 60)
        return super().step(step, ema)


CONFIG = LoopConfig(steps=40, validate_every=10, log_every=5, ema=0.9)


def _state(folder: Path) -> dict[str, Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {**state["model"], **{f"ema.{k}": v for k, v in state["ema"].items()}}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_it_trains_and_logs(tmp_path: Path) -> None:
    assert run(Line(), CONFIG, tmp_path, quiet=True) == 40
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["val/slope"] == pytest.approx(2, abs=0.5)
    assert [row["step"] for row in rows if "loss" in row] == list(range(5, 41, 5))
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    run(Line(), CONFIG, tmp_path / "whole", quiet=True)
    assert run(Line(), CONFIG, tmp_path / "parts", stop=13, quiet=True) == 13
    assert run(Line(), CONFIG, tmp_path / "parts", quiet=True) == 40
    assert _same(_state(tmp_path / "whole"), _state(tmp_path / "parts"))
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "parts")]
    strip = [[{k: v for k, v in json.loads(row).items() if k != "time"} for row in rows] for rows in logs]
    assert strip[0] == [row for row in strip[1] if row["step"] != 13]


def test_interrupt_saves_and_resumes_exactly(tmp_path: Path) -> None:
    assert run(Line(die_at=7), CONFIG, tmp_path / "cut", quiet=True) == 8
    run(Line(), CONFIG, tmp_path / "cut", quiet=True)
    run(Line(), CONFIG, tmp_path / "whole", quiet=True)
    assert _same(_state(tmp_path / "whole"), _state(tmp_path / "cut"))


def test_kill_minus_nine_resumes_to_the_same_weights(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import importlib.util, os, signal, sys
        spec = importlib.util.spec_from_file_location("line", {str(Path(__file__))!r})
        module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
        class Dies(module.Line):
            def step(self, step, ema):
                if step == 23: os.kill(os.getpid(), signal.SIGKILL)
                return super().step(step, ema)
        config = module.LoopConfig(steps=40, validate_every=10, log_every=5, ema=0.9, save_seconds=0.0)
        module.run(Dies(), config, {str(tmp_path / "killed")!r}, quiet=True)
        """
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    run(Line(), CONFIG, tmp_path / "killed", quiet=True)
    run(Line(), CONFIG, tmp_path / "whole", quiet=True)
    assert _same(_state(tmp_path / "whole"), _state(tmp_path / "killed"))


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    run(Line(), CONFIG, tmp_path, stop=2, quiet=True)
    with pytest.raises(ValueError, match=r"other settings .*lr"):
        run(Line(), override(CONFIG, {"lr": "0.5"}), tmp_path, quiet=True)


def test_a_checkpoint_may_be_older_than_a_setting(tmp_path: Path) -> None:
    run(Line(), CONFIG, tmp_path, stop=2, quiet=True)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["config"]["minutes"]
    torch.save(state, tmp_path / "checkpoint.pt")
    assert run(Line(), CONFIG, tmp_path, stop=4, quiet=True) == 4
    with pytest.raises(ValueError, match=r"other settings .*minutes"):
        run(Line(), override(CONFIG, {"minutes": "1"}), tmp_path, quiet=True)


class Placed(Line):
    """Keeps the places it was sent to."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[int] = []

    def at(self, place: int) -> None:
        self.places.append(place)


def test_by_wall_clock_the_schedule_is_squeezed_into_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each look at the clock finds it 1.2 s later, and a step takes two: 40 steps squeezed into 16 s are about seven
    ticks = itertools.count(start=1000.0, step=1.2)
    monkeypatch.setattr("descant.recipes.loop.time.monotonic", lambda: next(ticks))
    config = replace(CONFIG, minutes=16 / 60)
    task = Placed()
    done = run(task, config, tmp_path, quiet=True)
    assert 4 <= done <= 12 and task.places[0] == 0 and all(a < b for a, b in itertools.pairwise(task.places))
    assert task.places[-1] < 40 and task.places[-1] > 25
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["val/slope"] and [row["lr"] for row in rows if "lr" in row][-1] < 0.1


def test_by_wall_clock_a_resumed_run_has_the_time_left_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(start=1000.0, step=1.0)
    monkeypatch.setattr("descant.recipes.loop.time.monotonic", lambda: next(ticks))
    config = replace(CONFIG, minutes=20 / 60)
    first, second = Placed(), Placed()
    run(first, config, tmp_path, stop=4, quiet=True)
    for _ in range(1000):  # a night in between
        next(ticks)
    run(second, config, tmp_path, quiet=True)
    # goes on where it was, not at the beginning and not at the end
    assert first.places[-1] <= second.places[0] <= first.places[-1] + 8
    assert len(second.places) > 2


def test_overrides() -> None:
    changed = override(CONFIG, {"steps": "50", "lr": "0.5", "bf16": "false", "device": "cpu"})
    assert (changed.steps, changed.lr, changed.bf16, changed.device) == (50, 0.5, False, "cpu")
    with pytest.raises(ValueError, match="unknown setting 'stepz'"):
        override(CONFIG, {"stepz": "1"})
    with pytest.raises(ValueError, match="steps=many"):
        override(CONFIG, {"steps": "many"})
    with pytest.raises(ValueError, match="at least 1"):
        override(CONFIG, {"steps": "0"})


@dataclass(frozen=True, kw_only=True)
class Nested:
    inner: LoopConfig = CONFIG
    sizes: tuple[int, ...] = (1, 2)
    names: tuple[str, ...] = ("a",)


def test_overrides_reach_into_settings_and_read_lists() -> None:
    changed = override(Nested(), {"inner.steps": "7", "inner.lr": "0.5", "sizes": "3,4,5", "names": "x, y"})
    assert (changed.inner.steps, changed.inner.lr, changed.inner.batch) == (7, 0.5, CONFIG.batch)
    assert changed.sizes == (3, 4, 5) and changed.names == ("x", "y")
    with pytest.raises(ValueError, match=r"write inner\.name=value"):
        override(Nested(), {"inner": "7"})
    with pytest.raises(ValueError, match="unknown setting 'stepz'"):
        override(Nested(), {"inner.stepz": "7"})
    with pytest.raises(ValueError, match="sizes=3,x"):
        override(Nested(), {"sizes": "3,x"})


def test_schedule() -> None:
    rates = [cosine(step, 0, 100, 1.0, 0.1, 10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_a_step_that_is_too_large_says_what_to_lower(tmp_path: Path) -> None:
    from descant.recipes.lm import recipe

    with pytest.raises(RuntimeError, match=r"^no memory for a step of 16 crops: lower batch \(it is 16\)$"):
        run(Big(), LoopConfig(steps=40), tmp_path, quiet=True)
    wanted = r"lower batch \(it is 4\) or frames \(it is 50\), raise accumulate, set checkpointing=true$"
    with pytest.raises(RuntimeError, match=wanted):
        run(Big(), recipe("nano"), tmp_path / "lm", quiet=True)
