"""What a separator is trained on: packed stems as its network names them, or music without stems."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .automix_sound import resize
from .corpus import Corpus
from .loop import stream
from .separator_config import SeparatorRecipe
from .stems_data import GRAIN, Mixing, StemCorpus

#: Kinds of packed audio that are whole mixes.
_WHOLE = ("mix", "real")


class Mixtures:
    """Whole songs of a packed folder at one rate, as ``channels`` channels."""

    def __init__(self, folder: str | os.PathLike[str], channels: int = 2) -> None:
        folder = Path(folder)
        index = folder / "index.json"
        if not index.exists():
            raise FileNotFoundError(
                f"no packed music in {folder}: make it with 'descant prepare audio' or 'descant prepare stems'"
            )
        self.channels = channels
        self.corpus: StemCorpus | Corpus
        if "stems" in json.loads(index.read_text(encoding="utf-8")):
            self.corpus = StemCorpus(folder)
            self.songs = list(range(len(self.corpus)))
        else:
            self.corpus = Corpus(folder)
            self.songs = [number for number, row in enumerate(self.corpus.index) if row["kind"] in _WHOLE]
        self.rate: int = self.corpus.rate
        if len(self.songs) < 2:
            raise ValueError(f"{folder} holds too few songs ({len(self.songs)}): mixtures of mixtures need two or more")

    def __len__(self) -> int:
        return len(self.songs)

    def read(self, song: int, start: int, length: int) -> Tensor:
        """Samples ``start``..``start + length`` of a song, [C, length]."""
        number = self.songs[song]
        if isinstance(self.corpus, StemCorpus):
            wav = self.corpus.song(number, start, length).sum(0)
        else:
            wav = self.corpus.read(int(self.corpus.starts[number]) + start, length)
        return wav.mean(0, keepdim=True) if self.channels == 1 else wav.expand(self.channels, -1)

    def draw(self, step: int, count: int, length: int, seed: int, mixing: Mixing, purpose: int = 0) -> Tensor:
        """Crops of ``count`` pairs of different songs, [count, 2, C, length]; a function of the arguments alone.

        Varied as ``mixing`` says, as far as that makes sense for whole mixes: level, speed, polarity, channels.
        """
        dice = stream(seed, step, purpose)
        return torch.stack([self._pair(length, dice, mixing) for _ in range(count)])

    def _pair(self, length: int, dice: torch.Generator, mixing: Mixing) -> Tensor:
        rolls = torch.rand(2, 6, generator=dice, dtype=torch.float64).tolist()
        first = int(rolls[0][0] * len(self))
        # any song but the first
        songs = (first, (first + 1 + int(rolls[1][0] * (len(self) - 1))) % len(self))
        parts = []
        for song, (_, place, gain, flip, swap, speed) in zip(songs, rolls, strict=True):
            taken = length
            if mixing.speed:
                taken = max(GRAIN, round(length * (1 + mixing.speed * (2 * speed - 1)) / GRAIN) * GRAIN)
            room = int(self.corpus.lengths[self.songs[song]]) - taken
            if room < 0:
                raise ValueError(f"a song of the data is shorter than a crop of {taken / self.rate:.2f} s: crop less")
            wav = resize(self.read(song, int(place * (room + 1)), taken), length)
            wav = wav * 10 ** (mixing.gain_db * (2 * gain - 1) / 20) * (1.0 if flip < 0.5 else -1.0)
            parts.append(wav.flip(0) if swap < 0.5 else wav)
        return torch.stack(parts)


def fits(config: SeparatorRecipe, corpus: StemCorpus | Mixtures) -> None:
    """Raise ValueError unless the recipe's network can be trained on the packed music."""
    wanted = config.network
    if corpus.rate != wanted.rate:
        have = "music is" if isinstance(corpus, Mixtures) else f"stems are {', '.join(corpus.stems)}"
        raise ValueError(f"the packed {have} at {corpus.rate} Hz, the network is at {wanted.rate} Hz: pack it again")
    if isinstance(corpus, Mixtures):
        return
    # without names, only their number counts
    if config.loss == "pit" and len(corpus.stems) == len(wanted.stems):
        return
    if config.loss == "pit" or grouping(corpus.stems, wanted.stems) is None:
        raise ValueError(
            f"the packed stems are {', '.join(corpus.stems)}, the network makes {', '.join(wanted.stems)}: pack them "
            "again, or set network.stems; its last one takes what has no place of its own"
        )


def grouping(have: Sequence[str], wanted: Sequence[str]) -> list[list[int]] | None:
    """Which of the stems ``have`` make each of ``wanted``: those of its name, and for the last one all the others.

    None where a name is missing, or nothing is left for the last.
    """
    if not set(wanted[:-1]) <= set(have):
        return None
    rest = [number for number, name in enumerate(have) if name not in wanted[:-1]]
    return [*([have.index(name)] for name in wanted[:-1]), rest] if rest else None


def grouped(config: SeparatorRecipe, stems: Tensor, have: Sequence[str]) -> Tensor:
    """Stems [.., N, C, T] called ``have`` as those of the recipe's network, [.., M, C, T]."""
    rows = None if config.loss == "pit" else grouping(have, config.network.stems)
    if rows is None or rows == [[number] for number in range(len(have))]:
        return stems
    return torch.stack([stems[..., row, :, :].sum(-3) for row in rows], -3)
