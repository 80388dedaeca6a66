"""Chords from audio: pitch classes of the notes heard against 24 triads, smoothed over time, and the score in majmin.

Bass and upper notes are looked at apart: the bass weighs the root (Mauch & Dixon, 2010). Labels are written in Harte's
notation (``A:min``), ``N`` for no chord.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .pitch import PitchSettings, notes
from .tonality import TONICS, tuning

#: Root names, row = pitch class.
ROOTS: tuple[str, ...] = TONICS
#: The 24 triads and no chord, in the order of scores.
LABELS: tuple[str, ...] = (*(f"{root}:{kind}" for kind in ("maj", "min") for root in ROOTS), "N")
#: (start s, end s, label).
Span = tuple[float, float, str]


@dataclass(frozen=True, kw_only=True)
class ChordSettings:
    """How chords are found."""

    stay: float = 40.0
    """Log odds of staying on a chord for one more frame of 46 ms: higher is smoother."""
    sharpness: float = 18.0
    """Weight of the frames' evidence."""
    bass: float = 0.25
    """Weight of the bass note beside the chord's notes."""
    silence: float = 0.02
    """Frames with less note strength than this share of the clip's loud frames are ``N``."""

    def __post_init__(self) -> None:
        if self.stay < 0 or self.sharpness <= 0 or self.bass < 0 or not 0 <= self.silence < 1:
            raise ValueError(f"need stay >= 0, sharpness > 0, bass >= 0, 0 <= silence < 1: {self}")


def chords(wav: Tensor, rate: int, settings: ChordSettings | None = None) -> list[Span]:
    """Major and minor triads over time of [T] or [C, T] at ``rate`` Hz, without gaps; silence is ``N``."""
    chosen = settings or ChordSettings()
    length = wav.shape[-1] / rate
    found = notes(wav, rate, PitchSettings(window=0.37, hop=0.046), tuning=tuning(wav, rate))
    upper, lower = found.chroma(), found.chroma(high=54)
    level = upper.sum(dim=0)
    loud = float(level.quantile(0.9)) if level.numel() else 0.0
    if loud <= 0:
        return [(0.0, length, "N")]
    fit = _fit(upper) + chosen.bass * _share(lower)[torch.arange(24) % 12]
    quiet = level < chosen.silence * loud
    none = torch.where(quiet, fit.amax(dim=0) + 1, fit.amin(dim=0) - 1)
    path = smooth(chosen.sharpness * torch.cat([fit, none[None]]), chosen.stay)
    spans: list[Span] = []
    for index, state in enumerate(path):
        start = max(0.0, (index - 0.5) * found.hop)
        if spans and spans[-1][2] == LABELS[state]:
            continue
        if spans:
            spans[-1] = (spans[-1][0], start, spans[-1][2])
        spans.append((start, length, LABELS[state]))
    return [span for span in spans if span[1] > span[0]]


def majmin_accuracy(reference: Sequence[Span], estimated: Sequence[Span]) -> float:
    """Share of the time with the right triad: MIREX's and mir_eval's ``majmin``, weighted by duration.

    Only what the reference labels major, minor or ``N`` counts; other labels, such as ``X``, are left out, and time the
    estimate does not cover is ``N``. NaN if the reference has nothing to count.
    """
    total = right = 0.0
    for start, end, label in reference:
        if label not in LABELS:
            continue
        covered = 0.0
        for other_start, other_end, other in estimated:
            shared = min(end, other_end) - max(start, other_start)
            if shared > 0:
                covered += shared
                right += shared * (other == label)
        right += (end - start - covered) * (label == "N")
        total += end - start
    return right / total if total > 0 else float("nan")


def smooth(score: Tensor, stay: float) -> list[int]:
    """Best path through [states, F] log scores when changing state costs ``stay`` (Viterbi, 1967)."""
    states, count = score.shape
    best = score[:, 0].clone()
    back = torch.zeros(count, states, dtype=torch.long)
    own = torch.arange(states)
    for index in range(1, count):
        top = int(best.argmax())
        change = best[top] - stay
        moved = change > best
        back[index] = torch.where(moved, top, own)
        best = torch.where(moved, change, best) + score[:, index]
    state = int(best.argmax())
    path = [state]
    for index in range(count - 1, 0, -1):
        state = int(back[index, state])
        path.append(state)
    return path[::-1]


def _fit(chroma: Tensor) -> Tensor:
    """Cosine of each frame [12, F] with the 24 triads -> [24, F]."""
    triads = torch.zeros(24, 12)
    for root in range(12):
        for row, third in ((root, 4), (root + 12, 3)):
            triads[row, [root, (root + third) % 12, (root + 7) % 12]] = 1 / 3**0.5
    heard = chroma.sqrt()
    fit: Tensor = triads @ (heard / heard.norm(dim=0).clamp(min=1e-9))
    return fit


def _share(chroma: Tensor) -> Tensor:
    return chroma / chroma.sum(dim=0).clamp(min=1e-9)
