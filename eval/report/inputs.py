"""What is given beside the sound: captions and labels, from one file of any usual layout or from a file per clip.

A table is CSV, TSV, JSON or JSON lines with a column that names the clip (``file``, ``clip``, ``name`` or ``path``) and
any of ``caption``, ``tempo``, ``key``, ``genre``, ``instruments`` and ``melody``; a sidecar is ``clip.txt`` (its
caption) or ``clip.json`` (the same names) beside the clip. Entries and clips that have no partner are named and
counted, never passed over.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..embed import SUFFIXES

_CLIP = ("file", "clip", "path", "filename", "file_name", "audio", "name", "id")
#: name of a field -> what else it is called
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "caption": ("caption", "prompt", "text", "description"),
    "tempo": ("tempo", "bpm"),
    "key": ("key",),
    "genre": ("genre", "genres", "style"),
    "instruments": ("instruments", "instrument"),
    "melody": ("melody",),
}
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class About:
    """What is known of a clip."""

    caption: str | None = None
    tempo: float | None = None
    key: str | None = None
    genre: str | None = None
    instruments: tuple[str, ...] = ()
    melody: str | None = None
    """File with the melody that was given."""

    def conditions(self) -> dict[str, str]:
        """What the clip was asked for beside its caption, as text."""
        found = {"tempo": None if self.tempo is None else f"{self.tempo:g} BPM", "key": self.key, "genre": self.genre,
                 "instruments": ", ".join(self.instruments) or None, "melody": self.melody}  # fmt: skip
        return {name: text for name, text in found.items() if text}


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Entries that found their clips, and what was left over."""

    source: str
    about: Mapping[str, About] = field(default_factory=dict)
    """clip -> what is known of it."""
    without: tuple[str, ...] = ()
    """Clips that no entry names."""
    spare: tuple[str, ...] = ()
    """Entries whose clip is not there."""

    def notes(self) -> tuple[str, ...]:
        """What was left over, in words."""
        found = []
        if self.without and self.about:
            found.append(f"{len(self.without)} clips are not named in {self.source}: {some(self.without)}")
        if self.spare:
            found.append(f"{len(self.spare)} entries of {self.source} have no clip: {some(self.spare)}")
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Counts and names for the report."""
        return {"source": self.source, "clips": len(self.about), "without": list(self.without),
                "spare": list(self.spare)}  # fmt: skip


def some(names: Iterable[str]) -> str:
    """The first few names of many."""
    listed = list(names)
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")


def read_table(path: str | os.PathLike[str]) -> dict[str, About]:
    """A table of captions and labels by entry name, in its order. Raises ValueError naming the place of a mistake."""
    where = Path(path)
    if not where.is_file():
        raise ValueError(f"{where}: no such file; name a .csv, .tsv, .json or .jsonl file")
    try:
        text = where.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    rows = _rows(where, text)
    found: dict[str, About] = {}
    for place, row in rows:
        name = next((str(row[key]) for key in _CLIP if row.get(key) not in (None, "")), None)
        if name is None:
            raise ValueError(f"{where}: {place} names no clip; it needs a column {' or '.join(_CLIP[:4])}")
        if name in found:
            raise ValueError(f"{where}: {place} names {name} again; give every clip one entry")
        found[name] = about(row, f"{where}: {place}", where.parent)
    if not found:
        raise ValueError(f"{where}: holds no entry; it needs a clip and a caption or labels in each")
    return found


def match(source: str, table: Mapping[str, About], clips: Iterable[str]) -> Matched:
    """Entries by clip: the same path with or without suffix, else a file name that only one clip has."""
    names = set(clips)
    short: dict[str, list[str]] = {}
    for name in names:
        short.setdefault(_bare(name).rpartition("/")[2], []).append(name)
    found: dict[str, About] = {}
    spare = []
    for entry, item in table.items():
        plain = entry.replace("\\", "/").removeprefix("./")
        same_name = short.get(_bare(plain).rpartition("/")[2], [])
        hits = [name for name in (plain, _bare(plain)) if name in names] or (same_name if len(same_name) == 1 else [])
        if not hits or hits[0] in found:
            spare.append(entry)
        else:
            found[hits[0]] = item
    return Matched(source=source, about=found, without=tuple(sorted(names - set(found))), spare=tuple(spare))


def sidecars(source: str, files: Mapping[str, Path]) -> Matched:
    """What lies beside the clips: ``clip.txt`` and ``clip.json``. A label of the latter wins over the former."""
    found: dict[str, About] = {}
    for name, path in files.items():
        row: dict[str, Any] = {}
        beside, labels = path.with_suffix(".txt"), path.with_suffix(".json")
        if beside.is_file():
            row["caption"] = beside.read_text(encoding="utf-8", errors="replace").strip()
        if labels.is_file():
            try:
                table = json.loads(labels.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{labels}: is no JSON ({error}); mend it or take it away") from error
            row |= table if isinstance(table, dict) else {}
        if row:
            found[name] = about(row, str(labels if labels.is_file() else beside), path.parent)
    return Matched(source=source, about=found, without=tuple(sorted(set(files) - set(found))))


def about(row: Mapping[str, Any], where: str, folder: Path) -> About:
    """One entry; files in it are relative to ``folder``. Raises ValueError for a tempo that is no number."""
    row = {str(name).strip().lower(): value for name, value in row.items()}
    # what 'descant generate --json' reports: what was asked for, else what was chosen
    for inner in ("chosen", "asked", "labels"):
        if isinstance(row.get(inner), Mapping):
            row |= {name: value for name, value in row[inner].items() if value not in (None, "", [])}
    table = {name: next((row[key] for key in keys if row.get(key) not in (None, "", [])), None)
             for name, keys in _FIELDS.items()}  # fmt: skip
    tempo = table["tempo"]
    if tempo is not None:
        try:
            tempo = float(str(tempo).lower().removesuffix("bpm"))
        except ValueError:
            raise ValueError(f"{where}: the tempo is {tempo!r}; write beats a minute, such as 120") from None
        if not 0 < tempo < 1000:
            raise ValueError(f"{where}: the tempo is {tempo:g}; write beats a minute, such as 120")
    melody = None if table["melody"] is None else str((folder / str(table["melody"])).resolve())
    return About(
        caption=_text(table["caption"]), tempo=tempo, key=_text(table["key"]), genre=_text(table["genre"]),
        instruments=_list(table["instruments"]), melody=melody,
    )  # fmt: skip


def _rows(where: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    suffix = where.suffix.lower()
    if suffix in (".csv", ".tsv"):
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ",")
        if not {str(name).strip().lower() for name in reader.fieldnames or ()} & set(_CLIP):
            raise ValueError(
                f"{where}: its columns are {', '.join(reader.fieldnames or ()) or 'none'}; one must be called "
                f"{' or '.join(_CLIP[:4])}"
            )
        return [(f"line {reader.line_num}", {str(k).strip().lower(): v for k, v in row.items()}) for row in reader]
    if suffix == ".jsonl":
        lines = [(place, line) for place, line in enumerate(text.splitlines(), 1) if line.strip()]
        return [(f"line {place}", _object(where, f"line {place}", line)) for place, line in lines]
    if suffix == ".json":
        return _json_rows(where, text)
    raise ValueError(f"{where}: is {suffix or 'without a suffix'}; use .csv, .tsv, .json or .jsonl")


def _json_rows(where: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    try:
        table = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: is no JSON ({error})") from error
    if isinstance(table, dict):
        inner = next((table[key] for key in ("clips", "results") if isinstance(table.get(key), list | dict)), None)
        table = table if inner is None else inner
    if isinstance(table, dict):
        return [
            (f"entry {name}", {"clip": name, **(row if isinstance(row, dict) else {"caption": row})})
            for name, row in table.items()
        ]
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        raise ValueError(f"{where}: is neither a list of objects nor an object of clips")
    return [(f"entry {place}", {str(k).lower(): v for k, v in row.items()}) for place, row in enumerate(table, 1)]


def _object(where: Path, place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: {place} is no JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: {place} is {type(row).__name__}, not an object")
    return {str(name).lower(): value for name, value in row.items()}


def _bare(name: str) -> str:
    """A name without the suffix of an audio file."""
    root, dot, suffix = name.rpartition(".")
    return root if dot and f".{suffix.lower()}" in SUFFIXES else name


def _text(value: Any) -> str | None:
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return None if value is None or not str(value).strip() else str(value).strip()


def _list(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    parts = value if isinstance(value, list | tuple) else str(value).replace(";", ",").split(",")
    return tuple(str(part).strip() for part in parts if str(part).strip())
