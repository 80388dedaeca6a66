"""MUSDB18 (``.stem.mp4``) and MUSDB18-HQ (WAV): 100 + 50 songs in four stems.

Rafii et al., "The MUSDB18 corpus for music separation", 2017. A ``.stem.mp4`` holds five AAC streams: mixture, drums,
bass, other, vocals; listing them needs nothing, reading them needs the package ``av``.
"""

from __future__ import annotations

from pathlib import Path

from .clip import Clip, Track
from .collection import Collection, Gather
from .labels import Options

STEMS: tuple[str, ...] = ("drums", "bass", "other", "vocals")
#: Songs of the training part that everybody validates on.
VALIDATION: frozenset[str] = frozenset({
    "ANiMAL - Rockshow", "Actions - One Minute Smile", "Alexander Ross - Goodbye Bolero",
    "Clara Berry And Wooldog - Waltz For My Victims", "Fergessen - Nos Palpitants", "James May - On The Line",
    "Johnny Lokke - Promises & Lies", "Leaf - Summerghost", "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave", "Skelpolu - Human Mistakes", "Traffic Experiment - Sirens",
    "Triviul - Angelsaint", "Young Griffo - Pennies",
})  # fmt: skip
_FULL = {"train": 100, "test": 50}


def looks(root: Path) -> bool:
    """Whether the folder holds ``train`` or ``test`` with songs of either form."""
    return any((root / part).is_dir() and any(_songs(root / part)) for part in _FULL)


def read(root: Path, options: Options) -> Collection:
    """The songs, split in ``train``, ``validation`` and ``test``; the subset ``train`` is all 100 of that folder."""
    gather = Gather("MUSDB18", root, options.strict)
    counts = {}
    for part in _FULL:
        songs = _songs(root / part) if (root / part).is_dir() else []
        counts[part] = len(songs)
        for song in songs:
            name = song.name.removesuffix(".stem.mp4")
            mix, stems, lost = _parts(song, options.links)
            if lost:
                gather.bad(song, f"{', '.join(lost)} is missing; unpack the song again")
                gather.lost(f"{part}/{name}")
                continue
            artist, _, title = name.partition(" - ")
            split = "validation" if part == "train" and name in VALIDATION else part
            gather.add(
                Clip(id=f"{part}/{name}", mix=mix, stems=stems, split=split, subsets=(part,), artist=artist or None,
                     extra={"title": title or name}),
                song,
            )  # fmt: skip
    short = [f"{counts[part]} of {whole} in {part}" for part, whole in _FULL.items() if counts[part] != whole]
    if short:
        gather.notes.append(f"not the whole set: {', '.join(short)}")
    return gather.done()


def _songs(folder: Path) -> list[Path]:
    def holds(path: Path) -> bool:
        return path.is_dir() and any((path / f"{name}.wav").exists() for name in ("mixture", *STEMS))

    return sorted(path for path in folder.iterdir() if path.name.endswith(".stem.mp4") or holds(path))


def _parts(song: Path, links: bool) -> tuple[Track, dict[str, tuple[Track, ...]], list[str]]:
    """Mixture, stems, and the names of files that are not there."""
    if not song.is_dir():
        lost = [] if song.is_file() and song.stat().st_size else [song.name]
        return Track(song, 0), {name: (Track(song, place),) for place, name in enumerate(STEMS, 1)}, lost
    files = {name: song / f"{name}.wav" for name in ("mixture", *STEMS)}
    lost = [path.name for path in files.values() if not path.is_file()]
    return Track(files["mixture"]), {name: (Track(files[name]),) for name in STEMS}, lost
