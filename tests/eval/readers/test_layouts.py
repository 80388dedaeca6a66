"""Every public layout on a tiny made copy: what is found, what is missing, what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from descant.eval import readers

from . import made


def test_musiccaps_matches_by_video_and_reports_the_share(tmp_path: Path) -> None:
    found = readers.read(made.musiccaps(tmp_path))
    assert (found.name, found.found, found.missing) == ("MusicCaps", 3, ("not_here_at", "odd__length"))
    assert found.share == pytest.approx(3 / 5) and "60.0 %" in found.summary()
    first = found.get("-0Gj8-vB1q4")
    assert first.tags == ("low quality", "rock'n'roll") and first.caption == 'A "live" take,\nloud drums'
    assert (first.start, first.end) == (0.0, None)
    whole = found.get("whole_video")
    assert (whole.start, whole.end, whole.read().wav.shape[1]) == (2.0, 3.0, made.RATE)
    # the row with a line break in its caption moves the numbers: the problem is on line 7
    assert [item.where for item in found.problems] == ["musiccaps-public.csv:7"]
    assert "13.0 s long" in found.problems[0].reason
    assert [clip.id for clip in found.select(subset="eval")] == ["-0Gj8-vB1q4", "0-0000000aA"]
    assert [clip.id for clip in found.select(subset="no-singing")] == ["-0Gj8-vB1q4", "whole_video"]
    with pytest.raises(readers.ReaderError, match=r"csv:7"):
        readers.read(tmp_path, strict=True)


def test_musiccaps_audio_may_lie_elsewhere_than_its_table(tmp_path: Path) -> None:
    made.musiccaps(tmp_path)
    found = readers.read(tmp_path / "clips", table=tmp_path / "musiccaps-public.csv")
    assert found.name == "MusicCaps" and found.found == 3


def test_song_describer_joins_captions_and_knows_the_two_minute_names(tmp_path: Path) -> None:
    found = readers.read(made.song_describer(tmp_path))
    assert [clip.id for clip in found] == ["1004034", "214"] and found.missing == ("999",)
    assert found[0].captions == ("A calm piano piece", "Piano, with a soft voice")
    assert found[0].path is not None and found[0].path.name == "1004034.2min.wav"
    assert [item.where for item in found.problems] == ["song_describer.csv:6", "song_describer.csv:7"]
    valid = found.select(subset="valid")
    assert [clip.captions for clip in valid] == [("A calm piano piece",)]
    quiet = found.select(subset="no-singing")
    assert [clip.captions for clip in quiet] == [("A calm piano piece",), ("Drums and bass",)]


def test_musdb_hq(tmp_path: Path) -> None:
    found = readers.read(made.musdb_hq(tmp_path))
    assert [(clip.id, clip.split) for clip in found] == [
        ("test/B Band - Two - Live", "test"), ("train/A Band - One", "train"),
        ("train/ANiMAL - Rockshow", "validation"),
    ]  # fmt: skip
    assert found[0].artist == "B Band" and found[0].extra["title"] == "Two - Live"
    assert len(found.select(subset="train")) == 2 and len(found.select(split="train")) == 1
    assert set(found[0].stems) == {"drums", "bass", "other", "vocals"}
    assert found[0].stem("bass").wav.mean().item() == pytest.approx(0.2, abs=1e-3)
    assert "drums.wav" in found.problems[0].reason and found.missing == ("test/C - Broken",)
    assert "2 of 100 in train" in found.notes[0]


def test_musdb_validation_list_is_fourteen_songs() -> None:
    from descant.eval.readers import musdb

    assert len(musdb.VALIDATION) == 14 and "Young Griffo - Pennies" in musdb.VALIDATION


def test_moisesdb_sums_recordings_to_the_shortest(tmp_path: Path) -> None:
    found = readers.read(made.moisesdb(tmp_path))
    assert found.name == "MoisesDB" and found.missing == ("22222222-bbbb",)
    assert "stemName" in found.problems[0].reason
    song = found[0]
    assert song.extra["has_bleed"] == ["vocals"] and song.genre == "pop"
    assert song.duration() == pytest.approx(0.3)
    vocals, guitar, mix = song.stem("vocals").wav, song.stem("guitar").wav, song.read().wav
    assert vocals.shape == guitar.shape == mix.shape == (1, round(0.3 * made.RATE))
    assert vocals.mean().item() == pytest.approx(0.3, abs=1e-3) and mix.mean().item() == pytest.approx(0.37, abs=1e-3)
    four, five = readers.regroup(song, 4), readers.regroup(song, 5)
    assert set(four.stems) == {"vocals", "other"} and set(five.stems) == {"vocals", "guitar", "other"}
    assert four.stem("other").wav.mean().item() == pytest.approx(0.07, abs=1e-3)
    total = four.stem("vocals").wav + four.stem("other").wav
    assert torch.allclose(total, mix, atol=1e-5)
    with pytest.raises(readers.ReaderError, match="4, 5 or 6"):
        readers.regroup(song, 7)


def test_slakh_knows_stems_that_were_never_rendered(tmp_path: Path) -> None:
    found = readers.read(made.slakh(tmp_path))
    assert [(clip.id, clip.split, clip.subsets) for clip in found] == [
        ("Track00001", "train", ()), ("Track00002", None, ("omitted",)),
    ]  # fmt: skip
    song = found[0]
    assert set(song.stems) == {"S00", "S02"} and song.extra["unrendered"] == ["S01"]
    assert song.extra["midi"] == {"S00": "MIDI/S00.mid"} and song.extra["programs"]["S00"] == 30
    assert set(readers.regroup(song, 6).stems) == {"guitar", "drums"}
    assert "S02 is said to be rendered and is missing" in found.problems[0].reason


@pytest.mark.parametrize(("folder", "missing"), [("fma_small", ("000134",)), ("fma_medium", ("000010", "000134"))])
def test_fma_reads_two_header_rows_and_knows_what_should_be_there(
    tmp_path: Path, folder: str, missing: tuple[str, ...]
) -> None:
    found = readers.read(made.fma(tmp_path, folder))
    assert [clip.id for clip in found] == ["000002", "000005"] and found.missing == missing
    assert found[1].tags == ("Hip-Hop", "Rock") and found[1].split == "test" and found[0].split == "train"
    assert found[1].subsets == ("small", "medium", "large", "full") and found[0].licence == "CC BY"
    assert [item.where for item in found.problems] == ["fma_metadata/tracks.csv:9"]


def test_fma_without_its_folders_cannot_know_what_is_missing(tmp_path: Path) -> None:
    found = readers.read(made.fma(tmp_path, "audio"))
    assert found.found == 2 and not found.missing and "not known" in found.notes[0]


def test_jamendo_splits_tags_at_every_tab(tmp_path: Path) -> None:
    found = readers.read(made.jamendo(tmp_path))
    assert [(clip.id, clip.split) for clip in found] == [("track_0000214", "train"), ("track_0000215", "test")]
    assert found[0].genre == "punkrock" and found[0].extra["genres"] == ["punkrock", "rock"]
    assert found[1].instruments == ("piano",) and found[1].tags == ("mood/theme: happy", "genre: pop")
    assert found.missing == ("track_0000999",) and found.problems[0].where == "data/autotagging.tsv:5"
    one = readers.read(tmp_path, table=tmp_path / "data/splits/split-0/autotagging-test.tsv")
    assert [(clip.id, clip.split) for clip in one] == [("track_0000215", "test")]


def test_medleydb(tmp_path: Path) -> None:
    song = readers.read(made.medleydb(tmp_path))[0]
    assert song.extra["stem_classes"] == {"S01": "drum set", "S02": "electric bass"}
    assert song.extra["instrumental"] is True and song.extra["has_bleed"] is False
    assert set(readers.regroup(song, 4).stems) == {"drums", "bass"}


def test_what_is_seen_is_said_when_nothing_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "a.pdf").touch()
    with pytest.raises(readers.ReaderError, match=r"1 folders \(papers\) and 1 files \(1 .pdf\)"):
        readers.read(tmp_path)
    with pytest.raises(readers.ReaderError, match="unknown kind 'cd': one of synth-eval"):
        readers.read(tmp_path, "cd")
    with pytest.raises(readers.ReaderError, match="holds no table of musiccaps"):
        readers.read(tmp_path, "musiccaps")
    with pytest.raises(readers.ReaderError, match="no such folder"):
        readers.read(tmp_path / "gone")
