"""The report as one static page: ``index.html`` beside ``results.json``, without a network, a server or a build.

Everything drawn is SVG of our own, the style and the script are inlined, sounds are referred to where they lie (or put
into the page as Opus), and a content security policy keeps whatever stands in captions and file names from running.
The same record and the same sounds give the same bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..metric import write_whole
from . import page_clips, page_compare, page_sections
from .page_audio import Sounds
from .page_html import Raw, counted, document, join, tag
from .results import Report, read

__all__ = ["Page", "write_page"]

PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class Page:
    """What was written."""

    path: Path
    bytes: int
    missing: tuple[str, ...] = ()
    """Sounds that the report names and that are not there; the page says so in their places."""
    outside: int = 0
    """Sounds that were to be embedded and are referred to, because the page would have become too large."""


def write_page(folder: str | os.PathLike[str], embed: bool = False, limit: int = 48_000_000) -> Page:
    """Write ``index.html`` for the report in ``folder``.

    ``embed`` puts the clips that can be heard into the page as Opus (30 s of each at most, ``limit`` bytes of all), so
    that it can be sent as one file. Raises ValueError when ``folder`` holds no report of this version.
    """
    if limit < 0:
        raise ValueError(f"limit is {limit} bytes: it is 0 or more, such as 48000000")
    root = Path(folder)
    report = read(root)
    sounds = Sounds(root, embed=embed, limit=limit)
    data = document(title(report), _body(report, sounds), ["page.css", "report.css"], ["players.js", "report.js"])
    write_whole(root / PAGE, data)
    return Page(path=root / PAGE, bytes=len(data), missing=tuple(sounds.missing), outside=sounds.outside)


def title(report: Report) -> str:
    """What the page is called."""
    against = f" against {report.reference.name}" if report.reference is not None else ""
    return f"{report.generated.name}{against}: descant score"


def _body(report: Report, sounds: Sounds) -> Raw:
    listen, chosen = page_clips.heard(report, sounds)
    table = page_clips.table(report, sounds)
    lost = None
    if sounds.missing:
        rows = [tag("li", tag("code", name, dir="auto")) for name in sounds.missing]
        lost = tag("details", tag("summary", f"Not where the report says: {counted(len(rows), 'sound')}"),
                   tag("ul", *rows), class_="failures")  # fmt: skip
    parts = [
        ("results", "Results", page_sections.results(report)),
        ("comparison", "Comparison", page_compare.comparison(report)),
        ("check", "Self-check", page_sections.self_check(report)),
        ("curves", "Curves", page_sections.curves(report) if report.curves else None),
        ("spread", "Spread over clips", page_sections.histograms(report) if chosen.clips else None),
        ("listen", "Listen", join((lost, listen))),
        ("clips", f"All clips ({len(report.clips)})", table),
        ("recipes", "Recipes", page_sections.recipes(report) if report.recipes else None),
    ]
    shown = [(name, words, part) for name, words, part in parts if part]
    links = [tag("a", words, href=f"#{name}") for name, words, _ in shown]
    against = tag("span", " against ", report.reference.name) if report.reference is not None else None
    top = tag(
        "header",
        tag("p", "descant score", class_="brand"),
        tag("h1", report.generated.name, against, dir="auto"),
        page_sections.verdict(report),
        page_sections.scored(report),
        class_="top",
    )
    body = [tag("section", tag("h2", words), part, id=name, class_="part") for name, words, part in shown]
    foot = tag("footer", f"Made by descant {report.version}. This page asks for nothing outside its folder.")
    dock = tag("div", tag("span", id="dock-name"), tag("audio", controls=True, preload="none", id="dock-player"),
               tag("button", "✕", type="button", id="dock-close", aria_label="close the player"), id="dock",
               hidden=True, role="region", aria_label="player")  # fmt: skip
    skip = tag("a", "Skip to the results", href="#results", class_="skip")
    nav = tag("nav", *links, aria_label="parts of this page")
    return join((skip, top, nav, tag("main", *body), foot, dock))
