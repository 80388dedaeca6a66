"""Tempo, beat and key of given music."""

from __future__ import annotations

import math

import pytest
import torch

from descant.gen import listen
from descant.recipes import audio_of, builtin

RATE = 22050


def _clicks(tempo: float, offset: float, seconds: float = 12.0, rate: int = RATE) -> torch.Tensor:
    wav = torch.zeros(1, round(seconds * rate))
    dice = torch.Generator().manual_seed(0)
    burst = torch.randn(400, generator=dice) * torch.linspace(1, 0, 400)
    at = offset
    while at < seconds - 0.1:
        start = round(at * rate)
        wav[0, start : start + 400] += burst
        at += 60 / tempo
    return wav


@pytest.mark.parametrize("tempo", [90.0, 97.3, 120.0, 144.5])
@pytest.mark.parametrize("rate", [RATE, 48000])
def test_clicks_have_their_tempo_and_place(tempo: float, rate: int) -> None:
    found = listen.beat(_clicks(tempo, 0.21, rate=rate), rate)
    assert found is not None and found.tempo == pytest.approx(tempo, rel=0.004)
    away = (found.offset - 0.21) % (60 / tempo)
    assert min(away, 60 / tempo - away) < 0.03 and found.strength > 0.1


def test_the_beat_of_a_known_tempo_is_placed() -> None:
    found = listen.beat(_clicks(60.0, 0.4), RATE, tempo=120.0)
    assert found is not None and found.tempo == 120.0
    assert min((found.offset - 0.4) % 0.5, -(found.offset - 0.4) % 0.5) < 0.03


def test_noise_has_no_strong_beat() -> None:
    found = listen.beat(torch.randn(1, 12 * RATE, generator=torch.Generator().manual_seed(0)), RATE)
    assert found is not None and found.strength < 0.06


def test_noise_has_no_key() -> None:
    for seed in range(3):
        noise = torch.randn(1, 8 * RATE, generator=torch.Generator().manual_seed(seed))
        assert listen.key(noise * torch.linspace(0.1, 1, 8 * RATE), RATE) is None


def test_gain_polarity_and_channels_do_not_matter() -> None:
    wav = _clicks(100.0, 0.1)
    one = listen.beat(wav, RATE)
    two = listen.beat(torch.cat([wav, wav]) * -0.01, RATE)
    assert one is not None and two is not None
    assert one.tempo == pytest.approx(two.tempo, rel=1e-3) and one.offset == pytest.approx(two.offset, abs=0.01)


@pytest.mark.parametrize("wav", [torch.zeros(1, 5 * RATE), torch.zeros(2, 0), torch.ones(1, 100), torch.zeros(1, 1)])
def test_nothing_is_heard_in_nothing(wav: torch.Tensor) -> None:
    assert listen.beat(wav, RATE) is None and listen.key(wav, RATE) is None


def _chords(notes: list[list[int]], seconds: float = 1.0) -> torch.Tensor:
    time = torch.arange(round(seconds * RATE)) / RATE
    parts = []
    for chord in notes:
        tones = [
            torch.sin(2 * math.pi * h * 440 * 2 ** ((n - 69) / 12) * time) / h for n in chord for h in (1, 2, 3, 4)
        ]
        parts.append(torch.stack(tones).sum(0) * torch.linspace(1, 0.2, len(time)))
    return torch.cat(parts)[None] * 0.1


@pytest.mark.parametrize("shift", range(0, 12, 3))
def test_cadences_have_their_key(shift: int) -> None:
    major = [[48, 60, 64, 67], [53, 60, 65, 69], [55, 59, 62, 67], [48, 60, 64, 67]]
    minor = [[45, 57, 60, 64], [50, 57, 62, 65], [52, 56, 59, 64], [45, 57, 60, 64]]
    tonics = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
    for chords, tonic, mode in ((major, 0, "major"), (minor, 9, "minor")):
        found = listen.key(_chords([[note + shift for note in chord] for chord in chords]), RATE)
        assert found is not None and found.name == f"{tonics[(tonic + shift) % 12]} {mode}" and found.margin > 0


def test_played_music_is_mostly_heard_right() -> None:
    tempi = keys = 0
    pieces = [builtin.compose(seed, "dev", 16.0) for seed in range(8)]
    for piece in pieces:
        wav = audio_of.mixdown(audio_of.render_piece(piece, RATE))
        beat, key = listen.beat(wav, RATE), listen.key(wav, RATE)
        assert beat is not None and key is not None
        # twice or half as fast is what listeners disagree about, too
        tempi += any(abs(beat.tempo * level / piece.tempo - 1) < 0.04 for level in (0.5, 1, 2))
        keys += key.name == piece.key
    assert tempi >= 7 and keys >= 5
