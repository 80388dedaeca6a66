"""What does not depend on how well a separator separates: memory over length, sameness of runs, streams, sums.

Each length is separated in a process of its own, from a file to files as ``descant separate`` does it, and that
process says the most memory it had.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from ..gen.separation.contract import Separator
from ..gen.separation.files import separate_file
from ..gen.separation.registry import get
from .bench_eval import peak_mb

#: Separator -> minutes of stereo sound whose memory is measured; a long one where that is cheap.
LENGTHS: Mapping[str, tuple[float, ...]] = {"embedded": (1.0, 20.0), "centre": (1.0, 120.0)}
_RATE = 44_100


def report(lengths: Mapping[str, Sequence[float]] | None = None) -> dict[str, Any]:
    """Peak memory in MB by minutes of sound, and how exactly the promises of separators hold for each of them."""
    rows = []
    for name, minutes in (LENGTHS if lengths is None else lengths).items():
        method = get(name)
        rows.append({"name": name, "memory": {f"{m:g}": memory(name, m) for m in minutes}, **promises(method)})
    return {"rate": _RATE, "rows": rows}


def memory(name: str, minutes: float) -> float:
    """Peak memory in MB of a process that separates so many minutes of stereo sound from a file to files."""
    with tempfile.TemporaryDirectory() as scratch:
        song = Path(scratch) / "song.flac"
        _song(song, minutes)
        code = "import sys; from descant.recipes import bench_separation_limits as b; print(b.run(*sys.argv[1:]))"
        command = [sys.executable, "-c", code, name, str(song), str(Path(scratch) / "stems")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} on {minutes:g} minutes failed: {done.stderr.strip()[-300:]}")
        return float(done.stdout)


def run(name: str, song: str, out: str) -> float:
    """Separate one file -> the peak memory in MB, of the process of its own that :func:`memory` starts."""
    separate_file(song, out, get(name))
    return round(peak_mb(), 1)


def promises(method: Separator, seconds: float = 12.0) -> dict[str, float]:
    """Largest differences, relative to the mix's peak: sum and mix, two runs, stream and whole, inverted and half."""
    mix = sound(seconds)
    peak = float(mix.abs().max())
    first, again = method.separate(mix, _RATE), method.separate(mix, _RATE)
    names = list(first)
    blocks = list(method.stream(list(torch.split(mix, 7919, -1)), _RATE))
    streamed = {name: torch.cat([block[name] for block in blocks], -1) for name in names}
    other = method.separate(-0.5 * mix, _RATE)
    total = torch.stack([first[name] for name in names]).sum(0) + first.residual
    return {
        "sum": float((total - mix).abs().max()) / peak,
        "again": max(float((first[name] - again[name]).abs().max()) for name in names) / peak,
        "stream": max(float((first[name] - streamed[name]).abs().max()) for name in names) / peak,
        "gain": max(float((-0.5 * first[name] - other[name]).abs().max()) for name in names) / peak,
    }


def sound(seconds: float) -> torch.Tensor:
    """Stereo sound at 44.1 kHz that is the same every time, [2, T]."""
    return torch.from_numpy(_noise(round(seconds * _RATE), np.random.default_rng(0)).T.copy())


def section(found: Mapping[str, Any]) -> list[str]:
    """The report as lines of Markdown."""
    lines = [
        "", "## Memory and promises", "",
        f"Peak memory of a process that separates a stereo file ({found['rate'] / 1000:g} kHz) into files, by its "
        "length in minutes. Differences are the largest of 12 s, relative to the mix's peak.", "",
        "| method | memory | sum of stems and mix | two runs | stream and whole | inverted at half level |",
        "| :-- | :-- | --: | --: | --: | --: |",
    ]  # fmt: skip
    for row in found["rows"]:
        held = ", ".join(f"{minutes} min: {mb:.0f} MB" for minutes, mb in row["memory"].items())
        cells = " | ".join(f"{row[name]:.1e}" if row[name] else "0" for name in ("sum", "again", "stream", "gain"))
        lines.append(f"| {row['name']} | {held} | {cells} |")
    return lines


def _song(path: Path, minutes: float) -> None:
    dice = np.random.default_rng(0)
    left = round(minutes * 60 * _RATE)
    with soundfile.SoundFile(path, "w", _RATE, 2, "PCM_16") as file:
        while left:
            count = min(left, 10 * _RATE)
            file.write(_noise(count, dice))
            left -= count


def _noise(count: int, dice: np.random.Generator) -> np.ndarray[Any, Any]:
    """A chord, a pulse and noise [count, 2], different in its channels."""
    time = np.arange(count) / _RATE
    tones = np.sum([np.sin(2 * np.pi * hertz * time) for hertz in (110.0, 220.5, 331.0)], 0)
    pulse = np.exp(-20 * (time % 0.5)) * dice.standard_normal(count)
    wide = dice.standard_normal((count, 2)) * 0.01
    sound = 0.1 * tones[:, None] * np.array([1.0, 0.7]) + 0.2 * pulse[:, None] + wide
    made: np.ndarray[Any, Any] = sound.astype(np.float32)
    return made
