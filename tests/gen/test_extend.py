"""The join of a continuation: levels across it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from descant.codec import audio
from descant.codec.audio import Audio
from descant.gen import extend, fit
from descant.gen.extend import _settle
from descant.gen.request import Request

from .made import able

RATE = 8000


def _noise(seconds: float, level: float, seed: int) -> Tensor:
    wav = torch.randn(1, round(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    return wav * level


def _decibels(wav: Tensor) -> float:
    return 10 * math.log10(float(wav.square().mean()))


@pytest.mark.parametrize("leap", [-18.0, 15.0])
def test_a_leap_is_held_back_and_let_go(leap: float) -> None:
    tail, follows = _noise(1, 0.2, 0), _noise(2, 0.2 * 10 ** (leap / 20), 1)
    gains = _settle(tail, follows, RATE, len(tail[0]))
    played = follows * gains[len(tail[0]) :]
    before, after = _decibels(tail[:, -800:]), _decibels(played[:, :800])
    # held to 9 dB where the two meet; the gain moves a little within the tenth of a second that is measured
    assert abs(after - before) < 9.8 < abs(leap)
    assert math.copysign(1, after - before) == math.copysign(1, leap)
    torch.testing.assert_close(played[:, RATE // 2 :], follows[:, RATE // 2 :])
    steps = (20 * gains[len(tail[0]) :].log10()).diff().abs()
    assert float(steps.max()) < 0.02, "the gain must glide"


def test_ordinary_neighbours_and_silence_are_left_alone() -> None:
    tail = _noise(1, 0.2, 0)
    for follows in (_noise(1, 0.1, 1), _noise(1, 0.0, 1), _noise(0, 0.1, 1)):
        assert bool((_settle(tail, follows, RATE, 4000) == 1).all())
    assert bool((_settle(tail * 0, _noise(1, 0.2, 1), RATE, 4000) == 1).all())


@pytest.mark.parametrize("level", [0.003, 0.5])
def test_what_is_heard_has_the_loudness_of_training(level: float, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Tensor] = []
    real = extend._encode

    def spy(studio: object, mono: Tensor, count: int) -> Tensor:
        heard.append(mono)
        return real(studio, mono, count)

    monkeypatch.setattr(extend, "_encode", spy)
    player = able()
    given = Audio(_noise(2.0, level, 0), RATE)
    more = extend.continuation(player, given, Request(seed=1, duration=1.0))
    assert audio.loudness(heard[0], player.codec.rate) == pytest.approx(fit.TRAINED, abs=0.2)
    # and what follows is brought back: no louder or quieter than the codec's own retelling allows
    assert float(more.wav[:, : more.overlap].square().mean().sqrt()) == pytest.approx(level, rel=0.5)
