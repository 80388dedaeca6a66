import math
import sys
import types

import librosa
import mir_eval.melody
import numpy as np
import pytest
import torch

from descant.eval import melody
from descant.eval.melody import MelodySettings, adherence, chroma_cosine, from_notes, paper_chroma_filters, track
from descant.eval.pitch import HIGHEST, LOWEST, NoteMap, PitchSettings, notes
from descant.recipes import bench_control

RATE = 22_050


def tone(pitch, seconds=1.0, partials=6, rate=RATE, level=0.2):
    time = torch.arange(int(seconds * rate)) / rate
    hertz = 440 * 2 ** ((pitch - 69) / 12)
    return level * sum(torch.sin(2 * math.pi * hertz * k * time) / k for k in range(1, partials + 1))


@pytest.fixture(scope="module")
def pieces():
    genres = ("rock", "jazz", "folk", "waltz", "pop", "soul")
    return list(bench_control.takes("test", 1, 6.0, genres=genres))


def test_the_ladder_on_rendered_arrangements(pieces):
    found = bench_control.melody_ladder(pieces)
    assert found["same"]["mean"] >= 0.85  # six pieces; the whole set is in the benchmark
    assert found["other"]["mean"] <= 0.2
    assert found["semitone off"]["mean"] <= 0.05


def test_written_notes_are_found_in_the_mix(pieces):
    scores = [adherence(from_notes(take.piece.melody, 6.0), track(take.wav, RATE)).score for take in pieces]
    assert np.mean(scores) > 0.85
    assert min(scores) > 0.5


@pytest.mark.parametrize("pitch", [50, 60, 69, 76, 88])
def test_a_note_is_followed(pitch):
    found = track(tone(pitch), RATE)
    inside = found[5:-5]
    assert float((inside == pitch).float().mean()) > 0.9


def test_the_top_of_a_chord_is_the_tune():
    wav = torch.cat([sum(tone(p) for p in chord) for chord in ((60, 64, 79), (59, 62, 77), (60, 65, 76))])
    found = track(wav, RATE)
    for index, pitch in enumerate((79, 77, 76)):
        part = found[50 * index + 8 : 50 * index + 42]
        assert float((part == pitch).float().mean()) > 0.9


def test_level_channels_and_rate_do_not_matter():
    wav = torch.cat([tone(p, 0.5) for p in (62, 66, 69, 74)])
    base = track(wav, RATE)
    assert torch.equal(track(wav.repeat(2, 1), RATE).nan_to_num(), base.nan_to_num())
    quiet = track(1e-3 * wav, RATE)
    assert float((quiet.nan_to_num() == base.nan_to_num()).float().mean()) > 0.98
    faster = track(torch.tensor(librosa.resample(wav.numpy(), orig_sr=RATE, target_sr=44_100)), 44_100)
    assert adherence(base, faster).score > 0.9


def test_silence_rests_are_nan():
    assert track(torch.zeros(RATE), RATE).isnan().all()
    wav = torch.cat([tone(70), torch.zeros(RATE), tone(70)])
    found = track(wav, RATE)
    assert found[60:90].isnan().all()
    assert (found[5:45] == 70).all()


def test_adherence_is_raw_chroma_accuracy():
    generator = np.random.default_rng(0)
    left = generator.integers(50, 80, 400).astype(float)
    right = np.where(generator.random(400) < 0.6, left + 12 * generator.integers(-1, 2, 400), left + 3)
    left[generator.random(400) < 0.2] = np.nan
    right[generator.random(400) < 0.1] = np.nan

    def cents(row):
        hertz = np.where(np.isnan(row), 0, 440 * 2 ** ((np.nan_to_num(row) - 69) / 12))
        return mir_eval.melody.hz2cents(hertz), ~np.isnan(row)

    (one, voiced), (two, sounding) = cents(left), cents(right)
    # an estimate that rests has no pitch here; mir_eval takes pitch 0 as far away as well
    expected = mir_eval.melody.raw_chroma_accuracy(voiced, one, sounding, two)
    octave = mir_eval.melody.raw_pitch_accuracy(voiced, one, sounding, two)
    found = adherence(torch.tensor(left), torch.tensor(right), lag=0, tolerance=0)
    assert found.score == pytest.approx(expected)
    assert found.pitch == pytest.approx(octave)
    assert found.frames == voiced.sum()


def test_transpositions_and_delays_are_named():
    tune = from_notes([(0.4 * i, 0.35, 60 + step) for i, step in enumerate((0, 4, 2, 7, 5, 9, 11, 12, 3, 1))], 4.2)
    off = adherence(tune, tune + 3, tolerance=0)
    assert off.score < 0.2
    assert (off.transposed, off.shift) == (1.0, 3)
    late = torch.cat([torch.full((6,), math.nan), tune[:-6]])
    found = adherence(tune, late)
    assert found.lag == pytest.approx(0.12)
    assert found.best_lag > 0.97 > found.score
    assert adherence(tune, tune[:50]).score < 0.5
    with pytest.raises(ValueError, match="no note"):
        adherence(torch.full((10,), math.nan), tune)


def test_paper_chroma_is_librosas():
    for rate, size in ((32_000, 1 << 14), (22_050, 4096)):
        expected = librosa.filters.chroma(sr=rate, n_fft=size, tuning=0)
        assert np.abs(paper_chroma_filters(rate, size).numpy() - expected).max() < 1e-6


def test_chroma_cosine():
    wav = torch.cat([tone(p, 1.0) for p in (60, 64, 67)])
    assert chroma_cosine(wav, wav, RATE) == 1
    assert chroma_cosine(wav, 0.1 * wav.repeat(2, 1), RATE) == 1
    up = torch.cat([tone(p, 1.0) for p in (61, 65, 68)])
    assert chroma_cosine(wav, up, RATE) < 0.2
    assert chroma_cosine(torch.zeros(RATE), torch.zeros(100), RATE) == 1  # silence counts as C


def test_note_strengths_of_a_chord():
    found = notes(sum(tone(p, 2.0) for p in (48, 55, 64)), RATE)
    mean = found.strength.mean(dim=1)
    assert sorted((mean.topk(3).indices + LOWEST).tolist()) == [48, 55, 64]
    assert found.chroma().mean(dim=1).topk(3).indices.sort().values.tolist() == [0, 4, 7]
    assert found.strength.shape[0] == HIGHEST - LOWEST + 1
    assert float(found.chroma(low=60).mean(dim=1)[7]) < 0.2 * float(found.chroma().mean(dim=1)[7])


def test_drums_are_not_notes(pieces):
    take = pieces[0]
    drums = notes(take.stems["drums"] / take.stems["drums"].std(), RATE).strength.sum()
    chords = notes(take.stems["chords"] / take.stems["chords"].std(), RATE).strength.sum()
    assert float(drums) < 0.7 * float(chords)


def test_basic_pitch_without_its_runtime_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"descant\[melody\]"):
        melody.basic_pitch(torch.zeros(RATE), RATE, "nmp.onnx")


def test_basic_pitchs_windows_are_joined_in_time(monkeypatch):
    """A network that marks the key A4 where its input is loud: frames must come out where the sound is."""

    class Session:
        def __init__(self, path, providers):
            assert providers == ["CPUExecutionProvider"]

        def run(self, names, feed):
            (window,) = feed.values()
            assert window.shape == (1, 43_844, 1)
            loud = np.pad(np.abs(window[0, :, 0]), (0, 256))[: 172 * 256].reshape(172, 256).max(axis=1)
            table = np.zeros((1, 172, 88), np.float32)
            table[0, :, 69 - 21] = loud
            return [table]

    monkeypatch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
    wav = torch.zeros(5 * 22_050)
    wav[int(1.7 * 22_050) : int(3.1 * 22_050)] = 0.9
    found = melody.basic_pitch(wav, 22_050, "nmp.onnx")
    assert isinstance(found, NoteMap)
    row = found.strength[69 - LOWEST] > 0.5
    places = row.nonzero().flatten() * found.hop
    assert float(places[0]) == pytest.approx(1.7, abs=0.02)
    assert float(places[-1]) == pytest.approx(3.1, abs=0.02)
    assert bool(row[places_between(places, found.hop)].all())
    assert float((melody.skyline(found)[100:150] == 69).float().mean()) > 0.9


def places_between(places, hop):
    return torch.arange(round(float(places[0]) / hop), round(float(places[-1]) / hop))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="low"):
        MelodySettings(low=90, high=80)
    with pytest.raises(ValueError, match="threshold"):
        MelodySettings(threshold=2)
    with pytest.raises(ValueError, match="window"):
        PitchSettings(window=9)
    with pytest.raises(ValueError, match="seconds"):
        from_notes([], 0)
