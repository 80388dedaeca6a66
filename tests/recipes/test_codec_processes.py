"""A codec run shared by two processes, joined by gloo: the weights are those of one, and a kill costs nothing."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from descant.recipes import world as worlds
from descant.recipes.codec_task import build
from descant.recipes.loop import LoopConfig, run
from descant.recipes.world import ALONE, World

from .codec_runs import go, pack, small, weights
from .two import two


def test_two_processes_train_as_one_and_go_on_after_a_kill(tmp_path: Path) -> None:
    packed = pack(tmp_path / "packed")
    assert two("codec_runs.py", packed, tmp_path, "kill") == [-signal.SIGKILL] * 2
    assert 0 < torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["step"] < 12
    assert two("codec_runs.py", packed, tmp_path, "both") == [0, 0]
    killed, whole = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert killed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    go(small(), packed, tmp_path / "one", ALONE)
    go(small(batch="2", polish_batch="1"), packed, tmp_path / "half", ALONE)
    torch.manual_seed(small().seed)
    start = {f"model.{name}": value for name, value in build(small().codec).named_parameters()}
    torch.set_num_threads(threads)
    one, half = weights(tmp_path / "one"), weights(tmp_path / "half")
    # rounding is all that tells two from one (Adam and Muon enlarge it where gradients are small): against the way
    # that the weights went, little; a process that learns from its own share alone goes somewhere else
    assert _apart(whole, one, start) < 0.25
    assert _apart(half, one, start) > 0.5


def _apart(a: dict[str, Tensor], b: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Distance of two runs' weights over the distance that the second went from the start."""
    # the networks: the axes of the books' projections may change places where the data hardly prefer one
    names = [name for name in start if ".quantiser." not in name]
    gap = sum(float((a[name] - b[name]).square().sum()) for name in names)
    way = sum(float((b[name] - start[name].detach()).square().sum()) for name in names)
    return (gap / way) ** 0.5


def test_a_process_that_finds_itself_alone_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lonely:
        num_processes, process_index, device = 1, 0, torch.device("cpu")

        def __init__(self, cpu: bool) -> None:
            pass

    import accelerate

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(accelerate, "Accelerator", Lonely)
    with pytest.raises(RuntimeError, match="2 processes were launched but this one trains among 1"):
        World.join("cpu")


@pytest.mark.parametrize("launcher", worlds._LAUNCHERS)
def test_no_loop_runs_alone_under_a_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, launcher: str) -> None:
    monkeypatch.setenv(launcher, "3")
    task: Any = None  # refused before it is looked at
    with pytest.raises(RuntimeError, match="3 processes were launched but this one trains among 1"):
        run(task, LoopConfig(steps=1), tmp_path, quiet=True)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert [World(rank=rank, size=2).share(6) for rank in (0, 1)] == [slice(0, 3), slice(3, 6)]
    with pytest.raises(ValueError, match="a batch of 5 cannot be shared by 2 processes"):
        World(size=2).share(5)


def test_alone_nothing_is_exchanged() -> None:
    rows = torch.arange(3.0)
    assert ALONE.gather(rows) is rows and torch.equal(ALONE.mean(rows), rows)
    assert ALONE.first(2.5) == 2.5 and ALONE.any(True) and not ALONE.any(False)
