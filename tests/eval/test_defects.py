import itertools
import math

import pytest
import torch

from descant.eval.defects import DefectLimits, clipped_share, comb, defects, dropouts, silent_share
from descant.recipes import bench_control

RATE = 32_000


@pytest.fixture(scope="module")
def music():
    takes = list(bench_control.takes("test", 1, 6.0, genres=("rock", "jazz", "waltz")))
    return [(0.3 * take.wav / take.wav.abs().max(), take.rate) for take in takes]


def buzz(length, rate, spacing, level):
    """An impulse train: all multiples of ``spacing`` at one level, ``level`` RMS."""
    wav = torch.zeros(length)
    wav[(torch.arange(int(length * spacing / rate)) * rate / spacing).long()] = 1.0
    return wav * level / wav.square().mean().sqrt()


def test_clean_music_has_no_defects(music):
    for wav, rate in music:
        found = defects(wav, rate)
        assert found.names == ()
        assert found.finite
        assert found.dropouts == ()
        assert found.peak == pytest.approx(0.3)


@pytest.mark.parametrize("spacing", [50.0, 100.0, 86.1328125])
def test_a_buzz_at_a_frame_rate_is_found_and_named(music, spacing):
    for wav, rate in music:
        loud = float(wav.square().mean().sqrt())
        found = defects(wav + buzz(len(wav), rate, spacing, loud * 10 ** (-26 / 20)), rate)
        assert f"comb {spacing:g} Hz" in found.names
        line = next(one for one in found.combs if one.rate == spacing)
        assert line.lines > 0.5
        assert line.prominence > 4


def test_notes_are_no_comb():
    time = torch.arange(4 * RATE) / RATE
    chord = sum(torch.sin(2 * math.pi * 98 * k * time) / k for k in range(1, 20))
    assert comb(0.1 * chord, RATE, 100.0).prominence < 3
    noise = 0.1 * torch.randn(4 * RATE, generator=torch.Generator().manual_seed(0))
    assert comb(noise, RATE, 100.0).prominence < 1
    assert comb(torch.zeros(4 * RATE), RATE, 50.0).prominence <= 0


def test_prominence_grows_with_the_buzz(music):
    wav, rate = music[0]
    loud = float(wav.square().mean().sqrt())
    levels = [comb(wav + buzz(len(wav), rate, 75.0, loud * 10 ** (db / 20)), rate, 75.0) for db in (-60, -40, -30, -20)]
    values = [one.prominence for one in levels]
    assert values == sorted(values)
    assert levels[-1].level > levels[0].level


def test_clipping(music):
    wav, rate = music[0]
    assert clipped_share(wav[None]) == 0
    hard = (5 * wav).clamp(-0.9, 0.9)
    runs = [list(run) for _, run in itertools.groupby(hard.tolist())]
    expected = sum(len(run) for run in runs if len(run) >= 3 and abs(run[0]) > 0.899) / len(hard)
    assert expected > 1e-3
    assert clipped_share(hard[None]) == pytest.approx(expected, rel=0.05)
    assert "clipped" in defects(hard, rate).names
    sine = torch.sin(2 * math.pi * 100 * torch.arange(rate * 3) / rate)
    assert "clipped" not in defects(0.3 * sine, rate).names


def test_dc_and_nan_and_silence(music):
    wav, rate = music[0]
    assert defects(wav + 0.05, rate).names == ("dc",)
    assert defects(wav + 0.05, rate).dc == pytest.approx(0.05 + float(wav.mean()), abs=1e-5)
    broken = wav.clone()
    broken[100] = math.nan
    found = defects(broken, rate)
    assert not found.finite
    assert "not finite" in found.names
    assert defects(torch.zeros(2, 3 * rate), rate).names == ("silent",)
    half = torch.cat([0.1 * torch.randn(RATE), torch.zeros(RATE)])[None]
    assert silent_share(half, RATE) == pytest.approx(0.5, abs=0.05)


def test_dropouts_are_placed():
    time = torch.arange(3 * RATE) / RATE
    wav = 0.3 * torch.sin(2 * math.pi * 440 * time) + 0.1 * torch.sin(2 * math.pi * 1234 * time)
    holes = (0.5, 1.2, 2.4)
    for start in holes:
        wav[int(start * RATE) : int((start + 0.02) * RATE)] = 0
    found = dropouts(wav[None], RATE)
    assert found == pytest.approx(holes, abs=0.006)
    assert dropouts(torch.cat([wav[:RATE], torch.zeros(RATE)])[None], RATE) == pytest.approx([0.5], abs=0.006)
    assert "dropouts" in defects(wav, RATE).names


def test_short_clips_and_limits():
    assert defects(0.1 * torch.randn(100), RATE).combs == ()
    assert defects(torch.zeros(1), RATE).names == ("silent",)
    calm = DefectLimits(dc=1.0, comb_rates=(100.0,))
    assert defects(0.2 + torch.zeros(3 * RATE), RATE, calm).names == ()
    with pytest.raises(ValueError, match="no samples"):
        defects(torch.zeros(0), RATE)
    with pytest.raises(ValueError, match="2 s"):
        comb(torch.zeros(RATE), RATE, 100.0)
    with pytest.raises(ValueError, match="spacing"):
        comb(torch.zeros(3 * RATE), RATE, 2.0)
    with pytest.raises(ValueError, match="comb_rates"):
        DefectLimits(comb_rates=(1.0,))
