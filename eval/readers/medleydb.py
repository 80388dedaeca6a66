"""MedleyDB: multitracks with a ``_METADATA.yaml`` each; the stems of the mix.

Bittner et al., "MedleyDB: A Multitrack Dataset for Annotation-Intensive MIR Research", 2014.
"""

from __future__ import annotations

from pathlib import Path

from .clip import Clip, ReaderError, Track, inside
from .collection import Collection, Gather
from .labels import Options
from .plainyaml import parse
from .table import load_text


def sheets(root: Path) -> list[Path]:
    """The metadata files, beside the songs or in a folder of their own."""
    return sorted(path for level in ("*", "*/*", "*/*/*") for path in root.glob(f"{level}_METADATA.yaml"))


def looks(root: Path) -> bool:
    """Whether there is any metadata file."""
    return bool(sheets(root))


def read(root: Path, options: Options) -> Collection:
    """The songs; ``extra`` has the instrument of each stem, ``has_bleed`` and ``instrumental``."""
    gather = Gather("MedleyDB", root, options.strict)
    for sheet in sheets(root):
        name = sheet.name.removesuffix("_METADATA.yaml")
        try:
            clip = _clip(sheet, name, root, options.links)
        except ReaderError as error:
            gather.bad(sheet, error)
            gather.lost(name)
            continue
        if clip is None:
            gather.lost(name)
        else:
            gather.add(clip, sheet)
    return gather.done()


def _clip(sheet: Path, name: str, root: Path, links: bool) -> Clip | None:
    about = parse(load_text(sheet))
    song = next(
        (path for path in (sheet.parent, *root.glob(f"*/{name}"), root / name) if (path / f"{name}_MIX.wav").is_file()),
        None,
    )
    if song is None:
        return None
    listed = about.get("stems")
    if not isinstance(listed, dict):
        raise ReaderError("lists no stems")
    stems, classes = {}, {}
    for stem, row in listed.items():
        file = row.get("filename") if isinstance(row, dict) else None
        path = song / f"{name}_STEMS" / str(file)
        if not isinstance(file, str) or "/" in file or not path.is_file() or (not links and inside(path, root) is None):
            raise ReaderError(f"stem {stem}: {file} is missing; unpack the song again")
        stems[stem] = (Track(path),)
        instrument = row.get("instrument")
        classes[stem] = ", ".join(instrument) if isinstance(instrument, list) else str(instrument)
    marks = {key: about.get(key) in ("yes", True) for key in ("has_bleed", "instrumental")}
    return Clip(
        id=name, mix=Track(song / f"{name}_MIX.wav"), stems=stems, genre=about.get("genre") or None,
        artist=about.get("artist") or None, instruments=tuple(dict.fromkeys(classes.values())),
        extra={"title": about.get("title"), "stem_classes": classes, **marks},
    )  # fmt: skip
