import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
import torch

import descant.eval
from descant.eval import vectors as sets
from descant.eval.divergence import BACKWARD, FORWARD, JS, divergences, kl
from descant.eval.recipe import named


def logits(seed, *shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_direction_by_hand():
    # reference (1/2, 1/2), generated (1/4, 3/4): KL(ref || gen) = 1/2 ln 2 + 1/2 ln 2/3
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()
    found = kl(generated=q, reference=p)
    assert found[FORWARD].value == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-6)
    assert found[BACKWARD].value == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5), rel=1e-6)
    assert FORWARD == "KL(reference||generated)"
    assert found[FORWARD].direction == "lower"


def test_agrees_with_scipy():
    p, q = logits(1, 20, 50), logits(2, 20, 50)
    found = divergences(p, q)
    a, b = (scipy.special.softmax(item.double().numpy(), axis=1) for item in (p, q))
    assert found[FORWARD].numpy() == pytest.approx(scipy.stats.entropy(a, b, axis=1), rel=1e-10)
    assert found[BACKWARD].numpy() == pytest.approx(scipy.stats.entropy(b, a, axis=1), rel=1e-10)
    assert found[JS].numpy() == pytest.approx(scipy.spatial.distance.jensenshannon(a, b, axis=1) ** 2, rel=1e-10)


def test_bernoulli_agrees_with_torch_distributions():
    p, q = logits(1, 8, 30).double(), logits(2, 8, 30).double()
    found = divergences(p, q, "bernoulli")
    one, two = (torch.distributions.Bernoulli(logits=item) for item in (p, q))
    truth = torch.distributions.kl_divergence(one, two).sum(dim=1)
    assert torch.allclose(found[FORWARD], truth, rtol=1e-9)
    assert bool((found[JS] <= 30 * math.log(2)).all())


@pytest.mark.parametrize("form", ["softmax", "bernoulli"])
def test_identical_audio_is_exactly_zero(form):
    for scale in (1.0, 30.0, 300.0):
        same = logits(3, 40, 527) * scale
        for result in kl(same, same.clone(), form).values():
            assert result.value == 0.0
            assert result.low == result.high == 0.0
    nearly = same.clone()
    nearly[:, 0] += 1.0
    assert all(result.value > 0 for result in kl(logits(3, 40, 527), logits(3, 40, 527) + nearly * 1e-4, form).values())


@pytest.mark.parametrize("form", ["softmax", "bernoulli"])
def test_certain_taggers_stay_finite(form):
    # probabilities of 1e-400 have no double, their logarithms do; an epsilon would cap them at 14
    found = kl(torch.tensor([[1000.0, -1000.0]]), torch.tensor([[-1000.0, 1000.0]]), form)
    assert found[FORWARD].value == pytest.approx(2000.0)
    assert found[JS].value == pytest.approx(math.log(2) * (1 if form == "softmax" else 2))


def test_a_long_clip_counts_once_and_windows_are_averaged_as_logits():
    p, q = logits(1, 5, 10), logits(2, 5, 10)
    one, two = sets.of(p, ["a", "a", "a", "b", "b"]), sets.of(q, ["b", "a", "a", "a", "b"])
    found = kl(one, two)[FORWARD]
    a = [scipy.special.softmax(part.double().numpy()) for part in (q[1:4].mean(0), q[[0, 4]].mean(0))]
    b = [scipy.special.softmax(part.double().numpy()) for part in (p[:3].mean(0), p[3:].mean(0))]
    truth = [scipy.stats.entropy(x, y) for x, y in zip(a, b, strict=True)]
    assert found.clips == 2
    assert found.per_clip == pytest.approx({"a": truth[0], "b": truth[1]}, rel=1e-6)
    assert found.value == pytest.approx(np.mean(truth), rel=1e-6)


def test_clips_are_paired_by_name_not_by_place():
    p = logits(1, 30, 12)
    names = [f"clip {index}" for index in range(30)]
    back = sets.of(p.flip(0), names[::-1])
    assert kl(sets.of(p, names), back)[FORWARD].value == 0


def test_intervals_hold_the_mean():
    found = kl(logits(1, 100, 10), logits(2, 100, 10), recipe=named("descant-v1")["kl"])[FORWARD]
    values = np.array(list(found.per_clip.values()))
    assert found.error == pytest.approx(values.std(ddof=1) / 10)
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.error, rel=0.15)
    assert found.recipe == named("descant-v1")["kl"].id


def test_what_cannot_be_computed_has_a_reason():
    good = sets.of(logits(1, 3, 5), ["a", "b", "c"])
    for one, two, words in (
        (torch.zeros(0, 5), good, "no clip"),
        (sets.of(torch.full((3, 5), torch.nan), ["a", "b", "c"]), good, "NaN"),
        (sets.of(logits(1, 3, 5), ["a", "b", "d"]), good, "no partner"),
    ):
        found = kl(one, two)
        assert set(found) == {FORWARD, BACKWARD, JS}
        assert all(words in result.reason and result.value is None for result in found.values())
    with pytest.raises(ValueError, match="softmax and bernoulli"):
        kl(good, good, "sigmoid")
    with pytest.raises(ValueError, match="tags"):
        kl(good, sets.of(logits(1, 3, 6), ["a", "b", "c"]))


def test_the_name_of_the_room_is_the_function():
    assert descant.eval.kl is kl
