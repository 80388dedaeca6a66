"""Chord plans: they cover the time asked for, stay in the key and can be repeated."""

from __future__ import annotations

from itertools import pairwise

import pytest

from descant.gen import plan
from descant.lm import vocab
from descant.lm.chords import parse


@pytest.mark.parametrize("genre", vocab.GENRES)
def test_every_genre_has_a_plan_in_every_key(genre: str) -> None:
    low, high = plan.tempo_range(genre)
    assert 40 <= low < high <= 200
    for key in vocab.KEYS:
        rows = plan.plan_chords(genre, key, 117.3, plan.default_metre(genre), 31.7, 5)
        assert rows[0][0] == 0.0
        assert rows[-1][1] == 31.7
        assert all(before[1] == after[0] for before, after in pairwise(rows))
        assert all(start < end for start, end, _ in rows)
        assert all(before[2] != after[2] for before, after in pairwise(rows))
        for _, _, symbol in rows:
            parse(symbol)


@pytest.mark.parametrize("genre", vocab.GENRES)
def test_the_tonic_is_heard_and_most_chords_are_of_the_key(genre: str) -> None:
    for key in ("Eb major", "F# minor"):
        tonic, mode = plan.split_key(key)
        home = inside = total = 0.0
        for seed in range(12):
            for start, end, symbol in plan.plan_chords(genre, key, 120, 4, 60, seed):
                chord = parse(symbol)
                total += end - start
                home += (end - start) * (chord.root == tonic)
                # the dominant of a minor key has the raised leading note
                inside += (end - start) * (set(chord.classes) <= {*plan.scale(key), (tonic + 11) % 12})
        assert home / total > 0.2, key
        # these two live on dominant sevenths of every degree
        assert genre in ("blues", "funk") or inside / total > 0.7, (key, mode)


def test_transposed_plans_agree() -> None:
    low = plan.plan_bars("pop", "C major", 32, 3)
    assert [len(bar) for bar in low] == [len(bar) for bar in plan.plan_bars("pop", "C major", 32, 3)]
    assert low == plan.plan_bars("pop", "C major", 32, 3)
    seeds = {tuple(plan.plan_bars("pop", "C major", 16, seed)) for seed in range(20)}
    assert len(seeds) > 10


def test_known_symbols() -> None:
    bars = [bar for seed in range(30) for bar in plan.plan_bars("blues", "A major", 12, seed)]
    assert {symbol for bar in bars for symbol in bar} <= {"A7", "D7", "E7", "Gb7", "Bm7"}
    minor = {s for seed in range(30) for bar in plan.plan_bars("classical", "A minor", 16, seed) for s in bar}
    assert minor <= {"Am", "Dm", "E", "E7", "F", "G", "C", "Bdim"}


def test_a_bar_of_three_has_one_chord() -> None:
    assert all(len(bar) == 1 for seed in range(20) for bar in plan.plan_bars("jazz", "C major", 32, seed, 3))
    assert any(len(bar) == 2 for seed in range(20) for bar in plan.plan_bars("jazz", "C major", 32, seed, 4))


def test_half_bars_are_halved_in_time() -> None:
    rows = plan.time_bars([("C", "G"), ("G",), ("C",)], 2.0, 5.0)
    assert rows == ((0.0, 1.0, "C"), (1.0, 4.0, "G"), (4.0, 5.0, "C"))


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"polka.*ballad"):
        plan.tempo_range("polka")
    with pytest.raises(ValueError, match="unknown key"):
        plan.plan_chords("pop", "H major", 120, 4, 10, 0)
    with pytest.raises(ValueError, match="20 to 400"):
        plan.plan_chords("pop", "C major", 5, 4, 10, 0)
    with pytest.raises(ValueError, match="bar of 0 beats"):
        plan.plan_chords("pop", "C major", 100, 0, 10, 0)
