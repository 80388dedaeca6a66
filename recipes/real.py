"""Real recordings with known licences: allow-lists, fetching, conversion, and the credits they oblige us to give.

Every track is named one by one in ``real_free.json`` (MIT, public domain, CC0, CC-BY: weights trained on it may be
shipped) or ``real_sharealike.json`` (CC-BY-SA: evaluation only), with package, version and SHA-256. Nothing is taken
by pattern, so a new package version never brings a new licence in unread.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from . import archive

#: Tier -> allow-list beside this module.
TIERS: Mapping[str, str] = {"free": "real_free.json", "sharealike": "real_sharealike.json"}
#: Licences under which weights trained on a track may be shipped.
SHIPPABLE = ("MIT", "public-domain", "CC0-1.0", "CC-BY-3.0", "CC-BY-4.0")
#: Role in an allow-list -> folder.
FOLDERS: Mapping[str, str] = {"train": "train", "dev": "dev", "test": "test", "eval-only": "test_sa"}
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
#: Where the text of each licence can be read.
LICENCE_URLS = {
    "MIT": "https://opensource.org/license/mit",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
}
_HEADROOM = 0.98


@dataclass(frozen=True, kw_only=True)
class Track:
    """One allowed recording inside a package; ``stems`` (name -> file) sum to it when it is given as parts."""

    package: str
    version: str
    file: str
    licence: str
    author: str
    title: str
    role: str
    evidence: str
    stems: Mapping[str, str]

    @property
    def name(self) -> str:
        """File name without suffix: ``package__track``."""
        return f"{self.package}__{_slug(Path(self.file).stem if not self.stems else self.file)}"


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package of an allow-list: where it is, what it must hash to, and the tracks that may be taken from it."""

    name: str
    version: str
    file: str
    sha256: str
    archive: str | None
    root: str
    tracks: tuple[Track, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One converted file: a line of ``manifest.json``. ``stem`` is ``mix`` for whole recordings."""

    path: str
    split: str
    stem: str
    seconds: float
    licence: str
    author: str
    title: str
    package: str
    version: str
    source: str
    evidence: str
    caption: str = ""


def packages(tier: str = "free") -> tuple[Package, ...]:
    """Read a tier's allow-list. Raises ValueError for an unknown tier or a role its licence does not allow."""
    if tier not in TIERS:
        raise ValueError(f"unknown tier {tier!r}: choose one of {', '.join(TIERS)}")
    body = json.loads((Path(__file__).parent / TIERS[tier]).read_text(encoding="utf-8"))
    return tuple(_package(row) for row in body["packages"])


def tracks(tier: str = "free") -> tuple[Track, ...]:
    """Every track of a tier, in allow-list order."""
    return tuple(track for package in packages(tier) for track in package.tracks)


def fetch(
    out: str | os.PathLike[str],
    tier: str | Sequence[str] = "free",
    debs: str | os.PathLike[str] | None = None,
    rate: int = 32000,
) -> list[Row]:
    """Fetch, verify, unpack and convert a tier (or several) to mono 16-bit FLAC under ``out``.

    Writes ``out/{train,dev,test,test_sa}/package__track.flac``, ``manifest.json`` and ``ATTRIBUTION.md``; a file that
    is already there is kept. ``debs`` holds packages fetched earlier (default: ``out/packages``); missing ones come
    through the system's package client. Tracks given as stems become the mix and ``package__track__stem.flac`` parts
    that sum to it. Returns the rows of the manifest. Raises ArchiveError when a package is not to be had or is not the
    listed one.
    """
    out = Path(out)
    store = Path(debs) if debs is not None else out / "packages"
    chosen = (tier,) if isinstance(tier, str) else tuple(tier)
    rows: list[Row] = []
    for package in [package for name in chosen for package in packages(name)]:
        if all(path.exists() for track in package.tracks for path in _targets(track, out).values()):
            rows += [row for track in package.tracks for row in _rows(track, out, rate)]
            continue
        deb = store / package.file
        if not deb.exists():
            deb = archive.download(package.name, store, package.version)
        archive.verify(deb, package.sha256)
        with tempfile.TemporaryDirectory(dir=_made(out)) as scratch:
            root = _open(deb, package, Path(scratch))
            for track in package.tracks:
                _convert(track, root, out, rate)
                rows += _rows(track, out, rate)
    write_manifest(out, rows, rate)
    return rows


def from_folder(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    licence: str,
    author: str,
    rate: int = 32000,
) -> list[Row]:
    """Convert a folder of the user's own recordings to the same layout, manifest and credits as :func:`fetch`.

    The split is a hash of the top-level sub-folder (an artist or an album), or of the file's own name where there is
    none, so that neighbours never straddle it: 90 % train, 5 % dev, 5 % test. A caption is read from ``track.txt``
    beside ``track.wav``. Raises ValueError when there is no audio.
    """
    source, out = Path(source), Path(out)
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())
    if not files:
        raise ValueError(f"no audio below {source}: looked for {', '.join(AUDIO_SUFFIXES)}")
    rows = []
    for path in files:
        relative = path.relative_to(source)
        share = zlib.crc32(relative.parts[0].encode()) / 2**32
        split = "train" if share < 0.9 else "dev" if share < 0.95 else "test"
        target = out / split / f"own__{_slug(str(relative.with_suffix('')))}.flac"
        if not target.exists():
            _store(target, _mono(path, rate), rate)
        note = path.with_suffix(".txt")
        rows.append(
            Row(
                path=target.relative_to(out).as_posix(),
                split=split,
                stem="mix",
                seconds=_seconds(target, rate),
                licence=licence,
                author=author,
                title=path.stem,
                package="own",
                version="",
                source=relative.as_posix(),
                evidence="stated by the user",
                caption=note.read_text("utf-8").strip() if note.exists() else "",
            )
        )
    write_manifest(out, rows, rate)
    return rows


def write_manifest(out: str | os.PathLike[str], rows: Sequence[Row], rate: int) -> None:
    """Write ``manifest.json`` and ``ATTRIBUTION.md`` into ``out``."""
    out = _made(Path(out))
    body = {"rate": rate, "hours": hours(rows), "rows": [asdict(row) for row in rows]}
    _write_text(out / "manifest.json", json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    _write_text(out / "ATTRIBUTION.md", attribution(rows))


def read_manifest(out: str | os.PathLike[str]) -> list[Row]:
    """Read the rows :func:`write_manifest` wrote."""
    body: dict[str, Any] = json.loads((Path(out) / "manifest.json").read_text(encoding="utf-8"))
    return [Row(**row) for row in body["rows"]]


def hours(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Hours of whole recordings by split and licence."""
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.stem == "mix":
            line = table.setdefault(row.split, {})
            line[row.licence] = line.get(row.licence, 0.0) + row.seconds / 3600
    return {split: {name: round(value, 4) for name, value in line.items()} for split, line in table.items()}


def attribution(rows: Iterable[Row]) -> str:
    """The credits as a Markdown table: what CC-BY and MIT ask of whoever ships something made from these recordings."""
    lines = [
        "# Recordings and their authors",
        "",
        "Changes made to every recording: mixed down to one channel, resampled, stored as FLAC.",
        "",
        "| title | author | licence | package | file | used for |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.stem == "mix":
            url = LICENCE_URLS.get(row.licence)
            licence = f"[{row.licence}]({url})" if url else row.licence
            cells = (row.title, row.author, licence, f"{row.package} {row.version}".strip(), row.source, row.split)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _package(row: Mapping[str, Any]) -> Package:
    listed = []
    for item in row["tracks"]:
        track = Track(
            package=row["package"], version=row["version"], file=item["file"], licence=item["licence"],
            author=item["author"], title=item["title"], role=item["role"],
            evidence=item.get("evidence", row["evidence"]), stems=item.get("stems", {}),
        )  # fmt: skip
        if track.role not in FOLDERS or (track.role != "eval-only" and track.licence not in SHIPPABLE):
            raise ValueError(
                f"{track.package}: {track.file} stands as {track.role!r} under {track.licence}; only "
                f"{', '.join(SHIPPABLE)} may train, tune or test shipped weights, everything else is 'eval-only'"
            )
        listed.append(track)
    return Package(
        name=row["package"], version=row["version"], file=row["file"], sha256=row["sha256"], archive=row["archive"],
        root=row["root"], tracks=tuple(listed),
    )  # fmt: skip


def _open(deb: Path, package: Package, scratch: Path) -> Path:
    """Unpack what the allow-list names and return the folder the track files are relative to."""
    wanted = {f"{package.root}/{name}" for track in package.tracks for name in (track.stems.values() or (track.file,))}
    if package.archive is None:
        archive.unpack_deb(deb, scratch, wanted.__contains__)
    else:
        inner = archive.unpack_deb(deb, scratch / "deb", lambda name: name == package.archive)
        if not inner:
            raise archive.ArchiveError(f"{deb.name} does not hold {package.archive}: the allow-list is out of date")
        archive.unpack_zip(inner[0], scratch, wanted.__contains__)
    missing = sorted(name for name in wanted if not (scratch / name).is_file())
    if missing:
        raise archive.ArchiveError(f"{deb.name} lacks {', '.join(missing)}: the allow-list is out of date")
    return scratch / package.root


def _targets(track: Track, out: Path) -> dict[str, Path]:
    """Where the mix and every stem of a track are stored."""
    folder = out / FOLDERS[track.role]
    stems = {stem: folder / f"{track.name}__{_slug(stem)}.flac" for stem in track.stems}
    return {"mix": folder / f"{track.name}.flac", **stems}


def _convert(track: Track, root: Path, out: Path, rate: int) -> None:
    targets = _targets(track, out)
    if not track.stems:
        _store(targets["mix"], _mono(root / track.file, rate), rate)
        return
    parts = {stem: _mono(root / file, rate) for stem, file in track.stems.items()}
    total = np.zeros(max(len(wave) for wave in parts.values()), np.float32)
    for wave in parts.values():
        total[: len(wave)] += wave
    parts["mix"] = total
    # one gain for the mix and its parts, so that the stored parts still sum to the stored mix
    gain = min(_gain(wave) for wave in parts.values())
    for stem, wave in parts.items():
        _store(targets[stem], wave, rate, gain)


def _rows(track: Track, out: Path, rate: int) -> list[Row]:
    sources = {"mix": " + ".join(track.stems.values()) or track.file, **track.stems}
    return [
        Row(
            path=path.relative_to(out).as_posix(),
            split=path.parent.name,
            stem=stem,
            seconds=_seconds(path, rate),
            licence=track.licence,
            author=track.author,
            title=track.title,
            package=track.package,
            version=track.version,
            source=sources[stem],
            evidence=track.evidence,
        )
        for stem, path in _targets(track, out).items()
    ]


def _gain(wave: NDArray[np.float32]) -> float:
    # resampling and summing overshoot full scale: turn down rather than clip
    return min(1.0, _HEADROOM / max(float(np.abs(wave).max(initial=0.0)), 1e-9))


def _store(target: Path, wave: NDArray[np.float32], rate: int, gain: float | None = None) -> None:
    """Write a wave [T] as 16-bit FLAC, whole or not at all."""
    _made(target.parent)
    part = target.with_name(target.name + ".part")
    soundfile.write(part, wave * (_gain(wave) if gain is None else gain), rate, format="FLAC", subtype="PCM_16")
    os.replace(part, target)


def _seconds(path: Path, rate: int) -> float:
    seen = soundfile.info(path)
    if seen.samplerate != rate:
        raise ValueError(f"{path} has {seen.samplerate} Hz, {rate} is asked for: choose an empty output folder")
    return round(float(seen.frames) / float(seen.samplerate), 3)


def _mono(path: Path, rate: int) -> NDArray[np.float32]:
    """A file's channels averaged and resampled to ``rate``: float32 [T]."""
    with soundfile.SoundFile(path) as file:
        # averaged block by block: the stereo signal is never in memory as a whole
        blocks = [block.mean(axis=1) for block in file.blocks(2**18, dtype="float32", always_2d=True)]
        wave = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
        return np.asarray(soxr.resample(wave, file.samplerate, rate, quality="HQ"), dtype=np.float32)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_text(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
