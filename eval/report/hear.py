"""Hearing many clips on all cores: a clip is read, embedded and analysed once, and what came out is kept by content.

The work on a clip depends on that clip alone and runs on one thread, so figures are the same for any number of
processes; a run that was stopped finds in the cache what it had done. Processes are spawned, never forked, and hand
over tensors only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..cache import Cache
from ..embed import Embedder, digest, embed_files
from . import analyse
from .judges import Hearing, Judge, tagger_of

_TASK = TypeVar("_TASK")
_FOUND = TypeVar("_FOUND")


@dataclass(frozen=True)
class Clip:
    """A file to be heard, and for what."""

    name: str
    path: Path
    hearings: tuple[Hearing, ...] = ()
    groups: tuple[str, ...] = ()
    """Facts of :data:`descant.eval.report.analyse.GROUPS`."""


@dataclass(frozen=True)
class Heard:
    """What a clip gave."""

    name: str
    digest: str = ""
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    """By key of the hearing."""
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    """Key of a hearing or name of a group -> why it failed."""
    silent: bool = False


@dataclass(frozen=True)
class Desk:
    """What a worker needs: judges by name, and where to keep what it heard."""

    judges: Mapping[str, Judge]
    cache: str | None = None
    tool: Any = None
    """Further equipment of a task, such as a codec."""


class _Known:
    """An embedder whose id is asked for once: it may be a digest over all weights."""

    def __init__(self, ear: Embedder) -> None:
        self.id, self.rate, self.channels, self.dim, self.embed = ear.id, ear.rate, ear.channels, ear.dim, ear.embed


class Ears:
    """Judges of one process, loaded when first needed."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.cache = None if desk.cache is None else Cache(desk.cache)
        self._loaded: dict[str, Any] = {}
        self._known: dict[Hearing, _Known] = {}

    def ear(self, hearing: Hearing) -> Any:
        """The embedder of a hearing."""
        if hearing.judge not in self._loaded:
            self._loaded[hearing.judge] = self.desk.judges[hearing.judge].load()
        if hearing not in self._known:
            judge = self._loaded[hearing.judge]
            self._known[hearing] = _Known(tagger_of(judge) if hearing.tags else judge)
        return self._known[hearing]


def hear(clip: Clip, ears: Ears) -> Heard:
    """Everything asked of a clip; what cannot be had is named with its reason."""
    vectors: dict[str, Tensor] = {}
    facts: dict[str, Tensor] = {}
    failures: dict[str, str] = {}
    silent = False
    try:
        content = digest(clip.path)
    except OSError as error:
        reason = f"{clip.path}: cannot be read ({error.strerror}); check its permissions"
        return Heard(clip.name, failures=dict.fromkeys([*(h.key for h in clip.hearings), *clip.groups], reason))
    for hearing in clip.hearings:
        found = embed_files({clip.name: clip.path}, ears.ear(hearing), hearing.recipe, ears.cache)
        if found.failures:
            failures[hearing.key] = found.failures[clip.name]
        else:
            vectors[hearing.key] = found.vectors.data
            silent = silent or bool(found.silent)
    for group in clip.groups:
        try:
            facts |= kept(ears.cache, content, group, clip.path)
        except (ValueError, OSError) as error:
            failures[group] = str(error)
    return Heard(clip.name, content, vectors, facts, failures, silent)


def kept(cache: Cache | None, content: str, group: str, path: Path) -> dict[str, Tensor]:
    """Facts of a group, from the cache where it has them."""
    key = "" if cache is None else cache.key(content, analyse.recipe(group))
    found = None if cache is None else cache.get(key)
    if found is None:
        found = analyse.analyse(path, group)
        if cache is not None:
            cache.put(key, found)
    return found


def run(
    work: Callable[[_TASK, Ears], _FOUND], tasks: Sequence[_TASK], desk: Desk, jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[_FOUND]:  # fmt: skip
    """What ``work`` (a function of a module) makes of every task, in order, on ``jobs`` processes.

    Raises RuntimeError saying what to do when a process was killed.
    """
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: need at least 1")
    count = len(tasks)
    if jobs == 1 or count < 2:
        ears = Ears(desk)
        for place, task in enumerate(tasks, 1):
            with _alone():
                found = work(task, ears)
            if progress is not None:
                progress(place, count)
            yield found
        return
    pool = ProcessPoolExecutor(min(jobs, count), get_context("spawn"), _settle, (desk,))
    try:
        for place, found in enumerate(pool.map(_call, [work] * count, tasks), 1):
            if progress is not None:
                progress(place, count)
            yield _converted(found, np.ndarray, torch.from_numpy)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process was killed, perhaps for want of memory; start the same command again with fewer --jobs, "
            "it goes on where it stopped"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def all_digests(heard: Sequence[Heard]) -> str:
    """One digest of names and contents, whatever the order."""
    total = hashlib.sha256()
    for item in sorted(heard, key=lambda one: one.name):
        total.update(f"{item.name}\0{item.digest}\n".encode())
    return total.hexdigest()


def limited(hearing: Hearing, seconds: float) -> Hearing:
    """The same hearing of the first seconds of every clip."""
    limit = seconds if hearing.recipe.limit is None else min(seconds, hearing.recipe.limit)
    return replace(hearing, recipe=replace(hearing.recipe, limit=limit))


#: The judges of a worker process.
_EARS: list[Ears] = []


def _settle(desk: Desk) -> None:
    torch.set_num_threads(1)
    _EARS[:] = [Ears(desk)]


def _call(work: Callable[[_TASK, Ears], _FOUND], task: _TASK) -> _FOUND:
    with torch.no_grad():
        return _converted(work(task, _EARS[0]), Tensor, Tensor.numpy)


def _converted(found: _FOUND, kind: type, change: Callable[[Any], Any]) -> _FOUND:
    """A record with the values of its mappings changed where they are of a kind.

    Tensors travel between processes as arrays: torch would hand them over through a socket and a shared file each.
    """
    record: Any = found
    table = {
        item.name: {key: change(value) if isinstance(value, kind) else value for key, value in mapping.items()}
        for item in fields(record)
        if isinstance(mapping := getattr(record, item.name), Mapping)
    }
    changed: _FOUND = replace(record, **table)
    return changed


class _alone:
    """One thread and no gradients; torch's settings come back afterwards."""

    def __enter__(self) -> None:
        self._threads, self._gradients = torch.get_num_threads(), torch.no_grad()
        self._gradients.__enter__()
        torch.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self._threads)
        self._gradients.__exit__(None, None, None)
