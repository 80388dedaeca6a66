"""Does a generated part fit the parts it was made for? What was given is kept, what was added belongs to it.

Kept stems are compared with themselves; added ones are judged by rhythm (do they strike where the others strike) and
harmony (do they use the notes of the moment). One number proves nothing: :func:`adherence_test` compares every part
with its own context and with everybody else's, as accompaniment prompt adherence does (Grachten & Nistal, 2024), and
gives a permutation p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .beats import beats, event_f1, onsets
from .pitch import PitchSettings, notes
from .rhythm import ENVELOPE_RATE, onset_envelope
from .separation import si_scores, utterance_sdr
from .statistics import Matching, matching_test

_FRAMES = PitchSettings(window=0.19, hop=0.05, rounds=15)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A stem that was given, as found again in the result."""

    si_sdr: float
    """Scale-invariant SDR in dB: shape alone."""
    sdr: float
    """Utterance SDR in dB: level too."""
    onset_f1: float
    """Onsets of the given stem found again within 50 ms."""
    chroma: float
    """:func:`chroma_agreement` of the two."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a part agrees with its context; larger is better, and only differences between contexts mean anything."""

    onset_f1: float
    """F-measure of the part's onsets and the context's, 50 ms."""
    pulse: float
    """Correlation of both onset envelopes, blurred by 25 ms, -1 to 1."""
    grid: float
    """Share of the part's onsets within 40 ms of the context's beats or their quarters; chance is about 0.6."""
    chroma: float
    """:func:`chroma_agreement` over frames in which both sound notes; 0 when there are none."""


def kept(given: Tensor, found: Tensor, rate: int) -> Kept:
    """Compare a given stem with the same stem in the result, [T] or [C, T] each at ``rate`` Hz, equally long.

    ``found`` is the true stem where the system returns stems, else what a separator took out of the mix. Raises
    ValueError for differing shapes or a silent given stem.
    """
    one, two = (wav.reshape(1, -1, wav.shape[-1]) for wav in (given, found))
    if one.shape != two.shape:
        raise ValueError(f"given stem {tuple(given.shape)}, found {tuple(found.shape)}: cut both to one shape")
    if float(one.abs().max()) == 0:
        raise ValueError("the given stem is silent: nothing can be kept of it, leave it out and say so")
    return Kept(
        si_sdr=float(si_scores(one, two).sdr[0]),
        sdr=float(utterance_sdr(one, two)[0]),
        onset_f1=event_f1(onsets(given, rate), onsets(found, rate), 0.05).f1,
        chroma=chroma_agreement(given, found, rate),
    )


def leakage(given: Tensor, generated: Tensor) -> float:
    """Energy of a generated part that is a copy of the given one, in dB re the part (projection with one gain).

    given, generated: [T] or [C, T], equally long. Near 0 dB means that the context was played back; -inf if nothing is.
    """
    one, two = given.double().flatten(), generated.double().flatten()
    if one.shape != two.shape or float(one.abs().sum()) == 0 or float(two.abs().sum()) == 0:
        raise ValueError("leakage needs two sounding parts of the same shape: cut both, leave silent ones out")
    share = (one @ two).square() / (one.square().sum() * two.square().sum())
    return float(10 * torch.log10(share))


def fit(context: Tensor, part: Tensor, rate: int) -> Fit:
    """Agreement of a part with its context (the sum of the given stems), [T] or [C, T] each at ``rate`` Hz."""
    return compare(listen(context, rate), listen(part, rate))


def chroma_agreement(left: Tensor, right: Tensor, rate: int) -> float:
    """Mean cosine of the pitch classes of two clips frame by frame, over frames where both sound; 0 if none does.

    left, right: [T] or [C, T] at ``rate`` Hz. Pitch classes come from :mod:`descant.eval.pitch`, drums fall out.
    """
    return _chroma(notes(left, rate, _FRAMES).chroma(), notes(right, rate, _FRAMES).chroma())


def adherence_test(
    contexts: Sequence[Tensor], parts: Sequence[Tensor], rate: int, shuffles: int = 10_000, seed: int = 0
) -> dict[str, Matching]:
    """Do parts fit their own contexts better than others'? One permutation test for each measure of :class:`Fit`.

    contexts, parts: N clips each, in the same order, equally long, at ``rate`` Hz. Contexts should share tempo and
    length or not as they come: a mismatch in tempo is a real mismatch. Raises ValueError for fewer than 2 pairs.
    """
    if len(contexts) != len(parts) or len(parts) < 2:
        raise ValueError(f"{len(contexts)} contexts for {len(parts)} parts: need at least 2 pairs, in the same order")
    return fit_tests([listen(wav, rate) for wav in contexts], [listen(wav, rate) for wav in parts], shuffles, seed)


def fit_tests(
    contexts: Sequence[Heard], parts: Sequence[Heard], shuffles: int = 10_000, seed: int = 0
) -> dict[str, Matching]:
    """:func:`adherence_test` of what was heard."""
    rows = [[compare(context, part) for context in contexts] for part in parts]
    return {
        name: matching_test(
            torch.tensor([[getattr(one, name) for one in row] for row in rows], dtype=torch.float64),
            shuffles=shuffles, seed=seed,
        )
        for name in ("onset_f1", "pulse", "grid", "chroma")
    }  # fmt: skip


@dataclass(frozen=True)
class Heard:
    """What is compared of a part or of its context."""

    onsets: list[float]
    """s"""
    envelope: Tensor
    """:func:`descant.eval.rhythm.onset_envelope`, [F]."""
    beats: list[float]
    """s, by a tempo of its own."""
    chroma: Tensor
    """[12, G], 20 frames a second."""


def listen(wav: Tensor, rate: int) -> Heard:
    """Hear a part, or what it was made for: [T] or [C, T] at ``rate`` Hz."""
    return Heard(
        onsets(wav, rate), onset_envelope(wav, rate), beats(wav, rate), notes(wav, rate, _FRAMES).chroma()
    )  # fmt: skip


def compare(context: Heard, part: Heard) -> Fit:
    """:func:`fit` of what was heard."""
    return Fit(
        onset_f1=event_f1(context.onsets, part.onsets, 0.05).f1,
        pulse=_pulse(context.envelope, part.envelope),
        grid=_grid(context.beats, part.onsets),
        chroma=_chroma(context.chroma, part.chroma),
    )


def _pulse(left: Tensor, right: Tensor) -> float:
    count = min(left.numel(), right.numel())
    width = round(0.025 * ENVELOPE_RATE)
    kernel = torch.exp(-0.5 * (torch.arange(-3 * width, 3 * width + 1) / width).square())[None, None]
    one, two = (
        torch.nn.functional.conv1d(row[None, None, :count], kernel, padding=3 * width)[0, 0] for row in (left, right)
    )
    one, two = one - one.mean(), two - two.mean()
    return float((one @ two) / (one.norm() * two.norm()).clamp(min=1e-9))


def _grid(pulse: list[float], struck: list[float]) -> float:
    if len(pulse) < 2 or not struck:
        return 0.0
    times = torch.tensor(pulse, dtype=torch.float64)
    gaps = times[1:] - times[:-1]
    quarters = torch.cat([times[:-1] + gaps * share / 4 for share in range(4)] + [times[-1:]])
    inside = [time for time in struck if pulse[0] - 0.04 <= time <= pulse[-1] + 0.04]
    near = [float((quarters - time).abs().min()) <= 0.04 for time in inside]
    return sum(near) / max(1, len(near))


def _chroma(left: Tensor, right: Tensor) -> float:
    count = min(left.shape[1], right.shape[1])
    one, two = left[:, :count].sqrt(), right[:, :count].sqrt()
    floors = [0.05 * float(table.norm(dim=0).max()) for table in (one, two)] if count else [0.0, 0.0]
    both = (one.norm(dim=0) > max(floors[0], 1e-6)) & (two.norm(dim=0) > max(floors[1], 1e-6))
    if not bool(both.any()):
        return 0.0
    cosine = (one * two).sum(dim=0) / (one.norm(dim=0) * two.norm(dim=0)).clamp(min=1e-9)
    return float(cosine[both].mean())
