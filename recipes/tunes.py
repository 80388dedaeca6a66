"""Public-domain dance tunes in ABC notation, read as data.

Three collections published before 1904 come with the corpus of the package music21: O'Neill's "Music of Ireland",
"Ryan's Mammoth Collection" and Aird's "Selection of Airs". We read the files out of the package's wheel (a zip) or out
of a folder and never import music21. Only tunes in simple metres (2/4, 2/2, 4/4, 3/4) and in plain major or minor are
used.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..gen.plan import split_key
from ..lm import vocab
from ..lm.chords import Chord
from .melody import BeatNote

#: Folders of music21's corpus whose melodies are in the public domain.
COLLECTIONS: tuple[str, ...] = ("oneills1850", "ryansMammoth", "airdsAirs")
_NATURAL = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHARPS = "FCGDAEB"
_NOTE = re.compile(
    r"(?P<accidental>\^\^|\^|__|_|=)?(?P<note>[A-Ga-gzx])(?P<octave>[,']*)(?P<length>\d*(?:/+\d*)?)(?P<dots>[<>]*)"
)
_BAR = re.compile(r"\|\]|\[\||\|\||:\||\|:|::|\|")
_JUNK = re.compile(r"\"[^\"]*\"|\{[^}]*\}|![^!]*!|\[[A-Za-z]:[^\]]*\]|[~.uvTHLMOPS]")
#: Degrees offered to the harmony of a tune, with how readily each is used.
_HARMONY = {
    "major": ((0, "", 1.0), (7, "", 0.8), (5, "", 0.7), (9, "m", 0.3), (2, "m", 0.3)),
    "minor": ((0, "m", 1.0), (7, "", 0.7), (5, "m", 0.7), (10, "", 0.4), (8, "", 0.4), (3, "", 0.3)),
}


@dataclass(frozen=True)
class Tune:
    """A melody in whole bars. ``notes`` are (onset, length, MIDI pitch) in quarter notes from the first full bar."""

    id: str
    title: str
    rhythm: str
    beats_per_bar: int
    tonic: int
    mode: str
    bars: int
    notes: tuple[BeatNote, ...]


def find_tunes(place: str | os.PathLike[str] | None = None) -> tuple[Tune, ...]:
    """All usable tunes of ``place`` (the music21 wheel, or a folder that holds the collections' folders).

    Without a place: ``DESCANT_TUNES``; where that is not set there are no tunes and melodies are generated. Raises
    FileNotFoundError when the place is named but does not exist.
    """
    place = place or os.environ.get("DESCANT_TUNES")
    if not place:
        return ()
    found: dict[str, Tune] = {}
    for name, text in _texts(Path(place)):
        for tune in read_abc(text, name):
            found.setdefault(tune.id, tune)
    return tuple(found.values())


def read_abc(text: str, name: str) -> Iterator[Tune]:
    """The usable tunes of one ABC file; others (odd metres, modes, bars that do not add up) are left out."""
    for block in re.split(r"(?m)^(?=X:)", text):
        if block.startswith("X:"):
            try:
                tune = _tune(block, name)
            except (ValueError, KeyError, IndexError):
                continue
            if tune is not None:
                yield tune


def arrange(tune: Tune, key: str, bars: int, centre: int) -> tuple[tuple[BeatNote, ...], list[tuple[str, ...]]]:
    """Move a tune to ``key`` and the octave around ``centre``, repeat it over ``bars`` bars and harmonise it.

    Returns the melody in beats and the chords of each bar.
    """
    tonic, mode = split_key(key)
    if mode != tune.mode:
        raise ValueError(f"{tune.id} is in {tune.mode}: it cannot be moved to {key}")
    shift = (tonic - tune.tonic) % 12
    middle = sorted(pitch for _, _, pitch in tune.notes)[len(tune.notes) // 2]
    shift += 12 * round((centre - middle - shift) / 12)
    moved = [(onset, length, pitch + shift) for onset, length, pitch in tune.notes]
    chords = harmonise(moved, tune.bars, tune.beats_per_bar, key)
    notes: list[BeatNote] = []
    for turn in range(-(-bars // tune.bars)):
        start = turn * tune.bars * tune.beats_per_bar
        notes += [(start + on, length * 0.94, pitch) for on, length, pitch in moved]
    notes = [note for note in notes if note[0] < bars * tune.beats_per_bar]
    return tuple(notes), [chords[bar % tune.bars] for bar in range(bars)]


def harmonise(notes: Sequence[BeatNote], bars: int, beats_per_bar: int, key: str) -> list[tuple[str, ...]]:
    """The chords, one a bar, that agree best with a melody: the best path over the key's common chords.

    Agreement is the time the melody spends on chord notes, more for longer notes and for the bar's first; changes from
    the dominant to the tonic are preferred, and the first and last bar are the tonic's.
    """
    tonic, mode = split_key(key)
    roots = [((tonic + step) % 12, quality, ease) for step, quality, ease in _HARMONY[mode]]
    choices = [(Chord(root, quality, root), ease) for root, quality, ease in roots]
    if bars == 1:
        return [(choices[0][0].symbol,)]
    score = [[ease for _, ease in choices] for _ in range(bars)]
    for onset, length, pitch in notes:
        bar = min(bars - 1, int(onset // beats_per_bar))
        weight = length + (0.7 if onset % beats_per_bar == 0 else 0.0)
        for place, (chord, _) in enumerate(choices):
            score[bar][place] += weight if pitch % 12 in chord.classes else -0.6 * weight
    for bar in (0, bars - 1):
        score[bar][0] += 3.0
    best = list(score[0])
    back: list[list[int]] = []
    for bar in range(1, bars):
        row, origin = [], []
        for place in range(len(choices)):
            # the dominant wants home; a chord may stay, but not for ever
            paths = [
                best[p] + (0.6 if (p, place) == (1, 0) else -0.2 if p == place else 0.0) for p in range(len(choices))
            ]
            origin.append(max(range(len(paths)), key=paths.__getitem__))
            row.append(paths[origin[-1]] + score[bar][place])
        best, back = row, [*back, origin]
    place = max(range(len(best)), key=best.__getitem__)
    path = [place]
    for origin in reversed(back):
        place = origin[place]
        path.append(place)
    return [(choices[p][0].symbol,) for p in reversed(path)]


def _texts(place: Path) -> Iterator[tuple[str, str]]:
    """(collection/file, text) of every ABC file, in order."""
    if not place.exists():
        raise FileNotFoundError(
            f"no tunes at {place}: fetch the wheel with 'pip download --no-deps music21' and give its path, or leave "
            "it out and melodies are generated"
        )
    if place.is_dir():
        for path in sorted(place.rglob("*.abc")):
            if path.parent.name in COLLECTIONS:
                yield f"{path.parent.name}/{path.stem}", path.read_text(encoding="utf-8", errors="replace")
        return
    with zipfile.ZipFile(place) as file:
        for member in sorted(file.namelist()):
            inner = Path(member)
            if inner.suffix == ".abc" and inner.parent.name in COLLECTIONS:
                yield f"{inner.parent.name}/{inner.stem}", file.read(member).decode("utf-8", errors="replace")


def _tune(block: str, name: str) -> Tune | None:
    fields: dict[str, str] = {}
    body: list[str] = []
    for line in block.splitlines():
        line = line.split("%")[0].strip()
        if len(line) > 1 and line[1] == ":" and line[0].isalpha():
            if "K" in fields and line[0] in "KML":
                return None  # it changes key or metre on the way
            fields.setdefault(line[0], line[2:].strip())
        elif "K" in fields:
            body.append(line.rstrip("\\"))
    metre = {"C": "4/4", "C|": "2/2"}.get(fields["M"], fields["M"])
    if metre not in ("2/4", "2/2", "4/4", "3/4"):
        return None
    beats = Fraction(metre) * 4
    key = re.match(r"([A-G][b#]?)\s*(m|min|maj|minor|major)?\s*$", fields["K"].split(" exp")[0], re.IGNORECASE)
    if key is None:
        return None
    mode = "minor" if (key[2] or "").lower() in ("m", "min", "minor") else "major"
    tonic = vocab.TONICS.index(vocab.canonical_key(f"{key[1][0].upper()}{key[1][1:]} {mode}").split()[0])
    # the unit that ABC gives a metre by default
    unit = Fraction(fields.get("L", "1/8" if Fraction(metre) >= Fraction(3, 4) else "1/16"))
    notes, bars = _bars(" ".join(body), unit * 4, beats, _signature(tonic, mode))
    wide = 4 if beats == 2 else int(beats)  # two short bars make one
    bars = bars * int(beats) // wide
    if bars < 4 or len(notes) < 2 * bars:
        return None
    kept = tuple(note for note in notes if note[0] < bars * wide)
    title = fields.get("T", "untitled")
    return Tune(f"{name}#{fields['X']}", title, fields.get("R", ""), wide, tonic, mode, bars, kept)


def _signature(tonic: int, mode: str) -> dict[str, int]:
    """Letter -> semitones that a key's signature adds."""
    major = (tonic + (3 if mode == "minor" else 0)) % 12
    fifths = major * 7 % 12
    fifths = fifths - 12 if fifths > 6 else fifths
    if fifths >= 0:
        return dict.fromkeys(_SHARPS[:fifths], 1)
    return dict.fromkeys(_SHARPS[::-1][:-fifths], -1)


def _bars(body: str, unit: Fraction, beats: Fraction, signature: dict[str, int]) -> tuple[list[BeatNote], int]:
    """Notes from the first full bar on, and the number of bars. Raises ValueError at a bar that is too long."""
    body = _JUNK.sub("", body.replace("\\", ""))
    body = re.sub(r"\[\d[\d,]*|(?<=\|)\s*\d(?=[^/\d])", "", body)
    found: list[BeatNote] = []
    count, carry = 0, Fraction(0)
    cells = [cell for cell in _BAR.split(body) if cell.strip(" :[]0123456789")]
    for place, cell in enumerate(cells):
        notes, length = _cell(cell, unit, signature)
        length += carry
        if length == beats:
            start = count * beats
            found += [(float(start + carry + on), float(span), pitch) for on, span, pitch in notes]
            count, carry = count + 1, Fraction(0)
        elif length > beats:
            raise ValueError(f"a bar of {length} beats where {beats} are due")
        elif count:
            # a part ends short and the next begins with the rest of that bar; the last bar is as good as full
            start = count * beats
            found += [(float(start + carry + on), float(span), pitch) for on, span, pitch in notes]
            carry = length
            count += place == len(cells) - 1
    return found, count


def _cell(
    cell: str, unit: Fraction, signature: dict[str, int]
) -> tuple[list[tuple[Fraction, Fraction, int]], Fraction]:
    """Notes of one bar and the bar's length."""
    at, local = Fraction(0), dict(signature)
    notes: list[tuple[Fraction, Fraction, int]] = []
    triplet, stretch, place = 0, Fraction(1), 0
    tie = False
    while place < len(cell):
        if cell[place] == "(" and cell[place + 1 : place + 2].isdigit():
            triplet = int(cell[place + 1])
            place += 2
            continue
        match = _NOTE.match(cell, place)
        if match is None:
            tie = tie or cell[place] == "-"
            place += 1
            continue
        place = match.end()
        span = unit * _length(match["length"]) * stretch
        stretch = Fraction(1)
        if triplet:
            span *= Fraction(2, 3)
            triplet -= 1
        if match["dots"]:
            less = Fraction(1, 2 ** len(match["dots"]))
            span, stretch = (span * (2 - less), less) if match["dots"][0] == ">" else (span * less, 2 - less)
        letter = match["note"].upper()
        if letter not in "ZX":
            if match["accidental"]:
                local[letter] = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}[match["accidental"]]
            octave = match["octave"].count("'") - match["octave"].count(",") + (1 if match["note"].islower() else 0)
            pitch = 60 + _NATURAL[letter] + local.get(letter, 0) + 12 * octave
            if tie and notes and notes[-1][2] == pitch:
                notes[-1] = (notes[-1][0], notes[-1][1] + span, pitch)
            else:
                notes.append((at, span, pitch))
        tie = False
        at += span
    return notes, at


def _length(text: str) -> Fraction:
    if not text:
        return Fraction(1)
    above, slash, below = text.partition("/")
    halvings = slash.count("/") + below.count("/")
    below = below.strip("/")
    return Fraction(int(above or 1), int(below) if below else 2**halvings)
