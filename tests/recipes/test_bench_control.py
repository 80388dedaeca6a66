import argparse
import functools
import json

import pytest

from descant.gen.cli_bench_metrics import add_metrics
from descant.gen.request import RequestError
from descant.recipes import bench_control, loops


def parse(*words):
    parser = argparse.ArgumentParser()
    add_metrics(parser.add_subparsers())
    args = parser.parse_args(words)
    args.run(args)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Three genres and three patterns, not all."""
    takes = functools.partial(bench_control.takes, genres=("rock", "waltz", "bossa nova"))
    monkeypatch.setattr(bench_control, "takes", takes)
    monkeypatch.setattr(loops, "PATTERNS", loops.PATTERNS[:2] + loops.PATTERNS[5:6])


def test_the_command_scores_the_analysers(tmp_path, capsys):
    parse("control", "--genre-pieces", "1", "--pattern-loops", "1", "--seconds", "6", "-o", str(tmp_path), "--json")
    said = capsys.readouterr()
    assert "control.md" in said.err
    found = json.loads(said.out)
    assert found == json.loads((tmp_path / "control.json").read_text())
    assert found["tempo on loops"]["clips"] == found["tempo on pieces"]["clips"] == 3
    for name in ("tempo on loops", "tempo on pieces"):
        row = found[name]
        assert 0 <= row["acc1"]["low"] <= row["acc1"]["mean"] <= row["acc1"]["high"] <= 1
        assert row["acc2"]["mean"] >= row["acc1"]["mean"]
        assert sum(row["relations"].values()) == 3
    melody = found["melody on pieces"]
    assert melody["same"]["mean"] > 0.8 > 0.4 > melody["other"]["mean"]
    assert melody["semitone off"]["mean"] < 0.15
    assert found["beats on loops"]["mean"] > 0.7
    text = (tmp_path / "control.md").read_text()
    assert "| tempo on loops | within 4 % |" in text and "another piece's melody" in text
    assert "Tempo on loops is heard as: exact" in text


def test_another_follower_has_its_own_ladder(monkeypatch):
    heard = []

    def follow(wav, rate, model):
        heard.append(model)
        return bench_control.melody.track(wav, rate)

    monkeypatch.setattr(bench_control, "_basic_pitch", follow)
    found = bench_control.report(1, 1, 4.0, model="nmp.onnx")
    assert found["melody on pieces, basic-pitch"] == found["melody on pieces"]
    assert heard == ["nmp.onnx"] * 9
    assert "melody on pieces, basic-pitch" in bench_control.page(found)


def test_refusals(tmp_path):
    with pytest.raises(RequestError, match="-o"):
        parse("control")
    with pytest.raises(RequestError, match="no file"):
        parse("control", "--json", "--basic-pitch", str(tmp_path / "nmp.onnx"))
    with pytest.raises(RequestError, match="at least 1"):
        parse("control", "--json", "--genre-pieces", "0")
