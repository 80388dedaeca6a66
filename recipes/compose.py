"""One labelled piece: genre, style, key and chords are decided, MMA accompanies, a lead plays the melody."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..gen.plan import plan_bars, tempo_range, time_bars
from ..lm import vocab
from . import splits
from .captions import Facts, captions
from .comping import bass_part, chord_part
from .melody import BeatNote, compose_melody
from .mma import Note, Part, Style, accompany, styles
from .piece import Piece, Stem
from .tunes import Tune, arrange

#: Instruments a melody may be given to: all but the rhythm section.
LEADS: tuple[str, ...] = tuple(n for n in vocab.INSTRUMENTS if vocab.FAMILY[n] not in ("drums", "bass"))
#: Where each family sings best (MIDI pitch); single instruments override it.
_CENTRE = {
    "keys": 72, "reeds": 70, "guitar": 67, "strings": 72, "plucked": 72, "voice": 67, "brass": 67, "pipes": 77,
    "mallets": 76, "synth": 72, "cello": 55, "trombone": 56, "french horn": 60, "harmonica": 72, "marimba": 69,
    "glockenspiel": 84, "saxophone": 65, "oboe": 74, "accordion": 72, "distorted guitar": 64,
}  # fmt: skip
_BASSES = {
    "acoustic bass": (
        "jazz", "swing", "bossa nova", "waltz", "tango", "folk", "country", "march", "classical", "blues",
    ),
    "synth bass": ("electronic", "hip hop", "disco"),
}  # fmt: skip
#: Chord instruments for styles that bring none (General MIDI programs).
_COMPING = {
    "electronic": (88, 89, 90, 5, 81), "hip hop": (4, 5, 89, 48), "metal": (30, 29), "rock": (27, 29, 16, 0),
    "jazz": (0, 4, 26, 11), "reggae": (16, 27, 17), "latin": (0, 24), "salsa": (0,), "country": (25, 0),
    "bossa nova": (24, 4), "funk": (4, 7, 27, 16), "soul": (4, 16, 0), "disco": (48, 4, 0), "blues": (0, 26, 16),
}  # fmt: skip
#: Drum kits (presets of bank 128) that suit a genre beside the standard one.
_KITS = {
    "electronic": (24, 25, 24), "hip hop": (25, 24, 0), "jazz": (32, 40, 0), "swing": (32, 0), "metal": (16, 0),
    "rock": (16, 8, 0), "disco": (0, 25), "classical": (48, 0), "march": (48, 0), "ballad": (0, 40, 8),
}  # fmt: skip
#: Where the second half of a beat comes late: genres, and parts of style names that say so or deny it.
_SWUNG = ("swing", "jazz", "blues")
_TRIPLET = ("128", "shuffle", "shfl", "slowrock", "swing")
_STRAIGHT = ("rock-", "jazzrock", "rhumba", "evansish", "bluefolk", "ragtime")
_TUNE_SHARE = {"folk": 0.6, "march": 0.35, "country": 0.35, "waltz": 0.35, "classical": 0.3, "ballad": 0.15}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a piece must be; the seed decides the rest."""

    genre: str
    key: str
    lead: str
    split: str
    seed: int
    duration: float = 60.0


@dataclass(frozen=True)
class _Grid:
    bars: Sequence[tuple[str, ...]]
    beats_per_bar: int
    tempo: float


def compose(order: Order, tunes: Sequence[Tune] = ()) -> Piece:
    """Compose a piece with MMA's accompaniment. Equal orders and tunes give an equal piece.

    ``tunes`` are used where their split and metre fit. Raises ValueError for names that are not in the vocabulary.
    """
    _check(order)
    draw = random.Random(order.seed)
    names = {style.name: style for style in styles(order.genre)}
    style = names[draw.choice(splits.styles_of(order.genre, tuple(names), order.split))]
    low, high = tempo_range(order.genre)
    tempo = float(round(draw.uniform(low, high)))
    beat = 60.0 / tempo
    count = math.ceil(order.duration / (beat * style.beats_per_bar))
    melody, bars, source = _material(order, style, count, tunes, draw)
    sections = [1 if bar // 8 % 4 == 2 else 2 if bar // 8 % 4 == 3 else 0 for bar in range(count)]
    played = accompany(style, bars, sections, tempo, order.seed)
    parts = _complete(played, order, _Grid(bars, style.beats_per_bar, tempo), draw)
    silent = style.beats_per_bar * draw.choice((0, 0, 0, 2, 4))
    melody = tuple(note for note in melody if note[0] >= silent)
    lead = _lead(_swing(melody) if _swings(style) else melody, order, beat, draw)
    stems = [_stem(part, order, draw) for part in parts]
    rank = {"drums": 0, "bass": 1, "lead": 2}
    stems = sorted((s for s in (*stems, lead) if s.notes), key=lambda stem: rank.get(stem.role, 3))
    facts = Facts(
        genre=order.genre, tempo=tempo, key=order.key, beats_per_bar=style.beats_per_bar, lead=order.lead,
        instruments=tuple(dict.fromkeys(stem.instrument for stem in stems)),
    )  # fmt: skip
    return Piece(
        id=f"synth-{order.split}-{order.seed:012x}", layer="synth", split=order.split, seed=order.seed,
        duration=order.duration, genre=order.genre, style=style.name, tempo=tempo, beats_per_bar=style.beats_per_bar,
        key=order.key, chords=time_bars(bars, beat * style.beats_per_bar, order.duration),
        melody=tuple(note[:3] for note in lead.notes), stems=tuple(stems), captions=captions(facts, order.seed),
        sources=(source, f"accompaniment: made with MMA, style {style.name}"),
        mix={"reverb": round(draw.uniform(0.04, 0.28), 3), "room": round(draw.uniform(0.25, 1.1), 3),
             "kit": float(draw.choice((0, *_KITS.get(order.genre, (0,)))))},
    )  # fmt: skip


def _check(order: Order) -> None:
    splits.check(order.split)
    for value, known, what in (
        (order.genre, vocab.GENRES, "genre"), (order.key, vocab.KEYS, "key"), (order.lead, LEADS, "lead instrument"),
    ):  # fmt: skip
        if value not in known:
            raise ValueError(f"unknown {what} {value!r}: one of {', '.join(known)}")
    if not 4 <= order.duration <= 3600:
        raise ValueError(f"a piece of {order.duration:g} s is out of range: give 4 to 3600 s")


def _material(
    order: Order, style: Style, count: int, tunes: Sequence[Tune], draw: random.Random
) -> tuple[tuple[BeatNote, ...], list[tuple[str, ...]], str]:
    """Melody in beats, chords of each bar, and where the melody comes from."""
    centre = _CENTRE.get(order.lead, _CENTRE.get(vocab.FAMILY[order.lead], 70))
    fitting = [
        tune for tune in tunes
        if tune.beats_per_bar == style.beats_per_bar and tune.mode == order.key.split()[1]
        and splits.tune_split(tune.id) == order.split
    ]  # fmt: skip
    if fitting and draw.random() < _TUNE_SHARE.get(order.genre, 0.0):
        tune = draw.choice(fitting)
        melody, bars = arrange(tune, order.key, count, centre)
        return melody, bars, f"melody: {tune.id}, {tune.title}, public domain"
    bars = plan_bars(order.genre, order.key, count, order.seed, style.beats_per_bar)
    return compose_melody(bars, order.key, style.beats_per_bar, centre, order.seed), bars, "melody: generated"


def _complete(parts: Sequence[Part], order: Order, grid: _Grid, draw: random.Random) -> list[Part]:
    """Add the bass or the chords where the style has none, and keep at most three chord parts."""
    rhythm = [part for part in parts if part.role in ("drums", "bass")]
    chords = [part for part in parts if part.role not in ("drums", "bass")]
    figures = order.genre, grid.bars, grid.beats_per_bar, grid.tempo, order.seed
    if not any(part.role == "bass" for part in rhythm):
        rhythm.append(Part("bass", _bass(order.genre, draw), bass_part(*figures)))
    if not any(len(part.notes) >= len(grid.bars) for part in chords):
        program = draw.choice(_COMPING.get(order.genre, (0, 4, 25, 48)))
        family = vocab.FAMILY[next(name for name, programs in vocab.PROGRAMS.items() if program in programs)]
        chords = [part for part in chords if part.role != family]
        chords = [Part(family, program, chord_part(*figures)), *chords]
    return [*rhythm, *chords[:3]]


def _bass(genre: str, draw: random.Random) -> int:
    name = next((name for name, genres in _BASSES.items() if genre in genres), "electric bass")
    return draw.choice(vocab.PROGRAMS[name][:3])


def _swings(style: Style) -> bool:
    if any(word in style.name for word in _TRIPLET):
        return True
    return style.genre in _SWUNG and not any(word in style.name for word in _STRAIGHT)


def _swing(melody: Sequence[BeatNote]) -> tuple[BeatNote, ...]:
    """Move what lies half-way through a beat to two thirds, its neighbours' lengths with it."""

    def late(beat: float) -> float:
        return beat + 1 / 6 if abs(beat % 1 - 0.5) < 1e-6 else beat

    return tuple(
        (late(onset), (late(onset + length / 0.92) - late(onset)) * 0.92, pitch) for onset, length, pitch in melody
    )


def _lead(melody: Sequence[BeatNote], order: Order, beat: float, draw: random.Random) -> Stem:
    programs = [program for program in vocab.PROGRAMS[order.lead] if program != 55]  # an orchestra hit is no melody
    program = draw.choice((programs[0], *programs[:3]))
    notes: list[Note] = []
    for onset, length, pitch in melody:
        start = onset * beat
        if start >= order.duration - 0.05:
            break
        length = min(length * beat, order.duration - start)
        accent = 8 if onset % 1 == 0 else 0
        notes.append((round(start, 4), round(length, 4), pitch, 84 + accent + draw.randint(-8, 10)))
    pan = round(draw.uniform(-0.2, 0.2), 2)
    return Stem(role="lead", instrument=order.lead, program=program, notes=tuple(notes), pan=pan)


def _stem(part: Part, order: Order, draw: random.Random) -> Stem:
    pan = 0.0
    if part.role == "bass":
        known = any(part.program in vocab.PROGRAMS[name] for name in ("acoustic bass", "electric bass", "synth bass"))
        # lines that a style plays low on a piano or guitar become a bass, so that the label is right
        part = part if known else replace(part, program=_bass(order.genre, draw))
    elif part.role != "drums":
        if part.instrument == order.lead or draw.random() < 0.25:
            others = [n for n in vocab.INSTRUMENTS if vocab.FAMILY[n] == part.role and n != order.lead]
            program = draw.choice(vocab.PROGRAMS[draw.choice(others)][:2]) if others else part.program
            part = replace(part, program=program)
        pan = draw.choice((-1, 1)) * draw.uniform(0.1, 0.7)
    notes = tuple(
        (onset, round(min(length, order.duration - onset), 4), pitch, max(1, min(127, velocity + draw.randint(-7, 7))))
        for onset, length, pitch, velocity in part.notes
        if onset < order.duration - 0.02 and 0 <= pitch <= 127
    )
    return Stem(role=part.role, instrument=part.instrument, program=part.program, notes=notes, pan=round(pan, 2))
