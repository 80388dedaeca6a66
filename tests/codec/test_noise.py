"""The noise's expected power against power measured on many draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from descant.codec.noise import expected_energy, expected_power
from descant.codec.stft import spectra, synthesise

WINDOW, HOP, FRAMES = 256, 64, 240


def _level() -> Tensor:
    # a band that swells, then falls silent
    bins = torch.linspace(0, 1, WINDOW // 2 + 1)
    envelope = torch.cat([torch.linspace(0.1, 2, FRAMES - 20), torch.full((20,), 0.05)])
    return (0.2 + torch.exp(-((bins - 0.4) ** 2) / 0.02))[None] * envelope[:, None]


def _draws(level: Tensor, count: int = 32) -> Tensor:
    phase = torch.rand(count, 1, *level.shape, generator=torch.Generator().manual_seed(3)) * 2 * torch.pi
    return synthesise(torch.polar(level.expand_as(phase).contiguous(), phase), WINDOW, HOP)[:, 0]


@pytest.mark.parametrize("other", [32, 128, 256, 1024])
def test_expected_power_is_the_mean_over_draws(other: int) -> None:
    level = _level()
    wav = _draws(level)
    expected = expected_power(level[None], WINDOW, HOP, wav.shape[-1], other)[0]
    measured = spectra(wav, other, other // 4).abs().square().mean(0)
    assert expected.shape == measured.shape
    # the swelling part; the outermost bins are real, not complex, and have other statistics
    last = int(0.8 * len(expected))
    ours, theirs = expected[2:last, 1:-1], measured[2:last, 1:-1]
    assert abs(float(theirs.sum() / ours.sum()) - 1) < 0.03
    # bin by bin within what 32 draws leave to chance and a window blurs
    ratio = (theirs / ours).log().abs()
    assert float(ratio.median()) < 0.2


def test_expected_energy_is_the_mean_over_draws() -> None:
    level = _level()
    energy = _draws(level).square().sum(1).mean()
    assert abs(float(energy / expected_energy(level[None], WINDOW, HOP)) - 1) < 0.03


def test_gradient_reaches_the_level() -> None:
    level = _level()[None].requires_grad_()
    expected_power(level, WINDOW, HOP, HOP * FRAMES, 128).sum().backward()
    assert level.grad is not None and bool((level.grad > 0).all())
