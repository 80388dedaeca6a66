"""The mel banks against librosa and transformers, which compute them in their own ways."""

import librosa
import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from descant.eval.embedders import spectra

from .made import noise


@pytest.mark.parametrize(("rate", "n_fft", "bands", "low", "high"), [
    (16_000, 512, 64, 125.0, 7500.0),  # VGGish
    (32_000, 1024, 128, 0.0, 15_000.0),  # PaSST
])  # fmt: skip
def test_triangles_over_mel_are_kaldis(rate, n_fft, bands, low, high):
    truth = mel_filter_bank(n_fft // 2 + 1, bands, low, high, rate, mel_scale="kaldi", triangularize_in_mel_space=True)
    found = spectra.mel_triangles(rate, n_fft, bands, low, high)
    assert np.abs(found.numpy() - truth.T).max() < 1e-6


def test_triangles_over_hertz_are_librosas_htk():
    truth = librosa.filters.mel(sr=48_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, htk=True, norm=None)
    assert np.abs(spectra.hertz_triangles(48_000, 1024, 64, 50.0, 14_000.0).numpy() - truth).max() < 1e-6


def test_log_mel_is_librosas():
    wav = noise("log mel", 0.7, 32_000)[:, 0]
    bank = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000)
    power = np.abs(librosa.stft(wav[0].numpy(), n_fft=1024, hop_length=320, pad_mode="reflect")) ** 2
    truth = librosa.power_to_db(bank @ power, ref=1.0, amin=1e-10, top_db=None)
    found = spectra.log_mel(wav, torch.from_numpy(bank), 1024, 320)
    assert np.abs(found[0].numpy().T - truth).max() < 1e-3
    silent = spectra.log_mel(torch.zeros(1, 4000), torch.from_numpy(bank), 1024, 320)
    assert torch.equal(silent, torch.full_like(silent, -100.0))
