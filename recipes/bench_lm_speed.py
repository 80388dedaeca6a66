"""``descant bench lm``: how fast language models decode on this machine, mostly on one thread and in CPU time.

Sections: ``machine`` (the bandwidth of memory, which bounds a step), ``shape`` (a MusicGen-shaped decoder against the
transformers library in the same process), ``realtime`` (does it keep up with its music, on the clock), ``first`` (how
soon something sounds, on the clock), ``embedded`` (the model in the package, codec included), ``int8`` (what 8 bits
cost on held-out tokens), ``endless`` (memory and step time of music without end) and ``gpu`` (decoding and training on
a CUDA device, where there is one).
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..eval.metric import write_whole
from . import bench_lm_embedded, bench_lm_endless, bench_lm_first, bench_lm_gpu, bench_lm_realtime, bench_lm_shape
from .bench_lm_gpu import GpuRun
from .bench_lm_gpu_page import gpu_part
from .bench_lm_realtime import RealtimeRun
from .bench_lm_shape import ShapeRun, fastest
from .bench_report import table

#: What can be measured, in the order of the page.
SECTIONS: tuple[str, ...] = ("machine", "shape", "realtime", "first", "embedded", "int8", "endless", "gpu")
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SpeedRun:
    """What is measured and how long."""

    model: str = "embedded"
    """Name or folder, as for ``descant generate``."""
    tokens: str | None = None
    """Held-out tokens of the model's codec; without them the section ``int8`` is left out."""
    only: tuple[str, ...] = SECTIONS
    shape: ShapeRun = field(default_factory=ShapeRun)
    realtime: RealtimeRun = field(default_factory=RealtimeRun)
    seconds: float = 10.0
    """Music of the section ``embedded``."""
    minutes: float = 10.0
    """Music of the section ``endless``."""
    crops: int = 48
    """Held-out pieces of the section ``int8``."""
    gpu: GpuRun = field(default_factory=GpuRun)

    def __post_init__(self) -> None:
        odd = [name for name in self.only if name not in SECTIONS]
        if odd or not self.only:
            raise ValueError(f"no section {', '.join(odd) or 'named'}: choose from {', '.join(SECTIONS)}")
        if "int8" in self.only and self.only != SECTIONS and self.tokens is None:
            raise ValueError("the section int8 needs held-out tokens: name their folder with --tokens")
        if not 0.1 <= self.seconds <= 600 or not 0.1 <= self.minutes <= 600 or self.crops < 2:
            raise ValueError(
                f"{self.seconds:g} seconds, {self.minutes:g} minutes, {self.crops} pieces: allowed are 0.1 to 600 "
                "seconds and minutes, and two pieces or more"
            )


def report(run: SpeedRun, say: Say | None = None, command: str = "descant bench lm") -> dict[str, Any]:
    """Measure the sections asked for; each says by which command and beside how much other work."""
    from ..gen.load import load

    said = say or (lambda _: None)
    studio = load(run.model, 1) if {"embedded", "int8", "endless"} & set(run.only) else None
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "machine": lambda: _machine(said),
        "shape": lambda: bench_lm_shape.measure(run.shape, said),
        "realtime": lambda: bench_lm_realtime.measure(run.realtime, said),
        "first": lambda: bench_lm_first.measure(run.model, said),
        "gpu": lambda: bench_lm_gpu.measure(run.gpu, said),
    }
    if studio is not None:
        work["embedded"] = lambda: bench_lm_embedded.speed(studio, run.seconds, said)
        work["endless"] = lambda: bench_lm_endless.endless(studio, run.minutes, said)
        tokens = run.tokens
        if tokens is not None:
            work["int8"] = lambda: bench_lm_embedded.quality(studio.lm, tokens, run.crops, said)
    sections = {}
    for name in SECTIONS:
        if name in run.only and name in work:
            said(f"{name} ...")
            sections[name] = {"command": command, "load": _load(), "found": work[name]()}
    return {"schema": "descant-bench-lm/1", "about": _about(), "sections": sections}


def write(folder: str | os.PathLike[str], found: Mapping[str, Any]) -> Path:
    """``lm.json`` and ``lm.md``; sections that were not measured now are kept as an earlier run left them.

    Those of the CPU must be of this torch and processor; the GPU's says itself what it was measured on.
    """
    path = Path(folder) / "lm.json"
    about, sections = found["about"], dict(found["sections"])
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        kept = dict(old["sections"])
        if "missing" in sections.get("gpu", {}).get("found", {}):
            sections["gpu"] = kept.get("gpu", sections["gpu"])
        if set(sections) == {"gpu"}:
            about = old["about"]  # what a lent GPU did stands beside what this machine did
        if about != old["about"]:
            kept = {name: kept[name] for name in kept if name == "gpu"}
        sections = {**kept, **sections}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no earlier run, or none of ours
    whole = {**found, "about": about, "sections": {name: sections[name] for name in SECTIONS if name in sections}}
    write_whole(path, (json.dumps(whole, indent=1) + "\n").encode())
    write_whole(Path(folder) / "lm.md", markdown(whole).encode())
    return Path(folder) / "lm.md"


def markdown(whole: Mapping[str, Any]) -> str:
    """The page."""
    about, sections = whole["about"], whole["sections"]
    parts = [
        "# The language models' speed, measured",
        f"{about['processor']}, {about['cores']} cores, torch {about['torch']}, {about['machine']}. One thread, "
        "CPU time of the process (not the clock on the wall); a busy machine still shows, in caches and memory that "
        "are shared. Everything on this page is made by `descant bench lm`.",
    ]
    found = {name: section["found"] for name, section in sections.items()}
    makers = {
        "machine": _machine_part, "realtime": bench_lm_realtime.page, "first": bench_lm_first.page,
        "embedded": _embedded_part, "int8": _int8_part, "endless": _endless_part, "gpu": gpu_part,
    }  # fmt: skip
    for name, section in sections.items():
        rate = found.get("machine", {}).get("bandwidth")
        text = _shape_part(found[name], rate) if name == "shape" else makers[name](found[name])
        load = "" if section["load"] is None else f"; the machine's load was {section['load']:.1f} when it began"
        parts.append(f"{text}\n\nMade by `{section['command']}`{load}.")
    return "\n\n".join(parts) + "\n"


def _machine_part(found: Mapping[str, Any]) -> str:
    return (
        "## The machine\n\nA step reads every weight once, so it cannot take less than their size over the memory's "
        f"bandwidth. One thread reads {found['bandwidth'] / 1e9:.1f} GB a second here."
    )


def _shape_part(found: Mapping[str, Any], rate: float | None) -> str:
    contexts = [str(context) for context in found["contexts"]]
    base = next((row for row in found["rows"] if row["name"].endswith(" fp32")), None)
    rows = []
    for row in found["rows"]:
        cells = [row["name"]]
        for context in contexts:
            ms = row["ms"][context]
            times = f" ({base['ms'][context] / ms:.1f}x)" if base is not None else ""
            cells.append(f"{ms:.1f}{times}")
        cells.append(f"{1000 / row['ms'][contexts[0]]:.0f}")
        if rate is not None and "weight_bytes" in row:
            least = [1000 * (row["weight_bytes"] + row["cache_bytes"][context]) / rate for context in contexts]
            cells.append(" / ".join(f"{ms:.1f}" for ms in least))
        else:
            cells.append("")
        if "kl" in row:
            cells += [f"{row['largest']:.1e}", f"{row['kl']:.1e}", f"{row['kl_guided']:.1e}"]
        else:
            cells += [""] * 3
        rows.append(cells)
    header = ["", *(f"ms per step at {context}" for context in contexts), f"steps/s at {contexts[0]}",
              "bandwidth allows, ms", "largest difference of a logit", "KL, nats", "KL guided by 3, nats"]  # fmt: skip
    best = fastest(found["rows"], int(contexts[0]))["name"]
    size = found["shape"]
    return (
        f"## A MusicGen-shaped decoder\n\n{found['parameters'] / 1e6:.0f} million weights ({size['layers']} layers of "
        f"width {size['width']}), {found['text']} tokens of text, with guidance: two rows per step. The median of "
        f"{found['steps']} steps at contexts of {' and '.join(contexts)} positions; a second of music is 50 steps. "
        "Weights are drawn in statistics like those of trained ones; the rows of one library and the other compute the "
        "same function, and the last columns say how far their logits are from fp32's over 64 steps (entropy "
        f"{next(row['entropy'] for row in found['rows'] if 'entropy' in row):.1f} nats).\n\n{table(header, rows)}\n\n"
        f"Fastest: {best}. Drawing a token after a step (guidance, top-k 250, noise) takes {found['draw_ms']:.2f} ms "
        "more."
    )


def _embedded_part(found: Mapping[str, Any]) -> str:
    rows = [
        [row["precision"], f"{row['ms']:.2f}", f"{row['codec_ms']:.2f}", f"{row['x']:.1f}",
         " / ".join(f"{row['lm_x'][count]:.1f}" for count in ("1", "4", "8"))]
        for row in found["rows"]
    ]  # fmt: skip
    header = ["weights", "ms per step", "codec, ms per frame", "times real time, codec included",
              "model alone, 1 / 4 / 8 pieces at once, times real time in all"]  # fmt: skip
    return (
        f"## The embedded model\n\n{found['seconds']:g} s of music with guidance, one thread: drawn, decoded and "
        f"brought to its level. The model's own modules, one step at a time, take {found['module_ms']:.2f} ms per step "
        f"before anything is drawn.\n\n{table(header, rows)}"
    )


def _int8_part(found: Mapping[str, Any]) -> str:
    rows = [
        [str(book + 1), f"{row['fp32']:.4f}", f"{row['increase']:+.4f}", f"{row['low']:+.4f} ... {row['high']:+.4f}"]
        for book, row in enumerate(found["books"])
    ]
    return (
        f"## What 8 bits cost\n\nCross-entropy of held-out music given all its conditions, {found['crops']} pieces, "
        f"{found['frames']} frames from the middle of each; 95 % bootstrap intervals over pieces.\n\n"
        + table(["book", "fp32, nats", "8 bits, more by", "95 %"], rows)
    )


def _endless_part(found: Mapping[str, Any]) -> str:
    rows = [
        [f"{(index + 1) * found['seconds'] / len(found['rows']):.0f}", f"{row['ms']:.2f}", f"{row['mib']:.1f}"]
        for index, row in enumerate(found["rows"])
    ]
    return (
        f"## Music without end\n\n{found['seconds'] / 60:g} minutes from the embedded model, {found['precision']}, "
        "streamed and decoded a second at a time. Resident memory grew by at most "
        f"**{found['growth_mib']:.1f} MiB** after the first tenth. The median step of the last "
        f"{found['compared_s']:.0f} s took **{100 * found['drift']:+.1f} %** more than that of the first "
        f"{found['compared_s']:.0f} s after the cache's ring was full, once the machine's own pace is taken out: "
        f"the steps changed by {100 * found['raw']:+.1f} %, a step that stays at one place, timed in between once a "
        f"second, by {100 * found['pace']:+.1f} %.\n\n"
        + table(["s of music", "ms per step, median", "resident, MiB"], rows)
    )


def _machine(say: Say) -> dict[str, Any]:
    rate = bench_lm_embedded.bandwidth()
    say(f"one thread reads {rate / 1e9:.1f} GB/s")
    return {"bandwidth": rate}


def _about() -> dict[str, Any]:
    return {
        "processor": _processor(), "cores": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }  # fmt: skip


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def chosen(names: Sequence[str] | None, tokens: str | None, device: str = "cpu") -> tuple[str, ...]:
    """Sections to measure: those named, the GPU's alone when ``device`` is one, or all that can be."""
    if names:
        return tuple(names)
    if device != "cpu":
        return ("gpu",)
    return SECTIONS if tokens is not None else tuple(name for name in SECTIONS if name != "int8")
