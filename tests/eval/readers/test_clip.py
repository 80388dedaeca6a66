"""The record, the list of them, and both forms of manifest."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.codec import audio
from descant.eval import readers
from descant.eval.readers import Clip, Track

from . import made


def ramp(path: Path, seconds: float, rate: int = made.RATE) -> np.ndarray:
    wav = np.linspace(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, rate, subtype="FLOAT")
    return wav


def test_an_excerpt_is_the_same_samples(tmp_path: Path) -> None:
    wav = ramp(tmp_path / "a.wav", 2.0)
    clip = Clip(id="a", mix=Track(tmp_path / "a.wav"), start=0.5, end=1.25)
    got = clip.read()
    assert got.rate == made.RATE and clip.duration() == pytest.approx(0.75)
    assert np.array_equal(got.wav[0].numpy(), wav[4000:10000])
    assert clip.read(rate=16000, channels=2).wav.shape == (2, 12000)


def test_stems_are_summed_over_what_all_of_them_have(tmp_path: Path) -> None:
    long, short = ramp(tmp_path / "long.wav", 1.0), ramp(tmp_path / "short.wav", 0.6)
    stereo = made.sound(tmp_path / "stereo.wav", 0.8, 0.25, channels=2)
    stems = {"one": (Track(tmp_path / "long.wav"), Track(tmp_path / "short.wav")), "two": (Track(stereo),)}
    clip = Clip(id="x", stems=stems, start=0.1)
    one, two, mix = clip.stem("one").wav, clip.stem("two").wav, clip.read().wav
    assert one.shape == (1, 4000) and two.shape == (2, 4000) and mix.shape == (2, 4000)
    assert np.allclose(one[0].numpy(), long[800:4800] + short[800:4800], atol=1e-6)
    assert torch.allclose(mix, one + two, atol=1e-4)
    with pytest.raises(readers.ReaderError, match="no stem 'three'; it has one, two"):
        clip.stem("three")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": ""}, "needs an id"), ({"start": -1.0}, "start of -1.0"),
        ({"start": 2.0, "end": 1.0}, "after the start"),
        ({"tempo": math.nan}, "tempo is nan"), ({"end": math.inf}, "must lie"),
        ({"captions": ("x",), "caption_subsets": ((), ())}, "2 marks"),
    ],
)  # fmt: skip
def test_a_clip_that_makes_no_sense_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(readers.ReaderError, match=said):
        Clip(**{"id": "x", **fields})  # type: ignore[arg-type]


def test_a_clip_without_audio_says_so() -> None:
    for call in (Clip(id="x").read, Clip(id="x").duration):
        with pytest.raises(readers.ReaderError, match="has no audio"):
            call()


def full(root: Path) -> readers.Collection:
    for name in ("b/mix", "b/drums", "b/bass", "a"):
        made.sound(root / f"{name}.wav")
    clips = (
        Clip(id="a", mix=Track(root / "a.wav"), captions=("é",), start=0.1, end=0.3, tags=("t",), tempo=90.0),
        Clip(
            id="b", mix=Track(root / "b/mix.wav"), key="C minor", chords=((0.0, 1.0, "C:min"),), beats=(0.0, 0.5),
            stems={"drums": (Track(root / "b/drums.wav"),), "bass": (Track(root / "b/bass.wav"),)},
            melody=((0.0, 0.5, 60),), split="test", subsets=("s",), extra={"deep": [1, {"x": None}]},
        ),
        Clip(id="c", mix=Track(root / "song.stem.mp4", 0), stems={"drums": (Track(root / "song.stem.mp4", 1),)}),
    )  # fmt: skip
    (root / "song.stem.mp4").write_bytes(b"x")
    return readers.Collection(name="set", root=root, clips=clips, missing=("d",))


def test_a_manifest_gives_back_what_was_written(tmp_path: Path) -> None:
    found = full(tmp_path)
    first = readers.write_manifest(found, tmp_path / "m.jsonl").read_bytes()
    assert first == readers.write_manifest(found, tmp_path / "m.jsonl").read_bytes()
    packed = readers.write_manifest(found, tmp_path / "m.jsonl.gz")
    assert gzip.decompress(packed.read_bytes()) == first and str(tmp_path).encode() not in first
    for path in (tmp_path / "m.jsonl", packed):
        again = readers.read(path)
        assert again.clips == found.clips and again.missing == ("d",) and not again.problems
        assert again.digest == found.digest


def test_the_digest_is_of_the_listing_wherever_it_lies(tmp_path: Path) -> None:
    one, two = full(tmp_path / "one"), full(tmp_path / "else" / "two")
    assert one.digest == two.digest
    assert one.select(ids={"a", "b"}).digest != one.digest


def test_a_manifest_from_a_stranger(tmp_path: Path) -> None:
    found = full(tmp_path / "set")
    lines = readers.write_manifest(found, tmp_path / "set/m.jsonl").read_text().splitlines()
    (tmp_path / "secret.wav").touch()
    bad = [
        '{"id":"e","mix":"../secret.wav"}', '{"id":"f","mix":"/etc/passwd"}', '{"id":"g","mix":3}', '{"nobody":1}',
        '{"id":"h","chords":7,"mix":"a.wav"}', '{"id":"i","tags":"x","mix":"a.wav"}', '{"id":"a","mix":"a.wav"}',
        "{", '{"id":"gone","mix":"gone.wav"}',
    ]  # fmt: skip
    (tmp_path / "set/m.jsonl").write_text("\n".join([*lines, *bad]))
    again = readers.read(tmp_path / "set/m.jsonl")
    assert again.clips == found.clips and again.missing == ("d", "gone")
    assert [item.where for item in again.problems] == [f"m.jsonl:{line}" for line in range(5, 13)]
    assert "outside" in again.problems[0].reason and "outside" in again.problems[1].reason
    with pytest.raises(readers.ReaderError, match="is not below"):
        readers.write_manifest(found, tmp_path / "elsewhere" / "m.jsonl")


def test_a_manifest_that_was_cut_short_says_so(tmp_path: Path) -> None:
    path = readers.write_manifest(full(tmp_path), tmp_path / "m.jsonl")
    path.write_text("\n".join(path.read_text().splitlines()[:2]))
    assert "announces 3 clips" in readers.read(path).notes[0]


def test_audiocraft_manifests_go_both_ways(tmp_path: Path) -> None:
    made.sound(tmp_path / "data/x/a.wav", 0.5)
    clip = Clip(id="x/a", mix=Track(tmp_path / "data/x/a.wav"), captions=("words",), tempo=90.0, key="C major",
                genre="rock", instruments=("drums", "bass"), tags=("loud",), artist="Me")  # fmt: skip
    found = readers.Collection(name="x", root=tmp_path / "data", clips=(clip,))
    path = readers.write_audiocraft(found, tmp_path / "egs/data.jsonl.gz", sidecars=True)
    row = json.loads(gzip.decompress(path.read_bytes()))
    assert row["path"] == str((tmp_path / "data/x/a.wav").resolve())
    assert (row["duration"], row["sample_rate"]) == (0.5, made.RATE)
    assert json.loads((tmp_path / "data/x/a.json").read_text())["bpm"] == 90.0
    again = readers.read(path)[0]
    assert (again.captions, again.tempo, again.key, again.genre) == (("words",), 90.0, "C major", "rock")
    assert (again.instruments, again.tags, again.artist, again.rate) == (("drums", "bass"), ("loud",), "Me", made.RATE)
    with pytest.raises(readers.ReaderError, match="there already"):
        readers.write_audiocraft(found, tmp_path / "egs/data.jsonl", sidecars=True)
    part = readers.Collection(name="x", root=tmp_path, clips=(Clip(id="p", mix=clip.mix, end=0.2),))
    with pytest.raises(readers.ReaderError, match="whole file"):
        readers.write_audiocraft(part, tmp_path / "p.jsonl")
    (tmp_path / "egs/data.jsonl").write_text('{"path": "gone.wav", "duration": 1, "sample_rate": 1}\n{"duration": 1}\n')
    rest = readers.read(tmp_path / "egs/data.jsonl")
    assert rest.missing == ("gone.wav",) and rest.problems[0].where == "data.jsonl:2"


def test_scan_finds_what_cannot_be_opened_or_is_too_short(tmp_path: Path) -> None:
    for name, seconds in (("a", 1.0), ("b", 0.2)):
        made.sound(tmp_path / f"{name}.wav", seconds)
    (tmp_path / "c.wav").write_bytes(b"RIFF nothing")
    (tmp_path / "d.wav").touch()
    found = readers.scan(readers.read(tmp_path), least=0.5)
    assert [(clip.id, clip.seconds, clip.rate) for clip in found] == [("a", 1.0, made.RATE)]
    assert [item.where for item in found.problems] == ["b", "c", "d"]
    assert "0.2 s long" in found.problems[0].reason and "is empty" in found.problems[2].reason


def test_a_collection_is_a_list_with_questions(tmp_path: Path) -> None:
    found = full(tmp_path)
    assert len(found) == 3 and found[0].id == "a" and [clip.id for clip in found[1:]] == ["b", "c"]
    assert list(found.files()) == ["b"] and found.captions() == {"a": "é"}
    assert found.counts() == {"split:test": 1, "subset:s": 1} and found.report()["missing"] == 1
    assert len(found.select(where=lambda clip: bool(clip.stems))) == 2
    for call, said in (
        (lambda: found.select(split="train"), "no clip here is of the split 'train'; it has test"),
        (lambda: found.get("d"), "its audio is missing"),
    ):
        with pytest.raises(readers.ReaderError, match=said):
            call()


def test_files_go_to_the_embedders_as_they_are(tmp_path: Path) -> None:
    found = full(tmp_path)
    assert audio.info(found.files()["b"]).rate == made.RATE
