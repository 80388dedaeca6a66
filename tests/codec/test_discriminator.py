import pytest
import torch
from torch import nn

from descant.codec.discriminator import KINDS, MultiScaleSTFT, judges
from descant.codec.discriminator_bands import MultiBand
from descant.codec.discriminator_period import PERIODS, MultiPeriod, PeriodDiscriminator
from descant.codec.losses import adversarial_loss, discriminator_loss, feature_loss


def _millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_sizes_are_those_of_the_published_networks() -> None:
    # EnCodec's five scales, DAC's three resolutions of five bands, HiFi-GAN's five periods
    assert _millions(MultiScaleSTFT((2048, 1024, 512, 256, 128))) == pytest.approx(0.47, abs=0.01)
    assert _millions(MultiBand()) == pytest.approx(1.41, abs=0.01)
    assert _millions(MultiPeriod()) == pytest.approx(41.1, abs=0.1)
    assert _millions(MultiPeriod(width=0.25)) == pytest.approx(41.1 / 16, rel=0.01)


@pytest.mark.parametrize("kind", ["stft", "bands", "period-quarter"])
def test_every_kind_learns_to_tell_noise_from_tone(kind: str) -> None:
    torch.manual_seed(0)
    jury = judges([kind], windows=(512,), filters=4)
    chosen = jury.turn(0, 1)
    optimiser = torch.optim.Adam(jury.parameters(), 2e-3)
    time = torch.arange(1600) / 16000
    tone = torch.sin(2 * torch.pi * 440 * time).expand(2, 1, -1) * 0.3
    for step in range(30):
        noise = torch.randn(2, 1, 1600, generator=torch.Generator().manual_seed(step)) * 0.2
        loss = discriminator_loss(jury(tone, chosen)[0], jury(noise, chosen)[0])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 1.2  # an undecided judge pays 2


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_sends_finite_gradients_into_the_audio_and_its_silence(kind: str) -> None:
    torch.manual_seed(0)
    jury = judges([kind], windows=(512,), filters=4)
    chosen = jury.turn(0, 1)
    wav = torch.zeros(1, 1, 1601)
    wav[..., :800] = torch.randn(800, generator=torch.Generator().manual_seed(0))
    wav.requires_grad_()
    scores, features = jury(wav, chosen)
    real = jury(torch.randn(1, 1, 1601), chosen)[1]
    (adversarial_loss(scores) + feature_loss(real, features)).backward()
    assert wav.grad is not None and torch.isfinite(wav.grad).all() and float(wav.grad.abs().sum()) > 0


def test_a_band_sees_its_own_band() -> None:
    torch.manual_seed(0)
    judge = MultiBand((512,), filters=2).scales[0]
    time = torch.arange(4096) / 16000
    low = torch.sin(2 * torch.pi * 300 * time)[None, None]
    high = torch.sin(2 * torch.pi * 7000 * time)[None, None]
    judge.requires_grad_(False)
    quiet = judge(torch.zeros_like(low))[1]
    # five layers a band: the first band's first layer moves for the low tone only, the last band's for the high one
    moves = [[float((judge(x)[1][5 * band] - quiet[5 * band]).abs().mean()) for band in (0, 4)] for x in (low, high)]
    assert moves[0][0] > 100 * moves[0][1] and moves[1][1] > 100 * moves[1][0]


def test_a_period_convolves_along_its_columns_only() -> None:
    torch.manual_seed(0)
    judge = PeriodDiscriminator(5, width=0.1)
    wav = torch.randn(1, 1, 500, generator=torch.Generator().manual_seed(0))
    moved = wav.clone()
    moved[..., 3::5] += 1.0
    change = (judge(moved)[0] - judge(wav)[0]).abs().amax((0, 1, 2))
    assert float(change[3]) > 0 and change[[0, 1, 2, 4]].tolist() == [0.0] * 4


@pytest.mark.parametrize("length", [1, 7, 11, 500])
def test_periods_take_any_length(length: int) -> None:
    scores, _ = MultiPeriod(width=0.1)(torch.randn(1, 1, length))
    assert len(scores) == len(PERIODS) and all(torch.isfinite(score).all() for score in scores)


def test_a_step_may_ask_some_judges_in_turn() -> None:
    jury = judges(["stft", "period-quarter"], windows=(512, 256, 128), filters=2)
    assert len(jury) == 8 and jury.turn(0, 0) == list(range(8)) == jury.turn(3, 9)
    asked = [index for step in range(8) for index in jury.turn(step, 3)]
    assert all(asked.count(index) == 3 for index in range(8))
    scores, features = jury(torch.randn(1, 1, 800), jury.turn(1, 3))
    assert len(scores) == len(features) == 3


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown discriminator 'waves'"):
        judges(["waves"], (512,), 4)
    with pytest.raises(ValueError, match="no discriminator"):
        judges([], (512,), 4)
    with pytest.raises(ValueError, match="period must be at least 1"):
        PeriodDiscriminator(0)
