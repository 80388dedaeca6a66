"""Stems of different songs that fit together: in tempo, in key and on the beat.

Défossez, "Hybrid spectrogram and waveform source separation", 2021, and the automix of its successor: songs whose tempo
is within 15 % and whose key is within 3 semitones of a first one's lend it stems, which are stretched and shifted onto
it and begin on the same beat. A network hears music then, in place of the noise that stems at random make.

Tempo, beats and key of rendered songs are known; those of recordings are estimated with the functions that judge music
(:mod:`descant.eval`). They only decide what is mixed with what: no network is told them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .automix_sound import stretch
from .piece import Piece

#: Furthest a stem is shifted, in semitones, and its tempo changed, as a share.
SEMITONES, TEMPO = 3, 0.15
#: Stems without pitch: they are not shifted, and change their tempo as on a turntable, which keeps strokes sharp.
UNPITCHED: frozenset[str] = frozenset({"drums", "percussion"})
_TONICS = {"C": 0, "C#": 1, "Db": 1, "D": 2, "D#": 3, "Eb": 3, "E": 4, "F": 5, "F#": 6, "Gb": 6, "G": 7, "G#": 8,
           "Ab": 8, "A": 9, "A#": 10, "Bb": 10, "B": 11}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """When the beats of a song come, and in which key it is."""

    tempo: float
    """Beats a minute."""
    beats: tuple[float, ...]
    """Seconds from the beginning, rising."""
    metre: int = 0
    """Beats of a bar; 0 where that is not known."""
    bar: int = 0
    """Number of the first beat that begins a bar."""
    key: str = ""
    """Such as ``Eb minor``; empty where it is not known."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tempo) and self.tempo > 0):
            raise ValueError(f"a tempo of {self.tempo} beats a minute: it must be positive")
        if any(b <= a for a, b in zip(self.beats, self.beats[1:], strict=False)) or self.metre < 0:
            raise ValueError("beats must rise, and a bar have 0 or more of them")
        if self.key:
            signature(self.key)

    def row(self) -> dict[str, Any]:
        """What the index of packed stems says of it."""
        return {"tempo": round(self.tempo, 4), "beats": [round(time, 4) for time in self.beats], "metre": self.metre,
                "bar": self.bar, "key": self.key}  # fmt: skip

    @staticmethod
    def of_row(row: Mapping[str, Any]) -> Pulse | None:
        """Read :meth:`row`'s mapping out of a row of an index; None where it says nothing of beats."""
        if not row.get("tempo") or not row.get("beats"):
            return None
        beats = tuple(float(time) for time in row["beats"])
        return Pulse(tempo=float(row["tempo"]), beats=beats, metre=int(row.get("metre", 0)),
                     bar=int(row.get("bar", 0)), key=str(row.get("key", "")))  # fmt: skip


class Songs(Protocol):
    """What stems are taken from."""

    rate: int
    stems: tuple[str, ...]
    lengths: list[int]
    pulses: list[Pulse | None]

    def read(self, song: int, stem: int, start: int, length: int) -> Tensor:
        """Samples of a stem, [2, length]."""


@dataclass(frozen=True)
class Take:
    """A stem of an item: which song, from which sample, how many, and how far it is shifted."""

    song: int
    start: int
    count: int
    semitones: int


def signature(key: str) -> int:
    """Pitch class of a key, or of its relative major: equal for keys with the same notes. Raises ValueError."""
    tonic, _, mode = key.partition(" ")
    if tonic not in _TONICS or mode not in ("major", "minor"):
        raise ValueError(f"unknown key {key!r}: write it as 'C# minor' or 'Eb major'")
    return (_TONICS[tonic] + 3 * (mode == "minor")) % 12


def shift(source: str, target: str) -> int:
    """Semitones, -6 to 5, that bring a key to another's notes."""
    return (signature(target) - signature(source) + 6) % 12 - 6


def fits(source: Pulse, target: Pulse, pitched: bool) -> int | None:
    """Semitones to shift a stem of ``source`` by so that it fits ``target``; None where it is too far away."""
    if abs(math.log(target.tempo / source.tempo)) > math.log1p(TEMPO) + 1e-9:
        return None
    if not pitched:
        return 0
    if not source.key or not target.key:
        return None
    steps = shift(source.key, target.key)
    return steps if abs(steps) <= SEMITONES else None


def takes(songs: Songs, length: int, dice: torch.Generator) -> list[Take] | None:
    """Which stems make an item of ``length`` samples: one for each stem of ``songs``.

    The first song is any whose beats are known; every stem comes from any song that fits it, itself among them. Returns
    None when the first song has no beat with ``length`` samples behind it.
    """
    known = [number for number, pulse in enumerate(songs.pulses) if pulse is not None]
    rolls = torch.rand(3 + 2 * len(songs.stems), generator=dice, dtype=torch.float64).tolist()
    if not known:
        return None
    first = known[int(rolls[0] * len(known))]
    target = songs.pulses[first]
    if target is None:
        return None
    # crops begin anywhere between two beats, not on one
    lead = rolls[1] * 60 / target.tempo
    beat = _beat(target, songs.lengths[first] / songs.rate, lead, length / songs.rate, rolls[2])
    if beat is None:
        return None
    own = Take(first, max(0, round((target.beats[beat] - lead) * songs.rate)), length, 0)
    own = Take(first, min(own.start, songs.lengths[first] - length), length, 0)
    made = []
    for stem, name in enumerate(songs.stems):
        choice, place = rolls[3 + 2 * stem : 5 + 2 * stem]
        made.append(_from_others(songs, known, target, beat, (lead, length), name, choice, place) or own)
    return made


def sound(songs: Songs, stem: int, take: Take, length: int) -> Tensor:
    """The samples of a take, stretched and shifted, [2, length]."""
    wav = songs.read(take.song, stem, take.start, take.count)
    if songs.stems[stem] in UNPITCHED:
        # the pitch goes with the speed: no vocoder
        return stretch(wav, length, 12 * math.log2(take.count / length), songs.rate)
    if take.count == length and not take.semitones:
        return wav
    return stretch(wav, length, take.semitones, songs.rate)


def of_piece(piece: Piece, start: float, seconds: float) -> Pulse | None:
    """The pulse of an excerpt of a rendered piece, exact; None where not a single beat lies in it."""
    period = 60 / piece.tempo
    first = math.ceil(start / period - 1e-6)
    count = math.floor((start + seconds) / period - 1e-6) - first + 1
    if count < 1:
        return None
    beats = tuple(max(0.0, (first + number) * period - start) for number in range(count))
    return Pulse(
        tempo=piece.tempo, beats=beats, metre=piece.beats_per_bar, bar=-first % piece.beats_per_bar, key=piece.key
    )


def heard(mix: Tensor, rate: int) -> Pulse | None:
    """The pulse of any music, estimated: mix [C, T] at ``rate`` Hz; None where there is none to be heard."""
    from ..eval.beats import beats
    from ..eval.rhythm import tempo
    from ..eval.tonality import key

    bpm = tempo(mix, rate).bpm
    if bpm <= 0:
        return None
    times = beats(mix, rate, bpm if 20 <= bpm <= 400 else None)
    if len(times) < 2:
        return None
    return Pulse(tempo=bpm, beats=tuple(times), key=key(mix, rate).name)


def _from_others(
    songs: Songs, known: Sequence[int], target: Pulse, beat: int, crop: tuple[float, int], name: str, choice: float,
    place: float,
) -> Take | None:  # fmt: skip
    """A stem of a song that fits, on a beat of the same place in the bar where bars are known; None without one."""
    lead, length = crop
    found: list[tuple[int, Pulse, int]] = []
    for number in known:
        pulse = songs.pulses[number]
        steps = None if pulse is None else fits(pulse, target, name not in UNPITCHED)
        if pulse is not None and steps is not None:
            found.append((number, pulse, steps))
    if not found:
        return None
    number, pulse, steps = found[int(choice * len(found))]
    slower = target.tempo / pulse.tempo  # a second of the item is so many of the source
    wanted = (beat - target.bar) % target.metre if target.metre and target.metre == pulse.metre else None
    begin, need = lead * slower, length * slower / songs.rate
    chosen = _beat(pulse, songs.lengths[number] / songs.rate, begin, need, place, wanted)
    if chosen is None:
        return None
    count = round(length * slower)
    start = round((pulse.beats[chosen] - begin) * songs.rate)
    return Take(number, max(0, min(start, songs.lengths[number] - count)), count, steps)


def _beat(
    pulse: Pulse, seconds: float, lead: float, length: float, roll: float, place: int | None = None
) -> int | None:
    """Any beat with ``lead`` s before it from which ``length`` s can be cut; at ``place`` of a bar where that is given.

    Returns its number, or None where there is none.
    """
    times = np.asarray(pulse.beats)
    # two samples of rounding are made up for where the crop is cut
    free = (times - lead >= -1e-4) & (times - lead + length <= seconds + 1e-4)
    if place is not None:
        free &= (np.arange(len(times)) - pulse.bar) % pulse.metre == place
    places = np.flatnonzero(free)
    return int(places[int(roll * len(places))]) if len(places) else None
