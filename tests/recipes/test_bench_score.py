import argparse
import json

import pytest

from descant.gen import cli_bench_score
from descant.gen.request import RequestError
from descant.recipes import bench_score
from descant.recipes.bench_score import ScoreBenchConfig


@pytest.fixture(scope="module")
def found():
    return bench_score.run(ScoreBenchConfig(clips=2, seconds=3, stems=2, jobs=1, seed=5))


def test_everything_is_scored_without_a_socket_and_every_stage_is_timed(found):
    assert found["sockets"] == 0 and found["clips"] == {"generated": 2, "reference": 2}
    assert found["audio_seconds"] == pytest.approx(12)
    given = {"tempo-acc1", "key-exact", "melody", "stems-onset", "loudness", "clap@descant-judge", "js@descant-judge"}
    assert found["rows"] > 40 and not given & set(found["rows_without_value"])
    stages = found["stages"]
    assert "hearing the generated clips" in stages and "tables and page" in stages
    # the process's own beginning and end are in the whole alone
    for name in ("seconds", "cpu_seconds"):
        assert 0 < sum(row[name] for row in stages.values()) <= found[name] + 0.1
    assert found["page_bytes"] > 10_000 and found["peak_mb"] > 50


def test_the_report_is_written_twice(found, tmp_path):
    bench_score.write(tmp_path / "docs", found)
    assert json.loads((tmp_path / "docs" / "score.json").read_text()) == found
    text = (tmp_path / "docs" / "score.md").read_text()
    assert "`descant bench score -o docs/benchmarks --clips 2" in text and "Sockets opened: 0" in text
    assert "too few to halve" in text and "| hearing the reference |" in text


def test_a_socket_is_refused_and_named(monkeypatch, tmp_path):
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(bench_score, "_RUN", "import socket; socket.socket()")
    given = ScoreBenchConfig(clips=1, stems=0, generated=str(tmp_path / "a"), reference=str(tmp_path / "a"))
    with pytest.raises(RuntimeError, match=r"a socket is forbidden here.*it asked for socket\."):
        bench_score.run(given)


def test_equal_settings_make_equal_clips(tmp_path):
    config = ScoreBenchConfig(clips=1, seconds=1, stems=1, jobs=1)
    for name in ("one", "two"):
        bench_score.make(tmp_path / name, config)
    one, two = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert one == two and {path.name for path in one} >= {"0000.flac", "0000.txt", "labels.csv"}


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"seconds": 0.5}, {"stems": 300}, {"jobs": 0}, {"generated": "out"}])
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match=r"need a clip|name both"):
        ScoreBenchConfig(**wrong)


def test_the_command_says_what_is_missing():
    parser = argparse.ArgumentParser()
    cli_bench_score.add_score(parser.add_subparsers())
    args = parser.parse_args(["score"])
    with pytest.raises(RequestError, match="name a folder"):
        args.run(args)
    args = parser.parse_args(["score", "--json", "--clips", "0"])
    with pytest.raises(RequestError, match="need a clip"):
        args.run(args)
