"""A plan for music that does not exist yet: chords, tempo and metre that belong to a genre. Pure Python.

The renderer labels its pieces with these chords and the generator conditions on them, so both see one harmony. The
templates are scale degrees, written as ``ii7 V7 IM7``: upper case for a major third, lower case for a minor one, an
optional ``b`` or ``#`` before, a quality of :data:`descant.lm.chords.QUALITIES` behind. Two chords that share a bar are
joined by ``|``.
"""

from __future__ import annotations

import hashlib
import math
import random
from functools import cache

from ..lm import vocab
from ..lm.chords import Chord

#: Genre -> lowest and highest usual tempo (quarter notes a minute) and the usual beats in a bar.
_FEEL: dict[str, tuple[float, float, int]] = {
    "ballad": (60, 86, 4), "blues": (66, 132, 4), "bossa nova": (110, 150, 4), "classical": (66, 132, 4),
    "country": (90, 168, 4), "disco": (108, 132, 4), "electronic": (100, 174, 4), "folk": (84, 150, 4),
    "funk": (86, 122, 4), "hip hop": (70, 108, 4), "jazz": (80, 190, 4), "latin": (90, 150, 4), "march": (96, 132, 4),
    "metal": (100, 180, 4), "pop": (84, 136, 4), "reggae": (66, 132, 4), "rock": (90, 168, 4), "salsa": (140, 190, 4),
    "soul": (70, 120, 4), "swing": (110, 190, 4), "tango": (100, 136, 4), "waltz": (84, 180, 3),
}  # fmt: skip

_DEGREES = {"I": 0, "II": 2, "III": 4, "IV": 5, "V": 7, "VI": 9, "VII": 11}

#: Family of progressions -> mode -> templates of 2 to 12 bars. Minor degrees count from the major scale (bVI, bVII).
_TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "pop": {
        "major": (
            "I V vi IV", "I vi IV V", "I IV V I", "I IV vi V", "I iii IV V", "I V vi iii IV I IV V", "I IV I V",
            "I vi ii V", "I IV ii V", "I ii IV V", "I V|vi IV I|V", "I I IV V", "I iii vi IV", "I V IV V",
        ),
        "minor": (
            "i bVI bIII bVII", "i bVII bVI V", "i iv V i", "i bVI iv V", "i iv bVI V", "i bIII bVII iv",
            "i iv bVII bIII bVI iv V i", "i v bVI bVII", "i i iv V", "i bVI|bVII i V", "i bVII bVI bVII",
        ),
    },
    "rock": {
        "major": (
            "I IV V IV", "I I IV V", "I V IV I", "I bVII IV I", "I V vi IV", "I IV I V", "I vi IV V",
            "I I IV IV I I V V", "I IV|V I IV|V", "I ii IV V",
        ),
        "minor": (
            "i bVII bVI V", "i bVI bVII i", "i bIII bVII iv", "i iv i V", "i i bVI bVII", "i bVII iv i",
            "i i bVI V", "i bVI|bVII i V", "i iv bVI V",
        ),
    },
    "metal": {
        "major": ("I5 bVII5 IV5 I5", "I5 IV5 V5 I5", "I5 V5 IV5 V5", "I5 I5 IV5 V5", "I V vi IV"),
        "minor": (
            "i5 bVI5 bVII5 i5", "i5 i5 bVI5 V5", "i5 bVII5 bVI5 V5", "i5 iv5 bVI5 V5", "i5 bIII5 bVII5 V5",
            "i bVI bVII V", "i5 i5 bVI5|bVII5 i5",
        ),
    },
    "jazz": {
        "major": (
            "IM7 vi7 ii7 V7", "ii7 V7 IM7 vi7", "IM7 IM7 ii7 V7", "IM7 VI7 ii7 V7", "iii7 VI7 ii7 V7",
            "IM7|vi7 ii7|V7 iii7|vi7 ii7|V7", "I6 I6 ii7 V7 ii7 V7 I6 I6", "IM7 IVM7 iii7|vi7 ii7|V7",
            "IM7 ii7 iii7 ii7|V7", "I6 II7 ii7|V7 I6",
        ),
        "minor": (
            "im7 iim7b5 V7 im7", "im7 im7 iim7b5 V7", "im7 ivm7 iim7b5 V7", "im7 ivm7 bVII7 bIIIM7 bVIM7 iim7b5 V7 im7",
            "im6 im6 iim7b5 V7b9", "im7 bVIM7 iim7b5 V7", "im7|ivm7 iim7b5|V7 im7 iim7b5|V7",
        ),
    },
    "bossa": {
        "major": (
            "IM7 IM7 ii7 V7", "IM7 II7 ii7 V7", "IM7 vi7 ii7 V7", "IM7 IVM7 ii7 V7", "ii7 V7 IM7 IM7",
            "IM7 IM7 II7 II7 ii7 V7 IM7 IM7", "IM7 iii7 ii7 V7",
        ),
        "minor": (
            "im7 im7 iim7b5 V7", "im7 ivm7 iim7b5 V7", "im7 bVIM7 iim7b5 V7", "im9 ivm7 bVIM7 V7",
            "im7 im7 iim7b5 V7 im7 ivm7 V7 im7",
        ),
    },
    "soul": {
        "major": (
            "IM7 vi7 ii7 V7", "IM7 iii7 IVM7 V7sus4", "I IV I V7", "IM7 IVM7 iii7 vi7 ii7 V7 IM7 V7sus4",
            "I vi7 ii7 V7", "IM7 ii7 iii7 IVM7", "I I IV V7", "I6 vi7 IVM7 V7",
        ),
        "minor": (
            "im7 ivm7 bVIM7 V7", "im7 bIIIM7 ivm7 V7", "im7 bVII bVIM7 V7", "im7 im7 ivm7 V7", "im7 ivm7 bVII7 bIIIM7",
            "im7 vm7 ivm7 V7",
        ),
    },
    "funk": {
        "major": ("I7 I7 IV7 I7", "I7 IV7 I7 V7", "I9 I9 IV9 V7", "I7 I7 I7 IV7|V7", "I7 bVII IV7 I7", "I7 IV7"),
        "minor": ("im7 im7 ivm7 im7", "im7 IV7 im7 V7", "im7 im7 im7 V7", "im9 ivm7 im9 V7", "im7 bVII im7 V7"),
    },
    "blues": {
        "major": (
            "I7 I7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7",
            "I7 IV7 I7 I7 IV7 IV7 I7 VI7 ii7 V7 I7 V7", "I7 V7 IV7 IV7 I7 V7 I7 V7",
        ),
        "minor": (
            "im7 im7 im7 im7 ivm7 ivm7 im7 im7 bVI7 V7 im7 V7", "im7 ivm7 im7 im7 ivm7 ivm7 im7 im7 V7 ivm7 im7 V7",
            "im7 im7 ivm7 im7 iim7b5 V7 im7 V7",
        ),
    },
    "folk": {
        "major": (
            "I I V V I IV I|V I", "I IV I V", "I IV V I", "I V I V I IV V I", "I vi IV V", "I I IV I I I V I",
            "I ii V I", "I IV|V I V", "I V vi IV I V IV|V I",
        ),
        "minor": (
            "i bVII i V", "i iv V i", "i i bVII V", "i bVII bVI V", "i bIII bVII i i bIII V i", "i iv i V",
            "i bVII i bVII i iv V i",
        ),
    },
    "classical": {
        "major": (
            "I V vi iii IV I IV V", "I IV V I", "I ii V I", "I vi IV V", "I V7 V7 I", "I IV ii V7 I vi ii|V7 I",
            "I V I IV|V7", "I iii IV V7", "I vi ii V7",
        ),
        "minor": (
            "i iv V i", "i V i V", "i bVI iv V7", "i bVII bIII bVI iv V i V", "i iv bVII bIII bVI iidim V7 i",
            "i V7 V7 i", "i iidim V7 i", "i bVI iidim V7",
        ),
    },
    "latin": {
        "major": ("I IV V7 IV", "I vi ii V7", "I V7 V7 I", "I ii V7 I", "I IV I V7", "IM7 vi7 ii7 V7", "I I V7 V7"),
        "minor": (
            "i iv V7 i", "i bVII bVI V7", "i iv V7 V7", "i i V7 V7 V7 V7 i i", "im7 ivm7 V7 im7", "i V7 i V7",
            "i bVI iv V7",
        ),
    },
    "electronic": {
        "major": ("I V vi IV", "I vi IV V", "I I IV IV", "I iii IV V", "I Vsus4 vi7 IVM7", "I ii IV V", "I IV"),
        "minor": (
            "i bVI bIII bVII", "i i bVI bVII", "im7 im7 bVIM7 bVII", "i bVII bVI V", "i iv bVI bVII",
            "im7 bIIIM7 ivm7 V", "i v bVI bVII", "i bVI",
        ),
    },
}  # fmt: skip

_FAMILY = {
    "ballad": "pop", "blues": "blues", "bossa nova": "bossa", "classical": "classical", "country": "folk",
    "disco": "soul", "electronic": "electronic", "folk": "folk", "funk": "funk", "hip hop": "electronic",
    "jazz": "jazz", "latin": "latin", "march": "classical", "metal": "metal", "pop": "pop", "reggae": "pop",
    "rock": "rock", "salsa": "latin", "soul": "soul", "swing": "jazz", "tango": "latin", "waltz": "classical",
}  # fmt: skip
#: The turn that leads home at the end of a bridge, in major and in minor.
_CADENCES = {
    "pop": ("IV V", "iv V"), "rock": ("IV V", "iv V"), "metal": ("IV5 V5", "bVI5 V5"), "jazz": ("ii7 V7", "iim7b5 V7"),
    "bossa": ("ii7 V7", "iim7b5 V7"), "soul": ("ii7 V7", "ivm7 V7"), "funk": ("IV7 V7", "ivm7 V7"),
    "blues": ("V7 V7", "V7 V7"), "folk": ("IV V", "iv V"), "classical": ("IV V7", "iv V7"), "latin": ("IV V7", "iv V7"),
    "electronic": ("IV V", "bVI V"),
}  # fmt: skip


def tempo_range(genre: str) -> tuple[float, float]:
    """Lowest and highest usual tempo of a genre, in quarter notes a minute.

    Raises ValueError for a genre that is not one of :data:`descant.lm.vocab.GENRES`.
    """
    low, high, _ = _feel(genre)
    return low, high


def default_metre(genre: str) -> int:
    """Beats in a bar that a genre usually has (3 for a waltz, else 4)."""
    return _feel(genre)[2]


def plan_chords(
    genre: str, key: str, tempo: float, beats_per_bar: int, seconds: float, seed: int
) -> tuple[tuple[float, float, str], ...]:
    """Chords of a whole piece as (start s, end s, symbol), covering 0 to ``seconds`` without a gap.

    Sections of 8 bars (12 in blues) come as AABA or ABAB and the like; each repeats one template of the genre in the
    key's mode and may end on a turn home, so that the key is heard. Equal arguments give an equal plan.
    """
    if not 20 <= tempo <= 400:
        raise ValueError(f"tempo {tempo:g} is out of range: give 20 to 400 quarter notes a minute")
    if beats_per_bar < 1:
        raise ValueError(f"a bar of {beats_per_bar} beats is impossible: give 1 or more")
    bar = 60.0 / tempo * beats_per_bar
    return time_bars(plan_bars(genre, key, math.ceil(seconds / bar), seed, beats_per_bar), bar, seconds)


def plan_bars(genre: str, key: str, bars: int, seed: int, beats_per_bar: int = 4) -> list[tuple[str, ...]]:
    """Chord symbols of each of ``bars`` bars: one, or two where the bar has an even number of beats."""
    _feel(genre)
    tonic, mode = split_key(key)
    draw = random.Random(int.from_bytes(hashlib.sha256(f"{genre}/{tonic}/{mode}/{seed}".encode()).digest()[:8], "big"))
    family = _FAMILY[genre]
    cadence = _CADENCES[family][mode == "minor"].split()
    first, second = draw.sample(_TEMPLATES[family][mode], 2)

    def section(template: str, turn: bool) -> list[str]:
        cells = template.split()
        if family == "blues":  # its forms are whole
            return cells
        cells = (cells * 8)[:8]
        return [*cells[:-2], *cadence] if turn else cells

    opening, closing, bridge = section(first, False), section(first, draw.random() < 0.5), section(second, True)
    form = draw.choice(("AABA", "ABAB", "AABB", "ABAA"))
    cells: list[str] = []
    while len(cells) < bars:
        for index, letter in enumerate(form):
            cells += bridge if letter == "B" else closing if index else opening
    # a bar that cannot be halved keeps the chord that leads on
    most = 1 if beats_per_bar % 2 else 2
    return [tuple(_symbol(name, tonic) for name in cell.split("|")[-most:]) for cell in cells[:bars]]


def time_bars(bars: list[tuple[str, ...]], bar: float, seconds: float) -> tuple[tuple[float, float, str], ...]:
    """Chords of bars that last ``bar`` s each -> (start s, end s, symbol) up to ``seconds``; equal neighbours join."""
    rows: list[tuple[float, float, str]] = []
    for index, symbols in enumerate(bars):
        for part, symbol in enumerate(symbols):
            start = round((index + part / len(symbols)) * bar, 4)
            # 0.1 ms keeps the files small
            end = round(min((index + (part + 1) / len(symbols)) * bar, seconds), 4)
            if rows and rows[-1][2] == symbol and end > start:
                rows[-1] = (rows[-1][0], end, symbol)
            elif end > start:
                rows.append((start, end, symbol))
    return tuple(rows)


def split_key(key: str) -> tuple[int, str]:
    """``"Eb minor"`` -> (3, "minor"). Raises ValueError for an unknown key."""
    tonic, _, mode = vocab.canonical_key(key).partition(" ")
    return vocab.TONICS.index(tonic), mode


def scale(key: str) -> tuple[int, ...]:
    """Pitch classes of a key's scale from its tonic up; the minor one is natural."""
    tonic, mode = split_key(key)
    steps = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 10)
    return tuple((tonic + step) % 12 for step in steps)


@cache
def _symbol(name: str, tonic: int) -> str:
    """A degree of a key -> a chord symbol: ("bVII7", 0) -> "Bb7"."""
    shift = {"b": -1, "#": 1}.get(name[0], 0)
    text = name.lstrip("b#")
    numeral = max((n for n in _DEGREES if text.upper().startswith(n)), key=len)
    quality = text[len(numeral) :]
    if text[: len(numeral)].islower() and not quality.startswith(("m", "dim", "5")):
        quality = "m" + quality
    root = (tonic + _DEGREES[numeral] + shift) % 12
    return Chord(root, quality, root).symbol


def _feel(genre: str) -> tuple[float, float, int]:
    if genre not in _FEEL:
        raise ValueError(f"unknown genre {genre!r}: known are {', '.join(vocab.GENRES)}")
    return _FEEL[genre]
