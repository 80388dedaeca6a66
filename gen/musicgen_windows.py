"""Music of any length from a MusicGen, whose models were trained on 30 s: window by window, in memory that stays.

Each window but the first begins with the last 12 s of what there is and plays 18 s more, as AudioCraft does
(``extend_stride`` 18). A window's positions begin anew, because they are absolute and none beyond 30 s were trained.
So nothing that was computed from the tokens of one window holds in the next: position 0 is added to other tokens, and
every key and value follows from it. What holds is what comes from the sentence alone, and is computed once: its states,
the keys and values of cross-attention, and in melody models without a melody those of the whole prefix, which keeps its
positions. A melody moves on from window to window, and its prefix with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .request import seed_of

if TYPE_CHECKING:
    from ..lm.musicgen import Conditions
    from ..lm.sample import SamplingSettings
    from .musicgen import MusicGenStudio
    from .musicgen_melody import Lead

#: Seconds the models were trained on, and how many of them a further window hears again.
WINDOW, HEARD = 30.0, 12.0


@dataclass(frozen=True)
class Wish:
    """What is played from the next window on."""

    text: str | None
    settings: SamplingSettings


class Windows:
    """The frames [K] of a piece, one after another.

    frames: how many (None: until nobody asks any more). prompt: codes [K, F0] that they follow. lead: the melody. When
    :attr:`wish` is replaced, a window that follows it begins at once, with the last 12 s as they were played.
    """

    def __init__(
        self, studio: MusicGenStudio, wish: Wish, seed: int, frames: int | None, *, prompt: Tensor | None = None,
        lead: Lead | None = None,
    ) -> None:  # fmt: skip
        self.studio, self.wish, self.seed, self.frames, self.lead = studio, wish, seed, frames, lead
        self._size = round(WINDOW * studio.lm.config.frame_rate)
        before = 0 if prompt is None else prompt.shape[1]
        self._heard: deque[Tensor] = deque([] if prompt is None else prompt.unbind(1), maxlen=studio.lookback)
        self._before = before
        self._kept: tuple[Wish, Conditions, Any] | None = None
        #: A piece of one window has its melody as the transformers library has it; longer ones as AudioCraft.
        self._single = frames is not None and before + frames <= self._size

    def __iter__(self) -> Iterator[Tensor]:
        """New frames; what samples runs between them under the studio's own setting."""
        done = window = 0
        while self.frames is None or done < self.frames:
            more = self._size - len(self._heard)
            wish = self.wish
            more = more if self.frames is None else min(more, self.frames - done)
            place = (self._before + done - len(self._heard)) / self.studio.lm.config.frame_rate
            for frame in self._window(wish, window, place, more):
                done += 1
                self._heard.append(frame)
                yield frame
                if self.wish is not wish:
                    break
            window += 1

    def _window(self, wish: Wish, window: int, place: float, frames: int) -> Iterator[Tensor]:
        prompt = torch.stack(list(self._heard), 1)[None] if self._heard else None
        settings = wish.settings
        if wish.text is None and self.lead is None:
            settings = replace(settings, guidance=1.0)  # nothing to follow: half the work
        cond, ready = self._told(wish, place, settings.weight != 1.0)
        rows = self.studio.engine.stream(
            frames, cond, prompt=prompt, settings=settings, seed=seed_of(self.seed, window), ready=ready
        )
        while True:
            with self.studio.at_work():
                row = next(rows, None)
            if row is None:
                return
            yield row[0]

    def _told(self, wish: Wish, place: float, guided: bool) -> tuple[Conditions, Any]:
        """What the window from ``place`` seconds on is told, and the form layers read: the last one's if it holds."""
        if self._kept is None or self._kept[0] is not wish or self.lead is not None:
            with self.studio.at_work():
                heard = None
                if self.lead is not None:
                    heard = self.lead.whole() if self._single and not place else self.lead.window(place)
                cond = self.studio.lm.condition([wish.text], heard)
                make = getattr(self.studio.engine, "ready", None)  # engines for GPUs have none
                ready = None if make is None or self._single else make(cond, guided, keep=self.lead is None)
            self._kept = wish, cond, ready
        return self._kept[1:]


def said() -> str:
    """How long music is made, in a line."""
    return f"made in windows of {WINDOW:g} s, each of which hears the last {HEARD:g} s before it"
