"""Does a MusicGen-shaped decoder keep up with its music? Ten seconds with guidance in 8 bits, on the clock.

A prompt is read, then tokens are drawn, by as many threads as the engine takes of those it is offered: what others do
on the machine counts, and is said. The parts of a step are found by leaving them out: layers, attention, the text.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from ..lm.fast import FastMusicGen
from ..lm.fast_memory import ByteMemory
from ..lm.fast_step import FusedStep, Texts
from ..lm.fast_threads import Watch, threads
from ..lm.musicgen import Conditions, MusicGenLM
from ..lm.musicgen_decoder import Block
from ..lm.sample import SamplingSettings, choose, noise
from .bench_lm_shape import ShapeRun, weights_like_trained
from .bench_report import table

#: Frames a second of the published models.
RATE = 50
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class RealtimeRun:
    """What is measured."""

    seconds: float = 10.0
    prompt: float = 2.0
    """Seconds that are read before the first token is drawn."""
    offered: tuple[int, ...] = (1, 2)
    """Threads."""
    shape: ShapeRun = field(default_factory=ShapeRun)
    steps: int = 15
    """Steps timed for each part."""

    def __post_init__(self) -> None:
        if self.seconds * RATE < 1 or self.prompt * RATE < 1 or not self.offered or min(self.offered) < 1:
            raise ValueError(
                f"{self.seconds:g} s after {self.prompt:g} s on {self.offered} threads: give a frame of each at least, "
                "and one thread or more"
            )


class _Seen(Watch):
    """Remembers what it chose for steps."""

    def __init__(self, step_bytes: int) -> None:
        super().__init__(step_bytes)
        self.chosen: list[int] = []

    def threads(self, positions: int = 1) -> int:
        """As of old."""
        count = super().threads(positions)
        if positions == 1:
            self.chosen.append(count)
        return count


@torch.no_grad()
def measure(run: RealtimeRun, say: Say) -> dict[str, Any]:
    """Seconds on the clock for a piece, its prompt included, and milliseconds of each part of a step."""
    torch.manual_seed(0)
    config = run.shape.sizes()
    model = MusicGenLM(config).eval()
    with threads(1):
        weights_like_trained(model)
    engine = FastMusicGen(model, "int8")
    cond = model.condition_states(torch.randn(1, run.shape.text, config.width))
    frames, known = round(run.seconds * RATE), round(run.prompt * RATE)
    prompt = torch.randint(0, config.cardinality, (1, config.books, known))
    found: dict[str, Any] = {
        "seconds": frames / RATE, "prompt": known / RATE, "cache": engine.form, "one_call": engine._fused is not None,
        "shape": {"width": config.width, "layers": config.layers, "heads": config.heads, "ffn": config.ffn},
        "text": run.shape.text, "rows": [],
    }  # fmt: skip
    with threads(1):
        engine.generate(3, cond, prompt=prompt)  # compiles
    for offered in run.offered:
        with threads(offered):
            seen = engine._watch = _Seen(engine.step_bytes)
            begun = time.perf_counter()
            drawn = engine.stream(frames, cond, prompt=prompt)
            next(drawn)
            heard = time.perf_counter() - begun
            count = 1 + sum(1 for _ in drawn)
            spent = time.perf_counter() - begun
        parts = _parts(engine, model, cond, (offered, known + frames // 2), run, spent - heard)
        row = {
            "offered": offered, "taken": statistics.mean(seen.chosen), "s": spent, "first_s": heard,
            "x": count / RATE / spent, "parts": parts,
        }  # fmt: skip
        found["rows"].append(row)
        say(f"{offered} threads offered, {row['taken']:.1f} taken: {row['x']:.2f} times real time")
    return found


def _parts(
    engine: FastMusicGen, model: MusicGenLM, cond: Conditions, at: tuple[int, int], run: RealtimeRun, whole: float
) -> dict[str, float]:
    """Milliseconds of a step at the middle of the piece; empty where a step is many calls."""
    offered, context = at
    if engine._fused is None:
        return {}
    blocks = [cast(Block, block) for block in model.blocks]
    one = FusedStep(model.config, blocks[:1], model.norm, model.heads.weight)
    ready = engine.ready(cond, True)
    told = cast(Texts, ready.texts)
    untold = Texts((model.config.layers, 1, model.config.heads, model.config.width), [0])
    cache = engine.cache(ready, context + 1)
    x = torch.randn(2, model.config.width)

    def timed(step: FusedStep, text: Texts, seen: int) -> float:
        cache.seen = seen
        return _clock(lambda: step.run(x, text, cast(ByteMemory, cache), offered), run.steps)

    least, alone = timed(engine._fused, untold, 0), timed(one, untold, 0)
    layer = (least - alone) / max(1, len(blocks) - 1)
    parts = {
        "layers": layer * len(blocks), "heads": max(0.0, alone - layer),
        "attention": timed(engine._fused, untold, context) - least,
        "text": timed(engine._fused, told, 0) - least, "drawing": _clock(_draw(model), run.steps),
    }  # fmt: skip
    step = 1000 * whole / (round(run.seconds * RATE) - 1)
    return {**parts, "rest": step - sum(parts.values()), "step": step}


def _draw(model: MusicGenLM) -> Callable[[], Tensor]:
    shape, settings = (model.config.books, model.config.cardinality), SamplingSettings()
    logits, generator = torch.randn(2, *shape), torch.Generator()
    return lambda: choose(logits[1] + 3.0 * (logits[0] - logits[1]), settings, noise(0, 1, shape, generator))


def _clock(work: Callable[[], object], steps: int) -> float:
    """Median milliseconds on the clock."""
    work()
    spent = []
    for _ in range(steps):
        begun = time.perf_counter()
        work()
        spent.append(1000 * (time.perf_counter() - begun))
    return statistics.median(spent)


def page(found: Mapping[str, Any]) -> str:
    """The section of the report."""
    size = found["shape"]
    rows, parts = [], []
    for row in found["rows"]:
        rows.append([str(row["offered"]), f"{row['taken']:.1f}", f"{row['s']:.2f}", f"{row['first_s']:.2f}",
                     f"**{row['x']:.2f}**"])  # fmt: skip
        if row["parts"]:
            parts.append([str(row["offered"]), *(f"{ms:.2f}" for ms in row["parts"].values())])
    header = ["threads offered", "taken", "s in all", "s to the first frame", "times real time"]
    text = (
        f"## MusicGen in real time\n\n{found['seconds']:g} s of music after a prompt of {found['prompt']:g} s, with "
        f"guidance and {found['text']} tokens of text, on a decoder of {size['layers']} layers of width "
        f"{size['width']} in 8 bits, its cache in {found['cache']}; on the clock, codec not included. Threads are "
        f"taken where nobody else is computing.\n\n{table(header, rows)}"
    )
    if not parts:
        return text
    names = ["threads offered", "layers", "heads", "attention", "text", "drawing", "everything else", "a step"]
    return (
        f"{text}\n\nMilliseconds of a step's parts, on the clock, at the middle of the piece; what they leave of a "
        f"step is embedding, Python, and waiting.\n\n{table(names, parts)}"
    )
