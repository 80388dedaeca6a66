"""Rendering: stems sum to the mix, peaks, panning, balance, the room; notes played by a plain oscillator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from descant.recipes import audio_of, soundfont
from descant.recipes.mma import MissingTool
from descant.recipes.piece import Piece, Stem

RATE = 16000


def sines(
    notes: Sequence[tuple[float, float, int, int]], program: int, seconds: float, rate: int, font: Path, kit: int = 0
) -> Tensor:
    wav = torch.zeros(2, round(seconds * rate))
    for onset, length, pitch, velocity in notes:
        start, count = round(onset * rate), round(length * rate)
        time = torch.arange(count) / rate
        tone = velocity / 1270 * torch.sin(2 * math.pi * 440 * 2 ** ((pitch - 69) / 12) * time)
        wav[:, start : start + count] += tone[: wav.shape[1] - start]
    return wav


@pytest.fixture
def piece(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Piece:
    font = tmp_path / "font.sf2"
    font.touch()
    monkeypatch.setenv("DESCANT_SOUNDFONT", str(font))
    monkeypatch.setattr(audio_of, "play", sines)
    stems = (
        Stem(role="drums", instrument="drums", program=-1, notes=tuple((i / 2, 0.1, 80, 127) for i in range(8))),
        Stem(role="bass", instrument="acoustic bass", program=32, notes=((0, 2, 40, 90), (2, 2, 43, 90))),
        Stem(role="lead", instrument="flute", program=73, notes=((0.5, 1, 72, 60), (2, 1.5, 74, 60)), pan=-0.5),
        Stem(role="keys", instrument="organ", program=16, notes=((0, 4, 60, 20), (0, 4, 64, 20)), pan=1.0),
    )
    return Piece(
        id="p", layer="synth", split="train", seed=7, duration=4.0, genre="pop", style="s", tempo=120, beats_per_bar=4,
        key="C major", chords=((0, 4, "C"),), melody=(), stems=stems, captions=("x",), mix={"reverb": 0.2, "room": 0.4},
    )  # fmt: skip


def power(wav: Tensor) -> float:
    return 10 * math.log10(float(wav.square().mean()) + 1e-20)


def test_stems_have_the_shape_and_sum_to_a_mix_below_the_peak(piece: Piece) -> None:
    loud = replace(piece, mix={**piece.mix, "gain_db": 60.0})
    stems = audio_of.render_piece(loud, RATE)
    assert list(stems) == ["drums", "bass", "lead", "keys"]
    assert all(wav.shape == (2, 4 * RATE) for wav in stems.values())
    mix = audio_of.mixdown(stems)
    assert 0.85 < float(mix.abs().max()) <= 0.89
    assert torch.equal(mix, audio_of.mixdown(audio_of.render_piece(loud, RATE)))


def test_gain_and_pan(piece: Piece) -> None:
    dry = replace(piece, mix={"reverb": 0.0, "gain_db": -30.0})
    stems = audio_of.render_piece(dry, RATE)
    assert float(stems["keys"][0].abs().max()) < 1e-4 < float(stems["keys"][1].abs().max())
    assert power(stems["lead"][0]) > power(stems["lead"][1]) + 5
    louder = replace(dry, stems=tuple(replace(s, gain_db=6.0) if s.role == "bass" else s for s in dry.stems))
    assert power(audio_of.render_piece(louder, RATE)["bass"]) - power(stems["bass"]) == pytest.approx(6.0, abs=0.01)


def test_the_room_adds_what_a_convolution_adds(piece: Piece) -> None:
    wav = torch.randn(3 * RATE, generator=torch.Generator().manual_seed(0))
    room = audio_of._room(0.5, 3, RATE)
    want = np.stack([scipy.signal.fftconvolve(wav.numpy(), row.numpy())[: 3 * RATE] for row in room])
    assert np.abs(audio_of._convolve(wav, room).numpy() - want).max() < 1e-4
    energy = room.square().view(2, -1)[:, : RATE // 2]
    early, late = energy[:, : RATE // 8].sum(), energy[:, -RATE // 8 :].sum()
    assert 10 * math.log10(float(early / late)) > 20
    wet = audio_of.render_piece(replace(piece, mix={"reverb": 0.5, "room": 0.8, "gain_db": -30.0}), RATE)
    dry = audio_of.render_piece(replace(piece, mix={"reverb": 0.0, "gain_db": -30.0}), RATE)
    tail = slice(round(3.55 * RATE), round(3.7 * RATE))
    assert power(wet["lead"][:, tail]) > power(dry["lead"][:, tail]) + 20


def test_balance_puts_the_parts_where_they_belong(piece: Piece) -> None:
    soft = [replace(s, notes=tuple((*note[:3], note[3] // 4) for note in s.notes)) for s in piece.stems]
    quiet = replace(piece, stems=tuple(soft))
    done = audio_of.balance(quiet)
    assert {s.role for s in done.stems} == {s.role for s in piece.stems}
    stems = audio_of.render_piece(replace(done, mix={**done.mix, "reverb": 0.0}), RATE)
    level = {role: audio_of._loudness(wav.mean(0), RATE) for role, wav in stems.items()}
    assert -4 < level["bass"] - level["lead"] < 3
    rest = 10 * math.log10(sum(10 ** (level[role] / 10) for role in ("bass", "lead", "keys")))
    assert -4 < level["drums"] - rest < 2.5
    assert -24 < power(audio_of.mixdown(stems)) < -14
    # what the velocities were does not matter any more
    again = audio_of.balance(piece)
    assert again.mix["gain_db"] == pytest.approx(done.mix["gain_db"], abs=0.3)


def test_loudness_agrees_with_an_oracle() -> None:
    import pyloudnorm

    rng = np.random.default_rng(0)
    shapes: dict[str, Any] = {"noise": rng.standard_normal(5 * 48000) * 0.1}
    time = np.arange(5 * 48000) / 48000
    shapes |= {f"{hz} Hz": 0.2 * np.sin(2 * np.pi * hz * time) for hz in (100, 440, 3000)}
    meter = pyloudnorm.Meter(48000)
    tone = torch.tensor(shapes["440 Hz"]).float()
    base = meter.integrated_loudness(shapes["440 Hz"]) - audio_of._loudness(tone, 48000)
    for name, wav in shapes.items():
        found = audio_of._loudness(torch.tensor(wav).float(), 48000) + base
        assert found == pytest.approx(meter.integrated_loudness(wav), abs=1.0), name


def test_builtin_pieces_need_no_font(piece: Piece, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCANT_SOUNDFONT", "/nowhere")
    short = replace(piece, layer="builtin", duration=1.0)
    stems = audio_of.render_piece(short, RATE)
    assert stems["bass"].shape == (2, RATE)
    assert power(stems["bass"]) > -60


def test_wrong_input_is_named(piece: Piece, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="unknown layer 'tape'"):
        audio_of.render_piece(replace(piece, layer="tape"))
    with pytest.raises(ValueError, match="8000 or more"):
        audio_of.render_piece(piece, 100)
    with pytest.raises(ValueError, match="at least one stem"):
        audio_of.mixdown({})
    with pytest.raises(MissingTool, match="fluidr3mono-gm-soundfont"):
        soundfont.find_soundfont("/no/such/font.sf3")
    monkeypatch.setattr(soundfont, "PLACES", ())
    with pytest.raises(MissingTool, match="DESCANT_SOUNDFONT"):
        soundfont.find_soundfont(environ={})


class FakeSynth:
    """Writes a constant while any key is down."""

    def __init__(self) -> None:
        self.down: set[int] = set()
        self.program = ()

    def program_select(self, *args: Any) -> None:
        self.program = args

    def noteon(self, channel: int, key: int, velocity: int) -> None:
        self.down.add(key)

    def noteoff(self, channel: int, key: int) -> None:
        self.down.discard(key)

    def sounds_off(self) -> None:
        self.down.clear()

    def generate_simple(self, samples: int, buffer: memoryview | None = None) -> None:
        if buffer is not None:
            np.frombuffer(buffer, dtype=np.float32)[:] = len(self.down)


def test_notes_switch_at_their_exact_sample(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synth = FakeSynth()
    monkeypatch.setattr(soundfont, "_synth", lambda font, rate: (synth, 0))
    notes = [(0.25, 0.5, 60, 90), (0.5, 0.5, 64, 90), (0.75, 0.1, 60, 90), (0.95, 4.0, 70, 90)]
    wav = soundfont.play(notes, 5, 1.0, 1000, tmp_path)
    assert wav.shape == (2, 1000)
    assert wav[0, [249, 250, 499, 500, 749, 750, 849, 850, 949, 950]].tolist() == [0, 1, 1, 2, 2, 2, 2, 1, 1, 2]
    assert synth.program == (0, 0, 0, 5)
    assert not synth.down
    monkeypatch.setattr(soundfont, "_kits", lambda font, rate: frozenset({0, 25}))
    soundfont.play([(0.0, 0.1, 36, 90)], -1, 0.5, 1000, tmp_path, kit=25)
    assert synth.program == (0, 0, 128, 25, True)
    soundfont.play([(0.0, 0.1, 36, 90)], -1, 0.5, 1000, tmp_path, kit=99)
    assert synth.program == (0, 0, 128, 0, True)
