import pytest
import torch

from descant.eval.seam import Jump, compare, continuity, jump, jumps_inside, prompt_error
from descant.recipes import bench_control

RATE = 32_000


def music(seconds=6.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(int(seconds * RATE)) / RATE
    wav = 0.02 * torch.randn(len(time), generator=generator)
    for hertz in (196.0, 246.9, 293.7, 587.3):
        wav += 0.1 * torch.sin(2 * torch.pi * hertz * time) * (1 + 0.3 * torch.sin(2 * torch.pi * 2 * time))
    return wav


def test_a_gain_step_is_measured_in_decibels():
    wav = music()
    wav[3 * RATE :] *= 10 ** (-9 / 20)
    plain = jump(music(), RATE, 3.0)
    stepped = jump(wav, RATE, 3.0)
    assert stepped.level == pytest.approx(9, abs=plain.level + 0.3)
    assert stepped.flux == pytest.approx(plain.flux, abs=0.02)


def test_clicks_filters_and_steps_fall_outside_real_music():
    wav = music()
    real = jumps_inside([music(seed=s) for s in range(1, 4)], RATE)
    assert compare(jump(wav, RATE, 3.0), real).inside()
    quiet, click, dull = wav.clone(), wav.clone(), wav.clone()
    quiet[3 * RATE :] *= 0.1
    click[3 * RATE] += 1.0
    dull[3 * RATE :] = torch.nn.functional.avg_pool1d(wav[None, 3 * RATE :], 9, 1, 4)[0]
    assert compare(jump(quiet, RATE, 3.0), real).level_rank == 1
    assert compare(jump(click, RATE, 3.0), real).click_rank == 1
    assert compare(jump(dull, RATE, 3.0), real).flux_rank == 1
    assert not compare(jump(quiet, RATE, 3.0), real).inside()


def test_a_break_in_phase_is_a_click():
    time = torch.arange(4 * RATE) / RATE
    wav = torch.sin(2 * torch.pi * 100 * time)
    joined = torch.cat([wav[: 2 * RATE], -wav[2 * RATE :] + 0.3])
    assert jump(joined, RATE, 2.0).click > 10 * jump(wav, RATE, 2.0).click


def test_ranks_count_smaller_jumps():
    real = [Jump(level=float(i), flux=float(i), click=float(i)) for i in range(10)]
    report = compare(Jump(level=4.5, flux=0.0, click=99.0), real)
    assert (report.level_rank, report.flux_rank, report.click_rank) == (0.5, 0.0, 1.0)


def test_same_seed_same_places_and_stereo_is_taken():
    clip = music().repeat(2, 1)
    assert jumps_inside([clip], RATE, per_clip=4) == jumps_inside([clip], RATE, per_clip=4)
    assert jumps_inside([clip], RATE, per_clip=4) != jumps_inside([clip], RATE, per_clip=4, seed=1)


def test_refusals():
    with pytest.raises(ValueError, match="ends"):
        jump(music(), RATE, 0.05)
    with pytest.raises(ValueError, match="too short"):
        jumps_inside([torch.zeros(100)], RATE)
    with pytest.raises(ValueError, match="no real jumps"):
        compare(Jump(level=0.0, flux=0.0, click=0.0), [])


def test_continuity_of_a_piece_and_of_two():
    one, *_, two = list(bench_control.takes("test", 1, 12.0, genres=("rock", "pop", "jazz")))
    half = 6 * one.rate
    own = continuity(one.wav, one.rate, 6.0)
    assert own.tempo == "exact"
    assert own.chroma > 0.8
    assert abs(own.loudness) < 3
    joined = continuity(torch.cat([one.wav[:half], 2 * two.wav[half:]]), one.rate, 6.0)
    assert joined.chroma < own.chroma
    assert joined.loudness > 3
    silent = continuity(torch.cat([torch.zeros(half), one.wav[half:]]), one.rate, 6.0)
    assert (silent.tempo, silent.key) == ("other", 0.0)
    with pytest.raises(ValueError, match="5 s"):
        continuity(one.wav, one.rate, 2.0)


def test_prompt_error():
    prompt = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    assert prompt_error(prompt, torch.cat([prompt, prompt], dim=-1)) == -float("inf")
    assert prompt_error(prompt, 1.1 * prompt) == pytest.approx(-20, abs=1e-3)
    with pytest.raises(ValueError, match="begin"):
        prompt_error(prompt, prompt[:, :10])
    with pytest.raises(ValueError, match="silent"):
        prompt_error(0 * prompt, prompt)
