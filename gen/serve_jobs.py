"""Jobs in a queue, the threads that work them off, and the files they leave: everything bounded, nothing of HTTP.

A slot is taken before a request's body is read, so that senders who wait for their turn cost neither memory nor disk.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .serve_limits import Limits

#: Told (done, total); raises :class:`Cancelled` when nobody wants the result any more.
Report = Callable[[float, float], None]
#: What does a job: given a worker's tools and a task.
Work = Callable[[Any, "Task"], "Outcome"]

_LOG = logging.getLogger("descant.serve")
_LACKS = ("can't allocate memory", "CUDA out of memory", "bad_alloc")
_SHORT = "not enough memory: ask for less at once (shorter, or a smaller file)"


class Cancelled(Exception):
    """The job was called off."""


class Refused(Exception):
    """The server cannot take this now; ``after``: seconds until it is worth asking again."""

    def __init__(self, status: int, message: str, after: int) -> None:
        super().__init__(message)
        self.status, self.after = status, after


@dataclass(frozen=True)
class Task:
    """What a job is told: where its files lie, and whom to tell how far it is and how many bytes it will write."""

    folder: Path
    input: Path
    """The file that was sent."""
    report: Report
    reserve: Callable[[int], None]
    """Raises ValueError when there is no room."""


@dataclass(frozen=True)
class Outcome:
    """What a job made, as plain data for JSON: ``facts`` of the whole, and of each of the sounds by name."""

    facts: dict[str, Any]
    files: dict[str, Path]
    sounds: dict[str, dict[str, Any]]


@dataclass(eq=False)
class Job:
    """One request on its way. ``status``: receiving, queued, running, done, failed or cancelled."""

    id: str
    kind: str
    folder: Path
    status: str = "receiving"
    work: Work | None = None
    shown: str = ""
    """How the sender calls the file that was sent; never a path here."""
    done: float = 0.0
    total: float = 0.0
    outcome: Outcome | None = None
    error: str | None = None
    called_off: bool = False
    bytes: int = 0
    started: float = 0.0
    ended: float = 0.0
    version: int = 0
    """Grows with every change."""

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in ("done", "failed", "cancelled")

    @property
    def input(self) -> Path:
        """Where the file that was sent lies."""
        return self.folder / "input"


class Store:
    """All jobs of a server, in ``folder``; one thread for each of ``tools``, which its jobs get as first argument."""

    def __init__(self, folder: Path, limits: Limits, tools: Sequence[Any]) -> None:
        self.folder, self.limits = folder, limits
        self.closing = False
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._lock = threading.Condition()
        self._took = 10.0  # seconds of a usual job, until some were seen
        self._threads = [threading.Thread(target=self._serve, args=(one,), daemon=True) for one in tools]
        self._threads.append(threading.Thread(target=self._tidy, daemon=True))

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Call everything off and wait a little for the workers to let go."""
        with self._lock:
            self.closing = True
            for job in self._jobs.values():
                job.called_off = True
            self._lock.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10.0)

    def open(self, kind: str) -> Job:
        """Take a slot for a request that is about to be read. Raises Refused when there is none."""
        with self._lock:
            if self.closing:
                raise Refused(503, "the server is shutting down", 60)
            pending = sum(job.status in ("receiving", "queued") for job in self._jobs.values())
            if pending >= self.limits.queue:
                raise Refused(429, f"{pending} requests are waiting already: try again later", self._wait())
            if not self._make_room(self.limits.upload):
                raise Refused(503, "the disk space of this server is in use: try again later", self._wait())
            job = Job(secrets.token_urlsafe(12), kind, self.folder / secrets.token_hex(8))
            self._jobs[job.id] = job
        job.folder.mkdir()
        return job

    def submit(self, job: Job, work: Work) -> None:
        """Put a job whose request was read into the queue."""
        size = _size(job.folder)
        with self._lock:
            if job.called_off or self.closing:
                self._end(job, "cancelled")
                return
            job.work, job.status, job.bytes = work, "queued", size
            job.version += 1
            self._waiting.append(job)
            self._lock.notify_all()

    def drop(self, job: Job) -> None:
        """Forget a job, with its files."""
        with self._lock:
            self._jobs.pop(job.id, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def get(self, name: str) -> Job | None:
        """The job with this id, if there is one."""
        with self._lock:
            return self._jobs.get(name)

    def cancel(self, job: Job) -> None:
        """Call a job off, wherever it is; one that is finished goes, with its files."""
        with self._lock:
            finished = job.finished
            job.called_off = True
            if job.status == "queued":
                self._waiting.remove(job)
                self._end(job, "cancelled")
        if finished:
            self.drop(job)

    def place(self, job: Job) -> int:
        """How many jobs are served before this one, those that are running included; 0 when it is not waiting."""
        with self._lock:
            if job not in self._waiting:
                return 0
            running = sum(one.status == "running" for one in self._jobs.values())
            return self._waiting.index(job) + running

    def counts(self) -> dict[str, int]:
        """Jobs by status."""
        with self._lock:
            names = ("receiving", "queued", "running", "done", "failed", "cancelled")
            return {name: sum(job.status == name for job in self._jobs.values()) for name in names}

    def _task(self, job: Job) -> Task:
        return Task(
            job.folder, job.input, lambda done, total: self._report(job, done, total),
            lambda size: self._reserve(job, size),
        )  # fmt: skip

    def _reserve(self, job: Job, size: int) -> None:
        """Make room for ``size`` bytes that a running job will write."""
        with self._lock:
            if not self._make_room(size):
                raise ValueError(
                    f"the result would take {size / 1e6:.0f} MB, more than this server's disk space allows now: "
                    "ask for less"
                )
            job.bytes += size

    def _wait(self) -> int:
        """Seconds until a slot is likely to be free: one is when the next worker has done its job."""
        return max(1, min(600, round(self._took / max(1, len(self._threads) - 1))))

    def _make_room(self, size: int) -> bool:
        """Let old results go until ``size`` bytes fit. With the lock held."""
        finished = sorted((job for job in self._jobs.values() if job.finished), key=lambda job: job.ended)
        free = self.limits.disk - sum(
            self.limits.upload if job.status == "receiving" else job.bytes for job in self._jobs.values()
        )
        for job in finished:
            if free >= size:
                break
            free += job.bytes
            self._jobs.pop(job.id)
            shutil.rmtree(job.folder, ignore_errors=True)
        return free >= size

    def _end(self, job: Job, status: str, error: str | None = None) -> None:
        """With the lock held."""
        job.status, job.error, job.work, job.ended = status, error, None, time.monotonic()
        job.version += 1
        if status == "done":
            job.input.unlink(missing_ok=True)
            job.bytes = _size(job.folder)
        else:
            shutil.rmtree(job.folder, ignore_errors=True)
            job.bytes = 0

    def _serve(self, tools: Any) -> None:
        """One worker."""
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self.closing or bool(self._waiting))
                if self.closing:
                    return
                job = self._waiting.pop(0)
                work = job.work
                job.status, job.started = "running", time.monotonic()
                job.version += 1
                for other in self._waiting:
                    other.version += 1
            status, error = "failed", None
            try:
                if work is not None:
                    job.outcome = work(tools, self._task(job))
                status = "done"
            except Cancelled:
                status = "cancelled"
            except BaseException as failure:  # a job must never take the server with it
                error = _said(failure, job)
            with self._lock:
                if status == "done" and job.called_off:
                    status = "cancelled"
                if status == "done":
                    self._took = 0.7 * self._took + 0.3 * (time.monotonic() - job.started)
                self._end(job, status, error)

    def _report(self, job: Job, done: float, total: float) -> None:
        if job.called_off:
            raise Cancelled
        job.done, job.total = float(done), float(total)
        job.version += 1

    def _tidy(self) -> None:
        """Let go what is too old or too much."""
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self.closing, timeout=2.0)
                if self.closing:
                    return
                now = time.monotonic()
                finished = sorted((job for job in self._jobs.values() if job.finished), key=lambda job: job.ended)
                surplus = finished[: max(0, len(finished) - self.limits.keep)]
                old = [job for job in finished if now - job.ended > 60 * self.limits.minutes and job not in surplus]
                for job in (*surplus, *old):
                    self._jobs.pop(job.id)
            for job in (*surplus, *old):
                shutil.rmtree(job.folder, ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir()) if folder.is_dir() else 0


def _said(error: BaseException, job: Job) -> str:
    """One line for the person who asked, with their own name for the file they sent."""
    expected = isinstance(error, (ValueError, OSError, RuntimeError, ModuleNotFoundError, MemoryError))
    if not expected:
        _LOG.error("%s: internal error", job.kind, exc_info=error)
        return f"internal error, {type(error).__name__}: the server's log says more"
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in _LACKS):
        return _SHORT
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name!r}, which is not installed"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = text.replace(str(job.input), job.shown or "the file").replace(str(job.folder), "")
    return " ".join(text.split()) or type(error).__name__
