import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from descant.eval.report import results
from descant.gen import cli
from descant.gen.cli_score import RoundTrip, cache_folder

RATE = 16_000


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """A few short clips of noise and tones, in an empty folder that is also the cache's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DESCANT_CACHE", raising=False)
    for side, seed in (("gen", 100), ("ref", 0)):
        Path(side).mkdir()
        for n in range(4):
            generator = torch.Generator().manual_seed(seed + n)
            wav = 0.1 * torch.randn(RATE, generator=generator) * torch.linspace(1, 0.1, RATE)
            wav += 0.2 * torch.sin(torch.arange(RATE) * (0.05 + 0.02 * n))
            soundfile.write(Path(side) / f"c{n}.wav", wav.numpy(), RATE)
    return tmp_path


def run(capsys, *words):
    status = cli.main(["score", *map(str, words), "--jobs", "1", "--no-judge"])
    return (status, *capsys.readouterr())


def test_a_folder_is_scored_and_the_record_goes_to_standard_output_too(sets, capsys):
    status, out, err = run(capsys, "--generated", "gen", "--reference", "ref", "-o", "rep", "--json", "--quiet")
    assert status == 0 and err == ""
    table = json.loads(out)
    results.validate(table)
    assert table["command"][0] == "descant" and table["generated"]["clips"] == 4
    assert {path.name for path in Path("rep").iterdir()} >= {
        "results.json", "vectors.safetensors", "tables.md", "tables.csv", "tables.tex", "index.html",
    }  # fmt: skip
    assert list(Path("home").rglob("*.safetensors"))
    # again: everything is in the cache, the report is replaced, and against the earlier one nothing differs
    status, _, err = run(
        capsys, "--generated", "gen", "--reference", "ref", "--against", "rep", "-o", "rep2", "--no-page"
    )
    assert status == 0 and "generated: 4 of 4" in err and "self-check not run" in err and "rep2" in err
    rows = json.loads(Path("rep2/results.json").read_text())["comparison"]["rows"]
    assert {row["value"] for row in rows} == {0.0, None}
    assert not Path("rep2/index.html").exists()


def test_an_invalid_report_is_written_and_ends_with_status_1(sets, capsys, monkeypatch):
    from descant.eval.report import selfcheck
    from descant.eval.report.results import CheckGroup, CheckRow

    row = CheckRow(name="noise", value=1.0, above="codec", ok=False)
    monkeypatch.setattr(selfcheck, "check", lambda *rest: (CheckGroup(judge="logmel", rows=(row,)),))
    status, _, err = run(
        capsys, "--generated", "gen", "--reference", "ref", "-o", "rep", "--no-page", "--no-cache", "--quiet"
    )
    assert status == 1 and err.startswith(
        "descant score: the report is invalid, its self-check failed: logmel: 'noise'"
    )
    assert err.count("\n") == 1 and not results.read("rep").valid


@pytest.mark.parametrize(("words", "status", "said"), [
    ((), 2, "the following arguments are required: --generated"),
    (("--generated", "gen"), 2, "required: -o/--out"),
    (("--generated", "none", "-o", "rep"), 1, "none: no such folder"),
    (("--generated", "empty", "-o", "rep"), 1, "empty: holds no audio files"),
    (("--generated", "gen", "-o", "gen"), 2, "holds no report"),
    (("--generated", "gen", "-o", "rep", "--recipe", "v9"), 2, "no recipe is called v9; there are paper-musicgen"),
    (("--generated", "gen", "-o", "rep", "--judge", "x="), 2, "write NAME=PATH"),
    (("--generated", "gen", "-o", "rep", "--judge", "a=b", "a=c"), 2, "--judge a is named twice"),
    (("--generated", "gen", "-o", "rep", "--seed", "-1"), 2, "a seed of 0 or more"),
    (("--generated", "gen", "-o", "rep", "--prompts", "no.csv"), 1, "no.csv: no such file"),
    (("--generated", "gen", "-o", "rep", "--reference", "no.safetensors"), 1, "no.safetensors: no such"),
    (("--generated", "gen", "-o", "rep", "--save-reference", "x.safetensors"), 1, "there is no reference to save"),
    (("--generated", "gen", "-o", "rep", "--cache", "c", "--no-cache"), 2, "not allowed with"),
])  # fmt: skip
def test_mistakes_are_one_line(sets, capsys, words, status, said):
    Path("empty").mkdir()
    found, out, err = run(capsys, *words)
    assert (found, out) == (status, "") and said in err and err.count("\n") == 1
    assert not Path("rep").exists()


def test_where_the_cache_lies(monkeypatch):
    monkeypatch.setenv("HOME", "/home/x")
    for name in ("DESCANT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path("/home/x/.cache/descant/score")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path("/home/x/.cache/descant/score")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_folder() == Path("/c/descant/score")
    monkeypatch.setenv("DESCANT_CACHE", "/d")
    assert cache_folder() == Path("/d/score")


def test_the_codec_of_the_self_check_keeps_shape_and_most_of_the_sound():
    wav = 0.3 * torch.sin(torch.arange(2 * RATE) * 0.1)[None].repeat(2, 1)
    wav[1] *= 0.5
    codec = RoundTrip()
    out = codec(wav, RATE)
    assert out.shape == wav.shape and codec.id.startswith("codec_tiny+")
    error = float((out - wav).square().mean() / wav.square().mean())
    assert 1e-6 < error < 0.5
    assert codec.__getstate__()["_codec"] is None


def test_no_process_opens_a_socket(sets):
    # an audit hook in every interpreter that is started, workers included
    Path("hook").mkdir()
    (Path("hook") / "sitecustomize.py").write_text(
        "import sys\n"
        "def watch(event, args):\n"
        "    if event.startswith('socket.'):\n"
        "        open('opened.txt', 'a').write(event + chr(10))\n"
        "        raise RuntimeError('a socket: ' + event)\n"
        "sys.addaudithook(watch)\n"
    )
    path = os.pathsep.join(["hook", os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "descant", "score", "--generated", "gen", "--reference", "ref", "-o", "rep",
         "--jobs", "2", "--no-judge", "--no-check", "--quiet"],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path("rep/index.html").is_file() and not Path("opened.txt").exists()
