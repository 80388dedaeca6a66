"""MusicGen folders: shards, halves, old names, damage, and the way back into the transformers library."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MusicgenForCausalLM, MusicgenForConditionalGeneration

import descant.lm
from descant.lm import hub, musicgen_config, musicgen_files, musicgen_save
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig
from descant.lm.sample import SamplingSettings

from .musicgen_made import CARD, PROMPTS, build, saved, tokenizer, tokens

STEPS = torch.randint(0, CARD + 1, (2, 4, 9), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def theirs() -> Any:
    return build()


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(theirs, tmp_path_factory.mktemp("musicgen") / "whole")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder that may be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def logits(model: MusicGenLM) -> torch.Tensor:
    with torch.no_grad():
        return model(STEPS, model.condition(PROMPTS))


def rewrite(folder: Path, change: Any) -> None:
    """Apply ``change`` to the tensors of a folder."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: value.clone() for name, value in tensors.items()}, path, metadata={"format": "pt"})


def redescribe(folder: Path, **values: Any) -> None:
    """Change config.json: ``decoder__hidden_size=4`` sets decoder.hidden_size."""
    path = folder / "config.json"
    row = json.loads(path.read_text())
    for name, value in values.items():
        part = row
        *stems, leaf = name.split("__")
        for stem in stems:
            part = part[stem]
        part[leaf] = value
    path.write_text(json.dumps(row))


def test_shards_halves_and_old_names_give_the_same_model(theirs: Any, folder: Path, tmp_path: Path) -> None:
    whole = musicgen_files.load(folder)
    shards = saved(theirs, tmp_path / "shards", max_shard_size="60KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 2
    assert torch.equal(logits(musicgen_files.load(shards)), logits(whole))

    old = Path(shutil.copytree(folder, tmp_path / "old"))

    def age(tensors: dict[str, torch.Tensor]) -> None:
        tensors["decoder.model.decoder.embed_positions.weights"] = torch.zeros(2048, 32)
        tensors["text_encoder.encoder.embed_tokens.weight"] = tensors["text_encoder.shared.weight"].clone()

    rewrite(old, age)
    odd = {"task_specific_params": {"summarization": {"num_beams": 4}}, "bad_words_ids": None, "exponential_decay": 1}
    redescribe(old, **{f"text_encoder__{name}": value for name, value in odd.items()})
    redescribe(old, decoder__layerdrop=0.1, decoder__length_penalty=1.0)
    assert torch.equal(logits(musicgen_files.load(old)), logits(whole))
    rewrite(old, lambda tensors: tensors.pop("text_encoder.shared.weight"))
    assert torch.equal(logits(musicgen_files.load(old)), logits(whole))

    half = Path(shutil.copytree(folder, tmp_path / "half"))
    rewrite(half, lambda tensors: tensors.update({k: v.half() for k, v in tensors.items() if v.is_floating_point()}))
    found = musicgen_files.load(half)
    assert found.embed.weight.dtype is torch.float32
    assert (logits(found) - logits(whole)).abs().max() < 0.02


def test_a_decoder_alone(theirs: Any, tmp_path: Path) -> None:
    theirs.decoder.save_pretrained(tmp_path / "in")
    ours = musicgen_files.load(tmp_path / "in")
    states, mask = torch.randn(2, 5, 32), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    states = states * mask[..., None]
    flat = STEPS.flatten(0, 1)
    with torch.no_grad():
        wanted = theirs.decoder(input_ids=flat, encoder_hidden_states=states, encoder_attention_mask=mask).logits
        assert (ours(STEPS, ours.condition_states(states, mask)).flatten(0, 1) - wanted).abs().max() <= 1e-4
        ours.save(tmp_path / "out")
        again = MusicgenForCausalLM.from_pretrained(tmp_path / "out").eval()
        back = again(input_ids=flat, encoder_hidden_states=states, encoder_attention_mask=mask).logits
    assert (back - wanted).abs().max() <= 1e-5
    with pytest.raises(ValueError, match="no text encoder"):
        ours.condition(["a"])


@pytest.mark.parametrize("shard", [5 << 30, 60_000], ids=["whole", "shards"])
def test_saved_the_library_makes_the_same_tokens(
    theirs: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    monkeypatch.setattr(musicgen_save, "SHARD", shard)
    ours = musicgen_files.load(folder)
    ours.save(tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file() == (shard > 60_000)
    again = MusicgenForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    made = tokenizer()(PROMPTS, padding=True, return_tensors="pt")
    given = {"input_ids": made.input_ids, "attention_mask": made.attention_mask, "guidance_scale": 3.0}
    again.generation_config.do_sample = False
    assert torch.equal(tokens(again, 30, **given), tokens(theirs, 30, **given))
    back = musicgen_files.load(tmp_path / "out")
    assert torch.equal(logits(back), logits(ours))
    # a shorter save over a longer one leaves nothing of the longer one behind
    monkeypatch.setattr(musicgen_save, "SHARD", 5 << 30)
    ours.save(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]
    assert torch.equal(logits(musicgen_files.load(tmp_path / "out")), logits(ours))


def test_saved_onto_itself_and_changed(folder: Path, copy: Path) -> None:
    ours = musicgen_files.load(copy)
    with torch.no_grad():
        ours.norm.bias.add_(1.0)
    wanted = logits(ours)
    ours.save(copy)
    assert (logits(musicgen_files.load(copy)) - wanted).abs().max() < 1e-6
    assert (wanted - logits(musicgen_files.load(folder))).abs().max() > 0.1
    with pytest.raises(ValueError, match="'transformers' format"):
        ours.save(copy, format="descant")
    with torch.no_grad():
        ours.norm.bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"norm\.bias is not finite.*nothing was saved"):
        ours.save(copy)
    assert (logits(musicgen_files.load(copy)) - wanted).abs().max() < 1e-6
    assert not list(copy.glob(".descant*"))


def test_a_built_model_is_saved_with_company(folder: Path, tmp_path: Path) -> None:
    config = musicgen_files.load(folder).config
    torch.manual_seed(0)
    fresh = MusicGenLM(config).eval()
    with pytest.raises(ValueError, match="name the folder"):
        fresh.save(tmp_path / "out")
    musicgen_save.save(fresh, tmp_path / "out", like=folder)
    back = musicgen_files.load(tmp_path / "out")
    assert torch.equal(back.embed.weight, fresh.embed.weight)
    other = MusicGenLM(MusicGenConfig(width=32, layers=1, heads=4, ffn=8, cardinality=CARD, text_width=16))
    with pytest.raises(ValueError, match="not this model's"):
        musicgen_save.save(other, tmp_path / "other", like=folder)


@pytest.mark.parametrize(("change", "message"), [
    (lambda t: t.pop("decoder.model.decoder.layers.1.fc1.weight"), "missing .*layers.1.fc1.weight"),
    (lambda t: t.pop("text_encoder.encoder.final_layer_norm.weight"), "missing .*final_layer_norm"),
    (lambda t: t.update({"decoder.surprise": torch.zeros(2)}), "unknown .*surprise"),
    (lambda t: t.update({"decoder.lm_heads.0.weight": torch.zeros(CARD, 8)}), r"lm_heads.0.weight is \[64, 8\]"),
    (lambda t: t.update({"text_encoder.shared.weight": torch.zeros(9, 24)}), "shared.weight is"),
    (lambda t: t["decoder.lm_heads.0.weight"].fill_(torch.nan), "lm_heads.0.weight holds values that are not finite"),
    (lambda t: t.update({"enc_to_dec_proj.bias": torch.zeros(32, dtype=torch.long)}), "not finite numbers"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_refused(copy: Path, change: Any, message: str) -> None:
    rewrite(copy, change)
    with pytest.raises(ValueError, match=message) as caught:
        musicgen_files.load(copy)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("values", "message"), [
    ({"model_type": "bert"}, "model_type 'bert'"),
    ({"decoder": None}, "without its decoder"),
    ({"decoder__hidden_size": 1 << 40}, "width must be"),
    ({"decoder__num_attention_heads": 5}, "over 5 heads"),
    ({"decoder__num_hidden_layers": "many"}, "layers must be"),
    ({"decoder__activation_function": "silu"}, "activation 'silu'"),
    ({"decoder__audio_channels": 3}, "channels must be 1 or 2"),
    ({"decoder__num_hidden_layers": 3}, "missing .*layers.2"),
    ({"decoder__tie_word_embeddings": True}, "tied heads"),
    ({"text_encoder__model_type": "bert"}, "only 't5'"),
    ({"text_encoder__d_ff": -1}, "d_ff must be"),
    ({"text_encoder__feed_forward_proj": "magic"}, "feed_forward_proj"),
    ({"audio_encoder__upsampling_ratios": [0]}, "make no frame rate"),
])  # fmt: skip
def test_descriptions_that_cannot_be_are_refused(copy: Path, values: dict[str, Any], message: str) -> None:
    redescribe(copy, **values)
    with pytest.raises(ValueError, match=message) as caught:
        musicgen_files.load(copy)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_missing_damaged_or_no_data(copy: Path, theirs: Any, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:1000])
    with pytest.raises(ValueError, match="damaged or no safetensors"):
        musicgen_files.load(copy)
    torch.save({"a": torch.zeros(2)}, weights)
    with pytest.raises(ValueError, match="pickle by another name, which is not opened: fetch the model's safetensors"):
        musicgen_files.load(copy)
    weights.rename(copy / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="a pickle, which is not opened"):
        musicgen_files.load(copy)
    (copy / "pytorch_model.bin").rename(copy / "state_dict.bin")
    with pytest.raises(FileNotFoundError, match="descant convert"):
        musicgen_files.load(copy)
    (copy / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="not a description"):
        musicgen_files.load(copy)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        musicgen_files.load(tmp_path / "nowhere")
    shards = saved(theirs, tmp_path / "shards", max_shard_size="60KB")
    index = shards / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["decoder.lm_heads.0.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="only plain names"):
        musicgen_files.load(shards)
    table["weight_map"]["decoder.lm_heads.0.weight"] = "model-00099.safetensors"
    index.write_text(json.dumps(table))
    with pytest.raises(FileNotFoundError, match="model-00099"):
        musicgen_files.load(shards)
    index.write_text("{}")
    with pytest.raises(ValueError, match="weight_map"):
        musicgen_files.load(shards)


def test_dtypes(folder: Path) -> None:
    whole, brief = musicgen_files.load(folder), musicgen_files.load(folder, dtype="bf16")
    assert brief.heads.weight.dtype is torch.bfloat16
    assert (logits(brief).float() - logits(whole)).abs().max() < 0.3
    made = brief.generate(4, brief.condition(PROMPTS), settings=SamplingSettings(guidance=2.0))
    assert made.shape == (2, 4, 4)
    with pytest.raises(ValueError, match="dtype"):
        musicgen_files.load(folder, dtype="int8")


@pytest.mark.parametrize("name", list(musicgen_config.PRESETS))
def test_presets_have_as_many_weights_as_they_say(name: str) -> None:
    config = musicgen_config.PRESETS[name]()
    with torch.device("meta"):
        model = MusicGenLM(config)
    assert sum(weight.numel() for weight in model.parameters()) == config.parameters
    assert config.width // config.heads == 64
    assert config.pattern.delays == ((0, 0, 1, 1, 2, 2, 3, 3) if "stereo" in name else (0, 1, 2, 3))


def test_what_is_a_musicgen(folder: Path, tmp_path: Path) -> None:
    assert musicgen_files.is_musicgen(folder)
    assert musicgen_files.is_musicgen("facebook/musicgen-small")
    assert not musicgen_files.is_musicgen("embedded")
    assert not musicgen_files.is_musicgen(tmp_path)


def test_the_hub_is_missed_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="cannot fetch facebook/musicgen-small") as caught:
        musicgen_files.load("facebook/musicgen-small")
    assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r"descant\[hub\]"):
        hub.fetch("facebook/musicgen-small")


def test_a_model_fetched_before_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def download(name: str, file: str) -> str:
        from huggingface_hub.errors import EntryNotFoundError

        asked.append(file)
        assert name == "facebook/musicgen-small"
        if not (folder / file).is_file():
            raise EntryNotFoundError(file)
        return str(folder / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert musicgen_files.load("facebook/musicgen-small").source == folder
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(asked)
    assert not any(name.endswith((".bin", ".py")) for name in asked)


def test_the_room_loads_either_family(folder: Path) -> None:
    assert isinstance(descant.lm.load(folder), MusicGenLM)
