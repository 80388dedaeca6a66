"""The builtin layer: deterministic, fast, in tune, and labelled with what it plays."""

import time

import numpy as np
import pytest
import torch
from scipy.signal import periodogram

from descant.lm.chords import parse
from descant.lm.vocab import GENRES, INSTRUMENTS, TONICS
from descant.recipes import builtin
from descant.recipes.piece import Piece, Stem
from descant.recipes.voices import VOICES


def one_note(instrument: str, pitch: int, seconds: float = 0.6) -> torch.Tensor:
    stem = Stem(role="lead", instrument=instrument, program=0, notes=((0.0, seconds, pitch, 100),))
    return builtin.render_stem(stem, seconds, 32000)


def test_equal_seeds_give_equal_pieces_and_samples() -> None:
    first, again, other = builtin.compose(5, duration=8), builtin.compose(5, duration=8), builtin.compose(6, duration=8)
    assert first == again and first.to_json() != other.to_json()
    assert Piece.from_json(first.to_json()) == first
    assert builtin.compose(5, "test", 8).melody != first.melody
    for stem in first.stems:
        assert torch.equal(builtin.render_stem(stem, 8, 32000), builtin.render_stem(stem, 8, 32000))


def test_ten_seconds_take_less_than_one() -> None:
    builtin.render_stem(builtin.compose(0, duration=1).stems[0], 1)  # imports and tables are not what is timed
    start = time.process_time()
    piece = builtin.compose(77, duration=10)
    for stem in piece.stems:
        builtin.render_stem(stem, 10, 32000)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("genre", GENRES)
def test_every_genre_can_be_written_and_is_well_formed(genre: str) -> None:
    piece = builtin.compose(3, duration=12, genre=genre)
    assert piece.genre == genre and piece.beats_per_bar == (3 if genre == "waltz" else 4)
    assert piece.chords[0][0] == 0 and piece.chords[-1][1] == pytest.approx(12, abs=0.01)
    assert [stem.role for stem in piece.stems][:4] == ["drums", "bass", "chords", "lead"]
    lead = piece.stems[3]
    assert piece.melody == tuple(note[:3] for note in lead.notes)
    for stem in piece.stems:
        assert stem.instrument in INSTRUMENTS and stem.notes
        onsets = [note[0] for note in stem.notes]
        assert onsets == sorted(onsets) and onsets[0] >= 0 and onsets[-1] < 12
        assert max(onset + length for onset, length, _, _ in stem.notes) > 9, "the part stops early"
        assert all(0 < pitch < 128 and 0 < velocity < 128 and length > 0 for _, length, pitch, velocity in stem.notes)
    assert any(genre in caption for caption in piece.captions)


def test_notes_belong_to_the_labels() -> None:
    strong = fit = inside = total = 0
    for seed in range(20):
        piece = builtin.compose(seed, duration=20)
        tonic, mode = piece.key.split()
        steps = (0, 2, 4, 5, 7, 9, 11) if mode == "major" else (0, 2, 3, 5, 7, 8, 10)
        scale = {(TONICS.index(tonic) + step) % 12 for step in steps}
        for onset, _, pitch in piece.melody:
            chord = [parse(symbol) for start, _, symbol in piece.chords if start <= onset + 1e-3][-1]
            beat = onset * piece.tempo / 60 % piece.beats_per_bar
            if abs(beat - round(beat)) < 1e-3 and round(beat) % 2 == 0:
                strong += 1
                fit += pitch % 12 in chord.classes
            inside += pitch % 12 in scale | set(chord.classes)
            total += 1
            assert 48 <= pitch <= 96
    assert fit / strong > 0.98
    assert inside == total


@pytest.mark.parametrize("instrument", sorted(VOICES))
def test_every_voice_is_in_tune_and_heard(instrument: str) -> None:
    bass = "bass" in instrument or instrument == "cello"
    for pitch in (40, 47) if bass else (60, 67, 74):
        wave = one_note(instrument, pitch).mean(0)
        assert wave.isfinite().all() and 0.02 < float(wave.square().mean().sqrt()) < 0.3
        hertz, power = periodogram(wave.numpy(), 32000, "hann", nfft=2**17)
        ratio = hertz[power.argmax()] / (440 * 2 ** ((pitch - 69) / 12))
        # which partial is loudest is a matter of timbre; it must be a partial of the note
        assert 0.9 < ratio < 6.1
        assert abs(1200 * np.log2(ratio / round(ratio))) < 25


def test_voices_cover_the_vocabulary_and_sound_different() -> None:
    assert set(VOICES) == set(INSTRUMENTS) - {"drums"}
    spectra = {}
    for name in VOICES:
        spectrum = np.log(1e-3 + np.abs(np.fft.rfft(one_note(name, 60).mean(0).numpy()))[:6000:4])
        spectra[name] = (spectrum - spectrum.mean()) / np.linalg.norm(spectrum - spectrum.mean())
    names = list(spectra)
    table = np.stack([spectra[name] for name in names])
    alike = table @ table.T - 2 * np.eye(len(names))
    assert alike.max() < 0.999, names[int(alike.max(1).argmax())]


def test_drums_keep_time_and_bass_drum_lies_low() -> None:
    notes = tuple((0.5 * index, 0.1, 36, 110) for index in range(8))
    wave = builtin.render_stem(Stem(role="drums", instrument="drums", program=-1, notes=notes), 4.0)
    assert wave.shape == (2, 128000)
    energy = wave.square().mean(0).view(-1, 320).mean(1)  # 10 ms
    beats = energy.view(8, 50)
    assert (beats[:, :5].mean(1) > 20 * beats[:, 20:].mean(1)).all(), "every half second starts with a stroke"

    def centre(pitch: int) -> float:
        hit = Stem(role="drums", instrument="drums", program=-1, notes=((0.0, 0.1, pitch, 110),))
        wave = builtin.render_stem(hit, 0.2).mean(0).numpy()
        hertz, power = periodogram(wave, 32000)
        return float((hertz * power).sum() / power.sum())

    assert centre(36) < centre(38) < centre(42)
    hats = builtin.render_stem(Stem(role="drums", instrument="drums", program=-1, notes=((0.0, 0.1, 42, 110),)), 0.2)
    assert hats[1].square().sum() > hats[0].square().sum()


def test_velocity_changes_level_and_the_end_is_cut() -> None:
    loud, soft = (
        builtin.render_stem(Stem(role="lead", instrument="flute", program=73, notes=((0.0, 9.0, 72, v),)), 0.5)
        for v in (120, 60)
    )
    assert loud.shape == (2, 16000)
    assert float(loud.abs().max() / soft.abs().max()) == pytest.approx(2**1.5, rel=1e-3)


def test_wrong_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="train, dev, test"):
        builtin.compose(1, "valid")
    with pytest.raises(ValueError, match="between 1 and 600"):
        builtin.compose(1, duration=0.1)
    with pytest.raises(ValueError, match="unknown genre 'polka'"):
        builtin.compose(1, genre="polka")
    with pytest.raises(ValueError, match="unknown instrument 'kazoo'"):
        builtin.render_stem(Stem(role="lead", instrument="kazoo", program=0, notes=()), 1.0)
    with pytest.raises(ValueError, match="at least 8000"):
        builtin.render_stem(Stem(role="lead", instrument="flute", program=0, notes=()), 1.0, 4000)
