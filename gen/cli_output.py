"""Where music goes: files that are checked first, standard output, progress, the summary and the report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .request import Plan, RequestError

if TYPE_CHECKING:
    from .generate import Music


def checked_targets(name: str, count: int, as_json: bool) -> list[str]:
    """Names of the files to write, checked; ``-`` stands for standard output."""
    from ..codec.sink import check_target

    if name == "-":
        if count > 1 or as_json:
            raise RequestError("-o - writes one sound to standard output: leave --count and --json out, or name a file")
        if sys.stdout.isatty():
            raise RequestError("-o - writes sound: send standard output to a file or a program, or name a file")
        return [name]
    path = Path(name)
    names = (
        [str(path)] if count == 1 else [str(path.with_name(f"{path.stem}_{i + 1}{path.suffix}")) for i in range(count)]
    )
    for one in names:
        check_target(one)
    return names


def checked_folder(name: str) -> Path:
    """A folder to write into, which need not be there yet. Raises ValueError or OSError saying why it cannot be."""
    folder = Path(name)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(f"cannot write into {folder}: {there} is a file")
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".descant-"):
            pass
    except OSError as error:
        raise type(error)(f"cannot write into {folder}: {error.strerror or error}") from None
    return folder


def source_of(name: str) -> Path:
    """A file that is there. Raises FileNotFoundError."""
    if not Path(name).is_file():
        raise FileNotFoundError(f"there is no file {name}")
    return Path(name)


@contextmanager
def delivered(targets: Sequence[str]) -> Iterator[list[Path]]:
    """Paths to write to; a sound for standard output goes through a temporary file."""
    if list(targets) != ["-"]:
        yield [Path(name) for name in targets]
        return
    with tempfile.TemporaryDirectory(prefix="descant-") as folder:
        path = Path(folder) / "out.wav"
        yield [path]
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextmanager
def progress_bar(quiet: bool, label: str) -> Iterator[Callable[[int, int], None] | None]:
    """What is told the frames done and how many there are, and shows them; None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=label, unit="frame", file=sys.stderr, leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def report(args: argparse.Namespace, music: Music, target: str, seconds: float) -> dict[str, Any]:
    """Plain data of one result, and its summary on standard error unless asked to be quiet."""
    plan = music.plan
    summary(args, target, (f"{music.duration:g} s", *described(plan), f"seed {plan.seed}"), seconds, music.notes)
    return {"file": target, **music.report(), "took": round(seconds, 3), "model": args.model}


def described(plan: Plan) -> list[str]:
    """What a plan says, in a few words."""
    said = [plan.genre, f"{round(plan.tempo, 1):g} BPM" if plan.tempo else None, plan.key, *plan.instruments]
    return [word for word in said if word]


def summary(args: argparse.Namespace, target: str, facts: Sequence[str], seconds: float, notes: Sequence[str]) -> None:
    """One line on what was made, and one for each note, on standard error unless asked to be quiet."""
    if args.quiet:
        return
    where = "standard output" if target == "-" else target
    print(f"{where}: {', '.join(facts)} ({seconds:.1f} s)", file=sys.stderr)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def print_json(args: argparse.Namespace, reports: Sequence[dict[str, Any]]) -> None:
    """The reports on standard output, where they were asked for."""
    if args.json:
        print(json.dumps({"results": list(reports)}, indent=2, ensure_ascii=False))


def is_folder(name: str) -> bool:
    """Whether a name to write to means a folder."""
    return name.endswith(("/", os.sep)) or Path(name).is_dir()
