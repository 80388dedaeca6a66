import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import descant.codec
from descant.codec import pretrained
from descant.codec.model import Codec, nano

from .alike import check_codes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    pretrained.save(Codec(nano()), tmp_path / "m", half=True)
    return tmp_path / "m"


def test_round_trip_gives_the_same_codes_and_audio(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = Codec(nano()).eval()
    pretrained.save(codec, tmp_path / "m")
    loaded = descant.codec.load(tmp_path / "m")
    wav = torch.randn(1, 1, 6400)
    codes = codec.encode(wav)
    check_codes(codec, wav, loaded.encode(wav), codes)
    torch.testing.assert_close(loaded.decode(codes), codec.decode(codes), atol=1e-6, rtol=0)


def test_loading_twice_gives_the_same_state(folder: Path) -> None:
    a, b = (descant.codec.load(folder).state_dict() for _ in range(2))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_half_storage_computes_in_float32(folder: Path) -> None:
    codec = descant.codec.load(folder)
    assert {p.dtype for p in codec.parameters()} == {torch.float32}
    assert load_file(folder / "model.safetensors")["quantiser.books.0.embed"].dtype == torch.float32


def test_no_half_written_file_stays(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        descant.codec.load(folder)


def test_truncated_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        descant.codec.load(folder)


def test_missing_tensor_and_nan(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "decoder.leave.bias"
    save_file({**tensors, name: torch.full_like(tensors[name], torch.nan)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"NaN.*{name}"):
        descant.codec.load(folder)
    tensors.pop(name)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=name):
        descant.codec.load(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x", "version": 1, "config": {}}', "\x00"])
def test_bad_header(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="not a codec description"):
        descant.codec.load(folder)


def test_newer_version_is_refused(folder: Path) -> None:
    header = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**header, "version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        descant.codec.load(folder)
