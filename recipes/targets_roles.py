"""What a stem is to an arrangement, whatever a data set or a separator calls it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..eval.readers.grouping import kind
from ..lm.condition import ROLES

#: Words -> role, the first that fits; names that are roles, and those of singers, kits, basses and guitars, come first.
_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (role, re.compile(words))
    for role, words in (
        (
            "drums",
            r"percussi(on|ve)\b(?<!chromatic percussion)|cymbal|timpani|tambourine|shaker|beatbox"
            r"|\bkick|snare|\bhi ?hats?\b|\btoms?\b|overheads?\b",
        ),
        ("lead", r"\bsynth lead|foreground|melody|\bcent(re|er)\b"),
        ("pad", r"\bpads?\b"),
        ("mallets", r"chromatic percussion|vibraphone|marimba|xylophone|glockenspiel|bells?\b|celesta"),
        ("keys", r"piano|organ|key(s|board)|harpsichord|clavi|accordion|rhodes|wurlitzer"),
        ("strings", r"string|violin|viola|cello|fiddle|erhu"),
        ("brass", r"brass|trumpet|trombone|horn|tuba|cornet"),
        ("reeds", r"reed|sax|clarinet|oboe|bassoon|harmonica|melodica"),
        ("pipes", r"pipe|flute|recorder|whistle|piccolo|ocarina|dizi"),
        ("plucked", r"harp\b|banjo|mandolin|ukulele|sitar|koto|lute|guzheng|pipa|yangqin|plucked"),
        ("vocals", r"\bvox\b|voice|vocal|sing|choir"),
        ("synth", r"synth|electronic"),
    )
)
#: Roles without a pitch to follow, and the low part: MusicGen's melody leaves both out.
DRUMS, BASS = "drums", "bass"
#: Roles that carry the tune, the first that plays.
TUNE: tuple[str, ...] = ("vocals", "voice", "lead")


def role_of(name: str) -> str:
    """One of :data:`descant.lm.condition.ROLES` (never ``mix``) for a stem's name or instrument; ``other`` if none."""
    low = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    if low in ROLES and low != "mix":
        return low
    found = {"piano": "keys"}.get(kind(low), kind(low))
    if found != "other":
        return found
    return next((role for role, words in _WORDS if words.search(low)), "other")


def grouped(names: Sequence[str], classes: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Stems by role, in the order of first appearance; ``classes`` knows the instruments of stems without a name."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(role_of(str((classes or {}).get(name, name))), []).append(name)
    return found


def pitched(roles: Sequence[str]) -> list[int]:
    """Places of the roles that MusicGen's melody is taken from: everything but drums and bass."""
    return [place for place, role in enumerate(roles) if role not in (DRUMS, BASS)]
