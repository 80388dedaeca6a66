import json
from pathlib import Path

import pytest

from descant.recipes.curves import plot, read


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [
        {"step": n, "time": 0.0, "loss": 5.0 / n, **({"val/ce_0": 4.0} if n % 5 == 0 else {})} for n in range(1, 11)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "log.jsonl"


def test_figures_by_name(log: Path) -> None:
    rows = read(log)
    assert rows["val/ce_0"] == [(5, 4.0), (10, 4.0)]
    assert len(rows["loss"]) == 10 and "time" not in rows


def test_a_picture_is_drawn(log: Path, tmp_path: Path) -> None:
    plot(log, tmp_path / "a.png", [["loss"], ["val/ce_0"]], {"val/ce_0 bigram": 5.0})
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_unknown_figures_are_named(log: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pitch"):
        plot(log, tmp_path / "a.png", [["pitch"]])
