import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from descant.codec import pretrained
from descant.codec.model import Codec, nano
from descant.gen.load import Studio, load
from descant.gen.musicgen import MusicGenStudio
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


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MusicGens as the transformers library writes them, tiny and random: a text model, a stereo one, a melody one."""
    path = Path(__file__).parent.parent / "lm" / "musicgen_made.py"
    spec = importlib.util.spec_from_file_location("musicgen_made", path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    kinds: dict[str, dict[str, Any]] = {"text": {}, "stereo": {"channels": 2}, "melody": {"melody": True}}
    place = tmp_path_factory.mktemp("musicgen")
    return {name: made.saved(made.build(**options), place / name) for name, options in kinds.items()}


@pytest.fixture(scope="session")
def studios(folders: dict[str, Path]) -> dict[str, MusicGenStudio]:
    loaded = {name: load(folder, threads=1) for name, folder in folders.items()}
    assert all(isinstance(studio, MusicGenStudio) for studio in loaded.values())
    return loaded  # type: ignore[return-value]
