"""A folder of one's own: sound files anywhere below, with labels in a table, beside the files, or not at all.

* a table (CSV, TSV, JSON lines) with a column ``path`` (or ``file``, ``filename``, ``audio``) and any others;
* without one, every sound file is a clip; ``x.json`` or ``x.txt`` beside ``x.wav`` has its labels or its caption;
* a folder whose sound files are called ``drums``, ``bass``, ``vocals`` and the like is one clip in stems.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from .clip import Clip, ReaderError, Track, inside
from .collection import Collection, Gather
from .labels import PATHS, Options, build, labelled, sidecar
from .table import audio_below, json_rows, load_text, rows

#: File names that make a folder a song in stems.
STEMS: frozenset[str] = frozenset({
    "accompaniment", "backing", "bass", "brass", "chords", "drums", "drums_1", "drums_2", "drums_3", "guitar", "keys",
    "lead", "mallets", "melody", "other", "pad", "percussion", "piano", "pipes", "plucked", "reeds", "rhythm",
    "strings", "synth", "vocals", "voice", "wind",
})  # fmt: skip
MIXES: frozenset[str] = frozenset({"mix", "mixture"})
_TABLES = (".csv", ".tsv", ".jsonl", ".jsonl.gz")


def find_table(root: Path) -> Path | None:
    """The one table at the top of the folder that has a column of paths."""
    for path in sorted(root.iterdir()):
        if path.name.lower().endswith(_TABLES) and path.is_file():
            try:
                first = next(_values(path), None)
            except ReaderError:
                continue
            if first is not None and first[1] is not None and _column(first[1]) is not None:
                return path
    return None


def looks(root: Path) -> bool:
    """Whether there is any sound file below."""
    return bool(audio_below(root, links=True)[0])


def read(root: Path, options: Options) -> Collection:
    """Every clip of the folder; with a table those it lists."""
    table = options.table or find_table(root)
    gather = Gather(root.resolve().name or str(root), root, options.strict)
    if table is not None:
        _from_table(gather, table, options)
        return gather.done(table)
    files, outside = audio_below(root, options.links)
    for path in outside:
        gather.bad(path, "is a link that leaves the folder; allow links to use it")
    songs = _songs(files)
    for song, stems in sorted(songs.items()):
        _guarded(gather, song, lambda song=song, stems=stems: _song(song, stems, root, options))
    loose = [path for path in files if path.parent not in songs]
    names = [path.relative_to(root).with_suffix("").as_posix() for path in loose]
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    for name, path in zip(names, loose, strict=True):
        # two files that differ in their suffix alone keep it
        name = path.relative_to(root).as_posix() if name in twice else name
        _guarded(gather, path, lambda name=name, path=path: _one(name, path, root, options))
    return gather.done()


def _guarded(gather: Gather, where: Path, make: Any) -> None:
    try:
        gather.add(make(), where)
    except (ReaderError, TypeError) as error:
        gather.bad(where, error)


def _one(name: str, path: Path, root: Path, options: Options) -> Clip:
    made = labelled(sidecar(path, root, options.links))
    made.pop("id", None)  # the path is the id: labels may be copied, paths are not
    return build(made, id=name, mix=Track(path))


def _songs(files: list[Path]) -> dict[Path, dict[str, Path]]:
    """Folder -> {stem or mix: file} of the folders that hold nothing but stems and their mix."""
    found: dict[Path, dict[str, Path]] = {}
    for path in files:
        found.setdefault(path.parent, {})[path.stem.lower()] = path
    made = {}
    for folder, parts in found.items():
        known = STEMS | MIXES | ({"song"} if (folder / "song.ini").is_file() else set())
        if set(parts) <= known and len(set(parts) - MIXES) >= 2:
            made[folder] = parts
    return made


def _song(folder: Path, parts: dict[str, Path], root: Path, options: Options) -> Clip:
    mix = next((Track(parts[name]) for name in sorted(MIXES) if name in parts), None)
    # a rhythm game's song.ogg is what is left without the other files
    stems = {("other" if name == "song" else name): (Track(path),) for name, path in parts.items() if name not in MIXES}
    values = sidecar(folder.with_name(f"{folder.name}.wav"), root, options.links) if folder != root else {}
    if (folder / "song.ini").is_file():
        values = {**_song_ini(folder / "song.ini"), **values}
    made = labelled(values)
    made.pop("id", None)
    name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
    return build(made, id=name, mix=mix, stems=stems)


def _song_ini(path: Path) -> dict[str, Any]:
    """Name, artist and genre of a song of Frets on Fire or Clone Hero."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(load_text(path))
        song = next((parser[name] for name in parser.sections() if name.lower() == "song"), None)
    except configparser.Error as error:
        raise ReaderError(f"song.ini: {error}") from error
    if song is None:
        return {}
    named = {"title": song.get("name"), "artist": song.get("artist"), "genre": song.get("genre")}
    return {name: value for name, value in named.items() if value}


def _from_table(gather: Gather, table: Path, options: Options) -> None:
    root = gather.root
    for line, values, problem in _values(table):
        where = gather.place(table, line)
        column = None if values is None else _column(values)
        if values is None or column is None:
            gather.bad(where, problem or f"names no file: one of {', '.join(PATHS)}")
            continue
        try:
            listed = values[column]
            path = _resolve(listed, root, options.links)
            made = labelled({name: value for name, value in values.items() if name != column})
            name = made.pop("id", None) or PurePosixPath(str(listed)).with_suffix("").as_posix()
            if path is None:
                gather.lost(name)
            else:
                gather.add(build(made, id=name, mix=Track(path)), where)
        except (ReaderError, TypeError) as error:
            gather.bad(where, error)


def _resolve(listed: Any, root: Path, links: bool) -> Path | None:
    if not isinstance(listed, str) or not listed.strip() or "\0" in listed:
        raise ReaderError(f"{str(listed)[:60]!r} is no path")
    path = root / listed.strip()
    if not links and inside(path, root) is None:
        raise ReaderError(f"{listed.strip()[:80]} lies outside the folder; allow links to use it")
    return path if path.is_file() else None


def _values(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    if path.name.lower().endswith((".jsonl", ".jsonl.gz")):
        yield from json_rows(path)
        return
    for row in rows(path, (), "\t" if path.suffix.lower() == ".tsv" else ","):
        yield row.line, None if row.problem else dict(row.values), row.problem or ""


def _column(values: dict[str, Any]) -> str | None:
    named = {name.strip().lower(): name for name in values}
    return next((named[name] for name in PATHS if name in named), None)
