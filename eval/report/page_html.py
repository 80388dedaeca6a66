"""Markup that is safe by construction: text is escaped unless our own code made it.

:func:`tag` takes children and attributes; a plain ``str`` is text and is escaped, only :class:`Raw` passes as it is,
and nothing but this module's functions makes a :class:`Raw` of foreign text. :func:`document` seals a page with a
content security policy that names our one script and one style by their digests, so that even a hole in the escaping
could not run anything, and no page of ours can ask for anything outside the folder it lies in.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Iterable
from importlib import resources
from urllib.parse import quote

__all__ = ["Raw", "address", "counted", "data_block", "document", "duration", "join", "number", "tag", "titled"]

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "source"})
#: C0 controls other than tab and newline, C1 controls, and lone surrogates: no text of a page has them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
#: Overrides of the writing direction, with which a file name could pose as another.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


class Raw(str):
    """Markup made by our own code."""

    __slots__ = ()


def _text(value: object) -> str:
    return _BIDI.sub("\ufffd", _CONTROLS.sub("\ufffd", str(value)))


def _escaped(value: object) -> str:
    return str(value) if isinstance(value, Raw) else html.escape(_text(value), quote=True)


def join(parts: Iterable[object]) -> Raw:
    """Parts one after the other; those that are no markup are escaped."""
    return Raw("".join(_escaped(part) for part in parts if part is not None))


def tag(name: str, *children: object, **attributes: object) -> Raw:
    """An element. ``class_`` and ``for_`` lose their underscore, others become dashes; None and False are left out."""
    written = []
    for key, value in attributes.items():
        word = key.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        written.append(f" {word}" if value is True else f' {word}="{html.escape(_text(value), quote=True)}"')
    opening = f"<{name}{''.join(written)}>"
    return Raw(opening) if name in _VOID else Raw(f"{opening}{join(children)}</{name}>")


def number(value: float | None, digits: int = 4) -> str:
    """A figure for people: ``digits`` significant ones, a true minus, powers of ten only where zeros would pile up."""
    if value is None or not math.isfinite(value):
        return "none"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}".replace("-", "\u2212") if value else "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if -1 <= math.log10(abs(value)) < 6 or (places <= 7 and abs(value) < 1e6):
        text = f"{value:.{max(0, places)}f}"
    else:
        text = f"{value:.{digits - 1}e}"
    return text.replace("-", "\u2212")


def counted(count: int, word: str) -> str:
    """1 clip, 2 clips."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def titled(text: str) -> str:
    """A label with its first letter large."""
    return text[:1].upper() + text[1:]


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 9.5 s, 3 min 20 s, 1 h 4 min."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "unknown length"
    if seconds < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole // 3600} h" + (f" {whole % 3600 // 60} min" if whole % 3600 // 60 else "")


def address(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """A file as an address relative to ``folder``, every byte that could mean something else quoted."""
    try:
        relative = os.path.relpath(path, folder)
    except ValueError:  # another drive
        from pathlib import Path

        return Path(path).resolve().as_uri()
    # bytes, because a file name need not be valid UTF-8
    return quote(os.fsencode(relative.replace(os.sep, "/")), safe="/")


def _cleaned(value: object) -> object:
    """The same with every text as :func:`tag` would show it, so that a script finds by name what stands on the page."""
    if isinstance(value, dict):
        return {_text(name): _cleaned(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    return _text(value) if isinstance(value, str) else value


def data_block(name: str, value: object) -> Raw:
    """JSON for a script of ours to read, as an element with id ``name`` that no text in it can end."""
    text = json.dumps(_cleaned(value), ensure_ascii=True, sort_keys=True, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Raw(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')


def asset(name: str) -> str:
    """The text of one of our own style or script files."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def document(title: str, body: Raw, styles: Iterable[str], scripts: Iterable[str], loads: bool = False) -> bytes:
    """A whole page as UTF-8: asset files ``styles`` and ``scripts`` inlined and named in the page's policy.

    With ``loads`` the script may load further scripts, as a listening test does with its sounds.
    """
    style = "\n".join(asset(name) for name in styles)
    script = "\n".join(asset(name) for name in scripts)
    policy = "; ".join((
        "default-src 'none'",
        "img-src data:",
        "media-src 'self' file: data: blob:",
        f"style-src {_source(style)}",
        f"script-src {_source(script)}" + (" 'strict-dynamic'" if loads else ""),
        "base-uri 'none'",
        "form-action 'none'",
    ))  # fmt: skip
    head = join((
        Raw('<meta charset="utf-8">'),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        Raw('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Raw('<meta name="color-scheme" content="light dark">'),
        Raw('<meta name="referrer" content="no-referrer">'),
        tag("title", title),
        Raw(f"<style>{style}</style>"),
    ))  # fmt: skip
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}\n<script>{script}</script>\n</body>\n'
    )
    return (page + "</html>\n").encode("utf-8", "replace")


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
