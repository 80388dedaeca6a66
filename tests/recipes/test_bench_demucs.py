"""The benchmark of Demucs networks: it compares what it times, and says when it cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from demucs.htdemucs import HTDemucs

from descant.recipes import bench_demucs, bench_separation


def _small(seed: int, channels: int, **_: Any) -> Any:
    torch.manual_seed(seed)
    return HTDemucs(list(bench_demucs.STEMS), channels=8, nfft=1024, depth=3, t_layers=2, t_heads=2, segment=0.5).eval()


def test_it_compares_what_it_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_demucs, "_network", _small)
    monkeypatch.setattr(bench_demucs, "memory", lambda path, minutes: 100.0)
    monkeypatch.setattr(bench_demucs.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": "300.5"}))
    config = bench_demucs.DemucsBenchConfig(seconds=0.9, bag_seconds=0.4, minutes=(1.0,))
    found = bench_demucs.report(config)
    one = found["single"]
    assert one["exact_error"] <= 1e-5 and one["fp32_error"] <= 1e-2 and 20 < one["bf16_snr"] < 100
    assert 0 < found["bag"]["one"] < found["bag"]["all"]
    assert found["memory"] == {"ours": {"1": 100.0}, "theirs": {"1": 300.5}}
    text = "\n".join(bench_demucs.section(found))
    assert "--stems vocals" in text and "300 MB" in text
    # the section is put into the report that is there, and stays when that is measured again
    held = {"songs": 0, "hours": 0.0, "rate": 1, "fonts": [], "stems": [], "oracle_window": 1, "rows": []}
    bench_separation.write(tmp_path, {**held, "demucs": found})
    bench_separation.write(tmp_path, {**held, "demucs": None})
    assert json.loads((tmp_path / "separation.json").read_text())["demucs"]["single"] == one
    assert text in (tmp_path / "separation.md").read_text(encoding="utf-8")


def test_without_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_demucs, "find_spec", lambda name: None)
    found = bench_demucs.report()
    assert "pip install 'descant[demucs]'" in "\n".join(bench_demucs.section(found))


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        bench_demucs.DemucsBenchConfig(seconds=0.0)
