"""How many threads a decoding step is worth.

A step of a small model is over before a second thread has woken; and on a busy machine threads wait for one another at
every operation: measured on two cores under load, a step of MusicGen-small in 8 bits took 21 ms on one thread and two
*seconds* on two. So one thread is the rule, and more the exception of a large model on an idle machine: never more than
torch is set to use (``torch.set_num_threads``, ``OMP_NUM_THREADS``), never more than the processors that nobody else
is using.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Bytes that a step must read to be worth a second thread: some 4 ms at 16 GB/s.
WORTH = 64 << 20
_RUNNING, _TASKS = "/proc/loadavg", "/proc/self/task"
# weight of the newest look at the machine: some ten steps are remembered
_NEW = 0.1


def advised(step_bytes: int, cores: int | None = None, load: float | None = None) -> int:
    """Threads for a step that reads ``step_bytes``.

    cores: processors this process may use; load: how many of them others use; both are looked up when None. One where
    a step is small or the machine's load is not known.
    """
    if step_bytes < 0:
        raise ValueError(f"a step cannot read {step_bytes} bytes")
    most = min(torch.get_num_threads(), step_bytes // WORTH)
    if most < 2:
        return 1
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if load is None:
        load = others()
    return max(1, min(int(cores - load + 0.5), most)) if load is not None else 1


def others() -> float | None:
    """Threads of other processes that run or wait to run at this moment; None where the system does not tell.

    The load average would not do: it counts what this process did in the last minute. Nor are this process's own
    threads others: OpenMP's keep turning for a while after their work.
    """
    try:
        with open(_RUNNING, encoding="ascii") as file:
            # "0.20 0.18 0.12 3/80 11206": three of 80 threads run, and one of them is asking
            running = int(file.read().split()[3].partition("/")[0]) - 1
        return float(max(0, running - _own())) if running > 0 else 0.0
    except (OSError, IndexError, ValueError):
        return None


def _own() -> int:
    """Threads of this process that run or wait to run, beside the one that asks."""
    count = -1
    for task in os.scandir(_TASKS):
        try:
            with open(f"{task.path}/stat", encoding="ascii", errors="replace") as file:
                # "11206 (python) R ...": a name may hold anything, spaces and brackets included
                count += file.read().rpartition(")")[2].split()[0] == "R"
        except (OSError, IndexError):
            continue  # it has ended
    return max(0, count)


class Watch:
    """Chooses anew at every step, from what the machine was doing at the last few."""

    def __init__(self, step_bytes: int) -> None:
        self.step_bytes = step_bytes
        self._others: float | None = None

    def threads(self, positions: int = 1) -> int:
        """For the next call, which reads ``positions`` positions at once: so many steps' work."""
        work = self.step_bytes * positions
        if min(torch.get_num_threads(), work // WORTH) < 2:
            return 1
        now = others()
        if now is not None:
            self._others = now if self._others is None else self._others + _NEW * (now - self._others)
        return advised(work, load=self._others)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch computes on ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
