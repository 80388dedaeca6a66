"""Sinusoids and filtered noise against sums written out, scipy's spectra, and finite differences."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

from descant.gen.separation import pretrained, sms
from descant.gen.separation.registry import get
from descant.gen.separation.sms_network import SmsConfig, SmsNetwork

from . import made

RATE, HOP = 16000, 160


def test_controls_lie_in_the_middle_of_their_frames() -> None:
    found = sms.upsampled(torch.tensor([[[0.0], [4.0], [4.0]]]), 4)[0, :, 0]
    assert found.tolist() == [0.0, 0.0, 0.5, 1.5, 2.5, 3.5, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]


def test_steady_sinusoids_are_those_of_numpy() -> None:
    hertz, level = torch.tensor([220.0, 1234.5, 7000.0]), torch.tensor([0.5, 0.2, 0.1])
    found = sms.sinusoids(hertz.expand(1, 100, -1), level.expand(1, 100, -1), RATE, HOP)[0]
    time = (np.arange(100 * HOP) + 1) / RATE  # a phase is what has passed by the end of a sample
    wanted = sum(a * np.sin(2 * np.pi * f * time) for f, a in zip(hertz.tolist(), level.tolist(), strict=True))
    assert np.allclose(found.numpy(), wanted, atol=1e-3)


def test_a_glide_is_scipys_chirp() -> None:
    frames = 100
    hertz = torch.linspace(200, 1200, frames, dtype=torch.float64)
    found = sms.sinusoids(hertz[None, :, None], torch.ones(1, frames, 1, dtype=torch.float64), RATE, HOP)[0].numpy()
    middle = slice(HOP // 2, frames * HOP - HOP // 2)  # straight lines end in the middles of the outer frames
    step = (1200 - 200) / ((frames - 1) * HOP)
    time = np.arange(frames * HOP - HOP) / RATE
    # a sample lies half a step after the middle of a frame, and a running sum half a step after its integral
    wanted = scipy.signal.chirp(time, 200 + step, time[-1], 1200, phi=-90)
    # scipy begins with phase 0, ours with what the first half frame has turned it by
    analytic = scipy.signal.hilbert(found[middle]) * np.conj(scipy.signal.hilbert(wanted))
    turn = np.unwrap(np.angle(analytic[800:-800]))
    assert np.ptp(turn) < 0.01
    assert np.allclose(np.abs(analytic[800:-800]), 1, atol=0.05)


def test_harmonics_are_multiples_and_stay_below_half_the_rate() -> None:
    f0, shares = torch.full((1, 50), 1500.0), torch.ones(1, 50, 10)
    found = sms.harmonics(f0, torch.full((1, 50), 0.5), shares, RATE, HOP)[0]
    spectrum = torch.fft.rfft(found * torch.hann_window(len(found))).abs() / (len(found) / 4)
    peaks = [round(place * RATE / len(found)) for place in (spectrum > 0.05).nonzero()[:, 0].tolist()]
    assert {round(peak / 1500) for peak in peaks} == {1, 2, 3, 4, 5} and all(abs(p % 1500 - 750) > 745 for p in peaks)
    # five of ten may sound, and share the whole amplitude
    assert float(found.abs().max()) == pytest.approx(0.5, rel=0.6)
    assert [float(spectrum[number * 1500 * len(found) // RATE]) for number in (1, 3, 5)] == pytest.approx(
        [0.1] * 3, rel=0.02
    )


def test_long_tones_keep_their_pitch() -> None:
    frames = 60 * RATE // HOP
    found = sms.sinusoids(torch.full((1, frames, 1), 1000.0), torch.ones(1, frames, 1), RATE, HOP)[0]
    time = (torch.arange(found.shape[-1] - RATE, found.shape[-1], dtype=torch.float64) + 1) / RATE
    # after a minute the phase is still that of a thousand cycles a second
    assert torch.allclose(found[-RATE:].double(), (2 * math.pi * 1000 * time).sin(), atol=1e-3)


def test_noise_has_the_spectrum_of_its_filter() -> None:
    frames = 3000
    shape = torch.tensor([1.0, 1.0, 0.5, 0.25, 0.1, 0.1, 0.5, 1.0, 1.0])
    noise = sms.white(frames * HOP, torch.device("cpu"))[None]
    found = sms.filtered_noise(shape.expand(1, frames, -1), noise, HOP)[0]
    hertz, density = scipy.signal.welch(found.numpy(), RATE, nperseg=512)
    assert np.sum(density) * (hertz[1] - hertz[0]) == pytest.approx(float(found.square().mean()), rel=0.05)
    # the taps' window smears the filter over a bin on each side, as it does here
    taps = np.fft.irfft(shape.numpy())
    windowed = np.roll(taps, 8) * scipy.signal.get_window("hann", 16)
    _, response = scipy.signal.freqz(windowed, worN=hertz, fs=RATE)
    wanted = np.abs(response) ** 2 * 2 / RATE
    inner = slice(3, -3)
    assert np.median(np.abs(density[inner] / wanted[inner] - 1)) < 0.1
    assert np.abs(10 * np.log10(density[inner] / wanted[inner])).max() < 2


def test_noise_comes_when_its_frame_does() -> None:
    levels = torch.zeros(1, 20, 9)
    levels[:, 10] = 1.0
    found = sms.filtered_noise(levels, torch.ones(1, 20 * HOP), HOP)[0]
    loud = (found.abs() > 1e-4).nonzero()[:, 0]
    assert int(loud.min()) >= 10 * HOP - 8 and int(loud.max()) <= 11 * HOP + 8
    with pytest.raises(ValueError, match="noise"):
        sms.filtered_noise(levels, torch.ones(1, 7), HOP)


def test_gradients_are_those_of_finite_differences() -> None:
    dice = torch.Generator().manual_seed(0)

    def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return (scale * torch.rand(*shape, generator=dice, dtype=torch.float64) + 0.1).requires_grad_()

    f0, amplitude, shares = drawn(1, 3, scale=200.0), drawn(1, 3), drawn(1, 3, 4)
    assert torch.autograd.gradcheck(lambda *c: sms.harmonics(*c, 8000, 8), (f0, amplitude, shares), atol=1e-4)
    noise = torch.randn(1, 24, generator=dice, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m: sms.filtered_noise(m, noise, 8), (drawn(1, 3, 5),), atol=1e-4)


def test_controls_can_be_found_by_descent() -> None:
    f0 = torch.full((1, 40), 200.0)
    true = torch.tensor([0.6, 0.1, 0.25, 0.05]).expand(1, 40, -1)
    target = sms.harmonics(f0, torch.full((1, 40), 0.7), true, RATE, HOP)
    logits, level = torch.zeros(4, requires_grad=True), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([logits, level], 0.1)
    for _ in range(100):
        optimiser.zero_grad()
        shares = logits.softmax(0).expand(1, 40, -1)
        error = (sms.harmonics(f0, level.sigmoid().expand(1, 40), shares, RATE, HOP) - target).square().mean()
        error.backward()
        optimiser.step()
    assert torch.allclose(logits.softmax(0), true[0, 0], atol=0.03)
    assert float(level.detach().sigmoid()) == pytest.approx(0.7, abs=0.03)


def test_the_pitch_is_read_off_the_grid_between_its_places() -> None:
    model = made.sms()
    c = model.config
    logits = torch.full((1, 2, c.grid), -10.0)
    logits[0, 0, 60] = 10.0
    logits[0, 1, 40:42] = 10.0
    found = 69 + 12 * (model.f0(logits)[0] / 440).log2()
    assert found.tolist() == pytest.approx([c.lowest + 60 / c.steps, c.lowest + 40.5 / c.steps], abs=1e-3)
    edge = torch.full((1, 1, c.grid), -10.0)
    edge[..., 0] = 10.0
    assert float(model.f0(edge)) == pytest.approx(440 * 2 ** ((c.lowest - 69) / 12), rel=1e-3)


def test_stem_and_rest_are_the_mixture_and_an_export_is_a_model(tmp_path: Path) -> None:
    model, wav = made.sms(), made.sound(0.3, 16000)
    with torch.no_grad():
        stems = model(wav[None])
        assert torch.allclose(stems.sum(1), wav[None], atol=1e-6) and torch.equal(stems[0, 0, 0], stems[0, 0, 1])
        assert torch.equal(model(wav[None], [1]), stems[:, [1]])
    method = get(pretrained.save(model, tmp_path, half=False))
    assert method.stems == ("bass", "rest")
    assert torch.equal(method.separate(wav, 16000)["bass"], method.separate(wav, 16000)["bass"])


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="one stem and the rest"):
        SmsConfig(stems=("a", "b", "c"))
    with pytest.raises(ValueError, match="window"):
        SmsConfig(window=256)
    with pytest.raises(ValueError, match="positive"):
        SmsConfig(harmonics=0)
    with pytest.raises(ValueError, match="need sound"):
        SmsNetwork(SmsConfig(width=4))(torch.zeros(1, 1, 9))
