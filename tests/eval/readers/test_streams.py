"""Streams of a real ``.stem.mp4``, made here with FFmpeg's libraries, and what is said without them."""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest

from descant.codec.audio import AudioError
from descant.eval import readers
from descant.eval.readers import streams

RATE = 44_100
TONES = (200.0, 400.0, 800.0, 1600.0, 3200.0)


def stem_mp4(path: Path, seconds: float = 1.5) -> Path:
    """Five AAC streams of one sine each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as box:
        tracks = [box.add_stream("aac", rate=RATE, layout="stereo") for _ in TONES]
        for track, hertz in zip(tracks, TONES, strict=True):
            wav = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
            for start in range(0, len(wav), 1024):
                part = np.stack([wav[start : start + 1024]] * 2).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = RATE, start
                box.mux(track.encode(frame))
            box.mux(track.encode(None))
    return path


def loudest(wav: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(wav * np.hanning(len(wav))))
    return float(spectrum.argmax()) * rate / len(wav)


def test_the_five_streams_of_musdb18(tmp_path: Path) -> None:
    stem_mp4(tmp_path / "train/ANiMAL - Rockshow.stem.mp4")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/Empty - File.stem.mp4").touch()
    found = readers.read(tmp_path)
    assert found.name == "MUSDB18" and found.missing == ("test/Empty - File",)
    song = found[0]
    assert song.split == "validation" and song.path is None
    assert song.duration() == pytest.approx(1.5, abs=0.05)
    for name, hertz in zip(("drums", "bass", "other", "vocals"), TONES[1:], strict=True):
        wav = song.stem(name, channels=1)
        assert wav.rate == RATE and loudest(wav.wav[0].numpy(), RATE) == pytest.approx(hertz, abs=2)
    assert loudest(song.read(rate=22050).wav[0].numpy(), 22050) == pytest.approx(TONES[0], abs=2)
    scanned = readers.scan(found)
    assert scanned[0].rate == RATE and not scanned.problems[1:]


def test_a_window_is_the_same_samples_as_the_whole(tmp_path: Path) -> None:
    path = stem_mp4(tmp_path / "x.stem.mp4")
    whole = streams.read(path, 2).wav
    part = streams.read(path, 2, start=0.4, duration=0.3).wav
    assert part.shape[1] == round(0.3 * RATE)
    first = round(0.4 * RATE)
    assert np.array_equal(part.numpy(), whole[:, first : first + part.shape[1]].numpy())
    assert streams.count(path) == 5 and streams.info(path, 4).channels == 2


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stem_mp4(tmp_path / "x.stem.mp4", 0.2)
    with pytest.raises(AudioError, match="has 5 audio streams, so none with number 7"):
        streams.read(path, 7)
    with pytest.raises(AudioError, match="ends before 9 s"):
        streams.read(path, 0, start=9)
    bad = tmp_path / "bad.stem.mp4"
    bad.write_bytes(b"no such container" * 100)
    with pytest.raises(AudioError, match="cannot be opened"):
        streams.read(bad, 0)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r"pip install 'descant\[mp4\]'"):
        streams.read(path, 0)
