"""Sentences about a piece: many templates over the same labels, fields dropped and reordered, words varied."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

_SPEED: tuple[tuple[float, tuple[str, ...]], ...] = (
    (76, ("slow", "very slow", "unhurried", "downtempo")),
    (100, ("relaxed", "laid-back", "moderate", "easy-going")),
    (124, ("mid-tempo", "steady", "moderately fast", "medium-paced")),
    (150, ("upbeat", "lively", "fast", "energetic")),
    (999, ("very fast", "driving", "rapid", "high-speed")),
)
_SPOKEN: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "acoustic piano": ("piano", "acoustic piano", "grand piano"), "electric piano": ("electric piano", "rhodes"),
    "organ": ("organ", "hammond organ"), "nylon guitar": ("nylon guitar", "classical guitar", "nylon-string guitar"),
    "steel guitar": ("steel guitar", "acoustic guitar", "steel-string guitar"),
    "electric guitar": ("electric guitar", "clean guitar"),
    "distorted guitar": ("distorted guitar", "overdriven guitar", "distortion guitar"),
    "acoustic bass": ("acoustic bass", "upright bass", "double bass"),
    "electric bass": ("electric bass", "bass guitar"), "violin": ("violin", "fiddle"),
    "strings": ("strings", "string section", "string ensemble"), "choir": ("choir", "voices"),
    "brass": ("brass", "brass section", "horns"), "saxophone": ("saxophone", "sax"),
    "french horn": ("french horn", "horn"), "vibraphone": ("vibraphone", "vibes"),
    "synth lead": ("synth lead", "synthesizer", "lead synth"), "synth pad": ("synth pad", "pad"),
    "drums": ("drums", "a drum kit", "percussion"), "glockenspiel": ("glockenspiel", "bells"),
})  # fmt: skip
_GENRE_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "bossa nova": ("bossa nova", "bossa"), "hip hop": ("hip hop", "hip-hop"), "electronic": ("electronic", "techno"),
    "disco": ("disco", "dance"), "soul": ("soul", "r&b"), "march": ("march", "marching"),
})  # fmt: skip

#: Fields: {genre} {speed} {bpm} {key} {mode} {metre} {lead} {band} {all} {thing} {A_genre}.
TEMPLATES: tuple[str, ...] = (
    "{A_genre} {thing} in {key} at {bpm} BPM with {lead}.",
    "{A_genre} {thing} with {all}, {bpm} BPM, {key}.",
    "a {speed} {genre} {thing} featuring {lead}",
    "{lead} playing {genre} over {band}",
    "{genre} with {all}",
    "{speed} {genre}, {lead}, {band}, {key}",
    "{speed} {mode}-key {genre} led by {lead}",
    "A {genre} {thing} in {metre}, {speed}, {bpm} beats per minute.",
    "{lead} melody, {genre} accompaniment of {band}",
    "an instrumental {genre} {thing} with a {lead} melody",
    "{genre} {thing}, {key}, {bpm} bpm",
    "Music in {key}: {genre}, {speed}, with {lead} in front and {band} behind.",
    "{speed} instrumental {thing} in the style of {genre}, played by {all}",
    "{bpm} bpm {genre} {thing} with {lead} and {band}",
    "A band of {all} plays {genre} in {key}.",
    "{genre} groove in {key} with {band} under a {lead} tune",
    "{A_genre} {thing}. Tempo {bpm}. Key {key}. {lead}.",
    "something {speed} with {lead}, in the {genre} direction",
    "{lead} solo over a {speed} {genre} rhythm",
    "{genre} in {metre} with {lead}",
    "Instrumental {genre}. The melody is on {lead}; {band} accompany it at {bpm} BPM.",
    "a {mode} {genre} tune for {lead} and {band}",
    "{thing} of {genre} kind at {bpm} BPM, {key}",
    "{speed} {genre}",
    "{genre} {thing} with {lead}",
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a caption may tell."""

    genre: str
    tempo: float
    key: str
    beats_per_bar: int
    lead: str
    instruments: tuple[str, ...]


def captions(facts: Facts, seed: int, count: int = 6) -> tuple[str, ...]:
    """``count`` different sentences, then one plain string of tags with some left out."""
    draw = random.Random(seed)
    found: list[str] = []
    for template in draw.sample(TEMPLATES, len(TEMPLATES)):
        text = _fill(template, facts, draw)
        if text not in found:
            found.append(text)
        if len(found) >= count:
            break
    return (*found, tags(facts, draw))


def tags(facts: Facts, draw: random.Random) -> str:
    """Comma-separated tags: the genre first or not at all, the rest in any order, each kept three times in four."""
    rest = [f"{facts.tempo:g} bpm", facts.key, speed(facts.tempo, draw), *facts.instruments, f"{facts.beats_per_bar}/4"]
    rest = [tag for tag in rest if draw.random() < 0.75]
    draw.shuffle(rest)
    return ", ".join([facts.genre, *rest] if draw.random() < 0.9 or not rest else rest)


def speed(tempo: float, draw: random.Random) -> str:
    """A word for a tempo."""
    return draw.choice(next(words for limit, words in _SPEED if tempo < limit))


def _fill(template: str, facts: Facts, draw: random.Random) -> str:
    def say(name: str) -> str:
        return draw.choice(_SPOKEN.get(name, (name,)))

    band = [name for name in facts.instruments if name != facts.lead] or ["no accompaniment"]
    # a listener names the two or three parts that stand out
    band = [say(name) for name in draw.sample(band, min(len(band), draw.randint(1, 3)))]
    lead = say(facts.lead)
    genre = draw.choice(_GENRE_WORDS.get(facts.genre, (facts.genre,)))
    text = template.format(
        genre=genre, A_genre=_article(genre), speed=speed(facts.tempo, draw), bpm=f"{facts.tempo:g}", key=facts.key,
        mode=facts.key.split()[1], metre=f"{facts.beats_per_bar}/4", lead=lead, band=_list(band),
        all=_list([lead, *band]), thing=draw.choice(("piece", "track", "tune", "instrumental", "song")),
    )  # fmt: skip
    for wrong, right in (("a instrumental", "an instrumental"), ("a a ", "a "), ("a an ", "an ")):
        text = text.replace(wrong, right)
    text = _articles(text)
    # people write prompts without capitals and full stops as often as with them
    return text.rstrip(".").lower() if draw.random() < 0.4 else text[0].upper() + text[1:]


def _articles(text: str) -> str:
    words = text.split(" ")
    for place in range(len(words) - 1):
        if words[place] in ("a", "A") and words[place + 1][:1].lower() in "aeio" and words[place + 1][:1]:
            words[place] += "n"
    return " ".join(words)


def _article(word: str) -> str:
    return ("An " if word[0] in "aeio" else "A ") + word


def _list(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
