"""BSS Eval against museval: equal numbers, and how much less work: ``descant bench bss``.

Costs are CPU seconds of one process, both sides measured in the same run on the same signals, so a busy machine does
not favour either. museval's package wants ffmpeg and pandas on import; its metrics module alone does not.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..eval import oracles, separation
from ..eval.metric import write_whole
from . import builtin
from .bench_report import table

_NAMES = ("sdr", "isr", "sir", "sar")


def report(
    seconds: Sequence[float] = (10.0, 30.0), pieces: int = 4, repeats: int = 1,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compare with museval at every length, and score the oracles -> a JSON-ready report.

    Raises ImportError without museval.
    """
    if not seconds or min(seconds) < 2 or pieces < 1 or repeats < 1:
        raise ValueError(f"lengths {list(seconds)} s, {pieces} pieces, {repeats} repeats: at least 2 s and 1 of each")
    import scipy

    said = progress or (lambda _: None)
    rows = []
    for length in seconds:
        for room in (True, False):
            rows.append(parity(length, repeats=repeats, room=room))
            said(f"parity: {rows[-1]['signals']}")
    about = {
        "machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
        "torch": torch.__version__, "scipy": scipy.__version__, "museval": _version(), "repeats": repeats,
        "pieces": pieces,
    }  # fmt: skip
    steps = ladder(pieces)
    said(f"oracles: {pieces} pieces")
    return {"about": about, "parity": rows, "ladder": steps}


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Write ``bss.json`` and ``bss.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "bss.json", (json.dumps(found, indent=1) + "\n").encode())
    write_whole(folder / "bss.md", (page(found) + "\n").encode())


def page(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    about = found["about"]
    header = ["signals", *(f"{name.upper()}, dB" for name in _NAMES), "same NaN", "museval, CPU s", "all four, CPU s",
              "times less", "SDR alone, CPU s", "times less"]  # fmt: skip
    rows = []
    for row in found["parity"]:
        cost, ratio = row["CPU s"], row["museval's cost over ours"]
        rows.append([
            row["signals"], *(f"{row['largest difference, dB'][name]:.1e}" for name in _NAMES),
            "yes" if row["same NaN"] else "no", f"{cost['museval']:.2f}", f"{cost['full']:.2f}", f"{ratio['full']:.1f}",
            f"{cost['sdr alone']:.4f}", f"{ratio['sdr alone']:.0f}",
        ])  # fmt: skip
    times = "" if about["repeats"] == 1 else f", the median of {about['repeats']} runs each"
    steps = [[name, f"{row['uSDR']:.2f}", f"{row['cSDR']:.2f}"] for name, row in found["ladder"].items()]
    return (
        "# BSS Eval, measured\n\n"
        f"museval {about['museval']}, torch {about['torch']}, scipy {about['scipy']}, {about['threads']} thread(s), "
        f"{about['machine']}. Made by `descant bench bss -o docs/benchmarks`.\n\n## Against museval\n\n"
        "The same 16-bit stems and estimates, scored by both in one process: largest difference of any window of any "
        f"source, and CPU time{times}.\n\n{table(header, rows)}\n\n## Oracles\n\n"
        f"Mean over {about['pieces']} rendered pieces of 10 s, four stereo stems each, dB.\n\n"
        + table(["kind", "uSDR", "cSDR"], steps)
    )


def parity(
    seconds: float = 10.0, sources: int = 4, rate: int = 44_100, seed: int = 3, repeats: int = 1, room: bool = True
) -> dict[str, Any]:
    """Score the same stems with both and compare numbers and cost. Raises ImportError without museval."""
    peer = _museval()
    stems = rendered(seconds, sources, rate, seed, room)
    estimates = quantise(degraded(stems))
    # one short call each, so that neither pays for loading its libraries
    _ours(stems[:, :, : rate // 2], estimates[:, :, : rate // 2], rate)
    _theirs(peer, stems[:, :, : rate // 2], estimates[:, :, : rate // 2], rate)
    mine, full_cost = _timed(lambda: _ours(stems, estimates, rate), repeats)
    _, sdr_cost = _timed(lambda: separation.windowed_sdr(stems, estimates, rate), repeats)
    other, peer_cost = _timed(lambda: _theirs(peer, stems, estimates, rate), repeats)
    apart = {name: float((mine[i] - other[i]).abs().nan_to_num().max()) for i, name in enumerate(_NAMES)}
    return {
        "signals": f"{sources} {'stereo stems' if room else 'panned mono stems'} of {seconds:g} s at {rate} Hz",
        "largest difference, dB": apart,
        "same NaN": bool((mine.isnan() == other.isnan()).all()),
        "CPU s": {"museval": round(peer_cost, 3), "full": round(full_cost, 3), "sdr alone": round(sdr_cost, 4)},
        "museval's cost over ours": {
            "full": round(peer_cost / full_cost, 1), "sdr alone": round(peer_cost / max(sdr_cost, 1e-4), 1)
        },
    }  # fmt: skip


def ladder(pieces: int = 4, seconds: float = 10.0, rate: int = 44_100) -> dict[str, dict[str, float]]:
    """Mean uSDR and cSDR (median over windows) of every oracle over rendered pieces, and of the mixture itself."""
    kinds: dict[str, Callable[[Tensor], Tensor]] = {"mixture": lambda stems: stems.sum(dim=0).expand_as(stems)}
    for kind in oracles.ORACLES:
        kinds[kind] = lambda stems, kind=kind: oracles.oracle(stems, kind)  # type: ignore[misc]
    out = {}
    for name, estimate in kinds.items():
        whole, windows = [], []
        for seed in range(pieces):
            stems = rendered(seconds, 4, rate, seed)
            made = estimate(stems)
            whole.append(separation.utterance_sdr(stems, made).mean())
            scores = separation.windowed_sdr(stems, made, rate, separation.BssSettings(silence="own"))
            windows.append(separation.median(scores).nanmean())
        out[name] = {
            "uSDR": round(float(torch.stack(whole).mean()), 2),
            "cSDR": round(float(torch.stack(windows).mean()), 2),
        }
    return out


def rendered(seconds: float, sources: int, rate: int, seed: int, room: bool = False) -> Tensor:
    """Stems of a piece by the built-in composer, placed apart and quantised to 16 bits: [N, 2, T] float64.

    With a room each channel hears its own reflections. Without, the channels of a stem differ by a gain and by
    rounding alone: the filters' equations are then nearly singular, and their solution as good as rounding lets it be.
    """
    generator = torch.Generator().manual_seed(seed)
    echo = torch.randn(sources, 2, rate // 10, generator=generator, dtype=torch.float64)
    echo = 0.1 * echo * torch.logspace(0, -3, rate // 10, dtype=torch.float64)
    echo[:, :, 0] = 1.0
    piece = builtin.compose(seed, "test", max(1.0, seconds))
    parts = []
    for place in range(sources):
        stem = piece.stems[place % len(piece.stems)]
        wav = builtin.render_stem(stem, seconds, rate)[:, : round(seconds * rate)] * 10 ** (stem.gain_db / 20)
        pan = (place + 0.5) / sources
        parts.append(wav * torch.tensor([1 - 0.7 * pan, 0.3 + 0.7 * pan])[:, None])
    placed = torch.stack(parts).double() * 0.5
    if room:
        size = placed.shape[-1] + echo.shape[-1]
        heard = torch.fft.irfft(torch.fft.rfft(placed, size) * torch.fft.rfft(echo, size), size)
        placed = heard[:, :, : placed.shape[-1]]
        placed = placed * min(1.0, 0.9 / float(placed.abs().max()))
    return quantise(placed)


def degraded(stems: Tensor) -> Tensor:
    """Estimates with some of everything a separator does wrong: gain, bleed, filtering, noise; [N, C, T]."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(stems.shape, generator=generator, dtype=torch.float64)
    bleed = stems.sum(dim=0, keepdim=True) - stems
    return 0.9 * stems + 0.05 * bleed + 0.05 * stems.roll(5, dims=-1) + 1e-3 * noise


def quantise(wav: Tensor) -> Tensor:
    """Round to 16 bits, as files are: the distortion filters of exact zeros and pure bands are not defined."""
    return (wav * 32_768).round() / 32_768


def _ours(stems: Tensor, estimates: Tensor, rate: int) -> Tensor:
    scores = separation.bss_eval(stems, estimates, rate)
    return torch.stack([getattr(scores, name) for name in _NAMES])


def _theirs(peer: ModuleType, stems: Tensor, estimates: Tensor, rate: int) -> Tensor:
    left, right = (wav.transpose(1, 2).numpy() for wav in (stems, estimates))
    return torch.stack([torch.from_numpy(row) for row in peer.bss_eval(left, right, window=rate, hop=rate)[:4]])


def _museval() -> ModuleType:
    found = importlib.util.find_spec("museval")
    if found is None or not found.submodule_search_locations:
        raise ImportError("the comparison needs museval: pip install --no-deps museval, beside scipy")
    spec = importlib.util.spec_from_file_location(
        "_museval_metrics", f"{found.submodule_search_locations[0]}/metrics.py"
    )
    if spec is None or spec.loader is None:
        raise ImportError("museval is installed without its metrics.py: install it again")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("museval")
    except PackageNotFoundError:
        return "of unknown version"


def _timed(work: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    """A job's result and the median of its CPU seconds."""
    costs = []
    for _ in range(repeats):
        start = time.process_time()
        value = work()
        costs.append(time.process_time() - start)
    return value, statistics.median(costs)
