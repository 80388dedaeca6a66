"""Did the music keep the melody it was given? Two answers, of which one is circular and says so.

:func:`chroma_cosine` is what papers report: the chroma that also conditions MusicGen, compared with itself, so a model
can please it without a melody anybody hears. :func:`adherence` asks an analyser that conditions nothing: notes are
found by harmonic templates (:mod:`descant.eval.pitch`), or by basic-pitch's network as an extra; the tune on top of
them is followed, and its pitch classes are compared frame by frame (raw chroma accuracy; Poliner et al., 2007).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..codec.audio import resample
from ..codec.stft import stft
from .pitch import HIGHEST, LOWEST, NoteMap, notes

if TYPE_CHECKING:
    import os

#: Seconds from frame to frame of a track.
HOP = 0.02
_BASIC_RATE, _BASIC_HOP, _BASIC_WINDOW, _BASIC_EDGE = 22_050, 256, 43_844, 15
_BASIC_FLOOR = 0.35


@dataclass(frozen=True, kw_only=True)
class MelodySettings:
    """How the tune is followed."""

    low: int = 48
    """Lowest note of a tune, MIDI."""
    high: int = 96
    """Highest note of a tune, MIDI."""
    threshold: float = 0.06
    """A note sounds when it is stronger than this share of the clip's strong notes."""
    lift: float = 0.13
    """Advantage of each semitone of height, in log strength: tunes lie on top."""
    leap: float = 0.06
    """Cost of each semitone from frame to frame, in log strength; an octave costs 12 times as much at most."""
    rest: float = 1.5
    """Cost of starting or ending a rest, in log strength."""

    def __post_init__(self) -> None:
        if not LOWEST <= self.low < self.high <= HIGHEST:
            raise ValueError(f"low {self.low} and high {self.high} must lie within {LOWEST}..{HIGHEST}, low first")
        if not 0 < self.threshold < 1 or min(self.leap, self.rest) < 0:
            raise ValueError(f"threshold {self.threshold} must lie in 0..1, leap {self.leap} and rest {self.rest} >= 0")


@dataclass(frozen=True, kw_only=True)
class Adherence:
    """How much of a reference tune is heard."""

    score: float
    """Share of the frames with a reference note whose pitch class is heard at the same time, 0 to 1."""
    pitch: float
    """The same with the octave counted."""
    best_lag: float
    """Share at the best delay within the allowed one; equal to ``score`` if none is better."""
    lag: float
    """That delay in seconds, positive when the heard tune is late."""
    transposed: float
    """Share at the best of 12 transpositions, no delay: high with a low ``score`` means another key."""
    shift: int
    """That transposition in semitones, -5 to 6."""
    frames: int
    """Frames with a reference note."""


def track(wav: Tensor, rate: int, settings: MelodySettings | None = None) -> Tensor:
    """Follow the tune of [T] or [C, T] at ``rate`` Hz: MIDI note of every 20 ms frame, NaN for a rest, float [F]."""
    return skyline(notes(wav, rate), settings)


def skyline(found: NoteMap, settings: MelodySettings | None = None) -> Tensor:
    """The strongest continuous path along the top of a note map, [F] frames of :data:`HOP`, NaN for rests."""
    chosen = settings or MelodySettings()
    table = found.strength[chosen.low - LOWEST : chosen.high - LOWEST + 1]
    count = 1 + int((found.strength.shape[1] - 1) * found.hop / HOP + 1e-6)
    strong = float(table.amax(dim=0).quantile(0.8)) if table.numel() else 0.0
    if strong <= 0:
        return torch.full((count,), math.nan)
    # five frames together: a tune does not flicker
    table = torch.nn.functional.avg_pool1d(table[None], 5, 1, 2, count_include_pad=False)[0]
    heights = torch.arange(table.shape[0], dtype=torch.float32)
    level = (table / strong).clamp(min=1e-4)
    # height helps a note that sounds, never one that does not
    score = torch.where(level >= chosen.threshold, level.log() + chosen.lift * heights[:, None], -12.0)
    rest = torch.full((1, table.shape[1]), math.log(chosen.threshold))
    path = torch.tensor(_follow(torch.cat([score, rest]), chosen))
    pitch = torch.where(path == table.shape[0], torch.nan, path + float(chosen.low))
    frames = (torch.arange(count) * HOP / found.hop).round().long().clamp(max=pitch.numel() - 1)
    return pitch[frames]


def from_notes(rows: Sequence[tuple[float, float, int]], seconds: float) -> Tensor:
    """A written tune as a track: rows of (onset s, length s, MIDI note) -> [F], NaN where nothing sounds."""
    if seconds <= 0:
        raise ValueError(f"seconds is {seconds}: a track needs a positive length")
    out = torch.full((1 + int(seconds / HOP),), math.nan)
    for onset, length, pitch in rows:
        out[max(0, round(onset / HOP)) : max(0, round((onset + length) / HOP))] = float(pitch)
    return out


def adherence(reference: Tensor, heard: Tensor, lag: float = 0.2, tolerance: float = 0.04) -> Adherence:
    """Compare two tracks [F] of :data:`HOP` frames; the shorter one is taken to rest at its end.

    A note counts if it is heard within ``tolerance`` s: frames overlap, so the edges of notes are no sharper than that
    (0 gives mir_eval's raw chroma accuracy). A delay up to ``lag`` s either way is tried beside none. Raises ValueError
    when the reference has no note.
    """
    length = max(reference.numel(), heard.numel())
    left, right = (
        torch.nn.functional.pad(row.float(), (0, length - row.numel()), value=math.nan) for row in (reference, heard)
    )
    frames = int((~left.isnan()).sum())
    if frames == 0:
        raise ValueError("the reference holds no note: there is no melody to keep, leave this clip out and say so")
    near = round(tolerance / HOP)
    plain = _share(left, right, near)
    steps = round(lag / HOP)
    # found without tolerance, which would blur it; the shortest of equally good delays
    lags = {step: _share(left, _delay(right, -step), 0) for step in range(-steps, steps + 1)}
    step = max(lags, key=lambda one: (lags[one], -abs(one)))
    shifts = {shift: _share(left + shift, right, near) for shift in range(-5, 7)}
    shift = max(shifts, key=lambda one: (shifts[one], -abs(one)))
    octave = _share(left, right, near, fold=False)
    late = _share(left, _delay(right, -step), near)
    return Adherence(
        score=plain,
        pitch=octave,
        best_lag=max(plain, late),
        lag=step * HOP,
        transposed=shifts[shift],
        shift=shift,
        frames=frames,
    )


def chroma_cosine(reference: Tensor, generated: Tensor, rate: int) -> float:
    """The papers' chroma cosine (Copet et al., "Simple and Controllable Music Generation", 2023): circular.

    reference, generated: [T] or [C, T] at ``rate`` Hz. Power spectra of 2^14 samples every 2^12, the strongest pitch
    class of each frame as one-hot, cosine per frame, mean over frames both have. Silence counts as C, as it does there.
    The figure only compares systems at equal ``rate``; papers use 32 kHz.
    """
    one, two = (_one_hot(wav, rate) for wav in (reference, generated))
    count = min(one.shape[1], two.shape[1])
    return float((one[:, :count] * two[:, :count]).sum(dim=0).mean())


@functools.lru_cache(maxsize=4)
def paper_chroma_filters(rate: int, n_fft: int) -> Tensor:
    """librosa's chroma filter bank [12, n_fft // 2 + 1], tuning 0, row 0 = C: Gaussians around C5 in log frequency."""
    hertz = torch.arange(1, n_fft, dtype=torch.float64) * rate / n_fft
    place = 12 * torch.log2(hertz / (440 / 16))
    place = torch.cat([place[:1] - 18, place])
    width = torch.cat([(place[1:] - place[:-1]).clamp(min=1), torch.ones(1, dtype=torch.float64)])
    distance = torch.remainder(place[None] - torch.arange(12)[:, None] + 126, 12) - 6
    weight = torch.exp(-0.5 * (2 * distance / width).square())
    weight = weight / weight.norm(dim=0)
    weight = weight * torch.exp(-0.5 * ((place / 12 - 5) / 2).square())
    bank: Tensor = weight.roll(-3, dims=0)[:, : n_fft // 2 + 1].float()
    return bank


def basic_pitch(wav: Tensor, rate: int, model: str | os.PathLike[str]) -> NoteMap:
    """Note strengths by basic-pitch's network (Bittner et al., 2022), for :func:`skyline`: a second opinion.

    wav: [T] or [C, T] at ``rate`` Hz; ``model``: the file ``nmp.onnx`` of the package basic-pitch (Apache-2.0). Runs
    through the optional package onnxruntime; raises ImportError naming it when it is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("basic-pitch's network needs onnxruntime: pip install 'descant[melody]'") from error
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    mono = resample(wav.float().reshape(-1, wav.shape[-1]).mean(dim=0), rate, _BASIC_RATE)
    frames = _BASIC_WINDOW // _BASIC_HOP + 1
    kept = frames - 2 * _BASIC_EDGE
    # the network sees two seconds; frames at the edges of a window lack context and are thrown away
    count = max(1, -(-(mono.numel() // _BASIC_HOP + 1) // kept))
    lead = _BASIC_EDGE * _BASIC_HOP
    padded = torch.nn.functional.pad(mono, (lead, count * kept * _BASIC_HOP + _BASIC_WINDOW - mono.numel()))
    rows = []
    for index in range(count):
        start = index * kept * _BASIC_HOP
        window = padded[start : start + _BASIC_WINDOW].reshape(1, -1, 1).numpy()
        (posterior,) = session.run(["StatefulPartitionedCall:1"], {"serving_default_input_2:0": window})
        rows.append(torch.from_numpy(posterior)[0, _BASIC_EDGE : _BASIC_EDGE + kept])
    table = torch.cat(rows)[: mono.numel() // _BASIC_HOP + 1].T
    # its posteriors have a floor of doubt that is no note
    table = torch.where(table >= _BASIC_FLOOR, table, 0.0)
    # its rows are the 88 keys from A0 = MIDI 21
    return NoteMap(strength=table[LOWEST - 21 : HIGHEST - 21 + 1].contiguous(), hop=_BASIC_HOP / _BASIC_RATE)


def _follow(score: Tensor, settings: MelodySettings) -> list[int]:
    """Viterbi over notes and a rest (the last row of [states, F])."""
    states = score.shape[0]
    place = torch.arange(states - 1, dtype=torch.float32)
    cost = torch.full((states, states), settings.rest)
    cost[:-1, :-1] = settings.leap * (place[:, None] - place[None]).abs().clamp(max=12)
    # changing at all costs a little more than the leap: notes last
    cost[:-1, :-1] += settings.leap * 4 * (place[:, None] != place[None])
    cost[-1, -1] = 0
    best = score[:, 0]
    back = []
    for index in range(1, score.shape[1]):
        value, source = (best[:, None] - cost).max(dim=0)
        back.append(source)
        best = value + score[:, index]
    state = int(best.argmax())
    path = [state]
    for source in reversed(back):
        state = int(source[state])
        path.append(state)
    return path[::-1]


def _share(left: Tensor, right: Tensor, near: int, fold: bool = True) -> float:
    """Share of the notes of ``left`` that ``right`` has within ``near`` frames, octaves folded or not."""
    hit = torch.zeros(left.numel(), dtype=torch.bool)
    for step in range(-near, near + 1):
        apart = left - _delay(right, step)
        hit |= (torch.remainder(apart + 6, 12) - 6 if fold else apart).abs() < 0.5
    return float(hit.sum()) / max(1, int((~left.isnan()).sum()))


def _delay(row: Tensor, steps: int) -> Tensor:
    """A track moved by ``steps`` frames, rests moving in."""
    if steps == 0:
        return row
    gap = torch.full((min(abs(steps), row.numel()),), math.nan)
    return torch.cat([gap, row[: row.numel() - gap.numel()]]) if steps > 0 else torch.cat([row[gap.numel() :], gap])


def _one_hot(wav: Tensor, rate: int) -> Tensor:
    size, hop = 1 << 14, 1 << 12
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    if mono.numel() < size:
        short = size - mono.numel()
        mono = torch.nn.functional.pad(mono, (short // 2, short // 2 + short % 2))
    power = stft(mono, size, hop).abs().square()
    chroma = paper_chroma_filters(rate, size) @ power
    return torch.nn.functional.one_hot(chroma.argmax(dim=0), 12).T.float()
