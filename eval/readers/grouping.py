"""Stems of any data set in the four, five or six that separators are scored on."""

from __future__ import annotations

import re

from .clip import Clip, ReaderError

#: Number of stems -> their names.
GROUPS: dict[int, tuple[str, ...]] = {
    4: ("vocals", "drums", "bass", "other"),
    5: ("vocals", "drums", "bass", "guitar", "other"),
    6: ("vocals", "drums", "bass", "guitar", "piano", "other"),
}
_VOICE = r"(?:(?:lead|main|male|female|backing|background|human) )*"
_BASS = r"(?:(?:electric|acoustic|synth|double|upright|slap|fretless) )?"
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("vocals", re.compile(_VOICE + r"(?:vocals?|voices?|vocalists?|singers?|choir|rapper|speaker)|beatboxing")),
    ("drums", re.compile(r"drums?|drum (?:set|kit|machine)|drums \d")),
    ("bass", re.compile(_BASS + r"bass(?: guitar| synthesizer)?")),
    ("guitar", re.compile(r".*\bguitars?\b.*")),
    ("piano", re.compile(r"(?:(?:acoustic|electric|grand|tack) )?piano")),
)


def kind(name: str) -> str:
    """``vocals``, ``drums``, ``bass``, ``guitar``, ``piano`` or ``other`` for a stem's name or instrument.

    As MoisesDB has it, percussion beside the drum kit is ``other``.
    """
    low = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return next((group for group, pattern in _KINDS if pattern.fullmatch(low)), "other")


def regroup(clip: Clip, count: int) -> Clip:
    """The clip with its stems summed into ``count`` (4, 5 or 6) of :data:`GROUPS`; those without sound are left out.

    A stem goes by its name, or by its instrument where ``extra["stem_classes"]`` knows it. Raises ReaderError for
    another number and for a clip without stems.
    """
    if count not in GROUPS:
        raise ReaderError(f"stems are grouped into 4, 5 or 6, not into {count}")
    if not clip.stems:
        raise ReaderError(f"clip {clip.id} has no stems to group")
    classes = clip.extra.get("stem_classes", {})
    groups: dict[str, list[str]] = {name: [] for name in GROUPS[count]}
    for stem in clip.stems:
        found = kind(str(classes.get(stem, stem)))
        groups[found if found in groups else "other"].append(stem)
    return clip.grouped(groups)
