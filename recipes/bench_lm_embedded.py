"""The embedded model decoded on one thread: steps, music with the codec included, and what 8 bits cost."""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..eval.statistics import bootstrap
from ..gen.generate import decode, finish
from ..gen.load import Studio
from ..lm.condition import Condition, collate
from ..lm.fast_threads import threads
from ..lm.fast_token import FastTokenLM
from ..lm.model import TokenLM
from ..lm.quant import quantise
from ..lm.sample import sample, sample_batch
from .jobs import open_set

#: Weights of the engines that are measured.
PRECISIONS: tuple[str, ...] = ("fp32", "int8")
#: What the benchmark's music is told: guidance has something to do.
TOLD = Condition(text="a slow blues with piano and drums", genre="blues", tempo=84.0, beats_per_bar=4, key="E minor")
Say = Callable[[str], None]


def speed(studio: Studio, seconds: float, say: Say) -> dict[str, Any]:
    """CPU time per guided step, and times real time of ``seconds`` of music on one thread, codec included."""
    lm, codec = studio.lm, studio.codec
    frames = max(2, round(seconds * codec.frame_rate))
    found: dict[str, Any] = {"seconds": frames / codec.frame_rate, "rows": []}
    with threads(1):
        found["module_ms"] = _module(lm, min(frames, 200))
        say(f"the model as it is: {found['module_ms']:.2f} ms per step")
        for precision in PRECISIONS:
            engine = FastTokenLM(lm, precision)
            sample(engine, 20, TOLD)
            begun = time.process_time()
            codes = sample(engine, frames, TOLD)
            drawn = time.process_time()
            finish(decode(codec, codes), codec.rate)
            done = time.process_time()
            row: dict[str, Any] = {
                "precision": precision, "ms": 1000 * (drawn - begun) / (frames + lm.pattern.tail),
                "codec_ms": 1000 * (done - drawn) / frames, "x": found["seconds"] / (done - begun),
                "lm_x": {"1": found["seconds"] / (drawn - begun)},
            }  # fmt: skip
            for count in (4, 8):
                begun = time.process_time()
                sample_batch(engine, frames, [TOLD] * count)
                row["lm_x"][str(count)] = count * found["seconds"] / (time.process_time() - begun)
            found["rows"].append(row)
            say(f"{precision}: {row['ms']:.2f} ms per step, {row['x']:.1f} times real time")
    return found


def _module(lm: TokenLM, steps: int) -> float:
    """CPU milliseconds of a guided step of the model as it was trained, module by module; tokens are given."""
    codes = torch.randint(0, lm.config.cardinality, (2, lm.config.books, steps))
    with torch.inference_mode():
        cond, cache = lm.prepare(collate([TOLD, TOLD], steps)), lm.cache(2)
        spent = []
        for step in torch.split(codes, 1, 2):
            before = time.process_time()
            lm(step, cond, cache)
            spent.append(time.process_time() - before)
    return 1000 * statistics.median(spent)


@torch.no_grad()
def quality(lm: TokenLM, folder: str | os.PathLike[str], crops: int, say: Say, frames: int = 500) -> dict[str, Any]:
    """What 8 bits cost: cross-entropy in nats per book on the middles of held-out pieces, fp32 and the increase."""
    held = open_set(folder)
    if held.mark["cardinality"] != lm.config.cardinality or held.mark["books"] < lm.config.books:
        raise ValueError(
            f"{folder} holds {held.mark['books']} books of {held.mark['cardinality']}, the model writes "
            f"{lm.config.books} of {lm.config.cardinality}: name tokens of its codec"
        )
    long = [item for item, length in enumerate(held.lengths) if length >= frames]
    if len(long) < 2:
        raise ValueError(f"{folder} has {len(long)} pieces of {frames} frames: two are needed")
    # evenly over the pieces
    chosen = [long[index * len(long) // min(crops, len(long))] for index in range(min(crops, len(long)))]
    small = copy.deepcopy(lm)
    quantise(small, keep=lambda name: name.startswith("conditioner"))
    rows: list[tuple[Tensor, Tensor]] = []
    with threads(1):
        for item in chosen:
            crop = held.crop(item, (held.lengths[item] - frames) // 2, frames, caption=0)
            batch = collate([crop.condition], frames, frame_rate=held.frame_rate)
            codes = crop.codes[None, : lm.config.books]
            exact = lm.loss(codes, batch)[1]
            rows.append((exact, small.loss(codes, batch)[1] - exact))
    books = []
    for book in range(lm.config.books):
        more = bootstrap([float(row[1][book]) for row in rows])
        ce = bootstrap([float(row[0][book]) for row in rows]).mean
        books.append({"fp32": ce, "increase": more.mean, "low": more.low, "high": more.high})
    say("8 bits cost " + ", ".join(f"{row['increase']:+.4f}" for row in books) + " nats per book")
    return {"crops": len(rows), "frames": frames, "books": books}


def bandwidth(mib: int = 512, rounds: int = 5) -> float:
    """Bytes per second that one thread reads from memory, the best of a few ways and rounds, in CPU time."""
    whole = torch.ones(mib << 18)

    def ways() -> Iterator[Callable[[], object]]:
        yield whole.sum
        yield lambda: torch.dot(whole, whole)
        yield whole.amax

    best = 0.0
    with threads(1):
        for way in ways():
            for _ in range(rounds):
                before = time.process_time()
                way()
                best = max(best, 4 * len(whole) / (time.process_time() - before))
    return best
