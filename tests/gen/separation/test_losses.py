"""Losses of separators."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from descant.eval.separation import si_scores, utterance_sdr
from descant.gen.separation import losses

from .made import network


def stems(seed: int = 0, batch: int = 2, count: int = 3, length: int = 6000) -> Tensor:
    return torch.randn(batch, count, 2, length, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_level_is_minus_a_tenth_of_the_sdr() -> None:
    target = stems(length=40000)
    output = target + 0.1 * stems(1, length=40000)
    sdr = torch.stack([utterance_sdr(t, o) for t, o in zip(target, output, strict=True)]).mean()
    assert float(losses.level(output, target, floor=0.0)) == pytest.approx(-float(sdr) / 10, abs=1e-3)


def test_level_ends_at_its_floor_and_bears_silence() -> None:
    target = stems()
    target[:, 0] = 0
    assert float(losses.level(target, target)) > -3.1
    loud = target.clone()
    loud[:, 0] += 0.1
    assert float(losses.level(loud, target)) > float(losses.level(target, target)) + 0.5


@pytest.mark.parametrize("loss", [losses.waveform, losses.spectral])
def test_relative_losses_do_not_hear_loudness(loss: object) -> None:
    assert callable(loss)
    target, output = stems(), stems(1)
    assert float(loss(target, target)) < 1e-3
    assert float(loss(output, target)) == pytest.approx(float(loss(output * 4, target * 4)), rel=0.02)
    assert float(loss(output, target)) > float(loss(0.5 * (output + target), target)) > 0


def test_spectral_loss_is_a_mean_over_windows() -> None:
    target, output = stems(), stems(1)
    both = losses.spectral(output, target, [512, 2048])
    each = [losses.spectral(output, target, [window]) for window in (512, 2048)]
    assert float(both) == pytest.approx(float(sum(each)) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="at least one window"):
        losses.spectral(output, target, [])


def test_si_sdr_is_that_of_the_scores() -> None:
    target = stems(batch=1)
    output = 0.3 * target + 0.05 * stems(1, batch=1)
    ours = losses.si_sdr(output[0].mean(1, keepdim=True), target[0].mean(1, keepdim=True))
    theirs = si_scores(target[0].mean(1, keepdim=True), output[0].mean(1, keepdim=True)).sdr
    assert torch.allclose(ours.double(), theirs.double(), atol=0.01)


def test_permutations_are_found() -> None:
    target = stems(count=4)
    order = [2, 0, 3, 1]
    output = (target + 0.01 * stems(5, count=4))[:, order]
    best, found = losses.permutation_invariant(output, target)
    assert torch.equal(output[0, found[0]] - target[0], (target + 0.01 * stems(5, count=4))[0] - target[0])
    tried = [losses.si_sdr(output[:, list(p)], target).mean(1) for p in itertools.permutations(range(4))]
    assert torch.allclose(best, torch.stack(tried).amax(0), atol=1e-4)
    least, _ = losses.permutation_invariant(output, target, largest=False)
    assert torch.allclose(least, torch.stack(tried).amin(0), atol=1e-4)


def test_mixit_tries_every_way_to_share() -> None:
    parts = stems(count=4)
    output = parts + 0.2 * stems(3, count=4)
    mixes = torch.stack([parts[:, 0] + parts[:, 3], parts[:, 1] + parts[:, 2]], 1)
    best, owner = losses.mixture_invariant(output, mixes)
    assert owner.tolist() == [[0, 1, 1, 0]] * 2
    tried = []
    for way in itertools.product((0, 1), repeat=4):
        sums = torch.stack([
            sum((output[:, m] for m in range(4) if way[m] == mix), torch.zeros_like(output[:, 0])) for mix in (0, 1)
        ], 1)  # fmt: skip
        tried.append(torch.stack([losses.level(sums[b : b + 1], mixes[b : b + 1]) for b in range(2)]))
    assert torch.allclose(best, torch.stack(tried).amin(0), atol=1e-3)


def test_mixit_has_a_gradient() -> None:
    output = stems(count=3).requires_grad_()
    loss, _ = losses.mixture_invariant(output, stems(1, count=2))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None and bool(torch.isfinite(output.grad).all()) and bool(output.grad.any())


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="one shape"):
        losses.permutation_invariant(stems(), stems(count=2))
    with pytest.raises(ValueError, match="mixes"):
        losses.mixture_invariant(stems(), stems(count=3))
    with pytest.raises(ValueError, match="at most 10"):
        losses.mixture_invariant(stems(count=11), stems(count=2))


def test_a_teacher_follows_slowly() -> None:
    model, teacher = network(0), network(1)
    follower = losses.MeanTeacher(model, teacher, decay=0.75)
    start = {name: value.clone() for name, value in teacher.named_parameters()}
    assert all(torch.equal(value, dict(model.named_parameters())[name]) for name, value in start.items())
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    follower.follow(model)
    assert all(torch.allclose(value, start[name] + 0.25, atol=1e-5) for name, value in teacher.named_parameters())
    assert not any(value.requires_grad for value in teacher.parameters())


def test_agreement_with_the_teacher_needs_no_stems() -> None:
    model, teacher = network(0), network(0)
    follower = losses.MeanTeacher(model, teacher)
    mix = stems(count=1)[:, 0]
    with torch.no_grad():
        agreed = follower.consistency(model(mix), mix)
    with torch.no_grad():
        nn.init.normal_(model.norm.bias)
    other = follower.consistency(model(mix), mix)
    assert other.item() > float(agreed) + 0.1 and math.isfinite(other.item())
    other.backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is None for value in teacher.parameters())
