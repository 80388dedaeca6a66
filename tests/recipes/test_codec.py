import json
from pathlib import Path

import pytest
import torch

import descant.codec
from descant.codec.losses import spectral_loss
from descant.recipes import codec as recipes
from descant.recipes.corpus import Corpus, Packer
from descant.recipes.loop import override


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds each of a few plucked chords: a mix, a stem and a recording."""
    folder = tmp_path_factory.mktemp("packed")
    packer = Packer(folder, 32000)
    time = torch.arange(32000 * 6) / 32000
    for number, kind in enumerate(("mix", "stem", "real")):
        tones = [torch.sin(2 * torch.pi * f * time) for f in (110 * (number + 2), 165 * (number + 2))]
        packer.add(kind, kind, (sum(tones) * torch.exp(-3 * (time % 0.5)) * 0.2)[None])
    packer.close()
    return folder


def test_one_small_epoch_trains_freezes_and_exports(packed: Path, tmp_path: Path) -> None:
    config = recipes.recipe("nano")
    folder = recipes.train(config, str(packed), str(packed), str(tmp_path), quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert any("judge" in row for row in rows) and any("val/mix/sisdr_8" in row for row in rows)
    codec = descant.codec.load(folder)
    codes = codec.encode(torch.randn(1, 1, 6400) * 0.1)
    assert codes.shape == (1, 8, 10)
    assert torch.isfinite(codec.decode(codes)).all()


def test_it_overfits_a_single_batch(packed: Path) -> None:
    config = override(recipes.recipe("nano"), {"warm": "1000", "freeze": "2000", "steps": "2000"})
    task = recipes.CodecTask(config, Corpus(packed), {})
    batch = task.batch(0)
    task.batch = lambda step: batch  # type: ignore[method-assign]
    for group in task.optimisers["codec"].param_groups:
        group["lr"] = 3e-3
    first = task.step(0, {})
    for step in range(1, 60):
        last = task.step(step, {})
    assert last["mel"] < 0.5 * first["mel"] and last["phase"] < first["phase"]


def test_tokens_are_final_after_the_freeze(packed: Path, tmp_path: Path) -> None:
    config = recipes.recipe("nano")
    wav = Corpus(packed).crop(0, 6400)[None, None]
    at_freeze = recipes.train(config, str(packed), str(packed), str(tmp_path), stop=config.freeze + 1, quiet=True)
    early = descant.codec.load(at_freeze)
    codes, audio = early.encode(wav), early.decode(early.encode(wav))
    late = descant.codec.load(recipes.train(config, str(packed), str(packed), str(tmp_path), quiet=True))
    assert torch.equal(late.encode(wav), codes)
    assert not torch.equal(late.decode(codes), audio)


def test_batches_are_a_function_of_the_step(packed: Path) -> None:
    task = recipes.CodecTask(recipes.recipe("nano"), Corpus(packed), {})
    assert torch.equal(task.batch(3), task.batch(3))
    assert not torch.equal(task.batch(3), task.batch(4))
    assert task.batch(3).abs().max() <= 1


def test_half_the_scales_still_see_phase(packed: Path) -> None:
    task = recipes.CodecTask(recipes.recipe("nano"), Corpus(packed), {})
    wav = task.batch(0)
    for step in range(4):
        assert float(spectral_loss(-wav, wav, 32000, task._scales(step))[1]) > 1


def test_unknown_recipe() -> None:
    with pytest.raises(ValueError, match="tiny"):
        recipes.recipe("huge")
