"""Prepared targets as a training set: aligned windows of tokens, activity, melodies, leaks and labels.

A folder of ``descant prepare DIR -o SHARDS`` is mapped from disk and takes no memory but its listing; a window reads
its own bytes and no others. Pick a stem that plays as the target, some of the rest as the context, and mind ``leak``
where the stems were separated: a context with traces of the target teaches copying.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..lm import chroma as musicgen
from ..lm.condition import Condition
from ..lm.vocab import canonical_genre, canonical_instrument, canonical_key
from . import packed
from .targets_files import FORMAT, HEADER, read_json, read_songs, shard_path
from .targets_song import SILENT

#: Shards that are held open.
_OPEN = 128


@dataclass(frozen=True, kw_only=True)
class Window:
    """A stretch of a song, everything at the codec's frames."""

    id: str
    kind: str
    """``true``, ``separated`` or ``rendered`` stems."""
    roles: tuple[str, ...]
    """Of the stems, names of :data:`descant.lm.condition.ROLES`."""
    mix: Tensor
    """Codes int64 [K, F]."""
    stems: Tensor
    """Codes int64 [N, K, F]; of a stem that rests these are the codes of silence."""
    active: Tensor
    """bool [N, F]: whether the stem plays."""
    pitch: Tensor
    """float32 [F]: MIDI pitch of the tune at the middle of each frame, NaN in rests."""
    chroma: Tensor
    """float32 [F, 12]: one pitch class per frame as MusicGen's conditioner hears it, zeros where nothing sounds."""
    leak: Tensor
    """float32 [N, N] in dB: the most of stem i's energy that is stem j anywhere in the window; 0 on the diagonal."""
    condition: Condition
    """Labels that hold here, and the tune's pitch classes."""
    apart: Apart | None = None
    """What a separator finds in the mix, where that was kept beside true stems."""


@dataclass(frozen=True, kw_only=True)
class Apart:
    """Separated stems beside the true ones of a window: what is heard when no true stems are at hand."""

    roles: tuple[str, ...]
    stems: Tensor
    """Codes int64 [M, K, F]."""
    active: Tensor
    """bool [M, F]."""
    leak: Tensor
    """float32 [M, N] in dB: the most of separated stem m's energy that is true stem n."""


class TargetSet:
    """The songs of a folder that ``descant prepare`` wrote.

    kinds: which stems to use, of ``true``, ``separated``, ``rendered`` (None: all). split: songs whose label says so.
    Raises FileNotFoundError for a folder without shards and ValueError for one that cannot be read.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, kinds: Collection[str] | None = None, split: str | None = None
    ) -> None:
        self.folder = Path(folder)
        if not (self.folder / HEADER).exists():
            raise FileNotFoundError(f"no targets in {folder}: make them with 'descant prepare DIR -o {folder}'")
        self.mark = read_json(self.folder / HEADER)
        if self.mark.get("format") != FORMAT:
            raise ValueError(f"{folder} is of the format {self.mark.get('format')!r}, not {FORMAT}: prepare it again")
        self.frame_rate = self.mark["rate"] / self.mark["hop"]
        rows = read_songs(self.folder).values()
        self.songs: list[Mapping[str, Any]] = [
            row for row in rows
            if (kinds is None or row["record"]["kind"] in kinds) and split in (None, row["labels"].get("split"))
        ]  # fmt: skip
        if not self.songs:
            raise ValueError(f"{folder} holds no songs of this kind: prepare some, or ask for others")
        self._files: OrderedDict[str, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self.songs)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": OrderedDict()}  # open files do not travel to other processes

    @property
    def hours(self) -> float:
        """Hours of music."""
        return float(sum(row["record"]["seconds"] for row in self.songs)) / 3600

    def frames(self, song: int) -> int:
        """Length of a song in frames of the codec."""
        return int(self.songs[song]["record"]["frames"])

    def window(self, song: int, start: int, frames: int, caption: int = 0) -> Window:
        """Frames ``start`` to ``start + frames`` of a song, fewer where it ends. Raises ValueError if damaged."""
        row = self.songs[song]
        record, stop = row["record"], min(start + frames, self.frames(song))
        if not 0 <= start < stop:
            raise ValueError(f"{row['id']} has {self.frames(song)} frames: none from {start} on")
        file = self._file(str(row["key"]))
        codes = self._codes(file.get_slice("codes")[:, start:stop])
        active = _bits(file, "active", start, stop)[1:]
        cents = torch.from_numpy(file.get_slice("melody")[start:stop].astype(np.float32))
        pitch = torch.where(cents == 0, torch.nan, cents / 100)
        return Window(
            id=str(row["id"]), kind=record["kind"], roles=tuple(record["stems"]), mix=codes[0], stems=codes[1:],
            active=active, pitch=pitch, chroma=self._chroma(file, start, stop),
            leak=self._leak(file, "leak", start, stop),
            condition=self.condition(song, start, stop - start, caption, pitch),
            apart=self._apart(file, record.get("apart", ()), start, stop),
        )  # fmt: skip

    def draw(
        self, count: int, frames: int, rng: torch.Generator, share: slice = slice(None), playing: float = 0.25
    ) -> list[Window]:
        """Random windows, songs by their lengths, some stem playing for ``playing`` of the time wherever that is found.

        A function of the generator's state alone; ``share`` of them are read.
        """
        ends = np.cumsum([self.frames(song) for song in range(len(self))])
        windows: list[Window] = []
        wanted = set(range(count)[share])
        for number in range(count):
            # always as many draws: what one process reads does not move the others
            places = torch.randint(int(ends[-1]), (4,), generator=rng).tolist()
            if number not in wanted:
                continue
            for place in places:
                song = int(np.searchsorted(ends, place, side="right"))
                room = max(0, self.frames(song) - frames)
                start = min(place - int(ends[song - 1] if song else 0), room)
                found = self.window(song, start, frames, caption=place)
                if float(found.active.float().mean(1).max()) >= playing:
                    break
            windows.append(found)
        return windows

    def condition(self, song: int, start: int, frames: int, caption: int, pitch: Tensor | None = None) -> Condition:
        """What is known of a window; names outside the vocabulary are left out. pitch: [F], becomes the melody."""
        labels, at = self.songs[song]["labels"], start / self.frame_rate
        end = at + frames / self.frame_rate + 0.2  # the conditioner looks ahead
        captions = labels.get("captions") or [None]
        chords = [(a - at, b - at, symbol) for a, b, symbol in labels.get("chords", ()) if b > at and a < end]
        tempo = labels.get("tempo")
        values: dict[str, Any] = {
            "text": captions[caption % len(captions)], "genre": _known(canonical_genre, labels.get("genre")),
            "instruments": tuple(
                name for name in (_known(canonical_instrument, item) for item in labels.get("instruments", ())) if name
            ),
            "tempo": tempo if tempo is not None and 20 <= tempo <= 300 else None,
            "key": _known(canonical_key, labels.get("key")),
            "melody": None if pitch is None else _classes(pitch),
        }  # fmt: skip
        if "beats_per_bar" in labels:
            values |= {"beats_per_bar": labels["beats_per_bar"], "beat_offset": -at}
        try:
            return Condition(**values, chords=tuple(chords) or None)
        except ValueError:
            # chords of a data set with symbols of its own
            return Condition(**values)

    def _codes(self, rows: np.ndarray) -> Tensor:
        """Packed [1 + N, F, n] -> int64 [1 + N, K, F]."""
        flat = packed.unpack(rows.reshape(-1, rows.shape[2]), self.mark["books"], self.mark["bits"])
        codes = flat.astype(np.int64).reshape(*rows.shape[:2], -1)
        return torch.from_numpy(codes).transpose(1, 2).contiguous()

    def _chroma(self, file: Any, start: int, stop: int) -> Tensor:
        centres = (np.arange(start, stop) + 0.5) / self.frame_rate
        places = np.rint(centres * musicgen.RATE / musicgen.HOP).astype(int)
        rows = file.get_slice("chroma")
        places = places.clip(0, rows.get_shape()[0] - 1)
        first = int(places[0])
        classes = torch.from_numpy(rows[first : int(places[-1]) + 1][places - first].astype(np.int64))
        return torch.nn.functional.one_hot(classes % SILENT, 12).float() * (classes < SILENT)[:, None]

    def _apart(self, file: Any, roles: Sequence[str], start: int, stop: int) -> Apart | None:
        if not roles:
            return None
        return Apart(
            roles=tuple(roles), stems=self._codes(file.get_slice("apart_codes")[:, start:stop]),
            active=_bits(file, "apart_active", start, stop), leak=self._leak(file, "apart_leak", start, stop),
        )  # fmt: skip

    def _leak(self, file: Any, name: str, start: int, stop: int) -> Tensor:
        rows, per = file.get_slice(name), self.mark["leak_seconds"] * self.frame_rate
        last = rows.get_shape()[0] - 1
        found = rows[min(int(start / per), last) : min(int((stop - 1) / per), last) + 1]
        return torch.from_numpy(found.max(0).astype(np.float32))

    def _file(self, key: str) -> Any:
        from safetensors import SafetensorError, safe_open

        if key not in self._files:
            path = shard_path(self.folder, key)
            try:
                self._files[key] = safe_open(str(path), "np")
            except (OSError, SafetensorError) as error:
                raise ValueError(f"{path} cannot be read ({error}): remove it and prepare the songs again") from None
            if len(self._files) > _OPEN:
                self._files.popitem(last=False)
        self._files.move_to_end(key)
        return self._files[key]


def pick(window: Window, rng: torch.Generator, loudest: float = -15.0) -> tuple[int, tuple[int, ...]]:
    """A target and its context: numbers of stems of a window, drawn at random.

    The target plays for a quarter of the time at least if any stem does; the context is any non-empty part of the other
    stems that play, without those that more than ``loudest`` dB of the target leaks into. It is empty if none is left.
    """
    share = window.active.float().mean(1)
    able = [n for n in range(len(window.roles)) if share[n] >= 0.25] or [int(share.argmax())]
    target = able[int(torch.randint(len(able), (), generator=rng))]
    rest = [n for n in range(len(window.roles)) if n != target and share[n] > 0 and window.leak[n, target] <= loudest]
    return target, _some(rest, rng)


def pick_apart(window: Window, rng: torch.Generator, target: int, loudest: float = -15.0) -> tuple[int, ...]:
    """What to hear of the separated stems while true stem ``target`` is made: any non-empty part of those that play
    and that no more than ``loudest`` dB of the target is in. Empty where there are none."""
    if window.apart is None:
        return ()
    share, leak = window.apart.active.float().mean(1), window.apart.leak[:, target]
    return _some([m for m in range(len(share)) if share[m] > 0 and leak[m] <= loudest], rng)


def _some(rest: Sequence[int], rng: torch.Generator) -> tuple[int, ...]:
    """Any non-empty part, all equally likely."""
    if not rest:
        return ()
    mask = int(torch.randint(1, 1 << len(rest), (), generator=rng))
    return tuple(stem for place, stem in enumerate(rest) if mask >> place & 1)


def _bits(file: Any, name: str, start: int, stop: int) -> Tensor:
    """One bit a frame -> bool [N, stop - start]."""
    low = start // 8
    bits = np.unpackbits(file.get_slice(name)[:, low : -(-stop // 8)], axis=1)
    return torch.from_numpy(bits[:, start - 8 * low : stop - 8 * low].astype(bool))


def _classes(pitch: Tensor) -> Tensor:
    """MIDI pitch [F], NaN in rests -> pitch classes one-hot [F, 12], zeros in rests."""
    rest = pitch.isnan()
    return torch.nn.functional.one_hot(pitch.nan_to_num().round().long() % 12, 12).float() * ~rest[:, None]


def _known(look: Any, name: Any) -> str | None:
    try:
        return None if name is None else str(look(str(name)))
    except ValueError:
        return None
