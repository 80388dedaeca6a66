"""FMA: the Free Music Archive's tracks, a table with two header rows, files named by zero-padded numbers.

Defferrard et al., "FMA: A Dataset for Music Analysis", 2017. A few files of the published archives are cut short or
empty; :meth:`descant.eval.readers.scan` finds them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .clip import Clip, ReaderError, Track
from .collection import Collection, Gather
from .labels import Options
from .table import Record, audio_below, number, records, rows

#: Each contains those before it.
SUBSETS: tuple[str, ...] = ("small", "medium", "large", "full")
_NEED = (("set", "split"), ("set", "subset"), ("track", "genre_top"), ("track", "title"), ("artist", "name"))


def looks(root: Path) -> Path | None:
    """The table, if the folder holds one with the two header rows."""
    for path in (root / "fma_metadata" / "tracks.csv", root / "tracks.csv", *root.glob("*/tracks.csv")):
        if path.is_file() and _header(path) is not None:
            return path
    return None


def is_table(path: Path) -> bool:
    """Whether a file begins with the two header rows."""
    return _header(path) is not None


def read(root: Path, table: Path, options: Options) -> Collection:
    """The tracks whose sound lies below ``root``.

    Missing are those of the subset that a folder ``fma_small`` ... ``fma_full`` says is here; without such a folder
    nobody knows what should be, and nothing counts as missing.
    """
    gather = Gather("FMA", root, options.strict)
    header = _header(table)
    if header is None:
        raise ReaderError(f"{table}: is not FMA's tracks.csv, whose first two rows name the columns")
    files, outside = audio_below(root, options.links)
    for path in outside:
        gather.bad(path, "is a link that leaves the folder; allow links to use it")
    index = {path.stem: path for path in files if re.fullmatch(r"\d{6}", path.stem)}
    here = [name for name in SUBSETS if (root / f"fma_{name}").is_dir()]
    wanted = SUBSETS[: SUBSETS.index(here[-1]) + 1] if here else ()
    if not here:
        gather.notes.append("no folder fma_small, fma_medium, fma_large or fma_full: what is missing is not known")
    genres = _genres(table.with_name("genres.csv"))
    lines = records(table)
    next(lines), next(lines)
    for record in lines:
        where = gather.place(table, record.line)
        if record.values[:1] == ["track_id"]:  # a third row names the index
            continue
        try:
            clip, subset = _clip(record, header, index, genres)
        except ReaderError as error:
            gather.bad(where, error)
            continue
        if clip.mix is not None:
            gather.add(clip, where)
        elif subset in wanted or wanted == SUBSETS:
            gather.lost(clip.id)
    return gather.done(table)


def _header(path: Path) -> dict[tuple[str, str], int] | None:
    """Place of each column, named by both rows; None for another kind of table."""
    try:
        found = records(path)
        upper, lower = next(found, None), next(found, None)
    except ReaderError:
        return None
    if upper is None or lower is None or upper.problem or lower.problem:
        return None
    places = {pair: place for place, pair in enumerate(zip(upper.values, lower.values, strict=False))}
    return places if all(pair in places for pair in _NEED) else None


def _clip(
    record: Record, header: dict[tuple[str, str], int], index: dict[str, Path], genres: dict[str, str]
) -> tuple[Clip, str]:
    if record.problem or len(record.values) <= max(header.values()):
        raise ReaderError(record.problem or f"{len(record.values)} values for {max(header.values()) + 1} columns")

    def value(group: str, name: str) -> str:
        return record.values[header[group, name]].strip() if (group, name) in header else ""

    if not re.fullmatch(r"\d{1,6}", record.values[0]):
        raise ReaderError(f"{record.values[0][:40]!r} is no track number")
    name = record.values[0].zfill(6)
    subset = value("set", "subset")
    path = index.get(name)
    listed = re.findall(r"\d+", value("track", "genres_all") or value("track", "genres"))
    extra: dict[str, Any] = {"title": value("track", "title"), "album": value("album", "title")}
    seconds = number(value("track", "duration"), "duration")
    if seconds:
        extra["track_seconds"] = seconds
    return Clip(
        id=name, mix=None if path is None else Track(path), genre=value("track", "genre_top") or None,
        tags=tuple(genres.get(number_, number_) for number_ in listed),
        split={"training": "train"}.get(value("set", "split"), value("set", "split")) or None,
        subsets=SUBSETS[SUBSETS.index(subset) :] if subset in SUBSETS else ("full",),
        artist=value("artist", "name") or None, licence=value("track", "license") or None, extra=extra,
    ), subset  # fmt: skip


def _genres(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    return {row.values["genre_id"]: row.values["title"] for row in rows(path, ("genre_id", "title")) if not row.problem}
