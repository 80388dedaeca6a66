"""One door to all readers: what kind of data set is this folder, or this file?"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...codec.audio import AudioError
from . import fma, folder, jamendo, manifest, medleydb, moisesdb, musdb, musiccaps, slakh, songdescriber, syntheval
from .clip import ReaderError
from .collection import Collection, Problem
from .labels import Options
from .table import records

#: The kinds :func:`read` knows, in the order in which it looks for them.
KINDS: tuple[str, ...] = (
    "synth-eval", "manifest", "audiocraft", "musdb", "slakh", "moisesdb", "medleydb", "fma", "musiccaps",
    "song-describer", "jamendo", "folder",
)  # fmt: skip
#: Kinds whose clips are listed in a table, which may lie elsewhere.
_TABLED = ("fma", "musiccaps", "song-describer", "jamendo", "manifest", "audiocraft")


def read(
    place: str | os.PathLike[str], kind: str | None = None, *, table: str | os.PathLike[str] | None = None,
    strict: bool = False, links: bool = False,
) -> Collection:  # fmt: skip
    """Read the data set in a folder, or the one a table or manifest lists.

    ``kind`` is one of :data:`KINDS`; without it the layout decides. ``table`` names the file that lists the clips where
    it lies elsewhere. Bad rows are counted and named in ``problems``, with ``strict`` the first is raised; links that
    leave the folder are used with ``links`` only. Raises ReaderError where nothing is recognised, saying what was seen.
    """
    where = Path(place)
    options = Options(strict=strict, links=links, table=None if table is None else Path(table))
    if kind is not None and kind not in KINDS:
        raise ReaderError(f"unknown kind {kind!r}: one of {', '.join(KINDS)}")
    if not where.exists():
        raise ReaderError(f"{where}: no such folder or file; name a data set")
    if options.table is not None and not options.table.is_file():
        raise ReaderError(f"{options.table}: no such file; name the table that lists the clips")
    if where.is_file():
        options, where = replace(options, table=where), where.parent
    found, listed = _kind(where, options, kind)
    if found in _TABLED and listed is None:
        raise ReaderError(f"{where}: holds no table of {found}; name it with table=")
    return _read(found, where, replace(options, table=listed))


def scan(collection: Collection, least: float = 0.0) -> Collection:
    """Open every file: clips that cannot be opened, or are shorter than ``least`` seconds, become problems.

    The others learn their length and rate. Reads headers only, so damage further in is found by reading the sound.
    """
    clips, problems = [], []
    for clip in collection:
        try:
            seconds, rate = clip.duration(), clip.tracks[0].rate()
        except (AudioError, ReaderError, OSError) as error:
            problems.append(Problem(clip.id, " ".join(str(error).split())))
            continue
        if seconds <= 0 or seconds < least:
            problems.append(Problem(clip.id, f"is {seconds:.3g} s long; at least {least:g} s are needed"))
        else:
            clips.append(replace(clip, seconds=seconds, rate=rate))
    return replace(collection, clips=tuple(clips), problems=(*collection.problems, *problems))


def _kind(root: Path, options: Options, kind: str | None) -> tuple[str, Path | None]:
    """The kind and its table."""
    table = options.table
    if kind is not None:
        return kind, table or _table(root, kind)
    if table is not None:
        found = _table_kind(table)
        if found is None:
            raise ReaderError(f"{table}: is no table of {', '.join(_TABLED)}, nor has it a column of paths")
        return found, table
    for name, looks in (
        ("synth-eval", syntheval.looks), ("manifest", None), ("audiocraft", None), ("musdb", musdb.looks),
        ("slakh", slakh.looks), ("moisesdb", moisesdb.looks), ("medleydb", medleydb.looks), ("fma", None),
        ("musiccaps", None), ("song-describer", None), ("jamendo", None), ("folder", folder.looks),
    ):  # fmt: skip
        listed = None if looks is not None else _table(root, name)
        if listed is not None or (looks is not None and looks(root)):
            return name, listed
    raise ReaderError(f"{root}: no known layout; {_seen(root)}. Say kind= one of {', '.join(KINDS)}")


def _read(kind: str, root: Path, options: Options) -> Collection:
    table = options.table or root
    if kind == "manifest":
        return manifest.read(table, options)
    if kind == "audiocraft":
        return manifest.read_audiocraft(table, options)
    if kind == "fma":
        return fma.read(root, table, options)
    if kind == "musiccaps":
        return musiccaps.read(root, table, options)
    if kind == "song-describer":
        return songdescriber.read(root, table, options)
    if kind == "jamendo":
        return jamendo.read(root, table, options)
    plain = {
        "synth-eval": syntheval.read, "musdb": musdb.read, "slakh": slakh.read, "moisesdb": moisesdb.read,
        "medleydb": medleydb.read, "folder": folder.read,
    }  # fmt: skip
    return plain[kind](root, options)


def _table(root: Path, kind: str) -> Path | None:
    """The table of a kind in a folder, at most one level below for those whose audio lies beside it."""
    if kind == "fma":
        return fma.looks(root)
    if kind == "jamendo":
        return jamendo.looks(root)
    if kind in ("manifest", "audiocraft"):
        files = [path for suffix in ("jsonl", "jsonl.gz") for path in sorted(root.glob(f"*.{suffix}"))]
        wanted = "descant" if kind == "manifest" else "audiocraft"
        return next((path for path in files if manifest.looks(path) == wanted), None)
    if kind in ("musiccaps", "song-describer"):
        need = musiccaps.NEED if kind == "musiccaps" else songdescriber.NEED
        files = [*sorted(root.glob("*.csv")), *sorted(root.glob("*/*.csv"))]
        return next((path for path in files if set(need) <= set(_header(path))), None)
    return None


def _table_kind(path: Path) -> str | None:
    """The kind of a table that was named."""
    low = path.name.lower()
    if path.name == syntheval.LABELS and syntheval.looks(path.parent):
        return "synth-eval"
    if low.endswith((".jsonl", ".jsonl.gz")):
        form = manifest.looks(path)
        if form is not None:
            return "manifest" if form == "descant" else "audiocraft"
        return "folder"
    if low.endswith(".tsv"):
        return "jamendo" if _header(path, "\t")[:2] == list(jamendo.HEADER[:2]) else "folder"
    if not low.endswith(".csv"):
        return None
    header = set(_header(path))
    if set(musiccaps.NEED) <= header:
        return "musiccaps"
    if set(songdescriber.NEED) <= header:
        return "song-describer"
    return "fma" if fma.is_table(path) else "folder"


def _header(path: Path, delimiter: str = ",") -> list[str]:
    try:
        first = next(records(path, delimiter), None)
    except ReaderError:
        return []
    return [name.strip() for name in first.values] if first else []


def _seen(root: Path) -> str:
    entries = sorted(root.iterdir())
    folders = [path.name for path in entries if path.is_dir()]
    endings = Counter(path.suffix.lower() or "no suffix" for path in entries if not path.is_dir())
    files = ", ".join(f"{count} {name}" for name, count in endings.most_common(6))
    return f"saw {len(folders)} folders ({_some(folders)}) and {sum(endings.values())} files ({files or 'none'})"


def _some(names: Iterable[str], limit: int = 5) -> str:
    rows = list(names)
    return ", ".join(rows[:limit]) + (", ..." if len(rows) > limit else "") if rows else "none"
