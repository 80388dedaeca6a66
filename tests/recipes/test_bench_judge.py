import json
import sys
from pathlib import Path

import pytest
import torch

from descant.eval.judge import Judge
from descant.gen import cli
from descant.recipes import bench_judge, judge_data
from descant.recipes.judge import config
from descant.recipes.piece import write_pieces

sys.path.insert(0, str(Path(__file__).parent))
from made import piece


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("judge")
    write_pieces(root / "pieces.jsonl.gz", [piece(number, "test") for number in range(6)])
    judge_data.prepare([piece(number, "test") for number in range(6)], root / "held")
    torch.manual_seed(0)
    Judge(config(2, timbre=8, rhythm=8, tonal=2, dim=8, reader=8, reader_layers=1)).save(root / "judge")
    return root


def test_every_measure_stands_beside_its_chance(folder, tmp_path):
    from descant.eval.judge import load

    report = bench_judge.run(load(folder / "judge"), {"held": folder / "held"}, 8)
    page = bench_judge.write(tmp_path, report, "descant bench judge").read_text()
    assert json.loads((tmp_path / "judge.json").read_text())["sets"]["held"]["clips"] == 8
    for label, _ in bench_judge.ROWS.values():
        line = next(line for line in page.splitlines() if line.startswith(f"| {label} |"))
        value, chance = line.split("|")[2:4]
        assert 0 <= float(chance) <= 1
        assert "nan" not in value
    assert "descant bench judge" in page


def test_wilsons_interval_is_the_published_one():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, table I
    assert bench_judge.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert bench_judge.wilson(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_the_commands_go_from_pieces_to_a_report(folder, tmp_path, capsys):
    pieces, made = str(folder / "pieces.jsonl.gz"), str(tmp_path / "data")
    assert cli.main(["prepare", "judge", "--pieces", pieces, "--limit", "4", "--out", made, "--quiet"]) == 0
    assert len(list(Path(made).iterdir())) == 4
    run = ["train", "judge", "nano", "steps=3", "batch=2", "dev_clips=4", "--data", made, "--dev", made]
    assert cli.main([*run, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    trained = str(tmp_path / "run" / "export")
    capsys.readouterr()
    assert cli.main(["bench", "judge", "--data", f"mine={made}", "--judge", trained, "--clips", "4", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["sets"]) == {"mine"}


def test_wrong_command_lines(folder, capsys):
    assert cli.main(["bench", "judge", "--data", str(folder / "held")]) == 2
    assert cli.main(["bench", "judge", "--data", str(folder / "held"), "--clips", "1", "--json"]) == 2
    assert cli.main(["bench", "judge", "--data", str(folder / "nothing"), "--json"]) != 0
    assert cli.main(["train", "judge", "huge", "--data", "x", "--dev", "x", "--out", "x"]) == 2
    assert "small or nano" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no labelled pieces"):
        bench_judge.run(Judge(config(2)), {})
