"""Collections as files of JSON lines: our own form, and audiocraft's, so that sets move both ways.

Ours: the first line says ``{"schema": "descant-clips/1", ...}``, each other line is a clip; paths are relative to the
file's folder and stay below it. The same collection gives the same bytes.
"""

from __future__ import annotations

import gzip
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...codec.audio import AudioError, info
from .clip import Clip, ReaderError, Track
from .collection import Collection, Gather, dump
from .labels import Options, build, labelled, sidecar
from .table import json_rows

SCHEMA = "descant-clips/1"


def write(collection: Collection, path: str | os.PathLike[str]) -> Path:
    """Write a manifest; ``.gz`` packs it. Raises ReaderError for clips that do not lie below its folder."""
    target = Path(path)
    head = {"schema": SCHEMA, "name": collection.name, "clips": len(collection), "missing": list(collection.missing)}
    head |= {"notes": list(collection.notes)} if collection.notes else {}
    rows = [dump(clip.to_row(target.parent)) for clip in collection]
    _put(target, "".join(f"{line}\n" for line in (dump(head), *rows)))
    return target


def read(path: Path, options: Options) -> Collection:
    """Read :func:`write`'s file. Clips whose files are gone count as missing."""
    lines = json_rows(path)
    head = next(lines, None)
    if head is None or head[1] is None or head[1].get("schema") != SCHEMA:
        raise ReaderError(f'{path}: is no manifest; its first line must say "schema": "{SCHEMA}"')
    gather = Gather(str(head[1].get("name", path.stem)), path.parent, options.strict)
    for name in head[1].get("missing") or ():
        gather.lost(str(name))
    for line, row, problem in lines:
        where = gather.place(path, line)
        try:
            clip = Clip.from_row(row, path.parent) if row is not None else None
        except ReaderError as error:
            gather.bad(where, error)
            continue
        if clip is None:
            gather.bad(where, problem)
        elif not clip.tracks or not all(track.path.is_file() for track in clip.tracks):
            gather.lost(clip.id)
        else:
            gather.add(clip, where)
    made = gather.done(path)
    if len(made) + len(made.missing) + len(made.problems) < int(head[1].get("clips") or 0):
        made = replace(made, notes=(*made.notes, f"the manifest announces {head[1]['clips']} clips: it was cut short"))
    return made


def looks(path: Path) -> str | None:
    """``descant`` or ``audiocraft`` for a manifest of that form."""
    try:
        first = next(json_rows(path), None)
    except ReaderError:
        return None
    row = first[1] if first else None
    if row is None:
        return None
    if row.get("schema") == SCHEMA:
        return "descant"
    return "audiocraft" if {"path", "duration", "sample_rate"} <= set(row) else None


def write_audiocraft(collection: Collection, path: str | os.PathLike[str], sidecars: bool = False) -> Path:
    """Write audiocraft's ``data.jsonl`` (or ``.jsonl.gz``), with absolute paths as its readers need them.

    ``sidecars`` writes the labels beside each sound file, as its music data sets read them; a file that is there
    already is left and refused. Raises ReaderError for clips that are no whole file, which the form cannot say.
    """
    target = Path(path)
    lines = []
    for clip in collection:
        if clip.path is None or clip.start or clip.end is not None:
            raise ReaderError(f"clip {clip.id} is not one whole file; audiocraft's form lists whole files only")
        about = info(clip.path)
        lines.append(dump({
            "path": str(clip.path.resolve()), "duration": about.duration, "sample_rate": about.rate, "amplitude": None,
            "weight": None, "info_path": None,
        }))  # fmt: skip
        if sidecars:
            beside = clip.path.with_suffix(".json")
            if beside.exists():
                raise ReaderError(f"{beside} is there already; move it away, or write without sidecars")
            _put(beside, dump(_music(clip, about.rate, about.duration)) + "\n")
    _put(target, "".join(f"{line}\n" for line in lines))
    return target


def read_audiocraft(path: Path, options: Options) -> Collection:
    """Read a ``data.jsonl``: its files, with the labels beside them.

    Paths may be absolute, as that form has them; relative ones are taken from the manifest's folder.
    """
    found: list[tuple[str, str, Path | None, dict[str, Any]]] = []
    bad: list[tuple[int, str]] = []
    for line, row, problem in json_rows(path):
        listed = row.get("path") if row is not None else None
        if not isinstance(listed, str) or not listed or "\0" in listed:
            bad.append((line, problem or "names no path"))
            continue
        named = path.parent / listed
        found.append((listed, str(line), named if named.is_file() else None, row or {}))
    there = [file.resolve().parent for _, _, file, _ in found if file is not None]
    root = Path(os.path.commonpath([path.resolve().parent, *there])) if there else path.parent.resolve()
    gather = Gather(path.resolve().parent.name, root, options.strict)
    listing = path.name
    for line, problem in bad:
        gather.bad(f"{listing}:{line}", problem)
    for listed, place, file, row in found:
        if file is None:
            gather.lost(listed)
            continue
        path = file.resolve()
        try:
            made = labelled(sidecar(path, root, links=True))
            made.pop("id", None)
            known = labelled({name: row[name] for name in ("duration", "sample_rate") if name in row})
            name = path.relative_to(root).with_suffix("").as_posix()
            fields = {**made, **known, "extra": made["extra"]}
            gather.add(build(fields, id=name, mix=Track(path)), f"{listing}:{place}")
        except (ReaderError, AudioError, TypeError) as error:
            gather.bad(f"{listing}:{place}", error)
    return gather.done()


def _music(clip: Clip, rate: int, seconds: float) -> dict[str, Any]:
    """The labels in the words of audiocraft's music data set."""
    return {
        "key": clip.key or "", "artist": clip.artist or "", "sample_rate": rate,
        "file_extension": clip.path.suffix.lstrip(".") if clip.path else "", "description": clip.caption or "",
        "keywords": ", ".join(clip.tags), "duration": seconds, "bpm": clip.tempo or "", "genre": clip.genre or "",
        "title": str(clip.extra.get("title", "")), "name": clip.id, "instrument": ", ".join(clip.instruments),
        "moods": [],
    }  # fmt: skip


def _put(path: Path, text: str) -> None:
    """Write a text so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        # a fixed time: the same lines give the same bytes
        part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
