"""``descant prepare DIR -o SHARDS``: music into what a generator that hears stems and melodies is trained on.

Each song is read once, taken apart (or its true stems taken), encoded and listened to; what comes of it is one shard
(:mod:`descant.recipes.targets_files`), read back by :mod:`descant.recipes.targets_read`. A second run over the same
folder makes only what is not there yet. No waveform enters the generator's training.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..codec.contract import Codec
from ..eval.readers import ReaderError
from . import packed
from .piece import Piece
from .prepare import fingerprint
from .soundfont import find_soundfont
from .targets_card import card
from .targets_files import (
    FORMAT,
    claim,
    only_one,
    read_record,
    read_songs,
    read_state,
    shard_path,
    size_of,
    write_shard,
    write_songs,
    write_state,
)
from .targets_leak import WINDOW
from .targets_plan import VERSION, Job, key_of, plan, separator_mark
from .targets_song import FLOOR, LEAST, UNDER, make
from .targets_sound import Rows, beside, open_clip

#: Seconds between writings of the listing, in a long run.
_OFTEN = 60.0


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """What to make of the songs."""

    separator: str = "embedded"
    """A separator by name or folder, for songs without true stems."""
    codec: str = "tiny"
    """A codec by name or folder."""
    books: int = 4
    """How many of the codec's books are kept."""
    soundfont: str | None = None
    """For rendered pieces of the synth layer."""
    trust: bool = False
    """Where true stems do not add up to the mix, take their sum for it instead of separating the mix."""
    apart: bool = False
    """Beside true stems, keep what the separator finds in the mix: what a generator hears when it is used."""

    def __post_init__(self) -> None:
        if self.books < 1:
            raise ValueError(f"books is {self.books}: at least 1")


@dataclass
class Summary:
    """What a run did, and what the folder holds now."""

    made: int = 0
    kept: int = 0
    separated: int = 0
    """Songs that went through the separator in this run."""
    failed: list[dict[str, str]] = field(default_factory=list)
    duplicates: list[dict[str, str]] = field(default_factory=list)
    totals: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)


def prepare(
    source: str | os.PathLike[str], out: str | os.PathLike[str], settings: TargetSettings | None = None, *,
    workers: int = 1, limit: int | None = None, retry: bool = False, quiet: bool = True,
) -> Summary:  # fmt: skip
    """Prepare the songs below ``source`` in the folder ``out``.

    Songs that cannot be used are counted, with the reason, and not tried again unless ``retry``. Raises ReaderError
    where there are no songs, ValueError for settings that do not fit the folder, OSError when the disk is full: what
    was finished stays.
    """
    chosen, folder = settings or TargetSettings(), Path(out)
    todo = plan(source, limit)
    desk = _Desk(chosen, any(_needs_font(job) for job in todo.jobs))
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder):
        claim(folder, desk.header)
        run = _Run(folder, desk)
        if retry:
            run.state.failed.clear()
        run.summary.failed += [{"id": where, "reason": reason} for where, reason in todo.problems]
        waiting = run.sort(todo.jobs)
        try:
            for job, result in _worked(waiting, desk, folder, workers, quiet):
                run.take(job, result)
        finally:
            run.save()
        return run.finish()


class _Desk:
    """The tools of one process, and what they are called in keys."""

    def __init__(self, settings: TargetSettings, rendered: bool = False) -> None:
        from ..codec import load
        from ..gen.separation.registry import get

        self.settings = settings
        self.codec: Codec = load(settings.codec)
        if settings.books > self.codec.books:
            raise ValueError(f"the codec has {self.codec.books} books, not {settings.books}")
        self.separator = get(settings.separator)
        self.soundfont = find_soundfont(settings.soundfont) if rendered else None
        name = Path(settings.separator).name
        self.header: dict[str, Any] = {
            "format": FORMAT, "version": VERSION, "codec": fingerprint(self.codec), "books": settings.books,
            "rate": self.codec.rate, "hop": self.codec.hop, "cardinality": self.codec.cardinality,
            "bits": packed.width(self.codec.cardinality), "separator": separator_mark(self.separator, name),
            "trust": settings.trust, "floor_db": FLOOR, "under_db": UNDER, "least_seconds": LEAST,
            "leak_seconds": WINDOW,
        }  # fmt: skip

    def rows(self, job: Job) -> Rows:
        """The song's sound."""
        rate = self.codec.rate
        if isinstance(job.source, Piece):
            rows = _rendered(job.source, rate, self.soundfont)
        else:
            rows = open_clip(job.source, rate, self.separator, self.settings.trust)
        return beside(rows, rate, self.separator) if self.settings.apart else rows

    def work(self, job: Job, folder: Path) -> dict[str, Any]:
        """Make a song's shard -> its record. Raises ValueError for a song that cannot be used."""
        rows = self.rows(job)
        made = make(rows, self.codec, self.settings.books)
        used = rows.kind == "separated" or bool(rows.apart)
        record = made.record | {"key": job.key, "separator": self.header["separator"] * used}
        write_shard(folder, job.key, made.arrays, record)
        return record


class _Run:
    """One run over a folder of shards."""

    def __init__(self, folder: Path, desk: _Desk) -> None:
        self.folder, self.desk = folder, desk
        self.state, self.songs = read_state(folder), read_songs(folder)
        self.summary = Summary()
        self._saved = time.monotonic()

    def sort(self, jobs: Sequence[Job]) -> list[Job]:
        """Find what is there already -> what is to do."""
        waiting: list[Job] = []
        seen: dict[str, str] = {}
        for job in jobs:
            try:
                key = key_of(job, self.desk.header, self.state, self.desk.soundfont, self.desk.settings.apart)
            except ValueError as error:
                self.summary.failed.append({"id": job.id, "reason": _line(error)})
                continue
            job = Job(job.id, job.source, job.labels, key)
            if key in seen:
                self.summary.duplicates.append({"id": job.id, "of": seen[key]})
                continue
            seen[key] = job.id
            if key in self.state.failed:
                self.summary.failed.append({"id": job.id, "reason": self.state.failed[key]})
                continue
            record = self._known(key)
            if record is None:
                waiting.append(job)
            else:
                self.summary.kept += 1
                self._list(job, record)
        return waiting

    def take(self, job: Job, result: dict[str, Any] | str) -> None:
        """Note a song that was made, or why it was not."""
        if isinstance(result, str):
            self.state.failed[job.key] = result
            self.summary.failed.append({"id": job.id, "reason": result})
        else:
            self.summary.made += 1
            self.summary.separated += bool(result["separator"])
            self._list(job, result)
        if time.monotonic() - self._saved > _OFTEN:
            self.save()

    def save(self) -> None:
        """Write down what is known."""
        write_songs(self.folder, self.songs)
        write_state(self.folder, self.state)
        self._saved = time.monotonic()

    def finish(self) -> Summary:
        """Drop songs whose shards are gone, write the card, and sum up."""
        there = {key: row for key, row in self.songs.items() if size_of(self.folder, key)}
        if there.keys() != self.songs.keys():
            self.songs = there
            self.save()
        size = sum(size_of(self.folder, key) for key in self.songs)
        self.summary.totals = card(self.folder, self.desk.header, self.songs, size)
        return self.summary

    def _known(self, key: str) -> dict[str, Any] | None:
        if not size_of(self.folder, key):
            return None
        row = self.songs.get(key)
        return row["record"] if row is not None else read_record(shard_path(self.folder, key))

    def _list(self, job: Job, record: Mapping[str, Any]) -> None:
        self.songs[job.key] = {"key": job.key, "id": job.id, "record": dict(record), "labels": job.labels}


def _worked(
    jobs: Sequence[Job], desk: _Desk, folder: Path, workers: int, quiet: bool
) -> Iterator[tuple[Job, dict[str, Any] | str]]:
    """Do the jobs, in this process or in several; yield each with its record, or why it cannot be used."""
    from tqdm import tqdm

    count = min(workers, len(jobs))
    with tqdm(total=len(jobs), disable=quiet or not jobs, unit="song", smoothing=0.1) as bar:
        if count <= 1:
            for job in jobs:
                yield job, _tried(desk, job, folder)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            count, mp_context=context, initializer=_begin, initargs=(desk.settings, desk.soundfont is not None)
        ) as pool:
            waiting = {pool.submit(_do, job, folder): job for job in jobs}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
                    bar.update()
            except BrokenProcessPool:
                raise RuntimeError(
                    "a worker was killed, perhaps for want of memory: run the command again with fewer --workers; "
                    "finished songs are kept"
                ) from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _tried(desk: _Desk, job: Job, folder: Path) -> dict[str, Any] | str:
    import warnings

    try:
        # an MP3 whose header only estimates its length is no news
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return desk.work(job, folder)
    except (ReaderError, ValueError) as error:
        if isinstance(error.__cause__, ImportError):
            raise  # a package is missing: that is not the song's fault
        return _line(error)


_AT_WORK: list[_Desk] = []


def _begin(settings: TargetSettings, rendered: bool) -> None:
    """Set up a process: one thread, tools of its own, and an end when its parent ends."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.join,), daemon=True).start()
    _AT_WORK.append(_Desk(settings, rendered))


def _follow(wait: Callable[[], None]) -> None:
    # a killed parent sends nothing: a pool's processes would wait for it for ever
    wait()
    os._exit(1)


def _do(job: Job, folder: Path) -> dict[str, Any] | str:
    return _tried(_AT_WORK[0], job, folder)


def _needs_font(job: Job) -> bool:
    return isinstance(job.source, Piece) and job.source.layer != "builtin"


def _rendered(piece: Piece, rate: int, soundfont: Path | None) -> Rows:
    from .audio_of import mixdown, render_piece
    from .targets_roles import role_of

    roles: dict[str, torch.Tensor] = {}
    for name, wav in render_piece(piece, rate, soundfont).items():
        role = role_of(name)
        roles[role] = roles[role] + wav if role in roles else wav
    rows = torch.cat([mixdown(roles)[None], torch.stack(list(roles.values()))])
    return Rows(tuple(roles), "rendered", iter(torch.split(rows, 1 << 17, -1)))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
