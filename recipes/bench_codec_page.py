"""The audio page of the codec report: a folder with one HTML file, small Opus files and spectrograms, no network.

Excerpts are the first of the scored ones whose licence lets us pass them on, one from a recording; nobody picks them
by ear. The original and what our codec made of it travel as Opus at a rate where its own losses do not matter beside
those that are shown; the Opus row is the very file that was scored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from torch import Tensor

from . import bench_codec_plots as plots
from .bench_codec_classical import opus_file
from .bench_codec_clips import Clip, credit
from .bench_codec_plots import Heading
from .bench_codec_systems import OPUS_RATES, System
from .real import LICENCE_URLS, SHIPPABLE

#: Excerpts on the page, and bytes that all its sound may have.
CLIPS, BUDGET = 3, 1_400_000
#: Highest rate of the files that carry the original and the decoded sounds, kbps a channel.
CARRIER = 64.0
#: Nominal kbps a channel of the Opus row.
OPUS = 12
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
class _Cell:
    """One player: name and rate shown, stem of its files, the bytes of the Opus file, the samples for the picture."""

    name: str
    rate: str
    stem: str
    data: bytes
    wav: Tensor


def write(folder: Path, systems: Sequence[System], clips: Sequence[Clip], log: Callable[[str], None]) -> list[Heading]:
    """Write the page and its files into ``folder``; returns what was shown, empty where no page could be made."""
    chosen, shown = listenable(clips), shown_systems(systems)
    if not chosen or not shown or plots.plotter() is None:
        log("no audio page: it needs matplotlib and recordings whose manifest names a licence to pass them on")
        return []
    folder.mkdir(parents=True, exist_ok=True)
    parts, headings, kept = [], [], {"index.html"}
    for number, clip in enumerate(chosen, 1):
        cells = _cells(number, clip, shown, len(chosen))
        top = plots.peak(cells[0].wav)
        for cell in cells:
            replace(folder / f"{cell.stem}.opus", cell.data)
            plots.image(folder / f"{cell.stem}.png", cell.wav, top)
            kept |= {f"{cell.stem}.opus", f"{cell.stem}.png"}
        parts.append(_section(clip, cells))
        headings.append(Heading(title=title(clip), rate=clip.rate, sounds={cell.name: cell.wav for cell in cells}))
    replace(folder / "index.html", _page(parts).encode())
    for old in folder.iterdir():
        if old.name not in kept and old.suffix in (".opus", ".png"):
            old.unlink()  # of an earlier run with other systems
    return headings


def listenable(clips: Sequence[Clip]) -> list[Clip]:
    """The first excerpts, one a recording, whose manifest names a licence that lets us pass them on."""
    found: dict[str, Clip] = {}
    for clip in clips:
        row = credit(clip.path)
        if row is not None and row.licence in SHIPPABLE:
            found.setdefault(clip.recording, clip)
    return list(found.values())[:CLIPS]


def shown_systems(systems: Sequence[System]) -> list[System]:
    """The first codec of ours with half and with all of its books, and Opus at 12 kbps a channel."""
    ours = [row for row in systems if row.ours]
    mine = [row for row in ours if row.family == ours[0].family]
    most = max((row.books for row in mine), default=0)
    opus = [row for row in systems if row.kind == "opus"]
    chosen = [row for row in mine if row.books in (round(most / 2), most)]
    return sorted(chosen, key=lambda row: row.books) + opus[OPUS_RATES.index(OPUS) :][:1]


def title(clip: Clip) -> str:
    """The recording's title where one is known."""
    row = credit(clip.path)
    return row.title if row is not None and row.title else clip.recording


def replace(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and rename it."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def _cells(number: int, clip: Clip, shown: Sequence[System], count: int) -> list[_Cell]:
    wav = clip.read()
    room = 8 * BUDGET / 1000 / clip.seconds / count / (len(shown) + 1)  # kbps that the budget leaves for each file
    carrier = max(6.0 * clip.channels, min(CARRIER * clip.channels, 0.85 * room))
    cells = [_Cell("original", f"{clip.rate / 1000:g} kHz", f"{number}-original",
                   opus_file(wav, clip.rate, carrier), wav)]  # fmt: skip
    for row in shown:
        heard = row.apply(wav, clip.rate)
        scored = row.kind == "opus"  # whose file is small already
        data = opus_file(wav, clip.rate, row.kbps) if scored else opus_file(heard.wav, clip.rate, carrier)
        stem = f"{number}-{re.sub(r'[^a-z0-9]+', '-', row.name.lower()).strip('-')}"
        kbps = 8 * (heard.size or 0) / clip.seconds / 1000
        cells.append(_Cell(row.name, f"{kbps:.1f} kbps", stem, data, heard.wav))
    return cells


def _section(clip: Clip, cells: Sequence[_Cell]) -> str:
    row = credit(clip.path)
    told = ""
    if row is not None:
        url = LICENCE_URLS.get(row.licence)
        licence = f'<a href="{escape(url)}">{escape(row.licence)}</a>' if url else escape(row.licence)
        told = f"{escape(row.author)}, {licence}; {clip.seconds:g} s from {clip.start:g} s on, mixed down and re-coded"
    lines = [f'<section>\n<h2>{escape(title(clip))}</h2>\n<p class="credit">{told}</p>']
    lines += [
        f'<div class="row"><div>{escape(cell.name)}<span class="rate">{cell.rate}</span></div>'
        f'<audio controls="controls" preload="none" src="{cell.stem}.opus"></audio>'
        f'<img src="{cell.stem}.png" alt="spectrogram: {escape(cell.name)}" width="360" height="96" /></div>'
        for cell in cells
    ]
    return "\n".join([*lines, "</section>"])


def _page(parts: Sequence[str]) -> str:
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1" />\n'
        f"<title>descant: the codec, heard</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        "<h1>The codec, heard</h1>\n<p>The first scored excerpts whose licences let us pass them on; nobody picked "
        "them by ear. Rates are those of the whole file. Originals and our decoded sounds reach you as Opus at a rate "
        "that hides little; the Opus rows are the files that were scored. Start one player after another: it goes on "
        "where the last one was. Pictures: 0 to half the sample rate upwards, 90 dB from black to white.</p>\n"
        "<p>Figures: codec.md, one folder up.</p>\n"
    )
    return head + "\n".join(parts) + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
