from pathlib import Path

import pytest
import torch

from descant.codec import pretrained
from descant.codec.model import Codec, nano
from descant.gen.load import Studio, load
from descant.lm.model import LMConfig, TokenLM
from descant.lm.text import train_tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights: a tiny codec and a tiny language model, in the layout ``load`` reads."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    pretrained.save(Codec(nano()), folder / "codec")
    captions = ["a slow blues in E with piano", "fast jazz with drums and bass in G minor"] * 20
    config = LMConfig(width=32, layers=2, heads=2, cardinality=64, window=64, text_vocab=64, text_width=32)
    TokenLM(config, train_tokenizer(captions, 64)).save(folder / "lm")
    return folder


@pytest.fixture(scope="session")
def studio(model_folder: Path) -> Studio:
    return load(model_folder, threads=1)
