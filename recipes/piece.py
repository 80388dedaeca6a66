"""The record every renderer writes and every recipe reads: one piece of music, symbolic, with exact labels.

A piece is stored as JSON (a few kB a minute) and rendered to audio only when somebody needs samples. Times are in
seconds from the first downbeat, which lies at 0; tempo and metre are constant within a piece.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stem:
    """One part: what it plays and how loud it sits in the mix.

    ``notes`` rows are (onset s, duration s, MIDI pitch 0..127, velocity 1..127).
    """

    role: str
    """``drums``, ``bass``, ``lead`` or ``chords``/``pad``/... : what the part does in the arrangement."""
    instrument: str
    """A name of :data:`descant.lm.vocab.INSTRUMENTS`."""
    program: int
    """General MIDI program 0..127; -1 for drums."""
    notes: tuple[tuple[float, float, int, int], ...]
    gain_db: float = 0.0
    pan: float = 0.0
    """-1 left ... +1 right."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A whole piece and its labels."""

    id: str
    layer: str
    """``builtin`` or ``synth``."""
    split: str
    """``train``, ``dev`` or ``test``."""
    seed: int
    duration: float
    genre: str
    style: str
    """The finer style (an accompaniment pattern's name)."""
    tempo: float
    """Quarter-note beats per minute."""
    beats_per_bar: int
    key: str
    """One of :data:`descant.lm.vocab.KEYS`."""
    chords: tuple[tuple[float, float, str], ...]
    """(start s, end s, symbol readable by :func:`descant.lm.chords.parse`)."""
    melody: tuple[tuple[float, float, int], ...]
    """(onset s, duration s, MIDI pitch) of the lead part; empty when there is none."""
    stems: tuple[Stem, ...]
    captions: tuple[str, ...]
    sources: tuple[str, ...] = field(default=())
    """Where the notes come from and under what licence."""
    mix: dict[str, float] = field(default_factory=dict)
    """Mix parameters of the renderer, such as ``reverb`` (wet share) and ``room`` (s)."""

    @property
    def instruments(self) -> tuple[str, ...]:
        """Distinct instruments, in stem order."""
        return tuple(dict.fromkeys(stem.instrument for stem in self.stems))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Piece:
        """Read :meth:`to_json`'s line. Raises ValueError on unknown or missing fields."""
        row: dict[str, Any] = json.loads(text)
        _check(row, Piece)
        for stem in row["stems"]:
            _check(stem, Stem)
        row["stems"] = tuple(
            Stem(**{**stem, "notes": tuple(tuple(note) for note in stem["notes"])}) for stem in row["stems"]
        )
        for name in ("chords", "melody"):
            row[name] = tuple(tuple(item) for item in row[name])
        for name in ("captions", "sources"):
            row[name] = tuple(row[name])
        return Piece(**row)


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[Piece]) -> int:
    """Write pieces as gzipped JSON lines, atomically and byte-reproducibly; return how many there were."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    count = 0
    # a fixed mtime and no file name in the header: the same pieces give the same bytes
    with open(part, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        for piece in pieces:
            file.write(piece.to_json().encode() + b"\n")
            count += 1
    os.replace(part, path)
    return count


def read_pieces(path: str | os.PathLike[str]) -> Iterator[Piece]:
    """Yield the pieces of a file made by :func:`write_pieces`."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield Piece.from_json(line)


def _check(row: dict[str, Any], kind: type) -> None:
    names = {item.name for item in fields(kind)}
    unknown = sorted(set(row) - names)
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown fields {unknown}; known are {sorted(names)}")
