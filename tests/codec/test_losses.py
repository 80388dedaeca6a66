import librosa
import numpy as np
import pytest
import torch

from descant.codec.losses import (
    MEL_SCALES,
    PHASE_SCALES,
    VIEW_WEIGHTS,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    spectral_loss,
    view_weights,
    views,
    waveform_loss,
)


def _wav(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 1, 6400, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_identical_audio_costs_nothing() -> None:
    mel, phase = spectral_loss(_wav(), _wav(), 32000)
    assert float(mel) == 0
    assert float(phase) < 1e-3


def test_only_the_phase_term_hears_a_polarity_flip() -> None:
    mel, phase = spectral_loss(-_wav(), _wav(), 32000)
    assert float(mel) < 1e-5
    assert float(phase) > 1.5


def test_phase_term_is_relative_to_level() -> None:
    loud = spectral_loss(_wav() + 0.1 * _wav(1), _wav(), 32000)[1]
    quiet = spectral_loss(0.1 * (_wav() + 0.1 * _wav(1)), 0.1 * _wav(), 32000)[1]
    torch.testing.assert_close(loud, quiet, rtol=0.05, atol=0)


def test_gradient_is_finite_in_silence() -> None:
    output = torch.zeros(1, 1, 6400, requires_grad=True)
    mel, phase = spectral_loss(output, torch.zeros(1, 1, 6400), 32000)
    (mel + phase).backward()
    assert output.grad is not None and torch.isfinite(output.grad).all()


def test_mel_and_phase_are_what_librosa_computes() -> None:
    ours, theirs = _wav(1)[:1], _wav()[:1]
    scales = [(512, 80), (128, 20)]
    mels, phases = [], []
    for window, bands in scales:
        bank = librosa.filters.mel(sr=32000, n_fft=window, n_mels=bands)
        spectra = [
            librosa.stft(x[0, 0].numpy(), n_fft=window, hop_length=window // 4, center=False) for x in (ours, theirs)
        ]
        levels = [np.log10(np.maximum(bank @ np.sqrt(np.abs(x) ** 2 + 1e-10), 1e-5)) for x in spectra]
        mels.append(np.abs(levels[0] - levels[1]).mean())
        phases.append(np.abs(spectra[0] - spectra[1]).mean() / (np.abs(spectra[1]).mean() + 1e-3))
    mel, phase = spectral_loss(ours, theirs, 32000, scales)
    assert float(mel) == pytest.approx(np.mean(mels), rel=1e-4)
    assert float(phase) == pytest.approx(np.mean(phases), rel=1e-3)


def test_the_scales_go_down_to_a_hop_of_eight_and_up_to_long_windows() -> None:
    assert min(window // 4 for window, _ in MEL_SCALES) == 8
    assert set(PHASE_SCALES) <= {window for window, _ in MEL_SCALES}


def test_a_batch_costs_the_mean_of_its_items() -> None:
    # so that processes which share a batch may average their gradients
    target, output = torch.cat([_wav(0), 0.01 * _wav(1)]), torch.cat([_wav(2), _wav(3)])
    whole = spectral_loss(output, target, 32000)
    parts = [spectral_loss(output[i : i + 1], target[i : i + 1], 32000) for i in range(4)]
    for place in (0, 1):
        torch.testing.assert_close(whole[place], torch.stack([part[place] for part in parts]).mean())
    real, fake = torch.rand(4, 3, 5), torch.rand(4, 3, 5)
    each = torch.stack([feature_loss([[real[i : i + 1]]], [[fake[i : i + 1]]]) for i in range(4)])
    torch.testing.assert_close(feature_loss([[real]], [[fake]]), each.mean())


def test_stereo_is_seen_from_four_sides() -> None:
    left, right = _wav(0), _wav(1)
    seen = views(torch.cat([left, right], 1))
    torch.testing.assert_close(seen, torch.cat([(left + right) / 2, (left - right) / 2, left, right], 1))
    assert views(left) is left
    assert sum(VIEW_WEIGHTS) == pytest.approx(1) and view_weights(1) == (1.0,)
    with pytest.raises(ValueError, match="2 weights for 4 channels"):
        spectral_loss(seen, seen, 32000, weights=(0.5, 0.5))


def test_a_lost_side_signal_costs_more_seen_from_four_sides_than_from_two() -> None:
    # a narrow image: the side is 20 dB below the middle, and the decoder drops it
    middle, side = _wav(0), 0.1 * _wav(1)
    stereo, mono = torch.cat([middle + side, middle - side], 1), torch.cat([middle, middle], 1)
    two = spectral_loss(mono, stereo, 32000)
    four = spectral_loss(views(mono), views(stereo), 32000, weights=view_weights(2))
    assert float(four[0]) > 3 * float(two[0]) and float(four[1]) > 3 * float(two[1])


def test_samples_are_compared_by_their_distance() -> None:
    assert float(waveform_loss(torch.full((2, 1, 4), 0.5), torch.zeros(2, 1, 4))) == 0.5


def test_features_are_compared_relative_to_the_real_ones() -> None:
    real, fake = torch.ones(1, 4), torch.full((1, 4), 1.5)
    torch.testing.assert_close(feature_loss([[real]], [[fake]]), torch.tensor(0.5))
    torch.testing.assert_close(feature_loss([[100 * real]], [[100 * fake]]), torch.tensor(0.5))

    def unscaled(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        # AudioCraft: the scale is computed and then not used
        _ = real.abs().mean()
        return (fake - real).abs().mean()

    assert float(unscaled(100 * real, 100 * fake)) != pytest.approx(0.5)


def test_no_gradient_reaches_the_real_features() -> None:
    real, fake = torch.ones(1, 4, requires_grad=True), torch.zeros(1, 4, requires_grad=True)
    feature_loss([[real]], [[fake]]).backward()
    assert real.grad is None and fake.grad is not None


def test_hinge() -> None:
    assert float(discriminator_loss([torch.tensor([2.0])], [torch.tensor([-2.0])])) == 0
    assert float(discriminator_loss([torch.tensor([0.0])], [torch.tensor([0.0])])) == 2
    assert float(adversarial_loss([torch.tensor([3.0])])) == -3


def test_least_squares() -> None:
    one, zero, half = torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0.5])
    assert float(discriminator_loss([one], [zero], "lsgan")) == 0
    assert float(discriminator_loss([half], [half], "lsgan")) == 0.5
    assert float(adversarial_loss([one], "lsgan")) == 0 and float(adversarial_loss([zero], "lsgan")) == 1
    with pytest.raises(ValueError, match="'hinge' or 'lsgan'"):
        adversarial_loss([one], "wgan")
