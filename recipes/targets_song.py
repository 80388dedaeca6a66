"""One song's targets: codes of its mix and stems, who plays when, its melody twice, and what leaks, in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..codec.audio import to_channels
from ..codec.contract import Codec
from ..gen.melody import Tune
from ..gen.separation.rates import Rate
from ..lm import chroma
from ..lm.chroma_stream import ChromaStream
from . import packed
from .targets_leak import LOWEST, LeakMeter
from .targets_roles import TUNE, pitched
from .targets_sound import Rows

#: A stem plays in a frame when it is louder than this, dB of full scale, ...
FLOOR = -60.0
#: ... and than this, dB of the mix around.
UNDER = -40.0
#: A stem that plays for less than this many seconds in all is not kept.
LEAST = 0.5
#: Seconds over which a stem's level is taken, and the mix's.
_NEAR, _AROUND = 0.2, 1.0
#: A voice that plays this share of the song carries its tune; if it plays less, the next one does.
SINGING = 0.1
#: A frame of the melody that MusicGen would name and that nobody plays.
SILENT = 16


@dataclass(frozen=True)
class Made:
    """What a shard holds: arrays by name, and a record as JSON knows it."""

    arrays: dict[str, np.ndarray]
    record: dict[str, Any]


def make(rows: Rows, codec: Codec, books: int) -> Made:
    """Listen to a song once, block by block, and keep what training needs of it.

    Raises ValueError for a song in which nothing plays.
    """
    song = _Song(rows.roles, codec, books, rows.apart)
    for block in rows.blocks:
        song.push(block)
    return song.finish(rows)


class _Song:
    """Everything that is learned of a song while it comes."""

    def __init__(self, roles: Sequence[str], codec: Codec, books: int, apart: Sequence[str] = ()) -> None:
        self.roles, self.apart, self.codec, self.books = tuple(roles), tuple(apart), codec, books
        count = len(roles) + len(apart)
        self.rate, self.hop = codec.rate, codec.hop
        self.bits = packed.width(codec.cardinality)
        self.encoder = codec.encoder_stream(books)
        self.codes: list[np.ndarray] = []
        self.energy: list[Tensor] = []
        self.tail = torch.zeros(1 + count, 0)
        self.leak = LeakMeter(count, self.rate)
        self.voices = [[place] for role in TUNE for place, name in enumerate(self.roles) if name == role]
        rest = [place for place in pitched(self.roles) if [place] not in self.voices]
        self.voices += [rest] if rest else []
        # the last is the mix, for a recording of a single line
        self.tunes = [Tune(self.rate, codec.frame_rate) for _ in range(len(self.voices) + 1)]
        self.tuned: list[list[Tensor]] = [[] for _ in self.tunes]
        self.inward = Rate(self.rate, chroma.RATE, 1)
        self.chroma = ChromaStream()
        self.classes: list[tuple[Tensor, Tensor]] = []
        self.samples = 0

    def push(self, rows: Tensor) -> None:
        """Take [1 + N + M, 2, t]."""
        if not rows.shape[-1]:
            return
        self.samples += rows.shape[-1]
        wide = torch.stack([to_channels(row, self.codec.channels) for row in rows])
        self._encoded(self.encoder.push(wide))
        mono = rows.mean(1)
        self._heard(rows.square().mean(1))
        self.leak.push(mono[1:])
        for voice, tune, found in zip([*self.voices, None], self.tunes, self.tuned, strict=True):
            line = mono[:1] if voice is None else mono[1:][voice].sum(0, keepdim=True)
            found.append(tune.push(line))
        self.classes.append(self.chroma.push(self.inward.push(self._melodic(mono))[0]))

    def _melodic(self, mono: Tensor) -> Tensor:
        """What MusicGen takes a melody from: everything but drums and bass, [1, t]."""
        return mono[1:][pitched(self.roles)].sum(0, keepdim=True)

    def _encoded(self, codes: Tensor) -> None:
        flat = codes.transpose(1, 2).flatten(0, 1).numpy()
        if len(flat):
            self.codes.append(packed.pack(flat, self.bits).reshape(codes.shape[0], codes.shape[2], -1))

    def _heard(self, square: Tensor) -> None:
        """Mean energy of every whole frame."""
        held = torch.cat([self.tail, square], 1)
        whole = held.shape[1] // self.hop * self.hop
        self.energy.append(held[:, :whole].reshape(len(held), -1, self.hop).mean(2))
        self.tail = held[:, whole:].clone()

    def finish(self, rows: Rows) -> Made:
        """The end of the song."""
        if not self.samples:
            raise ValueError("holds no sound")
        self._encoded(self.encoder.finish())
        if self.tail.shape[1]:
            self.energy.append(self.tail.mean(1, keepdim=True))
        for tune, found in zip(self.tunes, self.tuned, strict=True):
            found.append(tune.finish())
        self.classes += [self.chroma.push(self.inward.finish()[0]), self.chroma.finish()]
        codes = np.concatenate(self.codes, 1)
        frames = codes.shape[1]
        energy = torch.cat(self.energy, 1)[:, :frames].numpy()
        playing = activity(energy, self.codec.frame_rate)
        least = min(LEAST * self.codec.frame_rate, 0.5 * frames)
        kept = [place for place in range(len(self.roles)) if playing[1 + place].sum() >= max(1, least)]
        if not kept:
            raise ValueError("is silent: nothing plays in it")
        single = len(kept) == 1
        if single:
            # a mix that is one stem is that stem: its sound as it is, not what a separator makes of it
            codes[1 + kept[0]] = codes[0]
            playing[1 + kept[0]] = playing[0]
        order = [0, *(1 + place for place in kept)]
        leak = self.leak.finish().numpy()
        arrays = {
            "codes": np.ascontiguousarray(codes[order]),
            "active": np.packbits(playing[order], axis=1),
            "melody": self._tune(playing, single, frames),
            "chroma": self._classes(),
            "leak": leak[:, kept][:, :, kept],
        }
        record = self._record(rows, frames, kept, playing, energy) | {"single": single}
        if self.apart:
            heard, roles = self._found(codes, playing, leak, kept)
            arrays, record = arrays | heard, record | {"apart": roles}
        return Made(arrays, record | {"leak_db": _worst(arrays["leak"], single)})

    def _found(
        self, codes: np.ndarray, playing: np.ndarray, leak: np.ndarray, kept: Sequence[int]
    ) -> tuple[dict[str, np.ndarray], list[str]]:
        """What the separator found, as arrays by name and roles: the rows of it in which something plays."""
        first = len(self.roles)
        rows = [first + place for place in range(len(self.apart)) if playing[1 + first + place].any()]
        places = [1 + row for row in rows]
        arrays = {
            "apart_codes": np.ascontiguousarray(codes[places]), "apart_active": np.packbits(playing[places], axis=1),
            "apart_leak": leak[:, rows][:, :, kept],
        }  # fmt: skip
        return arrays, [self.apart[row - first] for row in rows]

    def _tune(self, playing: np.ndarray, single: bool, frames: int) -> np.ndarray:
        """Hundredths of a semitone, 0 in rests, int16 [F]: of the first voice that plays enough of the song."""
        lines = [torch.cat(found)[:frames].numpy() for found in self.tuned]
        tune = np.full(frames, np.nan, np.float32)
        for voice, line in zip(self.voices, lines, strict=False):
            own = playing[[1 + place for place in voice]].any(0)
            if own.mean() >= SINGING:
                tune = np.where(own, lines[-1] if single else line, np.nan)
                break
        return np.where(np.isnan(tune), 0, np.rint(np.nan_to_num(tune) * 100)).astype(np.int16)

    def _classes(self) -> np.ndarray:
        """MusicGen's pitch classes uint8, with :data:`SILENT` added where what they are taken from does not sound."""
        classes = torch.cat([found for found, _ in self.classes]).numpy().astype(np.uint8)
        levels = torch.cat([level for _, level in self.classes]).numpy()
        return np.where(levels < FLOOR, classes | SILENT, classes).astype(np.uint8)

    def _record(
        self, rows: Rows, frames: int, kept: Sequence[int], playing: np.ndarray, energy: np.ndarray
    ) -> dict[str, Any]:
        levels = 10 * np.log10(np.maximum(energy.mean(1), 1e-12))
        return {
            "frames": frames, "seconds": round(self.samples / self.rate, 3), "kind": rows.kind,
            "stems": [self.roles[place] for place in kept],
            "silent": [role for place, role in enumerate(self.roles) if place not in kept],
            "share": [round(float(playing[1 + place].mean()), 4) for place in kept],
            "level_db": [round(float(levels[place]), 1) for place in (0, *(1 + place for place in kept))],
            "notes": list(rows.notes),
        }  # fmt: skip


def activity(energy: np.ndarray, frame_rate: float) -> np.ndarray:
    """Mean squares of frames [1 + N, F], the mix first -> whether each row plays, bool [1 + N, F]."""
    near = _around(energy, _odd(_NEAR * frame_rate))
    mix = _around(energy[:1], _odd(_AROUND * frame_rate))
    return (near > 10 ** (FLOOR / 10)) & (near > mix * 10 ** (UNDER / 10))


def _around(rows: np.ndarray, size: int) -> np.ndarray:
    """Running means over ``size`` frames, centred, [.., F]; beyond the ends nothing sounds."""
    edge = size // 2
    total = np.cumsum(np.pad(rows, [*[(0, 0)] * (rows.ndim - 1), (edge + 1, edge)]), axis=-1, dtype=np.float64)
    return np.maximum(total[..., size:] - total[..., :-size], 0.0) / size


def _odd(frames: float) -> int:
    return max(1, math.floor(frames / 2) * 2 + 1)


def _worst(leak: np.ndarray, single: bool) -> float | None:
    """The strongest leak between two stems, dB, a mean over the windows; None for a single stem."""
    if single or leak.shape[1] < 2:
        return None
    share = 10 ** (leak.astype(np.float64) / 10)
    mean = share.mean(0) * (1 - np.eye(leak.shape[1]))
    return round(max(float(LOWEST), 10 * math.log10(max(float(mean.max()), 1e-12))), 1)
