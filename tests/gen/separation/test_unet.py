"""The U-Net on magnitudes: sizes, masks, and that it can learn them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from descant.codec.stft import analyse
from descant.gen.separation import pretrained
from descant.gen.separation.network import NetworkSeparator
from descant.gen.separation.registry import get
from descant.gen.separation.unet import MaskUNet, MaskUNetConfig

from .made import sound, unet


def test_the_sizes_are_those_of_the_paper() -> None:
    # 512 bins and 128 frames become 8 and 2 after six layers; features double from 16 (Jansson et al., section 3.2)
    config = MaskUNetConfig(
        stems=("vocals", "rest"), rate=8192, channels=1, window=1024, hop=256, widths=(16, 32, 64, 128, 256, 512)
    )
    model = MaskUNet(config).eval()
    x, sizes = torch.zeros(1, 1, 128, 512), []
    with torch.no_grad():
        for layer in model.down:
            x = layer(x)
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [(16, 64, 256), (32, 32, 128), (64, 16, 64), (128, 8, 32), (256, 4, 16), (512, 2, 8)]
    with torch.no_grad():
        assert model.masks(torch.rand(1, 1, 128, 513)).shape == (1, 2, 1, 128, 513)


@pytest.mark.parametrize("mask", ["softmax", "sigmoid"])
@pytest.mark.parametrize("length", [1, 100, 128, 5001])
def test_stems_are_as_long_as_the_mixture_and_add_up_to_it(mask: str, length: int) -> None:
    wav = sound(0.5, 16000)[None, :, :length]
    with torch.no_grad():
        stems = unet(mask=mask)(wav)
    assert stems.shape == (1, 3, 2, length)
    assert torch.allclose(stems.sum(1), wav, atol=1e-5)


@pytest.mark.parametrize("mask", ["softmax", "sigmoid"])
def test_masks_are_shares(mask: str) -> None:
    model = unet(mask=mask)
    with torch.no_grad():
        masks = model.masks(analyse(sound(0.32, 16000)[None, :, :5120], 256, 64).abs())
    assert masks.shape == (1, 3, 2, 80, 129)
    assert float(masks.min()) >= 0 and float(masks.max()) <= 1
    assert torch.allclose(masks.sum(1), torch.ones(()), atol=1e-5) == (mask == "softmax")
    assert float(masks.std()) > 0.01


@pytest.mark.parametrize("mask", ["softmax", "sigmoid"])
def test_stems_asked_for_are_those_of_all(mask: str) -> None:
    model, wav = unet(mask=mask), sound(0.2, 16000)[None]
    with torch.no_grad():
        assert torch.allclose(model(wav, [2, 0]), model(wav)[:, [2, 0]], atol=1e-5)


def test_an_item_does_not_hear_its_neighbours() -> None:
    model = unet()
    one, two = sound(0.2, 16000)[None], 5 * sound(0.2, 16000, seed=2)[None]
    with torch.no_grad():
        assert torch.allclose(model(torch.cat([one, two]))[0], model(one)[0], atol=1e-5)


def test_it_learns_which_frequencies_belong_to_whom() -> None:
    torch.manual_seed(0)
    model = unet(stems=("low", "high"), channels=1).train()
    time = torch.arange(4096) / 16000
    low, high = torch.sin(2 * torch.pi * 300 * time), torch.sin(2 * torch.pi * 4000 * time)
    stems = torch.stack([low, high])[None, :, None]
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    errors = []
    for _ in range(30):
        optimiser.zero_grad()
        error = (model(stems.sum(1)) - stems).square().mean()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.05 * errors[0]


def test_an_exported_network_is_a_model_of_the_front_door(tmp_path: Path) -> None:
    model, wav = unet(mask="sigmoid"), sound(0.2, 16000)
    method = get(pretrained.save(model, tmp_path / "a", half=False))
    assert isinstance(method, NetworkSeparator) and method.stems == model.config.stems
    alone = NetworkSeparator(model).separate(wav, 16000)
    assert all(torch.equal(value, method.separate(wav, 16000)[name]) for name, value in alone.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window": 100, "hop": 25}, "cannot halve"), ({"hop": 500}, "multiple of hop"), ({"kernel": 4}, "odd"),
        ({"mask": "relu"}, "softmax or sigmoid"), ({"drop": 1.0}, "below 1"), ({"stems": ("a",)}, "two or more"),
    ],
)  # fmt: skip
def test_sizes_are_checked(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MaskUNetConfig(**changes)  # type: ignore[arg-type]
