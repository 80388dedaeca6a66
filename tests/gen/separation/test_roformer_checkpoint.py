"""Checkpoint files with settings beside them, and what is said of those that cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from descant.codec.audio import Audio, write
from descant.gen.cli import main
from descant.gen.separation import pretrained
from descant.gen.separation.registry import get, separate
from descant.gen.separation.roformer_checkpoint import build, convert, read
from descant.gen.separation.roformer_separator import RoformerSeparator

from .made import sound
from .roformer_made import filled, golden, settings

_CASE = golden()["bs-0.4.1"]
_YAML = """
audio:
  chunk_size: 8192
  sample_rate: 16000
model:
  dim: 6
  stereo: true
  freqs_per_bands: !!python/tuple
    - 2
    - 3
    - 4
    - 8
    - 16
  stft_n_fft: 64
  stft_win_length: 64
  stft_hop_length: 16  # samples
  flash_attn: True
training:
  instruments: ['vocals', 'other']
  target_instrument: vocals
inference:
  num_overlap: 4
augmentations:
  all: !!python/object:os.system {}
"""


def state() -> dict[str, Tensor]:
    return filled(_CASE["shapes"])


def saved(folder: Path, held: Any, name: str = "model.ckpt", text: str = _YAML) -> Path:
    path = folder / name
    torch.save(held, path)
    path.with_suffix(".yaml").write_text(text)
    return path


def outputs(method: RoformerSeparator) -> Tensor:
    return method.separate(sound(0.8, 16000), 16000)["vocals"]


def test_a_checkpoint_with_its_settings_is_a_model(tmp_path: Path) -> None:
    method = get(saved(tmp_path, state()))
    assert isinstance(method, RoformerSeparator)
    assert method.stems == ("vocals", "other") and method.rate == 16000 and method.grain == 16
    config = method.network.config
    assert config.seconds == pytest.approx(0.512) and config.overlap == 4 and config.bands == (2, 3, 4, 8, 16)
    wav = sound(0.8, 16000)
    stems = separate(wav, 16000, model=tmp_path / "model.ckpt")
    assert float((stems["vocals"] + stems["other"] - wav).abs().max()) < 1e-5
    assert float(stems["vocals"].abs().max()) > 0.05


_NESTS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "state_dict": lambda held: {"state_dict": held, "epoch": 3},
    "wrapped": lambda held: {"state_dict": {f"model.{name}": value for name, value in held.items()}},
    "parallel": lambda held: {f"module.{name}": value for name, value in held.items()},
    "averaged": lambda held: {"state_dict": {name: value * 0 for name, value in held.items()}, "ema_state_dict": held},
    "average-file": lambda held: {
        **{f"online_model.{name}": value * 0 for name, value in held.items()},
        **{f"ema_model.{name}": value for name, value in held.items()},
        "initted": torch.tensor(True),
    },
    "shared": lambda held: {**held, "linear_62_bias_0": torch.zeros(24), "linear_64_bias_0": torch.zeros(6)},
}


@pytest.mark.parametrize("nest", sorted(_NESTS))
def test_weights_are_found_where_programs_put_them(tmp_path: Path, nest: str) -> None:
    wanted = build(state(), settings(_CASE["model"], ["vocals", "other"], "vocals")).state_dict()
    found = read(saved(tmp_path, _NESTS[nest](state()))).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_safetensors_and_json_do_as_well(tmp_path: Path) -> None:
    wanted = outputs(RoformerSeparator(read(saved(tmp_path, state()))))
    path = tmp_path / "other.safetensors"
    save_file(state(), path)
    told = {**settings(_CASE["model"], ["vocals", "other"], "vocals"), "inference": {"num_overlap": 4}}
    path.with_suffix(".json").write_text(json.dumps(told))
    assert torch.equal(outputs(RoformerSeparator(read(path))), wanted)


def test_a_converted_checkpoint_needs_nothing_beside_it(tmp_path: Path) -> None:
    path = saved(tmp_path, state())
    folder = convert(path, tmp_path / "folder")
    method = get(folder)
    assert isinstance(method, RoformerSeparator)
    assert torch.equal(outputs(method), outputs(RoformerSeparator(read(path))))
    assert pretrained.load(folder)[1] == {"source": "model.ckpt"}
    small = convert(path, tmp_path / "small", half=True)
    assert (small / "model.safetensors").stat().st_size < 0.7 * (folder / "model.safetensors").stat().st_size


def test_the_command_line_takes_checkpoints_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path, state())
    assert main(["convert", str(path), "--half", "--json", "-o", str(tmp_path / "folder")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["stems"] == ["vocals", "other"] and told["parameters"] > 1000
    write(tmp_path / "song.wav", Audio(sound(0.5, 16000), 16000))
    for model in (path, tmp_path / "folder"):
        out = tmp_path / "stems" / model.name
        assert main(["separate", str(tmp_path / "song.wav"), "--model", str(model), "--quiet", "-o", str(out)]) == 0
        assert sorted(file.name for file in (out / "song").iterdir()) == ["other.flac", "vocals.flac"]
    assert main(["convert", str(path), "--codec", "x", "-o", str(tmp_path / "folder")]) == 2
    path.with_suffix(".yaml").unlink()
    assert main(["convert", str(path), "-o", str(tmp_path / "again")]) == 1
    assert "needs its settings" in capsys.readouterr().err and not (tmp_path / "again").exists()


def test_biases_of_attention_count(tmp_path: Path) -> None:
    held = state()
    plain = outputs(RoformerSeparator(read(saved(tmp_path, held))))
    held["layers.0.0.layers.0.0.to_qkv.bias"] = torch.linspace(-1, 1, 24)
    held["layers.1.1.layers.0.0.to_out.0.bias"] = torch.linspace(-1, 1, 6)
    changed = outputs(RoformerSeparator(read(saved(tmp_path, held))))
    assert float((changed - plain).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"dim": 8}, "say dim: 8, the tensors 6"),
        ({"depth": 3}, "say depth: 3, the tensors 2"),
        ({"num_stems": 4}, "say num_stems: 4, the tensors 1"),
        ({"linear_transformer_depth": 1}, "linear_transformer_depth"),
        ({"stft_n_fft": 128}, "do not fit"),
        ({"stft_n_fft": 1 << 40, "num_bands": 5}, "whole number"),
        ({"stft_hop_length": "fast"}, "stft_hop_length: 'fast' .* whole number"),
        ({"stft_hop_length": 60}, "hold two"),
        ({"stereo": False}, "do not fit"),
        ({"freqs_per_bands": (1, 2)}, "do not fit"),
        ({"freq_range": "all"}, "two numbers"),
        ({"use_pope": True}, "use_pope: True are not supported"),
        ({"num_residual_streams": 4}, "say num_residual_streams: 4, the tensors 1"),
        ({"num_residual_fracs": 2}, "num_residual_fracs: 2 are not supported"),
        ({"new_thing": 2}, "new_thing: 2 are not supported"),
    ],
)
def test_settings_that_do_not_fit_are_named(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(state(), settings({**_CASE["model"], **model}, ["vocals", "other"], "vocals"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda held: held.pop("final_norm.gamma") * 0 + 1, ""),
        (lambda held: held.pop("layers.1.0.layers.0.1.net.4.bias"), r"lacks layers\.1\.0\.layers\.0\.1\.net\.4\.bias"),
        (lambda held: held.update({"layers.0.0.conv.weight": torch.zeros(2)}), r"layers\.0\.0\.conv\.weight are not"),
        (lambda held: held.update({"layers.0.0.layers.0.0.static_alpha": torch.zeros(2)}), "static_alpha are not"),
        (lambda held: held.update({"layers.0.0.dynamic_alpha_scale": torch.zeros(1)}), "streams without bounds"),
        (lambda held: held.update({"layers.0.0.layers.0.0.to_qkv.lora_A": torch.zeros(2)}), "lora"),
        (lambda held: held.update({"layers.0.1.layers.0.1.net.1.weight": torch.zeros(5, 6)}), "feeds.0.up.weight have"),
        (lambda held: held["final_norm.gamma"].fill_(torch.nan), "not finite"),
        (lambda held: held["layers.1.0.layers.0.0.rotary_embed.freqs"].mul_(2), "of their own in every layer"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: Callable[[dict[str, Tensor]], Any], said: str) -> None:
    held = state()
    change(held)
    told = settings(_CASE["model"], ["vocals", "other"], "vocals")
    if not said:  # a network without this norm is another one, not a damaged one
        assert not build(held, told).config.final_norm
        return
    with pytest.raises(ValueError, match=said):
        build(held, told)


@pytest.mark.parametrize("name", sorted(golden()))
def test_shapes_tell_what_settings_leave_out(name: str) -> None:
    row = golden()[name]
    model = row["model"]
    stems = [f"stem{number}" for number in range(model.get("num_stems", 1))]
    shapes = {"dim", "depth", "heads", "dim_head", "num_stems", "num_bands", "freqs_per_bands", "num_residual_streams"}
    shapes |= {"mask_estimator_depth", "mlp_expansion_factor", *(key for key in model if "transformer_depth" in key)}
    few = {key: value for key, value in {"sample_rate": 16000, **model}.items() if key not in shapes}
    whole = build(filled(row["shapes"]), settings(model, stems)).config
    assert build(filled(row["shapes"]), settings(few, stems)).config == whole
    assert bool(whole.mel_bands) == name.startswith("mel")


@pytest.mark.parametrize(
    ("names", "target", "stems"),
    [
        (["vocals", "other"], "vocals", ("vocals", "other")),
        (["vocals", "drums", "bass"], "drums", ("drums",)),
        (["vocals"], None, ("vocals",)),
    ],
)
def test_stems_have_the_names_of_the_settings(names: list[str], target: str | None, stems: tuple[str, ...]) -> None:
    assert RoformerSeparator(build(state(), settings(_CASE["model"], names, target))).stems == stems


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({}, "name no stems"),
        ({"instruments": ["a", "b"]}, "name 2 stems, .* masks for 1"),
        ({"instruments": 3}, "no stems"),
    ],
)
def test_stems_without_names_are_refused(training: dict[str, Any], said: str) -> None:
    told = settings(_CASE["model"], ["a"])
    told["training"] = training
    with pytest.raises(ValueError, match=said):
        build(state(), told)


def test_a_checkpoint_alone_says_what_it_needs(tmp_path: Path) -> None:
    path = saved(tmp_path, state())
    path.with_suffix(".yaml").unlink()
    with pytest.raises(ValueError, match=r"model\.ckpt needs its settings.*model\.yaml"):
        get(path)
    path.with_suffix(".yaml").write_text("audio:\n  chunk_size: 3\n")
    with pytest.raises(ValueError, match="no section 'model'"):
        get(path)
    path.with_suffix(".yaml").write_text("model:\n  dim: &a 3\n")
    with pytest.raises(ValueError, match=r"model\.yaml: line 2"):
        get(path)


class _Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("hostile-was-here"),))


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is no checkpoint of .*RoFormer"):
        get(saved(tmp_path, {"conv.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"more than tensors \(getattr\): save its state dict"):
        get(saved(tmp_path, {**state(), "evil": _Hostile()}))
    assert not Path("hostile-was-here").exists()
    path = saved(tmp_path, state())
    for damage in (path.read_bytes()[:5000], b"", b"hello"):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"model\.ckpt"):
            get(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="a checkpoint is a mapping"):
        get(path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    with pytest.raises(ValueError, match="damaged"):
        get(cut)
