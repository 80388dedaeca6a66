"""What a model can be asked for, and the line that says so where it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .request import RequestError

if TYPE_CHECKING:
    from .load import Studio

#: Wishes that a MusicGen has no ear for.
DEAF = ("chords", "beats_per_bar", "negative")
_ALWAYS = ("generate", "stream", "extend")
#: For models that were trained on prepared targets.
_ABLE = ("accompany", "inpaint", "loop")


def verbs(studio: Studio) -> tuple[str, ...]:
    """The verbs of a studio that its model knows."""
    return (*_ALWAYS, *(_ABLE if getattr(studio.lm.config, "targets", 0) else ()))


def lacks(studio: Studio, what: str) -> RequestError:
    """The error "NAME cannot ..., it can ...", for ``what`` such as "hears no stems"."""
    can = verbs(studio)
    return RequestError(f"{studio.name} {what}: it can {', '.join(can[:-1])} and {can[-1]}")
