"""The commands of separation."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from descant.codec.audio import Audio, read, write
from descant.gen import cli_separation
from descant.gen.request import RequestError
from descant.gen.separation import pretrained
from descant.recipes import builtin
from descant.recipes.piece import write_pieces

from .made import network, sound


def run(*words: object) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    cli_separation.add(commands)
    cli_separation.add_prepare(commands)
    cli_separation.add_bench(commands)
    args = parser.parse_args([str(word) for word in words])
    args.run(args)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained.save(network(), tmp_path_factory.mktemp("separator"))


def test_files_become_folders_of_stems(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("one.wav", "two.flac")):
        write(tmp_path / "in" / name, Audio(sound(0.4, 22050, 2, number) * 0.5, 22050))
    run("separate", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--stems", "lead,drums+bass",
        "--residual", "--format", "wav", "--json", "--quiet")  # fmt: skip
    files = json.loads(capsys.readouterr().out)["files"]
    assert len(files) == 2
    for source, stems in files.items():
        assert list(stems) == ["lead", "drums+bass", "residual"]
        total = sum(read(path).wav for path in stems.values())
        assert (total - read(source).wav).abs().max() < 1e-5


def test_wrong_words_are_told_before_the_work(model: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.wav", Audio(sound(0.1, 16000), 16000))
    with pytest.raises(RequestError, match="no stem 'harp'"):
        run("separate", tmp_path / "a.wav", "-o", tmp_path / "out", "--model", model, "--stems", "harp")
    with pytest.raises(RequestError, match="no separator 'nobody'"):
        run("separate", tmp_path / "a.wav", "-o", tmp_path / "out", "--model", "nobody")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        run("separate", tmp_path / "b.wav", "-o", tmp_path / "out", "--model", model)
    write(tmp_path / "a.flac", Audio(sound(0.1, 16000), 16000))
    with pytest.raises(RequestError, match="several songs are called a"):
        run("separate", tmp_path / "a.wav", tmp_path / "a.flac", "-o", tmp_path / "out", "--model", model)
    assert not (tmp_path / "out").exists()


def test_pieces_are_packed_and_scored(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pieces(tmp_path / "test.jsonl.gz", [builtin.compose(seed, "test", 3.0) for seed in range(2)])
    run("stems", "--pieces", tmp_path / "test.jsonl.gz", "--seconds", 2, "--rate", 16000, "--out", tmp_path / "stems",
        "--quiet")  # fmt: skip
    run("separation", "--data", tmp_path / "stems", "--model", model, "-o", tmp_path / "report", "--quiet", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "report" / "separation.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert found["songs"] == 2 and found["fonts"] == ["builtin"]
    assert rows["mixture"]["mean"] < 0 < rows["ibm"]["mean"] < rows["mwf"]["mean"]
    assert set(rows[str(model)]["uSDR"]) == {"drums", "bass", "lead", "other"}
    page = (tmp_path / "report" / "separation.md").read_text()
    assert f"{rows['ibm']['mean']:.2f}" in page and "| mixture |" in page


def test_reports_need_somewhere_to_go(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="-o"):
        run("separation", "--data", tmp_path)
    with pytest.raises(FileNotFoundError, match="prepare stems"):
        run("separation", "--data", tmp_path, "--json", "--quiet")
    with pytest.raises(RequestError, match="--seconds"):
        run("stems", "--pieces", tmp_path / "x", "--seconds", 0, "--out", tmp_path)
