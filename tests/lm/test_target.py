"""What is written: a stem by itself, or everything; an input that older models do not have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from descant.lm.condition import ROLES, Condition, collate, drop
from descant.lm.model import LMConfig, TokenLM
from descant.lm.pretrained import load
from descant.lm.sample import SamplingSettings, sample

SIZES = {"width": 32, "layers": 2, "heads": 2, "cardinality": 64, "window": 32, "text_vocab": 64, "text_width": 32}


def _model(**more: int) -> TokenLM:
    torch.manual_seed(0)
    model = TokenLM(LMConfig(**SIZES, **more)).eval()
    if model.conditioner.target is not None:
        torch.nn.init.normal_(model.conditioner.target.weight, std=3.0)
    return model


@torch.no_grad()
def test_everything_is_the_plain_model_and_a_stem_is_heard() -> None:
    model = _model(targets=len(ROLES))
    plain, mix, bass = (
        model.prepare(collate([Condition(genre="jazz", target=target)], 8)).added for target in (None, "mix", "bass")
    )
    assert torch.equal(plain, mix)
    difference = bass - plain
    assert model.conditioner.target is not None
    expected = model.conditioner.target.weight[ROLES.index("bass")]
    assert torch.allclose(difference, expected.expand_as(difference), atol=1e-6)


def test_a_new_table_changes_nothing_until_it_is_trained() -> None:
    torch.manual_seed(0)
    model = TokenLM(LMConfig(**SIZES, targets=len(ROLES)))
    one, other = (model.prepare(collate([Condition(target=target)], 8)).added for target in ("mix", "drums"))
    assert torch.equal(one, other)


def test_it_is_not_dropped() -> None:
    batch = collate([Condition(target="drums"), Condition(target="bass", genre="jazz")], 4)
    rows = [ROLES.index("drums"), ROLES.index("bass")]
    gone = drop(batch, {"all": 1.0}, torch.Generator().manual_seed(0))
    for one in (batch, batch.null(), gone, batch.to("cpu")):
        assert one.target is not None and one.target.tolist() == rows
    assert not gone.genre.any()


def test_a_model_without_the_input_says_so() -> None:
    model = _model()
    assert model.prepare(collate([Condition(target="mix")], 4)).added.shape == (1, 4, 32)
    with pytest.raises(ValueError, match="no stem of its own for 'drums'"):
        model.prepare(collate([Condition(target="drums")], 4))
    few = _model(targets=3)
    with pytest.raises(ValueError, match="no stem of its own for 'guitar'"):
        few.prepare(collate([Condition(target="guitar")], 4))
    with pytest.raises(ValueError, match="unknown target 'kazoo'"):
        Condition(target="kazoo")
    with pytest.raises(ValueError, match="targets 99"):
        LMConfig(**SIZES, targets=99)


def test_saved_and_loaded_it_samples_the_same(tmp_path: Path) -> None:
    model = _model(targets=len(ROLES))
    model.save(tmp_path, half=False)
    again = load(tmp_path)
    assert again.config.targets == len(ROLES)
    stem = torch.randint(64, (4, 12), generator=torch.Generator().manual_seed(1))
    cond = Condition(target="bass", stems={"drums": stem})
    settings = SamplingSettings(temperature=0)
    codes = sample(model, 10, cond, settings=settings)
    assert torch.equal(codes, sample(again, 10, cond, settings=settings))
    assert not torch.equal(
        codes, sample(model, 10, Condition(target="drums", stems={"drums": stem}), settings=settings)
    )
