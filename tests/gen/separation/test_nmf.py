"""Factorisation: against scikit-learn (which librosa brings), and what each start is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import non_negative_factorization
from torch import Tensor

from descant.gen.separation.nmf import NmfSettings, divergence, factorise
from descant.gen.separation.nmf_separators import (
    DictionaryNMF,
    HarmonicNMF,
    PartSettings,
    ScoreNMF,
    ScoreSettings,
    learn_dictionary,
)
from descant.gen.separation.nmf_start import Note, StartSettings, harmonic_templates, random_start, score_start
from descant.gen.separation.spectral import Grid

from .made import blocks

_RATE = 44100
_GRID = Grid(window=2048, hop=512)


def values(bins: int = 20, frames: int = 30, rank: int = 4) -> Tensor:
    templates, activations = random_start(bins, rank, frames, 7)
    return templates @ activations + 0.05 * random_start(bins, 1, frames, 8)[1]


@pytest.mark.parametrize(("objective", "loss"), [("kl", "kullback-leibler"), ("euclidean", "frobenius")])
def test_updates_are_those_of_scikit_learn(objective: str, loss: str) -> None:
    target, (templates, activations) = values(), random_start(20, 5, 30)
    made = factorise(target, templates, activations, NmfSettings(objective=objective, iterations=15))  # type: ignore[arg-type]
    wanted = non_negative_factorization(
        target.numpy(), W=templates.numpy().copy(), H=activations.numpy().copy(), n_components=5, init="custom",
        solver="mu", beta_loss=loss, tol=0, max_iter=15,
    )  # fmt: skip
    for one, other in zip(made, wanted, strict=False):
        assert np.abs(one.numpy() - other).max() < 1e-6


@pytest.mark.parametrize("objective", ["kl", "euclidean"])
@pytest.mark.parametrize("learn", [True, False])
def test_no_update_makes_it_worse(objective: str, learn: bool) -> None:
    target, state = values(), random_start(20, 5, 30)
    one = NmfSettings(objective=objective, iterations=1)  # type: ignore[arg-type]
    before = divergence(target, *state, objective)
    for _ in range(30):
        state = factorise(target, *state, one, learn)
        after = divergence(target, *state, objective)
        assert after <= before * (1 + 1e-12)
        before = after


@pytest.mark.parametrize("objective", ["kl", "euclidean"])
def test_an_exact_product_is_found(objective: str) -> None:
    templates, activations = random_start(6, 2, 8, 1)
    target = templates @ activations
    state = random_start(6, 2, 8, 2)
    made = factorise(target, *state, NmfSettings(objective=objective, iterations=4000))  # type: ignore[arg-type]
    assert (made[0] @ made[1] - target).abs().max() < 1e-2 * target.max()


def test_zeros_stay_zeros() -> None:
    templates, activations = random_start(20, 5, 30)
    templates[3], activations[:, 7] = 0, 0
    made = factorise(values(), templates, activations)
    assert not made[0][3].any() and not made[1][:, 7].any() and bool(torch.isfinite(made[0]).all())


def test_harmonic_templates_have_their_partials_and_nothing_between() -> None:
    column = harmonic_templates([69], _GRID)[:, 0]
    spacing = _RATE / 2048
    assert math.isclose(float(column.sum()), 1.0)
    peak = int(column.argmax())
    assert abs(peak * spacing - 440) < spacing
    assert column[round(880 / spacing)] > 0 and column[round(1320 / spacing)] > 0
    assert column[round(660 / spacing)] == 0 and column[round(220 / spacing)] == 0


def test_a_score_opens_its_notes_and_nothing_else() -> None:
    notes = [Note(start=1.0, end=2.0, pitch=60, stem="keys"), Note(start=3.0, end=4.0, pitch=60, stem="keys"),
             Note(start=0.5, end=0.6, pitch=38, stem="drums", pitched=False)]  # fmt: skip
    start = score_start(notes, 500, _GRID, StartSettings(early=0.0, late=0.0, onset=0.1))
    assert start.stems == ("drums", "keys", "drums", "keys")
    second = _RATE / 512
    keys, strikes = start.activations[1], start.activations[3]
    assert keys[int(1.5 * second)] == 1 and keys[int(2.5 * second)] == 0 and keys[int(3.5 * second)] == 1
    assert strikes[int(1.0 * second)] == 1 and strikes[int(1.5 * second)] == 0
    assert (start.templates[:, [0, 2, 3]] > 0).all() and (start.templates[:, 1] == 0).any()
    assert score_start(notes, 500, _GRID, StartSettings(onset=0.0)).stems == ("drums", "keys")


def tone(notes: list[Note], seconds: float, brightness: float) -> Tensor:
    """Notes played by partials that fall faster or slower, [1, T]."""
    time = torch.arange(round(seconds * _RATE)) / _RATE
    wav = torch.zeros_like(time)
    for note in notes:
        since = time - note.start
        on = ((since >= 0) & (time < note.end)).float()
        for number in range(1, 9):
            hertz = 440 * 2 ** ((note.pitch - 69) / 12) * number
            wav += 0.2 * brightness ** (number - 1) * on * torch.sin(2 * math.pi * hertz * since)
    return wav[None]


def ratio(true: Tensor, made: Tensor) -> float:
    """Energy of the truth over that of the error, in dB."""
    return 10 * math.log10(float(true.square().sum()) / float((true - made).square().sum()))


def melodies() -> tuple[list[Note], list[Note]]:
    high = [
        Note(start=i * 0.5, end=i * 0.5 + 0.45, pitch=p, stem="flute") for i, p in enumerate((72, 74, 76, 79, 76, 74))
    ]
    low = [Note(start=i * 0.75, end=i * 0.75 + 0.7, pitch=p, stem="bass") for i, p in enumerate((43, 47, 50, 45))]
    return high, low


def test_a_score_separates_two_players() -> None:
    high, low = melodies()
    flute, bass = tone(high, 3.0, 0.5), tone(low, 3.0, 0.6)
    method = ScoreNMF([*high, *low], NmfSettings(iterations=30))
    made = method.separate(flute + bass, _RATE)
    assert tuple(made) == ("bass", "flute")
    assert ratio(flute, made["flute"]) > 12 and ratio(bass, made["bass"]) > 12
    parts = list(method.stream(blocks(flute + bass, [30000]), _RATE))
    assert torch.equal(torch.cat([part["bass"] for part in parts], -1), made["bass"])


def test_what_the_score_does_not_have_is_in_no_stem() -> None:
    high, _ = melodies()
    wav = tone(high, 6.0, 0.5)
    wav[:, 5 * _RATE :] += tone([Note(start=0.0, end=1.0, pitch=60, stem="x")], 1.0, 0.5)
    made = ScoreNMF(high, NmfSettings(iterations=5)).separate(wav, _RATE)
    late = slice(round(4.5 * _RATE), None)
    assert made["flute"][:, late].abs().max() < 1e-6
    assert torch.allclose(made.residual[:, late], wav[:, late], atol=1e-6)


def test_a_recording_longer_than_its_score_is_refused() -> None:
    method = ScoreNMF([Note(start=0.0, end=0.2, pitch=60, stem="a")], score=ScoreSettings(spare=0.1))
    with pytest.raises(ValueError, match="right score"):
        method.separate(torch.ones(1, _RATE), _RATE)
    with pytest.raises(ValueError, match="right score"):
        list(method.stream([torch.ones(1, 9000)] * 5, _RATE))


def test_dictionaries_separate_what_they_were_learnt_from() -> None:
    high, low = melodies()
    flute, bass = tone(high, 3.0, 0.5), tone(low, 3.0, 0.6)
    settings = NmfSettings(iterations=30)
    tables = {
        "flute": learn_dictionary([flute], 6, _GRID, settings),
        "bass": learn_dictionary([bass], 6, _GRID, settings),
    }
    made = DictionaryNMF(tables, settings, _GRID).separate(flute + bass, _RATE)
    assert ratio(flute, made["flute"]) > 10 and ratio(bass, made["bass"]) > 10
    assert made.residual.abs().max() <= 1e-6


def test_tones_are_harmonic_and_bursts_percussive() -> None:
    high, _ = melodies()
    flute = tone(high, 3.0, 0.5)
    time = torch.arange(3 * _RATE) % (_RATE // 4)
    burst = 0.5 * torch.randn(1, 3 * _RATE, generator=torch.Generator().manual_seed(0)) * torch.exp(-time / 800.0)
    made = HarmonicNMF().separate(flute + burst, _RATE)
    assert ratio(flute, made["harmonic"]) > 5 and ratio(burst, made["percussive"]) > 2


def test_what_cannot_be_is_refused() -> None:
    templates, activations = random_start(20, 5, 30)
    with pytest.raises(ValueError, match="no objective"):
        NmfSettings(objective="is")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[K, J\]"):
        factorise(values(21), templates, activations)
    with pytest.raises(ValueError, match="negative"):
        factorise(-values(), templates, activations)
    with pytest.raises(ValueError, match="start < end"):
        Note(start=1.0, end=1.0, pitch=60, stem="a")
    with pytest.raises(ValueError, match="without notes"):
        ScoreNMF([])
    with pytest.raises(ValueError, match=r"need \[2049, N\]"):
        DictionaryNMF({"a": torch.rand(5, 2)})
    with pytest.raises(ValueError, match="silence"):
        learn_dictionary([torch.zeros(1, 9000)], 3, _GRID)
    with pytest.raises(ValueError, match="free template"):
        PartSettings(free=0)
