"""A MusicGen heard while it plays, for as long as somebody listens; see :mod:`descant.gen.musicgen_windows`.

The first sound needs twelve frames, a quarter of a second of music, which are decoded four at a time because the
decoder looks four ahead, and three steps more for the delay of the codebooks. A change of wishes begins a new window at
once, so it costs what every window costs: the last 12 s are read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from ..codec.audio import Audio
from .musicgen import MusicGenStudio, check_melody, plan_of, rows_of
from .musicgen_melody import lead
from .musicgen_windows import Windows, Wish
from .request import DURATION_LIMITS, Plan, Request, RequestError
from .stream import BLOCK, FIRST, Playing

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .load import Wishes


class MusicGenPlayer(Playing):
    """Music of a MusicGen while it is made; see :class:`descant.gen.stream.Playing`.

    A change is made at once. ``melody``: any sound, which is begun again where it ends.
    """

    def __init__(
        self, studio: MusicGenStudio, request: Request, seconds: float | None = None, gain: float = 0.0,
        block: int = BLOCK, melody: Audio | Tensor | None = None,
    ) -> None:  # fmt: skip
        super().__init__(studio, seconds, gain, block)
        check_melody(studio, melody)
        long = DURATION_LIMITS[1] if seconds is None else min(max(seconds, DURATION_LIMITS[0]), DURATION_LIMITS[1])
        self.request = replace(request.seeded(), duration=long)
        heard = None
        self._notes: tuple[str, ...] = ()
        if melody is not None:
            heard, self._notes = lead(melody, seconds)
        plan = plan_of(self.request)
        self._plan = replace(plan, notes=(*plan.notes, *self._notes))
        self.channels = studio.lm.config.channels
        self._decoder.pace(min(FIRST, block))
        self._windows = Windows(studio, Wish(plan.text, self.request.sampling), plan.seed, self._frames, lead=heard)

    @property
    def plan(self) -> Plan:
        """What is being played now."""
        return self._plan

    def change(self, text: str | None = None, **wishes: Unpack[Wishes]) -> None:
        """Wish for something else from now on: what is given replaces what was wished for before.

        Wishes that are not named stay; a new sentence replaces the old one. Raises RequestError for what cannot be.
        """
        if {"duration", "seed"} & set(wishes):
            raise RequestError("duration and seed belong to the whole stream: start another one")
        given = {**wishes, **({} if text is None else {"text": text})}
        wanted = replace(self.request, **given)  # type: ignore[arg-type]
        plan = plan_of(wanted)
        self.request, self._plan = wanted, replace(plan, notes=(*plan.notes, *self._notes))
        self._windows.wish = Wish(plan.text, wanted.sampling)

    def _codes(self) -> Iterator[Tensor]:
        yield from self._windows

    def _decode(self, codes: Tensor) -> Tensor:
        wav: Tensor = self._decoder.push(rows_of(codes, self.channels))[:, 0]
        if wav.shape[-1]:
            self._decoder.pace(self.block)
        return wav

    def _finish(self) -> Tensor:
        with self.studio.at_work():
            wav: Tensor = self._decoder.finish()[:, 0]
        return self._level(wav)
