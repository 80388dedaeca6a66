"""Drum loops with an exact tempo, beats and metre: what the rhythm analysers are tested on and never fitted to.

The patterns are written out below and played by :mod:`descant.recipes.voices` with a player's small unevenness. They
are not those of the composer in :mod:`descant.recipes.builtin`. Half-time patterns, for which listeners disagree about
the beat by a factor of two, are left out on purpose.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .piece import Stem
from .voices import render_stem

_K, _S, _R, _CLAP, _H, _O, _T, _A, _SHAKE = 36, 38, 37, 39, 42, 46, 51, 45, 70


@dataclass(frozen=True)
class Pattern:
    """One bar. Rows: ``x`` loud, ``o`` soft, ``.`` rest, ``steps`` characters a beat."""

    name: str
    beats: int
    steps: int
    tempi: tuple[float, float]
    """Slowest and fastest tempo at which the pattern is played so."""
    rows: tuple[tuple[int, str], ...]


#: The patterns, each with the tempi it is played at.
PATTERNS: tuple[Pattern, ...] = (
    Pattern("eighths", 4, 2, (78, 168), ((_K, "x...xx.."), (_S, "..x...x."), (_H, "xxxxxxxx"))),
    Pattern("eighths, busy kick", 4, 4, (72, 132),
            ((_K, "x..x..x...x....."), (_S, "....x.......x..."), (_H, "x.x.x.x.x.x.x.x."))),
    Pattern("slow sixteenths", 4, 4, (60, 92),
            ((_K, "x......xx......."), (_S, "....x.......x..."), (_H, "xoxoxoxoxoxoxoxo"))),
    Pattern("slow and bare", 4, 4, (60, 84),
            ((_K, "x.......x.x....."), (_S, "....x.......x..o"), (_H, "x.o.x.o.x.o.x.o."))),
    Pattern("twelve-eight", 4, 3, (60, 78), ((_K, "x.....x.x..."), (_S, "...x.....x.."), (_H, "xooxooxooxoo"))),
    Pattern("house", 4, 4, (116, 132),
            ((_K, "x...x...x...x..."), (_CLAP, "....x.......x..."), (_O, "..x...x...x...x."))),
    Pattern("techno", 4, 4, (124, 146), ((_K, "x...x...x...x..."), (_H, "ooxoooxoooxoooxo"), (_R, "...x......x....."))),
    Pattern("disco", 4, 4, (108, 130), ((_K, "x...x...x...x..."), (_S, "....x.......x..."), (_H, "xoxoxoxoxoxoxoxo"))),
    Pattern("jungle", 4, 4, (158, 178), ((_K, "x.x.......x....."), (_S, "....x..o.o..x..o"), (_H, "x.x.x.x.x.x.x.x."))),
    Pattern("boom bap", 4, 4, (82, 102),
            ((_K, "x.x....x..x....."), (_S, "....x.......x..."), (_H, "x.x.x.x.x.x.x.xo"))),
    Pattern("triplet shuffle", 4, 3, (88, 150), ((_K, "x.....x....."), (_S, "...x.....x.."), (_T, "x.ox.ox.ox.o"))),
    Pattern("four on the snare", 4, 2, (112, 172), ((_K, "x..xx..."), (_S, "x.x.x.x."), (_H, "x.x.x.x."))),
    Pattern("train", 4, 4, (92, 128), ((_K, "x...x...x...x..."), (_S, "ooxoooxoooxoooxx"))),
    Pattern("samba", 2, 4, (88, 118), ((_A, "o...x..."), (_SHAKE, "xooxxoox"), (_R, "x.x..x.x"))),
    Pattern("dembow", 4, 4, (86, 106), ((_K, "x...x...x...x..."), (_S, "...x..x....x..x."), (_H, "x.x.x.x.x.x.x.x."))),
    Pattern("punk", 4, 2, (150, 180), ((_K, "x..xx..."), (_S, "..x...x."), (_T, "x.x.x.x."))),
    Pattern("waltz", 3, 2, (90, 176), ((_K, "x....."), (_S, "..x.x."), (_T, "x.xox."))),
    Pattern("slow waltz", 3, 4, (66, 96), ((_K, "x.........x."), (_S, "....x...o..."), (_H, "x.o.x.o.x.o."))),
    Pattern("marching", 4, 4, (96, 132), ((_K, "x.......x......."), (_S, "x...x.oox...x.xx"))),
)  # fmt: skip


@dataclass(frozen=True)
class Loop:
    """A rendered pattern and what is true of it."""

    name: str
    tempo: float
    beats_per_bar: int
    beats: tuple[float, ...]
    """Times of the beats, s."""
    wav: Tensor
    """[2, T]."""


def play(pattern: Pattern, tempo: float, seconds: float, rate: int, seed: int) -> Loop:
    """Play a pattern: strokes up to 6 ms early or late, levels within 10 %, the first bar up to half a bar in.

    Equal arguments give equal samples.
    """
    draw = random.Random(f"loop {pattern.name} {tempo:.3f} {seed}")
    beat = 60 / tempo
    start = draw.uniform(0.02, beat * pattern.beats / 2)
    notes = []
    for pitch, row in pattern.rows:
        if len(row) != pattern.beats * pattern.steps:
            raise ValueError(f"{pattern.name}: row {row!r} needs {pattern.beats * pattern.steps} characters")
        for index in range(int((seconds - start) / beat * pattern.steps) + 1):
            letter = row[index % len(row)]
            onset = start + index * beat / pattern.steps + draw.uniform(-0.006, 0.006)
            if letter != "." and 0 <= onset < seconds - 0.03:
                level = (108 if letter == "x" else 62) * draw.uniform(0.9, 1.1)
                notes.append((onset, 0.1, pitch, max(1, min(127, round(level)))))
    stem = Stem(role="drums", instrument="drums", program=-1, notes=tuple(sorted(notes)))
    count = int((seconds - start) / beat) + 1
    return Loop(
        name=pattern.name, tempo=tempo, beats_per_bar=pattern.beats,
        beats=tuple(start + i * beat for i in range(count) if start + i * beat < seconds),
        wav=render_stem(stem, seconds, rate)[:, : round(seconds * rate)],
    )  # fmt: skip


def loops(per_pattern: int = 5, seconds: float = 10.0, rate: int = 32_000, seed: int = 0) -> Iterator[Loop]:
    """Every pattern at ``per_pattern`` tempi spread over its range. Deterministic in its arguments."""
    if per_pattern < 1 or seconds < 2:
        raise ValueError(f"need at least 1 tempo and 2 s, not {per_pattern} and {seconds:g}")
    for pattern in PATTERNS:
        low, high = pattern.tempi
        for index in range(per_pattern):
            draw = random.Random(f"tempo {pattern.name} {index} {seed}")
            tempo = low + (high - low) * (index + draw.random()) / per_pattern
            yield play(pattern, round(tempo, 2), seconds, rate, seed + index)
