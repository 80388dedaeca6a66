"""The adherence of parts and tunes: what is true scores high, what is somebody else's low."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from descant.eval import chords
from descant.recipes import bench_accompany, builtin
from descant.recipes.bench_accompany import Case, Excerpt
from descant.recipes.clips import RATE

from ..gen.made import able

SECONDS = 6.0


@pytest.fixture(scope="module")
def found() -> list[Excerpt]:
    return bench_accompany.excerpts([builtin.compose(seed, "test", 12.0) for seed in range(12)], 5, SECONDS)


@pytest.fixture(scope="module")
def cases(found: list[Excerpt]) -> list[Case]:
    return [bench_accompany.render(one) for one in found]


def test_excerpts_have_a_part_and_others(found: list[Excerpt], cases: list[Case]) -> None:
    for one, case in zip(found, cases, strict=True):
        assert one.target in case.parts and one.target not in case.context and case.context
        total = case.true + torch.stack(list(case.context.values())).sum(0)
        assert torch.allclose(total, case.mix, atol=1e-5) and case.mix.shape == (round(SECONDS * RATE),)
        tempo, first = one.pulse
        assert 85 <= tempo < 170 and 0 <= first < 60 / tempo
        bar = 60 / one.piece.tempo * one.piece.beats_per_bar
        assert SECONDS / bar <= len(one.asked) < SECONDS / bar + 1 and one.asked[0] in {c for *_, c in one.piece.chords}
    assert len({one.target for one in found}) > 1
    with pytest.raises(ValueError, match="1 of 1 pieces"):
        bench_accompany.excerpts([found[0].piece], 2, SECONDS)


def test_true_parts_fit_and_others_do_not(found: list[Excerpt], cases: list[Case]) -> None:
    heard: list[dict[str, Any]] = []
    for case in cases:
        context = torch.stack(list(case.context.values())).sum(0)
        heard.append({"context": bench_accompany.hear_part(context), "true": bench_accompany.hear_part(case.true)})
    tables = bench_accompany.part_tables(found, heard, "true")
    for name in ("beat F1", "onset F1", "onset curves, correlation"):
        own = tables[name].diagonal().mean()
        others = (tables[name].sum() - tables[name].trace()) / (len(found) * (len(found) - 1))
        assert own > others + 0.1, name
    assert float(tables["beat F1"].diagonal().mean()) > 0.7
    pitched = sum(one.target != "drums" for one in found)
    assert tables["key of the score, MIREX"].shape == (pitched, pitched)


def test_true_tunes_and_chords_are_heard(
    found: list[Excerpt], cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    # templates of one tuning are made once
    monkeypatch.setattr(chords, "tuning", lambda wav, rate: 0.0)
    heard = [{"true": bench_accompany.hear_tune(case.mix)} for case in cases]
    tables = bench_accompany.tune_tables(found, heard, "true")
    tune = tables["melody"]
    assert float(tune.diagonal().mean()) > 0.7 > 0.45 > float(tune.roll(1, 0).diagonal().mean())
    spans = tables["chords, share of time"]
    assert float(spans.diagonal().mean()) > 0.6 and float(spans.diagonal().mean()) > float(spans.mean()) + 0.2


def test_a_model_plays_what_is_judged(cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    studio, case = able(books=2), cases[0]
    # the true others without the target, which is what a perfect separator would find
    monkeypatch.setattr(bench_accompany, "separated", lambda case: case.context)
    made = {name: make() for name, make in bench_accompany.play_parts(studio, case, 3)}
    assert {name: wav.shape for name, wav in made.items()} == dict.fromkeys(made, case.mix.shape)
    assert set(made) == {"context", "true", "codec", "clean", "apart"}
    assert torch.equal(made["clean"], made["apart"]) and torch.equal(made["true"], case.true)
    tunes = {name: make() for name, make in bench_accompany.play_tune(studio, case, 3)}
    assert {name: wav.shape for name, wav in tunes.items()} == dict.fromkeys(("true", "codec", "ours"), case.mix.shape)


def test_what_a_separator_finds_is_without_the_target(cases: list[Case]) -> None:
    case = next(case for case in cases if case.excerpt.target == "drums")
    apart = bench_accompany.separated(case)
    assert "drums" not in apart and all(wav.shape == case.mix.shape for wav in apart.values())
