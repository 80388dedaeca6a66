"""Where a factorisation starts decides what its parts mean: at random, at harmonics, or at a score.

Ewert and Mueller, "Using Score-Informed Constraints for NMF-based Source Separation" (ICASSP 2012): templates of notes
are zero between their partials, activations are zero where the score has no such note, and a second template for each
note, which may hold any frequency but sounds around onsets only, takes the strike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .spectral import Grid


@dataclass(frozen=True, kw_only=True)
class Note:
    """A note of a score: from ``start`` to ``end`` in seconds, played by ``stem``."""

    start: float
    end: float
    pitch: int
    """As in MIDI: 69 is A4 at 440 Hz. Of drums: which one."""
    stem: str
    pitched: bool = True
    """Whether its sound is harmonic."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end or not 0 <= self.pitch <= 127 or not self.stem:
            raise ValueError(f"need 0 <= start < end, a pitch of 0 to 127 and a stem's name, got {self}")


@dataclass(frozen=True, kw_only=True)
class StartSettings:
    """What harmonic templates and a score allow."""

    partials: int = 24
    """Of a note, those below half the sample rate."""
    width: float = 0.5
    """Semitones to both sides of a partial that belong to it."""
    early: float = 0.1
    """Seconds before its onset at which a note may already sound."""
    late: float = 0.3
    """Seconds after its end at which it may still sound."""
    onset: float = 0.1
    """Seconds around an onset in which its strike may sound; 0 for no templates of strikes."""

    def __post_init__(self) -> None:
        if self.partials < 1 or self.width <= 0 or min(self.early, self.late, self.onset) < 0:
            raise ValueError(f"need a partial or more, a width above 0 and nothing negative, got {self}")


def random_start(bins: int, parts: int, frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Templates [K, N] and activations [N, J] of random numbers in 0.1 to 1, the same for the same seed; float64."""
    dice = torch.Generator().manual_seed(seed)
    rows = [torch.rand(shape, generator=dice, dtype=torch.float64) for shape in ((bins, parts), (parts, frames))]
    return 0.1 + 0.9 * rows[0], 0.1 + 0.9 * rows[1]


def harmonic_templates(pitches: Sequence[int], grid: Grid, settings: StartSettings | None = None) -> Tensor:
    """Templates [K, N] of notes: partials that fall as 1 / number, each column summing to 1; float64.

    Between partials there is nothing, but each has the width of the window's main lobe at least.
    """
    settings = settings or StartSettings()
    hertz = grid.hertz()
    spacing = grid.rate / grid.window
    columns = []
    for pitch in pitches:
        column = torch.zeros_like(hertz)
        for number in range(1, settings.partials + 1):
            partial = 440.0 * 2 ** ((pitch - 69) / 12) * number
            if partial >= grid.rate / 2:
                break
            reach = max(partial * (2 ** (settings.width / 12) - 1), 2 * spacing)
            column = torch.maximum(column, (1 - (hertz - partial).abs() / reach).clamp(min=0) / number)
        columns.append(column / column.sum().clamp(min=1e-12))
    return torch.stack(columns, 1)


@dataclass(frozen=True)
class ScoreStart:
    """Where a factorisation of a score starts: templates [K, N], activations [N, J], and whose each part is."""

    templates: Tensor
    activations: Tensor
    stems: tuple[str, ...]


def score_start(notes: Sequence[Note], frames: int, grid: Grid, settings: StartSettings | None = None) -> ScoreStart:
    """One part for each note that a stem plays and, with ``settings.onset``, one for its strikes.

    frames: J of the recording. Raises ValueError for a score without notes.
    """
    settings = settings or StartSettings()
    if not notes:
        raise ValueError("a score without notes says nothing: give at least one")
    keys = sorted({(note.stem, note.pitched, note.pitch) for note in notes})
    pitched = [key for key in keys if key[1]]
    struck = keys if settings.onset > 0 else []
    flat = torch.full((grid.bins, 1), 1 / grid.bins, dtype=torch.float64)
    harmonic = harmonic_templates([key[2] for key in pitched], grid, settings) if pitched else flat[:, :0]
    place = {key: number for number, key in enumerate(pitched)}
    columns = [harmonic[:, place[key], None] if key in place else flat for key in keys] + [flat] * len(struck)
    rows = {key: torch.zeros(frames, dtype=torch.float64) for key in keys}
    strikes = {key: torch.zeros(frames, dtype=torch.float64) for key in struck}
    for note in notes:
        key = (note.stem, note.pitched, note.pitch)
        _mark(rows[key], note.start - settings.early, note.end + settings.late, grid)
        if struck:
            _mark(strikes[key], note.start - settings.onset, note.start + settings.onset, grid)
    activations = torch.stack([*rows.values(), *strikes.values()])
    return ScoreStart(torch.cat(columns, 1), activations, tuple(key[0] for key in (*keys, *struck)))


def _mark(row: Tensor, start: float, end: float, grid: Grid) -> None:
    first, last = (int(second * grid.rate // grid.hop) for second in (max(0.0, start), end))
    row[first : last + 1] = 1.0
