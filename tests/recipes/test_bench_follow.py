"""The report on adherence: made whole by a small model, resumed, and honest about what was reached."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from descant.eval import chords
from descant.gen import cli
from descant.lm.model import TokenLM
from descant.lm.text import train_tokenizer
from descant.recipes import bench_accompany, bench_follow, bench_follow_page, bench_verbs, builtin
from descant.recipes.bench_adherence import wanted
from descant.recipes.piece import write_pieces

from ..gen.made import able


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    pieces = [builtin.compose(seed, "test", 8.0, genre) for seed, genre in ((1, "rock"), (2, "waltz"))]
    write_pieces(tmp_path / "pieces" / "test.jsonl.gz", pieces)
    made = able(books=2)
    words = [wanted(piece, number).text for number, piece in enumerate(pieces * 12)]
    reader = TokenLM(replace(made.lm.config, text_vocab=48), train_tokenizer(words, 48)).eval()
    monkeypatch.setattr(bench_follow.FollowBench, "studio", replace(made, lm=reader))
    monkeypatch.setattr(bench_accompany, "separated", lambda case: case.context)
    # templates of one tuning are made once
    monkeypatch.setattr(chords, "tuning", lambda wav, rate: 0.0)
    monkeypatch.setattr(bench_verbs, "extend", partial(bench_verbs.extend, count=1))
    return ["bench", "control", "--pieces", str(tmp_path / "pieces"), "--count", "2", "--seconds", "5", "--cache",
            str(tmp_path / "cache"), "-o", str(tmp_path / "out")]  # fmt: skip


def test_a_model_is_measured_whole_and_resumed(
    few: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*few, "--json", "--quiet"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "adherence.json").read_text())
    assert found["count"] == 2 and sum(found["targets"].values()) == 2
    rows = found["parts"]["rows"]
    assert set(rows) == {"clean", "apart", "codec", "true"} and rows["clean"]["beat F1"] == rows["apart"]["beat F1"]
    for section in (rows["codec"], found["tunes"]["ours"], found["words"]["rows"]["ours"]):
        for name, row in section.items():
            assert row["low"] <= row["mean"] <= row["high"] and 0 < row["p"] <= 1, name
    judge = found["judge"]
    assert (
        judge["codec"]["KL of tags from the true clips, nats"]["mean"] > 0
        and judge["ours"]["Fréchet distance"]["mean"] > 0
    )
    assert "KL of tags from the true clips, nats" not in judge["plain"] and "likeness to the words" in judge["plain"]
    text = (tmp_path / "out" / "adherence.md").read_text()
    for words in ("## What was to be reached", "## Parts beside given stems", "## Tunes and chords", "seam of `extend`",
                  "| tempo within 4 % |", "**missed**"):  # fmt: skip
        assert words in text

    # one item is lost: it is heard again from the sound that is kept, nothing is generated
    lost = next((tmp_path / "cache").rglob("part/001-*.json"))
    before = json.loads(lost.read_text())
    lost.unlink()
    monkeypatch.setattr(bench_accompany, "_added", None)
    config = bench_follow.FollowConfig(
        pieces=str(tmp_path / "pieces"), count=2, seconds=5.0, cache=str(tmp_path / "cache")
    )
    bench = bench_follow.FollowBench(config, lambda _: None)
    assert bench.jobs() == [("part", 1)]
    bench.work("part", 1)
    assert json.loads(lost.read_text()) == before and not bench.jobs()


def made(beat: float, apart: float, shuffled: float = 0.4, p: float = 0.001) -> dict[str, Any]:
    def row(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean, "high": mean, "shuffled": shuffled, "p": p, "count": 64}

    names = ("tempo within 4 %", "key exact", "genre", "instruments, likelihood in nats")
    return {
        "parts": {"rows": {"clean": {bench_follow_page.PULSE: row(beat)},
                           "apart": {bench_follow_page.PULSE: row(apart)}}},
        "tunes": {"ours": {"melody": row(0.7), "chords, share of time": row(0.6)}},
        "words": {"rows": {"ours": {name: row(0.82) for name in names}}},
    }  # fmt: skip


def test_goals_are_reached_or_missed() -> None:
    every = bench_follow_page.goals(made(0.85, 0.8))
    assert all(goal.reached for goal in every) and len(every) == 13
    missed = {goal.what for goal in bench_follow_page.goals(made(0.85, 0.7)) if not goal.reached}
    assert missed == {"change of beat F1 beside separated stems"}
    missed = {goal.what for goal in bench_follow_page.goals(made(0.6, 0.6)) if not goal.reached}
    assert missed == {bench_follow_page.PULSE, "the same, more than shuffled by"}
    assert sum(not goal.reached for goal in bench_follow_page.goals(made(0.85, 0.8, p=0.02))) == 7
    nothing = made(0.85, 0.8)
    nothing["parts"]["rows"] = {"clean": {}, "apart": {}}
    left = [goal for goal in bench_follow_page.goals(nothing) if goal.value is None]
    assert len(left) == 4 and not any(goal.reached for goal in left)


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "control", "--pieces", str(tmp_path), "--json"]
    assert cli.main([*words, "--count", "1"]) == 2 and "at least" in capsys.readouterr().err
    assert cli.main(words) == 2 and "descant render" in capsys.readouterr().err
