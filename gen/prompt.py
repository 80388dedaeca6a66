"""From a sentence to typed wishes: genre, instruments, tempo, key, metre.

Rules over the shared vocabularies, not a model: what is recognised is certain to reach the typed conditions, what is
not still reaches the text encoder. The longest phrase wins ("jazz guitar" is an instrument, "drum and bass" a genre),
each word is used once, and "without drums" is not a wish for drums. Odd text never raises; only an empty or an
over-long sentence does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from ..lm import vocab
from .words import LOOSE_GENRES, LOOSE_INSTRUMENTS, METRES, MODES, MOODS, PACES, TERMS, WEAK_GENRES

#: Longest sentence read, in characters.
LIMIT = 2000
#: Slowest and fastest tempo, in quarter notes per minute, that can be asked for.
TEMPO_LIMITS = (40.0, 240.0)
#: Beats per bar that can be asked for.
METRE_LIMITS = (2, 7)

_NEGATORS = {"no", "without", "minus", "sans", "not"}
_BREAKS = {".", ",", ";", ":", "!", "?", "(", ")", "but", "just", "only", "with", "plus", "featuring"}


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a sentence asks for. None or empty where it says nothing."""

    text: str
    """The sentence, cleaned of control characters and extra spaces."""
    genre: str | None = None
    instruments: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    """Instruments it does not want."""
    tempo: float | None = None
    """Quarter notes per minute, where a number is given."""
    tempo_range: tuple[float, float] | None = None
    """Absolute range, where an Italian term or a range is given."""
    pace: tuple[float, float] | None = None
    """Part of the genre's range, 0 ... 1, where a word such as "slow" is given."""
    key: str | None = None
    mode: str | None = None
    """``major`` or ``minor`` where no tonic is named."""
    beats_per_bar: int | None = None
    notes: tuple[str, ...] = ()
    """What was read in an unexpected way."""

    @property
    def empty(self) -> bool:
        """Whether nothing at all was recognised."""
        said = (self.genre, self.tempo, self.tempo_range, self.pace, self.key, self.mode, self.beats_per_bar)
        return not self.instruments and all(value is None for value in said)


def clean(text: str) -> str:
    """Return ``text`` with compatibility characters folded, control characters and repeated spaces removed.

    Raises ValueError when nothing is left or more than 2,000 characters are.
    """
    if not isinstance(text, str):
        raise ValueError(f"the prompt must be text, got {type(text).__name__}")
    if len(text) > LIMIT:
        raise ValueError(f"the prompt has {len(text):,} characters, at most {LIMIT:,} are read: shorten it")
    folded = unicodedata.normalize("NFKC", text)
    kept = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in folded)
    kept = " ".join(kept.split())[:LIMIT]
    if not kept:
        raise ValueError(
            "the prompt is empty: describe the music, for example 'a slow blues in E with piano and drums'"
        )
    return kept


def parse_prompt(text: str) -> Wish:
    """Read the wishes in ``text``. Raises ValueError only for an empty or over-long sentence."""
    text = clean(text)
    notes: list[str] = []
    # letter by letter: a few lower-case forms are longer, and positions must stay those of the text
    low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text).replace("-", " ").replace("’", "'")
    key, mode, low = _read_key(text, low, notes)
    tempo, tempo_range, low = _read_tempo(low, notes)
    beats, low = _read_metre(low, notes)
    found = _scan(re.findall(r"[^\W_]+(?:[&'.][^\W_]+)*|[^\w\s]", low))
    wanted = tuple(dict.fromkeys(hit.value for hit in found if hit.kind == "instrument" and not hit.negated))
    without = tuple(dict.fromkeys(hit.value for hit in found if hit.kind == "instrument" and hit.negated))
    words = {kind: [hit.value for hit in found if hit.kind == kind and not hit.negated] for kind in ("pace", "term")}
    if beats is None:
        beats = next((int(hit.value) for hit in found if hit.kind == "metre"), None)
    if tempo is None and tempo_range is None and words["term"]:
        tempo_range = TERMS[words["term"][0]]
    genre = _choose_genre(found, notes)
    mood = next((hit.value for hit in found if hit.kind == "mood" and not hit.negated), None)
    return Wish(
        text=text, genre=genre, instruments=wanted, without=tuple(name for name in without if name not in wanted),
        tempo=tempo, tempo_range=tempo_range, pace=PACES[words["pace"][0]] if words["pace"] else None,
        key=key, mode=None if key else mode or mood, beats_per_bar=beats, notes=tuple(notes),
    )  # fmt: skip


def instrument(name: str) -> str:
    """The table's instrument for ``name``, loose names included. Raises ValueError naming the nearest known ones."""
    loose = LOOSE_INSTRUMENTS.get(" ".join(name.lower().replace("-", " ").split()))
    return loose or vocab.canonical_instrument(name)


def genre(name: str) -> str:
    """The table's genre for ``name``, loose names included. Raises ValueError naming the nearest known ones."""
    loose = LOOSE_GENRES.get(" ".join(name.lower().replace("-", " ").split()))
    return loose or vocab.canonical_genre(name)


@dataclass(frozen=True)
class _Hit:
    kind: str
    value: str
    start: int
    end: int
    negated: bool
    words: str


@cache
def _phrases() -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """All known phrases as token tuples -> (kind, value), instruments before genres."""
    table: dict[tuple[str, ...], list[tuple[str, str]]] = {}

    def add(kind: str, names: Mapping[str, object], value: Callable[[str], str]) -> None:
        for name in names:
            table.setdefault(tuple(name.replace("-", " ").split()), []).append((kind, value(name)))

    add("instrument", dict.fromkeys(vocab.INSTRUMENTS), str)
    add("instrument", vocab.INSTRUMENT_ALIASES, lambda name: vocab.INSTRUMENT_ALIASES[name])
    add("instrument", LOOSE_INSTRUMENTS, lambda name: LOOSE_INSTRUMENTS[name])
    add("genre", dict.fromkeys(vocab.GENRES), str)
    add("genre", vocab.GENRE_ALIASES, lambda name: vocab.GENRE_ALIASES[name])
    add("genre", LOOSE_GENRES, lambda name: LOOSE_GENRES[name])
    add("pace", PACES, str)
    add("term", TERMS, str)
    add("mood", MOODS, lambda name: MOODS[name])
    add("metre", METRES, lambda name: str(METRES[name]))
    return table


def _scan(tokens: list[str]) -> list[_Hit]:
    """Longest phrases from left to right, each token used once."""
    table = _phrases()
    longest = max(len(phrase) for phrase in table)
    hits: list[_Hit] = []
    index, negated = 0, False
    while index < len(tokens):
        for length in range(min(longest, len(tokens) - index), 0, -1):
            known = _look_up(table, tokens[index : index + length])
            if known is not None:
                words = " ".join(tokens[index : index + length])
                hits += [_Hit(kind, value, index, index + length, negated, words) for kind, value in known]
                index += length
                break
        else:
            if tokens[index] in _NEGATORS:
                negated = True
            elif tokens[index] in _BREAKS:
                negated = False
            index += 1
    return hits


def _look_up(table: dict[tuple[str, ...], list[tuple[str, str]]], words: list[str]) -> list[tuple[str, str]] | None:
    last = words[-1]
    for form in (last, last.removesuffix("s"), last.removesuffix("es"), last.removesuffix("'s")):
        known = table.get((*words[:-1], form))
        if known is not None:
            return known
    return None


def _choose_genre(found: list[_Hit], notes: list[str]) -> str | None:
    hits = [hit for hit in found if hit.kind == "genre" and not hit.negated]
    if not hits:
        # "jazz guitar" is an instrument, and says something about the genre when nothing else does
        inner = [hit for hit in found if hit.kind == "instrument" and not hit.negated]
        names = [word for hit in inner for word in hit.words.split()[:-1] if word in vocab.GENRES]
        return names[0] if names else None
    strong = [hit for hit in hits if hit.words not in WEAK_GENRES] or hits
    chosen = strong[0]
    for hit in strong[1:]:
        if hit.start == chosen.end:  # "a rock waltz" is a waltz: the last of a row of nouns is what it is
            chosen = hit
    others = list(dict.fromkeys(hit.value for hit in hits if hit.value != chosen.value))
    if others:
        notes.append(f"genre read as {chosen.value!r}; {', '.join(others)} stays in the sentence only")
    return chosen.value


_TONIC = r"(?P<tonic>[A-Ga-g])(?P<accidental>\s?[#♯♭]|b(?![a-z])|[\s-](?:sharp|flat)\b)?"
_KEY_LONG = re.compile(
    rf"(?<![\w#]){_TONIC}[\s-]?(?P<mode>(?:harmonic |melodic |natural )?(?:major|minor|maj|min|dorian|aeolian|phrygian|"
    rf"locrian|ionian|lydian|mixolydian))\b(?P<after>\s+(?:key|mood|feel|mode|tonality|scale|chords?|third|seventh)\b)?",
    re.IGNORECASE,
)
_KEY_SHORT = re.compile(r"(?<![\w#])(?P<lead>(?:in|key(?: of|:)?)\s+)?(?P<name>[A-G][#♯b♭]?m)(?![\w#])")
_KEY_BARE = re.compile(
    rf"(?<!\w)(?:[Ii]n(?: the key of)?|[Kk]ey(?: of|:)?)\s+{_TONIC}(?![\w#♯♭'])"
    r"(?=\s*$|\s*[^\w\s#♯♭]|\s+(?:with|and|at|for|on|by|featuring|played|using|without|but|about|\d|tempo|slow|fast))"
)
_MODE_ONLY = re.compile(r"\b(major|minor)\s+(?:key|mode|tonality|mood|feel|scale)\b")


def _read_key(text: str, low: str, notes: list[str]) -> tuple[str | None, str | None, str]:
    """Key, mode where no tonic is named, and ``low`` without the words that were used (same length as ``text``)."""
    candidates = []
    for match in _KEY_LONG.finditer(text):
        article = match["tonic"] == "a" and not match["accidental"]
        before = text[: match.start()].lower().rstrip()
        led = before.endswith((" in", "key of", "key:", " key")) or before == "in"
        # "in a minor key" and "a major hit" name no tonic; "in a minor" does
        if article and (not led or match["after"]):
            continue
        mode = MODES[match["mode"].lower()]
        candidates.append((match, f"{match['tonic']}{_accidental(match['accidental'])} {mode}", match["mode"].lower()))
    for match in _KEY_SHORT.finditer(text):
        if match["lead"] or match["name"] != "Am":  # "I Am" is no key
            candidates.append((match, match["name"], ""))
    for match in _KEY_BARE.finditer(text):
        if match["tonic"].isupper() or match["accidental"]:
            candidates.append((match, f"{match['tonic']}{_accidental(match['accidental'])} major", ""))
    # the explicit spellings were collected first: "in C♯ minor" must not be read as "in C"
    for match, name, mode in candidates[:1]:
        key = vocab.canonical_key(name)
        if mode not in ("", "major", "minor", "maj", "min"):
            notes.append(f"{match[0].strip()!r} is taken as {key}: keys here are major or minor")
        return key, None, low[: match.start()] + " " * (match.end() - match.start()) + low[match.end() :]
    only = _MODE_ONLY.search(low)
    return None, only[1] if only else None, low


def _accidental(written: str | None) -> str:
    sign = (written or "").strip(" -").lower()
    return {"#": "#", "♯": "#", "sharp": "#", "b": "b", "♭": "b", "flat": "b"}.get(sign, "")


_NUMBER = r"(\d{1,4}(?:\.\d+)?)"
_BPM = r"(?:bpm|b\.p\.m\.?|beats? (?:per|a) minute|beats?/min(?:ute)?)"
_TEMPO_RANGE = re.compile(rf"{_NUMBER}\s*(?:to|–|—|-|\s|and)\s*{_NUMBER}\s*{_BPM}\b")
_TEMPO = (
    re.compile(rf"(?<![\d.]){_NUMBER}\s*{_BPM}(?!\w)"),
    re.compile(rf"\b{_BPM}\s*(?:of|=|:|at|is)?\s*{_NUMBER}"),
    re.compile(rf"\btempo\s*(?:of|=|:|at|is|around|about)?\s*(?:around |about )?{_NUMBER}(?![\d/])"),
    re.compile(rf"[♩♪=]\s*=?\s*{_NUMBER}"),
)


def _read_tempo(low: str, notes: list[str]) -> tuple[float | None, tuple[float, float] | None, str]:
    span = _TEMPO_RANGE.search(low)
    if span:
        slow, fast = sorted((float(span[1]), float(span[2])))
        low = low[: span.start()] + " " + low[span.end() :]
        if TEMPO_LIMITS[0] <= slow and fast <= TEMPO_LIMITS[1]:
            return None, (slow, fast), low
        notes.append(_beyond(f"{slow:g} to {fast:g}"))
        return None, None, low
    for pattern in _TEMPO:
        match = pattern.search(low)
        if match:
            tempo = float(match[1])
            low = low[: match.start()] + " " + low[match.end() :]
            if TEMPO_LIMITS[0] <= tempo <= TEMPO_LIMITS[1]:
                return tempo, None, low
            notes.append(_beyond(f"{tempo:g}"))
            return None, None, low
    return None, None, low


def _beyond(what: str) -> str:
    return f"a tempo of {what} BPM is outside {TEMPO_LIMITS[0]:g} to {TEMPO_LIMITS[1]:g} and was left out"


def _read_metre(low: str, notes: list[str]) -> tuple[int | None, str]:
    match = re.search(r"(?<![\d/.])(\d{1,2})\s?/\s?([248])(?![\d/])", low)
    if not match:
        return None, low
    count, unit = int(match[1]), int(match[2])
    low = low[: match.start()] + " " + low[match.end() :]
    beats = count * 4 / unit
    if beats != int(beats) or not METRE_LIMITS[0] <= beats <= METRE_LIMITS[1]:
        notes.append(f"the metre {count}/{unit} is not one of 2/4 to 7/4 (or as long) and was left out")
        return None, low
    if unit != 4:
        notes.append(f"{count}/{unit} is taken as bars of {int(beats)} quarter notes")
    return int(beats), low
