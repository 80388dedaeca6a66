"""Slakh2100: songs rendered from MIDI with professional instruments, one file a stem, described by a YAML file.

Manilow et al., "Cutting Music Source Separation Some Slakh", 2019. Also its parts: ``redux`` (duplicates under
``omitted``) and BabySlakh (no split, WAV).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .clip import Clip, ReaderError, Track, inside
from .collection import Collection, Gather
from .labels import Options
from .plainyaml import parse
from .table import load_text

SPLITS: tuple[str, ...] = ("train", "validation", "test")


def songs(root: Path) -> list[Path]:
    """Folders ``TrackNNNNN`` with a metadata file, at most three levels below ``root``."""
    levels = ("", "*/", "*/*/")
    return sorted({path.parent for level in levels for path in root.glob(f"{level}Track*/metadata.yaml")})


def looks(root: Path) -> bool:
    """Whether there is any such folder."""
    return bool(songs(root))


def read(root: Path, options: Options) -> Collection:
    """The songs with their rendered stems, named as in the set (``S00``); their classes are in ``extra``.

    Stems that the set itself never rendered are listed in ``extra["unrendered"]``; one that it did render and that is
    not there is a problem. Subset ``omitted``: duplicates of other songs.
    """
    gather = Gather("Slakh2100", root, options.strict)
    for song in songs(root):
        try:
            gather.add(_clip(song, root, options.links), song)
        except ReaderError as error:
            gather.bad(song / "metadata.yaml", error)
            gather.lost(song.name)
    return gather.done()


def _clip(song: Path, root: Path, links: bool) -> Clip:
    about = parse(load_text(song / "metadata.yaml"))
    listed = about.get("stems")
    if not isinstance(listed, dict) or not listed:
        raise ReaderError("lists no stems")
    mix = _sound(song / "mix", root, links)
    if mix is None:
        raise ReaderError("the mix is missing; unpack the song again")
    stems: dict[str, tuple[Track, ...]] = {}
    unrendered = []
    for stem, row in listed.items():
        if not isinstance(row, dict) or "/" in stem:
            raise ReaderError(f"stem {stem} is not described")
        if row.get("audio_rendered") is not True:
            unrendered.append(stem)
            continue
        path = _sound(song / "stems" / stem, root, links)
        if path is None:
            raise ReaderError(f"stem {stem} is said to be rendered and is missing; unpack the song again")
        stems[stem] = (Track(path),)
    kept: dict[str, dict[str, Any]] = {stem: listed[stem] for stem in stems}
    classes = {stem: str(row.get("inst_class")) for stem, row in kept.items()}
    classes |= {stem: "Drums" for stem, row in kept.items() if row.get("is_drum") is True}
    midi = {stem: f"MIDI/{stem}.mid" for stem in stems if (song / "MIDI" / f"{stem}.mid").is_file()}
    above = song.relative_to(root).parts[:-1]
    return Clip(
        id=song.name, mix=Track(mix), stems=stems, split=next((part for part in above if part in SPLITS), None),
        subsets=("omitted",) if "omitted" in above else (), licence="CC-BY-4.0",
        instruments=tuple(dict.fromkeys(str(row.get("midi_program_name")) for row in kept.values())),
        extra={
            "stem_classes": classes, "programs": {stem: row.get("program_num") for stem, row in kept.items()},
            "unrendered": unrendered, "midi": midi, "uuid": about.get("UUID"),
        },
    )  # fmt: skip


def _sound(path: Path, root: Path, links: bool) -> Path | None:
    for suffix in (".flac", ".wav"):
        found = path.with_name(path.name + suffix)
        if found.is_file() and (links or inside(found, root) is not None):
            return found
    return None
