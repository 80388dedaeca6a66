"""Guidance with a weight per control, nested, and away from another condition."""

import pytest
import torch
from torch import Tensor

from descant.lm.condition import Condition, collate, drop
from descant.lm.guidance import NAMES, plan, present
from descant.lm.model import TokenLM
from descant.lm.sample import SamplingSettings, sample

TOLD = Condition(text="slow jazz", genre="jazz", tempo=97, beats_per_bar=4, key="A minor")
ALL = frozenset(NAMES) - {"rest", "target"}


def by_factors(rows: list[tuple[frozenset[str], float]]) -> dict[frozenset[str], float]:
    return {row: pytest.approx(factor) for row, factor in rows}


def test_plans_against_their_formulas() -> None:
    given = frozenset({"text", "stems", "tempo", "beat"})
    free, both = frozenset({"text", "stems"}), frozenset[str]()
    text, stems = frozenset({"stems"}), frozenset({"text"})
    # u + 3 (c - u)
    assert by_factors(plan(3.0, False, given, False)) == {given: -2.0, both: 3.0}
    # u + 3 (c_text - u) + 2 (c_stems - u); tempo is in all of them
    weights = {"text": 3.0, "stems": 2.0}
    assert by_factors(plan(weights, False, given, False)) == {free: -4.0, text: 3.0, stems: 2.0}
    # u + 3 (c_text + 2 (c_both - c_text) - u)
    assert by_factors(plan(weights, True, given, False)) == {free: -2.0, text: -3.0, both: 6.0}
    # the rest are those that are not named
    rest = plan({"text": 3.0, "rest": 2.0}, False, given, False)
    assert by_factors(rest) == {given: -4.0, given - {"text"}: 3.0, frozenset({"text"}): 2.0}


def test_what_is_written_can_have_a_weight() -> None:
    given = frozenset({"tempo", "beat", "target"})
    told = frozenset({"tempo", "beat"})
    # one number leaves the target to every row
    assert by_factors(plan(3.0, False, given, False)) == {told: -2.0, frozenset(): 3.0}
    # u + 3 (c_everything + 2 (c_target - c_everything) - u)
    assert by_factors(plan({"rest": 3.0, "target": 2.0}, True, given, False)) == {
        given: -2.0, frozenset({"target"}): -3.0, frozenset(): 6.0,
    }  # fmt: skip
    assert present([Condition(target="bass")]) == {"target"} and present([Condition(target="mix")]) == set()


def test_rows_that_change_nothing_are_not_computed() -> None:
    given = frozenset({"text"})
    assert plan(1.0, False, given, False) == [(frozenset(), 1.0)]
    assert plan(0.0, False, given, False) == [(given, 1.0)]
    assert plan(3.0, False, frozenset(), False) == [(frozenset(), pytest.approx(1.0))]
    # a control that is not there: its row is the one without conditions
    assert by_factors(plan({"text": 3.0, "stems": 2.0}, False, given, False)) == {given: -2.0, frozenset(): 3.0}
    # weight 1 nested within another is that row alone
    assert by_factors(plan({"text": 1.0, "key": 1.0}, True, frozenset({"text", "key"}), False)) == {frozenset(): 1.0}
    assert sum(factor for _, factor in plan({"text": 0.3, "key": 0.7}, False, ALL, False)) == pytest.approx(1.0)
    assert len(plan({"text": 0.3, "key": 0.7}, False, ALL, False)) == 2


def test_what_is_present() -> None:
    assert present([TOLD, Condition()]) == {"text", "genre", "tempo", "beat", "key"}
    assert present([Condition(text="  "), Condition(melody=torch.zeros(3, 12))]) == {"melody"}


def loop(model: TokenLM, frames: int, mix: object) -> Tensor:
    """Greedy codes without cache, engine or plan; ``mix`` gives a step's logits [K, V] from the sequence."""
    codes = torch.zeros(1, 4, frames + 3, dtype=torch.long)
    with torch.no_grad():
        for step in range(frames + 3):
            token = mix(model.pattern.apply(codes, model.special)[:, :, : step + 1]).argmax(-1)  # type: ignore[operator]
            for book in range(4):
                if 0 <= step - book < frames + 3:
                    codes[0, book, step - book] = token[book]
    return codes[0, :, :frames]


@pytest.mark.parametrize("nested", [False, True])
def test_a_weight_per_control_against_the_formula_written_out(model: TokenLM, nested: bool) -> None:
    frames = 8
    settings = SamplingSettings(temperature=0.0, guidance={"text": 2.0, "tempo": 1.5}, nested=nested)
    found = sample(model, frames, TOLD, settings=settings)
    whole = collate([TOLD], frames + 3)

    def without(*names: str) -> object:
        return drop(whole, dict.fromkeys(names, 1.0), torch.Generator())

    def mix(sequence: Tensor) -> Tensor:
        def row(batch: object) -> Tensor:
            return model(sequence, batch)[0, :, -1]

        u, text, tempo = row(without("text", "tempo")), row(without("tempo")), row(without("text"))
        if nested:
            return u + 2.0 * (text + 1.5 * (row(whole) - text) - u)
        return u + 2.0 * (text - u) + 1.5 * (tempo - u)

    assert torch.equal(found, loop(model, frames, mix))


def test_a_negative_condition_takes_the_place_of_none(model: TokenLM) -> None:
    frames, away = 8, Condition(text="fast rock drums", genre="rock")
    settings = SamplingSettings(temperature=0.0, guidance=2.5)
    found = sample(model, frames, TOLD, settings=settings, negative=away)
    told, other = collate([TOLD], frames + 3), collate([away], frames + 3)

    def mix(sequence: Tensor) -> Tensor:
        c, u = model(sequence, told)[0, :, -1], model(sequence, other)[0, :, -1]
        return u + 2.5 * (c - u)

    assert torch.equal(found, loop(model, frames, mix))
    # away from nothing is the usual guidance
    assert torch.equal(
        sample(model, frames, TOLD, settings=settings, negative=Condition()),
        sample(model, frames, TOLD, settings=settings),
    )


@pytest.mark.parametrize("wrong", [{}, {"loudness": 2.0}, {"all": 2.0}], ids=str)
def test_unknown_names_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="name one or more of text"):
        SamplingSettings(guidance=wrong)


def test_weights_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"guidance -1\.0 of text is outside"):
        SamplingSettings(guidance={"text": -1.0})
    with pytest.raises(ValueError, match="one number"):
        _ = SamplingSettings(guidance={"text": 1.0}).weight
    assert SamplingSettings(guidance=2).weight == 2.0
