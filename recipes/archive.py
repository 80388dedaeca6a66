"""Fetching and opening the packages real recordings come in, with nothing but Python and the system's package client.

A Debian package is an ``ar`` file that holds a tar; game music is often a zip inside it (``.pk3``). Neither is trusted:
names that leave the target folder, links, devices and oversized contents never reach the disk.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Literal

#: Refuse to write more than this from one archive: a small file can unpack to any size.
MAX_BYTES = 8 * 2**30
_CHUNK = 2**20
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
_TAR_MODES: dict[str, Literal["r|", "r|gz", "r|bz2", "r|xz"]] = {
    "data.tar": "r|",
    "data.tar.gz": "r|gz",
    "data.tar.bz2": "r|bz2",
    "data.tar.xz": "r|xz",
}


class ArchiveError(ValueError):
    """A package cannot be fetched, is not the file it should be, or must not be unpacked."""


def download(package: str, folder: str | os.PathLike[str], version: str | None = None) -> Path:
    """Fetch ``package`` into ``folder`` with ``apt-get download`` (no root, nothing is installed); return the file.

    Raises ArchiveError where there is no such client, or it does not deliver the version asked for.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = f"{package}={version}" if version else package
    by_hand = f"fetch {wanted} yourself and put the .deb into the folder given as debs"
    if shutil.which("apt-get") is None:
        raise ArchiveError(f"no apt-get on this system: {by_hand}")
    done = subprocess.run(["apt-get", "download", wanted], cwd=folder, capture_output=True, text=True, check=False)
    found = sorted(folder.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
    if done.returncode or not found:
        reason = (done.stderr.strip().splitlines() or ["no file came back"])[-1]
        raise ArchiveError(f"apt-get could not download {wanted} ({reason}): run apt-get update, or {by_hand}")
    return found[-1]


def sha256(path: str | os.PathLike[str]) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def verify(path: str | os.PathLike[str], expected: str) -> None:
    """Raise ArchiveError unless the file's SHA-256 is ``expected``."""
    seen = sha256(path)
    if seen != expected.lower():
        raise ArchiveError(
            f"{Path(path).name} has SHA-256 {seen}, the allow-list says {expected}: delete it and fetch it again; "
            "another version of the package needs its licences read again before it may be listed"
        )


def safe_path(folder: str | os.PathLike[str], name: str) -> Path:
    """Return where member ``name`` goes below ``folder``; raise ArchiveError for a name that would leave it."""
    pure = PurePosixPath(name)
    parts = [part for part in pure.parts if part != "."]
    if not parts or pure.is_absolute() or ".." in parts or "\\" in name or ":" in parts[0] or "\0" in name:
        raise ArchiveError(f"member {name!r} would be written outside the folder: the archive is not to be trusted")
    return Path(folder).joinpath(*parts)


def unpack_deb(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    keep: Callable[[str], bool] | None = None,
    max_bytes: int = MAX_BYTES,
) -> list[Path]:
    """Unpack the regular files of a ``.deb`` for which ``keep(name)`` holds; return their paths.

    ``name`` has no leading ``./``. Links and devices are left out. Reads data.tar, .gz, .bz2 and .xz;
    raises ArchiveError for zstd (not in every Python's library), for unsafe names and broken files.
    """
    with open(path, "rb") as file:
        name, size = _find_data(file, Path(path).name)
        mode = _TAR_MODES.get(name)
        if mode is None:
            raise ArchiveError(
                f"{Path(path).name} holds {name}, which this reader cannot open (it reads .xz, .gz, .bz2): "
                "unpack it with dpkg-deb -x and import the folder instead"
            )
        try:
            # a pipe-like tar: one pass, no member is ever held in memory
            with tarfile.open(fileobj=_Slice(file, size), mode=mode) as tar:
                return _unpack_tar(tar, Path(folder), keep, max_bytes)
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
            raise ArchiveError(f"{Path(path).name} is damaged ({error}): fetch it again") from error


def unpack_zip(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    keep: Callable[[str], bool] | None = None,
    max_bytes: int = MAX_BYTES,
) -> list[Path]:
    """Unpack the regular files of a zip (``.zip``, ``.pk3``) for which ``keep(name)`` holds; return their paths."""
    written: list[Path] = []
    left = max_bytes
    try:
        with zipfile.ZipFile(path) as archive:
            for row in archive.infolist():
                is_link = (row.external_attr >> 16) & 0o170000 == 0o120000
                if row.is_dir() or is_link:
                    continue
                target = safe_path(folder, row.filename)
                if keep is not None and not keep(row.filename):
                    continue
                with archive.open(row) as source:
                    left -= _copy(source, target, left)
                written.append(target)
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise ArchiveError(f"{Path(path).name} is not a readable zip ({error}): fetch it again") from error
    return written


def _unpack_tar(tar: tarfile.TarFile, folder: Path, keep: Callable[[str], bool] | None, left: int) -> list[Path]:
    written: list[Path] = []
    for member in tar:
        if not member.isreg():
            continue
        name = member.name.removeprefix("./")
        target = safe_path(folder, name)
        if keep is not None and not keep(name):
            continue
        source = tar.extractfile(member)
        if source is not None:
            left -= _copy(source, target, left)
            written.append(target)
    return written


def _copy(source: IO[bytes], target: Path, limit: int) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink():
        raise ArchiveError(f"{target} is a link: unpack into an empty folder")
    count = 0
    with open(target, "wb") as out:
        while block := source.read(_CHUNK):
            count += len(block)
            if count > limit:
                raise ArchiveError("the archive unpacks to more than it may: raise max_bytes if that is meant")
            out.write(block)
    return count


def _find_data(file: IO[bytes], name: str) -> tuple[str, int]:
    """Place ``file`` at the start of the data member of an ar file; return the member's name and size."""
    if file.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise ArchiveError(f"{name} is not a Debian package (no ar header)")
    while header := file.read(_AR_HEADER):
        text = header[48:58].strip()
        if len(header) != _AR_HEADER or header[58:] != b"`\n" or not text.isdigit():
            break
        member, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(text)
        if member.startswith("data.tar"):
            return member, size
        file.seek(size + size % 2, os.SEEK_CUR)
    raise ArchiveError(f"{name} is not a whole Debian package (no data.tar in it): fetch it again")


class _Slice(io.RawIOBase):
    """The next ``size`` bytes of ``file`` as a file of their own."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__()
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        take = self._left if size is None or size < 0 else min(size, self._left)
        block = self._file.read(take)
        self._left -= len(block)
        return block
