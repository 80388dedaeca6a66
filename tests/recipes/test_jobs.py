"""What a model that hears stems is asked to play."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.lm.condition import ROLES
from descant.lm.pretrained import load
from descant.recipes import builtin, jobs, lm
from descant.recipes.jobs import Jobs, JobSet
from descant.recipes.loop import override
from descant.recipes.piece import write_pieces
from descant.recipes.targets import TargetSettings, prepare
from descant.recipes.targets_read import TargetSet

from .lm_runs import shards
from .targets_made import codec_folder

FRAMES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("targets")
    write_pieces(place / "train.jsonl.gz", [builtin.compose(seed, "train", 4.0) for seed in range(3)])
    codec = codec_folder(place / "codec")
    prepare(place / "train.jsonl.gz", place / "out", TargetSettings(codec=str(codec), books=3))
    return place / "out"


def _draw(folder: Path, count: int = 40, frames: int = FRAMES, seed: int = 0, **shares: float) -> list[jobs.Crop]:
    chosen = Jobs(**{**dict.fromkeys(jobs.KINDS, 0.0), "coarse": 0.0, "bleed": 0.0, "untold": 0.0, **shares})
    return JobSet(TargetSet(folder), chosen).draw(count, frames, torch.Generator().manual_seed(seed))


def test_everything_from_words(folder: Path) -> None:
    for crop in _draw(folder, mix=1.0):
        assert crop.condition.target is None and crop.condition.stems is None and crop.condition.text
        assert crop.codes.shape == (3, FRAMES) and int(crop.codes.min()) >= 0


def test_a_stem_that_plays_for_others_that_play(folder: Path) -> None:
    targets = TargetSet(folder)
    windows = targets.draw(40, FRAMES, _after_seeds(40))
    crops = _draw(folder, stem=1.0)
    alone = 0
    for crop, window in zip(crops, windows, strict=True):
        role, heard = crop.condition.target, crop.condition.stems or {}
        assert role in window.roles and role not in heard
        place = window.roles.index(role)
        assert torch.equal(crop.codes, window.stems[place])
        assert bool(window.active[place].float().mean() >= 0.25)
        for name, codes in heard.items():
            assert torch.equal(codes, window.stems[window.roles.index(name)])
            assert window.active[window.roles.index(name)].any()
        alone += not heard
    assert len({crop.condition.target for crop in crops}) > 2 and alone < 20


def _after_seeds(count: int, seed: int = 0) -> torch.Generator:
    dice = torch.Generator().manual_seed(seed)
    torch.randint(1 << 62, (count,), generator=dice)
    return dice


def test_everything_around_stems(folder: Path) -> None:
    crops = _draw(folder, fill=1.0)
    assert all(crop.condition.target is None for crop in crops)
    assert sum(bool(crop.condition.stems) for crop in crops) > 20
    assert all("mix" not in (crop.condition.stems or {}) for crop in crops)


def test_what_follows_is_heard_and_not_learnt(folder: Path) -> None:
    targets = TargetSet(folder)
    windows = targets.draw(40, FRAMES, _after_seeds(40))
    kinds = Counter()
    for crop, window in zip(_draw(folder, join=1.0), windows, strict=True):
        role = crop.condition.target
        kinds[role is None] += 1
        true = window.mix if role is None else window.stems[window.roles.index(role)]
        ((name, future),) = (crop.condition.stems or {}).items()
        assert name == (role or "mix")
        begin = int((crop.codes[0] >= 0).sum())
        assert 0.15 * FRAMES - 1 <= begin <= 0.9 * FRAMES + 1
        assert torch.equal(crop.codes[:, :begin], true[:, :begin]) and bool((crop.codes[:, begin:] == -1).all())
        assert torch.equal(future[:, begin:], true[:, begin:]) and bool((future[:, :begin] == -1).all())
    assert min(kinds.values()) > 5


def test_what_is_heard_is_made_worse(folder: Path) -> None:
    clean, coarse = _draw(folder, stem=1.0), _draw(folder, stem=1.0, coarse=1.0)
    depths = Counter()
    for one, other in zip(clean, coarse, strict=True):
        assert torch.equal(one.codes, other.codes) and one.condition.target == other.condition.target
        for role, codes in (other.condition.stems or {}).items():
            depths[codes.shape[0]] += 1
            assert torch.equal(codes, (one.condition.stems or {})[role][: codes.shape[0]])
    assert set(depths) == {1, 2}
    bled, changed = _draw(folder, stem=1.0, bleed=1.0), 0
    for one, other in zip(clean, bled, strict=True):
        for role, codes in (other.condition.stems or {}).items():
            before = (one.condition.stems or {})[role]
            assert torch.equal(codes[0], before[0])
            changed += not torch.equal(codes, before)
    assert changed > 10


def test_crops_are_functions_of_the_generator_and_shares_are_parts(folder: Path) -> None:
    data = JobSet(TargetSet(folder))
    whole = data.draw(6, FRAMES, torch.Generator().manual_seed(3))
    again = data.draw(6, FRAMES, torch.Generator().manual_seed(3))
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(whole, again, strict=True))
    for a, b in zip(data.draw(6, FRAMES, torch.Generator().manual_seed(3), slice(2, 4)), whole[2:4], strict=True):
        assert torch.equal(a.codes, b.codes)
        heard = [crop.condition.stems or {} for crop in (a, b)]
        assert heard[0].keys() == heard[1].keys() and all(torch.equal(heard[0][r], heard[1][r]) for r in heard[0])


def test_songs_shorter_than_a_crop_are_filled_with_nothing(folder: Path) -> None:
    (crop, *_) = _draw(folder, count=2, frames=1000, mix=1.0)
    assert crop.codes.shape == (3, 1000) and bool((crop.codes[:, -1] == -1).all())


def test_what_can_be_heard_is_now_and_then_not_told(folder: Path) -> None:
    told = _draw(folder, stem=1.0)
    crops = _draw(folder, stem=1.0, untold=1.0)
    some = 0
    for before, crop in zip(told, crops, strict=True):
        assert torch.equal(before.codes, crop.codes) and before.condition.text == crop.condition.text
        known = crop.condition.tempo is not None and crop.condition.key is not None
        assert known == (crop.condition.stems is None)
        some += not known
    assert some > 20 and all(crop.condition.tempo is not None for crop in told)
    assert all(crop.condition.tempo is not None for crop in _draw(folder, mix=1.0, untold=1.0))


def test_whole_songs_told_by_their_labels(folder: Path) -> None:
    data = JobSet(TargetSet(folder))
    assert data.lengths == [data.targets.frames(song) for song in range(3)]
    crop = data.crop(1, 20, 50, caption=0)
    window = data.targets.window(1, 20, 50)
    assert torch.equal(crop.codes, window.mix) and crop.condition.tempo == window.condition.tempo
    assert crop.condition.stems is None and crop.condition.target is None and crop.condition.melody is None


def test_shares_must_make_sense() -> None:
    for wrong in ({"mix": -1.0}, dict.fromkeys(jobs.KINDS, 0.0), {"coarse": 1.5}, {"bleed": -0.1}):
        with pytest.raises(ValueError, match=r"shares|chances"):
            Jobs(**wrong)


def test_a_model_is_trained_on_targets_and_begins_with_an_older_one(folder: Path, tmp_path: Path) -> None:
    data = jobs.open_set(folder)
    assert isinstance(data, JobSet)
    settings = {
        "lm.width": "16", "lm.books": "3", "lm.cardinality": str(data.mark["cardinality"]), "lm.window": "64",
        "lm.text_vocab": "64", "lm.text_width": "8", "lm.text_tokens": "4", "frames": str(FRAMES), "steps": "8",
        "batch": "3", "warmup": "2", "validate_every": "8", "log_every": "4", "device": "cpu",
        "lm.frame_rate": str(data.frame_rate),
    }  # fmt: skip
    config = override(lm.recipe("nano"), settings)
    out = lm.train(config, str(folder), str(folder), str(tmp_path / "run"), quiet=True)
    model = load(out)
    assert model.config.targets == len(ROLES)
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    for name in ("val/ce_0", "val/blind_0", "val/unigram_0", "val/stem_ce", "val/stem_deaf", "val/join_ce"):
        assert name in log
    # an older model, which knows no stems of their own, learns them
    older = lm.begin(replace(config, lm=replace(config.lm, targets=0)), data)
    older.save(tmp_path / "older")
    told = lm.begin(replace(config, lm=model.config, init=str(tmp_path / "older")), data)
    assert told.conditioner.target is not None and not told.conditioner.target.weight.any()


def test_token_shards_are_opened_as_before(tmp_path: Path) -> None:
    found = jobs.open_set(shards(tmp_path / "tokens"))
    assert not isinstance(found, JobSet) and found.parts() == {"mix": found}
    with pytest.raises(FileNotFoundError, match="no token shards"):
        jobs.open_set(tmp_path)
