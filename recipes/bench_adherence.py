"""Does the music do what the sentence says? Prompts nobody trained on, and scores by analysers apart from training.

Each clip is analysed once; every score compares what was heard with what a prompt wanted, so the same analysis gives
the matched figure, the shuffled one and the permutation test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ..eval import rhythm, tonality
from ..eval.judge import Judge
from ..eval.statistics import matching_test
from ..lm.vocab import FAMILY
from .piece import Piece

#: Sentences the generator's captions do not use; the judge has its own words.
_SENTENCES = (
    "please play {genre} with {instruments}, key of {key}, {tempo} bpm",
    "{tempo} bpm {genre}, {key}: {instruments}",
    "I need a {genre} number in {key} for {instruments} at {tempo} bpm",
    "write {genre} music at {tempo} bpm in {key} featuring {instruments}",
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a prompt asks for."""

    id: str
    text: str
    genre: str
    tempo: float
    key: str
    instruments: tuple[str, ...]
    lead: str
    """The lead instrument; empty when the piece has none."""

    @property
    def families(self) -> frozenset[str]:
        """Families of the instruments."""
        return frozenset(FAMILY[name] for name in self.instruments)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the analysers found in a clip."""

    tempo: float
    key: str
    genre: str
    genres: Mapping[str, float]
    families: tuple[str, ...]
    """Families above their thresholds."""
    lead: str
    family_chances: Mapping[str, float]
    """Probability of each family being there."""
    instrument_chances: Mapping[str, float]
    """Probability of each instrument being there."""

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Heard:
        """Read what ``dataclasses.asdict`` made of an analysis."""
        return Heard(**{**row, "families": tuple(row["families"])})


def _f1(heard: Heard, wanted: Wanted) -> float:
    present = frozenset(heard.families)
    return 2 * len(present & wanted.families) / max(1, len(present) + len(wanted.families))


def _likelihood(chances: Mapping[str, float], present: Iterable[str]) -> float:
    """Mean log probability, in nats, of the right answer to "is it there?" over all names.

    Thresholds play no part, so it still tells wanted from unwanted where a judge is unsure of all of them.
    """
    there = frozenset(present)
    total = 0.0
    for name, chance in chances.items():
        total += math.log(min(max(chance if name in there else 1 - chance, 1e-4), 1.0))
    return total / len(chances)


_MULTIPLES = ("exact", "double", "half", "triple", "third")
#: Measure -> score of a clip against a prompt: 0 to 1, log likelihoods in nats.
MEASURES: Mapping[str, Callable[[Heard, Wanted], float]] = MappingProxyType({
    "tempo within 4 %": lambda heard, wanted: float(rhythm.relation(heard.tempo, wanted.tempo) == "exact"),
    "tempo or a metrical multiple": lambda heard, wanted: float(
        rhythm.relation(heard.tempo, wanted.tempo) in _MULTIPLES
    ),
    "key exact": lambda heard, wanted: float(heard.key == wanted.key),
    "key, MIREX weighted": lambda heard, wanted: tonality.mirex_score(heard.key, wanted.key),
    "genre": lambda heard, wanted: float(heard.genre == wanted.genre),
    "genre, probability": lambda heard, wanted: float(heard.genres[wanted.genre]),
    "instrument families, F1": _f1,
    "instrument families, likelihood in nats": lambda heard, wanted: _likelihood(heard.family_chances, wanted.families),
    "instruments, likelihood in nats": lambda heard, wanted: _likelihood(heard.instrument_chances, wanted.instruments),
    "lead instrument's family": lambda heard, wanted: float(
        bool(wanted.lead) and FAMILY[heard.lead] == FAMILY[wanted.lead]
    ),
})  # fmt: skip


def combination(piece: Piece) -> tuple[str, str, int, frozenset[str]]:
    """What makes a prompt: genre, key, tempo in BPM, instruments."""
    return piece.genre, piece.key, round(piece.tempo), frozenset(piece.instruments)


def lead_of(piece: Piece) -> str:
    """The instrument that plays the lead; empty when there is none."""
    return next((stem.instrument for stem in piece.stems if stem.role == "lead"), "")


def held_out_prompts(test: Iterable[Piece], train: Iterable[Piece], count: int) -> list[tuple[Piece, Wanted]]:
    """Choose ``count`` test pieces, genres in turn, that ask for what no training piece has, and word their prompts.

    Neither the whole combination (genre, key, tempo, instruments) nor its core (genre, key, lead instrument) may occur
    in ``train``. Raises ValueError when there are too few.
    """
    learned = list(train)
    seen = {combination(piece) for piece in learned}
    cores = {(piece.genre, piece.key, lead_of(piece)) for piece in learned}
    groups: dict[str, list[Piece]] = {}
    for piece in sorted(test, key=lambda item: item.id):
        if combination(piece) not in seen and (piece.genre, piece.key, lead_of(piece)) not in cores:
            groups.setdefault(piece.genre, []).append(piece)
            seen.add(combination(piece))
    chosen: list[Piece] = []
    while len(chosen) < count and groups:
        for genre in sorted(groups):
            chosen.append(groups[genre].pop(0))
            if not groups[genre]:
                del groups[genre]
    if len(chosen) < count:
        raise ValueError(f"only {len(chosen)} held-out combinations for {count} prompts: render more test pieces")
    return [(piece, wanted(piece, index)) for index, piece in enumerate(chosen[:count])]


def wanted(piece: Piece, index: int = 0) -> Wanted:
    """The prompt whose answer ``piece`` would be; ``index`` picks the sentence."""
    names = list(piece.instruments)
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    text = _SENTENCES[index % len(_SENTENCES)].format(
        genre=piece.genre, instruments=listed, key=piece.key, tempo=round(piece.tempo)
    )
    return Wanted(
        id=piece.id, text=text, genre=piece.genre, tempo=float(round(piece.tempo)), key=piece.key,
        instruments=piece.instruments, lead=lead_of(piece),
    )  # fmt: skip


def analyse(wav: Tensor, rate: int, judge: Judge) -> Heard:
    """Listen to [C, T] at ``rate`` Hz with all analysers. A clip without pulse or key counts as tempo 0, key ''."""
    tags = judge.tag(wav, rate)
    return Heard(
        tempo=rhythm.tempo(wav, rate).bpm,
        key=tonality.key(wav, rate).name,
        genre=tags.genre,
        genres=dict(tags.genres),
        families=tuple(sorted(tags.present)),
        lead=tags.lead,
        family_chances=dict(tags.families),
        instrument_chances=dict(tags.instruments),
    )


def score(heard: Sequence[Heard], prompts: Sequence[Wanted], shuffles: int = 10_000) -> dict[str, dict[str, Any]]:
    """Every measure's matched mean with interval, shuffled mean and p, for clips and prompts in the same order."""
    if len(heard) != len(prompts):
        raise ValueError(f"{len(heard)} clips for {len(prompts)} prompts: they must pair up")
    out: dict[str, dict[str, Any]] = {}
    for name, measure in MEASURES.items():
        table = torch.tensor([[measure(clip, prompt) for prompt in prompts] for clip in heard], dtype=torch.float64)
        outcome = matching_test(table, shuffles=shuffles)
        out[name] = {
            "mean": outcome.matched.mean, "low": outcome.matched.low, "high": outcome.matched.high,
            "shuffled": outcome.shuffled, "p": outcome.p,
        }  # fmt: skip
    return out


def relations(heard: Sequence[Heard], prompts: Sequence[Wanted]) -> dict[str, int]:
    """How often each relation of :func:`descant.eval.rhythm.relation` occurs."""
    found: dict[str, int] = {}
    for clip, prompt in zip(heard, prompts, strict=True):
        name = rhythm.relation(clip.tempo, prompt.tempo)
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))
