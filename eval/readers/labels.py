"""What a row of a table or a sidecar says, under the many names people give it, as fields of a clip."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clip import Clip, ReaderError
from .table import number

#: Column of a table that names the sound file.
PATHS: tuple[str, ...] = ("path", "file", "filename", "file_name", "audio", "audio_path")
_NAMES: dict[str, str] = {
    **dict.fromkeys(("caption", "captions", "description", "text", "prompt"), "captions"),
    **dict.fromkeys(("tags", "keywords", "moods", "mood"), "tags"),
    **dict.fromkeys(("instrument", "instruments"), "instruments"),
    **dict.fromkeys(("tempo", "bpm"), "tempo"), **dict.fromkeys(("licence", "license"), "licence"),
    **dict.fromkeys(("subset", "subsets"), "subsets"), **dict.fromkeys(("sample_rate", "rate"), "rate"),
    **dict.fromkeys(("duration", "seconds"), "seconds"),
    **{name: name for name in ("id", "genre", "key", "split", "artist", "start", "end", "chords", "beats", "melody")},
}  # fmt: skip
_LISTS = ("tags", "instruments", "subsets")
_NUMBERS = ("tempo", "seconds", "start", "end")
#: Words for singing, in any form that published "no singing" subsets leave out (see :func:`without_singing`).
_SUNG = re.compile(
    r"\b(sing|sings|singer\w*|singing|vocals?|vocalists?|voices?|voiced|raps?|rapper\w*|rapping|choirs?|\w*chant\w*"
    r"|yodel\w*|humming|(fe)?males?|a ?capp?ella)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a reader reads."""

    strict: bool = False
    """Raise the first problem instead of counting it."""
    links: bool = False
    """Use links that lead out of the folder."""
    table: Path | None = None
    """The file that lists the clips, where it is not found by itself."""


def labelled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of :class:`Clip` out of a mapping with columns of any of the known names; the rest goes to ``extra``.

    Raises ReaderError for a value that is not what its name says.
    """
    made: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in values.items():
        field = _NAMES.get(name.strip().lower())
        if value is None or value == "" or value == []:
            continue
        if field is None:
            extra[name] = value
        elif field == "captions":
            made[field] = (*made.get(field, ()), *_texts(value, name))
        elif field in _LISTS:
            made[field] = tuple(dict.fromkeys((*made.get(field, ()), *_words(value, name))))
        elif field in _NUMBERS:
            made[field] = number(value, name)
        elif field == "rate":
            made[field] = int(number(value, name) or 0) or None
        elif field in ("chords", "melody", "beats"):
            made[field] = _timed(value, field)
        else:
            made[field] = _text(value, name)
    return {**made, "extra": extra}


def without_singing(*texts: str) -> bool:
    """True when no text names a voice: the rule of the "no singing" subsets, which leave out "no vocals" as well.

    The published lists were made by words; on MusicCaps (captions and aspects) this rule keeps 2,243 clips, 2,208 of
    the 2,218 listed in stable-audio-metrics among them.
    """
    return not any(_SUNG.search(text) for text in texts)


def sidecar(path: Path, root: Path, links: bool = False) -> dict[str, Any]:
    """Labels beside a sound file: ``x.json``, or a caption in ``x.txt``; an empty mapping without either.

    Raises ReaderError for one that cannot be read.
    """
    from .clip import inside
    from .table import load_json, load_text

    for suffix in (".json", ".txt"):
        beside = path.with_suffix(suffix)
        if not beside.is_file() or (not links and inside(beside, root) is None):
            continue
        if suffix == ".json":
            return load_json(beside)
        text = load_text(beside).strip()
        return {"caption": " ".join(text.split())} if text else {}
    return {}


def build(made: Mapping[str, Any], **fixed: Any) -> Clip:
    """A clip of labelled fields and of fields the reader knows itself, which win."""
    return Clip(**{**made, **{name: value for name, value in fixed.items() if value is not None}})


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ReaderError(f"{name} must be a text, not {str(value)[:40]!r}")
    return str(value).strip()


def _texts(value: Any, name: str) -> tuple[str, ...]:
    rows = value if isinstance(value, list) else [value]
    return tuple(text for text in (" ".join(_text(row, name).split()) for row in rows) if text)


def _words(value: Any, name: str) -> tuple[str, ...]:
    rows = value if isinstance(value, list) else re.split(r"[;,|]", _text(value, name))
    return tuple(word for word in (_text(row, name) for row in rows) if word)


def _timed(value: Any, field: str) -> tuple[Any, ...]:
    """Chords, melody or beats: lists, or JSON in a table's field."""
    try:
        rows = json.loads(value) if isinstance(value, str) else value
        if field == "beats":
            return tuple(float(row) for row in rows)
        if field == "chords":
            return tuple((float(start), float(end), str(label)) for start, end, label in rows)
        return tuple((float(onset), float(length), int(pitch)) for onset, length, pitch in rows)
    except (TypeError, ValueError) as error:
        forms = {"beats": "[s, ...]", "chords": "[[start, end, label], ...]", "melody": "[[onset, s, pitch], ...]"}
        raise ReaderError(f"{field} must be {forms[field]}: {error}") from error
