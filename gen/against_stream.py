"""New music against given sound, heard while it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..codec.audio import Audio
from ..lm.condition import Condition
from . import stream
from .against import hear, towards
from .request import DURATION_LIMITS, Plan, Request, RequestError

if TYPE_CHECKING:
    from .load import Studio


class AgainstPlayer(stream.Player):
    """Music that has the tune of ``melody`` and goes with ``stems``, while it is made; see :class:`stream.Player`.

    The tokens are those of :func:`descant.gen.against.generate`; only the level is the model's own.
    """

    def __init__(
        self, studio: Studio, request: Request, seconds: float | None = None, gain: float = 0.0, *,
        melody: Audio | Tensor | None = None, stems: Mapping[str, Audio] | None = None,
    ) -> None:  # fmt: skip
        low, high = DURATION_LIMITS
        if seconds is None or not low <= seconds <= high:
            raise RequestError(
                f"music that goes with what is given has an end: give a duration of {low:g} to {high:g} s"
            )
        super().__init__(studio, request, seconds, gain)
        self.request = replace(self.request, duration=seconds)
        self.heard = hear(studio, self.request, melody, stems)
        self.request = towards(self.request, melody)
        self._legs = [stream.Leg(self.heard.plan, self.heard.offset)]

    @property
    def plan(self) -> Plan:
        """What is being played, with the notes on what was given."""
        return replace(self.heard.plan, notes=(*self.heard.plan.notes, *self.heard.notes))

    def change(self, text: str | None = None, **wishes: Any) -> None:
        """Raise RequestError: what is given was chosen with the wishes."""
        raise RequestError("music that goes with what is given cannot change while it plays: start another one")

    def _codes(self) -> Iterator[Tensor]:
        with self.studio.at_work():
            frames = self._leg(0, self._frames or 0)
        yield from stream._quietly(frames)

    def _condition(self, start: float) -> Condition:
        return self.heard.told(self.heard.plan.condition(beat_offset=self.heard.offset))
