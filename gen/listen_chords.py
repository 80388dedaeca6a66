"""Chords heard in given music, so that new parts can be told them: beat by beat, major and minor triads.

Peaks of the spectrum are gathered into pitch classes, those of the bass apart, and compared with the 24 triads over
each beat; chords that lie in the key are likelier, and changing costs something (a hidden Markov model over beats, as
in Bello & Pickens, 2005; the bass beside the notes as in Mauch & Dixon, 2010). What music is *judged* by is in the
``eval`` room, made otherwise on purpose.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..codec.stft import chroma_filters
from ..lm.vocab import KEYS
from .listen import peaks

#: Hz: where notes are looked for, and where the bass ends.
_LOW, _HIGHEST, _BASS = 60.0, 1200.0, 200.0
#: Seconds of a segment where no beat is heard.
_SEGMENT = 0.5
#: What counts: the likeness of the notes; the bass on the root; a chord's lying in the key; and what a change costs.
_SHARP, _ROOT, _KEYED, _CHANGE = 10.0, 0.1, 0.5, 2.0
#: A beat this much quieter than the loudest has no chord.
_QUIET = 0.02
_SILENCE = 1e-4
#: Less likeness than this, on the whole, and there are no chords: drums, noise, speech.
_LEAST = 0.72
_ROOTS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

#: (start s, end s, symbol as in :func:`descant.lm.chords.parse`).
Chords = tuple[tuple[float, float, str], ...]


def chords(wav: Tensor, rate: int, beat: tuple[float, float] | None = None, key: str | None = None) -> Chords:
    """The chords of wav [C, T], in order; empty where none are to be heard.

    beat: quarter notes a minute, and seconds to the first; chords change there. key: one of
    :data:`descant.lm.vocab.KEYS`. Leave drums out of ``wav`` where they are known.
    """
    mono = wav.float().mean(0, keepdim=True)
    size = 1 << round(math.log2(rate * 0.25))
    length = mono.shape[-1] / rate
    if mono.shape[-1] < size or float(mono.abs().max()) < _SILENCE:
        return ()
    hop = size // 4
    upper, lower = _pitches(mono, rate, size, hop)
    edges = _edges(length, beat)
    places = torch.bucketize(torch.arange(upper.shape[1]) * (hop / rate), torch.tensor(edges[1:-1]), right=True)
    count = len(edges) - 1
    notes, bass = (
        torch.zeros(count, 12).index_add(0, places, rows.t())
        / torch.bincount(places, minlength=count)[:, None].clamp(1)
        for rows in (upper, lower)
    )
    level = notes.sum(1)
    sounds = level > _QUIET * float(level.max())
    plain, fit = (_triads() @ torch.nn.functional.normalize(rows, dim=1).t() for rows in (notes, notes.sqrt()))
    if not bool(sounds.any()) or float(plain.amax(0)[sounds].mean()) < _LEAST:
        return ()
    root = (bass / bass.sum(1, keepdim=True).clamp(min=1e-9)).t()[torch.arange(24) % 12]
    score = _SHARP * fit + _SHARP * _ROOT * root + _KEYED * _in_key(key)[:, None]
    path = _likeliest(torch.where(sounds, score, 0.0))
    out: list[tuple[float, float, str]] = []
    for state, start, end, there in zip(path, edges[:-1], edges[1:], sounds.tolist(), strict=True):
        name = _ROOTS[state % 12] + ("m" if state >= 12 else "")
        if not there:
            continue
        if out and out[-1][1] == start and out[-1][2] == name:
            out[-1] = (out[-1][0], end, name)
        else:
            out.append((start, end, name))
    return tuple(out)


def _pitches(mono: Tensor, rate: int, size: int, hop: int) -> tuple[Tensor, Tensor]:
    """How much each pitch class sounds in each frame, and in the bass: two [12, F]."""
    sounds = peaks(mono, size, hop)
    upper = chroma_filters(rate, size, low=_LOW, high=_HIGHEST)[:, 1:-1] @ sounds
    lower = chroma_filters(rate, size, low=_LOW / 1.5, high=_BASS)[:, 1:-1] @ sounds
    return upper, lower


def _edges(length: float, beat: tuple[float, float] | None) -> list[float]:
    """Where chords may change, from 0 to ``length`` s."""
    step, first = (_SEGMENT, 0.0) if beat is None else (60.0 / beat[0], beat[1])
    first %= step
    inside = [first + step * number for number in range(int((length - first) / step) + 1)]
    # no crumbs at the ends
    return [0.0, *(at for at in inside if step / 4 < at < length - step / 4), length]


def _triads() -> Tensor:
    """Major, then minor triads as unit rows [24, 12]."""
    rows = torch.zeros(24, 12)
    for pitch in range(12):
        for row, third in ((pitch, 4), (pitch + 12, 3)):
            rows[row, [pitch, (pitch + third) % 12, (pitch + 7) % 12]] = 3**-0.5
    return rows


def _in_key(key: str | None) -> Tensor:
    """1 for triads that a key has, 0 for others [24]; the major dominant of minor keys is one of theirs."""
    found = torch.zeros(24)
    if key is None:
        return found
    tonic = KEYS.index(key) % 12
    major = KEYS.index(key) < 12
    degrees = ((0, 0), (5, 0), (7, 0), (2, 1), (4, 1), (9, 1)) if major else (
        (0, 1), (5, 1), (7, 1), (7, 0), (3, 0), (8, 0), (10, 0)
    )  # fmt: skip
    for step, minor in degrees:
        found[(tonic + step) % 12 + 12 * minor] = 1.0
    return found


def _likeliest(score: Tensor) -> list[int]:
    """The best path through [24, beats] when a change costs :data:`_CHANGE` (Viterbi, 1967)."""
    best, back = score[:, 0].clone(), []
    own = torch.arange(len(best))
    for column in score.t()[1:]:
        top = int(best.argmax())
        moved = best[top] - _CHANGE > best
        back.append(torch.where(moved, top, own))
        best = torch.where(moved, best[top] - _CHANGE, best) + column
    path = [int(best.argmax())]
    for row in reversed(back):
        path.append(int(row[path[-1]]))
    return path[::-1]
