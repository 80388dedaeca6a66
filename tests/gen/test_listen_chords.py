"""Chords heard in given music."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

import numpy as np
import pytest
import torch

from descant.gen.listen_chords import chords
from descant.lm.chords import parse
from descant.recipes import audio_of, builtin

mir_eval = pytest.importorskip("mir_eval")
RATE = 22050


def _chord(pitches: list[int], seconds: float, rate: int = RATE) -> torch.Tensor:
    time = torch.arange(round(seconds * rate)) / rate
    parts = []
    for pitch in pitches:
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        parts += [torch.sin(2 * math.pi * hertz * k * time) / k**1.5 for k in range(1, 5)]
    return 0.1 * torch.stack(parts).sum(0) * torch.exp(-time)


def _labels(found: Sequence[tuple[float, float, str]], seconds: float) -> tuple[np.ndarray, list[str]]:
    """As mir_eval reads them, without gaps, up to ``seconds``."""
    spans, names, last = [], [], 0.0
    for start, end, name in found:
        start, end = max(start, last), min(end, seconds)
        if end <= start:
            continue
        if start > last:
            spans, names = [*spans, [last, start]], [*names, "N"]
        chord = parse(name)
        root, kind = chord.symbol[: 2 if chord.symbol[1:2] in ("b", "#") else 1], chord.quality
        spans, names = (
            [*spans, [start, end]],
            [*names, root + (":min" if kind[:1] == "m" and kind[:3] != "maj" else "")],
        )
        last = end
    return np.array([*spans, [last, seconds]] if last < seconds else spans), [*names, *(["N"] * (last < seconds))]


@pytest.mark.parametrize("rate", [16000, RATE, 48000])
def test_triads_are_named_where_they_change(rate: int) -> None:
    written = [("C", [48, 60, 64, 67]), ("Am", [45, 60, 64, 69]), ("F", [41, 60, 65, 69]), ("G", [43, 59, 62, 67])]
    wav = torch.cat([_chord(pitches, 2.0, rate) for _, pitches in written])[None]
    found = chords(wav, rate, (120.0, 0.0), "C major")
    assert [name for *_, name in found] == [name for name, _ in written]
    assert [start for start, *_ in found] == pytest.approx([0.0, 2.0, 4.0, 6.0], abs=0.01)
    assert found[-1][1] == pytest.approx(8.0)
    # without a beat or a key they are the same, not quite as neatly cut
    free = chords(wav, rate)
    assert [name for *_, name in free] == [name for name, _ in written]
    assert [start for start, *_ in free] == pytest.approx([0.0, 2.0, 4.0, 6.0], abs=0.51)


def test_level_polarity_and_channels_do_not_matter() -> None:
    wav = torch.cat([_chord([48, 60, 64, 67], 2.0), _chord([43, 59, 62, 67], 2.0)])[None]
    one = chords(wav, RATE, (120.0, 0.0))
    assert one and chords(-0.02 * wav, RATE, (120.0, 0.0)) == one
    assert chords(wav.expand(6, -1), RATE, (120.0, 0.0)) == one


def test_rests_have_no_chord() -> None:
    wav = torch.cat([_chord([48, 60, 64, 67], 2.0), torch.zeros(2 * RATE), _chord([48, 60, 64, 67], 2.0)])[None]
    found = chords(wav, RATE, (120.0, 0.0))
    assert [name for *_, name in found] == ["C", "C"]
    assert found[0][1] == pytest.approx(2.0, abs=0.51) and found[1][0] == pytest.approx(4.0, abs=0.51)


def test_what_has_no_chords_has_none() -> None:
    dice = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 6 * RATE, generator=dice)
    assert chords(torch.zeros(1, 6 * RATE), RATE) == () and chords(noise[:, :100], RATE) == ()
    drums = noise * torch.exp(-20 * (torch.arange(6 * RATE) / RATE % 0.5))
    assert chords(drums, RATE, (120.0, 0.0)) == ()


def test_pieces_are_heard_as_they_are_written() -> None:
    """Band music of the built-in composer, the drums left out, counted by mir_eval."""
    scores: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(6):
        piece = builtin.compose(seed, "test", 12.0)
        stems = audio_of.render_piece(piece, RATE)
        wav = torch.stack([part for name, part in stems.items() if name != "drums"]).sum(0)
        seconds = min(12.0, wav.shape[-1] / RATE)
        for told, rows in scores.items():
            found = chords(wav, RATE, (piece.tempo, 0.0) if told else None, piece.key if told else None)
            rows.append(mir_eval.chord.evaluate(*_labels(piece.chords, seconds), *_labels(found, seconds))["majmin"])
    assert mean(scores[False]) > 0.6 and mean(scores[True]) > 0.7, scores
