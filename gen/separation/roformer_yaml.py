"""The settings files that come with RoFormer checkpoints: the part of YAML they are written in, and nothing that runs.

Mappings and lists by indentation, lists and mappings in brackets, numbers, words, quoted text and comments. The tag
``!!python/tuple`` is read as the list it stands before; no other tag, no anchor and no text over several lines is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

_KEY = re.compile(r"""(?:"([^"]*)"|'([^']*)'|([^\s"'\[\]{},#&*!|>%@`-][^"'\[\]{},#]*?))\s*:(?:\s+(.*)|$)""")
_TUPLE = "!!python/tuple"
_WORDS: Mapping[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}  # fmt: skip
_DEEP = 20


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


def read(text: str, sections: tuple[str, ...]) -> dict[str, Any]:
    """Settings in YAML -> those of its top-level ``sections`` that are there.

    Other sections may hold what this does not read. Raises ValueError with the line that cannot be read.
    """
    lines = _lines(text)
    found: dict[str, Any] = {}
    starts = [place for place, line in enumerate(lines) if line.indent == 0 and not line.text.startswith(("- ", "]"))]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        key = _KEY.fullmatch(lines[start].text)
        if key is None:
            raise ValueError(f"line {lines[start].number}: need 'name:', got {lines[start].text[:40]!r}")
        name = key[1] or key[2] or key[3]
        if name in sections:
            found.update(_block(lines[start:stop], 0))
    return found


def _lines(text: str) -> list[_Line]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        plain = _uncommented(line).rstrip()
        if not plain.strip() or plain in ("---", "..."):
            continue
        body = plain.lstrip(" ")
        if body.startswith("\t"):
            raise ValueError(f"line {number}: indented by a tab; use spaces")
        found.append(_Line(number, len(plain) - len(body), body))
    return found


def _uncommented(line: str) -> str:
    """A line up to a # that begins a word outside quotes."""
    quote = ""
    for place, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'" and (place == 0 or line[place - 1] in " [{,:-"):
            quote = sign
        elif sign == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place]
    return line


def _block(lines: list[_Line], depth: int) -> Any:
    """Lines of one mapping, list or value."""
    first = lines[0]
    if depth > _DEEP:
        raise ValueError(f"line {first.number}: nested too deep")
    if first.text == _TUPLE or first.text.startswith(_TUPLE + " "):
        rest = first.text.removeprefix(_TUPLE).strip()
        return _block([_Line(first.number, first.indent, rest), *lines[1:]] if rest else lines[1:], depth + 1)
    if first.text == "-" or first.text.startswith("- "):
        return [_item(part, depth) for part in _parts(lines, lambda text: text == "-" or text.startswith("- "))]
    if _KEY.fullmatch(first.text):
        made = {}
        for part in _parts(lines, lambda text: not text.startswith(("- ", "]", "}"))):
            key = _KEY.fullmatch(part[0].text)
            if key is None:
                raise ValueError(f"line {part[0].number}: need 'name:', got {part[0].text[:40]!r}")
            made[key[1] or key[2] or key[3]] = _value(part[0], key[4] or "", part[1:], depth)
        return made
    return _flow(first.number, " ".join(line.text for line in lines))


def _parts(lines: list[_Line], begins: Any) -> list[list[_Line]]:
    """Lines of a block -> those of each of its entries: an entry begins at the block's own indentation."""
    indent, parts = lines[0].indent, []
    for line in lines:
        if line.indent < indent:
            raise ValueError(f"line {line.number}: indented less than the lines before it")
        if line.indent == indent and begins(line.text):
            parts.append([line])
        else:
            parts[-1].append(line)
    return parts


def _item(part: list[_Line], depth: int) -> Any:
    rest = part[0].text[1:].lstrip(" ")
    if not rest:
        return _block(part[1:], depth + 1) if part[1:] else None
    inner = part[0].indent + len(part[0].text) - len(rest)
    return _block([_Line(part[0].number, inner, rest), *part[1:]], depth + 1)


def _value(line: _Line, rest: str, below: list[_Line], depth: int) -> Any:
    if rest == _TUPLE or rest.startswith(_TUPLE + " "):
        rest = rest.removeprefix(_TUPLE).strip()
    if not rest:
        return _block(below, depth + 1) if below else None
    return _flow(line.number, " ".join([rest, *(row.text for row in below)]))


def _flow(number: int, text: str) -> Any:
    """A value in brackets, quoted or plain."""
    value, rest = _one(number, text.strip(), 0)
    if rest.strip():
        raise ValueError(f"line {number}: cannot read {text[:60]!r}")
    return value


def _one(number: int, text: str, depth: int) -> tuple[Any, str]:
    """The first value of a text, and what follows it."""
    text = text.lstrip().removeprefix(_TUPLE).lstrip()
    if depth > _DEEP:
        raise ValueError(f"line {number}: nested too deep")
    if text[:1] in ("[", "{"):
        return _brackets(number, text, depth)
    if text[:1] in ('"', "'"):
        end = text.find(text[0], 1)
        if end < 0 or "\\" in text[:end] or text[end + 1 : end + 2] == text[0]:
            raise ValueError(f"line {number}: cannot read the quoted text {text[:40]!r}")
        return text[1:end], text[end + 1 :]
    if text[:1] in tuple("!&*|>%@`") and text[:1]:
        raise ValueError(f"line {number}: cannot read {text[:40]!r}: tags, anchors and long texts are not settings")
    found = re.match(r"[^,\[\]{}]*" if depth else r".*", text)
    word = found[0] if found else ""
    return _plain(word.strip()), text[len(word) :]


def _brackets(number: int, text: str, depth: int) -> tuple[Any, str]:
    close, entries, rest = {"[": "]", "{": "}"}[text[0]], [], text[1:].lstrip()
    while not rest.startswith(close):
        if close == "}":
            key, colon, rest = rest.partition(":")
            if not colon:
                raise ValueError(f"line {number}: no value in {text[:40]!r}")
        value, rest = _one(number, rest, depth + 1)
        entries.append((key.strip().strip("\"'"), value) if close == "}" else value)
        rest = rest.lstrip()
        if rest.startswith(","):
            rest = rest[1:].lstrip()
        elif not rest.startswith(close):
            raise ValueError(f"line {number}: {text[:40]!r} has no {close}")
    return (dict(entries) if close == "}" else entries), rest[1:]


def _plain(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    if re.fullmatch(r"[-+]?\d+", word):
        return int(word)
    if re.fullmatch(r"[-+]?(\d+\.\d*|\.\d+)([eE][-+]\d+)?", word):
        return float(word)
    return word
