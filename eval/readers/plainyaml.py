"""The part of YAML that data sets' metadata files are written in, read without a YAML package.

Mappings and lists by indentation, ``[a, b]`` and ``{}`` on one line, plain and quoted texts (continued on deeper
lines, as PyYAML wraps them), numbers, true, false and null as in YAML 1.1. Everything else (anchors, tags, block texts,
several documents) is refused with its line.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .clip import ReaderError

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*([eE][-+][0-9]+)?|\.[0-9]+([eE][-+][0-9]+)?)|[-+]?\.inf|\.nan")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_DEEPEST = 20
_Line = tuple[int, int, str]


def parse(text: str) -> dict[str, Any]:
    """A mapping. Raises ReaderError with the line where it is not of the part read here."""
    lines = [
        (number, len(line) - len(line.lstrip(" ")), line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#") and line.strip() != "---"
    ]
    if not lines:
        raise ReaderError("is empty")
    found, rest = _block(lines, 0, lines[0][1], 0)
    if rest < len(lines):
        raise ReaderError(f"line {lines[rest][0]}: the indentation fits nothing above")
    if not isinstance(found, dict):
        raise ReaderError("is a list, not a mapping")
    return found


def _block(lines: list[_Line], at: int, indent: int, depth: int) -> tuple[Any, int]:
    if depth > _DEEPEST:
        raise ReaderError(f"line {lines[at][0]}: nested too deeply")
    return (_list if _is_item(lines[at][2]) else _mapping)(lines, at, indent, depth)


def _mapping(lines: list[_Line], at: int, indent: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while at < len(lines) and lines[at][1] == indent and not _is_item(lines[at][2]):
        number, _, text = lines[at]
        name, sign, rest = _cut(text)
        if not sign:
            raise ReaderError(f"line {number}: expected 'name: value', saw {text[:60]!r}")
        key = str(_scalar(name, number)) if name[:1] in "'\"" else name
        if key in found:
            raise ReaderError(f"line {number}: {key} is there twice")
        at += 1
        if rest:
            rest, at = _continued(rest, lines, at, indent)
            found[key] = _value(rest, number)
        elif at < len(lines) and (lines[at][1] > indent or (lines[at][1] == indent and _is_item(lines[at][2]))):
            found[key], at = _block(lines, at, lines[at][1], depth + 1)
        else:
            found[key] = None
    return found, at


def _list(lines: list[_Line], at: int, indent: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while at < len(lines) and lines[at][1] == indent and _is_item(lines[at][2]):
        number, _, text = lines[at]
        inner = text[1:].lstrip()
        if not inner:
            at += 1
            if at < len(lines) and lines[at][1] > indent:
                item, at = _block(lines, at, lines[at][1], depth + 1)
                found.append(item)
            else:
                found.append(None)
        elif _is_item(inner):
            raise ReaderError(f"line {number}: a list within a list is not read on one line")
        elif inner[0] not in "'\"[{" and _cut(inner)[1]:
            # a mapping that begins behind the dash
            deeper = indent + len(text) - len(inner)
            lines = [*lines[:at], (number, deeper, inner), *lines[at + 1 :]]
            item, at = _mapping(lines, at, deeper, depth + 1)
            found.append(item)
        else:
            inner, at = _continued(inner, lines, at + 1, indent)
            found.append(_value(inner, number))
    return found, at


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _cut(text: str) -> tuple[str, str, str]:
    """Name, colon and value of a line; a colon counts at the end or before a space, outside quotes."""
    if text[:1] in ("'", '"'):
        end = text.find(text[0], 1)
        rest = text[end + 1 :].lstrip() if end > 0 else ""
        return (text[: end + 1], ":", rest[1:].strip()) if rest.startswith(":") else (text, "", "")
    place = text.find(": ")
    if place < 0:
        return (text[:-1], ":", "") if text.endswith(":") else (text, "", "")
    return text[:place], ":", _bare(text[place + 2 :].strip())


def _bare(text: str) -> str:
    """The value without a comment behind it."""
    if text.startswith("#"):
        return ""
    return text if text[:1] in "'\"" else text.split(" #", 1)[0].rstrip()


def _continued(text: str, lines: list[_Line], at: int, indent: int) -> tuple[str, int]:
    """Deeper lines behind a value belong to it, joined by spaces."""
    while at < len(lines) and lines[at][1] > indent:
        text, at = f"{text} {lines[at][2]}", at + 1
    return text, at


def _value(text: str, number: int) -> Any:
    if text.startswith("{") and text.endswith("}") and not text[1:-1].strip():
        return {}
    if text.startswith("["):
        if not text.endswith("]") or "[" in text[1:] or "{" in text:
            raise ReaderError(f"line {number}: only plain lists are read on one line")
        return [_scalar(item, number) for item in _items(text[1:-1], number)]
    return _scalar(text, number)


def _items(text: str, number: int) -> list[str]:
    found = re.findall(r"""\s*('(?:[^']|'')*'|"(?:[^"\\]|\\.)*"|[^,'"]+)\s*(?:,|$)""", text)
    if "".join(text.split()) and not found:
        raise ReaderError(f"line {number}: a list that cannot be read: {text[:60]!r}")
    return [item.strip() for item in found]


def _scalar(text: str, number: int) -> Any:
    if text[:1] == "'":
        if len(text) < 2 or not text.endswith("'"):
            raise ReaderError(f"line {number}: a quote is opened and not closed")
        return text[1:-1].replace("''", "'")
    if text[:1] == '"':
        try:
            # what JSON and YAML escape alike; PyYAML's folded lines end in a backslash
            return json.loads(text.replace("\\ ", " "))
        except ValueError:
            raise ReaderError(f"line {number}: a text in quotes that cannot be read: {text[:60]!r}") from None
    if text[:1] and text[0] in "&*!|>%@`{}[],":
        raise ReaderError(f"line {number}: {text[0]!r} begins a form of YAML that is not read here")
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text) and len(text) < 300:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text
