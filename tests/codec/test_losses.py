import torch

from descant.codec.discriminator import MultiScaleSTFT
from descant.codec.losses import adversarial_loss, discriminator_loss, feature_loss, spectral_loss


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


def test_features_are_compared_relative_to_the_real_ones() -> None:
    real, fake = [[torch.ones(4)]], [[torch.full((4,), 1.5)]]
    scaled = feature_loss([[100 * real[0][0]]], [[100 * fake[0][0]]])
    torch.testing.assert_close(feature_loss(real, fake), torch.tensor(0.5))
    torch.testing.assert_close(scaled, torch.tensor(0.5))


def test_hinge() -> None:
    assert float(discriminator_loss([torch.tensor([2.0])], [torch.tensor([-2.0])])) == 0
    assert float(discriminator_loss([torch.tensor([0.0])], [torch.tensor([0.0])])) == 2
    assert float(adversarial_loss([torch.tensor([3.0])])) == -3


def test_discriminator_learns_to_tell_noise_from_tone() -> None:
    torch.manual_seed(0)
    judge = MultiScaleSTFT((256, 128), filters=4)
    optimiser = torch.optim.Adam(judge.parameters(), 3e-3)
    time = torch.arange(3200) / 32000
    tone = torch.sin(2 * torch.pi * 440 * time).expand(2, 1, -1) * 0.3
    for step in range(40):
        noise = torch.randn(2, 1, 3200, generator=torch.Generator().manual_seed(step)) * 0.2
        loss = discriminator_loss(judge(tone)[0], judge(noise)[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 1.0  # an undecided judge pays 2
