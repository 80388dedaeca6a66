"""How soon does something sound? From the request to the first block, with the model loaded and from an empty process.

Beside it what else "play with me" needs of the clock: ten seconds of a part beside one given stem, and whether music
that is streamed is the music that is made whole.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..codec.audio import Audio
from ..gen.accompany import accompany
from ..gen.generate import decode
from ..gen.load import load
from ..gen.request import Request
from ..gen.stream import Player, soft
from ..lm.fast_threads import threads
from ..lm.sample import sample
from .bench_report import table
from .loops import loops

#: What is asked for.
SENTENCE = "an upbeat bossa nova in G minor with flute and nylon guitar"
#: Cores the figures are for, requests of each kind, and seconds of music.
CORES, TIMES, SECONDS = 2, 5, 10.0
#: Bytes before the first sample of a WAV stream.
_HEADER = 44
Say = Callable[[str], None]


def measure(model: str, say: Say, times: int = TIMES, seconds: float = SECONDS) -> dict[str, Any]:
    """Seconds on the clock to the first block of sound, of a part beside a stem, and streamed against offline."""
    with threads(CORES):
        begun = time.perf_counter()
        studio = load(model, CORES)
        found: dict[str, Any] = {"cores": CORES, "times": times, "load_s": time.perf_counter() - begun}
        warm = []
        for seed in range(times + 1):
            begun = time.perf_counter()
            block = next(studio.stream(SENTENCE, seconds=seconds, seed=seed))
            warm.append(time.perf_counter() - begun)
        found |= {"fresh_s": warm[0], "loaded_s": statistics.median(warm[1:]), "worst_s": max(warm[1:])}
        found["block_s"] = block.wav.shape[-1] / block.rate
        say(f"loaded: {found['loaded_s']:.2f} s to the first block")
        found["whole"] = _whole(studio, seconds)
        say(f"streamed and offline differ by {found['whole']:.1e}")
        found["part"] = _part(studio, seconds, times)
    found["process_s"] = statistics.median(_process(model) for _ in range(times))
    say(f"from an empty process: {found['process_s']:.2f} s")
    return found


def _process(model: str) -> float:
    """Seconds from the start of ``descant generate -o -`` to its first sample."""
    words = ["generate", SENTENCE, "--duration", "3", "--seed", "7", "--threads", str(CORES), "--quiet", "-o", "-"]
    words += [] if model == "embedded" else ["--model", model]
    begun = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "descant", *words], stdout=subprocess.PIPE) as child:
        heard = child.stdout.read(_HEADER + 2) if child.stdout else b""
        took = time.perf_counter() - begun
        # a closed pipe would be an error of its
        if child.stdout:
            child.stdout.read()
    if child.returncode or len(heard) < _HEADER + 2:
        raise RuntimeError(f"descant generate -o - ended with {child.returncode}: run it by itself to see why")
    return took


def _whole(studio: Any, seconds: float) -> float:
    """The largest difference of a streamed sample from the same tokens decoded at once, the faded ends left out."""
    player = Player(studio, Request(text=SENTENCE, seed=11), seconds)
    plan, request = player.plan, player.request
    streamed = torch.cat([block.wav for block in player], -1)
    frames = -(-streamed.shape[-1] // studio.codec.hop)
    with studio.at_work():
        codes = sample(studio.engine, frames, plan.condition(), settings=request.sampling, seed=plan.seed)
        offline: Tensor = soft(torch.nan_to_num(decode(studio.codec, codes)))[:, : streamed.shape[-1]]
    edge = round(0.03 * player.rate)
    return float((streamed - offline)[:, edge:-edge].abs().max())


def _part(studio: Any, seconds: float, times: int) -> dict[str, Any] | None:
    """Times real time of a bass beside given drums, nothing to be separated; None for a model that hears no stems."""
    if not getattr(studio.lm.config, "targets", 0):
        return None
    drums = next(iter(loops(1, seconds, studio.codec.rate))).wav
    drums = drums.reshape(-1, drums.shape[-1]).mean(0, keepdim=True)
    spent = []
    for seed in range(times):
        begun = time.perf_counter()
        accompany(studio, {"drums": Audio(drums, studio.codec.rate)}, ["bass"], Request(seed=seed))
        spent.append(time.perf_counter() - begun)
    middle = statistics.median(spent)
    return {"seconds": drums.shape[-1] / studio.codec.rate, "s": middle, "x": seconds / middle}


def page(found: Mapping[str, Any]) -> str:
    """The section of the report."""
    part, cores = found["part"], found["cores"]
    rows = [
        ["from the request to the first block, model loaded", f"**{found['loaded_s']:.2f} s**"],
        ["the slowest of them", f"{found['worst_s']:.2f} s"],
        ["the first one after loading", f"{found['fresh_s']:.2f} s"],
        ["loading the model, torch being there", f"{found['load_s']:.2f} s"],
        ["`descant generate -o -`, from the start of the process to the first sample", f"{found['process_s']:.2f} s"],
        ["largest difference of streamed from offline samples", f"{found['whole']:.1e}"],
    ]
    if part is not None:
        rows.append([f"{part['seconds']:g} s of bass beside given drums, from the request to the end",
                     f"{part['s']:.2f} s, **{part['x']:.1f}** times real time"])  # fmt: skip
    return (
        f"## The first sound\n\nOn the clock, {cores} threads, medians of {found['times']}; the first block lasts "
        f"{1000 * found['block_s']:.0f} ms. Most of what an empty process takes is the import of torch.\n\n"
        + table(["", "measured"], rows)
    )
