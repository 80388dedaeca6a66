"""Music without end from the embedded model: does memory grow, do steps become slower?"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..gen.load import Studio
from ..lm.condition import collate
from ..lm.fast_threads import threads
from ..lm.fast_token import FastTokenLM
from ..lm.sample import stream
from .bench_lm_embedded import TOLD

Say = Callable[[str], None]


def endless(studio: Studio, minutes: float, say: Say, precision: str = "int8") -> dict[str, Any]:
    """Music without end, played while it is written: CPU time per step and resident memory, part by part.

    Tokens are streamed and decoded a second at a time, as a player would; a part is a tenth of the whole. The drift is
    the median step of the last minute over that of the first minute *after the ring of the cache is full*: before that
    steps look at less and are faster. Ten minutes are long enough for a shared machine to change its pace by a tenth
    (parts of one run lay between 3.2 and 4.4 ms, and the last ones happened to be the fastest), which the clock of the
    process does not take out. So once a second a *control* is timed in between: a step of the same size at one place,
    which cannot drift. ``drift`` is the stream's change over the control's; ``raw`` and ``pace`` are the two apart.
    """
    codec = studio.codec
    rate = round(codec.frame_rate)
    frames = max(10 * rate, round(minutes * 60 * codec.frame_rate))
    part = frames // 10
    steps, control = array("d"), array("d")
    memory: list[float] = []
    with threads(1), torch.no_grad():
        engine = FastTokenLM(studio.lm, precision)
        player, still = codec.decoder_stream(), _still(engine)
        samples = 0
        made = stream(engine, frames, TOLD)
        while waiting := list(islice(_timed(made, steps), rate)):
            samples += player.push(torch.stack(waiting, 1)[None]).shape[-1]
            next(still)  # what the decoder left in the caches is not the control's to pay
            begun = time.process_time()
            next(still)
            control.append(1000 * (time.process_time() - begun))
            if len(steps) // part > len(memory):
                memory.append(resident())
                median = statistics.median(steps[-part:])
                say(f"{len(steps) / codec.frame_rate:.0f} s: {median:.2f} ms per step, {memory[-1]:.0f} MiB")
    rows = [
        {"ms": statistics.median(steps[index * part : (index + 1) * part]), "mib": mib}
        for index, mib in enumerate(memory)
    ]
    return {
        "precision": precision, "seconds": frames / codec.frame_rate, "played": samples / codec.rate, "rows": rows,
        "growth_mib": max(row["mib"] for row in rows) - rows[0]["mib"],
        **drift(steps, control, studio.lm.config.window, rate),
    }  # fmt: skip


def drift(steps: Sequence[float], control: Sequence[float], window: int, rate: int) -> dict[str, float]:
    """Times of steps and, for each ``rate`` of them, of one control step -> how much slower the end is.

    Medians of the last minute over those of the first one after ``window`` steps; in shorter runs, halves.
    """
    first = window if len(steps) >= 3 * window else len(steps) // 10
    span = min(60 * rate, (len(steps) - first) // 2)

    def change(times: Sequence[float], each: int) -> float:
        begin, count = -(-first // each), max(1, span // each)
        return statistics.median(times[-count:]) / statistics.median(times[begin : begin + count]) - 1.0

    raw, pace = change(steps, 1), change(control, rate)
    return {"raw": raw, "pace": pace, "drift": (1.0 + raw) / (1.0 + pace) - 1.0, "compared_s": span / rate}


def _timed(frames: Iterator[Tensor], spent: array[float]) -> Iterator[Tensor]:
    """The same frames; the milliseconds each took are added to ``spent``."""
    while True:
        begun = time.process_time()
        frame = next(frames, None)
        if frame is None:
            return
        spent.append(1000 * (time.process_time() - begun))
        yield frame


def _still(engine: FastTokenLM) -> Iterator[Tensor]:
    """A guided step of a full ring, always the same one."""
    config = engine.config
    count = config.window + 8
    codes = torch.randint(0, config.cardinality, (1, config.books, count), generator=torch.Generator().manual_seed(0))
    ready = engine.prepare(collate([TOLD, TOLD], count))
    cache = engine.cache(2)
    engine.next(codes[:, :, :-1], ready, cache)
    place = cache.steps
    while True:
        cache.steps = place
        yield engine.next(codes[:, :, -1:], ready, cache)


def resident() -> float:
    """Resident memory of this process in MiB; its peak where the system tells no more."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
