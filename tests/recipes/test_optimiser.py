"""What each optimiser moves, and that Muon's steps are orthogonal and of AdamW's size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from descant.recipes.optimiser import optimisers


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 32), nn.Linear(32, 4))


def _groups(optimiser: torch.optim.Optimizer) -> set[int]:
    return {id(p) for group in optimiser.param_groups for p in group["params"]}


def test_every_parameter_is_moved_by_exactly_one() -> None:
    net = _network()
    made = optimisers("net", net, lambda name: name.startswith("1."), (0.9, 0.99), 0.1, 2.0)
    adam, muon = _groups(made["net"]), _groups(made["net/matrices"])
    assert muon == {id(net[1].weight)}
    assert adam | muon == {id(p) for p in net.parameters()} and not adam & muon
    assert [group["weight_decay"] for group in made["net"].param_groups] == [0.1, 0.0]
    assert made["net/matrices"].param_groups[0]["scale"] == 2.0


def test_a_step_moves_all_directions_alike() -> None:
    net = _network()
    made = optimisers("net", net, lambda name: name.startswith("1."), (0.9, 0.99))
    before = net[1].weight.detach().clone()
    # a gradient of one strong and many weak directions
    gradient = torch.randn(32, 16) * 0.01 + torch.outer(torch.ones(32), torch.ones(16))
    net[1].weight.grad = gradient
    for group in made["net/matrices"].param_groups:
        group["lr"] = 0.01
    made["net/matrices"].step()
    moved = torch.linalg.svdvals(net[1].weight.detach() - before)
    assert float(moved.max() / moved.min()) < 6
    assert float(torch.linalg.svdvals(gradient).max() / torch.linalg.svdvals(gradient).min()) > 100
    rms = float((net[1].weight.detach() - before).square().mean().sqrt())
    assert 0.001 < rms < 0.004  # 0.2 of the learning rate: what AdamW's steps come to


def test_nothing_for_muon_is_an_error() -> None:
    with pytest.raises(ValueError, match="no inner matrices"):
        optimisers("net", _network(), lambda name: False, (0.9, 0.99))


def test_an_old_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(RuntimeError, match=r"torch 2\.9"):
        optimisers("net", _network(), lambda name: True, (0.9, 0.99))
