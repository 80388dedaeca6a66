"""Shards of generator targets on disk: one safetensors file a song, named by what it was made of.

``SHARDS/targets.json`` says which codec, separator and options; ``SHARDS/songs/ab/ab12...safetensors`` holds a song
and its record; ``SHARDS/songs.jsonl.gz`` lists the songs with their labels; ``SHARDS/state.json`` remembers which files
were read and which could not be. Every file appears whole or not at all, so a killed run leaves nothing half-made.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..codec.sink import whole_file

#: The layout of the folder.
FORMAT = "descant-targets/1"
HEADER, SONGS, STATE = "targets.json", "songs.jsonl.gz", "state.json"


@dataclass
class State:
    """What earlier runs learned: digests of files by (size, time), and songs that cannot be used."""

    files: dict[str, list[Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def shard_path(folder: Path, key: str) -> Path:
    """Where the shard of a key lies."""
    return folder / "songs" / key[:2] / f"{key}.safetensors"


def write_shard(folder: Path, key: str, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> int:
    """Write a song, whole or not at all -> bytes. Raises OSError when the disk is full."""
    from safetensors.numpy import save

    path = shard_path(folder, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    # one entry: the format keeps no order among several, and equal songs shall give equal bytes
    about = {"descant": json.dumps({"format": FORMAT, "record": dict(record)}, sort_keys=True)}
    data = save({name: np.ascontiguousarray(value) for name, value in arrays.items()}, about)
    with whole_file(path) as part:
        part.write_bytes(data)
    return len(data)


def read_record(path: Path) -> dict[str, Any] | None:
    """The record inside a shard; None for a file that is no shard of this format."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "np") as file:
            about = json.loads((file.metadata() or {})["descant"])
            record = about["record"] if about["format"] == FORMAT else None
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def claim(folder: Path, header: Mapping[str, Any]) -> None:
    """Write ``targets.json``, or check that the one there says the same. Raises ValueError saying what differs."""
    path = folder / HEADER
    if not path.exists():
        write_json(path, header)
        return
    found = read_json(path)
    wrong = [name for name in header if found.get(name) != header[name]]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{folder} holds targets made with another {name} ({found.get(name)!r}, now {header[name]!r}): "
            "choose another folder"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ValueError for a file that holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}); remove it and run the command again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not of this program; choose another folder")
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_songs(folder: Path) -> dict[str, dict[str, Any]]:
    """Key -> row of the listing; nothing where there is none yet or it is damaged."""
    rows: dict[str, dict[str, Any]] = {}
    try:
        with gzip.open(folder / SONGS, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                rows[str(row["key"])] = row
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return rows
    return rows


def write_songs(folder: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the listing, sorted by id and key: equal rows give equal bytes."""
    ordered = sorted(rows.values(), key=lambda row: (str(row["id"]), str(row["key"])))
    with (
        whole_file(folder / SONGS) as part,
        open(part, "wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file,
    ):
        for row in ordered:
            file.write(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")


def read_state(folder: Path) -> State:
    """What earlier runs learned; nothing where that is lost."""
    try:
        found = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return State(dict(found["files"]), dict(found["failed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return State()


def write_state(folder: Path, state: State) -> None:
    """Keep what was learned."""
    write_json(folder / STATE, {"files": state.files, "failed": state.failed})


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder for one run; a killed run lets go. What it left under temporary names is removed.

    Raises ValueError while another run holds it. Where the system has no such locks, nothing is checked or removed.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"another run is writing into {folder}: wait for it, or choose another folder") from None
        for part in [*folder.glob(".*.safetensors"), *folder.glob("songs/*/.*"), *folder.glob(".*-*.*")]:
            with contextlib.suppress(OSError):
                part.unlink()
        yield


def size_of(folder: Path, key: str) -> int:
    """Bytes of a shard; 0 if there is none."""
    try:
        return os.stat(shard_path(folder, key)).st_size
    except OSError:
        return 0
