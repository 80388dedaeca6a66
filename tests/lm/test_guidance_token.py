"""The weight of guidance as an input: nothing until it is taught, one row per piece, files of before."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from descant.lm.cache import Cache
from descant.lm.condition import Condition, collate, drop
from descant.lm.conditioner import Conditioned
from descant.lm.fast_token import FastTokenLM
from descant.lm.guidance_token import TOP, GuidanceToken
from descant.lm.model import LMConfig, TokenLM
from descant.lm.pretrained import load
from descant.lm.sample import SamplingSettings, sample, sample_batch

TOLD = Condition(text="slow jazz", genre="jazz", tempo=97, beats_per_bar=4)
PIECES = [TOLD, Condition(), Condition(key="A minor"), Condition(text="fast rock")]


def told(model: TokenLM, std: float = 0.0) -> TokenLM:
    """The same model with the weight of guidance as an input: untaught, or with rows that do something."""
    new = TokenLM(dataclasses.replace(model.config, guidance_bins=16), model.tokenizer and model.tokenizer.data)
    missing = new.load_state_dict(model.state_dict(), strict=False).missing_keys
    assert missing == ["conditioner.guidance.weight"]
    with torch.no_grad():
        new.conditioner.guidance.weight.normal_(std=std, generator=torch.Generator().manual_seed(3))
    return new.eval()


class Counting(FastTokenLM):
    """Writes down how many rows each step has."""

    rows: list[int]

    def next(self, codes: Tensor, cond: Conditioned, cache: Cache) -> Tensor:
        self.__dict__.setdefault("rows", []).append(len(cond.prefix))
        return super().next(codes, cond, cache)


def rows(model: TokenLM, conds: list[Condition], guidance: object, negative: Condition | None = None) -> set[int]:
    engine, settings = Counting(model, "fp32"), SamplingSettings(guidance=guidance)  # type: ignore[arg-type]
    sample_batch(engine, 3, conds, settings=settings, negative=negative)
    return set(engine.rows)


def test_an_untaught_weight_changes_nothing(model: TokenLM) -> None:
    new, batch = told(model), collate([TOLD, Condition()], 8)
    codes = torch.randint(0, 40, (2, 4, 8), generator=torch.Generator().manual_seed(0))
    weights = dataclasses.replace(batch, guidance=torch.tensor([1.0, 6.5]))
    with torch.no_grad():
        for one in (batch, weights):
            assert torch.equal(new(codes, one), model(codes, batch))
    plain = sample(model, 9, TOLD, settings=SamplingSettings(guidance=1.0), seed=5)
    assert torch.equal(sample(new, 9, TOLD, settings=SamplingSettings(guidance=4.0), seed=5), plain)


def test_rows_are_learnt_at_their_weights_and_drawn_out_between_them() -> None:
    token = GuidanceToken(7, 3)
    with torch.no_grad():
        token.weight.normal_()
    weight = token.weight.detach()
    found = token(torch.tensor([1.0, 2.0, 5.0, TOP, 1.25, 4.5])).detach()
    assert not found[0].any()
    wanted = torch.stack([weight[0], weight[3], weight[6], weight[0] / 4, (weight[2] + weight[3]) / 2])
    assert torch.allclose(found[1:], wanted, atol=1e-6)
    for wrong in (0.5, TOP + 0.1, float("nan")):
        with pytest.raises(ValueError, match="from 1 to 8"):
            token(torch.tensor([wrong]))


def test_it_is_one_more_vector_added_to_all_frames(model: TokenLM) -> None:
    new, batch = told(model, 0.5), collate([TOLD, TOLD], 8)
    plain, more = new.prepare(batch), new.prepare(dataclasses.replace(batch, guidance=torch.tensor([1.0, TOP])))
    assert torch.equal(plain.prefix, more.prefix) and torch.equal(plain.added[0], more.added[0])
    added = (more.added - plain.added)[1]
    assert torch.allclose(added, new.conditioner.guidance.weight[15].expand(8, -1), atol=1e-6)
    # the other row of guidance is never told a weight, and dropping controls leaves it alone
    weights = dataclasses.replace(batch, guidance=torch.tensor([3.0, 3.0]))
    assert weights.null().guidance is None
    assert drop(weights, {"text": 1.0}, torch.Generator()).guidance is weights.guidance


def test_guidance_is_one_row_a_piece_where_it_can_be_told(model: TokenLM) -> None:
    new = told(model, 0.5)
    assert rows(model, PIECES, 3.0) == {8} and rows(new, PIECES, 3.0) == {4}
    assert rows(new, [TOLD], TOP) == {1} and rows(new, [TOLD], 1.0) == {1}
    # beyond what it was taught, single controls, or away from something: rows as ever
    assert rows(new, [TOLD], 9.0) == {2} and rows(new, [TOLD], 0.5) == {2}
    assert rows(new, [TOLD], {"rest": 3.0}) == {2} and rows(new, [TOLD], {"text": 3.0, "rest": 2.0}) == {3}
    assert rows(new, [TOLD], 3.0, Condition(text="fast rock")) == {2}


def test_rows_as_ever_are_those_of_the_model_without_it(model: TokenLM) -> None:
    new = told(model, 0.5)
    for guidance, negative in ((9.0, None), ({"rest": 3.0}, None), (3.0, Condition(text="fast rock")), (1.0, None)):
        settings = SamplingSettings(guidance=guidance)  # type: ignore[arg-type]
        found, wanted = (sample(lm, 9, TOLD, settings=settings, seed=2, negative=negative) for lm in (new, model))
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_engines_are_told_what_the_model_is(model: TokenLM, precision: str) -> None:
    new = told(model, 0.5)
    batch = dataclasses.replace(collate(PIECES, 8), guidance=torch.tensor([3.0, 1.0, 4.2, 8.0]))
    codes = torch.randint(0, 40, (4, 4, 8), generator=torch.Generator().manual_seed(0))
    fast = FastTokenLM(new, precision)
    with torch.no_grad():
        wanted = new(codes, batch)[:, :, -1]
        untold = new(codes, collate(PIECES, 8))[:, :, -1]
        found = fast.next(codes, fast.prepare(batch), fast.cache(4))
    size = wanted.norm(dim=(1, 2))
    assert float(((found - wanted).norm(dim=(1, 2)) / size).max()) < (1e-5 if precision == "fp32" else 0.1)
    # what it is told is heard, except by the row without guidance
    assert ((wanted - untold).norm(dim=(1, 2)) / size > 0.1).tolist() == [True, False, True, True]


def test_a_piece_is_told_alone_what_it_is_told_in_company(model: TokenLM) -> None:
    """Also one without any condition, from which there is nothing to be led away."""
    fast = FastTokenLM(told(model, 0.5), "int8")
    four = sample_batch(fast, 12, PIECES, seeds=[4, 5, 6, 7])
    for piece, seed in enumerate((4, 5, 6, 7)):
        assert torch.equal(sample(fast, 12, PIECES[piece], seed=seed), four[piece])
    plain = sample(fast, 12, Condition(), settings=SamplingSettings(guidance=1.0), seed=5)
    assert torch.equal(four[1], plain)


def test_files_of_before_and_after(model: TokenLM, tmp_path: Path) -> None:
    new = told(model, 0.5)
    new.save(tmp_path / "new", half=False)
    again = load(tmp_path / "new")
    assert again.config.guidance_bins == 16
    assert torch.equal(sample(again, 6, TOLD, seed=1), sample(new, 6, TOLD, seed=1))
    model.save(tmp_path / "old", half=False)
    path = tmp_path / "old" / "config.json"
    row = json.loads(path.read_text())
    # as files were written before there was such an input
    del row["config"]["guidance_bins"]
    path.write_text(json.dumps(row))
    assert torch.equal(sample(load(tmp_path / "old"), 6, TOLD, seed=1), sample(model, 6, TOLD, seed=1))
    # a config that promises rows the weights do not have, and other numbers of them
    for bins, message in ((16, "guidance.weight"), (-1, "guidance_bins"), (2000, "guidance_bins")):
        path.write_text(json.dumps({**row, "config": {**row["config"], "guidance_bins": bins}}))
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "old")
    row["config"]["guidance_bins"] = 8
    (tmp_path / "new" / "config.json").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"conditioner\.guidance\.weight is \[16, 32\], the config wants \[8, 32\]"):
        load(tmp_path / "new")


def test_a_model_without_it_cannot_be_told(model: TokenLM, config: LMConfig) -> None:
    with pytest.raises(ValueError, match="no input of this model"):
        model.prepare(dataclasses.replace(collate([TOLD], 4), guidance=torch.tensor([3.0])))
    with pytest.raises(ValueError, match="guidance_bins 1025"):
        dataclasses.replace(config, guidance_bins=1025)
