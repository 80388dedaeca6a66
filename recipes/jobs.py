"""What a language model that hears stems is asked to play, drawn from prepared targets.

One model learns all of it, because only its conditions differ: everything from words, one stem to fit others,
everything around given stems, a stretch that must arrive somewhere. What it may hear is made worse on purpose:
separated stems hold traces of each other, and a model that can trust every trace learns to copy instead of to play
(Donahue et al., "SingSong", arXiv:2301.12662, section 3, for separated vocals; MusicGen-Stem, arXiv:2501.01757, masks
stems of its context at random).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..lm.condition import Condition
from .targets_files import HEADER
from .targets_read import TargetSet, Window, pick, pick_apart
from .tokens import Crop, TokenSet

#: The kinds of work, in the order in which their shares are drawn.
KINDS: tuple[str, ...] = ("mix", "stem", "fill", "join")
#: Shortest and longest part of a window that is to be played before what it must join, as shares.
_PLAYED = (0.15, 0.9)


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """How often each kind of work comes, and how what is heard is made worse."""

    mix: float = 0.45
    """Everything, from words and labels alone. The four shares need not add up to 1."""
    stem: float = 0.3
    """One stem, some of the others being heard."""
    fill: float = 0.1
    """Everything, some stems of it being heard."""
    join: float = 0.15
    """A stretch, of a stem or of everything, whose continuation is known."""
    coarse: float = 0.5
    """Chance that only the first book or two of what is heard are told."""
    bleed: float = 0.1
    """Chance of each stem that is heard to carry, for a while, the finer books of the mix at another time: traces of
    the target which say nothing about it."""
    apart: float = 0.7
    """Chance of hearing what a separator finds instead of true stems, where both were kept."""
    untold: float = 0.4
    """Chance, where something is heard, that tempo, beat, key and chords are not told: they can be heard."""
    loudest: float = -15.0
    """dB: a stem that the target leaks into by more than this is not heard."""

    def __post_init__(self) -> None:
        shares = [getattr(self, kind) for kind in KINDS]
        if min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"the shares of {', '.join(KINDS)} must not be negative, nor all be 0: {shares}")
        for name in ("coarse", "bleed", "apart", "untold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: chances are 0 to 1")


class JobSet:
    """A :class:`TargetSet` as the language model's training set: crops, each with its work."""

    def __init__(self, targets: TargetSet, jobs: Jobs | None = None) -> None:
        self.targets, self.jobs = targets, jobs or Jobs()
        self.frame_rate, self.hours, self.mark = targets.frame_rate, targets.hours, targets.mark

    @property
    def lengths(self) -> list[int]:
        """Frames of each song."""
        return [self.targets.frames(song) for song in range(len(self.targets))]

    @property
    def captions(self) -> Iterator[str]:
        """All captions of all songs."""
        return (str(text) for row in self.targets.songs for text in row["labels"].get("captions") or ())

    @property
    def codes(self) -> Iterator[np.ndarray]:
        """The mixes, [F, K]."""
        for song in range(len(self.targets)):
            yield self.targets.window(song, 0, self.targets.frames(song)).mix.t().numpy()

    def parts(self) -> Mapping[str, JobSet]:
        """The same songs with one kind of work each, those that come at all; everything from words first."""
        alone = {
            kind: Jobs(**{**dict.fromkeys(KINDS, 0.0), kind: 1.0}, coarse=0.0, bleed=0.0, untold=0.0) for kind in KINDS
        }
        return {kind: JobSet(self.targets, jobs) for kind, jobs in alone.items() if getattr(self.jobs, kind) > 0}

    def crop(self, item: int, start: int, frames: int, caption: int) -> Crop:
        """``frames`` frames of everything in song ``item`` from frame ``start``, told by its caption ``caption``."""
        window = self.targets.window(item, start, frames, caption)
        # a tune is no label: it says what is to be played
        return Crop(window.mix, replace(window.condition, melody=None))

    def draw(self, count: int, frames: int, rng: torch.Generator, share: slice = slice(None)) -> list[Crop]:
        """Crops of ``count`` windows, a function of the generator's state alone; ``share`` of them are made."""
        seeds = torch.randint(1 << 62, (count,), generator=rng).tolist()[share]
        windows = self.targets.draw(count, frames, rng, share)
        return [
            self._crop(window, frames, torch.Generator().manual_seed(seed))
            for window, seed in zip(windows, seeds, strict=True)
        ]

    def _crop(self, window: Window, frames: int, dice: torch.Generator) -> Crop:
        jobs = self.jobs
        shares = torch.tensor([getattr(jobs, kind) for kind in KINDS], dtype=torch.float64)
        kind = KINDS[int(torch.multinomial(shares, 1, generator=dice))]
        target, context = pick(window, dice, jobs.loudest if kind == "stem" else 0.0)
        whole = kind in ("mix", "fill") or (kind == "join" and _roll(dice) < 0.5)
        codes, role = (window.mix, None) if whole else (window.stems[target], window.roles[target])
        heard: dict[str, Tensor] = {}
        if kind in ("stem", "fill"):
            heard = self._heard(window, target, context, dice, jobs.loudest if kind == "stem" else 0.0)
        heard = self._worse(heard, window.mix, dice)
        if kind == "join":
            low, high = (round(limit * codes.shape[1]) for limit in _PLAYED)
            begin = low + int(_roll(dice) * (high - low + 1))
            future = codes.clone()
            future[:, :begin] = -1
            heard[role or "mix"] = future
            # what is heard is not to be learnt: it would be copied
            codes = codes.clone()
            codes[:, begin:] = -1
        told = window.condition
        # the draw is made for every crop, so that the shares of jobs do not move other draws
        if _roll(dice) < jobs.untold and heard:
            told = replace(told, tempo=None, beats_per_bar=None, key=None, chords=None)
        condition: Condition = replace(told, stems=heard or None, target=role)
        if codes.shape[1] < frames:
            codes = torch.nn.functional.pad(codes, (0, frames - codes.shape[1]), value=-1)
        return Crop(codes, condition)

    def _heard(
        self, window: Window, target: int, context: Sequence[int], dice: torch.Generator, loudest: float
    ) -> dict[str, Tensor]:
        """True stems, or now and then what a separator finds of the others."""
        apart = window.apart
        if apart is not None and _roll(dice) < self.jobs.apart:
            found = pick_apart(window, dice, target, loudest)
            if found:
                return {apart.roles[place]: apart.stems[place] for place in found}
        return {window.roles[place]: window.stems[place] for place in context}

    def _worse(self, heard: Mapping[str, Tensor], mix: Tensor, dice: torch.Generator) -> dict[str, Tensor]:
        out = {}
        elsewhere = mix.roll(mix.shape[1] // 2, 1)
        kept = 1 + int(_roll(dice) * 2) if _roll(dice) < self.jobs.coarse else None
        for role, codes in heard.items():
            bled, from_share, length_share = (_roll(dice) for _ in range(3))
            if bled < self.jobs.bleed:
                start = int(from_share * codes.shape[1])
                stop = min(codes.shape[1], start + int(length_share * codes.shape[1]))
                codes = codes.clone()
                codes[1:, start:stop] = elsewhere[1:, start:stop]
            out[role] = codes[:kept]
        return out


def open_set(folder: str | os.PathLike[str], jobs: Jobs | None = None) -> TokenSet | JobSet:
    """The training set of a folder: targets of ``descant prepare``, or the tokens of ``descant prepare tokens``."""
    if (Path(folder) / HEADER).exists():
        return JobSet(TargetSet(folder), jobs)
    return TokenSet(folder)


def _roll(dice: torch.Generator) -> float:
    return float(torch.rand((), generator=dice))
