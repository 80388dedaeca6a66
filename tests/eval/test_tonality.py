import itertools

import mir_eval.key
import numpy as np
import pytest
import torch

from descant.eval.tonality import KEYS, PROFILES, TONICS, KeySettings, key, match, mirex_score

RATE = 32_000
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}


def cadence(tonic, mode, cents=0.0, seconds=6.0, drums=0.0):
    """I IV V I with five harmonics a note (the dominant major in minor, as in practice), and noise bursts."""
    generator = torch.Generator().manual_seed(0)
    length = int(seconds * RATE / 4)
    time = torch.arange(length) / RATE
    parts = []
    for degree in (0, 3, 4, 0):
        part = torch.zeros(length)
        for step in (0, 2, 4):
            note = 60 + tonic - 12 * (tonic > 6) + SCALES[mode][(degree + step) % 7] + (12 if degree + step >= 7 else 0)
            note += 1 if (mode, degree, step) == ("minor", 4, 2) else 0
            hertz = 440 * 2 ** ((note - 69 + cents / 100) / 12)
            for harmonic in range(1, 6):
                part += 0.1 / harmonic * torch.sin(2 * np.pi * hertz * harmonic * time) * torch.exp(-time)
        for start in range(0, length, RATE // 4):
            burst = torch.randn(min(2000, length - start), generator=generator)
            part[start : start + 2000] += drums * burst * torch.exp(-torch.arange(len(burst)) / 300)
        parts.append(part)
    return torch.cat(parts)


@pytest.mark.parametrize("mode", ["major", "minor"])
@pytest.mark.parametrize("tonic", range(12))
def test_key_of_a_cadence(tonic, mode):
    assert key(cadence(tonic, mode), RATE).name == f"{TONICS[tonic]} {mode}"


@pytest.mark.parametrize("cents", [-45, -20, 20, 45])
def test_key_survives_detuning_and_measures_it(cents):
    found = key(cadence(2, "major", cents=cents), RATE)
    assert found.name == "D major"
    assert found.tuning == pytest.approx(cents, abs=5)


def test_key_survives_drums_level_rate_and_channels():
    wav = cadence(9, "minor", drums=1.0)
    assert key(wav, RATE).name == "A minor"
    assert key(1e-3 * wav.repeat(2, 1), RATE).name == "A minor"
    slow = key(wav, 30_201)  # heard 100 cents flat: a semitone down
    assert slow.name == "Ab minor"


def test_every_profile_and_its_correlation():
    wav = cadence(7, "major")
    for name in PROFILES:
        assert key(wav, RATE, KeySettings(profile=name)).name == "G major"
        row = torch.tensor(PROFILES[name][1]).roll(5)
        scores = match(row, name)
        assert KEYS[int(scores.argmax())] == "F minor"
        assert float(scores.max()) == pytest.approx(1)
        expected = np.corrcoef(row.numpy(), np.roll(PROFILES[name][0], 3))[0, 1]
        assert float(scores[KEYS.index("Eb major")]) == pytest.approx(expected, abs=1e-6)


def test_chroma_holds_the_notes_played():
    chroma = key(cadence(0, "major"), RATE).chroma
    assert sum(chroma) == pytest.approx(1, abs=1e-5)
    white = [chroma[i] for i in SCALES["major"]]
    assert min(white) > 2 * max(chroma[i] for i in (1, 3, 6, 8, 10))


def test_nothing_tonal():
    assert key(torch.zeros(RATE * 2), RATE).name == ""
    assert key(torch.zeros(10), RATE).name == ""
    assert key(torch.randn(RATE * 2, generator=torch.Generator().manual_seed(0)), RATE).tuning <= 50


def test_mirex_score_is_mir_evals_for_all_pairs():
    flat = {"Eb": "Eb", "Ab": "Ab", "Bb": "Bb"}
    for guess, truth in itertools.product(KEYS, KEYS):
        names = [" ".join(flat.get(word, word) for word in name.split()) for name in (truth, guess)]
        assert mirex_score(guess, truth) == mir_eval.key.weighted_score(*names), (guess, truth)


def test_mirex_score_refuses_unknown_names():
    assert mirex_score("", "C major") == 0
    for pair in (("H major", "C major"), ("C major", "")):
        with pytest.raises(ValueError, match="unknown key"):
            mirex_score(*pair)


def test_keys_are_the_generators_keys():
    from descant.lm import vocab

    assert KEYS == vocab.KEYS


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="profile"):
        KeySettings(profile="nobody")
    with pytest.raises(ValueError, match="low < high"):
        KeySettings(low=500, high=100)
