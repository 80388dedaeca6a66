"""A plain folder of music as training data: sound files, and what is known of them where somebody wrote it down.

Captions come from a table (CSV with a column ``file``), or from a file of the same name beside the sound: ``.json``
with ``caption`` and typed labels, or ``.txt`` with a sentence. All of it is optional. Music is encoded once, in takes
of at most a minute, so that memory does not grow with the length of a file.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..codec.contract import Codec
from ..lm.condition import Condition
from ..lm.stereo import interleave
from .loop import stream
from .prepare import fingerprint

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3")
#: What a table or a sidecar may say of a file; other columns and keys are somebody else's and left alone.
LABELS: tuple[str, ...] = ("caption", "genre", "instruments", "tempo", "key", "beats_per_bar")
_TABLE = "captions.csv"
#: Seconds encoded at once.
TAKE = 60.0


@dataclass(frozen=True)
class Song:
    """One sound file and what is known of it."""

    path: Path
    condition: Condition = field(default_factory=Condition)


@dataclass(frozen=True)
class Take:
    """codes [K, F] uint16 of up to a minute of the song with this number."""

    song: int
    codes: np.ndarray


class Takes:
    """Takes of songs with their conditions, drawn as crops."""

    def __init__(self, takes: Sequence[Take], conditions: Sequence[Condition]) -> None:
        if not takes:
            raise ValueError("there is no music to draw from")
        self.takes, self.conditions = list(takes), list(conditions)
        lengths = torch.tensor([float(take.codes.shape[1]) for take in takes])
        self._ends = lengths.cumsum(0)

    def crop(self, take: int, start: int, frames: int) -> tuple[Tensor, Condition]:
        """Codes [K, F] of ``frames`` frames from ``start``, -1 beyond the end, and the song's condition."""
        rows = self.takes[take].codes[:, start : start + frames].astype(np.int64)
        codes = torch.full((len(rows), frames), -1, dtype=torch.long)
        codes[:, : rows.shape[1]] = torch.from_numpy(rows)
        return codes, self.conditions[self.takes[take].song]

    def draw(self, count: int, frames: int, rng: torch.Generator) -> list[tuple[Tensor, Condition]]:
        """Random crops; every second of music is as likely as any other."""
        crops = []
        for place in (torch.rand(count, generator=rng) * self._ends[-1]).tolist():
            take = min(int(torch.searchsorted(self._ends, place, right=True)), len(self.takes) - 1)
            room = max(0, self.takes[take].codes.shape[1] - frames)
            crops.append(self.crop(take, int(torch.randint(room + 1, (), generator=rng)), frames))
        return crops

    def tiles(self, frames: int, most: int) -> list[tuple[Tensor, Condition]]:
        """At most ``most`` crops that do not overlap, spread evenly over all there are."""
        places = [(n, s) for n, take in enumerate(self.takes) for s in range(0, take.codes.shape[1], frames)]
        chosen = places[:: -(-len(places) // most)]
        return [self.crop(take, start, frames) for take, start in chosen]


def find(folder: str | os.PathLike[str], table: str | os.PathLike[str] | None = None) -> list[Song]:
    """The sound files of ``folder`` and below, in order of their names, with what is known of them.

    table: a CSV file; by default ``captions.csv`` in the folder, if there is one. Raises FileNotFoundError when there
    is no music, and ValueError for labels that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO and p.is_file())
    if not paths:
        raise FileNotFoundError(f"{folder} holds no sound files ({' '.join(AUDIO)})")
    source = Path(table) if table is not None else folder / _TABLE
    told: dict[Path, dict[str, str]] = {}
    if table is not None or source.is_file():
        told = _table(source, folder)
        missing = sorted(str(path) for path in told if path not in set(paths))
        if missing:
            raise ValueError(f"{source} names {missing[0]}, which is no sound file of {folder}: mend or drop the row")
    return [Song(path, _condition({**_beside(path), **told.get(path, {})}, path)) for path in paths]


def encode(songs: Sequence[Song], codec: Codec, books: int, channels: int, at: Path, said: Any = None) -> list[Take]:
    """Takes, codes [K, F] each, of ``songs``; kept in the file ``at`` and read from there when nothing has changed.

    channels: 2 interleaves the codes of left and right, as MusicGen's stereo models have them. said: called with each
    song's number and path before it is read. Raises ValueError when ``at`` holds other music.
    """
    mark = _mark(songs, codec, books, channels)
    if at.is_file():
        with np.load(at, allow_pickle=False) as kept:
            if str(kept["mark"]) != mark:
                raise ValueError(f"{at} holds tokens of other files or another codec: choose another folder for -o")
            return [Take(int(song), rows) for song, rows in zip(kept["songs"], _split(kept), strict=True)]
    takes = []
    for number, song in enumerate(songs):
        if said is not None:
            said(number, song.path)
        takes += [Take(number, rows) for rows in _encode(song.path, codec, books, channels)]
    at.parent.mkdir(parents=True, exist_ok=True)
    part = at.with_suffix(".part.npz")
    lengths = [take.codes.shape[1] for take in takes]
    codes = np.concatenate([take.codes for take in takes], 1)
    np.savez(part, mark=mark, songs=[take.song for take in takes], lengths=lengths, codes=codes)
    os.replace(part, at)
    return takes


def held_out(count: int, share: float, seed: int) -> set[int]:
    """Which of ``count`` songs are kept from training: a share of them, at least one. Raises ValueError for one."""
    if count < 2:
        raise ValueError("one file is too few: one is kept back to measure on; cut it into several")
    order = torch.randperm(count, generator=stream(seed, 0, 9)).tolist()
    return set(order[: min(count - 1, max(1, round(count * share)))])


def _encode(path: Path, codec: Codec, books: int, channels: int) -> list[np.ndarray]:
    from ..codec import audio

    rows = []
    for wav in audio.blocks(path, TAKE, codec.rate, max(channels, codec.channels)):
        if wav.shape[1] < codec.hop:
            continue
        with torch.no_grad():
            if channels == 2 and codec.channels == 1:
                left, right = torch.split(codec.encode(wav[:, None], books), 1)
                codes = interleave(left, right)[0]
            else:
                codes = codec.encode(wav[None], books)[0]
        rows.append(codes.cpu().numpy().astype(np.uint16))
    if not rows:
        raise ValueError(f"{path} is shorter than one frame of the codec: take it out of the folder")
    return rows


def _split(kept: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return list(np.split(kept["codes"], np.cumsum(kept["lengths"])[:-1], axis=1))


def _mark(songs: Sequence[Song], codec: Codec, books: int, channels: int) -> str:
    files = [(song.path.name, song.path.stat().st_size, song.path.stat().st_mtime_ns) for song in songs]
    text = json.dumps([files, fingerprint(codec), books, channels])
    return hashlib.sha256(text.encode()).hexdigest()


def _table(path: Path, folder: Path) -> dict[Path, dict[str, str]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table: {error}; write CSV in UTF-8") from None
    if "file" not in (reader.fieldnames or []):
        raise ValueError(f"{path} has no column 'file' in its first line; columns: file, {', '.join(LABELS)}")
    return {folder / (row["file"] or "").strip(): {k: v for k, v in row.items() if k in LABELS and v} for row in rows}


def _beside(path: Path) -> dict[str, Any]:
    sidecar, text = path.with_suffix(".json"), path.with_suffix(".txt")
    if sidecar.is_file():
        try:
            row = json.loads(sidecar.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{sidecar} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f'{sidecar} must hold an object such as {{"caption": "slow blues", "tempo": 72}}')
        return {key: value for key, value in row.items() if key in LABELS and value not in (None, "", [])}
    if text.is_file():
        try:
            return {"caption": " ".join(text.read_text(encoding="utf-8").split())}
        except UnicodeDecodeError as error:
            raise ValueError(f"{text} is no text in UTF-8: {error}") from None
    return {}


def _condition(row: Mapping[str, Any], path: Path) -> Condition:
    instruments = row.get("instruments", ())
    if isinstance(instruments, str):
        instruments = [name.strip() for name in instruments.split(",") if name.strip()]
    try:
        return Condition(
            text=str(row["caption"]) if row.get("caption") else None,
            genre=row.get("genre"),
            instruments=tuple(instruments),
            tempo=float(row["tempo"]) if row.get("tempo") else None,
            beats_per_bar=int(row["beats_per_bar"]) if row.get("beats_per_bar") else None,
            key=row.get("key"),
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the labels of {path.name}: {error}") from None
