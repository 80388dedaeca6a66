"""Bass and chord parts of our own, for accompaniment styles that bring drums alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ..lm.chords import Chord, parse
from .mma import Note

#: Bass figures: (beat, length, degree of the chord: 0 root, 1 fifth, 2 octave), for bars of 4.
_BASS: dict[str, tuple[tuple[tuple[float, float, int], ...], ...]] = {
    "held": (((0, 1.8, 0), (2, 1.8, 0)), ((0, 3.8, 0),), ((0, 1.4, 0), (1.5, 0.4, 0), (2, 1.8, 1))),
    "eighths": (tuple((i / 2, 0.42, 0) for i in range(8)), tuple((i / 2, 0.4, 2 * (i % 2)) for i in range(8))),
    "walking": (((0, 0.95, 0), (1, 0.95, 1), (2, 0.95, 2), (3, 0.95, 1)),),
    "broken": (
        ((0, 0.7, 0), (0.75, 0.2, 0), (1.5, 0.4, 2), (2.5, 0.4, 0), (3, 0.4, 1), (3.5, 0.4, 0)),
        ((0, 0.9, 0), (1.75, 0.2, 0), (2, 0.7, 0), (3.5, 0.4, 1)),
    ),
    "latin": (((0, 1.4, 0), (1.5, 0.4, 1), (2, 1.4, 1), (3.5, 0.4, 0)), ((0, 0.9, 0), (1.5, 1.3, 1), (3, 0.9, 2))),
}
#: Chord figures: (beat, length).
_CHORDS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "held": (((0, 3.9),), ((0, 1.9), (2, 1.9))),
    "off": (((0.5, 0.35), (1.5, 0.35), (2.5, 0.35), (3.5, 0.35)), ((1, 0.4), (3, 0.4))),
    "eighths": (tuple((i / 2, 0.4) for i in range(8)), tuple((float(i), 0.85) for i in range(4))),
    "stabs": (((0, 0.6), (1.5, 0.4), (3, 0.5)), ((0.5, 0.3), (1.75, 0.3), (3, 0.6)), ((0, 1.4), (1.5, 2.2))),
}
_FEEL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "blues": (("walking",), ("stabs", "off")), "bossa nova": (("latin",), ("stabs",)),
    "disco": (("eighths",), ("stabs", "held")), "electronic": (("eighths", "broken"), ("held", "stabs")),
    "funk": (("broken",), ("stabs",)), "hip hop": (("held", "broken"), ("held", "stabs")),
    "jazz": (("walking",), ("stabs",)), "latin": (("latin",), ("stabs", "off")), "metal": (("eighths",), ("eighths",)),
    "pop": (("held", "eighths"), ("held", "eighths")), "reggae": (("broken", "held"), ("off",)),
    "rock": (("eighths", "held"), ("eighths", "held")), "salsa": (("latin",), ("stabs",)),
    "soul": (("broken", "held"), ("held", "stabs")), "swing": (("walking",), ("stabs",)),
}  # fmt: skip
_ANY = (("held",), ("held", "eighths"))


def bass_part(
    genre: str, bars: Sequence[tuple[str, ...]], beats_per_bar: int, tempo: float, seed: int
) -> tuple[Note, ...]:
    """A bass line: one figure of the genre on the roots and fifths of the chords, in seconds."""
    draw = random.Random(seed)
    figure = draw.choice(_BASS[draw.choice(_FEEL.get(genre, _ANY)[0])])
    notes: list[Note] = []
    for bar, symbols in enumerate(bars):
        for beat, length, degree in figure:
            if beat < beats_per_bar:
                chord = _at(symbols, beat, beats_per_bar)
                pitch = 28 + (chord.bass - 4) % 12 + (0, 7, 12)[degree]
                if degree == 1 and (chord.root + 7) % 12 not in chord.classes:
                    pitch -= 1  # a diminished fifth
                at = bar * beats_per_bar + beat
                notes.append(_timed(at, min(length, beats_per_bar - beat), pitch, 92 if beat == 0 else 82, tempo))
    return tuple(notes)


def chord_part(
    genre: str, bars: Sequence[tuple[str, ...]], beats_per_bar: int, tempo: float, seed: int
) -> tuple[Note, ...]:
    """Chords around middle C in one rhythm of the genre, each voiced near the one before, in seconds."""
    draw = random.Random(seed)
    figure = draw.choice(_CHORDS[draw.choice(_FEEL.get(genre, _ANY)[1])])
    notes: list[Note] = []
    voicing: tuple[int, ...] = (60,)
    for bar, symbols in enumerate(bars):
        # a chord change inside a held chord is played anew
        strokes = [*figure]
        if len(symbols) == 2 and all(not beat <= beats_per_bar / 2 < beat + 0.5 for beat, _ in figure):
            strokes.append((beats_per_bar / 2, 0.9))
        strokes.sort()
        for place, (beat, length) in enumerate(strokes):
            if beat >= beats_per_bar:
                continue
            until = strokes[place + 1][0] if place + 1 < len(strokes) else float(beats_per_bar)
            centre = 0.7 * sum(voicing) / len(voicing) + 0.3 * 60  # it does not wander off
            voicing = tuple(sorted(_near(tone, centre) for tone in _at(symbols, beat, beats_per_bar).classes))
            at = bar * beats_per_bar + beat
            span = min(length, max(0.1, until - beat - 0.03))
            notes += [_timed(at, span, pitch, 84 if beat == 0 else 74, tempo) for pitch in voicing]
    return tuple(notes)


def _at(symbols: tuple[str, ...], beat: float, beats: int) -> Chord:
    return parse(symbols[min(len(symbols) - 1, int(beat * len(symbols) / beats))])


def _near(tone: int, centre: float) -> int:
    return min((p for p in range(48, 77) if p % 12 == tone), key=lambda p: abs(p - centre))


def _timed(at: float, length: float, pitch: int, velocity: int, tempo: float) -> Note:
    beat = 60.0 / tempo
    return round(at * beat, 4), round(length * beat, 4), pitch, velocity
