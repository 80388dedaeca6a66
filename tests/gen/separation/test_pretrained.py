"""Separators on disk, and by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from descant.gen.separation import pretrained
from descant.gen.separation.bandsplit_separator import BandSplitSeparator
from descant.gen.separation.registry import get, separate

from .made import network, sound


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    model = network(causal=True)
    folder = pretrained.save(model, tmp_path / "one", half=False, about={"trained_steps": 7})
    found, about = pretrained.load(folder)
    assert found.config == model.config and about == {"trained_steps": 7}
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())
    assert not list(folder.glob("*.part"))


def test_half_precision_is_half_the_size_and_nearly_the_same(tmp_path: Path) -> None:
    model, wav = network(), sound(0.3, 16000)[None]
    sizes = []
    for half in (False, True):
        folder = pretrained.save(model, tmp_path / str(half), half)
        sizes.append((folder / "model.safetensors").stat().st_size)
        assert torch.allclose(pretrained.load(folder)[0](wav), model(wav), atol=3e-3 if half else 1e-6)
    assert sizes[1] < 0.6 * sizes[0]


def test_a_folder_is_a_model_of_the_front_door(tmp_path: Path) -> None:
    pretrained.save(network(), tmp_path)
    wav = sound(0.3, 16000)
    found = separate(wav, 16000, model=tmp_path, stems="bass,drums")
    assert tuple(found) == ("bass", "drums")
    method = get(str(tmp_path))
    assert isinstance(method, BandSplitSeparator)
    assert torch.equal(separate(wav, 16000, model=method)["bass"], found["bass"])


def test_damaged_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config.json is missing"):
        pretrained.load(tmp_path)
    folder = pretrained.save(network(), tmp_path / "a")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="no separator of this version"):
        pretrained.load(folder)
    folder = pretrained.save(network(), tmp_path / "b")
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="format is not"):
        pretrained.load(folder)
    folder = pretrained.save(network(), tmp_path / "c")
    header = json.loads((folder / "config.json").read_text())
    header["config"]["colour"] = 1
    (folder / "config.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match="unknown settings colour"):
        pretrained.load(folder)
    model = network()
    with torch.no_grad():
        model.norm.bias[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        pretrained.load(pretrained.save(model, tmp_path / "d"))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no separator 'spleeter'"):
        get("spleeter")
    with pytest.raises(ValueError, match="networks are saved in this format, not Linear"):
        pretrained.save(torch.nn.Linear(1, 1), "nowhere")
