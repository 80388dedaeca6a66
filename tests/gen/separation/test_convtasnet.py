"""Conv-TasNet against torchaudio's, whose outputs ``tests/golden`` keeps, and by what it promises."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from descant.gen.separation import pretrained
from descant.gen.separation.contract import Layout
from descant.gen.separation.convtasnet import ConvTasNet, ConvTasNetConfig, CumulativeNorm
from descant.gen.separation.network import NetworkSeparator, consistent, estimate
from descant.gen.separation.registry import get

from .made import convtasnet, sound

GOLDEN = Path(__file__).parents[2] / "golden"


def made() -> ModuleType:
    """The file that made the golden outputs, for its weights and its sounds."""
    spec = importlib.util.spec_from_file_location("convtasnet_made", GOLDEN / "convtasnet_made.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("seed", "mask"), [(0, "sigmoid"), (1, "relu")])
def test_it_computes_what_torchaudio_computes(seed: int, mask: str) -> None:
    golden = made()
    stems, kernel, filters, taps, width, hidden, blocks, repeats = golden.SIZES[mask]
    config = ConvTasNetConfig(
        stems=tuple("abc"[:stems]), channels=1, kernel=kernel, filters=filters, taps=taps, width=width, hidden=hidden,
        blocks=blocks, repeats=repeats, mask=mask, consistent=False,
    )  # fmt: skip
    model = ConvTasNet(config).eval()
    golden.drawn(model, seed)
    with torch.no_grad():
        found = model(golden.sound(seed, 203))
    with np.load(GOLDEN / "convtasnet.npz") as data:
        wanted = torch.from_numpy(data[mask])
    assert found.shape == (2, stems, 1, 203)
    # sums of some hundred float32 products in another order
    assert torch.allclose(found[:, :, 0], wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_cumulative_norm_is_the_norm_of_what_came_before() -> None:
    norm, x = CumulativeNorm(3), torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0)) * 3 + 1
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.5, 3.0]))
    found = norm(x)
    for frame in range(9):
        seen = x[:, :, : frame + 1]
        mean, spread = seen.mean((1, 2)), seen.var((1, 2), unbiased=False).sqrt()
        wanted = (x[:, :, frame] - mean[:, None]) / spread[:, None] * norm.weight + norm.bias
        # the first frame of three channels is a small sample: its deviation is not
        assert torch.allclose(found[:, :, frame], wanted, atol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_a_causal_network_does_not_look_ahead(causal: bool) -> None:
    model = convtasnet(causal=causal)
    wav = sound(0.3, 16000)[None]
    changed = wav.clone()
    place = 3000
    changed[..., place:] = sound(0.3, 16000, seed=3)[None][..., place:]
    with torch.no_grad():
        one, two = model(wav), model(changed)
    safe = place - model.config.kernel
    assert torch.allclose(one[..., :safe], two[..., :safe], atol=1e-6) == causal


def test_the_context_is_what_masks_depend_on() -> None:
    config = convtasnet().config
    # norms over everything aside: two repeats of blocks that look 1 and 2 frames to each side
    assert config.context == 2 * 3 * config.hop + config.kernel
    wide = ConvTasNetConfig(kernel=16, blocks=8, repeats=3, taps=3, causal=True)
    assert wide.context == 3 * 255 * 2 * 8 + 16


@pytest.mark.parametrize("length", [1, 7, 16, 333])
def test_stems_are_as_long_as_the_mixture_and_add_up_to_it(length: int) -> None:
    wav = sound(0.1, 16000)[None, :, :length]
    with torch.no_grad():
        stems = convtasnet()(wav)
    assert stems.shape == (1, 3, 2, length)
    assert torch.allclose(stems.sum(1), wav, atol=1e-5)
    with torch.no_grad():
        loose = convtasnet(consistent=False)(wav)
    assert not torch.allclose(loose.sum(1), wav, atol=1e-3)


@pytest.mark.parametrize("is_consistent", [True, False])
def test_stems_asked_for_are_those_of_all(is_consistent: bool) -> None:
    model, wav = convtasnet(consistent=is_consistent), sound(0.1, 16000)[None]
    with torch.no_grad():
        every, two = model(wav), model(wav, [2, 0])
    assert torch.allclose(two, every[:, [2, 0]], atol=1e-5)


def test_what_is_left_is_shared_evenly() -> None:
    stems, mix = torch.zeros(1, 2, 1, 4), torch.arange(4.0)[None, None]
    stems[0, 0] = 1.0
    assert torch.equal(consistent(stems, mix).sum(1), mix)
    assert torch.equal(consistent(stems, mix)[0, 0, 0], 1 + (mix[0, 0] - 1) / 2)


def test_training_hears_the_level_that_the_engine_makes() -> None:
    model = convtasnet()
    wav = sound(0.2, 16000)
    method = NetworkSeparator(model, Layout(chunk=10.0, before=0.0, after=0.0, fade=0.0))
    flat = wav.flatten()
    sign = float(flat[flat.abs().argmax()].sign())
    with torch.no_grad():
        direct = estimate(model, wav[None] * sign)[0] * sign
        assert torch.allclose(estimate(model, 0.01 * wav[None]), 0.01 * estimate(model, wav[None]), atol=1e-6)
    assert torch.allclose(method.separate(wav, 16000).stacked, direct, atol=1e-5)


def test_an_exported_network_is_a_model_of_the_front_door(tmp_path: Path) -> None:
    model = convtasnet(causal=True)
    folder = pretrained.save(model, tmp_path / "a", half=False)
    method = get(folder)
    assert isinstance(method, NetworkSeparator) and method.network.config == model.config
    wav = sound(0.2, 16000)
    alone = NetworkSeparator(model).separate(wav, 16000)
    assert all(torch.equal(value, method.separate(wav, 16000)[name]) for name, value in alone.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kernel": 15}, "even"), ({"taps": 2}, "odd"), ({"mask": "tanh"}, "sigmoid or relu"),
        ({"stems": ("a", "a")}, "different names"), ({"channels": 3}, "1 or 2"), ({"blocks": 40}, "1 to 20"),
        ({"repeats": 10**9}, "at most 512"),
    ],
)  # fmt: skip
def test_sizes_are_checked(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ConvTasNetConfig(**changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need sound"):
        convtasnet()(torch.zeros(1, 3, 10))
