"""AudioCraft checkpoints converted: files in its layout, made here, become what the transformers library reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MusicgenForConditionalGeneration, MusicgenMelodyForConditionalGeneration

from descant.lm import audiocraft, musicgen_files

from .musicgen_made import CARD, PROMPTS, build, saved, tokenizer

SETTINGS = """\
channels: {channels}
sample_rate: 32000
lm_model: transformer_lm
codebooks_pattern:
  modeling: delay
  delay:
    delays:
{delays}
    flatten_first: 0
    empty_initial: 0
transformer_lm:
  dim: 32
  num_heads: 4
  num_layers: 2
  hidden_scale: 1.5
  n_q: {books}
  card: 64
  activation: gelu
  norm_first: true
  bias_ff: false
  bias_attn: false
  bias_proj: false
  positional_embedding: sin
  layer_scale: null
  norm: layer_norm
classifier_free_guidance:
  training_dropout: 0.3
  inference_coef: 3.0
conditioners:
  description:
    model: t5
    t5:
      name: t5-base
      word_dropout: 0.3
"""


def theirs_as_audiocraft(model: Any, mha: bool = False) -> dict[str, torch.Tensor]:
    """A model of the transformers library under AudioCraft's names: its models/lm.py and modules/transformer.py."""
    state = model.state_dict()
    stem, out = "decoder.model.decoder.", {}
    inside = "mha." if mha else ""

    def fuse(prefix: str) -> torch.Tensor:
        return torch.cat([state[f"{prefix}.{part}_proj.weight"] for part in "qkv"])

    for k in range(model.config.decoder.num_codebooks):
        out[f"emb.{k}.weight"] = state[f"{stem}embed_tokens.{k}.weight"]
        out[f"linears.{k}.weight"] = state[f"decoder.lm_heads.{k}.weight"]
    for i in range(model.config.decoder.num_hidden_layers):
        hf, ac = f"{stem}layers.{i}", f"transformer.layers.{i}"
        out[f"{ac}.self_attn.{inside}in_proj_weight"] = fuse(f"{hf}.self_attn")
        out[f"{ac}.self_attn.{inside}out_proj.weight"] = state[f"{hf}.self_attn.out_proj.weight"]
        out[f"{ac}.linear1.weight"], out[f"{ac}.linear2.weight"] = state[f"{hf}.fc1.weight"], state[f"{hf}.fc2.weight"]
        norms = {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
        if f"{hf}.encoder_attn.q_proj.weight" in state:
            out[f"{ac}.cross_attention.in_proj_weight"] = fuse(f"{hf}.encoder_attn")
            out[f"{ac}.cross_attention.out_proj.weight"] = state[f"{hf}.encoder_attn.out_proj.weight"]
            norms["norm_cross"] = "encoder_attn_layer_norm"
        for theirs, name in norms.items():
            for leaf in ("weight", "bias"):
                out[f"{ac}.{theirs}.{leaf}"] = state[f"{hf}.{name}.{leaf}"]
    for leaf in ("weight", "bias"):
        out[f"out_norm.{leaf}"] = state[f"{stem}layer_norm.{leaf}"]
        conditioner = "condition_provider.conditioners"
        out[f"{conditioner}.description.output_proj.{leaf}"] = state[f"enc_to_dec_proj.{leaf}"]
        if f"audio_enc_to_dec_proj.{leaf}" in state:
            out[f"{conditioner}.self_wav.output_proj.{leaf}"] = state[f"audio_enc_to_dec_proj.{leaf}"]
            out[f"{conditioner}.self_wav.chroma.spec.window"] = torch.hann_window(16384)
    return {name: value.clone() for name, value in out.items()}


def text_of(channels: int) -> str:
    books = 4 * channels
    delays = "\n".join(f"    - {book // channels}" for book in range(books))
    return SETTINGS.format(channels=channels, books=books, delays=delays)


def write(folder: Path, model: Any, channels: int, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    table = {"best_state": theirs_as_audiocraft(model), "xp.cfg": text_of(channels), "version": "1.3.0"}
    torch.save({**table, "exported": True, **changes}, folder / "state_dict.bin")
    return folder / "state_dict.bin"


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the text encoder, with tokenizer, and of the codec."""
    folder, model = tmp_path_factory.mktemp("company"), build()
    model.text_encoder.save_pretrained(folder / "t5")
    tokenizer().save_pretrained(folder / "t5")
    model.audio_encoder.save_pretrained(folder / "codec")
    return folder / "t5", folder / "codec"


@torch.no_grad()
@pytest.mark.parametrize(("melody", "channels"), [(False, 1), (False, 2), (True, 1), (True, 2)])
def test_a_converted_model_is_read_by_the_library(
    company: tuple[Path, Path], tmp_path: Path, melody: bool, channels: int
) -> None:
    model = build(melody=melody, channels=channels)
    original = build()
    model.text_encoder.load_state_dict(original.text_encoder.state_dict())
    checkpoint = write(tmp_path / "in", model, channels)
    ours = audiocraft.convert(checkpoint, tmp_path / "out", *company)
    assert ours.config.channels == channels
    assert ours.config.melody == melody
    kind = MusicgenMelodyForConditionalGeneration if melody else MusicgenForConditionalGeneration
    again = kind.from_pretrained(tmp_path / "out").eval()
    steps = torch.randint(0, CARD + 1, (2, 4 * channels, 9), generator=torch.Generator().manual_seed(1))
    made = tokenizer()(PROMPTS, padding=True, return_tensors="pt")
    given = {"input_ids": made.input_ids, "attention_mask": made.attention_mask}
    wanted = model(**given, decoder_input_ids=steps.flatten(0, 1)).logits
    # this model's prefix was made for 20 frames of melody; a checkpoint does not say, and 235 is what is published
    again.config.chroma_length = 20
    assert (again(**given, decoder_input_ids=steps.flatten(0, 1)).logits - wanted).abs().max() <= 1e-5
    back = musicgen_files.load(tmp_path / "out")
    assert back.config.chroma_frames == 235
    assert torch.equal(back.embed.weight, ours.embed.weight)
    assert again.generation_config.guidance_scale == 3.0


def test_the_inner_modules_names_are_read_too(company: tuple[Path, Path], tmp_path: Path) -> None:
    model = build()
    plain = write(tmp_path / "a", model, 1)
    inner = write(tmp_path / "b", model, 1, best_state=theirs_as_audiocraft(model, mha=True))
    assert audiocraft.read(plain)[1].keys() == audiocraft.read(inner)[1].keys()


def test_settings_are_read_from_their_text() -> None:
    said = audiocraft.settings(text_of(2))
    assert said["transformer_lm.num_heads"] == "4"
    assert said["codebooks_pattern.delay.delays"] == ["0", "0", "1", "1", "2", "2", "3", "3"]
    assert said["conditioners.description.t5.name"] == "t5-base"
    assert audiocraft.settings("a:\n- 1\n- '2'\nb: []\nc: 'x: y'\n") == {"a": ["1", "2"], "b": [], "c": "x: y"}


class _Odd:
    """An object, as a training checkpoint's settings are."""


@pytest.mark.parametrize(("changes", "message"), [
    ({"xp.cfg": _Odd()}, "export_lm"),
    ({"xp.cfg": {"transformer_lm": {}}}, "is no text"),
    ({"best_state": None}, "no 'best_state'"),
    ({"best_state": {"emb.0.weight": "text"}}, "must be tensors"),
    ({"best_state": {"emb.0.weight": torch.zeros(65, 32)}}, "no matrix"),
    ({"xp.cfg": text_of(1).replace("bias_attn: false", "bias_attn: true")}, "bias_attn is 'true'"),
    ({"xp.cfg": text_of(1).replace("modeling: delay", "modeling: unroll")}, "codebooks_pattern 'unroll'"),
    ({"xp.cfg": text_of(1).replace("    - 3", "    - 5")}, "delays"),
    ({"xp.cfg": text_of(1).replace("n_q: 4", "n_q: 5")}, "n_q is '5', the tensors make it 4"),
    ({"xp.cfg": text_of(1).replace("num_heads: 4", "")}, "num_heads' is None|num_heads is None"),
    ({"xp.cfg": text_of(1).replace("transformer_lm\n", "transformer_lm_magnet\n")}, "magnet"),
])  # fmt: skip
def test_what_is_no_musicgen_is_refused(
    company: tuple[Path, Path], tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    checkpoint = write(tmp_path / "in", build(), 1, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        audiocraft.convert(checkpoint, tmp_path / "out", *company)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_tensors_that_do_not_fit_are_refused(company: tuple[Path, Path], tmp_path: Path) -> None:
    model = build()
    for name, value, message in (
        ("out_norm.bias", None, "no tensor out_norm.bias"),
        ("surprise", torch.zeros(2), "unknown use"),
        ("out_norm.bias", torch.full((32,), torch.nan), "not finite"),
        ("out_norm.bias", torch.zeros(31), r"is \[31\]"),
    ):
        state = theirs_as_audiocraft(model)
        state.pop(name, None)
        state |= {} if value is None else {name: value}
        checkpoint = write(tmp_path / "in", model, 1, best_state=state)
        with pytest.raises(ValueError, match=message):
            audiocraft.convert(checkpoint, tmp_path / "out", *company)
    with pytest.raises(ValueError, match="a T5 and an EnCodec are needed"):
        audiocraft.convert(write(tmp_path / "in", model, 1), tmp_path / "out", *company[::-1])
    bare = saved(build(), tmp_path / "whole")
    with pytest.raises(ValueError, match="a T5 and an EnCodec are needed"):
        audiocraft.convert(write(tmp_path / "in", model, 1), tmp_path / "out", bare, company[1])
