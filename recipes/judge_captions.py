"""The judge's own captions: fragments in any order, and none of the generator's or the benchmark's sentences."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

_GENRE = ("{} music", "a {} recording", "{}", "in the manner of {}", "typical {}", "sounds like {}", "style: {}")
_PLAYERS = ("one can hear {}", "{} are playing", "the sound of {}", "{}", "instruments: {}", "performed on {}")
_LEAD = ("the tune is carried by {}", "{} on top", "{} takes the lead voice", "foreground: {}", "tune on {}")
_TEMPO = ("at about {} bpm", "{} beats per minute", "pulse of {} bpm", "roughly {} bpm")
_KEY = ("tonality of {}", "in {}", "its key is {}", "{} as home key", "centred on {}")
_MODE = ("a {} mode", "{} tonality", "mostly {} harmony")
_METRE: Mapping[int, tuple[str, ...]] = MappingProxyType({
    2: ("two beats a bar", "duple time"), 3: ("three beats a bar", "triple time"),
    4: ("four beats a bar", "common time"),
    5: ("five beats a bar",), 6: ("six beats a bar",),
})  # fmt: skip
_WITHOUT = ("without {}", "no {} at all", "free of {}")
_PACE: tuple[tuple[float, tuple[str, ...]], ...] = (
    (72, ("crawling", "at a slow pace", "calm and slow")), (98, ("at a walking pace", "gentle", "at an easy pace")),
    (122, ("at a medium pace", "flowing")), (148, ("brisk", "at a quick pace", "bouncing")),
    (999, ("racing", "at a furious pace", "hectic")),
)  # fmt: skip
_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "acoustic piano": ("acoustic piano", "piano", "upright piano"), "electric piano": ("electric piano", "e-piano"),
    "steel guitar": ("steel guitar", "folk guitar"), "nylon guitar": ("nylon guitar", "spanish guitar"),
    "electric guitar": ("electric guitar", "guitar"), "distorted guitar": ("distorted guitar", "fuzz guitar"),
    "acoustic bass": ("acoustic bass", "contrabass", "double bass"), "electric bass": ("electric bass", "bass guitar"),
    "synth bass": ("synth bass",), "violin": ("violin", "solo violin"), "strings": ("strings", "orchestral strings"),
    "choir": ("choir", "a chorus of voices"), "brass": ("brass", "a brass section"), "saxophone": ("saxophone", "sax"),
    "synth lead": ("synth lead", "a lead synthesizer"), "synth pad": ("synth pad", "pads"),
    "drums": ("drums", "a drummer", "drum kit"), "french horn": ("french horn", "horn"),
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a caption may say of a clip; None or empty where nothing is known."""

    genre: str | None = None
    instruments: Sequence[str] = ()
    absent: Sequence[str] = ()
    lead: str | None = None
    tempo: float | None = None
    key: str | None = None
    beats: int | None = None


def caption(known: Known, draw: random.Random) -> str:
    """One caption, saying some of what is known."""
    parts: list[str] = []
    if known.genre and draw.random() < 0.65:
        parts.append(_one(_GENRE, known.genre, draw))
    if known.instruments and draw.random() < 0.7:
        some = draw.sample(list(known.instruments), draw.randint(1, len(known.instruments)))
        parts.append(_one(_PLAYERS, listed([spoken(name, draw) for name in some]), draw))
    if known.lead and draw.random() < 0.3:
        parts.append(_one(_LEAD, spoken(known.lead, draw), draw))
    if known.tempo and draw.random() < 0.5:
        pace = next(words for limit, words in _PACE if known.tempo < limit)
        number = _one(_TEMPO, f"{known.tempo:.0f}", draw)
        parts.append(draw.choice((number, number, draw.choice(pace))))
    if known.key and draw.random() < 0.5:
        whole = _one(_KEY, known.key, draw)
        parts.append(draw.choice((whole, whole, _one(_MODE, known.key.split()[1], draw))))
    if known.beats is not None and known.beats in _METRE and draw.random() < 0.15:
        parts.append(draw.choice(_METRE[known.beats]))
    if known.absent and draw.random() < 0.1:
        parts.append(_one(_WITHOUT, draw.choice(list(known.absent)), draw))
    if not parts:
        parts = [_one(_GENRE, known.genre, draw)] if known.genre else ["music"]
    draw.shuffle(parts)
    text = draw.choice((", ", "; ", " - ", ". ")).join(parts)
    return text[0].upper() + text[1:] + "." if draw.random() < 0.5 else text


def about(
    genre: str | None = None, instrument: str | None = None, key: str | None = None, tempo: float | None = None
) -> str:
    """The plain sentence about one thing that zero-shot tests use."""
    if genre:
        return _GENRE[0].format(genre)
    if instrument:
        return _PLAYERS[2].format(instrument)
    if key:
        return _KEY[0].format(key)
    return _TEMPO[0].format(f"{tempo or 0:.0f}")


def one_thing(
    draw: random.Random, genre: str | None = None, instrument: str | None = None, key: str | None = None,
    tempo: float | None = None,
) -> str:  # fmt: skip
    """A sentence about one thing, in any of its forms."""
    if genre:
        text = _one(_GENRE, genre, draw)
    elif instrument:
        text = _one(_PLAYERS, spoken(instrument, draw), draw)
    elif key:
        text = _one(_KEY, key, draw)
    else:
        # the classes are a ninth apart
        text = _one(_TEMPO, f"{(tempo or 0) * 2 ** draw.uniform(-1 / 12, 1 / 12):.0f}", draw)
    return text[0].upper() + text[1:] if draw.random() < 0.5 else text


def spoken(name: str, draw: random.Random) -> str:
    """An instrument as people call it."""
    return draw.choice(_NAMES.get(name, (name,)))


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _one(forms: Sequence[str], word: str, draw: random.Random) -> str:
    return draw.choice(forms).format(word)
