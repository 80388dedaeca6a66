"""How long ``descant score`` takes, whole: everything it can compute, on two cores, with sockets forbidden.

The clips are made by the built-in composer and synthesiser (or given), with captions, labels, melodies and stems, so
that no row is left out for want of input. Nothing is cached. A process of its own scores them under an audit hook that
lets no interpreter, workers included, touch a socket; its time by the clock, its processor time and its memory are
taken stage by stage.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from ..codec.audio import Audio
from ..codec.audio import write as write_audio
from ..eval.metric import write_whole
from . import builtin
from .bench_report import table

#: What the whole report may take, in seconds by the clock.
TARGET = 600.0
_RUN = "import sys; from descant.recipes.bench_score import measure; measure(sys.argv[1])"
#: Stages of the report, as its progress names them, and the page after them.
_STAGES: Mapping[str, str] = {
    "start": "start, judges loaded", "generated": "hearing the generated clips", "reference": "hearing the reference",
    "figures": "distances, adherence, stems", "self-check": "self-check", "page": "tables and page",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScoreBenchConfig:
    """Sizes of the measurement, or folders that are there already."""

    clips: int = 200
    """On either side."""
    seconds: float = 10.0
    stems: int = 32
    """Clips that come with the stems they were made for."""
    jobs: int = 2
    seed: int = 0
    generated: str | None = None
    """Clips to score instead of made ones; they have no labels and stems but what lies beside them."""
    reference: str | None = None

    def __post_init__(self) -> None:
        if self.clips < 1 or not 1 <= self.seconds <= 120 or not 0 <= self.stems <= self.clips or self.jobs < 1:
            raise ValueError(
                f"{self.clips} clips of {self.seconds:g} s, {self.stems} with stems, {self.jobs} jobs: need a clip or "
                "more of 1 to 120 s, no more stems than clips, and a job"
            )
        if (self.generated is None) != (self.reference is None):
            raise ValueError("name both folders, generated and reference, or neither")


def run(config: ScoreBenchConfig, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Make the clips, score them, -> a report that prints as JSON. Raises RuntimeError when scoring fails."""
    said = progress or (lambda _: None)
    with tempfile.TemporaryDirectory(prefix="descant-bench-score-") as made:
        root = Path(made)
        if config.generated is None or config.reference is None:
            make(root, config)
            said(f"made {2 * config.clips} clips of {config.seconds:g} s")
            job = {name: str(root / name) for name in ("generated", "reference", "labels.csv", "stems")}
        else:
            job = {"generated": config.generated, "reference": config.reference}
        found = _scored(root, job, config)
        said(f"scored in {found['seconds']:.0f} s, {found['cpu_seconds']:.0f} s of processor time")
    return found


def make(folder: str | os.PathLike[str], config: ScoreBenchConfig) -> None:
    """Write ``generated``, ``reference``, ``labels.csv`` and ``stems`` into a folder; equal settings, equal files."""
    root = Path(folder)
    for name in ("generated", "reference", "stems"):
        (root / name).mkdir(parents=True, exist_ok=True)
    job = partial(_piece, root=root, config=config)
    if config.jobs == 1:
        rows = [job(index) for index in range(config.clips)]
    else:
        with ProcessPoolExecutor(config.jobs, get_context("spawn")) as pool:
            rows = list(pool.map(job, range(config.clips), chunksize=4))
    text = io.StringIO()
    rower = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    rower.writeheader()
    rower.writerows(rows)
    write_whole(root / "labels.csv", text.getvalue().encode())


def measure(path: str | os.PathLike[str]) -> None:
    """What the measured process does: score what the job file says, and write its stages beside it."""
    from ..eval.report.score import ScoreSettings, score, write
    from ..gen.cli_score import RoundTrip

    file = Path(path)
    job = json.loads(file.read_text())
    clock = _Clock()
    settings = ScoreSettings(
        jobs=job["jobs"], seed=job["seed"], codec=RoundTrip(), progress=clock, command=("descant", "score")
    )
    labels = job.get("labels.csv")
    report = score(
        job["generated"], job["reference"], prompts=labels, labels=labels, stems=job.get("stems"), settings=settings
    )  # fmt: skip
    clock("page", 0, 1)
    out = write(report, file.parent / "report")
    clock("end", 0, 1)
    check = [
        {"judge": group.judge, "ok": group.ok, "reason": group.reason,
         "rows": [{"name": row.name, "value": row.value, "low": row.low, "high": row.high, "ok": row.ok}
                  for row in group.rows]}
        for group in report.self_check.groups
    ]  # fmt: skip
    answer = {
        "stages": clock.stages(), "valid": report.valid, "reason": report.self_check.reason, "self_check": check,
        "rows": len(report.results), "rows_without_value": sorted(
            item.metric for item in report.results if item.value is None
        ),
        "clips": {"generated": report.generated.clips, "reference": report.reference and report.reference.clips},
        "audio_seconds": report.generated.seconds + (report.reference.seconds if report.reference else 0.0),
        "page_bytes": (out / "index.html").stat().st_size,
    }  # fmt: skip
    write_whole(file.parent / "answer.json", json.dumps(answer).encode())


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """``score.json`` and ``score.md`` in a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "score.json", (json.dumps(report, indent=1) + "\n").encode())
    write_whole(folder / "score.md", (page(report) + "\n").encode())


def page(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    about, config = report["about"], report["about"]["config"]
    kind = "made by the built-in synthesiser" if config["generated"] is None else "given"
    absent = report["rows_without_value"]
    verdict = "kept" if report["seconds"] <= TARGET else "missed"
    lines = [
        ["**all**", f"**{report['seconds']:.0f}**", f"**{report['cpu_seconds']:.0f}**"],
        *([name, f"{row['seconds']:.0f}", f"{row['cpu_seconds']:.0f}"] for name, row in report["stages"].items()),
    ]
    parts = [
        "# Scoring: what a whole report costs",
        f"Made by `{about['command']}` on {about['processor']}, {about['cores']} cores, {config['jobs']} jobs of one "
        f"thread; descant {about['descant']}, torch {about['torch']}, Python {about['python']}. Load of the machine by "
        f"other work when it began: {about['load']:.1f} processes.",
        f"{report['clips']['generated']} clips and {report['clips']['reference']} reference clips of "
        f"{config['seconds']:g} s, {kind}; captions, tempo, key, genre, instruments and melody of every clip, stems of "
        f"{config['stems']}. Nothing cached, self-check and page included.",
        f"Goal: {TARGET:.0f} s by the clock on two cores: {verdict}. Two idle cores need about half the "
        f"processor time. Sockets opened: {report['sockets']}; an audit hook in every interpreter refuses "
        "them.",
        table(["stage", "seconds", "processor seconds"], lines),
        f"Largest process: {report['peak_mb']:.0f} MB. Page: {report['page_bytes'] / 1e6:.1f} MB. "
        f"{report['rows']} rows, {len(absent)} without a value"
        + (f": {', '.join(f'`{name}`' for name in absent)}." if absent else "."),
        "## The self-check on these clips",
        f"{'Valid.' if report['valid'] else 'Invalid: ' + str(report['reason'])}",
    ]
    for group in report["self_check"]:
        if group["reason"]:
            parts.append(f"{group['judge']}: not checked, {group['reason']}")
            continue
        rows = [[row["name"], f"{row['value']:.4g}",
                 "" if row["low"] is None else f"[{row['low']:.4g}, {row['high']:.4g}]", "yes" if row["ok"] else "NO"]
                for row in group["rows"]]  # fmt: skip
        parts += [f"### {group['judge']}", table(["condition", "value", "", "in order"], rows)]
    return "\n\n".join(parts)


class _Clock:
    """Time by the clock and of the processor, of this process and the workers it has ended, at each stage's begin."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, float, float]] = [("start", *self._now())]

    def __call__(self, what: str, done: int, count: int) -> None:
        if done == 0:
            self.marks.append((what, *self._now()))

    def stages(self) -> dict[str, dict[str, float]]:
        """Name of a stage -> its seconds."""
        return {
            _STAGES[one[0]]: {"seconds": two[1] - one[1], "cpu_seconds": two[2] - one[2]}
            for one, two in zip(self.marks, self.marks[1:], strict=False)
        }

    @staticmethod
    def _now() -> tuple[float, float]:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return time.monotonic(), sum(item.ru_utime + item.ru_stime for item in used)


def _scored(root: Path, job: Mapping[str, Any], config: ScoreBenchConfig) -> dict[str, Any]:
    """Run the measured process and collect what it says and what it used."""
    from .. import __version__

    (root / "hook").mkdir()
    (root / "hook" / "sitecustomize.py").write_text(_hook())
    sockets = root / "sockets.txt"
    (root / "job.json").write_text(json.dumps({**job, "jobs": config.jobs, "seed": config.seed}))
    # the measured process finds the package where this one did
    paths = [str(root / "hook"), *(path for path in sys.path if path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "DESCANT_BENCH_SOCKETS": str(sockets)}
    environment |= {"OMP_NUM_THREADS": "1"}
    load, before, start = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(root / "job.json")], env=environment, capture_output=True, text=True
    )
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    opened = sockets.read_text().split() if sockets.exists() else []
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"scoring failed: {last}" + (f"; it asked for {opened[0]}" if opened else ""))
    answer = json.loads((root / "answer.json").read_text())
    return {
        "about": {
            "command": _command(config), "config": asdict(config), "processor": _processor(),
            "cores": os.cpu_count(), "load": load, "descant": __version__, "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "seconds": seconds, "target": TARGET, "sockets": len(opened),
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        # kilobytes, but bytes on a Mac
        "peak_mb": after.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10), **answer,
    }  # fmt: skip


def _piece(index: int, root: Path, config: ScoreBenchConfig) -> dict[str, Any]:
    """Render a generated clip and its reference; the labels of the former."""
    torch.set_num_threads(1)
    name = f"{index:04d}"
    rows = {}
    for side, split in (("generated", "dev"), ("reference", "test")):
        piece = builtin.compose(config.seed + index, split, config.seconds)
        rendered = [(stem, builtin.render_stem(stem, config.seconds) * 10 ** (stem.gain_db / 20))
                    for stem in piece.stems]  # fmt: skip
        mix = torch.stack([wav for _, wav in rendered]).sum(dim=0)
        gain = min(1.0, 0.9 / max(float(mix.abs().max()), 1e-9))
        write_audio(root / side / f"{name}.flac", Audio(mix * gain, 32_000))
        if side == "reference":
            write_whole(root / side / f"{name}.txt", (piece.captions[0] + "\n").encode())
            continue
        for stem, wav in rendered if index < config.stems else []:
            if stem.role in ("drums", "bass"):
                folder = root / "stems" / name
                folder.mkdir(exist_ok=True)
                write_audio(folder / f"{stem.role}.flac", Audio(wav * gain, 32_000))
        notes = "\n".join(f"{start},{length},{pitch}" for start, length, pitch in piece.melody)
        write_whole(root / f"{name}.csv", ("onset,seconds,note\n" + notes + "\n").encode())
        rows = {
            "file": f"{name}.flac", "caption": piece.captions[0], "tempo": piece.tempo, "key": piece.key,
            "genre": piece.genre, "instruments": ", ".join(piece.instruments),
            "melody": f"{name}.csv" if piece.melody else "",
        }  # fmt: skip
    return rows


def _command(config: ScoreBenchConfig) -> str:
    default = ScoreBenchConfig()
    words = [f"--{name} {value}" for name, value in asdict(config).items() if value != getattr(default, name)]
    return " ".join(["descant bench score -o docs/benchmarks", *words])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not on every system
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _hook() -> str:
    """What is forbidden and watched, in every interpreter that the measurement starts: a sitecustomize.py."""
    return """import os, sys
def _watch(event, args):
    if event.startswith("socket."):
        with open(os.environ["DESCANT_BENCH_SOCKETS"], "a") as file:
            file.write(event + chr(10))
        raise RuntimeError("a socket is forbidden here: " + event)
sys.addaudithook(_watch)
"""
