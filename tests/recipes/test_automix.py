"""Mixing what fits: beats on beats, keys on keys, within limits, and nothing else changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from descant.eval.beats import onsets
from descant.recipes import automix, builtin, stems_data
from descant.recipes.automix import Pulse, Take, fits, shift, signature, takes
from descant.recipes.automix_sound import resize, stretch, vocoder
from descant.recipes.loop import stream
from descant.recipes.stems_data import Mixing, StemCorpus
from descant.recipes.stems_writer import StemWriter

RATE = 8000
NAMES = ("drums", "bass")
STILL = Mixing(remix=0.0, gain_db=0.0, drop=0.0, pan=0.0, speed=0.0)


def clicks(times: Sequence[float], length: int, rate: int = RATE) -> Tensor:
    wav = torch.zeros(length)
    stroke = 0.7 * torch.randn(80, generator=torch.Generator().manual_seed(0)) * torch.linspace(1, 0, 80)
    for time in times:
        place = round(time * rate)
        wav[place : place + 80] += stroke[: max(0, length - place)]
    return wav


def tone(hertz: float, length: int, rate: int = RATE) -> Tensor:
    return 0.3 * torch.sin(2 * math.pi * hertz * torch.arange(length) / rate)


def pitch(wav: Tensor, rate: int = RATE) -> float:
    """Frequency of the strongest sine of [T] in Hz, between the bins."""
    spectrum = torch.fft.rfft(wav * torch.hann_window(len(wav)), 8 * len(wav)).abs()
    return float(spectrum.argmax()) * rate / (8 * len(wav))


def songs(folder: Path, *rows: tuple[float, str, float]) -> StemCorpus:
    """Songs of 12 s: (tempo, key, Hz of the bass), clicks on the beats, the first one at 0.3 s, in bars of four."""
    writer = StemWriter(folder, RATE, NAMES)
    for number, (tempo, key, hertz) in enumerate(rows):
        beats = tuple(float(time) for time in np.arange(0.3, 11.9, 60 / tempo))
        one = torch.stack([clicks(beats, 12 * RATE), tone(hertz, 12 * RATE)])
        pulse = Pulse(tempo=tempo, beats=beats, metre=4, bar=0, key=key)
        writer.add(f"song{number}", "made", one[:, None].expand(-1, 2, -1), **pulse.row())
    return StemCorpus(writer.close())


def test_keys_are_a_few_semitones_apart() -> None:
    assert signature("C major") == signature("A minor") == 0 and signature("Eb major") == signature("C minor") == 3
    assert signature("C# major") == signature("Db major") == signature("Bb minor")
    assert [shift("C major", key) for key in ("D major", "B minor", "Bb major", "A minor")] == [2, 2, -2, 0]
    assert all(-6 <= shift("E minor", key) < 6 for key in ("C minor", "F# major", "B major"))
    with pytest.raises(ValueError, match="unknown key"):
        signature("H major")


def test_only_what_is_near_fits() -> None:
    here = Pulse(tempo=100, beats=(0.0, 0.6), key="C major")
    for tempo, key, pitched, wanted in (
        (100, "C major", True, 0), (114.9, "C major", True, 0), (115.1, "C major", True, None),
        (87.0, "C major", True, 0), (86.9, "C major", True, None), (100, "Eb major", True, -3),
        (100, "E major", True, None), (100, "E major", False, 0), (100, "", True, None), (100, "", False, 0),
    ):  # fmt: skip
        assert fits(Pulse(tempo=tempo, beats=(0.0, 0.5), key=key), here, pitched) == wanted, (tempo, key)


def test_limits_are_kept_and_everything_that_fits_is_used(tmp_path: Path) -> None:
    corpus = songs(
        tmp_path, (100, "C major", 130.81), (110, "D major", 146.83), (100, "F# major", 185.0), (140, "C major", 130.81)
    )
    dice, seen = torch.Generator().manual_seed(0), set()
    for _ in range(200):
        found = takes(corpus, 16000, dice)
        assert found is not None
        seen.add(tuple(take.song for take in found))
        for stem, take in enumerate(found):
            assert take.start >= 0 and take.start + take.count <= corpus.lengths[take.song]
            assert abs(math.log(take.count / 16000)) <= math.log(1.1501)
            assert abs(take.semitones) <= (3 if stem else 0)
    # C and D lend each other everything, F sharp nothing but its drums, and the fast one is alone
    pairs = {(a, b) for a in (0, 1, 2) for b in (0, 1)} | {(0, 2), (1, 2), (2, 2), (3, 3)}
    assert seen == pairs


def test_beats_of_two_songs_fall_together(tmp_path: Path) -> None:
    corpus = songs(tmp_path, (100, "C major", 130.81), (110, "C major", 130.81))
    dice = torch.Generator().manual_seed(1)
    for _ in range(12):
        found = takes(corpus, 3 * RATE, dice)
        assert found is not None
        target = corpus.pulses[found[0].song]
        assert target is not None
        if found[0].song == found[1].song:
            continue
        # the clicks of either song, brought to the tempo of one of them
        rows = [automix.sound(corpus, 0, Take(take.song, take.start, take.count, 0), 3 * RATE)[0] for take in found]
        envelopes = [torch.nn.functional.avg_pool1d(row.abs()[None], 80, 40)[0] for row in rows]
        centred = [one - one.mean() for one in envelopes]
        lags = [float((centred[0].roll(lag) * centred[1]).sum()) for lag in range(-40, 41)]
        best = range(-40, 41)[int(np.argmax(lags))]
        assert abs(best) * 40 / RATE <= 0.01
        assert max(lags) > 0.7 * float(centred[0].norm() * centred[1].norm())


def test_keys_of_two_songs_fall_together(tmp_path: Path) -> None:
    corpus = songs(tmp_path, (100, "C major", 130.81), (108, "D major", 146.83))
    dice, moved = torch.Generator().manual_seed(2), 0
    for _ in range(12):
        found = takes(corpus, 2 * RATE, dice)
        assert found is not None
        heard = pitch(automix.sound(corpus, 1, found[1], 2 * RATE)[0])
        # the drums tell whose key it is only when they are the first song's own: the shift tells it always
        source = (130.81, 146.83)[found[1].song]
        assert heard == pytest.approx(source * 2 ** (found[1].semitones / 12), rel=0.005)
        goal = {(0, 0): 130.81, (0, 2): 146.83, (1, 0): 146.83, (1, -2): 130.81}[found[1].song, found[1].semitones]
        assert heard == pytest.approx(goal, rel=0.005)
        moved += found[1].semitones != 0
    assert moved >= 3


def test_bars_fall_together_where_they_are_known(tmp_path: Path) -> None:
    corpus = songs(tmp_path, (100, "C major", 130.81), (105, "C major", 130.81))
    dice = torch.Generator().manual_seed(3)
    for _ in range(30):
        found = takes(corpus, 2 * RATE, dice)
        assert found is not None
        places = []
        for take in found:
            pulse = corpus.pulses[take.song]
            assert pulse is not None
            # beats from the beginning of the song to that of the crop, in beats of a bar
            places.append((take.start / RATE - pulse.beats[0]) * pulse.tempo / 60 % 4)
        apart = (places[0] - places[1] + 2) % 4 - 2
        assert abs(apart) < 0.02


def test_drawing_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    corpus = songs(tmp_path, (100, "C major", 130.81), (108, "D major", 146.83))
    mixing = Mixing(automix=0.5, pitch=2, tempo=0.1, bend=0.5, shift=0.2)
    first = corpus.draw(4, 6, 12000, 0, mixing)
    assert first.shape == (6, 2, 2, 12000) and torch.equal(first, corpus.draw(4, 6, 12000, 0, mixing))
    assert not torch.equal(first, corpus.draw(5, 6, 12000, 0, mixing))
    assert bool(torch.isfinite(first).all())


def test_songs_without_beats_are_drawn_as_ever(tmp_path: Path) -> None:
    writer = StemWriter(tmp_path, RATE, NAMES)
    writer.add("a", "made", torch.ones(2, 2, 20000) * 0.5)
    corpus = StemCorpus(writer.close())
    assert corpus.pulses == [None]
    assert float(corpus.draw(0, 2, 8000, 0, Mixing(automix=1.0, remix=0.0, speed=0.0)).abs().max()) > 0.1


def test_without_the_new_settings_everything_is_drawn_as_before(tmp_path: Path) -> None:
    corpus, mixing, length = songs(tmp_path, (100, "C major", 130.81), (140, "D major", 146.83)), Mixing(), 8192
    dice = stream(7, 3)

    def roll() -> float:
        return float(torch.rand((), generator=dice, dtype=torch.float64))

    def place(count: int) -> tuple[int, int]:
        song = int(roll() * 2)
        return song, int(roll() * (corpus.lengths[song] - count))

    for found in corpus.draw(3, 4, length, 7, mixing):
        taken = max(2000, round(length * (1 + 0.12 * (2 * roll() - 1)) / 2000) * 2000)
        mixed = roll() < 0.5
        song, start = place(taken)
        for stem in range(2):
            if mixed:
                song, start = place(taken)
            wav = corpus.read(song, stem, start, taken)
            gain = 10 ** (6 * (2 * roll() - 1) / 20)
            flip, swap, silent, moved, angle = (roll() for _ in range(5))
            wav = wav.flip(0) if swap < 0.5 else wav
            if moved < 0.3:
                wav = wav * torch.tensor([[1 - max(0.0, 2 * angle - 1) * 0.8], [1 + min(0.0, 2 * angle - 1) * 0.8]])
            wav = wav * (0.0 if silent < 0.08 else gain if flip < 0.5 else -gain)
            # transforms of one row and of all rows at once may round differently
            assert torch.allclose(resize(wav, length), found[stem], atol=1e-6)


def test_pitch_and_tempo_are_bent_apart(tmp_path: Path) -> None:
    corpus = songs(tmp_path, (120, "C major", 440.0))
    length = 4 * RATE

    def spans(mixing: Mixing) -> tuple[set[float], set[float]]:
        tones, gaps = set(), set()
        for step in range(8):
            item = corpus.draw(step, 1, length, 0, mixing)[0, :, 0]
            tones.add(round(pitch(item[1])))
            # what the strokes repeat after: a vocoder blurs them, but leaves them where they are
            envelope = torch.nn.functional.avg_pool1d(item[0].abs()[None], 160, 80)[0]
            again = torch.fft.irfft(torch.fft.rfft(envelope - envelope.mean(), 1024).abs().square())
            gaps.add((30 + int(again[30:80].argmax())) / 100)
        return tones, gaps

    def set_of(**changes: float) -> Mixing:
        return Mixing(remix=0.0, gain_db=0.0, drop=0.0, pan=0.0, speed=0.0, bend=1.0, **changes)

    tones, gaps = spans(set_of())
    assert tones == {440} and gaps == {0.5}
    tones, gaps = spans(set_of(pitch=2.0))
    assert len(tones) > 4 and min(tones) >= 440 * 2 ** (-2 / 12) - 2 and max(tones) <= 440 * 2 ** (2 / 12) + 2
    assert max(gaps) - min(gaps) <= 0.03
    tones, gaps = spans(set_of(tempo=0.2))
    assert max(tones) - min(tones) <= 3
    assert max(gaps) - min(gaps) > 0.1 and min(gaps) >= 0.5 / 1.2 - 0.02 and max(gaps) <= 0.5 / 0.8 + 0.02


def test_stems_are_shifted_by_themselves(tmp_path: Path) -> None:
    writer = StemWriter(tmp_path, RATE, NAMES)
    ramp = torch.linspace(0, 0.9, 40000)
    writer.add("a", "made", ramp.expand(2, 2, -1))
    corpus = StemCorpus(writer.close())
    shifted = Mixing(remix=0.0, gain_db=0.0, drop=0.0, pan=0.0, speed=0.0, shift=0.5)
    apart = []
    for step in range(10):
        item = corpus.draw(step, 1, 8000, 0, shifted)[0, :, 0].abs()
        apart.append(abs(float(item[0, 4000] - item[1, 4000])) / 0.9 * 40000 / RATE)
        plain = corpus.draw(step, 1, 8000, 0, STILL)[0, :, 0].abs()
        assert torch.allclose(plain[0], plain[1])
    assert max(apart) <= 0.5 and max(apart) > 0.15


@pytest.mark.parametrize(("count", "semitones"), [(20000, 0.0), (30000, 0.0), (24000, 3.0), (21000, -2.5)])
def test_stretching_keeps_the_pitch_and_shifting_keeps_the_length(count: int, semitones: float) -> None:
    rate = 16000
    wav = torch.stack([tone(440.0, count, rate), 0.5 * tone(440.0, count, rate)])
    made = stretch(wav, 24000, semitones, rate)
    assert made.shape == (2, 24000)
    middle = made[:, 6000:18000]
    assert pitch(middle[0], rate) == pytest.approx(440 * 2 ** (semitones / 12), rel=0.002)
    # as loud as before, and as far to the left
    assert float(middle[0].square().mean().sqrt()) == pytest.approx(0.3 / math.sqrt(2), rel=0.1)
    assert torch.allclose(middle[1], 0.5 * middle[0], atol=0.01)


def test_a_turntable_needs_no_vocoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("descant.recipes.automix_sound.vocoder", lambda *_: pytest.fail("the vocoder was used"))
    wav = torch.randn(2, 22000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(stretch(wav, 24000, 12 * math.log2(22 / 24)), resize(wav, 24000), atol=1e-5)


def test_what_happens_in_time_happens_at_the_new_time() -> None:
    rate, time = 16000, torch.arange(32000) / 16000
    wav = tone(440.0, 32000, rate) * ((time > 0.5) & (time < 1.0))
    made = vocoder(wav[None], 40000, rate)[0]
    loud = torch.nn.functional.avg_pool1d(made.square()[None], 400)[0]
    places = (loud > 0.25 * loud.max()).nonzero()[:, 0]
    # a frame of 64 ms knows no better
    assert float(places[0]) * 0.025 == pytest.approx(0.625, abs=0.05)
    assert float(places[-1] + 1) * 0.025 == pytest.approx(1.25, abs=0.05)
    assert float(loud.max()) == pytest.approx(0.045, rel=0.1)


def test_beats_of_rendered_pieces_are_exact(tmp_path: Path) -> None:
    pieces = [builtin.compose(seed, "train", 8.0) for seed in range(2)]
    corpus = stems_data.pack(pieces, tmp_path, rate=16000, seconds=6.0)
    for song, piece in enumerate(pieces):
        pulse = corpus.pulses[song]
        assert pulse is not None and pulse.key == piece.key and pulse.tempo == pytest.approx(piece.tempo)
        start = stems_data.begin(piece, 6.0)
        assert all(abs((time + start) * piece.tempo / 60 % 1 - 0.5) > 0.499 for time in pulse.beats)
        beats = (pulse.beats[pulse.bar] + start) * piece.tempo / 60  # from the first downbeat of the piece
        assert beats / piece.beats_per_bar == pytest.approx(round(beats / piece.beats_per_bar), abs=0.001)
        assert all(0 <= time < 6 for time in pulse.beats)
        # and drums are struck on them
        heard = onsets(corpus.read(song, 0, 0, 96000), 16000, 0.3)
        near = [min(abs(time - beat) for time in heard) < 0.04 for beat in pulse.beats]
        assert sum(near) >= 0.6 * len(near)


def test_pulses_are_estimated_where_nobody_knows_them() -> None:
    length = 10 * 16000
    beats = [0.25 + 0.5 * number for number in range(19)]
    mix = clicks(beats, length, 16000)
    for hertz in (261.63, 329.63, 392.0, 523.25, 246.94, 349.23, 440.0, 293.66):
        mix = mix + 0.2 * tone(hertz, length, 16000)
    pulse = automix.heard(mix[None], 16000)
    assert pulse is not None and pulse.tempo == pytest.approx(120, rel=0.02)
    assert pulse.key in ("C major", "A minor")
    near = [min(abs(time - beat) for beat in beats) < 0.04 for time in pulse.beats]
    assert sum(near) > 0.8 * len(near)
    assert automix.heard(torch.zeros(1, length), 16000) is None


def test_settings_and_labels_are_checked() -> None:
    for changes, said in (
        ({"automix": 1.5}, "chance"), ({"pitch": 13}, "semitones"), ({"tempo": 0.5}, "tempo"), ({"shift": -1}, "shift")
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            Mixing(**changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must rise"):
        Pulse(tempo=100, beats=(1.0, 1.0))
    with pytest.raises(ValueError, match="positive"):
        Pulse(tempo=math.nan, beats=())
    assert Pulse.of_row({"name": "old", "length": 3}) is None
    one = Pulse(tempo=99.5, beats=(0.25, 0.5), metre=3, bar=1, key="F minor")
    assert Pulse.of_row(one.row()) == one
    with pytest.raises(ValueError, match="both must be 1"):
        stretch(torch.zeros(2, 0), 5)
