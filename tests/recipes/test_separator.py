"""Training a separator: data, steps, resuming, export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.gen.separation import pretrained
from descant.recipes import builtin, separator, stems_data
from descant.recipes.loop import override
from descant.recipes.separator import SeparatorTask, recipe
from descant.recipes.stems_data import Mixing, StemCorpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stems")
    pieces = [builtin.compose(seed, "train", 3.0) for seed in range(3)]
    stems_data.pack(pieces, out, rate=8000, seconds=2.0)
    return out


def test_packed_stems_are_the_rendered_ones(folder: Path) -> None:
    from descant.recipes import audio_of

    corpus = StemCorpus(folder)
    assert len(corpus) == 3 and corpus.rate == 8000 and corpus.stems == ("drums", "bass", "lead", "other")
    assert corpus.hours == pytest.approx(3 * 2.0 / 3600)
    piece = stems_data.excerpt(builtin.compose(1, "train", 3.0), 2.0)
    rendered = audio_of.render_piece(piece, 8000)
    song = corpus.song(1)
    assert song.shape == (4, 2, 16000)
    assert torch.allclose(song.sum(0), audio_of.mixdown(rendered), atol=1e-3)
    assert torch.allclose(song[0], rendered["drums"], atol=1e-4)
    assert torch.equal(corpus.read(1, 0, 100, 50), song[0][:, 100:150])


def test_roles_without_a_place_are_the_rest() -> None:
    wav = {role: torch.full((2, 5), value) for role, value in (("drums", 1.0), ("keys", 10.0), ("guitar", 100.0))}
    assert stems_data.gather(wav)[:, 0, 0].tolist() == [1.0, 0.0, 0.0, 110.0]


def test_an_excerpt_is_a_part_of_the_piece() -> None:
    piece = builtin.compose(0, "train", 6.0)
    part = stems_data.excerpt(piece, 2.0)
    assert part.duration == 2.0 and part == stems_data.excerpt(piece, 2.0)
    assert all(0 <= onset < 2 for stem in part.stems for onset, *_ in stem.notes)
    assert any(stem.notes for stem in part.stems)
    assert stems_data.excerpt(piece, 6.0) is piece


def test_batches_are_functions_of_seed_and_step(folder: Path) -> None:
    corpus, mixing = StemCorpus(folder), Mixing()
    first = corpus.draw(5, 3, 4096, 0, mixing)
    assert first.shape == (3, 4, 2, 4096)
    assert torch.equal(first, corpus.draw(5, 3, 4096, 0, mixing))
    assert not torch.equal(first, corpus.draw(6, 3, 4096, 0, mixing))
    assert not torch.equal(first, corpus.draw(5, 3, 4096, 1, mixing))


def test_without_variation_crops_are_the_songs_own(folder: Path) -> None:
    corpus = StemCorpus(folder)
    still = Mixing(remix=0.0, gain_db=0.0, drop=0.0, pan=0.0, speed=0.0)
    crop = corpus.draw(0, 1, 4096, 0, still)[0].abs().sum(1)  # channels may be swapped and signs turned
    assert crop.any()
    found = []
    for song in range(3):
        whole = corpus.song(song).abs().sum(1)
        places = (whole.sum(0).unfold(0, 64, 1) - crop.sum(0)[:64]).abs().amax(1) < 1e-6
        found += [place for place in places.nonzero()[:, 0].tolist() if place + 4096 <= 16000
                  and torch.allclose(whole[:, place : place + 4096], crop, atol=1e-6)]  # fmt: skip
    assert found


def test_silenced_stems_are_silent(folder: Path) -> None:
    batch = StemCorpus(folder).draw(0, 4, 4096, 0, Mixing(drop=1.0))
    assert not batch.any()


def test_speed_moves_the_pitch() -> None:
    time = torch.arange(8000) / 8000
    wav = torch.sin(2 * torch.pi * 400 * time)[None]
    for length, wanted in ((6000, 400 * 8 / 6), (10000, 320.0)):
        made = stems_data.resize(wav, length)
        peak = float(torch.fft.rfft(made[0]).abs().argmax()) * 8000 / length
        assert peak == pytest.approx(wanted, abs=2) and float(made.abs().max()) == pytest.approx(1.0, abs=0.05)


def test_a_run_goes_on_where_it_was_stopped(folder: Path, tmp_path: Path) -> None:
    config = replace(recipe("nano"), steps=4, validate_every=2, log_every=1)
    places = [str(folder), str(folder)]
    whole = separator.train(config, *places, str(tmp_path / "whole"), quiet=True)
    separator.train(config, *places, str(tmp_path / "parts"), stop=2, quiet=True)
    parts = separator.train(config, *places, str(tmp_path / "parts"), quiet=True)
    for name in ("model.safetensors", "config.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {"loss", "level", "waveform", "norm"} <= set(rows[0]) and any("spectral" in row for row in rows)
    assert any("val/sdr_drums" in row for row in rows)
    network, about = pretrained.load(whole)
    assert about["trained_steps"] == 4 and network.config == config.network


def test_a_checkpoint_from_before_a_setting_goes_on(folder: Path, tmp_path: Path) -> None:
    config, places = replace(recipe("nano"), steps=2), [str(folder), str(folder)]
    separator.train(config, *places, str(tmp_path), stop=1, quiet=True)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    for name in ("loss", "unlabelled"):
        del state["config"][name]
    for name in ("automix", "pitch", "tempo", "bend", "shift"):
        del state["config"]["mixing"][name]
    torch.save(state, tmp_path / "checkpoint.pt")
    separator.train(config, *places, str(tmp_path), quiet=True)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match="other settings"):
        separator.train(replace(config, mixing=Mixing(automix=0.5)), *places, str(tmp_path), quiet=True)


def test_training_makes_the_loss_smaller(folder: Path) -> None:
    config = replace(recipe("nano"), steps=30, mixing=Mixing(speed=0.0), lr=1e-2)
    task = SeparatorTask(config, StemCorpus(folder), StemCorpus(folder))
    with torch.no_grad():
        before = task.validate(task.network)["sdr"]
    for step in range(30):
        for optimiser in task.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = task.lr(step)
        task.step(step, {})
    with torch.no_grad():
        assert task.validate(task.network)["sdr"] > before + 2.0


def test_a_run_may_start_from_a_trained_one(folder: Path, tmp_path: Path) -> None:
    config = replace(recipe("nano"), steps=1, validate_every=1)
    start = separator.train(config, str(folder), str(folder), str(tmp_path / "a"), quiet=True)
    again = SeparatorTask(replace(config, init=str(start)), StemCorpus(folder), StemCorpus(folder))
    assert all(torch.equal(v, again.network.state_dict()[k]) for k, v in pretrained.load(start)[0].state_dict().items())
    other = replace(config, init=str(start), network=replace(config.network, width=12))
    with pytest.raises(ValueError, match="another network"):
        SeparatorTask(other, StemCorpus(folder), StemCorpus(folder))


def test_settings_and_data_are_checked(folder: Path, tmp_path: Path) -> None:
    config = override(recipe("embedded"), {"network.width": "32", "mixing.remix": "0.9", "lr": "0.01"})
    assert config.network.width == 32 and config.mixing.remix == 0.9 and config.lr == 0.01
    assert recipe("embedded-causal").network.causal
    with pytest.raises(ValueError, match="unknown separator recipe"):
        recipe("huge")
    with pytest.raises(ValueError, match="chance"):
        Mixing(remix=2)
    with pytest.raises(ValueError, match="weights of the losses"):
        override(recipe("nano"), {"level_weight": "0", "waveform_weight": "0", "spectral_weight": "0"})
    with pytest.raises(FileNotFoundError, match="prepare stems"):
        StemCorpus(tmp_path)
    with pytest.raises(ValueError, match="at 8000 Hz"):
        SeparatorTask(recipe("embedded"), StemCorpus(folder), StemCorpus(folder))
    with pytest.raises(ValueError, match="shorter than a crop"):
        StemCorpus(folder).draw(0, 1, 50000, 0, Mixing())
    with pytest.raises(ValueError, match="no pieces"):
        stems_data.pack([], tmp_path / "none")
