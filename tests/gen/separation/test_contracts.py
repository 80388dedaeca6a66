"""What holds for every separator (descant.gen.separation.contract has the list)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from descant.codec.audio import Audio, write
from descant.gen.separation.contract import Layout, Separator
from descant.gen.separation.stems import Stems

from .made import SEPARATORS, blocks, sound

pytestmark = pytest.mark.parametrize("name", sorted(SEPARATORS))
_SHORT = Layout(chunk=0.5, before=0.1, after=0.15, fade=0.05)


@pytest.fixture
def method(name: str) -> Separator:
    return _made(name)


_MADE: dict[str, Separator] = {}


def _made(name: str) -> Separator:
    if name not in _MADE:
        _MADE[name] = SEPARATORS[name]()
    return _MADE[name]


def largest(wav: Tensor) -> float:
    return float(wav.abs().max())


def test_stems_and_residual_are_the_mix(method: Separator) -> None:
    wav = sound(1.3, 22050)
    made = method.separate(wav, 22050)
    assert tuple(made) == method.stems
    assert torch.equal(made.mix, wav)
    total = made.stacked.sum(0) + made.residual
    assert largest(total - wav) <= 1e-6
    folded = made.folded(method.stems[-1])
    assert largest(folded.stacked.sum(0) - wav) <= 1e-6


def test_the_same_sound_gives_the_same_bits(method: Separator) -> None:
    wav = sound(1.1, 16000)
    first, second = method.separate(wav, 16000), method.separate(wav.clone(), 16000)
    assert all(torch.equal(first[stem], second[stem]) for stem in first)


@pytest.mark.parametrize("gain", [-1.0, 0.03, 4.0])
def test_a_gain_goes_through(method: Separator, gain: float) -> None:
    wav = sound(1.2, 32000)
    plain, scaled = method.separate(wav, 32000), method.separate(wav * gain, 32000)
    for stem in plain:
        error = largest(scaled[stem] - gain * plain[stem])
        assert error <= 1e-5 * abs(gain) * largest(wav), stem


def test_silence_gives_silence(method: Separator) -> None:
    made = method.separate(torch.zeros(2, 9000), 16000)
    assert all(not wav.any() for wav in made.values()) and not made.residual.any()


def test_a_silent_stretch_stays_finite(method: Separator) -> None:
    wav = sound(1.5, 16000)
    wav[:, 6000:18000] = 0
    made = method.separate(wav, 16000)
    assert all(bool(torch.isfinite(stem).all()) for stem in made.values())


@pytest.mark.parametrize("length", [1, 2, 101, 1600, 7001])
def test_every_length_works(method: Separator, length: int) -> None:
    wav = sound(1.0, 16000)[:, :length]
    made = method.separate(wav, 16000)
    assert all(stem.shape == wav.shape and bool(torch.isfinite(stem).all()) for stem in made.values())


@pytest.mark.parametrize("rate", [8000, 22050, 48000, 96000])
def test_every_rate_works(method: Separator, rate: int) -> None:
    wav = sound(0.4, rate)
    made = method.separate(wav, rate)
    assert made.rate == rate
    assert all(stem.shape == wav.shape and bool(torch.isfinite(stem).all()) for stem in made.values())
    assert largest(made.stacked.sum(0) + made.residual - wav) <= 1e-6


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_every_number_of_channels_works(method: Separator, channels: int) -> None:
    wav = sound(0.6, 16000, channels)
    made = method.separate(wav, 16000)
    assert all(stem.shape == wav.shape for stem in made.values())
    assert largest(made.stacked.sum(0) + made.residual - wav) <= 1e-6


@pytest.mark.parametrize(("rate", "sizes"), [(16000, (1000,)), (44100, (1, 30000, 77)), (32000, (90000,))])
def test_a_stream_gives_the_bits_of_the_whole(method: Separator, rate: int, sizes: tuple[int, ...]) -> None:
    kept, method.layout = method.layout, Layout(chunk=0.3, before=0.1, after=0.15, fade=0.05, batch=method.layout.batch)
    wav = sound(1.7, rate)
    whole = method.separate(wav, rate)
    parts = list(method.stream(blocks(wav, sizes), rate))
    method.layout = kept
    assert torch.equal(torch.cat([part.mix for part in parts], -1), wav)
    for stem in whole:
        assert torch.equal(torch.cat([part[stem] for part in parts], -1), whole[stem]), stem


def test_a_stream_does_not_wait_for_the_end(method: Separator) -> None:
    kept, method.layout = method.layout, _SHORT
    wav = sound(4.0, method.rate or 16000)
    parts = list(method.stream(blocks(wav, [2000]), method.rate or 16000))
    method.layout = kept
    assert len(parts) > 3


def test_only_stems_asked_for_are_computed(method: Separator, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    real = type(method).estimate

    def estimate(self: Separator, wav: Tensor, keep: Any) -> Tensor:
        asked.append(tuple(keep))
        return real(self, wav, keep)

    monkeypatch.setattr(type(method), "estimate", estimate)
    wav = sound(0.5, 16000)
    whole = method.separate(wav, 16000)
    asked.clear()
    second = method.stems[1]
    made = method.separate(wav, 16000, stems=second)
    assert set(asked) == {(1,)}
    assert tuple(made) == (second,) and torch.allclose(made[second], whole[second], atol=1e-5)
    assert largest(made[second] + made.residual - wav) <= 1e-6


def test_any_choice_of_stems_works(method: Separator) -> None:
    wav = sound(0.5, 16000)
    whole = method.separate(wav, 16000)
    first, second = method.stems[:2]
    rest = method.separate(wav, 16000, stems=f"-{first}")
    assert tuple(rest) == method.stems[1:]
    both = method.separate(wav, 16000, stems=f"{first}+{second}")
    assert largest(both[f"{first}+{second}"] - whole[first] - whole[second]) <= 1e-5
    with pytest.raises(ValueError, match="no stem 'harp'"):
        method.separate(wav, 16000, stems="harp")


def test_files_arrays_and_audio_are_one(method: Separator, tmp_path: Any) -> None:
    wav = sound(0.4, 16000)
    path = tmp_path / "mix.wav"
    write(path, Audio(wav, 16000))
    stored = method.separate(path)
    assert isinstance(stored, Stems) and stored.rate == 16000
    given = method.separate(stored.mix.numpy(), 16000)
    audio = method.separate(Audio(stored.mix, 16000))
    mono = method.separate(np.asarray(stored.mix[0]), 16000)
    for stem in stored:
        assert torch.equal(stored[stem], given[stem]) and torch.equal(stored[stem], audio[stem])
        assert mono[stem].shape == (1, wav.shape[-1])


@pytest.mark.parametrize(
    ("wav", "rate", "said"),
    [
        (torch.full((2, 100), torch.nan), 16000, "NaN"),
        (torch.zeros(2, 0), 16000, "no samples"),
        (torch.zeros(1, 2, 100), 16000, r"\[channels, samples\]"),
        (torch.zeros(2, 100, dtype=torch.int16), 16000, "floats"),
        (torch.zeros(2, 100), 0, "out of range"),
        (torch.zeros(2, 100), None, "rate"),
    ],
)
def test_bad_sound_is_refused(method: Separator, wav: Tensor, rate: int | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        method.separate(wav, rate)
