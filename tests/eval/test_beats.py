import mir_eval.beat
import mir_eval.onset
import numpy as np
import pytest
import torch

from descant.eval import metre
from descant.eval.beats import beat_f1, beats, event_f1, onsets
from descant.eval.rhythm import relation, tempo
from descant.recipes import bench_control, loops

RATE = 22_050


@pytest.fixture(scope="module")
def played():
    return list(loops.loops(2, 8.0, RATE, seed=7))


def test_tempo_of_loops_that_nothing_was_fitted_to(played):
    names = [relation(tempo(loop.wav, RATE).bpm, loop.tempo) for loop in played]
    assert min(loop.tempo for loop in played) < 66
    assert max(loop.tempo for loop in played) > 170
    assert names.count("exact") / len(names) >= 0.85
    assert sum(name in ("exact", "double", "half", "triple", "third") for name in names) / len(names) > 0.95


def test_beats_of_loops(played):
    scores = [beat_f1(loop.beats, beats(loop.wav, RATE, bpm=loop.tempo), skip=0).f1 for loop in played]
    # some patterns sound equally well shifted by half a beat: most must be on the beat, none off all strokes
    assert np.mean(scores) > 0.8
    assert np.median(scores) > 0.95
    free = [beat_f1(loop.beats, beats(loop.wav, RATE), skip=0).f1 for loop in played]
    assert np.mean(free) > 0.75


def test_beats_of_clicks_are_exact():
    wav = torch.zeros(12 * RATE)
    times = np.arange(0.37, 11.9, 60 / 97)
    for time in times:
        wav[int(time * RATE) : int(time * RATE) + 400] = torch.randn(400, generator=torch.Generator().manual_seed(1))
    found = beats(wav, RATE)
    assert mir_eval.beat.f_measure(times, np.array(found)) > 0.95
    assert np.abs(np.diff(found) - 60 / 97).max() < 0.03
    assert beats(torch.zeros(3 * RATE), RATE) == []


def test_onsets_of_notes():
    time = torch.arange(RATE // 2) / RATE
    note = torch.sin(2 * np.pi * 330 * time) * torch.exp(-14 * time)
    wav, truth = torch.zeros(6 * RATE), [0.5, 1.1, 1.45, 2.2, 3.0, 3.3, 4.4, 5.2]
    for start in truth:
        wav[int(start * RATE) : int(start * RATE) + len(note)] += note
    found = onsets(wav + 1e-3 * torch.randn(len(wav), generator=torch.Generator().manual_seed(0)), RATE)
    assert event_f1(truth, found, 0.05).f1 > 0.9
    assert onsets(torch.zeros(RATE), RATE) == []


@pytest.mark.parametrize("seed", range(8))
def test_f_measures_are_mir_evals(seed):
    draw = np.random.default_rng(seed)
    one = np.sort(draw.uniform(0, 12, 25))
    two = np.sort(np.concatenate([one[::2] + draw.normal(0, 0.05, 13), draw.uniform(0, 12, 9)]))
    two = np.unique(two.clip(0))
    expected = mir_eval.onset.f_measure(one, two, window=0.05)
    found = event_f1(one.tolist(), two.tolist(), 0.05)
    assert (found.f1, found.precision, found.recall) == pytest.approx(expected)
    trimmed = [mir_eval.beat.trim_beats(row) for row in (one, two)]
    assert beat_f1(one.tolist(), two.tolist()).f1 == pytest.approx(mir_eval.beat.f_measure(*trimmed))


def test_empty_lists_score_nothing():
    assert event_f1([], [], 0.05).f1 == 0
    assert event_f1([1.0], [], 0.05).recall == 0
    with pytest.raises(ValueError, match="tolerance"):
        event_f1([1.0], [1.0], -1)
    with pytest.raises(ValueError, match="bpm"):
        beats(torch.zeros(RATE), RATE, bpm=5)


def test_a_fit_finds_what_decides():
    """Candidates differ in one measurement alone: its weight must carry the choice."""
    draw = torch.Generator().manual_seed(0)
    examples = []
    for _ in range(60):
        rows = torch.randn(4, len(metre.NAMES), generator=draw, dtype=torch.float64)
        examples.append((rows, torch.zeros(4, dtype=torch.float64), int(rows[:, 3].argmax())))
    weights = metre.fit(examples, ridge=0.01)
    assert weights[3] > 5 * max(abs(w) for i, w in enumerate(weights) if i != 3) > 0
    with pytest.raises(ValueError, match="examples"):
        metre.fit([])


def test_weights_belong_to_the_measurements():
    assert len(metre.WEIGHTS) == len(metre.NAMES) == len(set(metre.NAMES))
    flux = torch.randn(4, 1600, generator=torch.Generator().manual_seed(0))
    rows = metre.measure(flux[0], flux[1:], torch.tensor([80.0, 100.0], dtype=torch.float64))
    assert rows.shape == (2, len(metre.NAMES))
    assert torch.isfinite(rows).all()
    chance = metre.choose(rows, torch.zeros(2, dtype=torch.float64))
    assert float(chance.sum()) == pytest.approx(1)


def test_loops_are_reproducible_and_labelled():
    one, two = (next(loops.loops(1, 4.0, RATE)) for _ in range(2))
    assert torch.equal(one.wav, two.wav)
    assert np.allclose(np.diff(one.beats), 60 / one.tempo)
    assert one.wav.shape == (2, 4 * RATE)
    with pytest.raises(ValueError, match="tempo"):
        next(loops.loops(0))


def test_a_piece_played_at_another_tempo_moves_its_labels():
    take = next(bench_control.takes("dev", 1, 6.0))
    assert 60 <= take.piece.tempo <= 180
    assert take.wav.shape == (6 * RATE,)
    assert take.piece.chords[0][0] == 0
    beat = 60 / take.piece.tempo
    bar = take.piece.chords[0][1] / beat
    assert abs(bar - round(bar * 2) / 2) < 0.01
    assert set(take.stems) >= {"drums", "bass", "chords", "lead"}
