"""Small pieces for the tests of the judge and the benchmark: two genres that differ in tempo, sound and rhythm."""

import random

from descant.lm.vocab import KEYS, PROGRAMS
from descant.recipes.piece import Piece, Stem


def piece(number: int, split: str = "train", duration: float = 8.0) -> Piece:
    """A waltz with flute and piano, or a techno-like piece with synth lead, bass and drums."""
    dice = random.Random(number)
    waltz = number % 2 == 0
    tempo = dice.choice((90.0, 96.0, 102.0)) if waltz else dice.choice((126.0, 132.0, 138.0))
    beats = 3 if waltz else 4
    key = KEYS[(number * 5) % 24]
    tonic = KEYS.index(key) % 12
    third = 3 if KEYS.index(key) >= 12 else 4
    beat = 60 / tempo
    count = int(duration / beat)
    lead, under = [], []
    for index in range(count):
        at = index * beat
        step = dice.choice((0, third, 7))
        lead.append((at, beat * 0.9, 72 + tonic % 12 + step - 12 * (tonic > 6), 90))
        under.append((at, beat * 0.9, (48 if waltz else 36) + (tonic + (0, third, 7)[index % 3]) % 12, 80))
    stems = [
        _stem("lead", "flute" if waltz else "synth lead", lead),
        _stem("chords" if waltz else "bass", "acoustic piano" if waltz else "synth bass", under),
    ]
    if not waltz:
        hits = [(index * beat / 2, 0.1, 42 if index % 2 else 36, 100) for index in range(2 * count)]
        stems.append(Stem(role="drums", instrument="drums", program=-1, notes=tuple(hits)))
    return Piece(
        id=f"made-{split}-{number:04d}", layer="builtin", split=split, seed=number, duration=duration,
        genre="waltz" if waltz else "electronic", style="made", tempo=tempo, beats_per_bar=beats, key=key,
        chords=((0.0, duration, "C"),), melody=tuple((a, b, c) for a, b, c, _ in lead), stems=tuple(stems),
        captions=("a made piece",),
    )  # fmt: skip


def _stem(role: str, instrument: str, notes: list[tuple[float, float, int, int]]) -> Stem:
    return Stem(role=role, instrument=instrument, program=PROGRAMS[instrument][0], notes=tuple(notes))
