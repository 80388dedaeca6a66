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

from . import audio_of, splits
from .loop import stream
from .piece import Piece

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

    def __post_init__(self) -> None:
        for name in ("remix", "drop", "pan"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a chance: 0 to 1, got {getattr(self, name)}")
        if self.gain_db < 0 or not 0 <= self.speed < 0.5:
            raise ValueError(f"gain_db {self.gain_db} must be 0 or more, speed {self.speed} from 0 to 0.5")


class StemCorpus:
    """Songs with their stems, at one rate. ``names`` and ``fonts`` by song."""

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
        stretch = 1.0 + mixing.speed * (2 * _roll(dice) - 1)
        taken = max(GRAIN, round(length * stretch / GRAIN) * GRAIN) if mixing.speed else length
        mixed = _roll(dice) < mixing.remix
        song, place = self._place(taken, dice)
        parts = []
        for stem in range(len(self.stems)):
            if mixed:
                song, place = self._place(taken, dice)
            wav = self.read(song, stem, place, taken)
            gain = 10 ** (mixing.gain_db * (2 * _roll(dice) - 1) / 20)
            flip, swap, silent, moved, angle = (_roll(dice) for _ in range(5))
            if swap < 0.5:
                wav = wav.flip(0)
            if moved < mixing.pan:
                side = 2 * angle - 1
                wav = wav * torch.tensor([[1 - max(0.0, side) * 0.8], [1 + min(0.0, side) * 0.8]])
            parts.append(wav * (0.0 if silent < mixing.drop else gain if flip < 0.5 else -gain))
        return resize(torch.stack(parts), length)

    def _place(self, length: int, dice: torch.Generator) -> tuple[int, int]:
        song = int(_roll(dice) * len(self))
        room = self.lengths[song] - length
        if room < 0:
            raise ValueError(f"{self.names[song]} is shorter than a crop of {length / self.rate:.1f} s: crop less")
        return song, int(_roll(dice) * room)


def resize(wav: Tensor, length: int) -> Tensor:
    """Play faster or slower: [..., T] -> [..., length], by cutting or padding the spectrum of the whole."""
    if wav.shape[-1] == length:
        return wav
    spectrum = torch.fft.rfft(wav)
    bins = length // 2 + 1
    spectrum = torch.nn.functional.pad(spectrum, (0, max(0, bins - spectrum.shape[-1])))[..., :bins]
    out: Tensor = torch.fft.irfft(spectrum, n=length) * (length / wav.shape[-1])
    return out


def gather(stems: Mapping[str, Tensor], names: Sequence[str] = STEMS) -> Tensor:
    """Rendered parts by role, each [2, T] -> [N, 2, T]; what has no place of its own is added to the last."""
    if not stems:
        raise ValueError("a song without stems: nothing to separate")
    out = torch.zeros(len(names), *next(iter(stems.values())).shape)
    for role, wav in stems.items():
        out[names.index(role) if role in names else -1] += wav
    return out


def excerpt(piece: Piece, seconds: float) -> Piece:
    """``seconds`` from somewhere inside a piece (decided by its id), as a piece."""
    room = piece.duration - seconds
    if room <= 0:
        return piece
    start = round(splits.unit("excerpt", piece.id) * room, 3)
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
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    at = 0
    part = folder / "stems.i16.part"
    with open(part, "wb") as file:
        for number, piece in enumerate(pieces):
            font = fonts[number % len(fonts)]
            wav = gather(audio_of.render_piece(excerpt(piece, seconds), rate, font))
            # one gain for all stems: their balance is part of the song
            wav = wav * min(1.0, 0.99 / max(1e-9, float(wav.abs().max())))
            data = (wav * 32767.0).round().to(torch.int16).transpose(1, 2).contiguous().numpy().astype("<i2")
            file.write(data.tobytes())
            name = piece.layer if font is None or piece.layer == "builtin" else Path(font).stem
            rows.append({"name": piece.id, "font": name, "start": at, "length": wav.shape[-1]})
            at += data.shape[0] * data.shape[1]
    if not rows:
        part.unlink()
        raise ValueError("no pieces to pack: render some with 'descant render'")
    os.replace(part, folder / "stems.i16")
    header = {"rate": rate, "stems": list(STEMS), "index": rows}
    (folder / "index.json.part").write_text(json.dumps(header), encoding="utf-8")
    os.replace(folder / "index.json.part", folder / "index.json")
    return StemCorpus(folder)


def _roll(dice: torch.Generator) -> float:
    return float(torch.rand((), generator=dice, dtype=torch.float64))
