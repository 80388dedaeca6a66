"""Windows of pieces as clips: cut, choose, render, damage. The benchmarks and the judge's recipe use them."""

from __future__ import annotations

import os
from dataclasses import replace

import torch
from torch import Tensor

from ..codec.audio import resample
from ..codec.contract import Codec
from .audio_of import mixdown, render_piece
from .bench_codec import through_codec, through_opus
from .piece import Piece, Stem

RATE = 32_000


def cut(piece: Piece, start: float, seconds: float) -> Piece:
    """The part of a piece from ``start`` on, with all times moved; notes that began earlier are left out."""

    def moved(stem: Stem) -> Stem:
        notes = tuple(
            (onset - start, min(length, start + seconds - onset), pitch, velocity)
            for onset, length, pitch, velocity in stem.notes
            if start <= onset < start + seconds
        )
        return replace(stem, notes=notes)

    chords = tuple(
        (max(0.0, a - start), min(seconds, b - start), symbol)
        for a, b, symbol in piece.chords
        if b > start and a < start + seconds
    )
    melody = tuple((a - start, length, pitch) for a, length, pitch in piece.melody if start <= a < start + seconds)
    stems = tuple(stem for stem in map(moved, piece.stems) if stem.notes)
    return replace(piece, duration=seconds, chords=chords, melody=melody, stems=stems)


def busiest(piece: Piece, seconds: float) -> float:
    """Start of the window, on a bar line, in which the most stems play for the longest; ties go to the earliest."""
    bar = 60 / piece.tempo * piece.beats_per_bar
    last = max(0.0, piece.duration - seconds)

    def weight(start: float) -> float:
        total = 0.0
        for stem in piece.stems:
            sound = sum(length for onset, length, _, _ in stem.notes if start <= onset < start + seconds)
            total += sound > 0
            total += min(1.0, sound / seconds) / 10
        return total

    starts = [index * bar for index in range(int(last / bar) + 1)]
    return max(starts, key=lambda start: (round(weight(start), 6), -start))


def clip_of(piece: Piece, start: float, seconds: float, soundfont: str | os.PathLike[str] | None = None) -> Tensor:
    """Render a window of a piece -> mono [T] at 32 kHz."""
    wav = mixdown(render_piece(cut(piece, start, seconds), rate=RATE, soundfont=soundfont)).mean(dim=0)
    length = round(seconds * RATE)
    return torch.nn.functional.pad(wav[:length], (0, max(0, length - wav.numel())))


def degrade(wav: Tensor, generator: torch.Generator, codec: Codec | None = None) -> Tensor:
    """Damage a clip [T] as a codec might: one of low-pass, noise, Opus, and our codec when it is given."""
    pick = int(torch.randint(0, 6 if codec is not None else 3, (1,), generator=generator))
    share = float(torch.rand(1, generator=generator))
    if pick == 0:
        rate = round(RATE * (0.25 + 0.5 * share))
        low = resample(resample(wav, RATE, rate), rate, RATE)
        return torch.nn.functional.pad(low, (0, max(0, wav.numel() - low.numel())))[: wav.numel()]
    if pick == 1:
        noise = torch.randn(wav.shape, generator=generator) * wav.square().mean().sqrt()
        return wav + noise * 10 ** (-(15 + 20 * share) / 20)
    if pick == 2 or codec is None:
        return through_opus(wav[None], RATE, 8 + 16 * share)[0][0]
    return through_codec(codec, wav[None], 4 if pick < 5 else codec.books)[0][0]
