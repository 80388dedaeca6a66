"""A language-model run shared by two processes over gloo: the weights are those of one, and a kill costs nothing."""

import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from descant.recipes.lm import LMTask
from descant.recipes.tokens import TokenSet
from descant.recipes.world import ALONE, World

from .lm_runs import go, moments, shards, small, state
from .two import two


def alone(data: Path, out: Path, **settings: str) -> Path:
    """The same run in this process, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    go(small(**settings), data, out, ALONE)
    torch.set_num_threads(threads)
    return out


def gap(a: Path, b: Path) -> float:
    """Largest difference of two runs' weights and averages."""
    one, other = state(a), state(b)
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def start(data: Path) -> dict[str, Tensor]:
    task = LMTask(small(), TokenSet(data), TokenSet(data))
    return {f"model.{name}": value.detach() for name, value in task.lm.named_parameters()}


def test_two_processes_train_as_one_and_go_on_after_a_kill(tmp_path: Path) -> None:
    data = shards(tmp_path / "data")
    assert two("lm_runs.py", data, tmp_path, "kill") == [-signal.SIGKILL] * 2
    assert 0 < torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["step"] < 20
    assert two("lm_runs.py", data, tmp_path, "rest") == [0, 0]
    for read in (state, moments):
        killed, whole = read(tmp_path / "killed"), read(tmp_path / "whole")
        assert killed.keys() == whole.keys() and whole
        assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []
    # plain AdamW, and gradients in parts: rounding is all that tells two from one, and little of it
    assert gap(tmp_path / "adamw", alone(data, tmp_path / "one", optimiser="adamw")) <= 1e-5
    # a process that learns from its own share alone goes somewhere else
    half = state(alone(data, tmp_path / "half", optimiser="adamw", batch="2"))
    one, begin = state(tmp_path / "one"), start(data)
    moved = max(float((one[name] - begin[name]).abs().max()) for name in begin)
    assert max(float((one[name] - half[name]).abs().max()) for name in begin) > 1e-3 < moved
    # Muon makes orthogonal what is left of a gradient, so rounding weighs more: against the way that it went
    muon = alone(data, tmp_path / "muon")
    assert gap(tmp_path / "whole", muon) < 0.02 * moved


def test_a_share_is_what_one_process_would_draw(tmp_path: Path) -> None:
    data = TokenSet(shards(tmp_path / "data"))
    ((codes, whole),) = LMTask(small(), data, data)._parts(3)
    for rank in (0, 1):
        ((own, batch),) = LMTask(small(), data, data, World(rank=rank, size=2))._parts(3)
        rows = slice(2 * rank, 2 * rank + 2)
        assert torch.equal(own, codes[rows]) and batch.text == whole.text[rows]
        for name in ("genre", "tempo", "key", "instruments", "beat", "chords", "ahead"):
            assert torch.equal(getattr(batch, name), getattr(whole, name)[rows])
    halves = LMTask(small(accumulate="2"), data, data)._parts(3)
    assert torch.equal(torch.cat([part for part, _ in halves]), codes)
    with pytest.raises(ValueError, match="cannot be taken in 3 parts"):
        LMTask(small(accumulate="3"), data, data)


def test_a_gradient_that_one_process_lacks_counts_as_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    # the other process used the first and the last parameter, this one the first two; nobody the fourth
    values = [torch.nn.Parameter(torch.ones(2)) for _ in range(4)]
    values[0].grad, values[1].grad = torch.full((2,), 4.0), torch.full((2,), 2.0)
    answers = [torch.tensor([2.0, 1.0, 1.0, 0.0]), torch.tensor([6.0, 6.0, 2.0, 2.0, 8.0, 8.0])]
    monkeypatch.setattr(World, "sum", lambda self, rows: answers.pop(0))
    World(size=2).average_gradients(values)
    assert [None if value.grad is None else value.grad.tolist() for value in values] == [[3, 3], [1, 1], [4, 4], None]
