"""One recipe for every network and every loss: tiny runs on tiny sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from descant.gen.separation.convtasnet import ConvTasNetConfig
from descant.gen.separation.registry import get
from descant.gen.separation.unet import MaskUNetConfig
from descant.recipes import builtin, separator, stems_data
from descant.recipes.corpus import Packer
from descant.recipes.loop import override
from descant.recipes.separator import SeparatorRecipe, SeparatorTask, opened, recipe
from descant.recipes.separator_config import Unlabelled
from descant.recipes.separator_data import Mixtures
from descant.recipes.separator_losses import matched
from descant.recipes.separator_teacher import ramp
from descant.recipes.stems_data import Mixing, StemCorpus
from descant.recipes.world import World

STEMS = ("drums", "bass", "lead", "other")
TASNET = ConvTasNetConfig(rate=8000, filters=24, kernel=16, width=12, hidden=16, blocks=3, repeats=1)
UNET = MaskUNetConfig(rate=8000, window=256, hop=64, widths=(6, 8, 12))
KINDS = {
    "conv-tasnet": replace(recipe("nano"), network=TASNET, lr=1e-2),
    "pit": replace(recipe("nano"), network=replace(TASNET, stems=("a", "b", "c", "d")), loss="pit", lr=1e-2),
    "mixit": replace(recipe("nano"), network=replace(TASNET, stems=("a", "b", "c")), loss="mixit", lr=1e-2),
    "mask-unet": replace(recipe("nano"), network=UNET, lr=1e-2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stems")
    stems_data.pack([builtin.compose(seed, "train", 3.0) for seed in range(3)], out, rate=8000, seconds=2.0)
    return out


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed mono audio: two mixes, and one stem that is no song."""
    packer = Packer(tmp_path_factory.mktemp("audio"), 8000)
    for number, kind in enumerate(("mix", "stem", "real")):
        time = torch.arange(12000) / 8000
        packer.add(f"{number}", kind, 0.4 * torch.sin(2 * torch.pi * 200 * (number + 1) * time)[None])
    packer.close()
    return packer.folder


def run(task: SeparatorTask, steps: int) -> list[dict[str, float]]:
    rows = []
    for step in range(steps):
        for optimiser in task.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = task.lr(step)
        rows.append(task.step(step, {}))
    return rows


def small(config: SeparatorRecipe) -> SeparatorRecipe:
    return replace(config, steps=30, mixing=Mixing(speed=0.0, gain_db=0.0, remix=0.0, drop=0.0, pan=0.0))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_training_makes_what_is_validated_better(kind: str, folder: Path) -> None:
    config = small(KINDS[kind])
    data = opened(config, folder)
    task = SeparatorTask(config, data, data)
    with torch.no_grad():
        before = task.validate(task.network)["sdr"]
    run(task, 30)
    with torch.no_grad():
        after = task.validate(task.network)
    # outputs that may be shared out start well
    assert after["sdr"] > before + (0.15 if kind == "mixit" else 0.5)
    assert ("sdr_drums" in after) == (config.loss == "named")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_run_goes_on_where_it_was_stopped_and_its_export_separates(kind: str, folder: Path, tmp_path: Path) -> None:
    config = replace(KINDS[kind], steps=4, validate_every=2, log_every=1)
    places = [str(folder), str(folder)]
    whole = separator.train(config, *places, str(tmp_path / "whole"), quiet=True)
    separator.train(config, *places, str(tmp_path / "parts"), stop=2, quiet=True)
    parts = separator.train(config, *places, str(tmp_path / "parts"), quiet=True)
    for name in ("model.safetensors", "config.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert any("val/sdr" in row for row in rows)
    made = get(whole).separate(StemCorpus(folder).song(0).sum(0), 8000)
    assert tuple(made) == config.network.stems
    assert float((made.stacked.sum(0) + made.residual - made.mix).abs().max()) < 1e-6


def test_the_recipes_are_complete() -> None:
    for name in separator.NAMES:
        config = recipe(name)
        assert config.network.channels == 2 and config.loss == ("mixit" if name.endswith("mixit") else "named")
    assert recipe("conv-tasnet-causal").network.causal  # type: ignore[union-attr]
    changed = override(recipe("mask-unet"), {"network.mask": "sigmoid", "network.widths": "8,16"})
    assert changed.network.mask == "sigmoid" and changed.network.widths == (8, 16)


def test_the_best_order_is_found() -> None:
    stems = torch.randn(2, 3, 2, 50, generator=torch.Generator().manual_seed(0))
    made = stems[:, [2, 0, 1]] * 0.9
    found, target = matched(made, stems, "pit")
    assert torch.equal(target, stems) and torch.allclose(found, 0.9 * stems)
    same, _ = matched(made, stems, "named")
    assert same is made


def test_outputs_are_put_together_to_the_mixes() -> None:
    parts = torch.randn(1, 4, 2, 60, generator=torch.Generator().manual_seed(0))
    mixes = torch.stack([parts[:, 0] + parts[:, 3], parts[:, 1] + parts[:, 2]], 1)
    found, target = matched(parts, mixes, "mixit")
    assert target is mixes and torch.allclose(found, mixes, atol=1e-6)


def test_gradients_go_through_what_was_chosen() -> None:
    parts = torch.randn(1, 3, 1, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for loss, target in (("pit", parts.detach()[:, [1, 2, 0]]), ("mixit", torch.ones(1, 2, 1, 40))):
        found, wanted = matched(parts, target, loss)
        (gradient,) = torch.autograd.grad((found - wanted + 1).square().sum(), parts)
        assert bool((gradient.abs().sum((0, 2, 3)) > 0).all())


def test_mixtures_are_sums_of_stems_or_packed_audio(folder: Path, audio: Path) -> None:
    songs, corpus = Mixtures(folder), StemCorpus(folder)
    assert len(songs) == 3
    assert torch.allclose(songs.read(1, 100, 50), corpus.song(1).sum(0)[:, 100:150], atol=1e-6)
    packed = Mixtures(audio)
    assert len(packed) == 2  # the stem is no song
    wav = packed.read(1, 0, 8000)
    assert wav.shape == (2, 8000) and torch.equal(wav[0], wav[1])
    assert int(torch.fft.rfft(wav[0]).abs().argmax()) == 600
    assert Mixtures(audio, 1).read(0, 0, 10).shape == (1, 10)


def test_pairs_of_mixtures_are_functions_of_seed_and_step_and_of_two_songs(audio: Path) -> None:
    songs, still = Mixtures(audio), Mixing(gain_db=0.0, speed=0.0)
    pairs = songs.draw(3, 4, 4000, 0, still)
    assert pairs.shape == (4, 2, 2, 4000) and torch.equal(pairs, songs.draw(3, 4, 4000, 0, still))
    assert not torch.equal(pairs, songs.draw(4, 4, 4000, 0, still))
    assert not torch.equal(pairs, songs.draw(3, 4, 4000, 0, still, 1))

    def pitch(wav: Tensor) -> int:
        return int(torch.fft.rfft(wav[0]).abs().argmax()) * 2  # Hz

    assert all({pitch(pair[0]), pitch(pair[1])} == {200, 600} for pair in pairs)
    fast = songs.draw(3, 8, 4000, 0, Mixing(gain_db=0.0, speed=0.3))
    assert len({pitch(one) for pair in fast for one in pair}) > 4


def test_a_teacher_makes_use_of_music_without_stems(folder: Path, audio: Path, tmp_path: Path) -> None:
    config = small(replace(KINDS["conv-tasnet"], unlabelled=Unlabelled(data=str(audio), ramp=10, decay=0.8)))
    data = StemCorpus(folder)
    task = SeparatorTask(config, data, data)
    assert task.teacher is not None
    before = {name: value.clone() for name, value in task.teacher.network.named_parameters()}
    mixes = torch.stack([Mixtures(audio).read(song, 2000, 4800) for song in (0, 1)])

    def apart() -> float:
        assert task.teacher is not None
        with torch.no_grad():
            return float((task.teacher.network(mixes) - task.network(mixes)).square().mean())

    rows = run(task, 5)
    assert all("unlabelled" in row for row in rows) and apart() > 0
    moved = dict(task.teacher.network.named_parameters())
    assert any(not torch.equal(value, moved[name]) for name, value in before.items())
    # no gradient ever reaches it
    assert all(value.grad is None for value in moved.values())
    # a network that stands still is what the teacher ends at
    far = apart()
    for _ in range(30):
        task.teacher.follow(task.network)
    assert apart() < 0.01 * far


def test_the_network_agrees_with_its_teacher_more_and_more(folder: Path, audio: Path) -> None:
    config = small(replace(KINDS["conv-tasnet"], unlabelled=Unlabelled(data=str(audio), ramp=0, weight=1.0)))
    task = SeparatorTask(config, StemCorpus(folder), StemCorpus(folder))
    assert task.teacher is not None
    with torch.no_grad():
        for value in task.network.parameters():
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    optimiser = torch.optim.Adam(task.network.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        weight, loss = task.teacher.loss(task.network, 0, task.world)
        assert weight == 1.0
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


def test_two_processes_share_the_unlabelled_mixes(folder: Path, audio: Path) -> None:
    config = small(replace(KINDS["conv-tasnet"], unlabelled=Unlabelled(data=str(audio), ramp=0, batch=4)))
    task = SeparatorTask(config, StemCorpus(folder), StemCorpus(folder))
    assert task.teacher is not None
    with torch.no_grad():
        for value in task.network.parameters():
            value.mul_(1.1)
        _, whole = task.teacher.loss(task.network, 3, World())
        halves = [task.teacher.loss(task.network, 3, World(rank=rank, size=2))[1] for rank in (0, 1)]
    assert float(halves[0]) != float(halves[1])
    assert float(sum(halves)) / 2 == pytest.approx(float(whole), rel=1e-4)
    with pytest.raises(ValueError, match="cannot be shared"):
        task.teacher.loss(task.network, 3, World(size=3))


def test_the_weight_of_the_teacher_rises() -> None:
    assert ramp(0, 100) < 0.01 and ramp(100, 100) == ramp(500, 100) == ramp(0, 0) == 1.0
    assert ramp(30, 100) < ramp(60, 100) < 1.0


def test_a_run_with_a_teacher_goes_on_where_it_was_stopped(folder: Path, audio: Path, tmp_path: Path) -> None:
    config = replace(KINDS["conv-tasnet"], steps=4, unlabelled=Unlabelled(data=str(audio), ramp=2, decay=0.5))
    places = [str(folder), str(folder)]
    whole = separator.train(config, *places, str(tmp_path / "whole"), quiet=True)
    separator.train(config, *places, str(tmp_path / "parts"), stop=2, quiet=True)
    parts = separator.train(config, *places, str(tmp_path / "parts"), quiet=True)
    assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()
    without = separator.train(replace(config, unlabelled=Unlabelled()), *places, str(tmp_path / "plain"), quiet=True)
    assert (whole / "model.safetensors").read_bytes() != (without / "model.safetensors").read_bytes()


def test_settings_are_checked(folder: Path, audio: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown loss"):
        replace(KINDS["pit"], loss="best")
    with pytest.raises(ValueError, match="too many for loss=pit"):
        replace(KINDS["pit"], network=replace(TASNET, stems=tuple("abcdefghi")))
    with pytest.raises(ValueError, match="already"):
        replace(KINDS["mixit"], unlabelled=Unlabelled(data=str(audio)))
    with pytest.raises(ValueError, match="even"):
        Unlabelled(batch=3)
    with pytest.raises(ValueError, match="pack them again"):
        config = replace(KINDS["pit"], network=replace(TASNET, stems=("a", "b")))
        SeparatorTask(config, StemCorpus(folder), StemCorpus(folder))
    with pytest.raises(ValueError, match="at 8000 Hz"):
        SeparatorTask(recipe("conv-tasnet-mixit"), Mixtures(folder), Mixtures(folder))
    with pytest.raises(FileNotFoundError, match="prepare"):
        Mixtures(tmp_path)
    with pytest.raises(ValueError, match="shorter than a crop"):
        Mixtures(folder).draw(0, 1, 50000, 0, Mixing())
