"""Low rank and sparse: recovery, the method of the paper written plainly, and sound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from descant.gen.separation.rpca import RPCA, RpcaSettings, robust_pca


def problem(rows: int = 120, columns: int = 90, rank: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(seed)
    low = dice.standard_normal((rows, rank)) @ dice.standard_normal((rank, columns))
    sparse = np.where(dice.random((rows, columns)) < 0.05, dice.uniform(-9, 9, (rows, columns)), 0.0)
    return low, sparse


@pytest.mark.parametrize("shape", [(120, 90), (60, 150), (200, 200)])
def test_a_sum_is_taken_apart(shape: tuple[int, int]) -> None:
    # Candes et al. 2011, theorem 1.1: with this weight and no other knowledge
    low, sparse = problem(*shape)
    made = robust_pca(torch.from_numpy(low + sparse), RpcaSettings(tolerance=1e-7))
    assert np.linalg.norm(made[0].numpy() - low) < 2e-3 * np.linalg.norm(low)
    assert np.linalg.norm(made[1].numpy() - sparse) < 2e-3 * np.linalg.norm(sparse)


def plain(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 5 of Lin, Chen and Ma with whole decompositions, ``count`` iterations."""
    weight = 1 / math.sqrt(max(matrix.shape))
    top = np.linalg.norm(matrix, 2)
    dual = matrix / max(top, np.abs(matrix).max() / weight)
    step, sparse = 1.25 / top, np.zeros_like(matrix)
    limit = step * 1e7
    for _ in range(count):
        left, values, right = np.linalg.svd(matrix - sparse + dual / step, full_matrices=False)
        low = (left * np.maximum(values - 1 / step, 0)) @ right
        rest = matrix - low + dual / step
        sparse = np.sign(rest) * np.maximum(np.abs(rest) - weight / step, 0)
        dual = dual + step * (matrix - low - sparse)
        step = min(1.5 * step, limit)
    return low, sparse


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("rank", [4, 40])
def test_projections_give_what_whole_decompositions_give(exact: bool, rank: int) -> None:
    low, sparse = problem(150, 110, rank)
    matrix = low + sparse
    settings = RpcaSettings(tolerance=1e-30, iterations=12, exact=exact)
    for one, other in zip(robust_pca(torch.from_numpy(matrix), settings), plain(matrix, 12), strict=True):
        # random projections see the last singular values a little wrong, and later iterations forgive it
        assert np.linalg.norm(one.numpy() - other) < (1e-9 if exact else 0.02) * np.linalg.norm(matrix)


def test_the_seed_decides() -> None:
    matrix = torch.from_numpy(sum(problem()))
    first, second = robust_pca(matrix), robust_pca(matrix.clone())
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_nothing_is_nothing() -> None:
    low, sparse = robust_pca(torch.zeros(5, 4, dtype=torch.float64))
    assert not low.any() and not sparse.any()


def test_a_gliding_tone_leaves_a_loop() -> None:
    rate, period = 44100, 22 * 1024  # whole hops, so that each repetition has the same frames
    dice = torch.Generator().manual_seed(0)
    time = torch.arange(12 * period) / rate
    bar = torch.randn(period, generator=dice) * torch.exp(-(torch.arange(period) % (period // 2)) / 3000.0)
    loop = 0.2 * bar.repeat(12)
    front = 0.3 * torch.sin(2 * math.pi * (900 * time + 60 * time.square()))
    made = RPCA().separate((loop + front)[None], rate)
    for stem, true in (("background", loop), ("foreground", front)):
        assert float((made[stem][0] - true).square().sum()) < 0.1 * float(true.square().sum())
    assert made.residual.abs().max() <= 1e-6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        robust_pca(torch.rand(4, 4))
    with pytest.raises(ValueError, match="iterations 1 or more"):
        RpcaSettings(iterations=0)
