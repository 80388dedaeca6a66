import math
import sys
import warnings

import librosa
import numpy as np
import pyloudnorm
import pytest
import scipy.signal
import torch

from descant.eval.reconstruction import (
    MEL_SCALES,
    bandwidth,
    bandwidth_error,
    book_use,
    delay,
    loudness_error,
    mel_distance,
    si_sdr,
    side_error,
    stft_distance,
    visqol,
)

RATE = 32_000


def noise(seconds=1.0, seed=0, channels=1):
    return torch.randn(channels, int(seconds * RATE), generator=torch.Generator().manual_seed(seed)) * 0.1


def tones(seconds=2.0):
    time = torch.arange(int(seconds * RATE)) / RATE
    wave = sum(0.1 * torch.sin(2 * math.pi * f * time) for f in (220, 440, 1760, 5000))
    return (wave * (1 + 0.5 * torch.sin(2 * math.pi * 3 * time)))[None]


@pytest.mark.parametrize("snr", [-10, 0, 12.5, 40])
def test_si_sdr_of_orthogonal_noise_is_its_snr(snr):
    target, other = noise(seed=1).double(), noise(seed=2).double()
    target, other = target - target.mean(), other - other.mean()
    other -= (other * target).sum() / target.square().sum() * target
    other *= target.norm() / other.norm() * 10 ** (-snr / 20)
    for gain in (1.0, 0.1, -3.0):
        assert si_sdr(target, gain * (target + other)) == pytest.approx(snr, abs=1e-6)


def test_si_sdr_ignores_offsets_and_finds_the_lag():
    wav = noise(seed=3)
    assert si_sdr(wav, wav + 0.5) > 60
    late = torch.nn.functional.pad(wav, (37, 0))[:, : wav.shape[-1]] + 0.01 * noise(seed=4)
    assert si_sdr(wav, late) < 0
    assert si_sdr(wav, late, lag=100) == pytest.approx(40, abs=0.5)
    early = torch.nn.functional.pad(wav, (0, 37))[:, 37:]
    assert si_sdr(wav, early, lag=100) > 60


def test_si_sdr_averages_channels_and_refuses_silence():
    left, right = noise(seed=1), noise(seed=2)
    stereo = torch.cat([left, right])
    heard = torch.cat([left + 0.1 * noise(seed=5), right + 0.01 * noise(seed=6)])
    each = [si_sdr(stereo[i], heard[i]) for i in range(2)]
    assert si_sdr(stereo, heard) == pytest.approx(sum(each) / 2, abs=1e-9)
    with pytest.raises(ValueError, match="silent"):
        si_sdr(torch.zeros(1, 100), torch.ones(1, 100))
    with pytest.raises(ValueError, match="shapes differ"):
        si_sdr(torch.ones(1, 100), torch.ones(1, 99))


def test_mel_distance_agrees_with_librosa():
    left, right = tones(), tones() + 0.05 * noise(2.0)
    total = 0.0
    for window, bands in MEL_SCALES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 5 bands of a 32-point transform: some are empty, here as there
            mels = [
                librosa.feature.melspectrogram(
                    y=wav[0].numpy(), sr=RATE, n_fft=window, hop_length=window // 4, n_mels=bands, power=1.0,
                    pad_mode="reflect",
                )
                for wav in (left, right)
            ]  # fmt: skip
        logs = [np.log10(np.maximum(m, 1e-5)) for m in mels]
        total += np.abs(logs[0] - logs[1]).mean()
    assert mel_distance(left, right, RATE) == pytest.approx(total, rel=1e-3)


def test_distances_are_zero_for_equals_and_grow_with_damage():
    wav = tones()
    assert mel_distance(wav, wav, RATE) == 0
    assert stft_distance(wav, wav) == 0
    light, heavy = wav + 0.01 * noise(2.0), wav + 0.1 * noise(2.0)
    assert 0 < mel_distance(wav, light, RATE) < mel_distance(wav, heavy, RATE)
    assert 0 < stft_distance(wav, light) < stft_distance(wav, heavy)


def test_mel_distance_of_a_gain_is_its_log():
    # every band of loud white noise moves by log10(2), at each of the seven scales
    wav = noise(2.0) * 5
    assert mel_distance(wav, 2 * wav, RATE) == pytest.approx(7 * math.log10(2), rel=0.03)


def test_stft_distance_agrees_with_librosa():
    left, right = tones(), tones() * 0.7 + 0.02 * noise(2.0)
    total = 0.0
    for window in (2048, 512):
        specs = [
            np.abs(librosa.stft(wav[0].numpy(), n_fft=window, hop_length=window // 4, pad_mode="reflect"))
            for wav in (left, right)
        ]
        logs = [np.log10(np.maximum(s, 1e-5) ** 2) for s in specs]
        total += np.abs(logs[0] - logs[1]).mean() + np.abs(specs[0] - specs[1]).mean()
    assert stft_distance(left, right) == pytest.approx(total, rel=1e-3)


def test_book_use_of_known_distributions():
    even = torch.arange(64).repeat(10)
    one = torch.zeros(640, dtype=torch.long)
    half = torch.arange(640) % 2 * 63
    books = book_use(torch.stack([even, one, half]), 64)
    assert [book.efficiency for book in books] == pytest.approx([1, 0, 1 / 6], abs=1e-9)
    assert [book.dead for book in books] == [0, 63, 62]
    assert [book.used for book in books] == pytest.approx([1, 1 / 64, 2 / 64])
    assert books[2].entropy == pytest.approx(1)
    batched = book_use(torch.stack([even, one, half]).reshape(3, 2, 320).transpose(0, 1), 64)
    assert batched == books


def test_few_frames_make_a_book_look_under_used_and_the_correction_says_by_how_much():
    generator = torch.Generator().manual_seed(0)
    # half of the codes ten times as likely as the others
    share = torch.cat([torch.full((512,), 10.0), torch.ones(512)])
    true = float(-(share / share.sum() * (share / share.sum()).log2()).sum()) / 10
    codes = torch.multinomial(share, 6000, replacement=True, generator=generator)[None]
    book = book_use(codes, 1024)[0]
    assert book.efficiency < true - 0.008
    assert book.corrected == pytest.approx(true, abs=0.003)
    seen = len(set(codes[0].tolist()))
    assert book.corrected == pytest.approx((book.entropy + (seen - 1) / (2 * math.log(2) * 6000)) / 10, abs=1e-12)
    assert book_use(torch.arange(64)[None], 64)[0].corrected == 1  # never more than all


def low_passed(wav, cut):
    taps = scipy.signal.firwin(801, cut, fs=RATE)
    return torch.from_numpy(scipy.signal.fftconvolve(wav.numpy(), taps[None], mode="same")).float()


@pytest.mark.parametrize("cut", [3500, 8000, 12_000])
def test_bandwidth_agrees_with_welch(cut):
    wav = low_passed(noise(4.0), cut)
    frequencies, power = scipy.signal.welch(wav[0].numpy(), RATE, "hann", 4096, 3072, detrend=False)
    oracle = frequencies[power > power.max() * 1e-6].max()
    assert bandwidth(wav, RATE) == pytest.approx(oracle, abs=300)
    assert bandwidth(wav, RATE) == pytest.approx(cut, abs=400)
    assert bandwidth(0.001 * wav, RATE) == bandwidth(wav, RATE)


def test_bandwidth_error_counts_what_is_lost_and_what_is_invented():
    full, half = noise(4.0), low_passed(noise(4.0), 8000)
    assert bandwidth(full, RATE) == RATE / 2
    assert bandwidth_error(full, half, RATE) == bandwidth_error(half, full, RATE) == pytest.approx(7750, abs=300)
    assert bandwidth_error(full, full, RATE) == 0
    assert bandwidth_error(half, torch.zeros_like(half), RATE) == bandwidth(half, RATE)
    assert bandwidth(torch.zeros(1, RATE), RATE) == 0
    with pytest.raises(ValueError, match="silent"):
        bandwidth_error(torch.zeros(1, RATE), half[:, :RATE], RATE)


def test_loudness_error_agrees_with_pyloudnorm():
    left = torch.cat([tones(), 0.3 * noise(2.0)])
    right = torch.cat([0.4 * tones(), noise(2.0)])
    meter = pyloudnorm.Meter(RATE)
    levels = [meter.integrated_loudness(wav.T.double().numpy()) for wav in (left, right)]
    assert loudness_error(left, right, RATE) == pytest.approx(abs(levels[0] - levels[1]), abs=0.02)
    assert loudness_error(left, -0.5 * left, RATE) == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert loudness_error(left, torch.zeros_like(left), RATE) == pytest.approx(70 + levels[0], abs=0.1)
    with pytest.raises(ValueError, match="-70 LUFS"):
        loudness_error(torch.zeros(1, RATE), left[:1, :RATE], RATE)


def test_side_error_of_narrowed_and_lost_stereo():
    mid, side = noise(seed=1), 0.25 * noise(seed=2)
    wide = torch.cat([mid + side, mid - side])
    narrow = torch.cat([mid + 0.5 * side, mid - 0.5 * side])
    assert side_error(wide, narrow) == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert side_error(wide, wide.flip(0)) == pytest.approx(0, abs=1e-6)
    lost = side_error(wide, mid.expand(2, -1))
    share = float(side.square().sum() / (mid.square().sum() + side.square().sum()))
    assert lost == pytest.approx(60 + 10 * math.log10(share), abs=0.01)
    assert side_error(mid.expand(2, -1), mid.expand(2, -1)) == 0
    with pytest.raises(ValueError, match="stereo"):
        side_error(mid, mid)
    with pytest.raises(ValueError, match="silent"):
        side_error(torch.zeros(2, 100), torch.ones(2, 100))


@pytest.mark.parametrize("late", [-300, -1, 0, 1, 1105])
def test_delay_is_found_in_noise_and_with_the_polarity_flipped(late):
    wav = noise(seed=3)
    moved = torch.roll(wav, late, -1) + 0.5 * noise(seed=4)
    assert delay(wav, moved, 2000) == delay(wav, -moved, 2000) == late
    assert delay(wav, moved, abs(late)) == late
    with pytest.raises(ValueError, match="limit"):
        delay(wav, moved, -1)


def test_book_use_refuses():
    with pytest.raises(ValueError, match="codes reach"):
        book_use(torch.tensor([[0, 64]]), 64)
    with pytest.raises(ValueError, match="at least one frame"):
        book_use(torch.zeros(2, 0, dtype=torch.long), 64)


def test_visqol_orders_identity_and_noise():
    wav = tones(3.0)
    same = visqol(wav, wav, RATE)
    noisy = visqol(wav, wav + 0.3 * noise(3.0), RATE)
    assert same == pytest.approx(4.73, abs=0.01)
    assert noisy < 3
    assert visqol(wav, 0.5 * wav, RATE) == pytest.approx(same, abs=0.05)


def test_visqol_names_the_extra_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "visqol", None)
    with pytest.raises(ImportError, match=r"descant\[bench\]"):
        visqol(tones(), tones(), RATE)
