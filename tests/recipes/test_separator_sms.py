"""The experiment that plays a stem again: pitch targets, loss, and a run in small."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.gen.separation.registry import get
from descant.gen.separation.sms_network import SmsConfig, SmsNetwork
from descant.recipes import builtin, separator, stems_data
from descant.recipes.separator import recipe, task_of
from descant.recipes.separator_config import SeparatorRecipe
from descant.recipes.separator_data import grouping
from descant.recipes.separator_sms import SmsTask, distance, pitch_loss, pitches
from descant.recipes.stems_data import Mixing, StemCorpus

TINY = SmsConfig(rate=8000, window=1024, hop=128, width=24, reach=(1, 2), harmonics=12, bands=9, lowest=28)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stems")
    stems_data.pack([builtin.compose(seed, "train", 3.0) for seed in range(3)], out, rate=8000, seconds=2.0)
    return out


def config() -> SeparatorRecipe:
    still = Mixing(speed=0.0, gain_db=0.0, remix=0.0, drop=0.0, pan=0.0)
    nano = replace(recipe("nano"), mixing=still, lr=1e-2, crop=1.0, steps=30)
    return replace(nano, network=TINY, waveform_weight=0.0, spectral_weight=1.0, level_weight=0.3)


@pytest.mark.parametrize("note", [30.0, 43.0, 55.25, 70.0])
def test_the_pitch_of_a_tone_is_found(note: float) -> None:
    hertz = 440 * 2 ** ((note - 69) / 12)
    time = torch.arange(8000) / 8000
    tone = sum((torch.sin(2 * math.pi * hertz * h * time) / h for h in (1, 2, 3)), torch.zeros(8000))
    noise = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    network = SmsNetwork(TINY)
    found = pitches(torch.stack([tone, noise, 0 * tone]), network)
    assert found.shape == (3, 63)
    wanted = round((note - TINY.lowest) * TINY.steps)
    assert bool(((found[0, 8:-8] - wanted).abs() <= 1).all())
    # noise has none nearly everywhere, silence nowhere
    assert float((found[1] >= 0).float().mean()) < 0.1 and bool((found[2] == -1).all())


def test_the_distance_hears_the_spectrum_and_no_phase() -> None:
    time = torch.arange(16000) / 8000
    one, turned = torch.sin(2 * math.pi * 300 * time)[None], torch.cos(2 * math.pi * 300 * time)[None]
    other = torch.sin(2 * math.pi * 450 * time)[None]
    assert float(distance(one, one)) == 0.0
    assert float(distance(turned, one)) < 0.2 * float(distance(other, one))
    assert float(distance(0 * one, one)) > float(distance(0.5 * one, one)) > 0.1


def test_the_loss_of_a_pitch_is_least_at_that_pitch() -> None:
    wanted = torch.tensor([5])

    def loss(place: int) -> float:
        return float(pitch_loss(6.0 * torch.nn.functional.one_hot(torch.tensor([place]), 20).float(), wanted))

    assert loss(6) == pytest.approx(loss(4)) and loss(5) < loss(6) < loss(9)


def test_silence_has_finite_gradients() -> None:
    wav = torch.zeros(1, 4000, requires_grad=True)
    (gradient,) = torch.autograd.grad(distance(wav, torch.zeros(1, 4000)), wav)
    assert bool(torch.isfinite(gradient).all())


def test_training_brings_the_stem_nearer(folder: Path) -> None:
    data = StemCorpus(folder)
    task = task_of(config())(config(), data, data)
    assert isinstance(task, SmsTask)
    with torch.no_grad():
        before = task.validate(task.network)
    for step in range(30):
        for optimiser in task.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = task.lr(step)
        figures = task.step(step, {})
    assert {"spectral", "pitch"} <= set(figures)
    with torch.no_grad():
        after = task.validate(task.network)
    assert after["spectral"] < 0.7 * before["spectral"] and after["pitch"] > before["pitch"] + 0.1
    assert after["silence"] == before["silence"] and after["mixture"] == before["mixture"]


def test_a_run_goes_on_where_it_was_stopped_and_its_export_separates(folder: Path, tmp_path: Path) -> None:
    short, places = replace(config(), steps=4, validate_every=2), [str(folder), str(folder)]
    whole = separator.train(short, *places, str(tmp_path / "whole"), quiet=True)
    separator.train(short, *places, str(tmp_path / "parts"), stop=2, quiet=True)
    parts = separator.train(short, *places, str(tmp_path / "parts"), quiet=True)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    made = get(whole).separate(StemCorpus(folder).song(0).sum(0), 8000)
    assert tuple(made) == ("bass", "rest") and float(made.residual.abs().max()) < 1e-5


def test_the_last_stem_takes_what_has_no_place() -> None:
    have = ("drums", "bass", "lead", "other")
    assert grouping(have, have) == [[0], [1], [2], [3]]
    assert grouping(have, ("bass", "rest")) == [[1], [0, 2, 3]]
    assert grouping(have, ("lead", "drums", "other")) == [[2], [0], [1, 3]]
    assert grouping(have, ("vocals", "rest")) is None and grouping(have, (*have, "rest")) is None


def test_a_network_may_have_fewer_stems_than_the_data(folder: Path) -> None:
    nano = recipe("nano")
    few = replace(nano, network=replace(nano.network, stems=("bass", "rest")), mixing=config().mixing)
    data = StemCorpus(folder)
    batch = separator.SeparatorTask(few, data, data).batch(0)
    whole = separator.SeparatorTask(nano, data, data)
    whole.config = replace(nano, mixing=few.mixing)
    every = whole.batch(0)
    assert torch.allclose(batch, torch.stack([every[:, 1], every[:, [0, 2, 3]].sum(1)], 1))
    with pytest.raises(ValueError, match="neither loss=pit"):
        replace(config(), loss="pit")
