"""Official weights in every form they come in, and files that lie."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import descant.codec
from descant.codec import originals, pretrained
from descant.codec.official import DacConfig, EncodecConfig
from descant.codec.transformers_format import config_of, describe

from .alike import check_codes
from .foreign import dac, encodec, noise, saved

SMALL = {"num_filters": 8, "hidden_size": 16, "codebook_dim": 16, "codebook_size": 64}
SMALL_DAC = {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "n_codebooks": 3, "codebook_size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(encodec("24k", **SMALL), tmp_path_factory.mktemp("m") / "encodec")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "copy").mkdir()
    for path in folder.iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "copy"


def same(folder: Path, other: Path) -> None:
    one, two = descant.codec.load(folder), descant.codec.load(other)
    wav = noise(1, 1, 3 * one.hop)
    codes = one.encode(wav)
    check_codes(one, wav, two.encode(wav), codes)
    torch.testing.assert_close(two.decode(codes), one.decode(codes), atol=1e-6, rtol=1e-5)
    assert one.fingerprint == two.fingerprint and len(one.fingerprint) == 16


def rename(folder: Path, pairs: dict[str, str]) -> None:
    tensors = load_file(folder / "model.safetensors")
    for old, new in pairs.items():
        tensors = {name.replace(old, new): value for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors")


def test_both_styles_of_weight_norm(folder: Path, copy: Path) -> None:
    new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    old = {value: key for key, value in new.items()}
    for style in (old, new):
        rename(copy, style)
        same(folder, copy)


def test_shards(folder: Path, tmp_path: Path) -> None:
    model = encodec("24k", **SMALL)
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    assert (tmp_path / "many" / "model.safetensors.index.json").is_file()
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    same(folder, tmp_path / "many")


def test_half_precision_files_compute_in_float32(folder: Path, copy: Path) -> None:
    tensors = {name: value.half() for name, value in load_file(copy / "model.safetensors").items()}
    save_file(tensors, copy / "model.safetensors")
    codec = descant.codec.load(copy)
    assert {value.dtype for value in codec.parameters()} == {torch.float32}


def test_the_codec_inside_a_musicgen(folder: Path, tmp_path: Path) -> None:
    from transformers import MusicgenConfig, MusicgenForConditionalGeneration, T5Config
    from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

    model = encodec("24k", **SMALL)
    text = T5Config(vocab_size=16, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    decoder = MusicgenDecoderConfig(vocab_size=64, hidden_size=16, ffn_dim=16, num_hidden_layers=1,
                                    num_attention_heads=2, num_codebooks=4)  # fmt: skip
    config = MusicgenConfig(
        text_encoder=text.to_dict(), audio_encoder=model.config.to_dict(), decoder=decoder.to_dict()
    )
    whole = MusicgenForConditionalGeneration(config)
    whole.audio_encoder.load_state_dict(model.state_dict())
    whole.save_pretrained(tmp_path / "musicgen")
    same(folder, tmp_path / "musicgen")


def test_our_own_format_keeps_everything(folder: Path, tmp_path: Path) -> None:
    descant.codec.load(folder).save(tmp_path / "ours")
    same(folder, tmp_path / "ours")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(ValueError, match="'descant' or 'transformers'"):
        descant.codec.load(folder).save(tmp_path / "x", format="pickle")


def test_fingerprints_tell_models_apart(folder: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = "quantizer.layers.0.codebook.embed"
    save_file({**tensors, name: tensors[name] + 1}, copy / "model.safetensors")
    first = descant.codec.load(folder)
    assert first.fingerprint != descant.codec.load(copy).fingerprint
    # the averages of training are no part of what the codec computes
    name = "quantizer.layers.0.codebook.embed_avg"
    save_file({**tensors, name: tensors[name] + 1}, copy / "model.safetensors")
    assert first.fingerprint == descant.codec.load(copy).fingerprint


def test_dac_in_every_form(tmp_path: Path) -> None:
    model = dac("44k", **SMALL_DAC)
    codec = descant.codec.load(saved(model, tmp_path / "plain"))
    model.apply_weight_norm()
    normed = descant.codec.load(saved(model, tmp_path / "normed"))
    wav = noise(1, 1, 4 * codec.hop)
    check_codes(codec, wav, normed.encode(wav), codec.encode(wav))
    torch.save(descript(model, codec.config), tmp_path / "weights.pth")
    original = descant.codec.load(tmp_path / "weights.pth")
    codes = codec.encode(wav)
    check_codes(codec, wav, original.encode(wav), codes)
    torch.testing.assert_close(original.decode(codes), normed.decode(codes), atol=1e-6, rtol=1e-5)
    original.save(tmp_path / "back", format="transformers")
    check_codes(codec, wav, descant.codec.load(tmp_path / "back").encode(wav), codes)


def descript(model: torch.nn.Module, config: DacConfig) -> dict[str, Any]:
    """The model's state as the descript-audio-codec package names it, checked against its numbering by hand."""
    unit = {"snake1": "0", "conv1": "1", "snake2": "2", "conv2": "3"}
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        parts = name.split(".")
        if parts[0] == "quantizer":
            state[name] = value
            continue
        stem = "encoder.block" if parts[0] == "encoder" else "decoder.model"
        if parts[1] != "block":
            place = {"conv1": 0, "snake1": len(config.ratios) + 1, "conv2": len(config.ratios) + 2}[parts[1]]
            state[".".join([stem, str(place), *parts[2:]])] = value
        elif parts[3].startswith("res_unit"):
            number = int(parts[3][-1]) + (-1 if parts[0] == "encoder" else 1)
            state[
                ".".join([stem, str(int(parts[2]) + 1), "block", str(number), "block", unit[parts[4]], *parts[5:]])
            ] = value
        else:
            number = {"encoder": {"snake1": 3, "conv1": 4}, "decoder": {"snake1": 0, "conv_t1": 1}}[parts[0]][parts[3]]
            state[".".join([stem, str(int(parts[2]) + 1), "block", str(number), *parts[4:]])] = value
    kwargs = {"encoder_dim": 8, "encoder_rates": [2, 4, 8, 8], "latent_dim": None, "decoder_dim": 64,
              "decoder_rates": [8, 8, 4, 2], "n_codebooks": 3, "codebook_size": 64, "codebook_dim": 8,
              "quantizer_dropout": False, "sample_rate": 44100}  # fmt: skip
    return {"metadata": {"kwargs": kwargs}, "state_dict": state}


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (42,)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", Trap(), [1, 2], {"a": 1}, {"a": torch.ones(1)}])
def test_checkpoints_that_are_none(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.th"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"bad\.th"):
        originals.read(path)


@pytest.mark.parametrize("change", [
    {"model_type": "llama"}, {"sampling_rate": 0}, {"sampling_rate": "24000"}, {"sampling_rate": True},
    {"upsampling_ratios": [8, 5, 4, 10**9]}, {"upsampling_ratios": []}, {"upsampling_ratios": [1] * 9},
    {"num_filters": 10**9}, {"num_lstm_layers": -1}, {"norm_type": "layer_norm"}, {"norm_type": ["weight_norm"]},
    {"pad_mode": "circular"}, {"codebook_size": 1000}, {"codebook_dim": 3}, {"target_bandwidths": []},
    {"target_bandwidths": [float("inf")]}, {"target_bandwidths": [1e4]}, {"target_bandwidths": [0.1]},
    {"audio_channels": 9}, {"chunk_length_s": -1.0, "overlap": 0.01}, {"chunk_length_s": 1.0, "overlap": 2.0},
    {"trim_right_ratio": float("nan")}, {"use_causal_conv": "yes"}, {"kernel_size": 10**6}, {"compress": 0},
    {"num_residual_layers": 10**6}, {"dilation_growth_rate": 10**6}, {"hidden_size": None},
])  # fmt: skip
def test_descriptions_that_lie(copy: Path, change: dict[str, Any]) -> None:
    row = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**row, **change}))
    with pytest.raises(ValueError, match="not a codec description"):
        descant.codec.load(copy)


@pytest.mark.parametrize("change", [
    {"hop_length": 7}, {"hidden_size": 7}, {"upsampling_ratios": [2, 2]}, {"n_codebooks": 10**6},
    {"codebook_size": 1000}, {"decoder_hidden_size": 10}, {"sampling_rate": None},
])  # fmt: skip
def test_dac_descriptions_that_lie(change: dict[str, Any]) -> None:
    row = describe(DacConfig())
    assert config_of(row)[0] == DacConfig()
    with pytest.raises(ValueError):
        config_of({**row, **change})


def test_descriptions_go_out_as_they_came_in() -> None:
    for name in ("encodec24", "encodec48", "musicgen32", "dac44", "dac24", "dac16"):
        config = pretrained.PRESETS[name]()
        assert config_of(json.loads(json.dumps(describe(config))))[0] == config
        assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="unknown codec settings"):
        EncodecConfig.from_dict({"nonsense": 1})


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", 3, None])
def test_an_index_is_no_way_out_of_its_folder(copy: Path, name: Any) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"encoder.x": name}}))
    with pytest.raises(ValueError, match="index"):
        descant.codec.load(copy)


def test_missing_and_foreign_tensors_are_named(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    name = next(name for name in tensors if name.endswith("lstm.bias_ih_l0"))
    save_file({key: value for key, value in tensors.items() if key != name}, copy / "model.safetensors")
    with pytest.raises(ValueError, match=name):
        descant.codec.load(copy)
    save_file({**tensors, "stranger": torch.ones(1)}, copy / "model.safetensors")
    with pytest.raises(ValueError, match="stranger"):
        descant.codec.load(copy)
    save_file({**tensors, name: tensors[name] * torch.nan}, copy / "model.safetensors")
    with pytest.raises(ValueError, match="NaN"):
        descant.codec.load(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        descant.codec.load(copy)


def test_a_hub_id_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="cannot fetch facebook/encodec_32khz from the hub") as caught:
        descant.codec.load("facebook/encodec_32khz")
    assert "\n" not in str(caught.value) and "name that folder" in str(caught.value)


def test_a_missing_folder_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/codec", str(tmp_path / "nowhere"), "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
            descant.codec.load(name)


def test_presets_without_weights_say_where_to_get_them() -> None:
    with pytest.raises(ValueError, match="facebook/encodec_32khz"):
        descant.codec.load("musicgen32")
    with pytest.raises(ValueError, match="musicgen32"):
        pretrained.build("nonsense")
