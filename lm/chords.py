"""Chord symbols <-> pitch classes. Pitch class 0 is C; a chord is a root, a quality and the classes they spell."""

from __future__ import annotations

from dataclasses import dataclass

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SPELL = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")

#: Quality suffix -> semitones above the root.
QUALITIES: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7), "m": (0, 3, 7), "7": (0, 4, 7, 10), "m7": (0, 3, 7, 10), "M7": (0, 4, 7, 11),
    "dim": (0, 3, 6), "m7b5": (0, 3, 6, 10), "dim7": (0, 3, 6, 9), "aug": (0, 4, 8), "sus4": (0, 5, 7),
    "sus2": (0, 2, 7), "6": (0, 4, 7, 9), "m6": (0, 3, 7, 9), "9": (0, 2, 4, 7, 10), "m9": (0, 2, 3, 7, 10),
    "7b9": (0, 1, 4, 7, 10), "7sus4": (0, 5, 7, 10), "5": (0, 7),
}  # fmt: skip
_SYNONYMS = {"maj": "", "M": "", "maj7": "M7", "min": "m", "-": "m", "min7": "m7", "-7": "m7", "mM7": "m", "+": "aug",
             "o": "dim", "o7": "dim7", "sus": "sus4", "add9": "", "7sus": "7sus4"}  # fmt: skip


@dataclass(frozen=True)
class Chord:
    """A chord: ``root`` and ``bass`` are pitch classes 0..11, ``quality`` a key of :data:`QUALITIES`."""

    root: int
    quality: str
    bass: int

    @property
    def classes(self) -> tuple[int, ...]:
        """Pitch classes of the chord, sorted."""
        return tuple(sorted({(self.root + step) % 12 for step in QUALITIES[self.quality]}))

    @property
    def symbol(self) -> str:
        """The chord's symbol, such as ``Gm7`` or ``C/E``."""
        slash = "" if self.bass == self.root else f"/{_SPELL[self.bass]}"
        return f"{_SPELL[self.root]}{self.quality}{slash}"


def parse(symbol: str) -> Chord:
    """Read a chord symbol (``Gm7``, ``Bb``, ``F#m7b5``, ``C/E``). Raises ValueError for anything else."""
    text, _, under = symbol.strip().partition("/")
    root, rest = _note(text, symbol)
    quality = _SYNONYMS.get(rest, rest)
    if quality not in QUALITIES:
        raise ValueError(f"unknown chord {symbol!r}: qualities are {', '.join(q or 'major' for q in QUALITIES)}")
    bass, tail = _note(under, symbol) if under else (root, "")
    if tail:
        raise ValueError(f"unknown chord {symbol!r}: the part after '/' must be one note name")
    return Chord(root, quality, bass)


def transpose(symbol: str, semitones: int) -> str:
    """Shift a chord symbol by ``semitones``."""
    chord = parse(symbol)
    return Chord((chord.root + semitones) % 12, chord.quality, (chord.bass + semitones) % 12).symbol


def _note(text: str, symbol: str) -> tuple[int, str]:
    if not text or text[0].upper() not in _LETTERS:
        raise ValueError(f"unknown chord {symbol!r}: it must start with a note name A to G")
    pitch, index = _LETTERS[text[0].upper()], 1
    while index < len(text) and text[index] in "#b":
        pitch += 1 if text[index] == "#" else -1
        index += 1
    return pitch % 12, text[index:]
