"""Is it new? The nearest training excerpt of a generated clip, by tokens and by sound.

Tokens find literal repetition: the longest run of frames that occurs in the training set, as Carlini et al.
("Quantifying memorization across neural language models", 2023) count words. Sound finds the rest: fingerprints of a
few seconds, blind to level and to small shifts in time. A distance means nothing alone, so both are to be read beside
the same figures for real held-out music.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..codec.stft import mel_filters, stft
from .pitch import PitchSettings, notes

_PRIME = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The longest run of a clip that a training item holds too."""

    frames: int
    """Its length; 0 when not even an n-gram is shared."""
    share: float
    """Share of the clip's n-grams that occur anywhere in the training set."""
    start: int
    """Frame of the clip at which it begins."""
    item: int
    """Number of the training item; -1 without a run."""
    item_start: int
    """Frame of the training item."""


class TokenIndex:
    """All n-grams of a training set's codes, for looking up generated ones.

    An n-gram is ``n`` frames of the first ``books`` codebooks. It is kept as a 64-bit hash and a place, 16 bytes a
    frame; every hit is checked against the codes, so a collision cannot pass for a copy.
    """

    def __init__(self, items: Iterable[Tensor], n: int = 8, books: int = 1) -> None:
        if n < 1 or books < 1:
            raise ValueError(f"n is {n} and books {books}: both must be at least 1")
        self.n, self.books = n, books
        self.items = [_codes(item, books) for item in items]
        hashes = [_hashes(item, n) for item in self.items]
        if not any(row.size for row in hashes):
            raise ValueError(f"no training item is {n} frames long: nothing can be looked up")
        self._item = np.concatenate([np.full(row.size, i, np.int32) for i, row in enumerate(hashes)])
        self._place = np.concatenate([np.arange(row.size, dtype=np.int32) for row in hashes])
        every = np.concatenate(hashes)
        order = np.argsort(every, kind="stable")
        self._hash, self._item, self._place = every[order], self._item[order], self._place[order]

    def find(self, codes: Tensor, limit: int = 64) -> Run:
        """The longest common run of codes [K, F]; of an n-gram's occurrences at most ``limit`` are followed."""
        clip = _codes(codes, self.books)
        rows = _hashes(clip, self.n)
        left = np.searchsorted(self._hash, rows, "left")
        right = np.searchsorted(self._hash, rows, "right")
        best, hits = (0, 0, -1, 0), 0
        for start in range(rows.size):
            known = False
            for slot in range(int(left[start]), min(int(right[start]), int(left[start]) + limit)):
                item, place = int(self._item[slot]), int(self._place[slot])
                length = _common(clip[:, start:], self.items[item][:, place:])
                if length >= self.n:
                    known = True
                    if length > best[0]:
                        best = (length, start, item, place)
            hits += known
        return Run(
            frames=best[0], share=hits / max(1, rows.size), start=best[1], item=best[2], item_start=best[3]
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The training excerpt that sounds most like a part of the clip."""

    similarity: float
    """Cosine of the fingerprints, -1 to 1."""
    at: float
    """Second of the clip."""
    item: int
    item_at: float
    """Second of the training item."""


class SoundIndex:
    """Fingerprints of a training set's audio, 3 s each, one a half second."""

    def __init__(self, items: Iterable[tuple[Tensor, int]]) -> None:
        rows = [fingerprints(wav, rate) for wav, rate in items]
        if not any(row.shape[0] for row in rows):
            raise ValueError("no training item lasts 3 s: nothing can be looked up")
        self._table = torch.cat(rows)
        self._item = torch.cat([torch.full((row.shape[0],), i) for i, row in enumerate(rows)])
        self._at = torch.cat([torch.arange(row.shape[0]) * STEP for row in rows])

    def find(self, wav: Tensor, rate: int) -> Nearest:
        """The most similar pair of excerpts; a finer step on the clip's side makes up for shifts in time."""
        rows = torch.cat([fingerprints(wav[..., round(shift * rate) :], rate) for shift in (0.0, STEP / 2)])
        if rows.shape[0] == 0:
            raise ValueError(f"the clip lasts {wav.shape[-1] / rate:g} s: a fingerprint needs {EXCERPT} s")
        whole = fingerprints(wav, rate).shape[0]
        best = (-2.0, 0, 0)
        # the training set in slices: memory does not grow with it
        for start in range(0, self._table.shape[0], 65_536):
            score = rows @ self._table[start : start + 65_536].T
            value, place = score.flatten().max(dim=0)
            if float(value) > best[0]:
                row, column = divmod(int(place), score.shape[1])
                best = (float(value), row, start + column)
        row = best[1]
        at = row * STEP if row < whole else (row - whole) * STEP + STEP / 2
        return Nearest(
            similarity=best[0], at=at, item=int(self._item[best[2]]), item_at=float(self._at[best[2]])
        )  # fmt: skip


#: Seconds of a fingerprint, and from one to the next.
EXCERPT, STEP = 3.0, 0.5


def fingerprints(wav: Tensor, rate: int) -> Tensor:
    """Unit vectors [excerpts, D] of [T] or [C, T] at ``rate`` Hz: 8 slices of chroma and mel shape over 3 s.

    Each part is centred over the excerpt, so what all music shares falls out and level does not matter.
    """
    mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
    count = int((mono.numel() / rate - EXCERPT) / STEP + 1 + 1e-6)
    if count < 1:
        return torch.zeros(0, 8 * (12 + 16))
    chroma = notes(mono, rate, PitchSettings(window=0.19, hop=0.0625, rounds=10)).chroma().sqrt()
    n_fft = 1 << round(rate * 0.064).bit_length()
    hop = rate / 16
    mel = mel_filters(rate, n_fft, 16, 60.0, min(8000.0, rate / 2)) @ stft(mono, n_fft, max(1, round(hop))).abs()
    mel = mel.clamp(min=1e-5).log10()
    frames = round(EXCERPT * 16)
    rows = []
    for index in range(count):
        start = round(index * STEP * 16)
        parts = []
        for table in (chroma, mel):
            piece = table[:, start : start + frames]
            piece = torch.nn.functional.adaptive_avg_pool1d(piece[None], 8)[0]
            piece = piece - piece.mean()
            parts.append((piece / piece.norm().clamp(min=1e-6)).flatten())
        rows.append(torch.cat(parts) / 2**0.5)
    return torch.stack(rows)


def rank(value: float, real: Sequence[float]) -> float:
    """Share of held-out real clips whose nearest training excerpt is less near than ``value``: 1 is suspicious."""
    if not real:
        raise ValueError("no held-out values to rank among: look real test clips up in the same index first")
    return sum(one < value for one in real) / len(real)


def _codes(item: Tensor, books: int) -> NDArray[np.int64]:
    if item.ndim != 2 or item.shape[0] < books:
        raise ValueError(f"codes have shape {tuple(item.shape)}: need [K, F] with at least {books} codebooks")
    return np.ascontiguousarray(item[:books].cpu().numpy().astype(np.int64))


def _hashes(codes: NDArray[np.int64], n: int) -> NDArray[np.uint64]:
    """A hash of every n-gram: [F - n + 1]."""
    count = codes.shape[1] - n + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    out = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for row in codes.astype(np.uint64):
            for step in range(n):
                out = (out ^ (row[step : step + count] + np.uint64(1))) * _PRIME
                out ^= out >> np.uint64(29)
    return out


def _common(left: NDArray[np.int64], right: NDArray[np.int64]) -> int:
    count = min(left.shape[1], right.shape[1])
    differ = np.flatnonzero((left[:, :count] != right[:, :count]).any(axis=0))
    return int(differ[0]) if differ.size else count
