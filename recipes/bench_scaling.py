"""What large models would take: memory and time on many GPUs, from counted layers and published figures.

No such run was made here. Two kinds of numbers go in. Counted: the arithmetic of a layer, by torch's own counter, on
tensors without data, and the bytes it keeps for the backward pass. Published: what a GPU and its links can do
(the maker's data sheets), and which share of a GPU's arithmetic training of such sizes reaches (MosaicML, LLM Foundry,
``scripts/train/benchmarking``, H100 80 GB, bfloat16, 2,048 positions). All else is arithmetic, done here.

    python -m descant.recipes.bench_scaling --page docs/scaling.md
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..lm.musicgen_config import MusicGenConfig
from ..lm.musicgen_decoder import Block, Told

#: Published shapes, by their sizes; parameters are counted.
SHAPES: dict[str, MusicGenConfig] = {
    "0.4 B": MusicGenConfig(width=1024, layers=24, heads=16, ffn=4096),
    "1.8 B": MusicGenConfig(width=1536, layers=48, heads=24, ffn=6144),
    "3.3 B": MusicGenConfig(width=2048, layers=48, heads=32, ffn=8192),
}
#: 30 s at 50 frames a second, and the delays of four books; tokens of a sentence.
STEPS, WORDS = 1503, 64
#: Dense bfloat16 FLOP/s of an H100 SXM or H200, and bytes of memory of the first.
PEAK, MEMORY = 989e12, 80e9
#: Bytes a second: of a GPU within a machine of eight (NVLink, one way), and of a machine to others (eight times 400
#: Gbit/s, which a sum over machines uses all at once, since each GPU's link carries another part of it).
INSIDE, BETWEEN = 450e9, 8 * 50e9
#: Share of the peak that training reaches without what it exchanges: LLM Foundry's 760 M, 1 B and 3 B on 8 to 16 GPUs.
REACHED = {"0.4 B": 0.35, "1.8 B": 0.42, "3.3 B": 0.43}
GPUS = (8, 64, 512)
#: Crops of 30 s in a step; MusicGen's own batch is 192 (Copet et al., 2023, section 3.2).
BATCH = {8: 192, 64: 192, 512: 512}
#: Share of a GPU's memory that a plan may fill: buckets, fragments and the libraries take the rest.
FILL = 0.85
#: Updates of a whole run, and crops a GPU takes at once, at most.
UPDATES, AT_ONCE = 1_000_000, 24
_MARKS = ("<!-- table -->", "<!-- end of table -->")


@dataclass(frozen=True)
class Layer:
    """One layer on one crop: counted."""

    forward: float
    """FLOPs of products; attention counted in full, which fused kernels halve."""
    backward: float
    kept: int
    """Bytes kept for the backward pass, without the attention weights, which fused kernels do not keep."""
    parameters: int


@dataclass(frozen=True)
class Plan:
    """One model on so many GPUs: arithmetic."""

    model: str
    gpus: int
    stage: int
    crops: int
    """Crops a GPU takes at once."""
    parts: int
    """One after another, gradients added up."""
    checkpointing: bool
    states: float
    """Bytes of weights, gradients, optimiser and averages on a GPU."""
    activations: float
    seconds: tuple[float, float]
    """A step: everything exchanged behind the arithmetic, and nothing."""
    mfu: tuple[float, float]
    """The same two, worst first."""


def count(config: MusicGenConfig) -> Layer:
    """Count one layer's arithmetic and memory on a crop, in bfloat16, on tensors that have shapes only."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        block = Block(config).to(torch.bfloat16)
        x = torch.empty(1, STEPS, config.width, dtype=torch.bfloat16, requires_grad=True)
        words = torch.empty(1, WORDS, config.width, dtype=torch.bfloat16)
    own = {value.untyped_storage()._cdata for value in block.parameters()}
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        square = value.dim() >= 2 and value.shape[-1] in (STEPS, WORDS) and value.shape[-2] == STEPS
        if storage._cdata not in own and not square:
            kept[storage._cdata] = storage.nbytes()
        return value

    with FlopCounterMode(display=False) as forward, torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        keys, values = block.tell(words)
        out = block(x, 0, Told([keys], [values], None))
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    parameters = sum(value.numel() for value in block.parameters())
    return Layer(float(forward.get_total_flops()), float(backward.get_total_flops()), sum(kept.values()), parameters)


def sizes(config: MusicGenConfig, layer: Layer) -> tuple[int, float]:
    """Parameters of a whole decoder, and FLOPs of a crop forward and backward: its layers and its heads."""
    heads = config.books * config.cardinality * config.width
    embedded = config.books * (config.cardinality + 1) * config.width
    flops = config.layers * (layer.forward + layer.backward) + 6.0 * heads * STEPS
    return config.layers * layer.parameters + heads + embedded, flops


def states(parameters: int, stage: int, gpus: int) -> float:
    """Bytes a GPU holds under ZeRO ``stage``, as the recipes have it: weights and averages in float32.

    Weights 4, gradients 4, averages 4, AdamW's moments 8 and DeepSpeed's own copy of the weights 4 bytes each.
    """
    shared = {1: 12, 2: 16, 3: 24}[stage]
    return parameters * ((24 - shared) + shared / gpus)


def plan(model: str, layer: Layer, gpus: int) -> Plan:
    """The lowest stage that fits, without checkpointing where that fits; and what a step then takes."""
    config = SHAPES[model]
    parameters, flops = sizes(config, layer)
    each = BATCH[gpus] // gpus
    for stage in (1, 2, 3):
        held = states(parameters, stage, gpus)
        for checkpointing in (False, True):
            # checkpointed: the input of every layer, and one layer whole
            inputs = config.layers * STEPS * config.width * 2
            one = inputs + layer.kept if checkpointing else config.layers * layer.kept
            # the heads' logits in float32, and their gradient
            one += 2 * 4 * STEPS * config.books * config.cardinality
            fitting = [n for n in range(1, min(each, AT_ONCE) + 1) if each % n == 0 and held + n * one < FILL * MEMORY]
            if not fitting:
                continue
            crops = fitting[-1]
            return _timed(model, gpus, stage, (crops, each // crops), checkpointing, held, crops * one, flops)
    raise ValueError(f"{model} does not fit on {gpus} GPUs of {MEMORY / 1e9:.0f} GB with {BATCH[gpus]} crops a step")


def _timed(
    model: str, gpus: int, stage: int, crops: tuple[int, int], checkpointing: bool, held: float, activations: float,
    flops: float,
) -> Plan:  # fmt: skip
    parameters = sizes(SHAPES[model], count(SHAPES[model]))[0]
    useful = flops * crops[0] * crops[1]
    done = useful * (4 / 3 if checkpointing else 1.0)
    arithmetic = done / (PEAK * REACHED[model])
    # gradients are summed and handed out, weights gathered; under stage 3 weights twice, for every part
    moves = 2 * 4 if stage < 3 else 4 + 8 * crops[1]
    exchange = moves * parameters * (gpus - 1) / gpus / (INSIDE if gpus <= 8 else BETWEEN)
    seconds = max(arithmetic, exchange), arithmetic + exchange
    worst, best = (useful / (PEAK * time) for time in reversed(seconds))
    return Plan(model, gpus, stage, *crops, checkpointing, held, activations, seconds, (worst, best))


def table() -> str:
    """The page's tables, as Markdown."""
    layers = {name: count(config) for name, config in SHAPES.items()}
    rows = [_row("model", "layers x width", "parameters", "forward", "backward", "kept by a layer", "a crop in all")]
    rows.append("|---|---|---|---|---|---|---|")
    for name, config in SHAPES.items():
        layer = layers[name]
        parameters, flops = sizes(config, layer)
        way = (f"{value / 1e12:.3f} TFLOP" for value in (layer.forward, layer.backward))
        size, kept = f"{parameters / 1e9:.2f} B", f"{layer.kept / 1e6:.0f} MB"
        rows.append(_row(name, f"{config.layers} x {config.width}", size, *way, kept, f"{flops / 1e12:.1f} TFLOP"))
    titles = ("model", "GPUs", "ZeRO", "crops a step", "on a GPU", "recomputed", "states", "activations", "a step")
    rows += ["", _row(*titles, "MFU", "1 M steps"), "|---|---|---|---|---|---|---|---|---|---|---|"]
    for name in SHAPES:
        for gpus in GPUS:
            p = plan(name, layers[name], gpus)
            days = (f"{seconds * UPDATES / 86400:.1f}" for seconds in p.seconds)
            memory = (f"{size / 1e9:.1f} GB" for size in (p.states, p.activations))
            step, mfu = (f"{seconds:.3f}" for seconds in p.seconds), (f"{share:.0%}" for share in p.mfu)
            shown = _row(
                name, str(gpus), str(p.stage), str(BATCH[gpus]), f"{p.crops} x {p.parts}",
                "yes" if p.checkpointing else "no", *memory, f"{_span(*step)} s", _span(*mfu), f"{_span(*days)} days",
            )  # fmt: skip
            rows.append(shown)
    return "\n".join(rows)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def write(page: str | os.PathLike[str]) -> None:
    """Put the tables between the marks of ``page``. Raises ValueError when it has none."""
    page = Path(page)
    before, begin, rest = page.read_text(encoding="utf-8").partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    if not begin or not end:
        raise ValueError(f"{page} has no lines {_MARKS[0]} and {_MARKS[1]}: the tables go between them")
    part = page.with_name(page.name + ".part")
    part.write_text(f"{before}{begin}\n{table()}\n{end}{after}", encoding="utf-8")
    part.replace(page)


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m descant.recipes.bench_scaling --page FILE``."""
    parser = argparse.ArgumentParser(description="work out memory and time of large models on many GPUs")
    parser.add_argument("--page", required=True, metavar="FILE", help="a Markdown page with the two marks")
    write(parser.parse_args(argv).page)


if __name__ == "__main__":
    main()
