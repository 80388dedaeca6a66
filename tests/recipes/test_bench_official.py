"""The race of the official architectures: same weights, same work, and a table that says what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from descant.codec.official import encodec24
from descant.recipes import bench_official
from descant.recipes.bench_official import OfficialBenchConfig, Row


def test_both_run_the_same_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small = replace(encodec24(), filters=8, width=32, cardinality=64, bandwidths=(0.9, 1.8))
    monkeypatch.setitem(bench_official.MODELS, "encodec24", lambda: small)
    threads = torch.get_num_threads()
    rows = bench_official.run(OfficialBenchConfig(models=("encodec24",), seconds=0.5, rounds=1), tmp_path)
    assert torch.get_num_threads() == threads
    encode, decode = rows
    assert [encode.part, decode.part] == ["encode", "decode"]
    assert encode.equal >= 0.95  # all, but for frames whose two nearest codes are equally near
    assert decode.equal <= 1e-5 and 0.2 < encode.agree <= 1
    assert all(value > 0 for row in rows for value in (row.theirs, row.fp32, row.bf16))
    record = json.loads((tmp_path / "official.json").read_text(encoding="utf-8"))
    assert [row["part"] for row in record["rows"]] == ["encode", "decode"] and record["config"]["seconds"] == 0.5
    assert "| encodec24 | encode |" in (tmp_path / "official.md").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["official.json", "official.md"]


def test_the_table_divides_the_right_way() -> None:
    row = Row(model="m", part="decode", theirs=5.0, fp32=6.0, bf16=10.0, equal=2e-7, agree=0.985)
    assert "| m | decode | 5.0 | 6.0 | 10.0 | 1.20x | 2.00x | 2.0e-07 | 98.5 % |" in bench_official.table([row])


def test_the_first_turn_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 10.0, 13.0, 20.0, 22.0])  # begin and end of each turn
    monkeypatch.setattr(bench_official.time, "process_time", lambda: next(clock, 0.0))
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        if len(calls) == 1:
            next(clock)  # the turn that does not count still looks at the clock once

    assert bench_official.race({"one": work}, 2) == {"one": 2.0} and len(calls) == 3


@pytest.mark.parametrize("wrong", [{"models": ()}, {"models": ("opus",)}, {"seconds": 0.0}, {"rounds": 0}])
def test_settings_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"models|seconds|rounds"):
        OfficialBenchConfig(**wrong)  # type: ignore[arg-type]
