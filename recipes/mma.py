"""Accompaniment from MMA (Musical MIDI Accompaniment, Bob van der Poel), run as a program of its own.

MMA is free software under the GPL; nothing of it is part of this package. We write it a small score (tempo, groove and
chord of each bar), it writes a MIDI file, and we read that file into stems. Installing it: the Debian package ``mma``,
or unpack that package anywhere and name the folder in ``DESCANT_MMA``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..lm import vocab
from ..lm.chords import parse
from .grooves import STYLES

Note = tuple[float, float, int, int]
#: Where packages put MMA's modules.
_PLACES = ("/usr/share/mma", "/usr/local/share/mma")
_TICKS = 192
_INSTRUMENT_OF = {program: name for name, programs in vocab.PROGRAMS.items() for program in programs}


class MissingTool(RuntimeError):
    """An external program or file that a renderer needs is not there; the message says what to install."""


@dataclass(frozen=True)
class Style:
    """An accompaniment style: MMA grooves that belong together, and its metre."""

    name: str
    genre: str
    grooves: tuple[str, ...]
    beats_per_bar: int


@dataclass(frozen=True)
class Part:
    """One accompanying part as MMA played it; ``role`` is ``drums``, ``bass`` or the instrument's family."""

    role: str
    program: int
    notes: tuple[Note, ...]

    @property
    def instrument(self) -> str:
        """The part's name in the vocabulary."""
        return "drums" if self.role == "drums" else _INSTRUMENT_OF[self.program]


def styles(genre: str) -> tuple[Style, ...]:
    """The styles of a genre. Raises ValueError for an unknown genre."""
    if genre not in STYLES:
        raise ValueError(f"unknown genre {genre!r}: known are {', '.join(STYLES)}")
    found = []
    for row in STYLES[genre].split():
        text, _, metre = row.partition("*")
        file, _, grooves = text.partition(":")
        found.append(Style(file, genre, tuple(f"{file}:{name}" for name in grooves.split(",")), int(metre or 4)))
    return tuple(found)


def accompany(
    style: Style, bars: Sequence[tuple[str, ...]], sections: Sequence[int], tempo: float, seed: int
) -> tuple[Part, ...]:
    """Play ``bars`` (chord symbols of each bar) in a style; ``sections`` names the groove variant of each bar.

    Returns drums and bass first, then one part per instrument family, notes in seconds from the first beat.
    Raises MissingTool where MMA is not installed and RuntimeError where it refuses the score.
    """
    if len(sections) != len(bars):
        raise ValueError(f"{len(sections)} section marks for {len(bars)} bars: give one for each")
    with tempfile.TemporaryDirectory(prefix="descant-") as folder:
        score, target = Path(folder) / "score.mma", Path(folder) / "score.mid"
        score.write_text(_score(style, bars, sections, tempo, seed), encoding="ascii")
        program, home = find_mma()
        done = subprocess.run(
            [*program, "-f", str(target), str(score)], cwd=home, capture_output=True, text=True, timeout=120,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False,
        )  # fmt: skip
        if done.returncode or not target.exists():
            said = (done.stdout + done.stderr).strip().splitlines()
            raise RuntimeError(f"mma refused style {style.name}: {' '.join(said[-3:])}")
        return read_parts(target, tempo, style.beats_per_bar * len(bars))


def read_parts(path: str | os.PathLike[str], tempo: float, beats: float | None = None) -> tuple[Part, ...]:
    """Read a MIDI file into parts; every time is counted in quarter notes at ``tempo`` and cut at ``beats``."""
    try:
        import mido
    except ImportError as error:
        raise MissingTool("reading MIDI needs the package mido: pip install mido") from error

    file = mido.MidiFile(str(path))
    scale = 60.0 / tempo / file.ticks_per_beat
    limit = float("inf") if beats is None else beats * 60.0 / tempo
    drums: list[Note] = []
    pitched: dict[str, list[tuple[int, Note]]] = defaultdict(list)
    for track in file.tracks:
        lines: dict[int, list[Note]] = defaultdict(list)
        for channel, program, (onset, length, pitch, velocity) in _notes(track, scale):
            if onset < limit - 1e-6:
                length = round(max(0.02, min(length, limit - onset)), 4)
                if channel == 9:  # MMA marks strokes, not lengths
                    drums.append((round(onset, 4), 0.12, pitch, velocity))
                else:
                    lines[program].append((round(onset, 4), length, pitch, velocity))
        for program, notes in lines.items():
            program = 89 if 96 <= program <= 103 else program  # the effects among the synthesizers play a pad
            role = _role(track.name, program, notes)
            if role is not None:
                pitched[role] += [(program, note) for note in notes]
    parts = [Part("drums", -1, _tidy(drums))] if drums else []
    bass = pitched.pop("bass", [])
    parts += [_part("bass", bass)] if bass else []
    return (*parts, *(_part(family, rows) for family, rows in sorted(pitched.items(), key=lambda item: -len(item[1]))))


def _role(track: str, program: int, notes: list[Note]) -> str | None:
    """What a line of one track does; None for sounds that are no instrument of the vocabulary."""
    family = vocab.FAMILY[_INSTRUMENT_OF[program]] if program in _INSTRUMENT_OF else None
    low = sorted(note[2] for note in notes)[len(notes) // 2] < 53
    # tracks called bass also hold riffs and arpeggios of other instruments
    if family == "bass" or (low and track.startswith(("Bass", "Walk"))):
        return "bass"
    return family


def _part(role: str, rows: list[tuple[int, Note]]) -> Part:
    program = Counter(program for program, _ in rows).most_common(1)[0][0]
    return Part(role, program, _tidy([note for _, note in rows]))


def _tidy(notes: list[Note]) -> tuple[Note, ...]:
    """Sort; of notes that begin together on one pitch the loudest stays; a note ends where its pitch sounds anew."""
    best: dict[tuple[float, int], Note] = {}
    for note in notes:
        place = (note[0], note[2])
        if place not in best or note[3] > best[place][3]:
            best[place] = note
    following: dict[int, float] = {}
    tidy: list[Note] = []
    for note in sorted(best.values(), reverse=True):
        onset, length, pitch, velocity = note
        until = following.get(pitch, float("inf"))
        following[pitch] = onset
        tidy.append((onset, round(min(length, until - onset), 4), pitch, velocity))
    return tuple(reversed(tidy))


def _notes(track: Any, scale: float) -> list[tuple[int, int, Note]]:
    """(channel, program, note) of a track, times in seconds."""
    now, programs = 0, defaultdict(int)
    sounding: dict[tuple[int, int], tuple[int, int, int]] = {}
    found: list[tuple[int, int, Note]] = []

    def close(place: tuple[int, int], end: int) -> None:
        start, velocity, program = sounding.pop(place)
        found.append((place[0], program, (start * scale, (end - start) * scale, place[1], velocity)))

    for message in track:
        now += message.time
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type in ("note_on", "note_off"):
            place = (message.channel, message.note)
            if place in sounding:
                close(place, now)
            if message.type == "note_on" and message.velocity:
                sounding[place] = (now, message.velocity, programs[message.channel])
    for place in list(sounding):
        close(place, now)
    return found


def _score(style: Style, bars: Sequence[tuple[str, ...]], sections: Sequence[int], tempo: float, seed: int) -> str:
    lines = [f"RndSeed {seed % 2**31}", f"Tempo {tempo:g}"]
    last = None
    for index, (symbols, section) in enumerate(zip(bars, sections, strict=True)):
        groove = style.grooves[section % len(style.grooves)]
        if groove != last:
            lines.append(f"Groove {groove}")
            last = groove
        lines.append(f"{index + 1} {_bar(symbols, style.beats_per_bar)}")
    return "\n".join(lines) + "\n"


def _bar(symbols: tuple[str, ...], beats: int) -> str:
    if len(symbols) == 1:
        return _mma_symbol(symbols[0])
    if len(symbols) != 2 or beats % 2:
        raise ValueError(f"{len(symbols)} chords in a bar of {beats}: give one, or two in a bar of 2 or 4")
    rest = ["/"] * (beats // 2 - 1)
    return " ".join([_mma_symbol(symbols[0]), *rest, _mma_symbol(symbols[1]), *rest])


def _mma_symbol(symbol: str) -> str:
    chord = parse(symbol)
    # "dim" alone is a seventh chord there
    return chord.symbol.replace("dim", "dim3") if chord.quality == "dim" else chord.symbol


def find_mma(environ: Mapping[str, str] = os.environ) -> tuple[list[str], str]:
    """How to run MMA: the command, and the folder it must run in.

    Raises MissingTool, which says what to install, where it is not there.
    """
    own = environ.get("DESCANT_MMA")
    places = [Path(own) / "usr/share/mma", Path(own)] if own else [Path(place) for place in _PLACES]
    command = shutil.which("mma")
    for home in places:
        if (home / "MMA").is_dir():
            script = home.parent.parent / "bin" / "mma"
            if script.exists():
                return [sys.executable, str(script)], str(home)
            if command:
                return [command], str(home)
    raise MissingTool(
        "the accompaniment program mma is not installed: install the Debian package 'mma', or unpack it with "
        "'dpkg-deb -x mma_*.deb FOLDER' and set DESCANT_MMA=FOLDER"
    )
