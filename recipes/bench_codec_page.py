"""The audio page of the codec report: a folder with one HTML file, small Opus files and spectrograms, no network.

Excerpts are the first of the scored ones whose licence lets us pass them on, one from a recording; nobody picks them
by ear. The original and what our codec made of it travel as Opus at a rate where its own losses do not matter beside
those that are shown; the Opus row is the very file that was scored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from . import bench_codec_plots as plots
from .bench_codec_classical import opus_file
from .bench_codec_clips import Clip, credit
from .bench_codec_plots import Heading
from .bench_codec_systems import OPUS_RATES, System
from .listening_page import Cell, put
from .real import LICENCE_URLS, SHIPPABLE

#: Excerpts on the page, and bytes that all its sound may have.
CLIPS, BUDGET = 3, 1_400_000
#: Highest rate of the files that carry the original and the decoded sounds, kbps a channel.
CARRIER = 64.0
#: Nominal kbps a channel of the Opus row.
OPUS = 12
_INTRO = (
    "<p>The first scored excerpts whose licences let us pass them on; nobody picked them by ear. Rates are those of "
    "the whole file. Originals and our decoded sounds reach you as Opus at a rate that hides little; the Opus rows are "
    "the files that were scored. Start one player after another: it goes on where the last one was. Pictures: 0 to "
    "half the sample rate upwards, 90 dB from black to white.</p>\n<p>Figures: codec.md, one folder up.</p>\n"
)


def write(folder: Path, systems: Sequence[System], clips: Sequence[Clip], log: Callable[[str], None]) -> list[Heading]:
    """Write the page and its files into ``folder``; returns what was shown, empty where no page could be made."""
    chosen, shown = listenable(clips), shown_systems(systems)
    if not chosen or not shown or plots.plotter() is None:
        log("no audio page: it needs matplotlib and recordings whose manifest names a licence to pass them on")
        return []
    made = [(clip, _cells(number, clip, shown, len(chosen))) for number, clip in enumerate(chosen, 1)]
    put(folder, [(title(clip), _told(clip), cells) for clip, cells in made], "the codec, heard", _INTRO)
    return [
        Heading(title=title(clip), rate=clip.rate, sounds={cell.name: cell.wav for cell in cells})
        for clip, cells in made
    ]


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


def _cells(number: int, clip: Clip, shown: Sequence[System], count: int) -> list[Cell]:
    wav = clip.read()
    room = 8 * BUDGET / 1000 / clip.seconds / count / (len(shown) + 1)  # kbps that the budget leaves for each file
    carrier = max(6.0 * clip.channels, min(CARRIER * clip.channels, 0.85 * room))
    cells = [Cell("original", f"{clip.rate / 1000:g} kHz", f"{number}-original",
                   opus_file(wav, clip.rate, carrier), wav)]  # fmt: skip
    for row in shown:
        heard = row.apply(wav, clip.rate)
        scored = row.kind == "opus"  # whose file is small already
        data = opus_file(wav, clip.rate, row.kbps) if scored else opus_file(heard.wav, clip.rate, carrier)
        stem = f"{number}-{re.sub(r'[^a-z0-9]+', '-', row.name.lower()).strip('-')}"
        kbps = 8 * (heard.size or 0) / clip.seconds / 1000
        cells.append(Cell(row.name, f"{kbps:.1f} kbps", stem, data, heard.wav))
    return cells


def _told(clip: Clip) -> str:
    row = credit(clip.path)
    if row is None:
        return ""
    url = LICENCE_URLS.get(row.licence)
    licence = f'<a href="{escape(url)}">{escape(row.licence)}</a>' if url else escape(row.licence)
    return f"{escape(row.author)}, {licence}; {clip.seconds:g} s from {clip.start:g} s on, mixed down and re-coded"
