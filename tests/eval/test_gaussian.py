import numpy as np
import pytest
import torch

from descant.eval.gaussian import Gaussian, distance, nuclear_norm, of_moments, of_samples


def random(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(seed, size):
    return torch.linalg.qr(random(seed, size, size))[0]


def covariance(seed, spread, axes):
    """Of 4 d samples whose standard deviations along ``axes`` are ``spread``."""
    return torch.cov((random(seed, 4 * spread.numel(), spread.numel()) * spread @ axes).T)


def by_singular_values(one, two):
    """The distance of centred Gaussians from numpy's Cholesky factors and singular values."""
    left, right = np.linalg.cholesky(one.numpy()), np.linalg.cholesky(two.numpy())
    overlap = np.linalg.svd(left.T @ right, compute_uv=False).sum()
    return float(one.trace() + two.trace()) - 2 * overlap


def ours(one, two):
    mean = torch.zeros(one.shape[0])
    return distance(of_moments(mean, one), of_moments(mean, two))


def gap(size):
    """Half of the variances large, half 1e-10 of them."""
    return torch.where(torch.arange(size) < size // 2, 1.0, 1e-5).double()


def pairs(size):
    """Axes that mix each dimension with its neighbour: of every two, sum and difference."""
    block = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    return torch.kron(torch.eye(size // 2, dtype=torch.float64), block)


SIZE = 96
SLOPE = [torch.logspace(0, -k, SIZE, dtype=torch.float64) for k in range(6)]
EYE, TURN, OTHER = torch.eye(SIZE, dtype=torch.float64), rotation(1, SIZE), rotation(2, SIZE)
ALTERNATE = SLOPE[1] * torch.where(torch.arange(SIZE) % 2 == 0, 1e-4, 1.0)
LEAN = torch.diag(torch.tensor(0.99499).double() ** torch.arange(SIZE)) @ (
    EYE - 0.1006 * torch.triu(torch.ones(SIZE, SIZE, dtype=torch.float64), 1)
)


@pytest.mark.parametrize(("one", "two"), [
    *[((SLOPE[k], TURN), (SLOPE[k], TURN)) for k in range(6)],
    *[((SLOPE[k], TURN), (SLOPE[k], OTHER)) for k in (2, 4, 5)],
    ((SLOPE[4], TURN), (SLOPE[4].flip(0), TURN)),
    ((SLOPE[5].flip(0), EYE), (SLOPE[5].flip(0), EYE)),
    ((SLOPE[5].flip(0), EYE), (SLOPE[4], TURN)),
    ((gap(SIZE), TURN), (gap(SIZE), TURN)),
    ((gap(SIZE), EYE), (gap(SIZE).flip(0), TURN)),
    ((gap(SIZE), pairs(SIZE)), (gap(SIZE), pairs(SIZE))),
    ((gap(SIZE).flip(0), pairs(SIZE)), (SLOPE[4], TURN)),
    ((ALTERNATE, EYE), (ALTERNATE, EYE)),
    ((SLOPE[0], LEAN), (SLOPE[0], LEAN)),
])  # fmt: skip
def test_whatever_the_variances_the_fast_path_costs_no_digits(one, two):
    # slopes are its home; gaps, mixed pairs and Kahan's leaning matrix are where eigenvalues of squares lose theirs
    first, second = covariance(3, *one), covariance(4, *two)
    scale = float(first.trace() + second.trace())
    assert abs(ours(first, second) - by_singular_values(first, second)) <= 2e-13 * scale
    assert ours(first, first) <= 1e-13 * float(first.trace())


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 130, 200])
def test_factors_are_of_the_covariance_at_any_size(size):
    spread = torch.logspace(-2, 0, size, dtype=torch.float64)
    for axes in (torch.eye(size, dtype=torch.float64), rotation(7, size)):
        table = covariance(5, spread, axes) if size > 1 else torch.full((1, 1), 2.0, dtype=torch.float64)
        made = of_moments(torch.zeros(size), table)
        assert float((made.factor.T @ made.factor - table).abs().max()) <= 1e-14 * float(table.abs().max()) * 4
        assert made.volume == pytest.approx(float(torch.linalg.slogdet(table)[1]) / 2, rel=1e-9, abs=1e-9)
        assert not made.triangular or bool((made.factor.tril(-1) == 0).all())
        assert made.trace == pytest.approx(float(table.trace()), rel=1e-13)


def test_a_wrong_determinant_is_noticed_and_costs_only_time():
    matrix = (SLOPE[4] * TURN) @ (SLOPE[4] * OTHER).T
    truth = np.linalg.svd(matrix.numpy(), compute_uv=False).sum()
    right = float(torch.linalg.slogdet(matrix)[1])
    for volume in (None, right, right + 1, right - 1e-3):
        assert nuclear_norm(matrix, volume) == pytest.approx(truth, rel=1e-12)


def test_singular_covariances_have_a_factor_of_their_rank():
    flat = (rotation(3, 40)[:, :7] * torch.logspace(0, -3, 7, dtype=torch.float64)).T
    made = of_moments(torch.zeros(40), flat.T @ flat)
    assert made.factor.shape == (7, 40) and made.volume is None
    assert distance(made, made) <= 1e-13 * made.trace
    assert distance(made, of_moments(torch.zeros(40), torch.zeros(40, 40))) == pytest.approx(made.trace, rel=1e-13)
    # a constant dimension beside others
    data = random(1, 50, 6)
    data[:, 2] = 3.0
    assert distance(of_samples(data), of_samples(data)) <= 1e-13 * of_samples(data).trace


def test_what_is_no_covariance_is_refused():
    table = torch.eye(5, dtype=torch.float64)
    for spoilt, words in (
        (table + torch.triu(torch.full((5, 5), 0.1), 1), "not symmetric"),
        (table.index_fill(0, torch.tensor([2]), torch.nan), "NaN"),
        (table * torch.tensor([1, 1, torch.inf, 1, 1]), "infinity"),
        (table * torch.tensor([1, 1, -1, 1, 1]), "negative eigenvalue"),
        (torch.ones(5, 5) - 2 * table, "negative eigenvalue"),
        (table[:4], r"\[D, D\]"),
    ):
        with pytest.raises(ValueError, match=words):
            of_moments(torch.zeros(5), spoilt)
    with pytest.raises(ValueError, match="dimensions"):
        distance(of_moments(torch.zeros(5), table), Gaussian(torch.zeros(4), torch.eye(4)))
