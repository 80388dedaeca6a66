"""Scoring one excerpt through one system, and remembering the scores by what they were computed from.

A score is filed under the hash of the excerpt's samples, the system's mark and the measures' version, so a run that
was stopped goes on, a second run computes only what is new, and renamed folders or reordered files change nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from ..codec import loudness, stft
from ..eval import reconstruction
from .bench_codec_classical import Heard
from .bench_codec_clips import Clip
from .bench_codec_speed import one_thread
from .bench_codec_systems import System

#: What is computed from samples, in the order of the tables; ``side`` for two channels only.
SIGNAL: tuple[str, ...] = ("mel", "stft", "si_sdr", "loudness", "bandwidth", "side")


@dataclass(frozen=True)
class Task:
    """One excerpt through one system; ``visqol``: the slow listener instead of the signal measures."""

    clip: Clip
    system: System
    visqol: bool


class Scores:
    """The file of finished scores: one JSON line each, appended as they come; a line cut short by a kill is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, dict[str, float]] = {}
        data = path.read_bytes() if path.is_file() else b""
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            row = json.loads(line)
            self.found[row["key"]] = row["scores"]
        if len(whole) < len(data):
            part = path.with_name(path.name + ".part")
            part.write_bytes(whole)
            os.replace(part, path)

    def get(self, task: Task) -> dict[str, float] | None:
        """The scores of a task, None when they are not known."""
        return self.found.get(key_of(task))

    def put(self, task: Task, scores: dict[str, float]) -> None:
        """Remember the scores of a task, in memory and in the file."""
        key = key_of(task)
        self.found[key] = scores
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "scores": scores}) + "\n")


def key_of(task: Task) -> str:
    """Under what a task's scores are filed."""
    system, clip = task.system, task.clip
    what = [system.kind, system.mark, system.books, system.kbps, system.source if system.kind == "control" else ""]
    parts = [clip.digest, clip.rate, what, "visqol" if task.visqol else "signal", version(task.visqol)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@lru_cache(maxsize=2)
def version(visqol: bool) -> str:
    """Version of the measures: the hash of their source, or ViSQOL's own version."""
    if visqol:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            return installed("visqol-python")
        except PackageNotFoundError as error:
            raise ImportError("ViSQOL needs the package visqol-python: pip install 'descant[bench]'") from error
    files = [Path(str(module.__file__)) for module in (reconstruction, stft, loudness)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def score(tasks: Sequence[Task]) -> list[dict[str, float]]:
    """The scores of tasks that share excerpt and system, which is run once.

    Those that are not ViSQOL's come with ``kbps`` (of the file), ``raw_kbps`` (of the codes), ``coded_kbps`` (of the
    file with its codes entropy-coded), ``delay`` and ``gain``.
    """
    clip = tasks[0].clip
    wav = clip.read()
    heard = tasks[0].system.apply(wav, clip.rate)
    return [_perceived(clip, wav, heard) if task.visqol else _signal(clip, wav, heard) for task in tasks]


def _perceived(clip: Clip, wav: Tensor, heard: Heard) -> dict[str, float]:
    # ViSQOL mixes to mono, which would forgive a lost stereo image: each channel by itself
    each = [reconstruction.visqol(a, b, clip.rate) for a, b in zip(wav, heard.wav, strict=True)]
    return {"visqol": sum(each) / len(each)}


def _signal(clip: Clip, wav: Tensor, heard: Heard) -> dict[str, float]:
    found = {
        "mel": reconstruction.mel_distance(wav, heard.wav, clip.rate),
        "stft": reconstruction.stft_distance(wav, heard.wav),
        "si_sdr": reconstruction.si_sdr(wav, heard.wav),
        "loudness": reconstruction.loudness_error(wav, heard.wav, clip.rate),
        "bandwidth": reconstruction.bandwidth_error(wav, heard.wav, clip.rate) / 1000,
    }
    if clip.channels == 2:
        found["side"] = reconstruction.side_error(wav, heard.wav)
    if heard.size is not None:
        found["kbps"] = 8 * heard.size / clip.seconds / 1000
        found["delay"], found["gain"] = float(heard.delay), heard.gain
    if heard.bits is not None:
        found["raw_kbps"] = heard.bits / clip.seconds / 1000
    if heard.coded is not None:
        found["coded_kbps"] = 8 * heard.coded / clip.seconds / 1000
    return found


def score_all(
    tasks: Sequence[Task], scores: Scores, workers: int, progress: Callable[[int, int, Task], None] | None = None
) -> None:
    """Compute what ``scores`` lacks, in this process (``workers`` = 1) or in several, one thread each."""
    jobs: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        if scores.get(task) is None:
            jobs.setdefault((task.clip.digest, task.system.name), []).append(task)
    for number, (job, found) in enumerate(_computed(list(jobs.values()), workers), 1):
        for task, row in zip(job, found, strict=True):
            scores.put(task, row)
        if progress is not None:
            progress(number, len(jobs), job[0])


def table(
    systems: Iterable[System], clips: Sequence[Clip], heard: Sequence[Clip], scores: Scores
) -> dict[str, dict[str, dict[str, float]]]:
    """What is known: system's name -> measure -> digest of a clip -> score; ``heard`` are the clips of ViSQOL."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for system in systems:
        rows: dict[str, dict[str, float]] = {}
        for visqol, chosen in ((True, heard), (False, clips)):
            for clip in chosen:
                for name, value in (scores.get(Task(clip, system, visqol)) or {}).items():
                    rows.setdefault(name, {})[clip.digest] = value
        out[system.name] = rows
    return out


def _computed(jobs: Sequence[list[Task]], workers: int) -> Iterator[tuple[list[Task], list[dict[str, float]]]]:
    if not jobs:
        return
    if workers == 1:
        with one_thread():
            for job in jobs:
                yield job, score(job)
        return
    from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
    from multiprocessing import get_context

    with ProcessPoolExecutor(workers, get_context("spawn"), _prepare_process) as pool:
        waiting: dict[Future[list[dict[str, float]]], list[Task]] = {}
        left = iter(jobs)
        try:
            while True:
                # a short queue: neighbours are of one clip, whose samples a process then still has
                for job in islice(left, 2 * workers - len(waiting)):
                    waiting[pool.submit(score, job)] = job
                if not waiting:
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        finally:
            for future in waiting:
                future.cancel()


def _prepare_process() -> None:
    os.environ["NUMBA_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # ViSQOL's loops ask for all cores
    torch.set_num_threads(1)
