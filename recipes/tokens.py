"""Token shards as a training set: crops of codes with the conditions that held while they sounded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..lm.condition import Condition
from .packed import Rows, read, shards
from .piece import Piece


@dataclass(frozen=True)
class Crop:
    """codes [K, F] and what is known about them."""

    codes: Tensor
    condition: Condition


class Mixes(Protocol):
    """Whatever has the codes [F, K] of several mixes."""

    @property
    def codes(self) -> Iterable[np.ndarray | Rows]:
        """One after another."""


class TokenSet:
    """All shards of a folder that :func:`descant.recipes.prepare.tokenise` wrote, mapped from disk."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        found = shards(folder)
        if not found or not (folder / "tokens.json").exists():
            raise FileNotFoundError(f"no token shards in {folder}: make them with 'descant prepare tokens'")
        try:
            self.mark = json.loads((folder / "tokens.json").read_text(encoding="utf-8"))
            whole = min(int(self.mark[name]) for name in ("rate", "hop", "books", "cardinality")) > 0
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise ValueError(f"{folder / 'tokens.json'} does not say what the tokens are of: prepare them again")
        self.frame_rate = self.mark["rate"] / self.mark["hop"]
        self.pieces: list[Piece] = []
        self.codes: list[np.ndarray | Rows] = []
        for shard in found:
            for piece, codes in read(shard, self.mark["books"], self.mark["cardinality"]):
                self.pieces.append(piece)
                self.codes.append(codes)

    @property
    def hours(self) -> float:
        """Hours of music."""
        return float(sum(len(rows) for rows in self.codes) / self.frame_rate / 3600)

    @property
    def lengths(self) -> list[int]:
        """Frames of each piece."""
        return [len(rows) for rows in self.codes]

    @property
    def captions(self) -> Iterator[str]:
        """All captions of all pieces."""
        return (caption for piece in self.pieces for caption in piece.captions)

    def parts(self) -> Mapping[str, TokenSet]:
        """What is validated apart: there is one kind of work."""
        return {"mix": self}

    def crop(self, item: int, start: int, frames: int, caption: int) -> Crop:
        """``frames`` frames of piece ``item`` from frame ``start``, told by its caption number ``caption``."""
        piece, at = self.pieces[item], start / self.frame_rate
        # beyond the last frame too: the conditioner looks ahead
        end = at + frames / self.frame_rate + 0.2
        chords = tuple((a - at, b - at, symbol) for a, b, symbol in piece.chords if b > at and a < end)
        condition = Condition(
            text=piece.captions[caption % len(piece.captions)],
            genre=piece.genre,
            instruments=piece.instruments,
            tempo=piece.tempo,
            beats_per_bar=piece.beats_per_bar,
            beat_offset=-at,
            key=piece.key,
            chords=chords,
        )
        rows = self.codes[item][start : start + frames]
        return Crop(torch.from_numpy(rows.astype(np.int64)).t(), condition)

    def draw(self, count: int, frames: int, rng: torch.Generator, share: slice = slice(None)) -> list[Crop]:
        """Random crops, uniform over pieces; one in eight is a piece's beginning. share: which of them to return."""
        places = []
        for _ in range(count):
            item, caption, opening = torch.randint(1 << 30, (3,), generator=rng).tolist()
            item %= len(self.pieces)
            room = max(0, len(self.codes[item]) - frames)
            start = 0 if opening % 8 == 0 else int(torch.randint(room + 1, (), generator=rng))
            places.append((item, start, frames, caption))
        return [self.crop(*place) for place in places[share]]


def ngram_baselines(train: Mixes, dev: Mixes, cardinality: int, books: int) -> dict[str, list[float]]:
    """Cross-entropy (nats) per book of dev under a unigram and a bigram (previous frame, same book) model of train.

    The unigram is add-one smoothed; the bigram is interpolated with it, the weight chosen *on dev* among 0.1 ... 0.9,
    which flatters the baseline (Jelinek & Mercer, 1980).
    """
    unigram, bigram = [], []
    for k in range(books):
        counts = np.ones(cardinality)
        pairs = np.zeros((cardinality, cardinality), dtype=np.float32)
        for rows in train.codes:
            x = rows[:][:, k].astype(np.int64)
            counts += np.bincount(x, minlength=cardinality)
            np.add.at(pairs, (x[:-1], x[1:]), 1)
        p = counts / counts.sum()
        given = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
        held = [rows[:][:, k].astype(np.int64) for rows in dev.codes]
        left, right = np.concatenate([x[:-1] for x in held]), np.concatenate([x[1:] for x in held])
        unigram.append(float(-np.log(p[right]).mean()))
        weights = np.arange(1, 10) / 10
        bigram.append(min(float(-np.log(w * given[left, right] + (1 - w) * p[right]).mean()) for w in weights))
    return {"unigram": unigram, "bigram": bigram}
