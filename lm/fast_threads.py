"""How many threads a decoding step is worth.

A step of a small model is over before a second thread has woken; and on a busy machine threads wait for one another at
every operation: measured on two cores under load, a step of MusicGen-small in 8 bits took 21 ms on one thread and two
*seconds* on two. So one thread is the rule, and more the exception of a large model on an idle machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Bytes that a step must read to be worth a second thread: some 4 ms at 16 GB/s.
WORTH = 64 << 20


def advised(step_bytes: int, cores: int | None = None, load: float | None = None) -> int:
    """Threads for a step that reads ``step_bytes``.

    cores: processors this process may use; load: the machine's run queue, averaged over a minute; both are looked up
    when None. Never more than torch is set to use, never more than the cores that are idle, and one where a step is
    small or the machine's load is not known.
    """
    if step_bytes < 0:
        raise ValueError(f"a step cannot read {step_bytes} bytes")
    if cores is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if load is None:
        try:
            load = os.getloadavg()[0]
        except (AttributeError, OSError):
            load = float(cores)
    if step_bytes < WORTH:
        return 1
    idle = int(cores - load + 0.5)
    return max(1, min(idle, torch.get_num_threads(), step_bytes // WORTH))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, torch computes on ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
