"""A random model that plays parts by themselves and hears melodies, stems and what follows."""

from __future__ import annotations

from pathlib import Path

import torch

from descant.codec import pretrained
from descant.codec.model import Codec, nano
from descant.gen.load import Studio
from descant.lm.condition import ROLES
from descant.lm.model import LMConfig, TokenLM


def able(books: int = 3, window: int = 64, attentive: bool = False) -> Studio:
    """attentive: with weights, zero at birth, by which what is given changes what is played."""
    torch.manual_seed(0)
    codec = Codec(nano()).eval()
    config = LMConfig(
        width=32, layers=2, heads=2, cardinality=codec.cardinality, books=books, window=window, text_vocab=64,
        text_width=32, frame_rate=codec.frame_rate, targets=len(ROLES),
    )  # fmt: skip
    model = TokenLM(config).eval()
    if attentive:
        ears = model.conditioner
        assert ears.target is not None
        for weight in (ears.target.weight, ears.melody.weight, ears.stems.project.weight):
            torch.nn.init.normal_(weight, std=0.5)
    return Studio(codec, model, "made", threads=1)


def able_folder(folder: Path) -> Path:
    """Such a model, whose playing changes with what is given, as a folder."""
    made = able(attentive=True)
    pretrained.save(made.codec, folder / "codec")
    made.lm.save(folder / "lm")
    return folder
