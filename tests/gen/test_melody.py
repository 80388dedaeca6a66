"""The tune follower on sounds whose tune is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from descant.gen.melody import Tune, TuneSettings, check, sings, tune


def note(pitch: float, seconds: float, rate: int = 22050, partials: int = 8, fall: float = 0.6) -> torch.Tensor:
    time = np.arange(round(seconds * rate)) / rate
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    wav = sum(
        fall**k * np.sin(2 * np.pi * hertz * k * time + k) for k in range(1, partials + 1) if hertz * k < rate / 2
    )
    shape = np.minimum(1, np.minimum(time / 0.01, (time[-1] - time + 1e-9) / 0.02))
    return torch.from_numpy(0.2 * wav * shape).float()


def inner(heard: torch.Tensor, start: float, stop: float, rate: float = 50.0) -> torch.Tensor:
    times = (torch.arange(len(heard)) + 0.5) / rate
    return heard[(times > start + 0.06) & (times < stop - 0.06)]


@pytest.mark.parametrize("partials", [1, 3, 12])
@pytest.mark.parametrize("pitch", [41.0, 60.3, 79.0, 98.0])
def test_a_note_is_its_pitch_whatever_its_sound(pitch: float, partials: int) -> None:
    if pitch < 50 and partials == 1:
        partials = 2  # of a sine so low a window holds too few periods to be sure of more than a quarter tone
    found = inner(tune(note(pitch, 0.8, partials=partials), 22050), 0, 0.8)
    assert (found - pitch).abs().max() < 0.3


def test_a_weak_fundamental_is_no_octave() -> None:
    rate = 22050
    time = torch.arange(rate) / rate
    wav = sum(
        a * torch.sin(2 * torch.pi * 220 * k * time) for k, a in ((1, 0.02), (2, 0.2), (3, 0.2), (4, 0.1), (5, 0.1))
    )
    assert (inner(tune(wav, rate), 0, 1) - 57).abs().max() < 0.3


def test_a_tune_with_rests_over_a_string_that_rings_on() -> None:
    line = torch.cat([note(72, 0.5), torch.zeros(11025), note(76, 0.5), note(74, 0.5)])
    found = tune(line, 22050)
    for start, pitch in ((0.0, 72), (1.0, 76), (1.5, 74)):
        assert (inner(found, start, start + 0.5) - pitch).abs().max() < 0.3
    assert inner(found, 0.5, 1.0).isnan().all()
    time = torch.arange(len(line)) / 22050
    below = 0.12 * torch.sin(2 * torch.pi * 261.6 * time) * torch.exp(-time)
    heard = tune(line + below, 22050)
    right = (torch.cat([inner(heard, 1.0, 1.5) - 76, inner(heard, 1.5, 2.0) - 74]).abs() < 0.5).float().mean()
    assert right > 0.9


def test_silence_and_hiss_have_no_tune() -> None:
    assert tune(torch.zeros(22050), 22050).isnan().all()
    hiss = 1e-5 * torch.randn(22050, generator=torch.Generator().manual_seed(0))
    assert tune(hiss, 22050).isnan().all()


@pytest.mark.parametrize(("rate", "frames"), [(16000, 50.0), (44100, 75.0), (32000, 86.1328125), (8000, 12.5)])
def test_frames_are_those_of_the_codec(rate: int, frames: float) -> None:
    wav = torch.cat([note(60, 1.0, rate), note(67, 1.013, rate)])
    found = tune(torch.stack([wav, wav]), rate, frames)
    assert len(found) == int(np.ceil(round(len(wav) * frames / rate, 6)))
    assert (inner(found, 0, 1, frames) - 60).abs().max() < 0.3 and (inner(found, 1, 2, frames) - 67).abs().max() < 0.3


def test_blocks_do_not_matter() -> None:
    draw = np.random.default_rng(0)
    wav = torch.cat([note(float(draw.integers(50, 90)), 0.5) for _ in range(80)])[None]
    whole = tune(wav, 22050)
    one = Tune(22050, 50.0)
    places = [0, 1, 700, 22050 * 31, 22050 * 31 + 5, wav.shape[1]]
    parts = [one.push(wav[:, a:b]) for a, b in itertools.pairwise(places)]
    assert torch.equal(torch.cat([*parts, one.finish()]).nan_to_num(), whole.nan_to_num())
    assert len(parts[2]) > 0  # what is decided comes before the end


def test_short_sounds_and_wrong_ones() -> None:
    assert tune(torch.ones(1), 32000).shape == (1,)
    for wrong in (torch.zeros(0), torch.zeros(1, 1, 5)):
        with pytest.raises(ValueError, match="samples"):
            tune(wrong, 16000)
    with pytest.raises(ValueError, match="not numbers"):
        tune(torch.full((9,), torch.nan), 16000)
    with pytest.raises(ValueError, match="window"):
        TuneSettings(window=1.0)
    with pytest.raises(ValueError, match="frame rate"):
        Tune(16000, 0.0)


def test_a_tune_anywhere_is_one() -> None:
    line = torch.cat([note(pitch, 0.4) for pitch in (72, 76, 79, 71)])[None]
    rest = torch.zeros(1, 100 * 22050)
    # a short tune in long sound, of which it is a hundredth
    assert sings(line, 22050) and sings(torch.cat([rest, line], 1), 22050)
    assert not sings(rest[:, : 2 * 22050], 22050)
    check(line, 22050)
    with pytest.raises(ValueError, match="no tune"):
        check(rest[:, : 2 * 22050], 22050)
    with pytest.raises(ValueError, match="not numbers"):
        check(line * float("nan"), 22050)
