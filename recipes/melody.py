"""Melodies that follow given chords: motifs of two bars, varied and repeated, that rest on the key's tonic."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..gen.plan import scale, split_key
from ..lm.chords import parse

#: A melody note in quarter notes from the first beat: (onset, length, MIDI pitch).
BeatNote = tuple[float, float, int]

#: Bars of 4 beats as note lengths in quarters (negative: a rest), from calm to busy.
_RHYTHMS_4: tuple[tuple[tuple[float, ...], ...], ...] = (
    ((4,), (2, 2), (3, 1), (2, 1, 1), (-1, 3), (1, 3), (1, 1, 2)),
    (
        (1, 1, 1, 1), (1.5, 0.5, 2), (1, 1, 2), (1.5, 0.5, 1, 1), (2, 1, 1), (-1, 1, 1, 1), (1, 0.5, 0.5, 2),
        (1.5, 1.5, 1),
    ),
    (
        (0.5, 0.5, 1, 0.5, 0.5, 1), (1, 0.5, 0.5, 1, 1), (0.5, 0.5, 0.5, 0.5, 1, 1), (-0.5, 0.5, 0.5, 0.5, 1, 1),
        (1.5, 0.5, 0.5, 0.5, 1), (0.5, 1, 0.5, 1, 1), (0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1), (1, 1, 0.5, 0.5, 1),
        (0.75, 0.75, 0.5, 1, 1), (-0.5, 0.5, 1, 0.5, 0.5, 1),
    ),
)  # fmt: skip
_RHYTHMS_3: tuple[tuple[tuple[float, ...], ...], ...] = (
    ((3,), (2, 1), (1, 2), (-1, 2)),
    ((1, 1, 1), (2, 1), (1.5, 0.5, 1), (1, 2), (-1, 1, 1)),
    ((1, 0.5, 0.5, 1), (0.5, 0.5, 1, 1), (0.5, 0.5, 0.5, 0.5, 1), (1, 1, 0.5, 0.5), (-0.5, 0.5, 1, 1)),
)
#: Scale steps from note to note: mostly by step, now and then a leap.
_STEPS = (-1, -1, -1, 1, 1, 1, 0, 2, -2, 2, -2, 3, -3, 4)


@dataclass(frozen=True)
class _Motif:
    rhythms: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...]


def compose_melody(
    bars: Sequence[tuple[str, ...]], key: str, beats_per_bar: int, centre: int, seed: int
) -> tuple[BeatNote, ...]:
    """Write a melody over ``bars`` (chord symbols of each bar) around the MIDI pitch ``centre``.

    Notes on strong beats belong to the chord, the others move through the key's scale, bent to the chord where the
    chord leaves the key. Every eighth bar closes on a long note, the tonic where the chord has it.
    """
    draw = random.Random(seed)
    level = draw.choices((0, 1, 2), (0.2, 0.45, 0.35))[0]
    motifs = {name: _motif(draw, beats_per_bar, level) for name in "abcd"}
    phrase = draw.choice(("abac", "aaab", "abab", "aabc", "abcd"))
    other = draw.choice(("cdcd", "dcda", "ccda"))
    form = draw.choice(("AABA", "ABAB", "AABB"))
    notes: list[BeatNote] = []
    pitch = centre
    for start in range(0, len(bars), 2):
        section = form[start // 8 % len(form)]
        name = (phrase if section == "A" else other)[start // 2 % 4]
        motif = motifs[name]
        step = 0
        for place in (0, 1):
            bar = start + place
            if bar >= len(bars):
                break
            closing = bar % 8 == 7 or bar == len(bars) - 1
            rhythm = (float(beats_per_bar),) if closing else motif.rhythms[place]
            at = bar * float(beats_per_bar)
            for length in rhythm:
                if length > 0:
                    beat = at - bar * beats_per_bar
                    chord = _chord_at(bars[bar], beat, beats_per_bar)
                    move = motif.steps[step % len(motif.steps)]
                    strong = beat % 2 == 0 or length >= 1.5
                    pitch = _next(pitch, move, chord, key, centre, strong, closing)
                    # short of the full length, so that repeated notes are heard apart
                    notes.append((at, length * (0.8 if closing else 0.92), pitch))
                    step += 1
                at += abs(length)
    return tuple(notes)


def bend(key: str, symbol: str) -> tuple[int, ...]:
    """The key's scale with its notes moved to the chord's where the chord leaves the scale, as pitch classes."""
    chord = parse(symbol)
    found = set(scale(key))
    for tone in chord.classes:
        if tone not in found:
            # a root, minor third or seventh that leaves the key is a lowered note, everything else a raised one
            lowered = (tone - chord.root) % 12 in (0, 3, 10)
            found -= {(tone + (1 if lowered else -1)) % 12} - set(chord.classes)
            found.add(tone)
    return tuple(sorted(found))


def _motif(draw: random.Random, beats: int, level: int) -> _Motif:
    table = _RHYTHMS_3 if beats == 3 else _RHYTHMS_4
    pool = table[level] + table[max(0, level - 1)]
    rhythms = (draw.choice(table[level]), draw.choice(pool))
    return _Motif(rhythms, tuple(draw.choice(_STEPS) for _ in range(12)))


def _chord_at(symbols: tuple[str, ...], beat: float, beats: int) -> str:
    return symbols[min(len(symbols) - 1, int(beat * len(symbols) / beats))]


def _next(pitch: int, move: int, symbol: str, key: str, centre: int, strong: bool, closing: bool) -> int:
    # far from the centre the line turns back
    if pitch - centre > 8 and move > 0 or centre - pitch > 8 and move < 0:
        move = -move
    ladder = [p for p in range(max(0, centre - 16), min(127, centre + 16) + 1) if p % 12 in bend(key, symbol)]
    here = min(range(len(ladder)), key=lambda i: abs(ladder[i] - pitch))
    target = ladder[max(0, min(len(ladder) - 1, here + move))]
    if not strong:
        return target
    classes = parse(symbol).classes
    tonic = split_key(key)[0]
    if closing and tonic in classes:
        classes = (tonic,)
    near = [p for p in range(max(0, centre - 14), min(127, centre + 14) + 1) if p % 12 in classes]
    return min(near, key=lambda p: (abs(p - target), p))
