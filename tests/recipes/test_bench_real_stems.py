"""The benchmark on recordings: which estimate is compared with which stem, and songs that are not what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.recipes import bench_real_stems

RATE = 16000


def _parts(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.full((2, 4), float(2**place)) for place, name in enumerate(names)}


def _value(wav: torch.Tensor) -> float:
    return float(wav[0, 0])


def test_same_names_meet() -> None:
    found = bench_real_stems.matched(_parts("drums", "bass", "other", "vocals"), ["vocals", "bass", "drums", "other"])
    assert {name: _value(wav) for name, wav in found.items()} == {"drums": 1, "bass": 2, "other": 4, "vocals": 8}


def test_other_names_meet_by_what_they_mean() -> None:
    made = _parts("drums", "bass", "lead", "other", "residual")
    found = bench_real_stems.matched(made, ["guitar", "other"])
    assert {name: _value(wav) for name, wav in found.items()} == {"guitar": 4 + 8, "other": 1 + 2 + 16}


def test_what_is_left_goes_to_the_rest() -> None:
    made = _parts("drums", "bass", "guitar", "piano", "other")
    found = bench_real_stems.matched(made, ["guitar", "other"])
    assert {name: _value(wav) for name, wav in found.items()} == {"guitar": 4, "other": 1 + 2 + 8 + 16}


def test_a_stem_nobody_makes_is_left_out() -> None:
    found = bench_real_stems.matched(_parts("percussive"), ["drums", "bass", "vocals"])
    assert set(found) == {"drums"}


def _song(folder: Path, mixture: float | None = None) -> None:
    folder.mkdir(parents=True)
    time = np.arange(2 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 330 * time)
    clicks = np.zeros_like(tone)
    clicks[:: RATE // 4] = 0.8
    for name, wave in (("drums", clicks), ("other", tone)):
        soundfile.write(folder / f"{name}.wav", np.stack([wave, wave], 1), RATE, subtype="FLOAT")
    if mixture is not None:
        soundfile.write(folder / "mixture.wav", np.stack([mixture * (clicks + tone)] * 2, 1), RATE, subtype="FLOAT")


def test_songs_are_scored_and_a_mixture_that_is_not_the_sum_is_named(tmp_path: Path) -> None:
    _song(tmp_path / "fits", 1.0)
    _song(tmp_path / "mastered", 0.3)
    _song(tmp_path / "without")
    found = bench_real_stems.report(tmp_path, ["hpss"], seconds=1.5)
    assert found["apart"] == ["mastered"] and len(found["songs"]) == 3
    assert found["minutes"] == pytest.approx(3 * 1.5 / 60, abs=0.06)
    rows = {row["name"]: row["uSDR"] for row in found["rows"]}
    # clicks and a steady tone are what the method takes apart
    assert rows["hpss"]["drums"] > rows["mixture"]["drums"] + 6
    assert rows["oracle ibm"]["other"] > rows["mixture"]["other"]
    text = "\n".join(bench_real_stems.section(found))
    assert "mastered" in text and "| hpss |" in text


def test_a_folder_without_stems_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "one.wav", np.zeros(RATE), RATE)
    with pytest.raises(ValueError, match="no songs with two stems"):
        bench_real_stems.report(tmp_path, ["hpss"])
