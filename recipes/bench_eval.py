"""The distances' own benchmark: exactness, cost, bias, coverage and memory, each beside what other tools do.

Everything is made from seeds; no audio and no weights are needed, only scipy (the matrix square root of other tools).
``run`` measures and ``write`` makes ``eval.json`` and ``eval.md`` of it.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..eval import vectors as sets
from ..eval.frechet import frechet_distance
from ..eval.gaussian import Gaussian, distance, of_moments, of_samples
from ..eval.metric import write_whole
from .bench_report import table

SECTIONS: tuple[str, ...] = ("exactness", "agreement", "cost", "simulation", "memory")


@dataclass(frozen=True, kw_only=True)
class EvalBenchConfig:
    """Sizes of the measurement."""

    dims: tuple[int, ...] = (128, 256, 512, 1024)
    cost_dims: tuple[int, ...] = (128, 512)
    repeats: int = 5
    """Timings of which the median counts."""
    runs: int = 200
    """Simulated evaluations per row."""
    clips: tuple[int, ...] = (50, 100, 400)
    windows: int = 20
    """Windows per clip in the simulation; half of their variance lies between clips."""
    dim: int = 64
    workers: int = 1
    """Processes of the simulation."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.runs < 2 or self.repeats < 1 or min(self.clips) < 16 or self.windows < 2 or self.workers < 1:
            raise ValueError("need at least 2 runs, 1 repeat, 16 clips, 2 windows and 1 worker")


def run(
    config: EvalBenchConfig, only: tuple[str, ...] = SECTIONS, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measure the sections asked for -> a JSON-ready report. Raises ValueError for an unknown section."""
    unknown = sorted(set(only) - set(SECTIONS))
    if unknown:
        raise ValueError(f"unknown sections {unknown}: there are {', '.join(SECTIONS)}")
    import scipy

    threads = torch.get_num_threads()
    about = {
        "config": asdict(config), "machine": platform.processor() or platform.machine(), "threads": threads,
        "torch": torch.__version__, "scipy": scipy.__version__,
    }  # fmt: skip
    report: dict[str, Any] = {"about": about, "sections": {}}
    work = {"exactness": exactness, "agreement": agreement, "cost": cost, "simulation": simulation, "memory": memory}
    for name in only:
        start = time.process_time()
        report["sections"][name] = work[name](config)
        if progress is not None:
            progress(f"{name}: {time.process_time() - start:.0f} s of CPU")
    return report


def exactness(config: EvalBenchConfig) -> list[dict[str, float]]:
    """Relative error against the closed form at condition number 1e10, ours and scipy's, and the distance to itself."""
    rows = []
    for size in config.dims:
        basis = _rotation(size, config.seed)
        a = torch.logspace(0, -10, size, dtype=torch.float64)
        b = a[torch.randperm(size, generator=torch.Generator().manual_seed(config.seed))]
        one, two = (basis * a) @ basis.T, (basis * b) @ basis.T
        truth = float((a.sqrt() - b.sqrt()).square().sum())
        first, second = of_moments(torch.zeros(size), one), of_moments(torch.zeros(size), two)
        row = {"dim": float(size), "ours": abs(distance(first, second) / truth - 1)}
        row["self"] = distance(first, first) / first.trace
        row["scipy"] = abs(_by_square_root(one, two) / truth - 1)
        row["scipy self"] = abs(_by_square_root(one, one)) / first.trace
        rows.append(row)
    return rows


def agreement(config: EvalBenchConfig) -> list[dict[str, float]]:
    """Difference from the formulas of other tools where those are well conditioned: 4 d samples, equal variances.

    frechet-audio-distance 0.3 takes the trace of the matrix square root of the product of covariances, fadtk 1.1 the
    roots of the product's eigenvalues.
    """
    import numpy as np
    import scipy.linalg

    rows = []
    for size in config.dims:
        x, y = _normal(4 * size, size, 1), _normal(4 * size, size, 2) * 1.1 + 0.05
        value = distance(of_samples(x), of_samples(y))
        one, two, apart = torch.cov(x.T), torch.cov(y.T), (x.mean(dim=0) - y.mean(dim=0)).square().sum()
        roots = np.sqrt(scipy.linalg.eigvals(one.numpy() @ two.numpy()).astype(complex)).real.sum()
        by_trace = float(apart) + _by_square_root(one, two)
        by_values = float(apart + one.trace() + two.trace()) - 2 * float(roots)
        rows.append({"dim": float(size), "value": value, "trace": abs(value - by_trace),
                     "eigenvalues": abs(value - by_values)})  # fmt: skip
    return rows


def cost(config: EvalBenchConfig) -> list[dict[str, Any]]:
    """CPU seconds of one distance, ours and by scipy's square root: from moments, and from fewer samples than d."""
    rows = []
    for size in config.cost_dims:
        turn = _rotation(size, config.seed)
        kinds = {"4 d samples, equal variances": [_normal(4 * size, size, seed) for seed in (1, 2)]}
        for decades in (4, 8):
            spread = torch.logspace(0, -decades / 2, size, dtype=torch.float64)
            kinds[f"4 d samples, variances over {decades} decades"] = [
                _normal(4 * size, size, seed) * spread @ turn for seed in (1, 2)
            ]
        kinds["d / 2 samples"] = [_normal(size // 2, size, seed) for seed in (1, 2)]
        for kind, (x, y) in kinds.items():
            one, two = torch.cov(x.T), torch.cov(y.T)
            if x.shape[0] > size:
                mean, count = torch.zeros(size, dtype=torch.float64), x.shape[0]
                ours = partial(_from_moments, mean, one, two, count)
            else:
                ours = partial(_from_samples, x, y)
            mine, other = _cpu(ours, config.repeats), _cpu(partial(_by_square_root, one, two), config.repeats)
            rows.append({"dim": size, "kind": kind, "ours": mine, "scipy": other, "ratio": other / mine})
    return rows


def simulation(config: EvalBenchConfig) -> list[dict[str, Any]]:
    """Bias and coverage where the true distance is known: plain, extrapolated over windows, and ours."""
    truth = distance(*_population(config))
    kinds = [(finite, count) for finite in (False, True) for count in config.clips]
    jobs = [(config, *kind, run) for kind in kinds for run in range(config.runs)]
    if config.workers > 1:
        with ProcessPoolExecutor(config.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            found = list(pool.map(_simulated, jobs, chunksize=10))
    else:
        found = [_simulated(job) for job in jobs]
    rows = []
    for place, (finite, count) in enumerate(kinds):
        mine = found[place * config.runs : (place + 1) * config.runs]
        means = {name: sum(one[name] for one in mine) / config.runs for name in ("plain", "windows", "ours", "error")}
        spread = float(torch.tensor([one["ours"] for one in mine]).std())
        rows.append(
            {"reference": f"{count} clips" if finite else "known exactly", "clips": count, "truth": truth, **means,
             "left": means["ours"] / means["plain"], "uncertainty": spread / math.sqrt(config.runs), "spread": spread,
             "coverage": sum(one["held"] for one in mine) / config.runs, "runs": config.runs}
        )  # fmt: skip
    return rows


def _population(config: EvalBenchConfig) -> tuple[Gaussian, Gaussian]:
    """The two known distributions: close, with variances over three decades and not quite the same axes."""
    generator = torch.Generator().manual_seed(config.seed)
    size = config.dim
    scale = torch.logspace(0, -1.5, size, dtype=torch.float64)
    made = _rotation(size, config.seed + 1) * scale
    skew = torch.randn(size, size, dtype=torch.float64, generator=generator)
    other = torch.linalg.matrix_exp((skew - skew.T) / 50) @ (
        made * (1 + 0.3 * torch.rand(size, generator=generator, dtype=torch.float64))
    )
    shift = 0.1 * scale * torch.randn(size, dtype=torch.float64, generator=generator)
    return Gaussian(torch.zeros_like(shift), made.T), Gaussian(shift, other.T)


def _simulated(job: tuple[EvalBenchConfig, bool, int, int]) -> dict[str, float]:
    """One evaluation of ``count`` clips; its draws depend on nothing but seed, kind and number."""
    config, finite, count, run = job
    population = _population(config)
    truth = distance(*population)
    generator = torch.Generator().manual_seed(((config.seed * 2 + finite) * 100_003 + count) * 100_003 + run)
    x = _draw(population[0], count, config.windows, generator)
    reference = _draw(population[1], count, config.windows, generator) if finite else population[1]
    result = frechet_distance(x, reference, seed=run)
    against = of_samples(reference.data) if isinstance(reference, sets.Vectors) else reference
    return {
        "plain": float(result.value or 0.0) - truth,
        "ours": float(result.corrected or 0.0) - truth,
        "windows": _over_windows(x.data, against, generator) - truth,
        "error": float(result.error or 0.0),
        "held": float(result.low or 0.0) <= truth <= float(result.high or 0.0),
    }


def memory(config: EvalBenchConfig) -> list[dict[str, Any]]:
    """What grows in a fresh process: the kernel distance of 10,000 by 10,000 vectors, statistics of 100,000."""
    jobs = {
        "kernel distance, 10,000 x 10,000 windows, 512 dimensions": (
            "x, y = (of(torch.randn(10_000, 512), torch.arange(10_000) // 10) for _ in range(2))",
            "kernel_distance(x, y, factors=())",
        ),
        "statistics of 100,000 windows, 128 dimensions": (
            "x = torch.randn(100_000, 128)",
            "Statistics(128).update(x)",
        ),
    }
    rows = []
    for name, (make, work) in jobs.items():
        code = (
            "import time, torch\n"
            f"from {__package__.rpartition('.')[0]}.eval.kernel import kernel_distance\n"
            f"from {__package__.rpartition('.')[0]}.eval.gaussian import Statistics\n"
            f"from {__package__.rpartition('.')[0]}.eval.vectors import of\n"
            f"from {__package__}.bench_eval import peak_mb as peak\n"
            f"torch.set_num_threads({torch.get_num_threads()})\n"
            "before = peak()\n"
            f"{make}\ninputs = peak()\nstart = time.process_time()\n{work}\n"
            "import json, sys\n"
            "sys.stdout.write(json.dumps([inputs - before, peak() - inputs, time.process_time() - start]))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        inputs, extra, cpu = json.loads(done.stdout)
        rows.append({"job": name, "inputs_mb": inputs, "extra_mb": extra, "cpu_s": cpu})
    return rows


def peak_mb() -> float:
    """The most memory this process has had resident, MB; never that of the process it was started from."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        import resource

        scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``eval.json`` and ``eval.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "eval.json", (json.dumps(report, indent=1) + "\n").encode())
    write_whole(folder / "eval.md", (page(report) + "\n").encode())


def page(report: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    about, sections = report["about"], report["sections"]
    parts = [
        "# The distances, measured\n\n"
        f"torch {about['torch']}, scipy {about['scipy']}, {about['threads']} thread(s), {about['machine']}; seeds and "
        "sizes in `eval.json`. CPU time is of the process. Made by `descant bench distances -o docs/benchmarks`."
    ]
    if "exactness" in sections:
        header = ["d", "ours", "scipy's square root", "to itself / trace, ours", "scipy"]
        lines = [[f"{row['dim']:.0f}", *(f"{row[k]:.1e}" for k in ("ours", "scipy", "self", "scipy self"))]
                 for row in sections["exactness"]]  # fmt: skip
        parts.append("## Against the closed form\n\nCovariances with common eigenvectors, condition number 1e10; "
                     "relative error.\n\n" + table(header, lines))  # fmt: skip
    if "agreement" in sections:
        header = ["d", "distance", "trace of the root (frechet-audio-distance)", "roots of the eigenvalues (fadtk)"]
        lines = [[f"{row['dim']:.0f}", f"{row['value']:.3f}", f"{row['trace']:.1e}", f"{row['eigenvalues']:.1e}"]
                 for row in sections["agreement"]]  # fmt: skip
        parts.append("## Agreement with other tools\n\nAbsolute difference from their formulas, on 4 d samples of "
                     "equal variances.\n\n" + table(header, lines))  # fmt: skip
    if "cost" in sections:
        header = ["d", "statistics", "ours, CPU s", "scipy's square root, CPU s", "ratio"]
        lines = [[str(row["dim"]), row["kind"], f"{row['ours']:.4f}", f"{row['scipy']:.4f}", f"{row['ratio']:.1f}"]
                 for row in sections["cost"]]  # fmt: skip
        parts.append("## Cost of one Fréchet distance\n\n" + table(header, lines))
    if "simulation" in sections:
        header = ["clips", "reference", "plain", "extrapolated over windows", "corrected", "left", "covered by 95 %"]
        lines = [
            [str(row["clips"]), row["reference"], f"{row['plain']:+.4f}", f"{row['windows']:+.4f}",
             f"{row['ours']:+.4f} ± {row['uncertainty']:.4f}", f"{100 * row['left']:.1f} %",
             f"{100 * row['coverage']:.1f} %"]
            for row in sections["simulation"]
        ]  # fmt: skip
        first = sections["simulation"][0]
        config = about["config"]
        parts.append(
            f"## Bias and coverage\n\nKnown Gaussians, true distance {first['truth']:.3f}, {config['dim']} dimensions, "
            f"{config['windows']} windows a clip with half of their variance between clips, {first['runs']} runs a "
            "row. Columns are mean errors. *Extrapolated over windows*: 25 sizes drawn with replacement from the "
            "windows, as fadtk's FAD-infinity does. *Left*: the corrected error as a share of the plain one.\n\n"
            + table(header, lines)
        )
    if "memory" in sections:
        header = ["", "inputs, MB", "more at the peak, MB", "CPU s"]
        lines = [[row["job"], f"{row['inputs_mb']:.0f}", f"{row['extra_mb']:.0f}", f"{row['cpu_s']:.1f}"]
                 for row in sections["memory"]]  # fmt: skip
        parts.append("## Memory\n\n" + table(header, lines))
    return "\n\n".join(parts)


def _rotation(size: int, seed: int) -> Tensor:
    turn: Tensor = torch.linalg.qr(_normal(size, size, seed))[0]
    return turn


def _normal(rows: int, size: int, seed: int) -> Tensor:
    return torch.randn(rows, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _from_moments(mean: Tensor, one: Tensor, two: Tensor, count: int) -> float:
    return distance(of_moments(mean, one, count), of_moments(mean, two, count))


def _from_samples(x: Tensor, y: Tensor) -> float:
    return distance(of_samples(x), of_samples(y))


def _by_square_root(one: Tensor, two: Tensor) -> float:
    """The distance of centred Gaussians through scipy's matrix square root, as other tools take it."""
    import numpy as np
    import scipy.linalg

    root = np.asarray(scipy.linalg.sqrtm(one.numpy() @ two.numpy()))
    return float(one.trace() + two.trace() - 2 * np.trace(root).real)


def _cpu(job: Callable[[], object], repeats: int) -> float:
    """Median CPU seconds of a job, the first call not counted."""
    job()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        job()
        times.append(time.process_time() - start)
    return sorted(times)[len(times) // 2]


def _draw(source: Gaussian, count: int, windows: int, generator: torch.Generator) -> sets.Vectors:
    rows = source.factor.shape[0]
    between = torch.randn(count, 1, rows, dtype=torch.float64, generator=generator)
    within = torch.randn(count, windows, rows, dtype=torch.float64, generator=generator)
    data = (math.sqrt(0.5) * (between + within)).reshape(-1, rows) @ source.factor + source.mean
    return sets.of(data, torch.arange(count).repeat_interleave(windows))


def _over_windows(data: Tensor, reference: Gaussian, generator: torch.Generator) -> float:
    """Intercept of distances against 1 / n of windows drawn with replacement, 25 sizes from 500 to all."""
    sizes = torch.linspace(min(500, data.shape[0]), data.shape[0], 25).long()
    found = [
        distance(of_samples(data[torch.randint(data.shape[0], (int(n),), generator=generator)]), reference)
        for n in sizes
    ]
    x, y = 1 / sizes.double(), torch.tensor(found, dtype=torch.float64)
    if float(x.std()) == 0:
        return float(y.mean())
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return float(y.mean() - slope * x.mean())
