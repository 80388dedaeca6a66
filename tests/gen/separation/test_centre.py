"""The middle of the stereo picture."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from descant.gen.separation.centre import Centre, CentreSettings

from .made import sound

_RATE = 44100


def panned(wav: Tensor, place: float) -> Tensor:
    """A sound at 0 (left) to 1 (right), [2, T]."""
    return torch.stack([wav * (1 - place), wav * place]) * 2


def noise(seed: int) -> Tensor:
    return 0.1 * torch.randn(_RATE, generator=torch.Generator().manual_seed(seed))


def energy(wav: Tensor) -> float:
    return float(wav.double().square().sum())


def test_a_single_channel_is_all_centre() -> None:
    wav = sound(0.7, _RATE, 1)
    made = Centre().separate(wav, _RATE)
    assert torch.allclose(made["centre"], wav, atol=1e-6)
    assert made["sides"].abs().max() <= 1e-6


@pytest.mark.parametrize("place", [0.5, 0.6, 0.75, 0.9])
def test_the_share_of_a_panned_sound_is_the_formula(place: float) -> None:
    wav = noise(0)
    settings = CentreSettings(power=1.0)
    made = Centre(settings).separate(panned(wav, place), _RATE)
    share = 2 * place * (1 - place) / (place**2 + (1 - place) ** 2)
    assert torch.allclose(made["centre"][0], share * wav, atol=1e-4)
    assert torch.equal(made["centre"][0], made["centre"][1])


@pytest.mark.parametrize("pair", [(1.0, 0.0), (0.0, 1.0), (1.0, -1.0)])
def test_hard_panned_and_opposite_sounds_are_sides(pair: tuple[float, float]) -> None:
    wav = torch.stack([noise(1) * gain for gain in pair])
    made = Centre().separate(wav, _RATE)
    assert made["centre"].abs().max() <= 1e-6
    assert torch.allclose(made["sides"], wav, atol=1e-6)


def test_tones_in_the_middle_leave_those_at_the_sides() -> None:
    time = torch.arange(2 * _RATE) / _RATE
    middle, left, right = (0.2 * torch.sin(2 * math.pi * f * time) for f in (440.0, 700.0, 990.0))
    made = Centre().separate(panned(middle, 0.5) + panned(left, 0.05) + panned(right, 0.95), _RATE)
    error = made["centre"][0] - middle
    assert energy(error) < 1e-2 * energy(middle)
    assert made.residual.abs().max() <= 1e-6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="smooth odd"):
        CentreSettings(smooth=2)
