"""A language model small enough for tests, with every part in place and no weight at zero."""

from __future__ import annotations

import pytest
import torch

from descant.lm.model import LMConfig, TokenLM
from descant.lm.text import train_tokenizer

CAPTIONS = [
    f"a {mood} {style} tune with {lead}"
    for mood in ("slow", "fast", "happy", "sad")
    for style in ("rock", "jazz", "waltz")
    for lead in ("piano", "guitar", "drums", "flute")
]


@pytest.fixture(scope="session")
def tokenizer() -> bytes:
    return train_tokenizer(CAPTIONS, 60)


@pytest.fixture(scope="session")
def config() -> LMConfig:
    return LMConfig(
        width=32, layers=2, heads=2, cardinality=40, window=16, text_vocab=64, text_tokens=5, text_width=16, sinks=2
    )


@pytest.fixture
def model(config: LMConfig, tokenizer: bytes) -> TokenLM:
    torch.manual_seed(1)
    model = TokenLM(config, tokenizer).eval()
    with torch.no_grad():
        # what starts at zero, or at one, would hide mistakes
        for weight in (model.conditioner.melody.weight, model.conditioner.stems.project.weight):
            weight.normal_(std=0.3)
        for block in model.stack.blocks:
            block.attention_norm.weight.uniform_(0.5, 1.5)
            block.mlp_norm.weight.uniform_(0.5, 1.5)
    return model
