"""Tables and JSON from strangers: read row by row, a bad row named by its line and left out, the rest read on.

The files may be large, damaged or hostile: nothing is read whole but small JSON files, no line and no row may grow
without bound, and a quote that never closes costs one row instead of the rest of the file.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from .clip import ReaderError

#: Characters of one row at most, all its lines together, and of one JSON file.
LONGEST_ROW, LONGEST_FILE = 1 << 20, 1 << 24
#: Characters of one field at most: the limit of Python's csv module, which is global and left alone.
_LONGEST_FIELD = 131_072
#: Files whose audio may be meant; used where a folder is searched for sound.
AUDIO: tuple[str, ...] = (".aif", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav")


@dataclass(frozen=True)
class Row:
    """Line number of its beginning, and the values by column; or why there are none."""

    line: int
    values: dict[str, str]
    problem: str | None = None


def rows(path: Path, need: Sequence[str] = (), delimiter: str = ",") -> Iterator[Row]:
    """The rows of a table with one header row; quoted values may hold line breaks.

    Raises ReaderError for a file that cannot be opened or whose header lacks a column of ``need``.
    """
    found = records(path, delimiter)
    head = next(found, None)
    names = [] if head is None else [name.strip() for name in head.values]
    lost = [name for name in need if name not in names]
    if not names or lost or (head is not None and head.problem):
        seen = ", ".join(names)[:200] or "nothing"
        raise ReaderError(f"{path}: the header must name {', '.join(need) or 'the columns'}; it says {seen}")
    if len(set(names)) < len(names):
        raise ReaderError(f"{path}: the header names a column twice: {', '.join(names)[:200]}")
    for record in found:
        if record.problem is None and len(record.values) != len(names):
            problem = f"{len(record.values)} values for {len(names)} columns"
            yield Row(record.line, {}, problem)
        else:
            yield Row(record.line, dict(zip(names, record.values, strict=False)), record.problem)


@dataclass(frozen=True)
class Record:
    """One row of a table without names."""

    line: int
    values: list[str]
    problem: str | None = None


def records(path: Path, delimiter: str = ",", width: int | None = None) -> Iterator[Record]:
    """The rows of a comma or tab separated file, by RFC 4180. ``width`` is how many values a row must have.

    Without it the first row decides. A row over several lines that does not fit is taken apart again: its first line
    is the bad one.
    """
    with _text(path) as file:
        lines = _lines(file)
        waiting: deque[tuple[int, str]] = deque()
        while True:
            taken: list[tuple[int, str]] = []
            size, odd, whole = 0, False, False
            while not whole:
                line = waiting.popleft() if waiting else next(lines, None)
                if line is None:
                    break
                taken.append(line)
                size += len(line[1])
                odd ^= line[1].count('"') % 2 == 1
                whole = not odd
                if size > LONGEST_ROW:
                    break
            if not taken:
                return
            values, problem = _parse(taken, delimiter, whole)
            if len(taken) > 1 and (problem or (width is not None and len(values) != width)):
                waiting.extendleft(reversed(taken[1:]))
                yield Record(taken[0][0], [], "a quote is opened and not closed")
            elif values or problem:
                width = width or len(values)
                yield Record(taken[0][0], values, problem)


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """The objects of a file of JSON lines (gzipped where the name says so): (line, object or None, what is wrong)."""
    with _text(path) as file:
        for line, text in _lines(file):
            if not text.strip():
                continue
            try:
                yield line, parse_json(text), ""
            except ReaderError as error:
                yield line, None, str(error)


def load_json(path: Path) -> dict[str, Any]:
    """A JSON object out of a file of at most 16 MiB. Raises ReaderError."""
    return parse_json(load_text(path))


def load_text(path: Path) -> str:
    """A text of at most 16 MiB. Raises ReaderError."""
    with _text(path) as file:
        try:
            text = file.read(LONGEST_FILE + 1)
        except (OSError, EOFError) as error:
            raise ReaderError(f"cannot be read ({error}); fetch it again") from error
    if len(text) > LONGEST_FILE:
        raise ReaderError("is longer than 16 MiB; that is no description of a clip")
    unspoilt(text)
    return text


def parse_json(text: str) -> dict[str, Any]:
    """A JSON object without NaN or infinities. Raises ReaderError."""
    unspoilt(text)
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ReaderError(f"is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ReaderError(f"is no JSON object but a {type(found).__name__}")
    return found


def plain_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file as they are. Raises ReaderError for a file that cannot be read."""
    with _text(path) as file:
        yield from _lines(file)


def audio_below(root: Path, links: bool = False, suffixes: Sequence[str] = AUDIO) -> tuple[list[Path], list[Path]]:
    """Sound files below a folder, sorted: those to use, and links that leave the folder (used only with ``links``).

    Links to folders are not followed, hidden files are passed over, and of links to one file the first name stays.
    """
    home = root.resolve()
    use: list[Path] = []
    outside: list[Path] = []
    seen: set[Path] = set()
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if name.startswith(".") or not name.lower().endswith(tuple(suffixes)) or not path.is_file():
                continue
            if not path.is_symlink():
                use.append(path)
                continue
            target = path.resolve()
            if not links and not target.is_relative_to(home):
                outside.append(path)
            elif target not in seen:
                seen.add(target)
                use.append(path)
    real = {path for path in use if not path.is_symlink()}
    known = {path.resolve() for path in real} if seen else set()
    return [path for path in use if path in real or path.resolve() not in known], outside


def unspoilt(text: str) -> None:
    """Raise ReaderError for a text with zero bytes, or with bytes that were no UTF-8."""
    if "\0" in text:
        raise ReaderError("holds zero bytes; it is no text")
    if any("\ud800" <= letter <= "\udfff" for letter in text) if not text.isascii() else False:
        raise ReaderError("is not UTF-8; save the file in that encoding")


def number(text: str | float | int | None, what: str = "value") -> float | None:
    """A finite number out of a field; None for an empty one. Raises ReaderError."""
    if text is None or (isinstance(text, str) and not text.strip()):
        return None
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if isinstance(text, bool) or value != value or value in (float("inf"), float("-inf")):
        raise ReaderError(f"{what} is no number: {str(text)[:40]!r}")
    return value


def truth(text: str) -> bool:
    """``True``/``False`` as tables write them. Raises ReaderError for anything else."""
    low = text.strip().lower()
    if low in ("true", "1", "yes"):
        return True
    if low in ("false", "0", "no", ""):
        return False
    raise ReaderError(f"neither true nor false: {text[:40]!r}")


def _parse(taken: list[tuple[int, str]], delimiter: str, whole: bool) -> tuple[list[str], str | None]:
    text = "".join(line for _, line in taken)
    if not whole:
        return [], "a quote is opened and not closed" if len(text) <= LONGEST_ROW else "is longer than 1 MiB"
    try:
        unspoilt(text)
        found = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
    except ReaderError as error:
        return [], str(error)
    except csv.Error as error:
        said = f"a value is longer than {_LONGEST_FIELD}" if "limit" in str(error) else str(error)
        return [], said
    values = found[0] if found else []
    return ([], None) if values in ([], [""]) else (values, None)


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """Numbered lines; of one beyond every measure only its beginning, which no parser will take."""
    number = 0
    while True:
        try:
            line = file.readline(LONGEST_ROW + 1)
            number += 1
            if not line:
                return
            yield number, line
            while len(line) > LONGEST_ROW and not line.endswith("\n"):
                line = file.readline(LONGEST_ROW + 1)
        except (OSError, EOFError, UnicodeError) as error:
            raise ReaderError(f"{getattr(file, 'name', 'the file')}: breaks off at line {number} ({error})") from error


def _text(path: Path) -> TextIO:
    """Open a text: UTF-8 with or without its mark, or UTF-16 with it; plain or gzipped."""
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape")
        with path.open("rb") as file:
            mark = file.read(2)
        wide = mark in (b"\xff\xfe", b"\xfe\xff")
        return path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace" if wide else "surrogateescape")
    except OSError as error:
        raise ReaderError(f"{path}: cannot be opened ({error.strerror or error}); check its name") from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
