import math

import numpy as np
import pytest
import scipy.stats
import torch

from descant.eval.statistics import bootstrap, matching_test


def test_bootstrap_agrees_with_scipy():
    values = torch.randn(200, generator=torch.Generator().manual_seed(0)) * 3 + 5
    ours = bootstrap(values, repeats=8000)
    theirs = scipy.stats.bootstrap(
        (values.numpy(),), np.mean, n_resamples=8000, method="percentile", random_state=np.random.default_rng(1)
    ).confidence_interval
    assert ours.mean == pytest.approx(float(values.mean()), rel=1e-6)
    assert ours.low == pytest.approx(theirs.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.high, abs=0.03)
    assert ours.count == 200
    assert "[" in str(ours)


def test_bootstrap_interval_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(3)
    inside = 0
    for trial in range(200):
        values = torch.rand(60, generator=generator)
        estimate = bootstrap(values, level=0.9, repeats=500, seed=trial)
        inside += estimate.low <= 0.5 <= estimate.high
    assert 165 <= inside <= 195


@pytest.mark.parametrize(("values", "level"), [([], 0.95), ([1.0, math.nan], 0.95), ([1.0], 1.5)])
def test_bootstrap_refuses(values, level):
    with pytest.raises(ValueError):
        bootstrap(values, level=level)


def test_matching_test_agrees_with_scipy_pairings():
    generator = torch.Generator().manual_seed(5)
    wanted = torch.randn(12, generator=generator)
    heard = wanted + 1.2 * torch.randn(12, generator=generator)
    scores = -(heard[:, None] - wanted[None]).abs()
    ours = matching_test(scores, shuffles=20_000)
    theirs = scipy.stats.permutation_test(
        (wanted.numpy(),),
        lambda x: -np.abs(heard.numpy() - x).mean(),
        permutation_type="pairings",
        n_resamples=20_000,
        alternative="greater",
        random_state=np.random.default_rng(0),
    )
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.01)
    assert ours.matched.mean == pytest.approx(theirs.statistic, rel=1e-5)


def test_matching_test_is_exact_for_three():
    # 3! = 6 assignments, the observed one being the unique best: p tends to 1 / 6
    outcome = matching_test(torch.eye(3), shuffles=30_000)
    assert outcome.p == pytest.approx(1 / 6, abs=0.01)
    assert outcome.shuffled == 0
    assert outcome.matched.mean == 1


def test_matching_test_sees_nothing_when_the_prompt_does_not_matter():
    scores = torch.rand(40, 1, generator=torch.Generator().manual_seed(0)).expand(40, 40)
    assert matching_test(scores, shuffles=500).p == 1.0


def test_matching_test_is_uniform_under_the_null():
    generator = torch.Generator().manual_seed(11)
    values = [matching_test(torch.rand(8, 8, generator=generator), shuffles=200, seed=i).p for i in range(200)]
    assert scipy.stats.kstest(values, "uniform").pvalue > 0.01


@pytest.mark.parametrize("scores", [torch.zeros(3, 4), torch.zeros(1, 1), torch.full((3, 3), math.nan)])
def test_matching_test_refuses(scores):
    with pytest.raises(ValueError, match="scores"):
        matching_test(scores)
