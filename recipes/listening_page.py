"""Pages that are heard: players in rows beside spectrograms, one folder that works without a network.

Of the players of one section a newly started one goes on where the other was, so that the ear compares the same place.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from torch import Tensor

from . import bench_codec_plots as plots

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
section { margin: 2rem 0; } h2 { margin-bottom: .2rem; } .credit { color: #555; font-size: .85rem; margin-top: 0; }
.row { display: grid; grid-template-columns: 11rem 18rem 1fr; gap: 1rem; align-items: center; margin: .5rem 0; }
.row img { width: 100%; height: 96px; image-rendering: auto; } audio { width: 100%; }
.rate { color: #555; font-size: .85rem; display: block; }
@media (max-width: 50rem) { .row { grid-template-columns: 1fr; gap: .2rem; } }
"""
# one player at a time; within an excerpt a newly started one goes on where the other was
_SCRIPT = """
document.addEventListener("play", function (event) {
  var mine = event.target;
  document.querySelectorAll("audio").forEach(function (other) {
    if (other === mine || other.paused) { return; }
    if (other.closest("section") === mine.closest("section")) { mine.currentTime = other.currentTime; }
    other.pause();
  });
}, true);
"""


@dataclass(frozen=True)
class Cell:
    """One player: the name and the small print beside it, the stem of its files, its Opus file, what is pictured."""

    name: str
    rate: str
    stem: str
    data: bytes
    wav: Tensor


def put(folder: Path, sections: Sequence[tuple[str, str, Sequence[Cell]]], title: str, intro: str) -> None:
    """Write ``index.html`` and the files of its cells into ``folder``; files of an earlier page go.

    sections: (heading, small print as HTML, cells). intro: HTML. Needs matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"index.html"}
    for _, _, cells in sections:
        top = plots.peak(cells[0].wav)
        for cell in cells:
            replace(folder / f"{cell.stem}.opus", cell.data)
            plots.image(folder / f"{cell.stem}.png", cell.wav, top)
            kept |= {f"{cell.stem}.opus", f"{cell.stem}.png"}
    replace(folder / "index.html", page([section(*part) for part in sections], title, intro).encode())
    for old in folder.iterdir():
        if old.name not in kept and old.suffix in (".opus", ".png"):
            old.unlink()  # of an earlier run


def replace(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def section(heading: str, told: str, cells: Sequence[Cell]) -> str:
    """A heading, small print (HTML) and a row for each cell, as HTML."""
    lines = [f'<section>\n<h2>{escape(heading)}</h2>\n<p class="credit">{told}</p>']
    lines += [
        f'<div class="row"><div>{escape(cell.name)}<span class="rate">{cell.rate}</span></div>'
        f'<audio controls="controls" preload="none" src="{cell.stem}.opus"></audio>'
        f'<img src="{cell.stem}.png" alt="spectrogram: {escape(cell.name)}" width="360" height="96" /></div>'
        for cell in cells
    ]
    return "\n".join([*lines, "</section>"])


def page(parts: Sequence[str], title: str, intro: str) -> str:
    """The whole page as HTML: title, ``intro`` (HTML), sections."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>descant: {escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title[0].upper() + title[1:])}</h1>\n{intro}"
    )
    return head + "\n".join(parts) + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
