"""Spectrograms and sounds of the report's page, against readers we did not write."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch

from descant.codec.audio import Audio, write
from descant.eval.report.page_audio import (
    COLUMNS,
    LEVELS,
    PITCHES,
    ROWS,
    Sounds,
    opus,
    palette,
    png,
    same_serial,
    spectrogram,
)

from .page_made import tone


def pixels(data: bytes) -> np.ndarray:
    """[rows, columns, 3] in 0 ... 1."""
    return np.asarray(matplotlib.image.imread(io.BytesIO(data), format="png"))[..., :3]


def shades(data: bytes, count: int = 24) -> np.ndarray:
    """Index of each pixel in the palette."""
    colours = np.frombuffer(palette(count), np.uint8).reshape(-1, 3) / 255
    return np.abs(pixels(data)[:, :, None] - colours).sum(-1).argmin(-1)


def test_a_png_is_read_by_others_as_it_was_written() -> None:
    picture = np.random.default_rng(0).integers(0, 7, (5, 9)).astype(np.uint8)
    assert (shades(png(picture, palette(7)), 7) == picture).all()


def test_a_picture_without_its_colours_is_refused() -> None:
    with pytest.raises(ValueError, match="3 colours for indices up to 5"):
        png(np.full((2, 2), 5, np.uint8), palette(3))
    with pytest.raises(ValueError, match="need uint8"):
        png(np.zeros((2, 2)), palette(3))
    with pytest.raises(ValueError, match=r"shape \(0, 2\)"):
        png(np.zeros((0, 2), np.uint8), palette(3))


@pytest.mark.parametrize("pitch", [110.0, 1000.0, 8000.0])
def test_a_tone_lies_at_its_pitch(pitch: float) -> None:
    time = torch.arange(64_000) / 32_000
    picture = shades(spectrogram(Audio(0.25 * torch.sin(2 * np.pi * pitch * time)[None], 32_000)))
    assert picture.shape == (ROWS, COLUMNS)
    row = ROWS - 1 - picture[:, 20:-20].mean(1).argmax()
    seen = PITCHES[0] * (PITCHES[1] / PITCHES[0]) ** (row / (ROWS - 1))
    assert abs(np.log2(seen / pitch)) < 0.15
    level = LEVELS[0] + picture.max() / 23 * (LEVELS[1] - LEVELS[0])
    assert level == pytest.approx(-12.0, abs=3.5), "a quarter of full scale is -12 dB"


def test_time_runs_to_the_right() -> None:
    wav = torch.zeros(1, 40_000)
    wav[:, 30_000:] = 0.5 * torch.randn(1, 10_000, generator=torch.Generator().manual_seed(0))
    picture = shades(spectrogram(Audio(wav, 16_000)))
    assert picture[:, : COLUMNS // 2].max() == 0 and picture[:, 5 * COLUMNS // 6 :].mean() > 8


@pytest.mark.parametrize("samples", [1, 100, 20_000])
def test_any_length_has_a_picture(samples: int) -> None:
    data = spectrogram(Audio(torch.full((2, samples), 0.1), 44_100))
    assert pixels(data).shape == (ROWS, COLUMNS, 3) and len(data) < 20_000


def test_opus_is_short_sounds_the_same_and_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write(path, tone(440, seconds=31.0))
    data = opus(path)
    sound, rate = soundfile.read(io.BytesIO(data))
    assert len(sound) / rate == pytest.approx(30.0, abs=0.05), "30 seconds at most"
    peak = np.abs(np.fft.rfft(sound[:rate])).argmax()
    assert peak == pytest.approx(440, abs=1)
    assert len(data) < 350_000 and opus(path) == data


def test_a_page_of_ogg_with_another_number_is_still_one(tmp_path: Path) -> None:
    path = tmp_path / "a.opus"
    write(path, tone(440))
    data = path.read_bytes()
    changed = same_serial(data)
    assert changed[14:18] == b"\x01\0\0\0" and len(changed) == len(data)
    before, _ = soundfile.read(io.BytesIO(data))
    after, _ = soundfile.read(io.BytesIO(changed))  # libogg drops pages whose checksum is wrong
    assert np.array_equal(before, after)
    with pytest.raises(ValueError, match="no Ogg page at byte"):
        same_serial(data[:-1] + b"OggX")


def test_players_say_what_is_missing(tmp_path: Path) -> None:
    sounds = Sounds(tmp_path)
    assert "file missing" in sounds.player("gone.wav", "x") and sounds.picture("gone.wav", "x") is None
    assert sounds.missing == ["gone.wav"]
    assert sounds.is_sound("a/b.FLAC") and not sounds.is_sound("D minor") and not sounds.is_sound("a\nb.wav")
