"""The text encoder: the library's states, whatever the sentence, and each sentence encoded once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from descant.lm import musicgen_files
from descant.lm.t5 import MOST_CHARACTERS, MOST_TOKENS, TextEncoder, shapes, tokenizer_files

from .musicgen_made import PROMPTS, build, saved, tokenizer

ODD = ["", " ", "blues", "ブルース と ジャズ", "🎷🎺 so smooth", "naïve café", "a\x00b\ud800c", "a slow blues " * 40]


@pytest.fixture(scope="module")
def theirs() -> Any:
    return build()


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(theirs, tmp_path_factory.mktemp("musicgen") / "whole")


def encoder(folder: Path, cache: Path | None = None) -> TextEncoder:
    text = musicgen_files.load(folder, text_cache=cache).text
    assert text is not None
    return text


@torch.no_grad()
def test_a_padded_batch_is_the_librarys(theirs: Any, folder: Path) -> None:
    made = tokenizer()(PROMPTS, padding=True, return_tensors="pt")
    wanted = theirs.text_encoder(input_ids=made.input_ids, attention_mask=made.attention_mask).last_hidden_state
    states, mask = encoder(folder).encode([PROMPTS[0], None, PROMPTS[1]])
    assert torch.equal(mask[[0, 2]], made.attention_mask.bool())
    assert not bool(mask[1].any())
    assert (states[[0, 2]] - wanted)[made.attention_mask.bool()].abs().max() < 1e-5
    assert not bool(states[~mask].any())


@torch.no_grad()
@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_any_sentence_is_read_as_the_library_reads_it(theirs: Any, folder: Path, text: str) -> None:
    ids = tokenizer()(text.replace("\ud800", "?"), return_tensors="pt").input_ids
    wanted = theirs.text_encoder(input_ids=ids).last_hidden_state[0]
    found = encoder(folder).states(text)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-4


def test_a_sentence_is_encoded_once(folder: Path, tmp_path: Path) -> None:
    text = encoder(folder, tmp_path / "cache")
    first = text.encode(["a slow blues", "bossa", "a slow blues"])[0]
    assert text.runs == 2
    assert torch.equal(text.encode(["a slow blues", "bossa", "a slow blues"])[0], first)
    assert text.runs == 2
    # another process finds them on disk, and does not load the encoder for them
    again = encoder(folder, tmp_path / "cache")
    assert torch.equal(again.encode(["a slow blues", "bossa", "a slow blues"])[0], first)
    assert again.runs == 0
    assert len(list((tmp_path / "cache").iterdir())) == 2
    # a damaged entry is made again
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(path.read_bytes()[:20])
    third = encoder(folder, tmp_path / "cache")
    assert torch.equal(third.encode(["a slow blues"])[0][0], first[0, : len(third.states("a slow blues"))])
    assert third.runs == 1


def test_another_model_has_other_entries(folder: Path, tmp_path: Path) -> None:
    other_model = build(channels=2)
    other = encoder(saved(other_model, tmp_path / "other"), tmp_path / "cache")
    mine = encoder(folder, tmp_path / "cache")
    assert mine.digest != other.digest
    assert mine.digest == encoder(folder).digest
    assert not torch.equal(mine.states("blues"), other.states("blues"))
    assert other.runs == mine.runs == 1


def test_what_cannot_be_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = encoder(folder)
    with pytest.raises(ValueError, match=f"{MOST_CHARACTERS + 1} characters: at most {MOST_CHARACTERS}"):
        text.states("a" * (MOST_CHARACTERS + 1))
    with pytest.raises(ValueError, match=f"tokens: at most {MOST_TOKENS} are read, shorten it"):
        text.states("z" * 10_000)
    assert text.runs == 0
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((folder / name).read_bytes())
    assert tokenizer_files(bare) == []
    with pytest.raises(FileNotFoundError, match=r"no tokenizer: it needs tokenizer\.json or spiece\.model"):
        encoder(bare).states("a")
    (bare / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the tokenizer in .* cannot be read"):
        encoder(bare).states("a")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"descant\[hub\]"):
        encoder(folder).states("a")


def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    text = encoder(folder)
    assert text.shapes["shared.weight"] == (64, 24)
    text.shapes["shared.weight"] = (3, 24)
    with pytest.raises(ValueError, match="belongs to another model"):
        text.states("blues")


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_shapes_are_those_of_the_librarys_encoder(kind: str) -> None:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3, vocab_size=70, feed_forward_proj=kind)
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in T5EncoderModel(config).state_dict().items()}
    wanted.pop("encoder.embed_tokens.weight", None)
    assert shapes(config.to_dict()) == wanted
