"""MTG-Jamendo: tagged Creative Commons tracks, listed in tab-separated files whose last column is several.

Bogdanov et al., "The MTG-Jamendo Dataset for Automatic Music Tagging", 2019.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .clip import Clip, ReaderError, Track
from .collection import Collection, Gather
from .labels import Options
from .songdescriber import locate, track_index
from .table import audio_below, number, plain_lines, unspoilt

HEADER: tuple[str, ...] = ("TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS")
SPLITS: tuple[str, ...] = ("train", "validation", "test")


def looks(root: Path) -> Path | None:
    """The most complete table below the folder, if there is any."""
    found = [
        path for level in ("", "*/", "*/*/", "*/*/*/") for path in sorted(root.glob(f"{level}*.tsv")) if _is_table(path)
    ]
    return max(found, key=lambda path: (path.name == "autotagging.tsv", path.stat().st_size)) if found else None


def read(root: Path, table: Path, options: Options) -> Collection:
    """The tracks of the table whose sound lies below ``root``.

    The split is in the table's own name (``autotagging-test.tsv``), or in the tables of ``splits/split-0`` beside it.
    """
    gather = Gather("MTG-Jamendo", root, options.strict)
    files, outside = audio_below(root, options.links)
    for path in outside:
        gather.bad(path, "is a link that leaves the folder; allow links to use it")
    index, splits = track_index(files), _splits(table)
    own = next((name for name in SPLITS if table.stem.endswith(f"-{name}")), None)
    for line, values in _lines(table):
        where = gather.place(table, line)
        try:
            clip = _clip(values, index, own or splits.get(values[0]))
        except ReaderError as error:
            gather.bad(where, error)
            continue
        if clip.mix is None:
            gather.lost(clip.id)
        else:
            gather.add(clip, where)
    return gather.done(table)


def _clip(values: list[str], index: dict[str, Path], split: str | None) -> Clip:
    unspoilt("".join(values))
    if len(values) < len(HEADER):
        raise ReaderError(f"{len(values)} values; a row has at least {len(HEADER)}")
    track, artist, album, path, duration = values[:5]
    name = track.removeprefix("track_").lstrip("0")
    if not name.isdigit():
        raise ReaderError(f"{track[:40]!r} is no track id such as track_0000214")
    found = locate(index, path, name)
    kinds: dict[str, list[str]] = {}
    for tag in values[5:]:
        kind, sign, word = tag.strip().partition("---")
        if sign:
            kinds.setdefault(kind, []).append(word)
        elif kind:
            raise ReaderError(f"{kind[:40]!r} is no tag such as genre---rock")
    return Clip(
        id=track, mix=None if found is None else Track(found), genre=next(iter(kinds.get("genre", [])), None),
        tags=tuple(f"{kind}: {word}" for kind, words in kinds.items() if kind != "instrument" for word in words),
        instruments=tuple(kinds.get("instrument", ())), split=split, artist=artist or None,
        extra={"album": album, "track_seconds": number(duration, "DURATION"), "genres": kinds.get("genre", [])},
    )  # fmt: skip


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Numbered rows behind the header, split at every tab."""
    for line, text in plain_lines(path):
        values = text.rstrip("\n").split("\t")
        if line == 1:
            if tuple(value.strip() for value in values[: len(HEADER)]) != HEADER:
                raise ReaderError(f"{path}: the header must be {' '.join(HEADER)}, separated by tabs")
        elif text.strip():
            yield line, values


def _is_table(path: Path) -> bool:
    try:
        next(_lines(path), None)
    except ReaderError:
        return False
    return True


def _splits(table: Path) -> dict[str, str]:
    """Track -> split, out of the tables of the first of the five published splits."""
    found: dict[str, str] = {}
    for name in SPLITS:
        path = table.parent / "splits" / "split-0" / f"{table.stem}-{name}.tsv"
        if path.is_file():
            found |= {values[0]: name for _, values in _lines(path)}
    return found
