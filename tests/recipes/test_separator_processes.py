"""A separator's run shared by two processes, joined by gloo: the weights are those of one, and a kill costs nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import torch
from torch import Tensor

from descant.recipes import builtin, stems_data
from descant.recipes.separator import SeparatorTask
from descant.recipes.stems_data import StemCorpus
from descant.recipes.world import ALONE

from .separator_runs import STEPS, go, small, weights
from .two import two


def test_two_processes_train_as_one_and_go_on_after_a_kill(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    stems_data.pack([builtin.compose(seed, "train", 3.0) for seed in range(3)], packed, rate=8000, seconds=2.0)
    assert two("separator_runs.py", packed, tmp_path, "kill") == [-signal.SIGKILL] * 2
    assert 0 < torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["step"] < STEPS
    assert two("separator_runs.py", packed, tmp_path, "both") == [0, 0]
    killed, whole = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert killed.keys() == whole.keys()
    assert [name for name in whole if not torch.equal(killed[name], whole[name])] == []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    go(small(), packed, tmp_path / "one", ALONE)
    go(small(batch="2"), packed, tmp_path / "half", ALONE)
    corpus = StemCorpus(packed)
    start = {f"model.{k}": v for k, v in SeparatorTask(small(), corpus, corpus).model.named_parameters()}
    torch.set_num_threads(threads)
    one, half = weights(tmp_path / "one"), weights(tmp_path / "half")
    # rounding, which Muon and Adam enlarge where gradients are small, against the way that the weights went
    assert _apart(whole, one, start) < 0.1
    assert _apart(half, one, start) > 0.3


def _apart(a: dict[str, Tensor], b: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Distance of two runs' weights over the distance that the second went from the start."""
    gap = sum(float((a[name] - b[name]).square().sum()) for name in start)
    way = sum(float((b[name] - value.detach()).square().sum()) for name, value in start.items())
    return (gap / way) ** 0.5
