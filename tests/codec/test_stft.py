import librosa
import numpy as np
import pytest
import torch

from descant.codec.stft import analyse, chroma_filters, mel, mel_filters, spectra, stft, synthesise


@pytest.mark.parametrize(("rate", "n_fft", "bands"), [(32000, 2048, 128), (44100, 1024, 80), (16000, 512, 40)])
def test_mel_filters_equal_librosa(rate: int, n_fft: int, bands: int) -> None:
    theirs = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=bands)
    np.testing.assert_allclose(mel_filters(rate, n_fft, bands).numpy(), theirs, atol=1e-7)


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (1024, 256), (32, 8)])
def test_stft_equals_librosa(n_fft: int, hop: int) -> None:
    wav = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    theirs = librosa.stft(wav.numpy(), n_fft=n_fft, hop_length=hop, pad_mode="reflect")
    np.testing.assert_allclose(stft(wav, n_fft, hop).numpy(), theirs, atol=2e-4)


def test_mel_equals_librosa() -> None:
    wav = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    theirs = librosa.feature.melspectrogram(
        y=wav.numpy(), sr=16000, n_fft=512, hop_length=128, n_mels=40, pad_mode="reflect"
    )
    np.testing.assert_allclose(mel(wav, 16000, 512, 128, 40).numpy(), theirs, rtol=1e-3, atol=1e-4)


def test_spectra_gradient_equals_torch_stft() -> None:
    wav = torch.randn(2, 700, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ours = spectra(wav, 64, 16)
    theirs = torch.stft(wav, 64, 16, window=torch.hann_window(64), center=False, return_complex=True).transpose(1, 2)
    weight = torch.randn(ours.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    (a,) = torch.autograd.grad((ours * weight).real.sum() + ours.abs().square().sum(), wav)
    (b,) = torch.autograd.grad((theirs * weight).real.sum() + theirs.abs().square().sum(), wav)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_synthesise_inverts_analyse_to_the_last_sample(count: int) -> None:
    wav = torch.randn(2, 1, 640 * count, generator=torch.Generator().manual_seed(0))
    back = synthesise(analyse(wav, 1280, 320), 1280, 320)
    torch.testing.assert_close(back, wav, atol=1e-5, rtol=0)


def test_chroma_filters_find_the_pitch_class() -> None:
    rate, n_fft = 32000, 8192
    time = torch.arange(rate) / rate
    for pitch in (57, 60, 66, 71):
        tone = torch.sin(2 * torch.pi * 440 * 2 ** ((pitch - 69) / 12) * time)
        power = stft(tone, n_fft, n_fft // 4).abs().square().mean(-1)
        assert int((chroma_filters(rate, n_fft) @ power).argmax()) == pitch % 12


def test_too_short_to_reflect_is_zero_padded() -> None:
    assert torch.isfinite(stft(torch.ones(3), 64, 16)).all()
