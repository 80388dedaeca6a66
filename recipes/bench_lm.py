"""The language model's part of the benchmark: held-out cross-entropy per codebook beside n-grams of the same tokens."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..eval.statistics import bootstrap
from ..lm.condition import collate, drop
from ..lm.model import TokenLM
from .jobs import open_set
from .tokens import ngram_baselines


@torch.no_grad()
def measure(
    model: TokenLM, train: str | os.PathLike[str], test: str | os.PathLike[str], codec: str, frames: int = 500
) -> dict[str, Any]:
    """Cross-entropy in nats per book on one crop of ``frames`` frames of every test piece, from the piece's middle.

    With all labels, with none, and with another piece's; the folders hold tokens or targets. Unigram and bigram
    models are fitted on ``train``. Raises ValueError when the shards were made by another codec than ``codec`` (a
    fingerprint).
    """
    learned, held = open_set(train), open_set(test)
    for folder, found in ((train, learned), (test, held)):
        if found.mark["codec"] != codec:
            raise ValueError(f"{folder} holds tokens of codec {found.mark['codec']}, not {codec}: prepare them again")
    model.eval()
    books = model.config.books
    told: list[list[float]] = []
    blind: list[list[float]] = []
    wrong: list[list[float]] = []
    crops = []
    for item, length in enumerate(held.lengths):
        if length >= frames:
            crops.append(held.crop(item, (length - frames) // 2, frames, caption=0))
    for index, crop in enumerate(crops):
        codes = crop.codes[None, :books]
        other = crops[(index + len(crops) // 2) % len(crops)].condition
        ways = ((told, crop.condition, True), (blind, crop.condition, False), (wrong, other, True))
        for out, condition, keep in ways:
            batch = collate([condition], frames, frame_rate=held.frame_rate)
            if not keep:
                batch = drop(batch, {"all": 1.0}, torch.Generator().manual_seed(0))
            out.append(model.loss(codes, batch)[1].tolist())
    grams = ngram_baselines(learned, held, model.config.cardinality, books)

    def column(rows: list[list[float]]) -> list[list[float]]:
        estimates = [bootstrap([row[book] for row in rows]) for book in range(books)]
        return [[estimate.mean, estimate.low, estimate.high] for estimate in estimates]

    return {
        "told": column(told),
        "blind": column(blind),
        "wrong": column(wrong),
        "unigram": grams["unigram"][:books],
        "bigram": grams["bigram"][:books],
        "train_hours": learned.hours,
        "test_hours": held.hours,
        "crops": len(crops),
    }
