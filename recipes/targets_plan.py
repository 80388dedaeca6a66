"""What there is to prepare: songs of a folder or rendered pieces, each with a key of all that decides its shard."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..codec.audio import AudioError
from ..eval import readers
from ..eval.readers import Clip, ReaderError, Track
from ..gen.separation.contract import Separator
from .piece import Piece, read_pieces
from .targets_files import State

#: Raised when what is stored, or how it is computed, changes.
VERSION = 1
_LABELS = ("captions", "genre", "tags", "instruments", "tempo", "key", "chords", "beats", "melody", "split", "artist",
           "licence")  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One song to prepare."""

    id: str
    source: Clip | Piece
    labels: dict[str, Any]
    key: str = ""


@dataclass(frozen=True)
class Plan:
    """Songs in order, and what could not be listed (where, why)."""

    jobs: tuple[Job, ...]
    problems: tuple[tuple[str, str], ...]


def plan(source: str | os.PathLike[str], limit: int | None = None) -> Plan:
    """The songs below a folder, those a table lists, or the pieces of a ``.jsonl.gz``.

    Raises ReaderError where nothing is recognised.
    """
    place = Path(source)
    pieces = [path for path in ([place] if place.is_file() else sorted(place.glob("*.jsonl.gz"))) if _are_pieces(path)]
    if pieces:
        jobs = [Job(piece.id, piece, _piece_labels(piece)) for path in pieces for piece in read_pieces(path)]
        return Plan(tuple(jobs[:limit]), ())
    found = readers.read(place)
    problems = [(item.where, item.reason) for item in found.problems]
    problems += [(name, "is listed and its sound is not there") for name in found.missing]
    jobs = [Job(clip.id, clip, _clip_labels(clip)) for clip in found]
    return Plan(tuple(jobs[:limit]), tuple(problems))


def key_of(
    job: Job, made_with: Mapping[str, Any], state: State, soundfont: Path | None = None, apart: bool = False
) -> str:
    """Name of a song's shard: a hash of its sound and of all that is done to it, 32 hex digits.

    made_with: codec, separator and options. apart: with what the separator
    finds beside true stems. Digests of files are remembered in ``state``. Raises AudioError for files
    that cannot be opened.
    """
    about: dict[str, Any] = {"version": VERSION, "made_with": dict(made_with)}
    if apart:
        about["apart"] = True
    if isinstance(job.source, Piece):
        # labels that do not sound may change
        silent = ("captions", "genre", "style", "key", "chords", "melody", "split", "sources", "id")
        row = {name: value for name, value in asdict(job.source).items() if name not in silent}
        about["piece"] = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()
        if job.source.layer != "builtin" and soundfont is not None:
            about["soundfont"] = _digest(soundfont, state)
    else:
        clip = job.source
        classes = clip.extra.get("stem_classes")
        about["mix"] = _track(clip.mix, state)
        about["stems"] = {name: [_track(track, state) for track in part] for name, part in sorted(clip.stems.items())}
        about["classes"] = classes if isinstance(classes, dict) else None
        about["window"] = [clip.start, clip.end]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def separator_mark(separator: Separator, name: str) -> str:
    """A separator by name and by what decides its sound: its settings, and the weights of its networks."""
    digest = hashlib.sha256(f"{type(separator).__qualname__} {separator.stems} {separator.rate}".encode())
    digest.update(repr(separator.layout).encode())
    for item, value in sorted(_settings(separator)):
        if isinstance(value, nn.Module):
            for weight, tensor in sorted(value.state_dict().items()):
                digest.update(f"{item}.{weight}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(f"{item}={value!r}".encode())
    return f"{name}:{digest.hexdigest()[:16]}"


def _settings(separator: Separator) -> Iterator[tuple[str, Any]]:
    for name, value in vars(separator).items():
        plain = isinstance(value, (str, int, float, bool, tuple)) or value is None
        if plain or isinstance(value, nn.Module):
            yield name, value
        elif is_dataclass(value) and not isinstance(value, type):
            for item in fields(value):
                inner = getattr(value, item.name)
                if isinstance(inner, (str, int, float, bool, tuple)) or inner is None:
                    yield f"{name}.{item.name}", inner


def _are_pieces(path: Path) -> bool:
    """Whether a file's first line is a piece of ``descant render``."""
    if not path.name.endswith(".jsonl.gz"):
        return False
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            row = json.loads(file.readline(1 << 24))
    except (OSError, EOFError, ValueError):
        return False
    return isinstance(row, dict) and {"layer", "stems", "melody", "seed"} <= set(row)


def _track(track: Track | None, state: State) -> list[Any] | None:
    return None if track is None else [_digest(track.path, state), track.stream]


def _digest(path: Path, state: State) -> str:
    """SHA-256 of a file, remembered by its size and time."""
    place = str(path.resolve())
    try:
        seen = path.stat()
        found = state.files.get(place)
        if found and found[:2] == [seen.st_size, seen.st_mtime_ns]:
            return str(found[2])
        total = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise AudioError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from error
    state.files[place] = [seen.st_size, seen.st_mtime_ns, total.hexdigest()]
    return total.hexdigest()


def _clip_labels(clip: Clip) -> dict[str, Any]:
    row = {name: getattr(clip, name) for name in _LABELS}
    row["has_bleed"] = clip.extra.get("has_bleed")
    return _plain({name: value for name, value in row.items() if value not in (None, (), [], False)})


def _piece_labels(piece: Piece) -> dict[str, Any]:
    row = {
        "captions": piece.captions, "genre": piece.genre, "style": piece.style, "instruments": piece.instruments,
        "tempo": piece.tempo, "beats_per_bar": piece.beats_per_bar, "key": piece.key, "chords": piece.chords,
        "melody": piece.melody, "split": piece.split, "sources": piece.sources,
        "parts": {stem.role: stem.instrument for stem in piece.stems},
    }  # fmt: skip
    return _plain(row)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    try:
        made: dict[str, Any] = json.loads(json.dumps(row, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ReaderError(f"labels cannot be stored: {error}") from error
    return made
