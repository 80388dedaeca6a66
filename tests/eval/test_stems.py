import math

import pytest
import torch

from descant.eval.stems import adherence_test, chroma_agreement, fit, kept, leakage
from descant.lm.vocab import GENRES
from descant.recipes import bench_control

RATE = 22_050
SECONDS = 6.0


@pytest.fixture(scope="module")
def takes():
    return list(bench_control.takes("test", 1, SECONDS, genres=GENRES[::3]))


def context(take):
    return sum(wav for role, wav in take.stems.items() if role != "bass")


def test_a_stem_kept_as_it_was(takes):
    stem = takes[0].stems["chords"]
    same = kept(stem, stem, RATE)
    assert same.si_sdr > 100
    assert same.onset_f1 == 1
    assert same.chroma == pytest.approx(1, abs=1e-4)
    quieter = kept(stem, 0.5 * stem, RATE)
    assert quieter.si_sdr > 100
    assert quieter.sdr == pytest.approx(20 * math.log10(2), abs=0.01)
    assert quieter.onset_f1 > 0.95


def test_a_stem_that_was_spoilt_or_replaced(takes):
    stem, other = takes[0].stems["chords"], takes[1].stems["chords"]
    noise = torch.randn(stem.shape, generator=torch.Generator().manual_seed(0))
    spoilt = stem + noise * stem.std() / noise.std() * 0.316
    assert kept(stem, spoilt, RATE).si_sdr == pytest.approx(10, abs=0.5)
    replaced = kept(stem, other, RATE)
    assert replaced.si_sdr < -10
    assert replaced.onset_f1 < 0.8
    assert replaced.chroma < kept(stem, spoilt, RATE).chroma


def test_leakage_of_the_context(takes):
    given, part = takes[0].stems["drums"], takes[0].stems["bass"]
    assert leakage(given, given) == pytest.approx(0, abs=1e-9)
    assert leakage(given, part) < -20
    mixed = part / part.norm() + 0.316 * given / given.norm()
    assert leakage(given, mixed) == pytest.approx(-10.4, abs=1)


def test_a_part_fits_its_own_context_better(takes):
    own = fit(context(takes[0]), takes[0].stems["bass"], RATE)
    other = fit(context(takes[0]), takes[3].stems["bass"], RATE)
    assert own.chroma > other.chroma
    assert own.onset_f1 > other.onset_f1
    assert own.pulse > other.pulse
    assert 0 <= own.grid <= 1


def test_matched_pairs_beat_mismatched_ones_and_strangers_do_not(takes):
    contexts = [context(take) for take in takes]
    parts = [take.stems["bass"] for take in takes]
    found = adherence_test(contexts, parts, RATE, shuffles=2000)
    for name in ("onset_f1", "pulse", "chroma"):
        assert found[name].p < 0.01, name
        assert found[name].matched.mean > found[name].shuffled, name
    strangers = adherence_test(contexts, parts[3:] + parts[:3], RATE, shuffles=2000)
    assert strangers["onset_f1"].p > 0.05
    assert strangers["chroma"].p > 0.05


def test_chroma_agreement():
    time = torch.arange(2 * RATE) / RATE

    def notes(*pitches):
        return sum(torch.sin(2 * math.pi * 440 * 2 ** ((p - 69) / 12) * time) for p in pitches)

    assert chroma_agreement(notes(60, 64), notes(72, 76), RATE) > 0.95
    assert chroma_agreement(notes(60, 64), notes(61, 65), RATE) < 0.2
    assert chroma_agreement(notes(60), torch.zeros(2 * RATE), RATE) == 0


def test_silent_parts_do_not_fail(takes):
    wav = takes[0].wav
    found = fit(wav, torch.zeros_like(wav), RATE)
    assert (found.onset_f1, found.grid, found.chroma) == (0, 0, 0)
    assert abs(found.pulse) < 1e-6


def test_bad_arguments_are_refused(takes):
    wav = takes[0].wav
    with pytest.raises(ValueError, match="one shape"):
        kept(wav, wav[:-1], RATE)
    with pytest.raises(ValueError, match="silent"):
        kept(torch.zeros(RATE), wav[:RATE], RATE)
    with pytest.raises(ValueError, match="same shape"):
        leakage(wav, torch.zeros_like(wav))
    with pytest.raises(ValueError, match="pairs"):
        adherence_test([wav], [wav], RATE)
