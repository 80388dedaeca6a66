"""Harmonic and percussive: against scipy and librosa, and what it is for."""

from __future__ import annotations

import math
import time

import librosa
import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from descant.gen.separation.contract import Layout
from descant.gen.separation.hpss import HPSS, HpssSettings, TwoStageHPSS, TwoStageSettings, hpss
from descant.gen.separation.hpss_kernel import median_of, running_median
from descant.gen.separation.masks import shares, softmask
from descant.gen.separation.spectral import Grid

from .made import sound


def power_of(wav: Tensor) -> float:
    return float(wav.double().square().sum())


def ratio(true: Tensor, made: Tensor) -> float:
    """Energy of the truth over that of the error, in dB."""
    return 10 * math.log10(power_of(true) / max(power_of(true - made), 1e-20))


def spectrogram(bins: int, frames: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(0.4, 1.0, (bins, frames)).astype(np.float32)
    values[:, frames // 3] = 0
    return values


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 16, 17, 24, 30, 31, 32, 33, 63])
@pytest.mark.parametrize("axis", [0, 1])
def test_medians_are_those_of_scipy_bit_for_bit(size: int, axis: int) -> None:
    for shape in ((1, 2), (31, 40), (290, 19), (13, 300)):
        if size > 4 * shape[axis]:
            continue
        values = spectrogram(*shape)
        wanted = scipy.ndimage.median_filter(values, size=[(size, 1), (1, size)][axis], mode="reflect")
        assert np.array_equal(running_median(torch.from_numpy(values), size, axis).numpy(), wanted)


def test_medians_over_any_axis_and_layout() -> None:
    values = torch.rand(2, 3, 20, 30, dtype=torch.float64)
    for dim in range(-4, 4):
        shape = [1] * 4
        shape[dim] = 7
        wanted = scipy.ndimage.median_filter(values.numpy(), size=shape, mode="reflect")
        assert np.array_equal(running_median(values, 7, dim).numpy(), wanted)
        turned = values.transpose(1, 3)
        wanted = scipy.ndimage.median_filter(turned.numpy(), size=shape, mode="reflect")
        assert np.array_equal(running_median(turned, 7, dim).numpy(), wanted)
    row = torch.rand(50)
    assert np.array_equal(running_median(row, 5).numpy(), scipy.ndimage.median_filter(row.numpy(), 5, mode="reflect"))


def test_medians_of_windows_far_longer_than_the_row() -> None:
    row = torch.rand(4)
    places = (torch.arange(4)[:, None] + torch.arange(45) - 22).remainder(8)
    wanted = row[torch.minimum(places, 7 - places)].sort(1).values[:, 22]
    assert torch.equal(running_median(row, 45), wanted)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 24, 25])
def test_median_of_rows_is_that_of_numpy(count: int) -> None:
    rows = np.random.default_rng(count).random((count, 6, 5)).astype(np.float32)
    assert np.array_equal(median_of([torch.from_numpy(row) for row in rows]).numpy(), np.median(rows, 0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": (13, 31)},
        {"kernel_size": 16, "power": 1.0},
        {"power": 0.7},
        {"power": 3.0, "margin": 3.0},
        {"power": np.inf},
        {"margin": (1.0, 5.0)},
        {"margin": (2.5, 1.0), "power": np.inf},
    ],
)
def test_masks_and_parts_are_those_of_librosa(options: dict[str, float]) -> None:
    values = spectrogram(129, 150)
    ours = {("kernel" if name == "kernel_size" else name): value for name, value in options.items()}
    wanted = librosa.decompose.hpss(values, mask=True, **options)  # type: ignore[arg-type]
    made = hpss(torch.from_numpy(values), mask=True, **ours)  # type: ignore[arg-type]
    for one, other in zip(made, wanted, strict=True):
        assert np.abs(one.numpy() - other.astype(np.float32)).max() <= 1e-6
    turned = values * np.exp(1j * np.random.default_rng(1).uniform(0, 6, values.shape)).astype(np.complex64)
    wanted = librosa.decompose.hpss(turned, **options)  # type: ignore[arg-type]
    made = hpss(torch.from_numpy(turned), **ours)  # type: ignore[arg-type]
    if not math.isinf(options.get("power", 2.0)):  # yes or no may turn over with the last bit of a magnitude
        for one, other in zip(made, wanted, strict=True):
            assert np.abs(one.numpy() - other).max() <= 1e-5 * np.abs(turned).max()


def test_several_channels_are_those_of_librosa() -> None:
    values = np.stack([spectrogram(40, 50, seed) for seed in range(3)])
    for one, other in zip(hpss(torch.from_numpy(values)), librosa.decompose.hpss(values), strict=True):
        assert np.abs(one.numpy() - other).max() <= 1e-5


def test_it_takes_less_time_than_librosa() -> None:
    # processor time, not the clock's; a twelfth with AVX2, still less on a processor without vector instructions
    values = spectrogram(1025, 700)
    held = torch.from_numpy(values)
    spent = []
    for run in (lambda: hpss(held), lambda: librosa.decompose.hpss(values)):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    assert spent[0] < spent[1]


def test_softmask_is_that_of_librosa() -> None:
    dice = np.random.default_rng(0)
    one, other = (dice.random((20, 20)).astype(np.float32) * dice.integers(0, 2, (20, 20)) for _ in range(2))
    one, other = one.astype(np.float32), other.astype(np.float32)
    for power in (0.5, 1.0, 2.0, 9.0):
        for split in (False, True):
            wanted = librosa.util.softmask(one, other, power=power, split_zeros=split)
            made = softmask(torch.from_numpy(one), torch.from_numpy(other), power, split)
            assert np.abs(made.numpy() - wanted).max() <= 1e-6


def test_shares_add_up_to_one() -> None:
    parts = torch.rand(3, 5, 5) * 1e-18
    parts[:, 0] = 0
    assert torch.allclose(shares(parts, 2.0).sum(0), torch.ones(5, 5))
    assert not shares(parts, 2.0, split=False)[:, 0].any()
    assert torch.allclose(shares(parts, 1.0)[1, 1:], (parts[1] / parts.sum(0))[1:])


def pieces(rate: int = 44100, seconds: float = 3.0) -> dict[str, Tensor]:
    """A tone that lasts, clicks, and noise like rain."""
    dice = torch.Generator().manual_seed(0)
    time = torch.arange(round(seconds * rate)) / rate
    tone = sum(0.2 / n * torch.sin(2 * math.pi * 330 * n * time) for n in range(1, 6))
    clicks = torch.zeros_like(time)
    clicks[:: rate // 4] = 1.0
    return {"tone": torch.as_tensor(tone)[None], "clicks": clicks[None],
            "rain": 0.1 * torch.randn(1, len(time), generator=dice)}  # fmt: skip


def test_a_tone_is_harmonic_and_clicks_are_percussive() -> None:
    found = pieces()
    made = HPSS().separate(found["tone"] + found["clicks"], 44100)
    assert ratio(found["tone"], made["harmonic"]) > 15
    assert ratio(found["clicks"], made["percussive"]) > 6


def test_with_a_margin_rain_is_neither() -> None:
    found = pieces()
    method = HPSS(HpssSettings(margin=(2.0, 2.0)))
    assert method.stems == ("harmonic", "percussive", "rest")
    made = method.separate(sum(found.values(), torch.zeros(1)), 44100)
    assert made.residual.abs().max() <= 1e-6
    alone = method.separate(found["rain"], 44100)
    assert power_of(alone["rest"]) > 0.3 * power_of(found["rain"])
    plain = HPSS().separate(found["tone"], 44100)["harmonic"]
    strict = method.separate(found["tone"], 44100)["harmonic"]
    assert power_of(strict) < power_of(plain)


def test_in_two_stages_a_glide_is_a_voice() -> None:
    rate = 44100
    time = torch.arange(4 * rate) / rate
    steady = torch.stack([0.1 * torch.sin(2 * math.pi * f * time) for f in (220.0, 277.0, 330.0)]).sum(0)
    # too fast to last in frames of 370 ms, slow enough to last in frames of 23 ms
    voice = 0.2 * torch.sin(2 * math.pi * (600 * time + 100 * time.square()))
    clicks = torch.zeros_like(time)
    clicks[:: rate // 2] = 1.0
    made = TwoStageHPSS().separate((steady + voice + clicks)[None], rate)
    assert tuple(made) == ("harmonic", "vocals", "percussive")
    assert made.residual.abs().max() <= 1e-6
    assert ratio(steady[None], made["harmonic"]) > 8
    assert ratio(voice[None], made["vocals"]) > 6
    assert ratio(clicks[None], made["percussive"]) > 3


@pytest.mark.parametrize("method", [HPSS(), TwoStageHPSS()], ids=["one", "two"])
def test_chunks_give_what_the_whole_would(method: HPSS | TwoStageHPSS) -> None:
    wav = sound(11.5, 44100, 1)
    made = method.separate(wav, 44100)
    method.layout = Layout(chunk=60.0, before=0.0, after=0.0, fade=0.0)
    whole = method.separate(wav, 44100)
    for stem in whole:
        assert (made[stem] - whole[stem]).abs().max() <= 1e-6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="margins must be 1 or more"):
        hpss(torch.rand(5, 5), margin=0.5)
    with pytest.raises(ValueError, match="bins, frames"):
        hpss(torch.rand(5))
    with pytest.raises(ValueError, match="size of 1 or more"):
        running_median(torch.rand(5), 0)
    with pytest.raises(ValueError, match="at least one"):
        median_of([])
    with pytest.raises(ValueError, match="more than 0"):
        softmask(torch.rand(2), torch.rand(2), 0.0)
    with pytest.raises(ValueError, match="half the window"):
        Grid(window=512, hop=400)
    with pytest.raises(ValueError, match="longer than short"):
        TwoStageSettings(long=Grid(window=512, hop=128))
