"""The measures of the tune follower against mir_eval, and the report on made songs."""

from __future__ import annotations

import json
from pathlib import Path

import mir_eval
import numpy as np
import pytest

from descant.gen import cli
from descant.recipes import bench_melody, builtin, stems_data
from descant.recipes.piece import write_pieces

NAMES = {
    "pitch": "Raw Pitch Accuracy", "chroma": "Raw Chroma Accuracy", "recall": "Voicing Recall",
    "alarm": "Voicing False Alarm", "overall": "Overall Accuracy",
}  # fmt: skip


def hertz(line: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(line), 0.0, 440 * 2 ** ((np.nan_to_num(line) - 69) / 12))


@pytest.mark.parametrize("seed", range(4))
def test_the_measures_are_mir_evals(seed: int) -> None:
    draw = np.random.default_rng(seed)
    reference = draw.integers(50, 80, 400).astype(float)
    heard = reference + draw.choice([0, 0, 0, 0.3, -0.45, 0.6, 12, -12.2, 5], 400)
    reference[draw.random(400) < 0.3] = np.nan
    heard[draw.random(400) < 0.2] = np.nan
    times = np.arange(400) / 50
    wanted = mir_eval.melody.evaluate(times, hertz(reference), times, hertz(heard))
    found = bench_melody.scores(reference, heard)
    assert found == pytest.approx({name: wanted[long] for name, long in NAMES.items()}, abs=1e-9)


def test_the_top_line_of_notes() -> None:
    line = bench_melody.written([(0.0, 0.1, 60, 90), (0.04, 0.02, 64, 90), (0.12, 0.04, 62, 90)], 9)
    np.testing.assert_array_equal(line, [60, 60, 64, 60, 60, np.nan, 62, 62, np.nan])


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [builtin.compose(seed, duration=6.0) for seed in (1, 2)]
    write_pieces(tmp_path / "test.jsonl.gz", made)
    stems_data.pack(made, tmp_path / "stems", seconds=6.0)
    words = ["--data", str(tmp_path / "stems"), "--pieces", str(tmp_path / "test.jsonl.gz")]
    assert cli.main(["bench", "melody", *words, "-o", str(tmp_path), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "melody.json").read_text())
    assert found["leads"] == 2 and found["means"]["tune true"]["pitch"] > 0.85
    assert found["means"]["tune true"]["pitch"] >= found["means"]["tune separated"]["pitch"]
    assert found["leak"]["pairs"] > 0 and 0 <= found["leak"]["seen"] <= 1
    page = (tmp_path / "melody.md").read_text()
    assert f"{found['means']['tune true']['pitch']:.3f}" in page and "leak meter" in page
    assert cli.main(["bench", "melody", *words]) == 2
    write_pieces(tmp_path / "other.jsonl.gz", [builtin.compose(9, duration=6.0)])
    assert cli.main(["bench", "melody", *words[:2], "--pieces", str(tmp_path / "other.jsonl.gz"), "--json"]) == 1
    assert "does not hold" in capsys.readouterr().err
