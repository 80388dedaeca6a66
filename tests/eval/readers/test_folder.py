"""One's own folder: sidecars, tables, stem folders, and everything that can be wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from descant.eval import readers
from descant.eval.readers.labels import without_singing

from . import made


def test_sidecars(tmp_path: Path) -> None:
    for name in ("a.wav", "deep/er/b.flac", "same.wav", "same.flac", "bad.wav", "worse.wav", "c.wav"):
        made.sound(tmp_path / name)
    labels = {"description": "a song", "bpm": "120", "moods": ["happy"], "instrument": "piano; bass", "title": "T"}
    labels["chords"] = [[0, 1, "C:maj"]]  # type: ignore[assignment]
    (tmp_path / "a.json").write_text(json.dumps(labels))
    (tmp_path / "deep/er/b.txt").write_text("  two\nlines \n")
    (tmp_path / "bad.json").write_text('{"tempo": "fast"}')
    (tmp_path / "worse.json").write_text("{")
    found = readers.read(tmp_path)
    assert [clip.id for clip in found] == ["a", "c", "deep/er/b", "same.flac", "same.wav"]
    first = found[0]
    assert (first.captions, first.tempo, first.tags) == (("a song",), 120.0, ("happy",))
    assert first.instruments == ("piano", "bass") and first.extra == {"title": "T"}
    assert first.chords == ((0.0, 1.0, "C:maj"),) and found[2].captions == ("two lines",)
    assert [(item.where, item.reason[:20]) for item in found.problems] == [
        ("bad.wav", "tempo is no number: "), ("worse.wav", "is no JSON: Expectin"),
    ]  # fmt: skip
    assert [clip.read().rate for clip in found] == [made.RATE] * 5


def test_a_table_with_a_column_of_paths(tmp_path: Path) -> None:
    made.sound(tmp_path / "in/x.wav")
    (tmp_path / "away.wav").symlink_to(made.sound(tmp_path.parent / f"{tmp_path.name}-else.wav"))
    rows = "File,Prompt,bpm,start,end,mood\nin/x.wav,a song,100,0.1,0.4,sad\ngone.wav,b,,,,\n../y.wav,c,,,,\n"
    rows += ",d,,,,\nin/x.wav,again,,,,\naway.wav,e,,,,\nin/x.wav,f,nan,,,\n"
    (tmp_path / "list.csv").write_text(rows)
    found = readers.read(tmp_path)
    assert [(clip.id, clip.captions, clip.tempo, clip.tags) for clip in found] == [
        ("in/x", ("a song",), 100.0, ("sad",))
    ]
    assert found[0].read().wav.shape == (1, 2400) and found.missing == ("gone",)
    assert [item.where for item in found.problems] == [f"list.csv:{line}" for line in (4, 5, 6, 7, 8)]
    assert "outside" in found.problems[0].reason and "outside" in found.problems[3].reason
    assert readers.read(tmp_path, links=True).get("away").captions == ("e",)
    with pytest.raises(readers.ReaderError, match=r"list.csv:4: ../y.wav lies outside"):
        readers.read(tmp_path, strict=True)


@pytest.mark.parametrize("name", ["list.tsv", "list.jsonl"])
def test_other_tables(tmp_path: Path, name: str) -> None:
    made.sound(tmp_path / "x.wav")
    row = {"path": "x.wav", "caption": 'a, "b"', "id": "one"}
    text = 'path\tcaption\tid\nx.wav\t"a, ""b"""\tone\n' if name.endswith("tsv") else json.dumps(row)
    (tmp_path / name).write_text(text)
    for found in (readers.read(tmp_path), readers.read(tmp_path / name)):
        assert [(clip.id, clip.captions) for clip in found] == [("one", ('a, "b"',))]


def test_folders_of_stems(tmp_path: Path) -> None:
    for name in ("drums", "bass", "mix"):
        made.sound(tmp_path / f"songs/one/{name}.wav", level=0.1)
    (tmp_path / "songs/one.json").write_text('{"key": "A minor"}')
    for name in ("guitar", "song"):
        made.sound(tmp_path / f"rhythm/two/{name}.ogg", 1.0)
    (tmp_path / "rhythm/two/song.ini").write_text("[Song]\nname = Sound %s\nartist = Somebody\n")
    made.sound(tmp_path / "loose/drums.wav")
    found = readers.read(tmp_path)
    assert [clip.id for clip in found] == ["loose/drums", "rhythm/two", "songs/one"]
    assert set(found[1].stems) == {"guitar", "other"} and found[1].extra["title"] == "Sound %s"
    assert set(found[2].stems) == {"drums", "bass"} and found[2].key == "A minor"
    assert found[2].path == tmp_path / "songs/one/mix.wav" and found[0].path is not None


def test_links_out_of_the_folder_are_named(tmp_path: Path) -> None:
    made.sound(tmp_path / "outside/x.wav")
    made.sound(tmp_path / "root/a.wav")
    (tmp_path / "root/b.wav").symlink_to(tmp_path / "outside/x.wav")
    found = readers.read(tmp_path / "root")
    assert [clip.id for clip in found] == ["a"] and "leaves the folder" in found.problems[0].reason
    assert [clip.id for clip in readers.read(tmp_path / "root", links=True)] == ["a", "b"]


@pytest.mark.parametrize(("text", "free"), [
    ("A slow piano piece", True), ("no vocals, drums", False), ("Female singer", False), ("Enchanting harp", False),
    ("using single strings", True), ("A trap beat", True), ("rap over a beat", False), ("choir", False),
])  # fmt: skip
def test_singing_is_found_by_words(text: str, free: bool) -> None:
    assert without_singing(text) is free
