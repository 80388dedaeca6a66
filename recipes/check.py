"""Does a rendering sound what its labels say? Run on every renderer, because a wrong one is heard by no test of types.

The lead's notes are looked up in its own spectrum (a synthesiser that ignores a sound font's tuning is found this way),
stems must sum to the mix, every part with notes must sound, and drums must sit where records put them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..codec.stft import chroma_filters
from .piece import Piece

#: Share of the lead's notes that must be the strongest pitch class while they sound.
LEAD_SHARE = 0.9
#: Drums' power relative to the whole mix, dB: quieter than records are, or nothing but drums.
DRUMS_DB = (-18.0, -1.0)
#: Power of mix minus stems relative to the mix, dB.
RESIDUAL_DB = -50.0
_SILENT_DB = -65.0
_WINDOW = 8192
_SHORTEST = 0.12


@dataclass(frozen=True, kw_only=True)
class RenderReport:
    """What :func:`check_render` measured. ``problems`` is empty for a good rendering."""

    notes: int
    """Lead notes long enough to be looked up."""
    lead_share: float | None
    """Share of them found; None without a lead."""
    residual_db: float
    """Power of mix minus the stems' sum, relative to the mix."""
    silent: tuple[str, ...]
    """Stems with notes but without sound."""
    drums_db: float | None
    """Drums' power relative to the mix; None without drums."""
    peak: float
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


def check_render(piece: Piece, stems: Mapping[str, Tensor], mix: Tensor, rate: int) -> RenderReport:
    """Compare a rendering with its piece: ``stems`` role -> [C, T], ``mix`` [C, T]. Returns a :class:`RenderReport`.

    Raises ValueError when roles or shapes do not belong to the piece.
    """
    by_role = {stem.role: stem for stem in piece.stems}
    if set(stems) != set(by_role):
        raise ValueError(f"stems are {sorted(stems)}, the piece has {sorted(by_role)}: pass every role once")
    wrong = {role: tuple(wav.shape) for role, wav in stems.items() if wav.shape != mix.shape}
    if wrong or mix.dim() != 2:
        raise ValueError(f"stems and mix must share one shape [C, T]: mix {tuple(mix.shape)}, stems {wrong}")
    power = _power(mix)
    residual = _db(_power(mix - torch.stack(list(stems.values())).sum(0)), power)
    silent = tuple(role for role, wav in stems.items() if by_role[role].notes and _db(_power(wav), 1.0) < _SILENT_DB)
    drums = _db(_power(stems["drums"]), power) if "drums" in stems else None
    notes, found = lead_found(piece, stems["lead"], rate) if "lead" in stems and piece.melody else (0, 0)
    share = found / notes if notes else None
    peak = float(mix.abs().max()) if mix.numel() else 0.0
    problems = []
    if not torch.isfinite(mix).all():
        problems.append("the mix holds numbers that are not finite")
    if share is not None and share < LEAD_SHARE:
        problems.append(f"only {share:.0%} of the lead's {notes} notes sound at their pitch")
    if residual > RESIDUAL_DB:
        problems.append(f"the stems do not sum to the mix (residual {residual:.1f} dB)")
    if silent:
        problems.append(f"silent: {', '.join(silent)}")
    if drums is not None and "drums" not in silent and not DRUMS_DB[0] <= drums <= DRUMS_DB[1]:
        problems.append(f"drums at {drums:.1f} dB of the mix, usual are {DRUMS_DB[0]:g} to {DRUMS_DB[1]:g}")
    if peak > 1:
        problems.append(f"the mix peaks at {peak:.2f}, above full scale")
    return RenderReport(
        notes=notes, lead_share=share, residual_db=residual, silent=silent, drums_db=drums, peak=peak,
        problems=tuple(problems),
    )  # fmt: skip


def lead_found(piece: Piece, lead: Tensor, rate: int) -> tuple[int, int]:
    """Count the melody's notes of at least 0.12 s and those whose pitch class is the strongest in ``lead`` [C, T]."""
    mono = lead.mean(0)
    filters = chroma_filters(rate, _WINDOW)
    count = found = 0
    for onset, duration, pitch in piece.melody:
        # after the attack, whose noise has no pitch, and before the next note
        start = round((onset + min(0.03, duration / 4)) * rate)
        stop = min(round((onset + duration) * rate), start + _WINDOW, len(mono))
        if duration < _SHORTEST or stop - start < 0.6 * _SHORTEST * rate:
            continue
        piece_of = mono[start:stop] * torch.hann_window(stop - start, periodic=False)
        chroma = filters @ torch.fft.rfft(piece_of, _WINDOW).abs().square()
        count += 1
        found += int(chroma.argmax()) == pitch % 12
    return count, found


def _power(wav: Tensor) -> float:
    return float(wav.double().square().mean()) if wav.numel() else 0.0


def _db(power: float, reference: float) -> float:
    return 10 * math.log10(max(power, 1e-20) / max(reference, 1e-20))
