"""A stem encoder learns to hear beat and chords before a language model listens to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.lm.condition import ROLES
from descant.lm.model import TokenLM
from descant.recipes import builtin, ears, lm
from descant.recipes.jobs import Jobs, JobSet
from descant.recipes.loop import override
from descant.recipes.piece import write_pieces
from descant.recipes.targets import TargetSettings, prepare
from descant.recipes.targets_read import TargetSet

from .targets_made import codec_folder

FRAMES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ears")
    write_pieces(place / "train.jsonl.gz", [builtin.compose(seed, "train", 4.0) for seed in range(3)])
    prepare(place / "train.jsonl.gz", place / "out", TargetSettings(codec=str(codec_folder(place / "codec")), books=3))
    return place / "out"


def _model(data: JobSet) -> TokenLM:
    config = lm.recipe("nano").lm
    torch.manual_seed(0)
    return lm.begin(
        replace(lm.recipe("nano"), lm=replace(config, books=3, cardinality=_top(data), targets=len(ROLES))), data
    )


def _top(data: JobSet) -> int:
    return int(data.targets.mark["cardinality"])


def test_beat_and_chords_are_heard_better_and_nothing_else_changes(folder: Path) -> None:
    data = JobSet(TargetSet(folder))
    model = _model(data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    missed = ears.teach(model, data, 60, batch=4, frames=FRAMES, seed=1)
    assert missed[0] == pytest.approx(1.0, abs=0.3)  # nothing is heard at birth
    assert sum(missed[-10:]) / 10 < 0.8 * missed[0]
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("conditioner.stems.") for name in changed)
    assert model.conditioner.stems.project.weight.abs().max() > 0


def test_the_same_seed_teaches_the_same(folder: Path) -> None:
    data = JobSet(TargetSet(folder))
    one, two, other = (_model(data) for _ in range(3))
    assert ears.teach(one, data, 3, batch=2, frames=FRAMES) == ears.teach(two, data, 3, batch=2, frames=FRAMES)
    ears.teach(other, data, 3, batch=2, frames=FRAMES, seed=2)
    weight = "conditioner.stems.embed.weight"
    assert torch.equal(one.state_dict()[weight], two.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])


def test_lessons_have_something_to_hear_and_says_what_it_is(folder: Path) -> None:
    lessons = ears.heard(JobSet(TargetSet(folder), Jobs(untold=1.0)), 4, FRAMES)
    for _ in range(5):
        told = next(lessons)
        assert told.roles is not None and int((told.roles > 0).any(1).sum()) >= 2
        assert bool((told.beat[..., 4] == 1).all()) and float(told.chords[..., 24].mean()) > 0.5


def test_songs_of_one_stem_cannot_teach(folder: Path) -> None:
    # as if everything leaked into everything: no stem is left beside the one that is played
    alone = JobSet(TargetSet(folder), Jobs(loudest=-200.0))
    with pytest.raises(ValueError, match="more than one stem"):
        next(ears.heard(alone, 2, FRAMES))


def test_a_run_begins_with_ears_and_goes_on_without(folder: Path, tmp_path: Path, monkeypatch) -> None:
    taught: list[int] = []
    before = lm.teach
    monkeypatch.setattr(lm, "teach", lambda *a, **k: taught.append(a[2]) or before(*a, **k))
    data = JobSet(TargetSet(folder))
    settings = {"lm.books": "3", "lm.cardinality": str(_top(data)), "steps": "2", "batch": "2", "ears": "2",
                "validate_every": "2", "log_every": "1"}  # fmt: skip
    config = override(lm.recipe("nano"), settings)
    for stop in (1, None):
        lm.train(config, str(folder), str(folder), str(tmp_path / "run"), stop=stop, quiet=True)
    assert taught == [2]
    with pytest.raises(ValueError, match="ears is -1"):
        override(config, {"ears": "-1"})
    with pytest.raises(ValueError, match="without zero"):
        override(config, {"zero": "1", "optimiser": "adamw"})
