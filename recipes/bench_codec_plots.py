"""Plots of the codec report: rate against score for each measure, and spectrograms side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..codec.stft import stft

#: Measure -> title, in the order of the panels.
PANELS: Mapping[str, str] = {
    "visqol": "ViSQOL ↑", "mel": "mel distance ↓", "stft": "STFT distance ↓", "si_sdr": "SI-SDR, dB ↑",
    "loudness": "loudness error, LU ↓", "bandwidth": "bandwidth error, kHz ↓", "side": "side energy error, dB ↓",
}  # fmt: skip
#: Controls drawn as levels; the others score perfectly, or are no music.
_LEVELS = ("random phase", "low-pass 3.5 kHz", "low-pass 8 kHz", "low-pass 12 kHz")
#: Dynamic range of spectrograms, dB below the original's strongest point.
_RANGE = 90.0


@dataclass(frozen=True, kw_only=True)
class Heading:
    """One clip of a spectrogram figure: its title and, per system shown, the samples [C, T]."""

    title: str
    rate: int
    sounds: Mapping[str, Tensor]


def draw(folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Write ``codec-rates.png``; nothing where matplotlib is not installed. Returns the names drawn."""
    pyplot = plotter()
    if pyplot is None:
        return []
    rows = report["systems"]
    panels = [name for name in PANELS if any(name in row["mean"] for row in rows)]
    figure, grid = pyplot.subplots(2, -(-len(panels) // 2), figsize=(13, 7.5), layout="constrained", squeeze=False)
    for axes, name in zip(grid.flat, panels, strict=False):
        _curves(axes, rows, name)
        axes.set_title(PANELS[name])
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    grid.flat[0].legend(fontsize=7)
    save(figure, folder / "codec-rates.png", 100)
    pyplot.close(figure)
    return ["codec-rates"]


def _curves(axes: Any, rows: Sequence[Mapping[str, Any]], name: str) -> None:
    families = list(dict.fromkeys(row["family"] for row in rows if row["kind"] != "control"))
    for number, family in enumerate(families):
        points = sorted((row["mean"]["kbps"][0], *row["mean"][name]) for row in rows if row["family"] == family)
        kbps, mean, low, high = (list(values) for values in zip(*points, strict=True))
        style = "-" if any(row["ours"] for row in rows if row["family"] == family) else "--"
        axes.plot(kbps, mean, style, marker="o", markersize=4, color=f"C{number}", label=family)
        axes.fill_between(kbps, low, high, color=f"C{number}", alpha=0.2, linewidth=0)
    for row in rows:
        if row["system"] in _LEVELS and name in row["mean"] and not (name == "si_sdr" and row["mean"][name][0] < -10):
            level = row["mean"][name][0]
            axes.axhline(level, color="grey", linewidth=0.8, linestyle=":")
            axes.annotate(row["system"], (0.99, level), xycoords=("axes fraction", "data"), fontsize=6, ha="right",
                          va="bottom", color="grey")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    axes.set_xlabel("kbps of the whole file")


def spectrograms(folder: Path, clips: Sequence[Heading]) -> str:
    """Write ``codec-spectrograms.png``: a row per clip, a column per system. Returns the name drawn."""
    pyplot = plotter()
    if pyplot is None:
        raise ValueError("spectrograms need matplotlib: pip install 'descant[bench]'")
    columns = list(clips[0].sounds)
    figure, grid = pyplot.subplots(
        len(clips), len(columns), figsize=(3.4 * len(columns), 2.2 * len(clips)), sharex=True, sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for line, clip in zip(grid, clips, strict=True):
        top = peak(next(iter(clip.sounds.values())))
        for axes, (name, wav) in zip(line, clip.sounds.items(), strict=True):
            extent = (0, wav.shape[-1] / clip.rate, 0, clip.rate / 2000)
            axes.imshow(picture(wav, top), origin="lower", aspect="auto", extent=extent, cmap="magma",
                        vmin=-_RANGE, vmax=0)  # fmt: skip
            axes.set_title(f"{clip.title}: {name}" if name == columns[0] else name, fontsize=8)
        line[0].set_ylabel("kHz")
    for axes in grid[-1]:
        axes.set_xlabel("s")
    save(figure, folder / "codec-spectrograms.png", 80)
    pyplot.close(figure)
    return "codec-spectrograms"


def image(path: Path, wav: Tensor, top: float) -> None:
    """Write the spectrogram of wav [C, T] as a picture without axes; ``top`` as of :func:`peak`."""
    pyplot = plotter()
    part = path.with_name(path.name + ".part")
    pyplot.imsave(part, picture(wav, top, 360, 96)[::-1], cmap="magma", vmin=-_RANGE, vmax=0, format="png")
    os.replace(part, path)


def picture(wav: Tensor, top: float, width: int = 480, height: int = 256) -> np.ndarray:
    """Levels in dB below ``top``, frequencies upwards and linear: wav [C, T] -> [height, width]."""
    level = _levels(wav)
    pooled = torch.nn.functional.adaptive_avg_pool2d(level[None], (height, width))[0]
    return (2 * (5 * pooled.log10() - top / 2).round()).numpy()  # steps of 2 dB: smaller files, no visible difference


def peak(wav: Tensor) -> float:
    """The strongest point of a spectrogram of wav [C, T] in dB."""
    return float(10 * _levels(wav).max().log10())


def _levels(wav: Tensor) -> Tensor:
    return stft(wav.mean(dim=0), 1024, 256).abs().square().clamp(min=1e-12)


def save(figure: Any, path: Path, dots: int) -> None:
    """Write a figure under a temporary name and rename it."""
    part = path.with_name(path.name + ".part")
    figure.savefig(part, dpi=dots, format="png")
    os.replace(part, path)


def plotter() -> Any:
    """Matplotlib's pyplot drawing into files, None where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
