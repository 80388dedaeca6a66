"""Song Describer: captions by listeners for two-minute excerpts of Creative Commons tracks, several to a track.

Manco et al., "The Song Describer Dataset", 2023. The table says ``34/1004034.mp3``; the file is
``audio/34/1004034.2min.mp3``. One clip is one track.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from .clip import Clip, ReaderError, Track
from .collection import Collection, Gather
from .labels import Options, without_singing
from .table import audio_below, number, rows, truth

NEED: tuple[str, ...] = ("caption_id", "track_id", "caption", "is_valid_subset", "path")


def read(root: Path, table: Path, options: Options) -> Collection:
    """The tracks of the table whose sound lies below ``root``.

    Subsets of captions: ``valid`` (checked by a second person), ``no-singing`` (by words). A track is in a subset when
    one of its captions is; :meth:`Collection.select` keeps those captions alone.
    """
    gather = Gather("Song Describer", root, options.strict)
    files, outside = audio_below(root, options.links)
    for path in outside:
        gather.bad(path, "is a link that leaves the folder; allow links to use it")
    index = track_index(files)
    tracks: dict[str, list[tuple[str, dict[str, str]]]] = {}
    seen: set[str] = set()
    for row in rows(table, NEED):
        where = gather.place(table, row.line)
        if row.problem:
            gather.bad(where, row.problem)
        elif row.values["caption_id"] in seen:
            gather.bad(where, f"caption {row.values['caption_id']} is there already; the first one stays")
        elif not row.values["track_id"].strip().isdigit() or not row.values["caption"].strip():
            gather.bad(where, "needs a track_id (a number) and a caption")
        else:
            seen.add(row.values["caption_id"])
            tracks.setdefault(row.values["track_id"].strip(), []).append((where, row.values))
    for track, captions in tracks.items():
        try:
            clip = _clip(track, [values for _, values in captions], index)
        except ReaderError as error:
            gather.bad(captions[0][0], error)
            continue
        if clip.mix is None:
            gather.lost(track)
        else:
            gather.add(clip, captions[0][0])
    return gather.done(table)


def track_index(files: list[Path]) -> dict[str, Path]:
    """``34/1004034`` -> file, whatever the suffix and with or without ``.2min`` or ``.low``; also by number alone."""
    found: dict[str, Path] = {}
    for path in files:
        stem = path.stem.removesuffix(".2min").removesuffix(".low")
        found.setdefault(f"{path.parent.name}/{stem}", path)
        found.setdefault(stem, path)
    return found


def locate(index: dict[str, Path], listed: str, track: str) -> Path | None:
    """The file for a table's path, or else for the track's number."""
    path = PurePosixPath(listed.strip())
    return index.get(f"{path.parent.name}/{path.stem}") or index.get(track)


def _clip(track: str, captions: list[dict[str, str]], index: dict[str, Path]) -> Clip:
    first = captions[0]
    marks = []
    for row in captions:
        here = {"valid": truth(row["is_valid_subset"]), "no-singing": without_singing(row["caption"])}
        marks.append(tuple(name for name, true in here.items() if true))
    path = locate(index, first["path"], track)
    length = number(first.get("duration"), "duration")
    extra = {
        "caption_ids": [row["caption_id"] for row in captions], "album": first.get("album_id"),
        "familiarity": [row.get("familiarity", "") for row in captions], "track_seconds": length,
    }  # fmt: skip
    return Clip(
        id=track, mix=None if path is None else Track(path), artist=first.get("artist_id") or None,
        captions=tuple(" ".join(row["caption"].split()) for row in captions), caption_subsets=tuple(marks),
        subsets=tuple(name for name in ("valid", "no-singing") if any(name in mark for mark in marks)),
        extra={name: value for name, value in extra.items() if value},
    )  # fmt: skip
