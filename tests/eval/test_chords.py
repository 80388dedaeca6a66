import itertools
import math

import mir_eval.chord
import mir_eval.util
import numpy as np
import pytest
import torch

from descant.eval.chords import LABELS, ROOTS, ChordSettings, chords, majmin_accuracy, smooth
from descant.recipes import bench_control

RATE = 22_050


def chord(root, minor, seconds=1.0):
    time = torch.arange(int(seconds * RATE)) / RATE
    pitches = (36 + root, 60 + root, 60 + root + (3 if minor else 4), 67 + root)
    wav = sum(
        torch.sin(2 * math.pi * 440 * 2 ** ((p - 69) / 12) * k * time) / k for p in pitches for k in range(1, 6)
    )  # fmt: skip
    return 0.1 * wav * torch.exp(-time)


@pytest.mark.parametrize("minor", [False, True])
def test_every_triad(minor):
    wav = torch.cat([chord(root, minor) for root in range(12)])
    truth = [(float(i), i + 1.0, LABELS[i + 12 * minor]) for i in range(12)]
    assert majmin_accuracy(truth, chords(wav, RATE)) > 0.9


def test_arrangements_are_read():
    genres = ("rock", "folk", "country", "ballad")
    takes = list(bench_control.takes("test", 1, 8.0, genres=genres))
    found = [majmin_accuracy(bench_control.harte(take.piece, 8.0), chords(take.wav, RATE)) for take in takes]
    assert np.nanmean(found) > 0.7
    shuffled = [
        majmin_accuracy(bench_control.harte(takes[i - 1].piece, 8.0), chords(take.wav, RATE))
        for i, take in enumerate(takes)
    ]
    assert np.nanmean(shuffled) < 0.4


def test_spans_cover_the_clip_and_silence_is_no_chord():
    wav = torch.cat([chord(0, False), torch.zeros(2 * RATE), chord(7, False)])
    spans = chords(wav, RATE)
    assert spans[0][0] == 0
    assert spans[-1][1] == pytest.approx(4.0)
    assert all(one[1] == two[0] for one, two in itertools.pairwise(spans))
    assert [label for *_, label in spans] == ["C:maj", "N", "G:maj"]
    assert chords(torch.zeros(RATE), RATE) == [(0.0, 1.0, "N")]
    assert all(isinstance(label, str) for *_, label in chords(0.1 * torch.randn(RATE), RATE))


def test_detuned_music_is_read_too():
    wav = torch.cat([chord(root, False) for root in (0, 5, 7, 0)])
    stretched = torch.nn.functional.interpolate(wav[None, None], scale_factor=2 ** (-0.4 / 12), mode="linear")[0, 0]
    assert [label for *_, label in chords(stretched, RATE)] == ["C:maj", "F:maj", "G:maj", "C:maj"]


def random_spans(seed, labels):
    draw = np.random.default_rng(seed)
    edges = np.concatenate([[0], np.sort(draw.uniform(0, 20, 14)), [20]])
    return [(a, b, labels[draw.integers(len(labels))]) for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("seed", range(6))
def test_majmin_is_mir_evals(seed):
    few = [LABELS[0], LABELS[9], LABELS[12 + 9], "N"]
    truth, guess = random_spans(seed, [*few, "X"]), random_spans(seed + 100, few)
    one, two = (np.array([span[:2] for span in spans]) for spans in (truth, guess))
    merged, left, right = mir_eval.util.merge_labeled_intervals(
        one, [span[2] for span in truth], two, [span[2] for span in guess]
    )
    scores = mir_eval.chord.majmin(left, right)
    expected = mir_eval.chord.weighted_accuracy(scores, mir_eval.util.intervals_to_durations(merged))
    assert majmin_accuracy(truth, guess) == pytest.approx(expected)


def test_labels_are_harte_and_gaps_are_no_chord():
    for label in LABELS:
        mir_eval.chord.validate_chord_label(label)
    assert majmin_accuracy([(0, 2, "C:maj"), (2, 4, "N")], [(0, 1, "C:maj")]) == pytest.approx(0.75)
    assert math.isnan(majmin_accuracy([(0, 1, "X")], [(0, 1, "C:maj")]))
    assert len(ROOTS) == 12


def test_smoothing_is_the_best_path():
    score = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    path = smooth(score, 0.7)

    def value(states):
        changes = sum(a != b for a, b in itertools.pairwise(states))
        return float(sum(score[s, i] for i, s in enumerate(states))) - 0.7 * changes

    best = max(value(np.unravel_index(i, (3,) * 6)) for i in range(3**6))
    assert value(path) == pytest.approx(best, abs=1e-5)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="stay"):
        ChordSettings(stay=-1)
