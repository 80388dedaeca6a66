import argparse
import json

import pytest

from descant.gen.cli_bench_metrics import add_metrics
from descant.gen.request import RequestError
from descant.recipes import bench_bss


def parse(*words):
    parser = argparse.ArgumentParser()
    add_metrics(parser.add_subparsers())
    args = parser.parse_args(words)
    args.run(args)


@pytest.fixture(scope="module")
def found():
    row = bench_bss.parity(2.0, sources=2, rate=16_000, repeats=2)
    about = {"machine": "m", "threads": 1, "torch": "t", "scipy": "s", "museval": "0.4", "repeats": 2, "pieces": 1}
    return {"about": about, "parity": [row], "ladder": bench_bss.ladder(1, 2.0, 16_000)}


def test_numbers_are_musevals(found):
    (row,) = found["parity"]
    apart = row["largest difference, dB"]
    assert apart["sdr"] <= 1e-10
    assert max(apart.values()) <= 1e-6
    assert row["same NaN"]
    assert min(row["CPU s"].values()) > 0 and row["museval's cost over ours"]["sdr alone"] > 1


def test_oracles_know_their_order(found):
    steps = found["ladder"]
    for name in ("uSDR", "cSDR"):
        assert steps["mixture"][name] < steps["ibm"][name] < steps["wiener"][name] < steps["mwf"][name]


def test_the_command_writes_the_report(found, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(bench_bss, "report", lambda *words: asked.append(words) or found)
    parse("bss", "--seconds", "2", "3", "--pieces", "1", "--repeats", "2", "-o", str(tmp_path), "--json", "--quiet")
    assert asked == [([2.0, 3.0], 1, 2, None)]
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == json.loads((tmp_path / "bss.json").read_text()) == json.loads(json.dumps(found))
    text = (tmp_path / "bss.md").read_text()
    assert "2 stereo stems of 2 s at 16000 Hz" in text and "| mwf |" in text


def test_refusals(monkeypatch):
    with pytest.raises(RequestError, match="-o"):
        parse("bss")
    with pytest.raises(RequestError, match="at least 2 s"):
        parse("bss", "--seconds", "1", "--json")
    monkeypatch.setattr(bench_bss.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="museval"):
        bench_bss.parity(2.0)
    with pytest.raises(RequestError, match="museval"):
        parse("bss", "--json", "--quiet")
