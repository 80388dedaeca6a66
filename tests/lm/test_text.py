import copy

import pytest
import sentencepiece
import torch

from descant.lm.condition import Condition, collate
from descant.lm.model import TokenLM
from descant.lm.text import TextEncoder, Tokenizer, train_tokenizer


def test_training_is_deterministic_and_readable_by_the_library(tokenizer: bytes) -> None:
    captions = [f"{a} {b} song" for a in ("slow", "fast", "loud") for b in ("rock", "jazz", "folk")]
    assert train_tokenizer(captions, 40) == train_tokenizer(iter(captions), 40)
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer)
    text = "a happy waltz tune with flute"
    assert Tokenizer(tokenizer).encode(text, 99) == processor.encode(text)
    assert processor.decode(Tokenizer(tokenizer).encode(text, 99)) == text
    assert len(Tokenizer(tokenizer)) == processor.get_piece_size()


def test_case_and_width_do_not_matter(tokenizer: bytes) -> None:
    tokens = Tokenizer(tokenizer)
    assert tokens.encode("SLOW  Jazz", 9) == tokens.encode("slow jazz", 9) == tokens.encode("ｓｌｏｗ jazz", 9)


def test_large_vocabularies_fall_back_to_bytes() -> None:
    tokens = Tokenizer(train_tokenizer(["a slow jazz tune"] * 3, 600))
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokens.data)
    assert processor.decode(tokens.encode("piñata 🎹", 99)) == "piñata 🎹"


@torch.no_grad()
def test_a_very_long_prompt_is_cut_to_the_stated_tokens(model: TokenLM) -> None:
    text = "slow jazz with piano and drums " * 330
    assert len(text) > 10_000
    prefix = model.prepare(collate([Condition(text=text)], 2)).prefix
    assert prefix.shape == (1, model.config.prefix, model.config.width)
    assert torch.equal(prefix, model.prepare(collate([Condition(text=text[:100])], 2)).prefix)
    assert not torch.equal(prefix[:, -1], model.conditioner.null[-1:])


@torch.no_grad()
@pytest.mark.parametrize("text", ["", "   ", "\n\t", "🎹" * 50, "\0", "a" * 20_000, "Ω≈ç√∫ 音楽 موسيقى", "half \ud800"])
def test_odd_prompts_are_prompts(model: TokenLM, text: str) -> None:
    ready = model.prepare(collate([Condition(text=text), Condition(text="slow jazz")], 2))
    assert bool(ready.prefix.isfinite().all())
    if not text.strip():
        assert torch.equal(ready.prefix[0], model.conditioner.null)


@torch.no_grad()
def test_a_text_is_encoded_the_same_beside_any_other(model: TokenLM) -> None:
    assert model.tokenizer is not None
    assert len(model.tokenizer.encode("a", 99)) < model.config.text_tokens
    alone = model.prepare(collate([Condition(text="a")], 2)).prefix[0]
    texts = [None, "a", "a happy rock tune with guitar and more"]
    together = model.prepare(collate([Condition(text=text) for text in texts], 2)).prefix
    assert torch.allclose(together[1], alone, atol=1e-5)
    assert torch.equal(together[0], model.conditioner.null)
    assert (together[1] - together[2]).abs().max() > 1e-3


@torch.no_grad()
def test_sinks_always_lead(model: TokenLM) -> None:
    prefix = model.prepare(collate([Condition(text="a happy rock tune with guitar")], 2)).prefix[0]
    sinks = model.config.sinks
    assert torch.equal(prefix[:sinks], model.conditioner.null[:sinks])
    assert model.tokenizer is not None
    ids = torch.tensor([model.tokenizer.encode("a happy rock tune with guitar", 5)])
    encoded = model.conditioner.text(ids, torch.ones_like(ids, dtype=torch.bool))[0]
    assert torch.allclose(prefix[sinks:], encoded, atol=1e-6)


def test_word_order_reaches_the_encoder() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(50, 64, 32)
    mask = torch.ones(1, 3, dtype=torch.bool)
    one, other = (encoder(torch.tensor([ids]), mask).mean(1) for ids in ([3, 4, 5], [5, 4, 3]))
    assert (one - other).abs().max() > 1e-3
    with pytest.raises(ValueError, match="outside the text vocabulary"):
        encoder(torch.tensor([[50]]), mask[:, :1])


@pytest.mark.parametrize("data", [b"", b"no model", b"\x00" * 100, b"\x0a\xff\xff\xff\xff\x0f"])
def test_a_damaged_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="damaged tokenizer"):
        Tokenizer(data)


def test_copies_and_wrong_training(tokenizer: bytes) -> None:
    assert copy.deepcopy(Tokenizer(tokenizer)).encode("slow", 9) == Tokenizer(tokenizer).encode("slow", 9)
    with pytest.raises(ValueError, match="no captions"):
        train_tokenizer(["", "  "], 100)
    with pytest.raises(ValueError, match="too small"):
        train_tokenizer(["a"], 3)
