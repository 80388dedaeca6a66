"""Beats and onsets as lists of times, and how well two such lists agree.

Beats come from dynamic programming over the onset envelope (Ellis, "Beat tracking by dynamic programming", 2007) with
the tempo of :mod:`descant.eval.rhythm`; agreement is mir_eval's F-measure: pairs within a tolerance, each time used
once (Raffel et al., 2014).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .rhythm import TempoSettings, onset_envelope, tempo

_RATE = 200


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How two lists of times agree."""

    f1: float
    precision: float
    """Share of the estimated times that have a partner; 0 when there are none."""
    recall: float
    """Share of the reference times that have a partner; 0 when there are none."""
    matched: int


def beats(wav: Tensor, rate: int, bpm: float | None = None, settings: TempoSettings | None = None) -> list[float]:
    """Beat times in seconds of [T] or [C, T] at ``rate`` Hz; empty for silence.

    ``bpm`` fixes the tempo; by default it is estimated. The tempo is taken as constant, single beats may move.
    """
    if bpm is not None and not 20 <= bpm <= 400:
        raise ValueError(f"bpm is {bpm}: give a tempo from 20 to 400, or None to have it estimated")
    flux = onset_envelope(wav, rate)
    found = tempo(wav, rate, settings).bpm if bpm is None else bpm
    if found <= 0 or float(flux.abs().max()) == 0:
        return []
    return pulses(flux[None], found)[0]


def pulses(flux: Tensor, bpm: float) -> list[list[float]]:
    """Beat times in seconds of several onset envelopes [N, F], each followed near one tempo; empty for silence."""
    period = 60 * _RATE / bpm
    # a stroke is not one instant: blurred by a few per cent of the beat, as Ellis does
    reach = max(1, round(period / 16))
    kernel = torch.exp(-0.5 * (torch.arange(-2 * reach, 2 * reach + 1) / reach).square())
    local = torch.nn.functional.conv1d(flux[:, None], kernel[None, None], padding=2 * reach)[:, 0]
    return [[index / _RATE for index in row] for row in _chains(local.double(), period)]


def counted(bpm: float) -> float:
    """A tempo as most people would count it: moved by octaves to 85 to 170 beats a minute."""
    while bpm < 85:
        bpm *= 2
    while bpm >= 170:
        bpm /= 2
    return bpm


def onsets(wav: Tensor, rate: int, threshold: float = 0.8) -> list[float]:
    """Onset times in seconds of [T] or [C, T] at ``rate`` Hz: peaks of the onset envelope, at least 50 ms apart.

    A peak counts if it is the largest within 30 ms and ``threshold`` deviations above the envelope's mean there.
    """
    flux = onset_envelope(wav, rate)
    if float(flux.abs().max()) == 0:
        return []
    top = torch.nn.functional.max_pool1d(flux[None, None], 13, 1, 6)[0, 0]
    mean = torch.nn.functional.avg_pool1d(flux[None, None], 41, 1, 20, count_include_pad=False)[0, 0]
    places = ((flux >= top) & (flux > mean + threshold)).nonzero().flatten().tolist()
    kept: list[int] = []
    for place in places:
        if not kept or place - kept[-1] >= 0.05 * _RATE:
            kept.append(place)
    return [place / _RATE for place in kept]


def event_f1(reference: Sequence[float], estimated: Sequence[float], tolerance: float) -> Agreement:
    """F-measure of two lists of times in seconds, partners within ``tolerance`` s; the largest matching counts.

    Two empty lists score 0, as in mir_eval. Raises ValueError for a negative tolerance.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}: it must not be negative, 0.05 s for onsets and 0.07 s for beats")
    left, right = sorted(reference), sorted(estimated)
    matched = i = j = 0
    # intervals of equal width: taking partners in order of time is a largest matching
    while i < len(left) and j < len(right):
        if abs(left[i] - right[j]) <= tolerance:
            matched, i, j = matched + 1, i + 1, j + 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    precision = matched / len(right) if right else 0.0
    recall = matched / len(left) if left else 0.0
    total = precision + recall
    return Agreement(
        f1=2 * precision * recall / total if total else 0.0, precision=precision, recall=recall, matched=matched
    )  # fmt: skip


def beat_f1(reference: Sequence[float], estimated: Sequence[float], skip: float = 5.0) -> Agreement:
    """Beat F-measure as mir_eval and MIREX take it: 70 ms, beats before ``skip`` s left out (0 keeps all)."""
    kept = [[time for time in times if time >= skip] for times in (reference, estimated)]
    return event_f1(kept[0], kept[1], 0.07)


def pulse_f1(bpm: float, first: float, seconds: float, estimated: Sequence[float], skip: float = 0.5) -> float:
    """Beat F-measure against a steady pulse, the better of its beats and its off-beats.

    first: of its beats, s; ``skip`` s at the beginning do not count. Whoever hears a part alone cannot know whether it
    plays on the beat or between, so both levels are allowed, as continuity measures do (Davies et al., "Evaluation
    methods for musical audio beat tracking algorithms", 2009). Partners are within 70 ms, or an eighth of a beat where
    that is shorter: half of all random times are, whatever the tempo.
    """
    period = 60 / bpm
    kept = [time for time in estimated if time >= skip]
    scores = []
    for start in (first, first + period / 2):
        begin = start - math.floor((start - skip) / period) * period
        grid = [begin + count * period for count in range(math.ceil((seconds - begin) / period))]
        scores.append(event_f1(grid, kept, min(0.07, period / 8)).f1)
    return max(scores)


def _chains(local: Tensor, period: float, tightness: float = 100.0) -> list[list[int]]:
    """For each row [N, F] the best chain of frames about one period apart.

    Score = envelope - tightness * log(gap / period)^2.
    """
    rows, count = local.shape
    near, far = round(period / 2), round(2 * period)
    gaps = torch.arange(far, near - 1, -1)
    cost = -tightness * torch.log(gaps.double() / period).square()
    local = local / local.std(1, keepdim=True).clamp(min=1e-9)
    score = torch.cat([torch.zeros(rows, far, dtype=torch.float64), local], 1)
    back = torch.full((rows, count), -1)
    for index in range(count):
        best = (score[:, index : index + far - near + 1] + cost).max(1)
        before = index - gaps[best.indices]
        # before the first onset there is no chain to hang on to
        there = before >= 0
        score[:, index + far] += best.values * there
        back[:, index] = torch.where(there, before, -1)
    ends = score[:, far + max(0, count - round(period)) :]
    places = (count - ends.shape[1] + ends.argmax(1)).tolist()
    return [
        _followed(steps, place, envelope) for steps, place, envelope in zip(back.tolist(), places, local, strict=True)
    ]


def _followed(back: list[int], place: int, envelope: Tensor) -> list[int]:
    """The chain that ends at ``place``, without beats laid into silence before the music or after it."""
    if float(envelope.abs().max()) == 0:
        return []
    chain = [place]
    while back[chain[-1]] >= 0:
        chain.append(back[chain[-1]])
    chain.reverse()
    strength = envelope[chain]
    loud = (strength > 0.5 * strength.square().mean().sqrt()).nonzero().flatten().tolist()
    return chain[loud[0] : loud[-1] + 1] if loud else []
