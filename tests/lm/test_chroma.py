"""The melody extractor against librosa's filters and the transformers library's MusicgenMelodyFeatureExtractor.

That extractor computes its spectrogram with torchaudio, which nothing here depends on. Two oracles stand in: its own
code with scipy's spectrogram in torchaudio's place, and pitch classes recorded from the real one (transformers 5.23,
torchaudio 2.11) for the signals below: ``"".join(f"{i:x}" for i in MusicgenMelodyFeatureExtractor()(wav,
sampling_rate=32000, return_tensors="pt")["input_features"][0].argmax(-1))``.
"""

from __future__ import annotations

import importlib

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
from transformers.audio_utils import chroma_filter_bank

from descant.lm.chroma import HOP, RATE, SIZE, chroma, filters


def tune(seconds: float, seed: int, noisy: float = 0.0) -> torch.Tensor:
    """Notes of a fourth of a second each with overtones, and hiss: [T] at 32 kHz."""
    draw = np.random.RandomState(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 45 + draw.randint(0, 36, len(time) // (RATE // 4) + 1)[(time * 4).astype(int)]
    phase = 2 * np.pi * np.cumsum(440.0 * 2.0 ** ((pitch - 69) / 12)) / RATE
    wav = sum(np.sin(k * phase) / k**1.5 for k in range(1, 6)) * 0.2
    return torch.from_numpy(wav + noisy * draw.uniform(-1, 1, len(time))).float()


SIGNALS = {
    "clean": lambda: tune(12.0, 1),
    "noisy": lambda: tune(9.3, 2, 0.2),
    "long": lambda: tune(31.7, 3, 0.02),
    "short": lambda: tune(0.2, 4),
    "sweep": lambda: torch.from_numpy(0.5 * np.sin(2 * np.pi * 55 * (2.0 ** np.arange(0, 6, 1 / RATE) - 1))).float(),
    "silence": lambda: torch.zeros(20000),
}
RECORDED = {
    "clean": "9995668822009911aa994433aa553355881122bb18888335577aa664477aa99225599aa5533440036660119999bb11",
    "noisy": "0005773388447744886644bb550011660029991134444444b119911bb00550055227766bb",
    "long": (
        "999055596644777766555522bbbb22bb77bbbbabbb2662299946600553366bb119999334466a666788800111551133885544"
        "aa3366bb11bb770066225566669985577119911441177aa88aa33bb8888552277114665511110055555599bb994466bb2255"
        "44226555aa41115bb995533225577445588"
    ),
    "short": "22222",
    "sweep": "55679a0135689b0235689b024578ab124578ab134679a01",
    "silence": "00000",
}


@pytest.mark.parametrize("bins", [12, 24])
def test_filters_are_librosas(bins: int) -> None:
    wanted = librosa.filters.chroma(sr=RATE, n_fft=SIZE, tuning=0, n_chroma=bins)
    assert np.abs(filters(bins=bins).numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("name", list(SIGNALS))
def test_every_frame_is_the_recorded_one(name: str) -> None:
    found = chroma(SIGNALS[name]()[None])
    assert bool((found.sum(-1) == 1).all())
    assert "".join(f"{i:x}" for i in found[0].argmax(-1).tolist()) == RECORDED[name]


class _Spectrogram:
    """torchaudio's Spectrogram of power 2, normalised by its window, by scipy."""

    def __call__(self, wav: torch.Tensor) -> torch.Tensor:
        window = scipy.signal.get_window("hann", SIZE)
        wide = np.pad(wav.double().numpy(), ((0, 0), (SIZE // 2, SIZE // 2)), mode="reflect")
        cut = scipy.signal.stft(wide, window=window, nperseg=SIZE, noverlap=SIZE - HOP, boundary=None, padded=False)[2]
        scale = window.sum() / np.sqrt(np.square(window).sum())
        return torch.from_numpy(np.square(np.abs(cut) * scale)).float()


@pytest.mark.parametrize("name", list(SIGNALS))
def test_every_frame_is_that_of_the_librarys_own_code(name: str) -> None:
    # the package's front door hides the class where torchaudio is missing; its module does not
    module = importlib.import_module("transformers.models.musicgen_melody.feature_extraction_musicgen_melody")
    theirs = object.__new__(module.MusicgenMelodyFeatureExtractor)
    theirs.n_fft, theirs.spectrogram = SIZE, _Spectrogram()
    bank = chroma_filter_bank(sampling_rate=RATE, num_frequency_bins=SIZE, tuning=0, num_chroma=12)
    theirs.chroma_filters = torch.from_numpy(bank).float()
    wav = SIGNALS[name]()[None, : 30 * RATE]
    assert torch.equal(chroma(wav), theirs._torch_extract_fbank_features(wav))


def test_a_batch_is_its_rows_and_an_octave_is_the_same_class() -> None:
    one, two = tune(3.0, 5), tune(3.0, 6)
    both = chroma(torch.stack([one, two]))
    assert torch.equal(both, torch.cat([chroma(one[None]), chroma(two[None])]))
    assert both.shape == (2, 1 + 3 * RATE // HOP, 12)
    time = torch.arange(2 * RATE) / RATE
    for midi, wanted in ((60, 0), (69, 9), (81, 9), (48, 0), (66, 6)):
        wave = (2 * torch.pi * 440 * 2 ** ((midi - 69) / 12) * time).sin()
        assert chroma(wave[None])[0].argmax(-1).tolist() == [wanted] * (1 + 2 * RATE // HOP)


def test_what_is_no_audio_is_refused() -> None:
    for wrong in (torch.zeros(10), torch.zeros(1, 0), torch.zeros(1, 1, 9)):
        with pytest.raises(ValueError, match="audio"):
            chroma(wrong)
    with pytest.raises(ValueError, match="not numbers"):
        chroma(torch.full((1, 9), torch.nan))
