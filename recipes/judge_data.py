"""Data of the judge: pieces rendered stem by stem and kept as powers, mixed anew whenever a batch is drawn.

Powers of stems add up to the power of their mix, but for interference. So a clip drawn twice has other levels, other
parts missing, sometimes a part of another piece: what is heard varies far more than what was rendered.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..codec.contract import Codec
from ..eval.judge_ear import HOP, RATE, SLOW, Heard, hear
from ..lm.vocab import FAMILIES, FAMILY, GENRES, INSTRUMENTS, KEYS
from .audio_of import mixdown, render_piece
from .clips import degrade
from .judge_captions import Known, caption
from .piece import Piece

#: Centres of the tempo classes, BPM: six an octave.
TEMPI: tuple[float, ...] = tuple(round(55 * 2 ** (step / 6), 1) for step in range(13))
#: A stem below this share of the mix's power is not heard.
AUDIBLE = 10**-3.5
_TINY = 1e-9
_RATIO = SLOW // HOP


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips with labels; -1 or a row of -1 where a label is unknown."""

    heard: Heard
    genre: Tensor
    """[B]."""
    instrument: Tensor
    """[B, I], 0 or 1."""
    family: Tensor
    """[B, families], 0 or 1."""
    lead: Tensor
    """[B]."""
    key: Tensor
    """[B]."""
    tempo: Tensor
    """BPM [B]."""
    captions: list[str]
    """Empty where nothing whole can be said."""


def prepare(
    pieces: Iterable[Piece], out: str | os.PathLike[str], soundfont: str | os.PathLike[str] | None = None,
    codec: Codec | None = None, progress: Callable[[int], None] | None = None, seed: int = 0,
) -> int:  # fmt: skip
    """Render pieces and write ``out``/NUMBER.safetensors for each; every other one with a damaged mix beside it.

    A codec, where given, is among the damages, so that its traces do not pass for an instrument. Files that are there
    are kept: a stopped call can be given again. Returns the number of pieces.
    """
    from safetensors.torch import save_file

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for number, piece in enumerate(pieces):
        target = folder / f"{number:05d}.safetensors"
        if not target.exists():
            rng = torch.Generator().manual_seed(seed * 1_000_003 + number)
            tables = _powers(piece, soundfont, codec if number % 2 else None, rng, bool(number % 2))
            part = target.with_suffix(".part")
            save_file(tables, part, metadata={"piece": piece.to_json()})
            os.replace(part, target)
        count += 1
        if progress is not None:
            progress(count)
    if not count:
        raise ValueError("no pieces to learn from: name a file of pieces made by 'descant render'")
    return count


def _powers(
    piece: Piece, soundfont: str | os.PathLike[str] | None, codec: Codec | None, rng: torch.Generator, spoil: bool
) -> dict[str, Tensor]:
    stems = render_piece(piece, RATE, soundfont)
    heard = hear(torch.stack([stems[stem.role].mean(dim=0) for stem in piece.stems]))
    out = {"mel": _kept(heard.mel), "semitones": _kept(heard.semitones)}
    if spoil:
        spoilt = hear(degrade(mixdown(stems).mean(dim=0), rng, codec)[None])
        out |= {"spoilt_mel": _kept(spoilt.mel[0]), "spoilt_semitones": _kept(spoilt.semitones[0])}
    return out


def _kept(power: Tensor) -> Tensor:
    return (power + _TINY).log10().half().contiguous()


class JudgeSet:
    """A folder of :func:`prepare`."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from safetensors import safe_open

        self.files = sorted(Path(folder).glob("*.safetensors"))
        if not self.files:
            raise FileNotFoundError(f"no data of a judge in {folder}: make it with 'descant prepare judge'")
        self.pieces: list[Piece] = []
        for file in self.files:
            with safe_open(file, "pt") as tables:
                self.pieces.append(Piece.from_json((tables.metadata() or {})["piece"]))

    def draw(self, count: int, seconds: float, rng: torch.Generator) -> Batch:
        """``count`` random clips, mixed anew."""
        items = [self._mixed(seconds, rng) for _ in range(count)]
        return _together(items)

    def clip(self, index: int, start: float, seconds: float, spoilt: bool = False) -> Batch:
        """One clip as it was rendered, or damaged (where the piece has that)."""
        piece, tables = self.pieces[index], self._read(index, start, seconds, spoilt)
        return _together([_item(piece, tables, torch.ones(len(piece.stems)), random.Random(index), spoilt)])

    def has_spoilt(self, index: int) -> bool:
        """Whether a piece has a damaged copy."""
        from safetensors import safe_open

        with safe_open(self.files[index], "pt") as tables:
            return "spoilt_mel" in tables.keys()  # noqa: SIM118 - not a mapping

    def _mixed(self, seconds: float, rng: torch.Generator) -> _Item:
        def unit() -> float:
            return float(torch.rand((), generator=rng))

        index = int(torch.randint(len(self.files), (), generator=rng))
        piece, draw = self.pieces[index], random.Random(int(torch.randint(2**31, (), generator=rng)))
        start = unit() * (piece.duration - seconds)
        if unit() < 0.3 and self.has_spoilt(index):
            return _item(piece, self._read(index, start, seconds, True), torch.ones(len(piece.stems)), draw, True)
        tables = self._read(index, start, seconds)
        gains = 10 ** (0.1 * (torch.randn(len(piece.stems), generator=rng) * 2.5))
        keep = torch.rand(len(piece.stems), generator=rng) > 0.15
        gains = gains * (keep if bool(keep.any()) else torch.ones_like(keep))
        item = _item(piece, tables, gains, draw)
        if unit() < 0.15:
            other = int(torch.randint(len(self.files), (), generator=rng))
            guest = self.pieces[other]
            one = (torch.arange(len(guest.stems)) == draw.randrange(len(guest.stems))).float()
            place = unit() * (guest.duration - seconds)
            item = item.joined(_item(guest, self._read(other, place, seconds), one, draw), 10 ** (unit() - 0.7))
        return item.coloured(rng)

    def _read(self, index: int, start: float, seconds: float, spoilt: bool = False) -> tuple[Tensor, Tensor]:
        """Powers of stems [N, 128, F] and [N, 72, G] of a window, on the grid of the slow frames."""
        from safetensors import safe_open

        first, length = round(start * RATE / SLOW), round(seconds * RATE / SLOW)
        prefix = "spoilt_" if spoilt else ""
        with safe_open(self.files[index], "pt") as tables:
            mel, semitones = tables.get_slice(f"{prefix}mel"), tables.get_slice(f"{prefix}semitones")
            first = min(first, semitones.get_shape()[-1] - length)
            fast, slow = slice(first * _RATIO, (first + length) * _RATIO), slice(first, first + length)
            pair = (
                (mel[:, fast][None], semitones[:, slow][None]) if spoilt else (mel[:, :, fast], semitones[:, :, slow])
            )
        one, two = ((10 ** part.float() - _TINY).clamp(min=0).reshape(-1, *part.shape[-2:]) for part in pair)
        return one, two


@dataclass(frozen=True, kw_only=True)
class _Item:
    mel: Tensor
    semitones: Tensor
    instruments: frozenset[str]
    genre: str | None
    lead: str | None
    key: str | None
    tempo: float
    caption: str

    def joined(self, guest: _Item, gain: float) -> _Item:
        """With a part of another piece: only the instruments can still be named."""
        level = float(self.mel.mean()) / max(1e-12, float(guest.mel.mean()))
        if level > 1e6 or level <= 0 or not guest.instruments:
            return self
        scale = gain * level
        return _Item(
            mel=self.mel + scale * guest.mel, semitones=self.semitones + scale * guest.semitones,
            instruments=self.instruments | guest.instruments, genre=None, lead=None, key=None, tempo=-1.0, caption="",
        )  # fmt: skip

    def coloured(self, rng: torch.Generator) -> _Item:
        """Through a random equaliser, over a random floor of noise, now and then with a hole in time or pitch."""
        bands, frames = self.mel.shape
        curve = torch.nn.functional.interpolate(
            torch.randn(1, 1, 6, generator=rng) * 0.3, size=bands, mode="linear", align_corners=True
        )[0, 0]
        mel = self.mel * (10**curve)[:, None]
        if float(torch.rand((), generator=rng)) < 0.3:
            floor = 10 ** float(-2.5 - 2.5 * torch.rand((), generator=rng))
            mel = mel + floor * mel.mean() * (0.5 + torch.rand(bands, frames, generator=rng))
        wide, start = (int(torch.randint(high, (), generator=rng)) for high in (12, bands))
        mel[start : start + wide] = mel[start : start + wide] * 1e-3
        return _Item(**{**self.__dict__, "mel": mel})


def _item(
    piece: Piece, powers: tuple[Tensor, Tensor], gains: Tensor, draw: random.Random, whole: bool = False
) -> _Item:
    """A clip of the stems with power gains [N]; ``whole``: the powers are those of the mix already."""
    mel, semitones = powers
    if whole:
        shares = torch.ones(len(piece.stems))
    else:
        each = mel.mean(dim=(1, 2)) * gains
        shares = each / each.sum().clamp(min=1e-12)
        mel, semitones = mel * gains[:, None, None], semitones * gains[:, None, None]
    audible = [stem for stem, share in zip(piece.stems, shares.tolist(), strict=True) if share > AUDIBLE]
    names = tuple(dict.fromkeys(stem.instrument for stem in audible))
    lead = next((stem.instrument for stem in audible if stem.role == "lead"), None)
    # without half of its parts a piece may be of any genre
    full = len(audible) * 2 > len(piece.stems)
    genre = piece.genre if full else None
    absent = [name for name in ("drums", "bass") if not any(stem.role == name for stem in audible)]
    known = Known(
        genre=genre, instruments=names, absent=absent, lead=lead, tempo=piece.tempo, key=piece.key,
        beats=piece.beats_per_bar,
    )  # fmt: skip
    return _Item(
        mel=mel.sum(dim=0), semitones=semitones.sum(dim=0), instruments=frozenset(names), genre=genre, lead=lead,
        key=piece.key if full else None, tempo=piece.tempo, caption=caption(known, draw) if names else "",
    )  # fmt: skip


def _together(items: Sequence[_Item]) -> Batch:
    def index(table: Sequence[str], names: Sequence[str | None]) -> Tensor:
        return torch.tensor([-1 if name is None else table.index(name) for name in names])

    families = [{FAMILY[name] for name in item.instruments} for item in items]
    return Batch(
        heard=Heard(
            mel=torch.stack([item.mel for item in items]), semitones=torch.stack([item.semitones for item in items])
        ),
        genre=index(GENRES, [item.genre for item in items]),
        instrument=torch.tensor([[float(name in item.instruments) for name in INSTRUMENTS] for item in items]),
        family=torch.tensor([[float(name in row) for name in FAMILIES] for row in families]),
        lead=index(INSTRUMENTS, [item.lead for item in items]),
        key=index(KEYS, [item.key for item in items]),
        tempo=torch.tensor([item.tempo for item in items]),
        captions=[item.caption for item in items],
    )


def tempo_targets(tempo: Tensor) -> Tensor:
    """BPM [B] -> shares of the two nearest classes [B, classes]; zeros where unknown."""
    place = (6 * torch.log2(tempo.clamp(min=1) / TEMPI[0])).clamp(0, len(TEMPI) - 1)
    distance = (place[:, None] - torch.arange(len(TEMPI))).abs()
    return (1 - distance).clamp(min=0) * (tempo > 0)[:, None]
