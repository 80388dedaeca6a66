"""Sentences for synth-eval: their own templates, none of which shares a phrase with :mod:`descant.recipes.captions`.

A judge or a generator that has learnt the training sentences by heart gains nothing from these.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

_PACE: tuple[tuple[float, tuple[str, ...]], ...] = (
    (76, ("dragging", "leisurely")),
    (100, ("at a walking pace", "unforced")),
    (124, ("at a comfortable pace", "middling in speed")),
    (150, ("brisk", "quick")),
    (999, ("breakneck", "at full tilt")),
)
_COUNT = ("nobody", "one player", "two players", "three players", "four players", "five players", "six players")

#: Fields: {genre} {pace} {bpm} {key} {metre} {lead} {rest} {everyone} {players}.
TEMPLATES: tuple[str, ...] = (
    "We hear {everyone}. The idiom belongs to {genre}, the pulse sits near {bpm} and the tonal centre is {key}.",
    "Up front {lead}, further back {rest}; think {genre}, counted in {metre}.",
    "Clip for {players}: {everyone}. Metronome mark {bpm}, written in {key}.",
    "The tune comes from {lead}. Around it {rest} fill out what is clearly {genre}, and everything moves {pace}.",
    "If you like {genre} you know this mood: {pace}, {key}, {lead} telling the story.",
    "Excerpt without words. Style: {genre}. Who plays: {everyone}. How fast: {bpm} clicks per minute.",
    "{lead} leads, {rest} follow, {metre} throughout, home note taken from {key}.",
    "Ten seconds or so from a {genre} session where {everyone} share the room.",
    "Somewhere between dance and background, {pace}, rooted in {key}; {rest} support {lead}.",
    "A listener would file this under {genre}: pulse {bpm}, {metre}, no voice, {lead} as protagonist.",
    "Harmony stays around {key} while {lead} wanders above {rest}.",
    "Played {pace} by {players}, this belongs on a {genre} shelf.",
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a sentence may tell; ``lead`` is None where no part carries a tune."""

    genre: str
    tempo: float
    key: str
    beats_per_bar: int
    lead: str | None
    instruments: tuple[str, ...]


def captions(facts: Facts, seed: int, count: int = 3) -> tuple[str, ...]:
    """``count`` different sentences; those about a lead only where there is one."""
    draw = random.Random(f"synth-eval words {seed}")
    fitting = [
        text for text in TEMPLATES
        if (facts.lead or "{lead}" not in text) and (len(set(facts.instruments)) > 1 or "{rest}" not in text)
    ]  # fmt: skip
    return tuple(_fill(text, facts, draw) for text in draw.sample(fitting, min(count, len(fitting))))


def _fill(template: str, facts: Facts, draw: random.Random) -> str:
    everyone = list(dict.fromkeys(facts.instruments))
    rest = [name for name in everyone if name != facts.lead] or everyone
    pace = draw.choice(next(words for limit, words in _PACE if facts.tempo < limit))
    draw.shuffle(rest)
    text = template.format(
        genre=facts.genre, pace=pace, bpm=f"{facts.tempo:g}", key=facts.key, metre=f"{facts.beats_per_bar}/4",
        lead=facts.lead, rest=_list(rest), everyone=_list(everyone),
        players=_COUNT[len(everyone)] if len(everyone) < len(_COUNT) else f"{len(everyone)} players",
    )  # fmt: skip
    return text[0].upper() + text[1:]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
