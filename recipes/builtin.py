"""Music out of nothing: a pattern composer for :mod:`descant.recipes.voices`, exact labels, no download.

It exists so that tests, continuous integration and a first experiment have endless, fully labelled multi-stem music
within a second. Harmony comes from :mod:`descant.gen.plan`; drums, bass and accompaniment are bars on a grid; the lead
is a motif per phrase, repeated as AABA, with chord notes on the strong beats and steps between.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass

from ..gen.plan import default_metre, plan_chords, tempo_range
from ..lm.chords import Chord, parse
from ..lm.vocab import GENRES, KEYS, PROGRAMS, TONICS
from .piece import Piece, Stem
from .voices import render_stem

__all__ = ["compose", "render_stem"]

SPLITS = ("train", "dev", "test")
_NOTES = tuple[tuple[float, float, int, int], ...]


@dataclass(frozen=True)
class _Groove:
    """One bar of accompaniment on a grid of ``steps`` per beat. Rows: ``x`` plays, ``o`` plays softly, ``.`` rests."""

    name: str
    beats: int
    steps: int
    drums: tuple[tuple[int, str], ...]
    bass: str
    """``r`` root, ``f`` fifth, ``t`` third, ``o`` octave, ``.`` rest."""
    comp: str
    """``x`` chord, ``s`` short chord, digits single chord notes from below."""


_K, _S, _R, _H, _O, _T, _D, _B, _C = 36, 38, 37, 42, 46, 51, 54, 76, 63
_GROOVES: tuple[_Groove, ...] = (
    _Groove("rock", 4, 4, ((_K, "x.......x.x....."), (_S, "....x.......x..."), (_H, "x.o.x.o.x.o.x.o.")),
            "r.r.r.r.r.r.r.f.", "x.......x......."),
    _Groove("rock push", 4, 4, ((_K, "x.....x.x......."), (_S, "....x.......x..."), (_T, "x...x.o.x...x.o.")),
            "r.....r.r...f.r.", "x.....x.......x."),
    _Groove("ballad", 4, 4, ((_K, "x.........x....."), (_R, "........x......."), (_H, "o...o...o...o...")),
            "r.......f.......", "0.1.2.1.3.2.1.2."),
    _Groove("four on the floor", 4, 4, ((_K, "x...x...x...x..."), (39, "....x.......x..."), (_O, "..x...x...x...x.")),
            "r.or.or.or.or.or", "..s...s...s...s."),
    _Groove("funk", 4, 4, ((_K, "x..x......x..x.."), (_S, "....x..o.o..x..o"), (_H, "xxoxxxoxxxoxxxox")),
            "r..r..o...f.r.t.", "..s..s....s..s.."),
    _Groove("hip hop", 4, 4, ((_K, "x..x...x..x....."), (_S, "....x.......x..."), (_H, "x.x.x.xxx.x.x.x.")),
            "r......r..r.....", "x..............."),
    _Groove("bossa", 4, 4, ((_K, "x..xx..xx..xx..x"), (_R, "x..x..x...x..x.."), (_D, "oxoxoxoxoxoxoxox")),
            "r..rf..fr..rf..f", "s..s..s...s..s.."),
    _Groove("clave", 4, 4, ((_K, "...x...x...x...x"), (_B, "x..x..x...x.x..."), (_C, "o.xxo.xxo.xxo.xx")),
            "...r..f....r..f.", "0..1.2..1.0..2.1"),
    _Groove("swing", 4, 3, ((_T, "x..x.xx..x.x"), (44, "...x.....x.."), (_K, "o..o..o..o..")),
            "r..t..f..o..", "...s.s......"),
    _Groove("shuffle", 4, 3, ((_K, "x.....x....."), (_S, "...x.....x.."), (_H, "x.ox.ox.ox.o")),
            "r.rt.tf.ff.t", "x..x..x..x.."),
    _Groove("two beat", 4, 4, ((_K, "x.......x......."), (_S, "....x..o....x..o"), (_H, "o.o.o.o.o.o.o.o.")),
            "r.......f.......", "....s.......s..."),
    _Groove("one drop", 4, 4, ((_K, "........x......."), (_R, "........x......."), (_H, "x.o.x.o.x.o.x.oo")),
            "r..r..f...t.....", "....s.......s..."),
    _Groove("drive", 4, 4, ((_K, "xxx.x.x.xxx.x.x."), (_S, "....x.......x..."), (_T, "x...x...x...x...")),
            "rrrrrrrrrrrrrrff", "x...x...x...x..."),
    _Groove("march", 4, 4, ((_K, "x.......x......."), (_S, "x.xxx.x.x.xxx.xx")),
            "r...f...r...f...", "..s...s...s...s."),
    _Groove("waltz", 3, 4, ((_K, "x..........."), (_R, "....o...o..."), (_T, "o...o...o...")),
            "r...........", "....s...s..."),
    _Groove("waltz flow", 3, 4, ((_K, "x..........."), (_H, "....x...x.o.")),
            "r.......f...", "0.1.2.3.2.1."),
)  # fmt: skip

_CLASSES: dict[str, tuple[str, ...]] = {
    "ballad": ("ballad",), "blues": ("shuffle",), "bossa nova": ("bossa",), "classical": ("ballad", "march"),
    "country": ("two beat", "rock"), "disco": ("four on the floor",), "electronic": ("four on the floor", "hip hop"),
    "folk": ("two beat",), "funk": ("funk",), "hip hop": ("hip hop",), "jazz": ("swing",), "latin": ("clave", "bossa"),
    "march": ("march",), "metal": ("drive",), "pop": ("rock push", "rock"), "reggae": ("one drop",),
    "rock": ("rock", "rock push"), "salsa": ("clave",), "soul": ("rock push", "funk"), "swing": ("swing",),
    "tango": ("march", "two beat"), "waltz": ("waltz", "waltz flow"),
}  # fmt: skip
_PLAYERS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    # bass, accompaniment, lead
    "acoustic": (("acoustic bass", "cello"), ("nylon guitar", "steel guitar", "acoustic piano", "harp", "accordion"),
                 ("flute", "violin", "recorder", "oboe", "clarinet", "harmonica", "acoustic piano")),
    "band": (("electric bass",), ("electric guitar", "organ", "electric piano", "acoustic piano", "steel guitar"),
             ("saxophone", "electric guitar", "synth lead", "trumpet", "violin", "organ")),
    "jazz": (("acoustic bass",), ("acoustic piano", "electric guitar", "vibraphone", "electric piano"),
             ("saxophone", "trumpet", "clarinet", "flute", "trombone", "vibraphone")),
    "synth": (("synth bass",), ("electric piano", "synth pad", "organ", "marimba"),
              ("synth lead", "glockenspiel", "vibraphone", "electric piano")),
    "heavy": (("electric bass",), ("distorted guitar",), ("synth lead", "violin", "electric guitar")),
}  # fmt: skip
_BAND: dict[str, str] = {
    **dict.fromkeys(("bossa nova", "classical", "country", "folk", "tango", "waltz", "march"), "acoustic"),
    **dict.fromkeys(("jazz", "swing", "blues", "salsa", "latin"), "jazz"),
    **dict.fromkeys(("electronic", "hip hop", "disco"), "synth"), "metal": "heavy",
}  # fmt: skip
_PADS = ("strings", "choir", "synth pad", "organ", "french horn")
#: Onsets of a melody bar in beats; the last note rings to the bar's end.
_RHYTHMS: dict[int, tuple[tuple[float, ...], ...]] = {
    3: ((0, 1, 2), (0, 2), (0, 1.5, 2), (0, 0.5, 1, 2), (0,), (0, 1, 1.5, 2)),
    4: ((0, 1, 2, 3), (0, 2, 3), (0, 1.5, 2, 3), (0, 0.5, 1, 2, 3), (0, 1, 2), (0.5, 1, 2, 2.5, 3), (0, 2)),
}  # fmt: skip
#: Steps of a melody along the scale, in semitones to look from.
_MOVES = (-2, -1, -1, 0, 1, 1, 2)
_SCALES: dict[str, tuple[int, ...]] = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}


@dataclass(frozen=True)
class _Song:
    """What every part of a piece has to agree on."""

    seconds: float
    tempo: float
    beats: int
    scale: frozenset[int]
    chords: tuple[tuple[float, float, str], ...]
    starts: tuple[float, ...]

    @property
    def beat(self) -> float:
        return 60 / self.tempo

    @property
    def bars(self) -> int:
        return int(self.seconds / (self.beat * self.beats) + 0.999)

    def chord(self, time: float) -> Chord:
        # times are rounded to 0.1 ms: a note on the beat must not fall into the chord before
        return parse(self.chords[max(0, bisect.bisect_right(self.starts, time + 1e-3) - 1)][2])


def compose(seed: int, split: str = "train", duration: float = 30.0, genre: str | None = None) -> Piece:
    """Write one piece of ``duration`` seconds; equal arguments give an equal piece.

    Splits draw from separate random streams. Genre (unless given), key, tempo, groove, players, melody and captions
    follow from the seed. Raises ValueError for an unknown split or genre, or a duration outside 1 to 600 s.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    if not 1 <= duration <= 600:
        raise ValueError(f"duration must lie between 1 and 600 s, got {duration}")
    if genre is not None and genre not in GENRES:
        raise ValueError(f"unknown genre {genre!r}: choose one of {', '.join(GENRES)}")
    draw = random.Random(f"descant builtin {split} {seed} {genre or ''}")
    genre = genre or draw.choice(GENRES)
    key = draw.choice(KEYS)
    low, high = tempo_range(genre)
    tempo = float(round(draw.uniform(low, high)))
    beats = default_metre(genre)
    grooves = [groove for groove in _GROOVES if groove.name in _CLASSES[genre] and groove.beats == beats]
    groove = draw.choice(grooves)
    chords = plan_chords(genre, key, tempo, beats, duration, draw.randrange(2**31))
    tonic, mode = key.split()
    scale = frozenset((TONICS.index(tonic) + step) % 12 for step in _SCALES[mode])
    song = _Song(duration, tempo, beats, scale, chords, tuple(row[0] for row in chords))
    stems, melody = _arrange(song, groove, genre, draw)
    return Piece(
        id=f"builtin-{split}-{seed}", layer="builtin", split=split, seed=seed, duration=duration, genre=genre,
        style=groove.name, tempo=tempo, beats_per_bar=beats, key=key, chords=chords, melody=melody, stems=stems,
        captions=_captions(genre, stems, tempo, key, draw), sources=("composed by descant's builtin layer, CC0-1.0",),
        mix={"reverb": round(draw.uniform(0.05, 0.2), 3), "room": round(draw.uniform(0.2, 0.6), 3)},
    )  # fmt: skip


def _arrange(
    song: _Song, groove: _Groove, genre: str, draw: random.Random
) -> tuple[tuple[Stem, ...], tuple[tuple[float, float, int], ...]]:
    basses, comps, leads = _PLAYERS[_BAND.get(genre, "band")]
    bass, comp = draw.choice(basses), draw.choice(comps)
    lead = draw.choice([name for name in leads if name != comp])
    line = _lead(song, draw, 79 if lead in ("flute", "recorder", "violin", "glockenspiel") else 72)
    parts = [
        ("drums", "drums", _drums(song, groove, draw), 0.0, 0.0),
        ("bass", bass, _bass(song, groove, draw), 2.0, 0.0),
        ("chords", comp, _comp(song, groove, draw), -3.0, draw.uniform(-0.6, -0.2)),
        ("lead", lead, line, 2.0, draw.uniform(-0.1, 0.3)),
    ]
    if draw.random() < 0.4:
        pad = draw.choice([name for name in _PADS if name not in (comp, lead)])
        parts.append(("pad", pad, _pad(song), -9.0, draw.uniform(0.2, 0.6)))
    stems = tuple(
        Stem(
            role=role, instrument=name, program=PROGRAMS[name][0] if name != "drums" else -1, notes=notes,
            gain_db=round(gain + draw.uniform(-1.5, 1.5), 2), pan=round(pan, 2),
        )
        for role, name, notes, gain, pan in parts
    )  # fmt: skip
    return stems, tuple((onset, length, pitch) for onset, length, pitch, _ in line)


def _grid(song: _Song, groove: _Groove, row: str) -> list[tuple[int, float, float, str]]:
    """(bar, onset, seconds to the row's next onset, letter) of every stroke of a row, over the whole piece."""
    step = song.beat / groove.steps
    hits = [index for index, letter in enumerate(row) if letter != "."]
    out = []
    for bar in range(song.bars):
        for place, index in enumerate(hits):
            onset = (bar * len(row) + index) * step
            after = hits[place + 1] if place + 1 < len(hits) else len(row) + hits[0]
            if onset < song.seconds - 0.05:
                out.append((bar, onset, min((after - index) * step, song.seconds - onset), row[index]))
    return out


def _drums(song: _Song, groove: _Groove, draw: random.Random) -> _NOTES:
    notes = []
    for pitch, row in groove.drums:
        for _, onset, _, letter in _grid(song, groove, row):
            notes.append(_note(onset, 0.1, pitch, (104 if letter == "x" else 66) + draw.randint(-8, 8)))
    bar = song.beat * song.beats
    for index in range(0, song.bars, 4):
        if index:  # a fill leads into every fourth bar, and a crash opens it
            notes.append(_note(index * bar, 0.5, 49, 92))
            for step, pitch in enumerate((48, 48, 45, 41)):
                notes.append(_note(index * bar - (4 - step) * song.beat / 4, 0.1, pitch, 84 + 5 * step))
    return tuple(sorted(note for note in notes if 0 <= note[0] < song.seconds - 0.02))


def _bass(song: _Song, groove: _Groove, draw: random.Random) -> _NOTES:
    notes = []
    for _, onset, gap, letter in _grid(song, groove, groove.bass):
        chord = song.chord(onset)
        third, fifth = _step(chord, (4, 3)), _step(chord, (7, 6, 8))
        shift = {"r": 0, "o": 12, "t": third, "f": fifth}[letter]
        root = 28 + (chord.bass - 28) % 12  # E1 to D#2
        notes.append(_note(onset, min(gap * 0.92, song.beat * 2), root + shift, 96 + draw.randint(-8, 8)))
    return tuple(notes)


def _comp(song: _Song, groove: _Groove, draw: random.Random) -> _NOTES:
    notes = []
    for bar, onset, gap, letter in _grid(song, groove, groove.comp):
        voicing = _voicing(song.chord(onset), 55)
        level = 78 + draw.randint(-8, 8) - 4 * (bar % 2)
        if letter.isdigit():
            notes.append(_note(onset, gap * 1.4, voicing[int(letter) % len(voicing)], level))
            continue
        length = min(gap, song.beat * 0.45) if letter == "s" else gap * 0.95
        notes += [_note(onset, length, pitch, level) for pitch in voicing]
    return tuple(note for note in notes if note[0] + note[1] <= song.seconds + 1)


def _pad(song: _Song) -> _NOTES:
    return tuple(
        _note(start, min(end, song.seconds) - start, pitch, 70)
        for start, end, symbol in song.chords
        if start < song.seconds - 0.1
        for pitch in _voicing(parse(symbol), 60)[:3]
    )


def _lead(song: _Song, draw: random.Random, centre: int) -> _NOTES:
    """A motif of two bars (rhythm and contour) for A and for B, laid over the chords as A A B A."""
    motifs = [
        [[(onset, draw.choice(_MOVES)) for onset in draw.choice(_RHYTHMS[song.beats])] for _ in (0, 1)] for _ in (0, 1)
    ]
    notes: list[tuple[float, float, int, int]] = []
    pitch, bar_length = centre, song.beat * song.beats
    for bar in range(song.bars):
        rows = motifs[(0, 0, 1, 0)[bar // 2 % 4]][bar % 2]
        for place, (offset, move) in enumerate(rows):
            onset = bar * bar_length + offset * song.beat
            after = rows[place + 1][0] if place + 1 < len(rows) else song.beats
            chord = song.chord(onset)
            strong = offset == int(offset) and int(offset) % 2 == 0
            allowed = frozenset(chord.classes) if strong else song.scale
            # pulled back towards its register, or a run of equal moves would leave the instrument
            drift = move - (pitch - centre) // 5
            pitch = _nearest(pitch + drift, allowed, 1 if drift >= 0 else -1)
            length = min((after - offset) * song.beat * 0.93, song.seconds - onset)
            if length > 0.05:
                notes.append(_note(onset, length, pitch, 92 + (8 if strong else 0) + draw.randint(-6, 6)))
    return tuple(notes)


def _nearest(pitch: int, classes: frozenset[int], way: int) -> int:
    for distance in range(12):
        for sign in (way, -way):
            if (pitch + sign * distance) % 12 in classes:
                return pitch + sign * distance
    raise ValueError("a chord without notes cannot be played")


def _voicing(chord: Chord, low: int) -> list[int]:
    """The chord's notes within the octave above ``low``, ascending."""
    return sorted(low + (note - low) % 12 for note in chord.classes)[:4]


def _step(chord: Chord, wanted: Sequence[int]) -> int:
    """The first of the wanted intervals above the root that the chord has; 0 if it has none."""
    above = {(note - chord.root) % 12 for note in chord.classes}
    return next((interval for interval in wanted if interval in above), 0)


def _note(onset: float, length: float, pitch: int, velocity: int) -> tuple[float, float, int, int]:
    return (round(onset, 4), round(max(length, 0.03), 4), pitch, max(1, min(127, velocity)))


def _captions(genre: str, stems: Sequence[Stem], tempo: float, key: str, draw: random.Random) -> tuple[str, ...]:
    speed = "slow" if tempo < 90 else "fast" if tempo > 140 else "medium tempo"
    names = [stem.instrument for stem in stems]
    lead = next(stem.instrument for stem in stems if stem.role == "lead")
    some = draw.sample(names, min(len(names), 3))
    return (
        f"{speed} {genre} with {', '.join(some[:-1])} and {some[-1]}, {tempo:.0f} bpm, {key}",
        f"{genre} with a {lead} melody in {key}",
        f"{genre}, {', '.join(names)}, {tempo:.0f} bpm, {key}",
    )
