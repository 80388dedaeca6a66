"""Real recordings: only listed files, only listed licences, stems that sum, credits for everybody."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from descant.recipes import archive, real

from .test_archive import make_deb


def tone(path: Path, hertz: float, seconds: float = 1.0, rate: int = 44100, gain: float = 0.5) -> bytes:
    """A stereo sine as a file; returns its bytes."""
    wave = gain * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.stack([wave, wave], 1), rate)
    return path.read_bytes()


def made_package(folder: Path) -> real.Package:
    """A package with a whole recording, a song given as two stems, and a file nobody listed."""
    whole, guitar, rest = (tone(folder / f"{n}.wav", hz, gain=0.8) for n, hz in (("a", 440), ("g", 330), ("r", 110)))
    root = "usr/share/music"
    files = {"one.wav": whole, "song/guitar.wav": guitar, "song/rest.wav": rest, "unlisted.wav": whole}
    deb = make_deb(folder / "pack_1_all.deb", {f"./{root}/{name}": body for name, body in files.items()})

    def track(**changes: object) -> real.Track:
        base = real.Track(
            package="pack", version="1", file="one.wav", licence="CC0-1.0", author="A|B", title="One", role="train",
            evidence="stated", stems={},
        )  # fmt: skip
        return replace(base, **changes)  # type: ignore[arg-type]

    stems = {"guitar": "song/guitar.wav", "rest": "song/rest.wav"}
    song = track(file="song", licence="MIT", author="C", title="Song", role="test", stems=stems)
    return real.Package(
        name="pack", version="1", file=deb.name, sha256=hashlib.sha256(deb.read_bytes()).hexdigest(), archive=None,
        root=root, tracks=(track(), song),
    )  # fmt: skip


def test_fetch_converts_what_is_listed_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = made_package(tmp_path)
    monkeypatch.setattr(real, "packages", lambda tier="free": (package,))
    out = tmp_path / "out"
    rows = real.fetch(out, debs=tmp_path)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.flac")) == [
        "test/pack__song.flac", "test/pack__song__guitar.flac", "test/pack__song__rest.flac", "train/pack__one.flac",
    ]  # fmt: skip
    wave, rate = soundfile.read(out / "train/pack__one.flac")
    assert (rate, wave.ndim, len(wave)) == (32000, 1, 32000)
    # the sine kept its pitch and level: correlate with the ideal one
    ideal = np.exp(2j * np.pi * 440 * np.arange(32000) / 32000)
    assert abs(wave @ ideal) * 2 / 32000 == pytest.approx(0.8, abs=0.01)
    mix, guitar, rest = (soundfile.read(out / f"test/pack__song{s}.flac")[0] for s in ("", "__guitar", "__rest"))
    assert np.abs(mix - guitar - rest).max() <= 2 / 32768
    assert 0.9 < np.abs(mix).max() < 1.0  # 1.6 before: turned down, not clipped
    assert real.read_manifest(out) == rows
    assert [row.stem for row in rows] == ["mix", "mix", "guitar", "rest"]
    assert real.hours(rows) == {"train": {"CC0-1.0": 0.0003}, "test": {"MIT": 0.0003}}
    # a second call needs no package any more
    (tmp_path / package.file).unlink()
    assert real.fetch(out, debs=tmp_path) == rows


def test_fetch_refuses_another_package_and_another_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = made_package(tmp_path)
    monkeypatch.setattr(real, "packages", lambda tier="free": (package,))
    real.fetch(tmp_path / "out", debs=tmp_path)
    with pytest.raises(ValueError, match="empty output folder"):
        real.fetch(tmp_path / "out", debs=tmp_path, rate=16000)
    with open(tmp_path / package.file, "ab") as file:
        file.write(b"more")
    with pytest.raises(archive.ArchiveError, match="SHA-256"):
        real.fetch(tmp_path / "new", debs=tmp_path)
    assert not list((tmp_path / "new").rglob("*.flac"))


def test_attribution_credits_every_recording_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = made_package(tmp_path)
    monkeypatch.setattr(real, "packages", lambda tier="free": (package,))
    table = real.attribution(real.fetch(tmp_path / "out", debs=tmp_path))
    assert (tmp_path / "out/ATTRIBUTION.md").read_text(encoding="utf-8") == table
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 2
    assert "A\\|B" in rows[0] and "publicdomain/zero/1.0" in rows[0]
    assert "song/guitar.wav + song/rest.wav" in rows[1] and "opensource.org" in rows[1]


def test_the_allow_lists_hold_what_they_promise() -> None:
    free, shared = real.tracks("free"), real.tracks("sharealike")
    assert {track.licence for track in free} <= set(real.SHIPPABLE)
    assert {track.role for track in free} == {"train", "dev", "test"}
    assert {track.role for track in shared} == {"eval-only"}
    assert not {track.name for track in free} & {track.name for track in shared}
    for package in (*real.packages("free"), *real.packages("sharealike")):
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256)
        assert package.file.startswith(f"{package.name}_{package.version}")
        names = [track.file for track in package.tracks]
        assert len(names) == len(set(names))
    for track in (*free, *shared):
        assert track.author and track.title and track.evidence
    # one author stands in one role; the held-out song with stems is the stated exception
    roles: dict[str, set[str]] = {}
    for track in free:
        roles.setdefault(track.author, set()).add(track.role)
    assert [author for author, seen in roles.items() if len(seen) > 1] == ["Carlos Viola Iborra (Sectoid)"]


def test_a_copyleft_track_cannot_be_listed_for_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(Path(real.__file__).with_name("real_sharealike.json").read_text(encoding="utf-8"))
    body["packages"][0]["tracks"][0]["role"] = "train"
    (tmp_path / "bad.json").write_text(json.dumps(body))
    monkeypatch.setattr(real, "TIERS", {"bad": str(tmp_path / "bad.json")})
    with pytest.raises(ValueError, match=r"CC-BY-SA-3\.0"):
        real.packages("bad")
    with pytest.raises(ValueError, match="unknown tier 'good': choose one of bad"):
        real.packages("good")


def test_from_folder_splits_by_top_folder_and_reads_captions(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    for artist in range(40):
        (source / f"artist {artist}").mkdir(parents=True)
        for song in (1, 2):
            tone(source / f"artist {artist}" / f"song {song}.wav", 200 + artist, 0.05, 8000)
    (source / "artist 0/song 1.txt").write_text("slow waltz\n", encoding="utf-8")
    rows = real.from_folder(source, tmp_path / "out", licence="own", author="me", rate=16000)
    assert len(rows) == 80
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row.source.split("/")[0], set()).add(row.split)
        assert soundfile.info(tmp_path / "out" / row.path).samplerate == 16000
    assert all(len(seen) == 1 for seen in splits.values())
    assert {"train"} < {row.split for row in rows}
    assert [row.caption for row in rows if row.source == "artist 0/song 1.wav"] == ["slow waltz"]
    with pytest.raises(ValueError, match="no audio"):
        real.from_folder(tmp_path / "out" / "none", tmp_path / "out", licence="own", author="me")
