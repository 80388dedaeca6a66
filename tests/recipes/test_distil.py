"""Teaching guidance in one row: what is lowered, that it is learnt, and what the run refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import descant.lm
from descant.lm.condition import Condition, collate
from descant.lm.sample import SamplingSettings, sample
from descant.recipes import lm as recipes
from descant.recipes.distil import PLAIN, DistilTask, divergence
from descant.recipes.loop import override
from descant.recipes.tokens import TokenSet
from descant.recipes.world import World

from .lm_runs import shards, small

DISTIL = {"distil_guidance": "true", "lr": "0.003", "steps": "40", "validate_every": "40"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("distil") / "tokens")


@pytest.fixture(scope="module")
def teacher(data: Path) -> str:
    """A model that listens to its conditions."""
    config = small(steps="60", lr="0.01", drop_all="0.2", validate_every="60")
    return str(recipes.train(config, str(data), str(data), str(data.parent / "teacher"), quiet=True))


def test_it_comes_closer_to_two_rows_than_one_row_is(data: Path, teacher: str, tmp_path: Path) -> None:
    config = small(init=teacher, **DISTIL)
    assert config.lm.guidance_bins == 16
    folder = recipes.train(config, str(data), str(data), str(tmp_path), quiet=True)
    last = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()][-1]
    assert last["val/told_3"] < 0.75 * last["val/untold_3"] and last["val/told_6"] < 0.85 * last["val/untold_6"]
    model, before = descant.lm.load(folder), descant.lm.load(teacher)
    # told nothing, it still is the model it was
    held = TokenSet(data)
    codes = torch.stack([held.crop(item, 5, 24, 0).codes for item in range(4)])
    batch = collate([held.crop(item, 5, 24, 0).condition for item in range(4)], 24)
    with torch.no_grad():
        assert float(model.loss(codes, batch)[0]) < float(before.loss(codes, batch)[0]) + 0.15
        weights = replace(batch, guidance=torch.full((4,), 3.0))
        found = float(divergence(model, before, codes, weights)[0])
        untold = divergence(model, before, codes, replace(batch, guidance=torch.ones(4)))[0]
    assert found < 0.75 * last["val/untold_3"] and float(untold) < found
    assert sample(model, 10, Condition(genre="jazz"), settings=SamplingSettings(guidance=3.0)).shape == (4, 10)


def test_the_divergence_is_that_of_guided_probabilities(data: Path, teacher: str) -> None:
    task = DistilTask(small(init=teacher, **DISTIL), TokenSet(data), TokenSet(data))
    codes, batch = task._parts(0)[0]
    lm, old = task.lm.eval(), task.teacher
    with torch.no_grad():
        task.lm.conditioner.guidance.weight.normal_(generator=torch.Generator().manual_seed(0))
        found, books = divergence(lm, old, codes, batch, skip=4)
        inputs, targets = old.steps(codes)
        plain, free = old(inputs, replace(batch, guidance=None)), old(inputs, batch.null())
        whole = divergence(lm, old, codes, batch)[1]
        student = lm(inputs, batch)
    wanted = []
    for book in range(4):
        rows = []
        for piece in range(4):
            w = batch.guidance[piece]
            for step in (targets[piece, book] >= 0).nonzero()[:, 0].tolist():
                p = (free + w * (plain - free))[piece, book, step].softmax(-1)
                rows.append(F.kl_div(student[piece, book, step].log_softmax(-1), p, reduction="sum"))
        wanted.append(torch.stack(rows).mean())
    assert torch.allclose(whole, torch.stack(wanted), atol=1e-4)
    assert float(found) == pytest.approx(float(books.mean())) and float(found) > 0


def test_what_a_step_draws(data: Path, teacher: str) -> None:
    held = TokenSet(data)
    task = DistilTask(small(init=teacher, **DISTIL), held, held)
    drawn = torch.cat([batch.guidance for step in range(60) for _, batch in task._parts(step)])
    assert float((drawn == 1.0).float().mean()) == pytest.approx(PLAIN, abs=0.1)
    told = drawn[drawn > 1]
    assert float(told.min()) < 1.5 and 7.5 < float(told.max()) <= 8
    # the same step draws the same, in parts as at once
    halves = DistilTask(small(init=teacher, accumulate="2", **DISTIL), held, held)._parts(3)
    assert torch.equal(torch.cat([batch.guidance for _, batch in halves]), task._parts(3)[0][1].guidance)
    # processes draw for the whole batch and take their shares
    shares = [DistilTask(small(init=teacher, **DISTIL), held, held, World(rank=rank, size=2)) for rank in range(2)]
    assert torch.equal(torch.cat([one._parts(3)[0][1].guidance for one in shares]), task._parts(3)[0][1].guidance)
    figures = task.step(0, {})
    assert {"kl_0", "kl_3", "loss"} <= set(figures) and not {"ce_0"} & set(figures)
    assert not any(value.requires_grad for value in task.teacher.parameters())


def test_it_goes_on_where_it_stopped(data: Path, teacher: str, tmp_path: Path) -> None:
    config = small(init=teacher, **{**DISTIL, "steps": "6"})
    recipes.train(config, str(data), str(data), str(tmp_path / "whole"), quiet=True)
    recipes.train(config, str(data), str(data), str(tmp_path / "parts"), stop=3, quiet=True)
    recipes.train(config, str(data), str(data), str(tmp_path / "parts"), quiet=True)
    a, b = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True)["model"] for n in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert bool(a["conditioner.guidance.weight"].any())
    # and a model that can be told is a beginning for training on music, too
    again = recipes.begin(small(init=str(tmp_path / "whole" / "export"), **{"lm.guidance_bins": "16"}), TokenSet(data))
    assert again.config.guidance_bins == 16
    with pytest.raises(ValueError, match="another shape"):
        recipes.begin(small(init=str(tmp_path / "whole" / "export")), TokenSet(data))


def test_a_checkpoint_older_than_a_setting_goes_on(data: Path, tmp_path: Path) -> None:
    config = small(steps="4")
    recipes.train(config, str(data), str(data), str(tmp_path), stop=2, quiet=True)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["config"]["lm"]["guidance_bins"], state["config"]["distil_guidance"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"other settings \(lm\)"):
        recipes.train(override(config, {"lm.guidance_bins": "4"}), str(data), str(data), str(tmp_path), quiet=True)
    recipes.train(config, str(data), str(data), str(tmp_path), quiet=True)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4


def test_what_cannot_be_taught_is_refused(teacher: str) -> None:
    for wrong in ({}, {"init": teacher, "zero": "2", "optimiser": "adamw"}):
        with pytest.raises(ValueError, match="finished model, whole"):
            small(distil_guidance="true", **wrong)
