"""The band-split network."""

from __future__ import annotations

import itertools

import pytest
import torch

from descant.gen.separation.bandsplit import BandSplit, BandSplitConfig

from .made import network, sound, tiny


def test_the_default_is_small() -> None:
    made = BandSplit(BandSplitConfig())
    assert sum(value.numel() for value in made.parameters()) <= 6_000_000


@pytest.mark.parametrize("config", [BandSplitConfig(), tiny(), tiny(bands=1), tiny(bands=64), tiny(window=4096)])
def test_bands_cover_all_bins_and_widen(config: BandSplitConfig) -> None:
    edges = config.edges
    widths = [b - a for a, b in itertools.pairwise(edges)]
    assert edges[0] == 0 and edges[-1] == config.window // 2 + 1 and len(widths) == config.bands
    assert min(widths) >= 2 and widths[-1] >= widths[0]


@pytest.mark.parametrize("channels", [1, 2])
def test_stems_add_up_to_the_mix(channels: int) -> None:
    wav = sound(0.5, 16000, channels)[None]
    made = network(channels=channels)(wav)
    assert made.shape == (1, 4, channels, 8000)
    assert (made.sum(1) - wav).abs().max() < 1e-5
    assert made.std(1).max() > 1e-3  # and are not all the same


def test_stems_asked_for_are_those_of_the_whole() -> None:
    wav, model = sound(0.5, 16000)[None], network()
    whole = model(wav)
    assert torch.allclose(model(wav, [3, 1]), whole[:, [3, 1]], atol=1e-6)


@pytest.mark.parametrize("gain", [-1.0, 100.0, 1e-3, -0.2])
def test_masks_do_not_depend_on_gain_or_polarity(gain: float) -> None:
    wav, model = sound(0.5, 16000)[None], network()
    assert torch.allclose(model(gain * wav), gain * model(wav), rtol=0, atol=2e-5 * abs(gain))


def test_items_of_a_batch_do_not_see_each_other() -> None:
    wav, model = torch.stack([sound(0.5, 16000), sound(0.5, 16000, seed=1)]), network()
    both = model(wav)
    for row, item in zip(both, wav, strict=True):
        assert torch.allclose(row, model(item[None])[0], atol=1e-5)


def test_what_is_beyond_the_context_has_no_say() -> None:
    model = network()
    reach = model.config.context
    wav = sound(1.0, 16000)[None]
    other = wav.clone()
    other[..., 8000 + reach :] = sound(1.0, 16000, seed=3)[:, 8000 + reach :]
    other[..., : 8000 - reach] *= -0.3
    assert reach < 6000
    assert torch.allclose(model(wav)[..., 8000], model(other)[..., 8000], atol=1e-6)


def test_a_causal_network_does_not_look_ahead() -> None:
    wav = sound(1.0, 16000)[None]
    other = wav.clone()
    other[..., 10000:] = sound(1.0, 16000, seed=3)[:, 10000:]
    for causal, same in ((True, True), (False, False)):
        model = network(causal=causal)
        early = slice(0, 10000 - model.config.window)
        assert torch.allclose(model(wav)[..., early], model(other)[..., early], atol=1e-6) is same


def test_silence_is_silent_and_gradients_are_finite() -> None:
    model = network()
    assert not model(torch.zeros(1, 2, 3000)).any()
    wav = torch.zeros(2, 2, 3000)
    wav[0] = sound(3000 / 16000, 16000)
    model(wav).square().sum().backward()
    gradients = [value.grad for value in model.parameters()]
    assert all(grad is not None and bool(torch.isfinite(grad).all()) for grad in gradients)


def test_it_learns_to_tell_two_sounds_apart() -> None:
    from descant.gen.separation.losses import level

    torch.manual_seed(0)
    model = BandSplit(tiny(stems=("low", "high")))
    time = torch.arange(8000) / 16000
    pitch = torch.linspace(100, 300, 4)[:, None]
    low, high = torch.sin(2 * torch.pi * pitch * time), torch.sin(2 * torch.pi * 11 * pitch * time)
    stems = 0.1 * torch.stack([low, high], 1)[:, :, None].expand(-1, -1, 2, -1)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    with torch.no_grad():
        first = float(level(model(stems.sum(1)), stems))
    for _ in range(25):
        optimiser.zero_grad()
        loss = level(model(stems.sum(1)), stems)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert loss.item() < first - 1.0  # ten decibels


@pytest.mark.parametrize(("changes", "said"), [
    ({"stems": ("a",)}, "two or more"), ({"stems": ("a", "a")}, "different names"), ({"channels": 3}, "1 or 2"),
    ({"hop": 300}, "even multiple"), ({"bands": 65}, "at most 64"), ({"reach": ()}, "positive"),
])  # fmt: skip
def test_bad_sizes_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(**changes)


def test_wrong_shapes_are_refused() -> None:
    for shape in ((2, 100), (1, 1, 100), (1, 2, 0)):
        with pytest.raises(ValueError, match=r"\[batch, 2, samples\]"):
            network()(torch.zeros(*shape))
