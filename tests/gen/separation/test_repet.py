"""Repeating backing: similar frames and periods, against librosa and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from descant.gen.separation.repet import (
    Repet,
    RepetSettings,
    RepetSim,
    SimSettings,
    beat_spectrum,
    neighbours,
    period,
    repeated,
    similar_frames,
    similarity,
)

_RATE = 44100


def loop(seconds: float, length: float) -> Tensor:
    """Notes that come back every ``length`` seconds, [1, T]."""
    time = torch.arange(round(length * _RATE)) / _RATE
    bar = torch.zeros_like(time)
    for number, hertz in enumerate((220.0, 330.0, 262.0, 294.0)):
        since = (time - number * length / 4).clamp(min=0)
        bar += 0.3 * torch.sin(2 * math.pi * hertz * since) * torch.exp(-3 * since)
    count = round(seconds * _RATE)
    return bar.repeat(-(-count // len(bar)))[None, :count]


def voice(seconds: float) -> Tensor:
    """A gliding tone that never comes back, [1, T]."""
    time = torch.arange(round(seconds * _RATE)) / _RATE
    return (0.15 * torch.sin(2 * math.pi * (800 * time + 40 * time.square())))[None]


def ratio(true: Tensor, made: Tensor) -> float:
    """Energy of the truth over that of the error, in dB."""
    return 10 * math.log10(float(true.square().sum()) / float((true - made).square().sum()))


@pytest.mark.parametrize("method", [RepetSim(), Repet()], ids=["sim", "period"])
def test_a_voice_leaves_a_loop(method: RepetSim | Repet) -> None:
    back, front = loop(10, 1.25), voice(10)
    made = method.separate(back + front, _RATE)
    assert ratio(back, made["background"]) > 8
    assert ratio(front, made["foreground"]) > 8
    assert made.residual.abs().max() <= 1e-6


def test_similarity_is_the_cosine() -> None:
    values = np.random.default_rng(0).random((2, 30, 12))
    values[:, 3] = 0
    mean = values.mean(0)
    norm = np.linalg.norm(mean, axis=1)
    norm[3] = 1
    wanted = mean @ mean.T / norm[:, None] / norm
    assert np.abs(similarity(torch.from_numpy(values)).numpy() - wanted).max() < 1e-12


def test_neighbours_are_those_of_a_plain_loop() -> None:
    alike = similarity(torch.from_numpy(np.random.default_rng(1).random((1, 60, 5))))
    settings = SimSettings(neighbours=6, floor=0.5)
    places, counts = neighbours(alike, settings, 4)
    for frame, row in enumerate(alike.numpy()):
        peaks = [
            other
            for other in range(60)
            if abs(other - frame) > 4 and row[other] > 0.5
            and row[other] == row[max(0, other - 4) : other + 5].max()
        ]  # fmt: skip
        wanted = [frame, *sorted(peaks, key=lambda other: -row[other])][:6]
        assert places[frame, : counts[frame]].tolist() == wanted


def test_the_model_is_the_median_of_the_most_similar_frames() -> None:
    # no distance between neighbours: the most similar frames, as librosa.decompose.nn_filter aggregates them
    values = np.random.default_rng(2).random((40, 16))
    made = similar_frames(torch.from_numpy(values)[None], SimSettings(neighbours=9), 0)[0].numpy()
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    for frame, alike in enumerate(unit @ unit.T):
        assert np.array_equal(made[frame], np.median(values[np.argsort(-alike)[:9]], 0))


def test_the_beat_spectrum_is_the_autocorrelation() -> None:
    values = np.random.default_rng(3).random((1, 25, 4))
    energy = values[0] ** 2
    wanted = np.array([np.mean((energy[: 25 - lag] * energy[lag:]).sum(1)) for lag in range(25)])
    made = beat_spectrum(torch.from_numpy(values)).numpy()
    assert np.abs(made - wanted / wanted[0]).max() < 1e-10


def test_the_period_is_found() -> None:
    from descant.gen.separation.spectral import Grid

    grid = Grid(window=2048, hop=1024)
    size = grid.analyse(loop(12, 1.5)).abs()
    found = period(beat_spectrum(size), grid.frames(1.0), grid.frames(10.0))
    times = found * 1024 / _RATE / 1.5
    assert round(times) >= 1 and abs(times - round(times)) < 0.02  # or a multiple: the loop comes back then as well
    assert period(torch.rand(5), 43, 430) == 1  # too short for three of them


@pytest.mark.parametrize(("frames", "length"), [(12, 4), (14, 4), (3, 1), (7, 7), (9, 5)])
def test_the_repeating_segment_is_the_median_of_its_repetitions(frames: int, length: int) -> None:
    values = np.random.default_rng(4).random((2, frames, 3))
    wanted = np.stack([np.median(values[:, frame % length :: length], 1) for frame in range(frames)], 1)
    assert np.array_equal(repeated(torch.from_numpy(values), length).numpy(), wanted)


def test_low_sound_is_backing() -> None:
    time = torch.arange(3 * _RATE) / _RATE
    bass = (0.3 * torch.sin(2 * math.pi * (40 * time + 5 * time.square())))[None]
    assert ratio(bass, RepetSim().separate(bass, _RATE)["background"]) > 20


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="floor below 1"):
        SimSettings(floor=1.0)
    with pytest.raises(ValueError, match="shortest <= longest"):
        RepetSettings(shortest=3.0, longest=2.0)
