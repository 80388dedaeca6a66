"""Rendered stems packed for training a separator: one flat int16 file, memory-mapped, and an index of its songs.

A song is stored stem by stem, each [T, 2]; the sum of its stems is its mix. Pieces are rendered with several sound
fonts in turn, because a network that has heard one font learns its samples instead of what a bass is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import audio_of, automix, splits
from .automix_sound import resize as resize
from .automix_sound import stretch
from .loop import stream
from .piece import Piece
from .stems_writer import StemWriter

#: What a mix is taken apart into; every role that is not named goes to the last.
STEMS: tuple[str, ...] = ("drums", "bass", "lead", "other")
#: Lengths of augmented crops are multiples of this, so that the transforms that change their speed are fast.
GRAIN = 2000


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How songs are varied while they are drawn (Uhlich et al., 2017, and Defossez et al., 2019, section 5.1)."""

    remix: float = 0.5
    """Share of the items whose stems come from different songs."""
    gain_db: float = 6.0
    """Each stem is made louder or softer by up to this much."""
    drop: float = 0.08
    """Chance of each stem to be silent."""
    pan: float = 0.3
    """Chance of each stem to be moved in the stereo image."""
    speed: float = 0.12
    """Each item plays faster or slower by up to this share, its pitch with it."""
    automix: float = 0.0
    """Share of the items whose stems come from different songs that fit in tempo and key, on the same beats."""
    pitch: float = 0.0
    """Items that are bent are higher or lower by up to so many semitones, their tempo unchanged."""
    tempo: float = 0.0
    """Items that are bent are faster or slower by up to this share, their pitch unchanged."""
    bend: float = 0.2
    """Chance of an item to be bent, where ``pitch`` or ``tempo`` say how far."""
    shift: float = 0.0
    """Each stem comes by itself later by up to so many seconds."""

    def __post_init__(self) -> None:
        for name in ("remix", "drop", "pan", "automix", "bend"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a chance: 0 to 1, got {getattr(self, name)}")
        if self.gain_db < 0 or not 0 <= self.speed < 0.5:
            raise ValueError(f"gain_db {self.gain_db} must be 0 or more, speed {self.speed} from 0 to 0.5")
        if not 0 <= self.pitch <= 12 or not 0 <= self.tempo < 0.5 or self.shift < 0:
            raise ValueError(
                f"pitch {self.pitch} must be from 0 to 12 semitones, tempo {self.tempo} from 0 to 0.5, shift "
                f"{self.shift} s not negative"
            )


class StemCorpus:
    """Songs with their stems, at one rate. ``names``, ``fonts`` and (where known) ``pulses`` by song."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not (folder / "index.json").exists():
            raise FileNotFoundError(f"no packed stems in {folder}: make them with 'descant prepare stems'")
        header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if "stems" not in header:
            raise ValueError(f"{folder} holds packed audio without stems: make stems with 'descant prepare stems'")
        self.rate: int = header["rate"]
        self.stems: tuple[str, ...] = tuple(header["stems"])
        rows = header["index"]
        self.names: list[str] = [row["name"] for row in rows]
        self.fonts: list[str] = [row["font"] for row in rows]
        self.starts: list[int] = [row["start"] for row in rows]
        self.lengths: list[int] = [row["length"] for row in rows]
        self.pulses: list[automix.Pulse | None] = [automix.Pulse.of_row(row) for row in rows]
        self.samples = np.memmap(folder / "stems.i16", dtype="<i2", mode="r").reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def hours(self) -> float:
        """Hours of music (not of stems)."""
        return sum(self.lengths) / self.rate / 3600

    def read(self, song: int, stem: int, start: int, length: int) -> Tensor:
        """Samples ``start``..``start + length`` of a stem of a song, float32 [2, length]."""
        at = self.starts[song] + stem * self.lengths[song] + start
        return torch.from_numpy(self.samples[at : at + length].T.astype(np.float32)) / 32768.0

    def song(self, song: int, start: int = 0, length: int | None = None) -> Tensor:
        """Stems of a song, float32 [N, 2, T]."""
        length = self.lengths[song] - start if length is None else length
        return torch.stack([self.read(song, stem, start, length) for stem in range(len(self.stems))])

    def draw(self, step: int, count: int, length: int, seed: int, mixing: Mixing) -> Tensor:
        """Varied crops of step ``step``, stems [count, N, 2, length]; a function of the arguments alone."""
        dice = stream(seed, step)
        return torch.stack([self._item(length, dice, mixing) for _ in range(count)])

    def _item(self, length: int, dice: torch.Generator, mixing: Mixing) -> Tensor:
        # settings that are 0 throw no dice: a run without them draws what it always drew
        stretched = 1.0 + mixing.speed * (2 * _roll(dice) - 1)
        taken = max(GRAIN, round(length * stretched / GRAIN) * GRAIN) if mixing.speed else length
        mixed = _roll(dice) < mixing.remix
        bent = _bend(dice, mixing)
        need = taken if bent is None else round(taken * bent[0])
        wavs: list[Tensor] | None = None
        if mixing.automix and _roll(dice) < mixing.automix:
            fitting = automix.takes(self, need, dice)
            if fitting is not None:
                wavs = [automix.sound(self, stem, take, need) for stem, take in enumerate(fitting)]
        song, place = self._place(need, dice)
        parts = []
        for stem in range(len(self.stems)):
            if mixed and wavs is None:
                song, place = self._place(need, dice)
            late = _roll(dice) * mixing.shift if mixing.shift else 0.0
            wav = self.read(song, stem, self._earlier(place, late), need) if wavs is None else wavs[stem]
            wav = wav if bent is None else stretch(wav, taken, bent[1], self.rate)
            parts.append(_varied(wav, dice, mixing))
        return resize(torch.stack(parts), length)

    def _earlier(self, place: int, seconds: float) -> int:
        return max(0, place - round(seconds * self.rate))

    def _place(self, length: int, dice: torch.Generator) -> tuple[int, int]:
        song = int(_roll(dice) * len(self))
        room = self.lengths[song] - length
        if room < 0:
            raise ValueError(f"{self.names[song]} is shorter than a crop of {length / self.rate:.1f} s: crop less")
        return song, int(_roll(dice) * room)


def gather(stems: Mapping[str, Tensor], names: Sequence[str] = STEMS) -> Tensor:
    """Rendered parts by role, each [2, T] -> [N, 2, T]; what has no place of its own is added to the last."""
    if not stems:
        raise ValueError("a song without stems: nothing to separate")
    out = torch.zeros(len(names), *next(iter(stems.values())).shape)
    for role, wav in stems.items():
        out[names.index(role) if role in names else -1] += wav
    return out


def begin(piece: Piece, seconds: float) -> float:
    """Where an excerpt of ``seconds`` begins in a piece, in seconds: anywhere, decided by its id."""
    room = piece.duration - seconds
    return 0.0 if room <= 0 else round(splits.unit("excerpt", piece.id) * room, 3)


def excerpt(piece: Piece, seconds: float) -> Piece:
    """``seconds`` from somewhere inside a piece (:func:`begin`), as a piece."""
    if piece.duration <= seconds:
        return piece
    start = begin(piece, seconds)
    stems = tuple(
        replace(stem, notes=tuple((on - start, length, pitch, velocity) for on, length, pitch, velocity in stem.notes
                                  if start <= on < start + seconds))
        for stem in piece.stems
    )  # fmt: skip
    return replace(piece, duration=seconds, stems=stems)


def pack(
    pieces: Iterable[Piece], out: str | os.PathLike[str], fonts: Sequence[str | None] = (None,), *,
    rate: int = 32000, seconds: float = 30.0,
) -> StemCorpus:  # fmt: skip
    """Render an excerpt of each piece and pack its stems; piece number i takes font number i modulo their count.

    rate in Hz. The files appear when all is done. Raises ValueError without pieces.
    """
    writer = StemWriter(out, rate, STEMS)
    for number, piece in enumerate(pieces):
        font = fonts[number % len(fonts)]
        part = excerpt(piece, seconds)
        wav = gather(audio_of.render_piece(part, rate, font))
        pulse = automix.of_piece(piece, begin(piece, seconds), part.duration)
        name = piece.layer if font is None or piece.layer == "builtin" else Path(font).stem
        writer.add(piece.id, name, wav, **(pulse.row() if pulse is not None else {}))
    if not writer.rows:
        writer.drop()
        raise ValueError("no pieces to pack: render some with 'descant render'")
    return StemCorpus(writer.close())


def _varied(wav: Tensor, dice: torch.Generator, mixing: Mixing) -> Tensor:
    """A stem [2, T] in another level, polarity and place between the loudspeakers, or silent."""
    gain = 10 ** (mixing.gain_db * (2 * _roll(dice) - 1) / 20)
    flip, swap, silent, moved, angle = (_roll(dice) for _ in range(5))
    if swap < 0.5:
        wav = wav.flip(0)
    if moved < mixing.pan:
        side = 2 * angle - 1
        wav = wav * torch.tensor([[1 - max(0.0, side) * 0.8], [1 + min(0.0, side) * 0.8]])
    return wav * (0.0 if silent < mixing.drop else gain if flip < 0.5 else -gain)


def _bend(dice: torch.Generator, mixing: Mixing) -> tuple[float, float] | None:
    """How many times faster an item becomes, and how many semitones higher; None for most."""
    if not (mixing.pitch or mixing.tempo) or _roll(dice) >= mixing.bend:
        return None
    return 1 + mixing.tempo * (2 * _roll(dice) - 1), mixing.pitch * (2 * _roll(dice) - 1)


def _roll(dice: torch.Generator) -> float:
    return float(torch.rand((), generator=dice, dtype=torch.float64))
