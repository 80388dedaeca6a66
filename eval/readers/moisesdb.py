"""MoisesDB: 240 songs, each stem the sum of several recordings, described by a ``data.json``.

Pereira et al., "MoisesDB: A dataset for source separation beyond 4-stems", 2023 (CC BY-NC-SA 4.0). Recordings of a song
differ in length; the shortest decides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .clip import Clip, ReaderError, Track, inside
from .collection import Collection, Gather
from .labels import Options
from .table import load_json


def songs(root: Path) -> list[Path]:
    """Folders of songs: those with a ``data.json`` that lists stems, at most two levels below ``root``."""
    found = [path.parent for level in ("*", "*/*") for path in root.glob(f"{level}/data.json")]
    return sorted(found)


def looks(root: Path) -> bool:
    """Whether the first ``data.json`` below is a song's."""
    for song in songs(root)[:3]:
        try:
            return isinstance(load_json(song / "data.json").get("stems"), list)
        except ReaderError:
            continue
    return False


def read(root: Path, options: Options) -> Collection:
    """The songs by their folders' names. ``extra`` says which stems bleed and what each was recorded of."""
    gather = Gather("MoisesDB", root, options.strict)
    for song in songs(root):
        try:
            gather.add(_clip(song, root, options.links), song)
        except ReaderError as error:
            gather.bad(song / "data.json", error)
            gather.lost(song.name)
    return gather.done()


def _clip(song: Path, root: Path, links: bool) -> Clip:
    about = load_json(song / "data.json")
    listed = about.get("stems")
    if not isinstance(listed, list) or not listed:
        raise ReaderError("lists no stems")
    stems: dict[str, tuple[Track, ...]] = {}
    kinds: dict[str, list[str]] = {}
    bleed = []
    for stem in listed:
        name, tracks = _stem(stem)
        for track in tracks:
            path = song / name / f"{_word(track, 'id')}.{_word(track, 'extension')}"
            if not path.is_file() or (not links and inside(path, root) is None):
                raise ReaderError(f"{path.relative_to(song).as_posix()} is missing; unpack the song again")
            stems[name] = (*stems.get(name, ()), Track(path))
            kinds.setdefault(name, []).append(str(track.get("trackType", "")))
            if track.get("has_bleed") is True and name not in bleed:
                bleed.append(name)
    if not stems:
        raise ReaderError("lists stems without any recording")
    return Clip(
        id=song.name, stems=stems, genre=_maybe(about.get("genre")), artist=_maybe(about.get("artist")),
        instruments=tuple(stems), licence="CC-BY-NC-SA-4.0",
        extra={"title": str(about.get("song", "")), "recordings": kinds, "has_bleed": bleed},
    )  # fmt: skip


def _stem(stem: Any) -> tuple[str, list[dict[str, Any]]]:
    tracks = stem.get("tracks") if isinstance(stem, dict) else None
    if not isinstance(tracks, list) or not all(isinstance(track, dict) for track in tracks):
        raise ReaderError("a stem has no list of tracks")
    return _word(stem, "stemName"), tracks


def _word(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value or any(letter in value for letter in "/\\\0") or value in (".", ".."):
        raise ReaderError(f"{name} is {str(value)[:40]!r}; it must be one plain name")
    return value


def _maybe(value: Any) -> str | None:
    return value.strip() or None if isinstance(value, str) else None
