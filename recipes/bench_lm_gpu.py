"""Language models on a GPU: steps of a MusicGen-shaped decoder beside transformers, many pieces at once, training.

Wall-clock time between two moments at which the device has nothing left to do, after a first piece that records the
steps. The same code measures on a CPU, on small shapes, which is how it is tested.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..lm.condition import Condition, collate
from ..lm.fast_graph_musicgen import GraphMusicGen
from ..lm.fast_graph_token import GraphTokenLM
from ..lm.model import LMConfig, TokenLM, embedded
from ..lm.musicgen import MusicGenLM
from ..lm.musicgen_config import MusicGenConfig, small
from ..lm.sample import SamplingSettings, sample_batch
from .bench_lm_shape import Library
from .flops import Meter, crop_flops
from .optimiser import optimisers

#: What is said where there is nothing to measure on.
MISSING = "no CUDA device"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Training:
    """A shape whose training step is timed."""

    name: str
    lm: LMConfig
    crops: int
    frames: int


def _trainings() -> tuple[Training, ...]:
    wide = LMConfig(width=1024, layers=24, heads=16, cardinality=2048, window=1500)
    return (
        Training(name="embedded", lm=embedded(), crops=128, frames=500),
        Training(name="0.4 B", lm=wide, crops=16, frames=1500),
    )


@dataclass(frozen=True, kw_only=True)
class GpuRun:
    """What is measured."""

    device: str = "cuda"
    frames: int = 1500
    """Of a piece: 30 s."""
    pieces: int = 64
    """At once, in the rows of many."""
    text: int = 12
    peer_steps: int = 100
    """Steps of the transformers library; 0 leaves it out."""
    steps: int = 20
    """Steps of training."""
    config: MusicGenConfig = field(default_factory=small)
    own: LMConfig = field(default_factory=embedded)
    trainings: tuple[Training, ...] = field(default_factory=_trainings)


def measure(run: GpuRun, say: Say) -> dict[str, Any]:
    """Rows of decoding and of training; ``{"missing": ...}`` where there is no such device."""
    device = torch.device(run.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        say(f"not measured: {MISSING}")
        return {"missing": MISSING}
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    found: dict[str, Any] = {"about": _about(device), "frames": run.frames, "pieces": run.pieces}
    found["decoding"] = [*_musicgen(run, device, dtype, say), *_own(run, device, say)]
    if run.peer_steps:
        found["library"] = _transformers(run, device, dtype, say)
    found["training"] = [_train(each, run.steps, device, say) for each in run.trainings]
    return found


def _about(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "torch": torch.__version__, "cuda": str(torch.version.cuda)}


def _musicgen(run: GpuRun, device: torch.device, dtype: torch.dtype, say: Say) -> list[dict[str, Any]]:
    model = _made(run, device, dtype)
    ways: list[tuple[str, int, Callable[[], GraphMusicGen]]] = [
        ("one step recorded", 1, partial(GraphMusicGen, model)),
        ("one step recorded", run.pieces, partial(GraphMusicGen, model)),
        ("by xformers", 1, partial(GraphMusicGen, model, "xformers")),
    ]
    if device.type == "cuda":  # on a CPU the compiler takes minutes
        ways.insert(1, ("compiled, then recorded", 1, partial(GraphMusicGen, model, compiled=True)))
    rows = []
    for name, pieces, make in ways:
        try:
            engine = make()
        except ModuleNotFoundError:
            continue  # without xformers
        states = torch.randn(pieces, run.text, run.config.width, device=device)
        cond = model.condition_states(states)
        work = partial(engine.generate, run.frames, cond, settings=SamplingSettings(guidance=3.0))
        rows.append(_timed(f"MusicGen {run.config.layers} x {run.config.width}, {name}", run, pieces, work, say))
        del engine
        gc.collect()
    return rows


def _made(run: GpuRun, device: torch.device, dtype: torch.dtype) -> MusicGenLM:
    torch.manual_seed(0)
    config = replace(run.config, text_width=run.config.width)
    return MusicGenLM(config).eval().to(device, dtype)


def _own(run: GpuRun, device: torch.device, say: Say) -> list[dict[str, Any]]:
    """The shape of the embedded model, which has guidance to do: a tempo is given."""
    torch.manual_seed(0)
    engine = GraphTokenLM(TokenLM(run.own).eval().to(device), half=device.type == "cuda")
    rows = []
    for pieces in (1, run.pieces):
        work = partial(sample_batch, engine, run.frames, [Condition(tempo=120.0)] * pieces)
        name = f"embedded {run.own.layers} x {run.own.width}, one step recorded"
        rows.append(_timed(name, run, pieces, work, say))
    return rows


def _timed(name: str, run: GpuRun, pieces: int, work: Callable[[], Tensor], say: Say) -> dict[str, Any]:
    begun = time.perf_counter()
    work()
    recorded = time.perf_counter()
    codes = work()
    spent = time.perf_counter() - recorded
    rate = codes.shape[2] / spent
    row = {
        "name": name, "pieces": pieces, "steps_s": rate, "x": pieces * codes.shape[2] / 50.0 / spent,
        "first_s": max(0.0, recorded - begun - spent),
    }  # fmt: skip
    say(f"{name}, {pieces} piece(s): {rate:.0f} steps a second, {row['x']:.1f} times real time")
    return row


@torch.inference_mode()
def _transformers(run: GpuRun, device: torch.device, dtype: torch.dtype, say: Say) -> dict[str, Any]:
    """The library's own steps with its growing cache, nothing drawn from them: less work than a piece is."""
    model = _made(run, torch.device("cpu"), torch.float32)
    library = Library(model, torch.randn(1, run.text, run.config.width))
    library.to(device, dtype)
    one = torch.zeros(1, run.config.books, 1, dtype=torch.long, device=device)
    spent = 0.0
    for _ in range(2):  # the first time, kernels are loaded
        cache = library.cache()
        _wait(device)
        begun = time.perf_counter()
        for _ in range(run.peer_steps):
            library.forward(one, cache)
        _wait(device)
        spent = time.perf_counter() - begun
    rate = run.peer_steps / spent
    say(f"transformers {library.version}: {rate:.1f} steps a second")
    return {"name": f"transformers {library.version}", "steps": run.peer_steps, "steps_s": rate, "x": rate / 50.0}


def _train(shape: Training, steps: int, device: torch.device, say: Say) -> dict[str, Any]:
    """Tokens a second of the recipe's step, in bfloat16 on a GPU, on drawn tokens: reading data is left out."""
    torch.manual_seed(0)
    half = device.type == "cuda"
    lm = TokenLM(shape.lm).to(device).train()
    made = optimisers("lm", lm, lambda name: "blocks." in name, (0.9, 0.95), 0.1)
    codes = torch.randint(0, shape.lm.cardinality, (shape.crops, shape.lm.books, shape.frames), device=device)
    told = collate([Condition(tempo=120.0, key="A minor")] * shape.crops, shape.frames).to(device)
    tokens = shape.frames * shape.lm.books
    meter = Meter(crop_flops(lm, shape.frames), tokens, device, half, 1)
    for _ in range(steps + 1):
        lm.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = lm.loss(codes, told)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        for optimiser in made.values():
            optimiser.step()
        meter.step(shape.crops)
    seen = meter.look()
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if half else 0.0
    say(f"training {shape.name}: {seen['tokens/s']:.0f} tokens a second, MFU {100 * seen['mfu']:.0f} %")
    return {
        "name": shape.name, "parameters": sum(value.numel() for value in lm.parameters()), "crops": shape.crops,
        "frames": shape.frames, "tokens_s": seen["tokens/s"], "mfu": seen["mfu"], "memory_gib": memory,
    }  # fmt: skip


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
