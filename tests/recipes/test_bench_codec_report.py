"""The codec report from recordings to page: tables, plots, players, and a second run that has nothing to do."""

import argparse
import io
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile
import torch

from descant.codec import audio
from descant.codec.model import Codec, nano
from descant.codec.pretrained import save
from descant.eval import reconstruction
from descant.recipes import (
    bench_codec_page,
    bench_codec_run,
    bench_codec_score,
    bench_codec_speed,
    bench_codec_systems,
    bench_stream,
)
from descant.recipes.bench_codec_report import bounds
from descant.recipes.bench_codec_run import CodecBenchConfig, named, run
from descant.recipes.real import Row, write_manifest

RATE = 32_000
#: Elements without content, which need no end tag.
VOID = {"meta", "img", "link", "br", "input"}


class Page(HTMLParser):
    """Collects what a page refers to, and complains where elements are not properly nested."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.faults, self.files, self.links, self.rows = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if len(named) != len(attrs):
            self.faults.append(f"{tag} has an attribute twice")
        if tag not in VOID:
            self.open.append(tag)
        if "src" in named:
            self.files.append(named["src"])
        if "href" in named:
            (self.links if tag == "a" else self.files).append(named["href"])
        if tag == "img" and not named.get("alt"):
            self.faults.append("a picture without words")
        if named.get("class") == "row":
            self.rows.append([])
        if self.rows and tag in ("audio", "img"):
            self.rows[-1].append((tag, named["src"]))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.faults.append(f"<{tag} /> is not closed for a browser")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four recordings with a manifest, one of them under a share-alike licence, and two codecs."""
    root = tmp_path_factory.mktemp("report")
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(3 * RATE) / RATE
    rows = []
    for number, name in enumerate("abcd"):
        wav = 0.2 * torch.sin(2 * math.pi * 220 * (number + 1) * time) * torch.exp(-4 * (time % 0.5))
        wav = wav + 0.03 * torch.randn(len(time), generator=generator)
        (root / "real" / "test").mkdir(parents=True, exist_ok=True)
        audio.write(root / "real" / "test" / f"{name}.flac", audio.Audio(wav[None], RATE))
        rows.append(
            Row(path=f"test/{name}.flac", split="test", stem="mix", seconds=3.0,
                licence="CC-BY-SA-3.0" if name == "b" else "CC-BY-3.0", author=f"M & <N> {name}", title=f"Piece {name}",
                package="own", version="", source=f"{name}.ogg", evidence="stated")
        )  # fmt: skip
    write_manifest(root / "real", rows, RATE)
    for seed, name in enumerate(("mine", "theirs")):
        torch.manual_seed(seed)
        save(Codec(nano()).eval(), root / name)
    return root


def settings(folders, out, **changes):
    values = {
        "real": (str(folders / "real" / "test"),), "codecs": (str(folders / "mine"),), "out": str(out),
        "cache": str(out / "cache"), "clips": 3, "visqol_clips": 2, "use_clips": 6, "seconds": 1.0, "workers": 1,
    }  # fmt: skip
    return CodecBenchConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def fast():
    """A stand-in listener, which takes seconds otherwise, and fewer systems and repetitions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruction, "visqol", lambda a, b, rate: 5 - float((a - b).abs().mean() * 10))
        patch.setattr(bench_codec_systems, "OPUS_RATES", (6, 8, 12))
        patch.setattr(bench_codec_systems, "MP3_RATES", (32,))
        controls = {name: bench_codec_systems.CONTROLS[name] for name in ("identity", "random phase", "low-pass 8 kHz")}
        patch.setattr(bench_codec_systems, "CONTROLS", controls)
        patch.setattr(bench_codec_speed.best, "__defaults__", (1,))
        patch.setattr(bench_stream, "speed", lambda codec, seconds: {"encode_stream_x": 9.0, "decode_latency_ms": 40.0})
        yield patch


@pytest.fixture(scope="module")
def done(folders, tmp_path_factory, fast):
    out = tmp_path_factory.mktemp("docs")
    log = []
    report = run(settings(folders, out), log.append, "descant bench codec --real data/real/test")
    return out, report, log


def test_the_report_holds_every_figure(done, folders):
    out, report, log = done
    assert json.loads((out / "codec.json").read_text()) == json.loads(json.dumps(report))
    rows = {row["system"]: row for row in report["systems"]}
    assert [name for name, row in rows.items() if row["ours"]] == [
        "mine, 1 book", "mine, 2 books", "mine, 4 books", "mine, 6 books", "mine, 8 books"
    ]  # fmt: skip
    for row in rows.values():
        assert {"visqol", *bench_codec_score.SIGNAL} - {"side"} <= set(row["mean"])
        assert ("kbps" in row["mean"]) == (row["kind"] != "control")
        assert set(row["clips"]) == set(row["mean"])
        mels = row["clips"]["mel"]
        assert len(mels) == len(report["clips"]) == 3
        assert [value is None for value in row["clips"]["visqol"]] == [False, False, True]
        assert row["mean"]["mel"][0] == pytest.approx(sum(mels) / 3, abs=1e-4)
        assert row["mean"]["mel"][1] <= row["mean"]["mel"][0] <= row["mean"]["mel"][2]
    assert rows["identity"]["mean"]["mel"] == [0, 0, 0]
    fingerprint = bytes(bench_codec_systems.loaded(str(folders / "mine")).fingerprint).hex()
    assert report["about"]["codecs"]["mine"]["fingerprint"] == fingerprint
    assert len(report["use"]["mine"]) == 8
    assert {book["frames"] for book in report["use"]["mine"]} == {6 * 50}
    assert set(report["speed"]) == {"mine", "Opus", "MP3"}
    assert {"encode", "decode", "encode_stream_x", "decode_latency_ms"} <= set(report["speed"]["mine"])
    assert [clip["licence"] for clip in report["clips"]].count("CC-BY-SA-3.0") == 1
    assert any(line.startswith("36 of 36: ") for line in log)


def test_differences_are_from_the_nearest_rate(done):
    _, report, _ = done
    rows = {row["system"]: row for row in report["systems"]}
    for line in report["paired"]:
        assert line["nearest"] == "Opus mono 6"
        mean = rows[line["system"]]["mean"]
        for name, found in line["minus"].items():
            assert found["mel"][0] == pytest.approx(mean["mel"][0] - rows[name]["mean"]["mel"][0])
        assert set(line["opus_kbps_for_the_same"]) == {"visqol", "mel", "stft", "si_sdr"}


def test_the_page_says_it_in_words(done):
    out, _, _ = done
    text = (out / "codec.md").read_text()
    for words in (
        "`descant bench codec --real data/real/test`", "| **mine, 4 books** |", "| Opus mono 12 |", "| MP3 mono 32 |",
        "| random phase | – |", "the first 2 by ViSQOL", "300 frames", "encode", "codec-audio/index.html",
        "MP3 mono 32 1105", "3 of the 3 excerpts", "One channel", "> 100",
    ):  # fmt: skip
        assert words in text, words
    assert all((out / name).is_file() for name in re.findall(r"\]\(([^)]+)\)", text))
    for name in ("codec-rates.png", "codec-spectrograms.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert not list(out.rglob("*.part"))


def test_the_audio_page_is_whole_and_asks_nothing_of_the_network(done):
    folder = done[0] / "codec-audio"
    text = (folder / "index.html").read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert not page.faults and not page.open
    assert text.startswith("<!DOCTYPE html>")
    assert not re.search(r"https?:", re.sub(r'<a href="[^"]*">', "", text))  # links to licences aside
    assert {link.split("/")[2] for link in page.links} == {"creativecommons.org"}
    names = {path.name for path in folder.iterdir()}
    assert set(page.files) | {"index.html"} == names
    assert len(page.rows) == len(re.findall("<h2>", text)) * 4 >= 8
    for row in page.rows:
        assert [tag for tag, _ in row] == ["audio", "img"]
        assert len({Path(name).stem for _, name in row}) == 1
    sounds = sorted(folder.glob("*.opus"))
    assert sum(path.stat().st_size for path in sounds) < 1_500_000
    for path in sounds:
        assert soundfile.info(path).duration == pytest.approx(1.0, abs=0.01)
    # credits, escaped; the share-alike recording is not passed on
    assert "M &amp; &lt;N&gt; " in text
    assert "Piece b" not in text


def test_players_play_what_was_scored(done, folders):
    folder = done[0] / "codec-audio"
    clip = bench_codec_page.listenable(bench_codec_run.choose((str(folders / "real" / "test"),), 3, 1.0, RATE, 1))[0]
    wav = clip.read()
    scored, _ = soundfile.read(io.BytesIO(bench_codec_page.opus_file(wav, RATE, 12)), dtype="float32")
    played, _ = soundfile.read(folder / "1-opus-mono-12.opus", dtype="float32")
    assert (played == scored).all()  # their bytes differ in the serial number that Ogg draws
    original, _ = soundfile.read(folder / "1-original.opus", dtype="float32")
    back = audio.resample(torch.from_numpy(original)[None], 48_000, RATE)[:, :RATE]
    assert reconstruction.si_sdr(wav, back) > 12


def test_budget_lowers_the_carrier(folders, tmp_path, monkeypatch, fast):
    clips = bench_codec_run.choose((str(folders / "real" / "test"),), 4, 1.0, RATE, 1)
    rows = bench_codec_systems.systems({"mine": str(folders / "mine")}, {}, RATE, 1)
    monkeypatch.setattr(bench_codec_page, "BUDGET", 40_000)
    (tmp_path / "old.opus").write_bytes(b"of an earlier run")
    (tmp_path / "notes.txt").write_text("somebody's")
    assert len(bench_codec_page.write(tmp_path, rows, clips, print)) == 3
    assert sum(path.stat().st_size for path in tmp_path.glob("*.opus")) < 40_000
    assert not (tmp_path / "old.opus").exists()
    assert (tmp_path / "notes.txt").exists()


def test_a_second_run_scores_only_the_new_codec(done, folders, fast):
    out, first, _ = done
    scored = []
    real = bench_codec_score.score
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_codec_score, "score", lambda tasks: scored.append(tasks[0].system.name) or real(tasks))
        patch.setattr(bench_codec_run.bench_codec_speed, "of_file_formats", None)  # known already
        report = run(settings(folders, out, peers=(str(folders / "theirs"),)))
    assert set(scored) == {f"theirs, {n} book{'s' * (n > 1)}" for n in (1, 2, 4, 6, 8)}
    assert len(scored) == 5 * 3
    rows = {row["system"]: row for row in report["systems"]}
    assert all(rows[row["system"]] == row for row in first["systems"])
    assert not rows["theirs, 8 books"]["ours"]
    assert set(report["use"]) == {"mine", "theirs"}


def test_without_matplotlib_there_are_tables(done, folders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    log = []
    run(settings(folders, tmp_path, cache=str(done[0] / "cache"), clips=1, visqol_clips=1), log.append)
    text = (tmp_path / "codec.md").read_text()
    assert "## What is kept" in text
    assert "](codec" not in text
    assert any("no audio page" in line for line in log)
    assert not list(tmp_path.rglob("*.png"))


def test_the_command_passes_everything_on(monkeypatch, capsys):
    from descant.gen.cli_bench_codec import add_codec
    from descant.gen.request import RequestError

    seen = []
    monkeypatch.setattr(bench_codec_run, "run", lambda config, log, command: seen.append(config) or log("a line"))
    parser = argparse.ArgumentParser()
    add_codec(parser.add_subparsers())

    def call(text):
        args = parser.parse_args(text.split())
        args.run(args)

    call("codec --real a b --codec tiny runs/x clips=70 rate=48000 --peer p --out docs seconds=5")
    config = CodecBenchConfig(
        real=("a", "b"), codecs=("tiny", "runs/x"), peers=("p",), out="docs", clips=70, rate=48000, seconds=5.0
    )
    assert seen == [config]
    assert "a line" in capsys.readouterr().err
    call("codec --quiet --real a")
    assert seen[1] == CodecBenchConfig(real=("a",))
    assert capsys.readouterr().err == ""
    for text in ("--real a clips=0", "--real a colour=red", "--real a codecs=tiny", "--real x=1"):
        with pytest.raises(RequestError):
            call(f"codec {text}")


def test_names_stay_apart():
    assert named(("tiny", "runs/a/export", "runs/b/export", "x/other")) == {
        "tiny": "tiny", "runs/a/export": "runs/a/export", "runs/b/export": "runs/b/export", "other": "x/other"
    }  # fmt: skip


def test_figures_are_short():
    assert bounds([1.234, 1.0, 2.0], 2) == "1.23 [1.00, 2.00]"
    assert bounds([1.234, -1.0, 2.0], 1, True) == "+1.2 [-1.0, 2.0]"
    assert bounds([250.0, 200.0, 300.0], 1) == "> 100"


@pytest.mark.parametrize(("change", "words"), [
    ({"codecs": ()}, "a codec"), ({"channels": 3}, "1 or 2"), ({"rate": 1000}, "8000 to 48000"),
    ({"visqol_clips": 0}, "visqol_clips"), ({"workers": 0}, "workers"), ({"seconds": 0.1}, "too short"),
])  # fmt: skip
def test_refusals(folders, tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        settings(folders, tmp_path, **change)
