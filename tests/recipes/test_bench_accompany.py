"""The adherence of parts and tunes: what is true scores high, what is somebody else's low; a model is measured."""

from __future__ import annotations

import pytest
import torch

from descant.recipes import bench_accompany, builtin
from descant.recipes.bench_accompany import Case

from ..gen.made import able

RATE, SECONDS = 22050, 6.0


@pytest.fixture(scope="module")
def found() -> list[Case]:
    pieces = (builtin.compose(seed, "test", 12.0) for seed in range(12))
    return bench_accompany.cases(list(pieces), 4, SECONDS, RATE)


def test_cases_have_a_part_and_others(found: list[Case]) -> None:
    for case in found:
        assert case.target in case.parts and case.target not in case.context and case.context
        total = case.parts[case.target] + torch.stack(list(case.context.values())).sum(0)
        assert torch.allclose(total, case.mix, atol=1e-5) and case.mix.shape == (round(SECONDS * RATE),)
        assert case.beats[0] < 60 / case.piece.tempo and case.beats[-1] <= SECONDS
    assert len({case.target for case in found}) > 1
    with pytest.raises(ValueError, match="only 1 pieces"):
        bench_accompany.cases([found[0].piece], 2, SECONDS, RATE)


def test_true_parts_fit_and_others_do_not(found: list[Case]) -> None:
    true = bench_accompany._fits(found, [case.parts[case.target] for case in found], 500)
    assert true["beat F1"]["mean"] > true["beat F1"]["shuffled"] + 0.3
    assert true["grid"]["mean"] > true["grid"]["shuffled"]
    tunes = bench_accompany._tunes(found, [case.mix for case in found], 500)
    assert tunes["melody"]["mean"] > 0.7 > 0.4 > tunes["melody"]["shuffled"]
    assert tunes["chords, majmin"]["mean"] > tunes["chords, majmin"]["shuffled"] + 0.3
    turned = bench_accompany._tunes(found, [case.mix for case in found[1:] + found[:1]], 500)
    assert turned["melody"]["mean"] < 0.4


def test_a_model_is_measured_whole(found: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    studio = able(books=2)
    # the true others without the target, which is what a perfect separator would find
    monkeypatch.setattr(bench_accompany, "_separated", lambda case: case.context)
    made = bench_accompany.measure(studio, found[:2], shuffles=100)
    assert made["count"] == 2 and set(made["parts"]) == {"ours", "through the codec", "separated context"}
    assert made["parts"]["ours"]["beat F1"] == made["parts"]["separated context"]["beat F1"]
    text = "\n".join(bench_accompany.section(made))
    assert "| melody | ours |" in text and "change the beat F1 by" in text
