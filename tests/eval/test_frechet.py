import numpy as np
import pytest
import scipy.linalg
import torch

from descant.eval import vectors as sets
from descant.eval.collect import Batch, FrechetStream
from descant.eval.frechet import extrapolate, frechet_compare, frechet_distance, frechet_infinity
from descant.eval.gaussian import Gaussian, Statistics, Transport, distance, nuclear_norm, of_moments, of_samples
from descant.eval.metric import load_state, save_state
from descant.eval.recipe import named

RECIPE = named("descant-v1")["frechet"]


def random(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(seed, size):
    return torch.linalg.qr(random(seed, size, size))[0]


def clips(seed, count, windows, dim, shift=0.0, scale=1.0):
    """Windows whose variance lies half between and half within clips."""
    data = (random(seed, count, 1, dim) + random(seed + 1000, count, windows, dim)) * 0.5**0.5 * scale + shift
    return sets.of(data.reshape(-1, dim), torch.arange(count).repeat_interleave(windows))


def sqrtm_distance(x, y):
    """What fadtk 1.1 (`calc_frechet_distance`) and frechet-audio-distance 0.3 do, written out."""
    mean, cov = x.mean(0) - y.mean(0), (np.cov(x, rowvar=False), np.cov(y, rowvar=False))
    root = scipy.linalg.sqrtm(cov[0] @ cov[1])
    # fadtk takes the eigenvalues of the product instead of the trace of its root
    values = np.sqrt(scipy.linalg.eigvals(cov[0] @ cov[1]).astype(complex)).sum().real
    rest = float(mean @ mean + np.trace(cov[0]) + np.trace(cov[1]))
    return rest - 2 * float(np.trace(root).real), rest - 2 * float(values)


@pytest.mark.parametrize("size", [128, 256, 512, 1024])
@pytest.mark.parametrize("arranged", ["opposed", "shuffled"])
def test_closed_form_at_condition_1e10(size, arranged):
    # covariances with common eigenvectors: the distance is the sum of (root a - root b)^2
    basis = rotation(size, size)
    a = torch.logspace(0, -10, size, dtype=torch.float64)
    b = a.flip(0) if arranged == "opposed" else a[torch.randperm(size, generator=torch.Generator().manual_seed(1))]
    shift = random(3, size)
    truth = float((a.sqrt() - b.sqrt()).square().sum() + shift.square().sum())
    one = of_moments(torch.zeros(size), (basis * a) @ basis.T)
    two = of_moments(shift, (basis * b) @ basis.T)
    assert abs(distance(one, two) / truth - 1) <= 1e-12
    assert abs(distance(one, one)) <= 1e-13 * one.trace


def test_scaled_covariances_of_the_same_shape_are_told_apart_to_the_last_digits():
    # the case that costs the fast path its digits: small eigenvalues meet small ones
    basis, a = rotation(5, 96), torch.logspace(0, -10, 96, dtype=torch.float64)
    one, two = (of_moments(torch.zeros(96), (basis * (a * k)) @ basis.T) for k in (1.0, 2.0))
    assert distance(one, two) == pytest.approx(float(a.sum()) * (2**0.5 - 1) ** 2, rel=1e-12)


@pytest.mark.parametrize(("count", "size"), [(2, 40), (20, 40), (39, 40), (40, 40), (41, 40), (400, 40)])
def test_a_set_is_at_distance_zero_from_itself(count, size):
    data = random(7, count, size) * torch.logspace(0, -6, size)
    assert distance(of_samples(data), of_samples(data)) <= 1e-13 * of_samples(data).trace
    back = data[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    assert distance(of_samples(data), of_samples(back)) <= 1e-13 * of_samples(data).trace


@pytest.mark.parametrize(("few", "many"), [(10, 500), (10, 12), (300, 10), (500, 500)])
def test_fewer_samples_than_dimensions_is_the_distance_in_the_subspace(few, many):
    # 8 dimensions turned into 64: the distance cannot change, the covariances become singular
    basis = rotation(9, 64)[:, :8]
    x, y = random(1, few, 8), random(2, many, 8) + 0.3
    flat = distance(of_samples(x), of_samples(y))
    assert distance(of_samples(x @ basis.T), of_samples(y @ basis.T)) == pytest.approx(flat, rel=1e-12)


def test_far_fewer_samples_agree_with_the_eigenvalues_of_the_gram_matrices():
    x, y = random(1, 12, 200).numpy(), random(2, 17, 200).numpy() + 0.1
    a, b = (z - z.mean(0) for z in (x, y))
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum() / np.sqrt(11 * 16)
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + (a**2).sum() / 11 + (b**2).sum() / 16 - 2 * cross
    assert frechet_distance(x, y).value == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("size", [16, 128])
def test_agrees_with_the_formulas_of_other_tools(size):
    x = (random(1, 6 * size, size) @ rotation(2, size)).numpy() * np.linspace(0.5, 2, size)
    y = random(3, 5 * size, size).numpy() + 0.05
    root, eigen = sqrtm_distance(x, y)
    ours = frechet_distance(x, y).value
    assert abs(ours - root) <= 1e-7
    assert abs(ours - eigen) <= 1e-7


def test_nuclear_norm_is_the_sum_of_singular_values_either_way():
    for matrix in (random(1, 30, 50), random(1, 50, 30), random(1, 40, 40), rotation(2, 20)):
        truth = np.linalg.svd(matrix.numpy(), compute_uv=False).sum()
        assert nuclear_norm(matrix) == pytest.approx(truth, rel=1e-13)
    assert nuclear_norm(torch.zeros(0, 5, dtype=torch.float64)) == 0


def test_statistics_merge_to_one_pass_and_survive_a_large_mean():
    data = random(4, 5000, 24) + 1e6
    whole, parts = Statistics(24), Statistics(24)
    whole.update(data)
    for piece in (data[3000:], data[:1], data[1:1], data[1:3000]):
        other = Statistics(24)
        other.update(piece)
        parts.merge(Statistics.from_state(other.state()))
    truth = np.cov((data - 1e6).numpy(), rowvar=False)
    for found in (whole, parts):
        assert found.count == 5000
        assert np.abs(found.covariance.numpy() - truth).max() < 1e-9
        assert found.mean.numpy() == pytest.approx(data.mean(0).numpy(), rel=1e-15)
    with pytest.raises(ValueError, match="at least 2"):
        Statistics(3).covariance  # noqa: B018
    with pytest.raises(ValueError, match="need"):
        whole.update(torch.zeros(2, 3))


def test_the_transport_map_carries_one_gaussian_to_the_other():
    x, y = random(1, 300, 20) * torch.logspace(0, -2, 20), random(2, 400, 20) @ random(3, 20, 20) + 1
    one, two = of_samples(x), of_samples(y)
    move = Transport(one, two)
    assert torch.allclose(move.matrix, move.matrix.T, atol=1e-8)
    moved = of_samples((x - one.mean) @ move.matrix.T + two.mean)
    assert distance(moved, two) <= 1e-10 * two.trace
    assert move.distance == pytest.approx(distance(one, two), rel=1e-12)


@pytest.mark.parametrize("size", [6, 30])
def test_influence_is_the_derivative_of_the_distance(size):
    # mixing a little of a point mass into the first distribution moves the distance by its influence
    x, y = random(1, 200, size), random(2, 300, size) * 1.3 + 0.2
    one, two = of_samples(x), of_samples(y)
    move, eps = Transport(one, two), 1e-6
    cov = one.factor.T @ one.factor
    for point in (x[0], x[1], torch.zeros(size, dtype=torch.float64)):
        step = point - one.mean
        values = []
        for e in (eps, -eps):
            mixed = (1 - e) * cov + e * (1 - e) * torch.outer(step, step)
            values.append(distance(of_moments(one.mean + e * step, mixed), two))
        slope = (values[0] - values[1]) / (2 * eps)
        assert float(move.influence(point[None])) == pytest.approx(slope, rel=1e-5, abs=1e-6)
    group = Statistics(size)
    group.update(x[:50])
    assert move.influence_of(group) == pytest.approx(float(move.influence(x[:50]).sum()), rel=1e-9)


def test_shares_of_clips_add_up_to_the_distance():
    x, y = clips(1, 60, 4, 8, scale=1.2), clips(2, 50, 4, 8)
    result = frechet_distance(x, y)
    # the covariance divides by N - 1, the mean of shares by N
    spread = of_samples(x.data).trace / x.windows
    assert sum(result.per_clip.values()) / 60 == pytest.approx(result.value, abs=2 * spread)
    # the clip that sounds like nothing else has the largest share
    odd = x.data.clone()
    odd[x.clip == 17] += 6
    shares = frechet_distance(sets.Vectors(odd, x.clip, x.names), y).per_clip
    assert max(shares, key=shares.get) == x.names[17]


def test_bias_goes_and_the_interval_holds():
    # population: x ~ N(0, 1), y ~ N(0.1, 1.2^2), so that the distance is known
    size, truth = 12, 12 * (0.1**2 + 0.2**2)
    plain, corrected, held = [], [], 0
    for run in range(80):
        result = frechet_distance(clips(2 * run, 100, 6, size), clips(5001 + 2 * run, 100, 6, size, 0.1, 1.2), splits=4)
        plain.append(result.value - truth)
        corrected.append(result.corrected - truth)
        held += result.low <= truth <= result.high
    assert np.mean(plain) > 0.3 * truth
    assert abs(np.mean(corrected)) < 0.08 * np.mean(plain)
    assert 0.9 <= held / 80 <= 1.0


def test_a_reference_given_as_statistics_is_taken_as_exact():
    size = 10
    exact = Gaussian(torch.full((size,), 0.1, dtype=torch.float64), 1.2 * torch.eye(size, dtype=torch.float64))
    x = clips(1, 200, 5, size)
    known, sampled = frechet_distance(x, exact), frechet_distance(x, clips(3, 200, 5, size, 0.1, 1.2))
    assert known.error < sampled.error
    assert known.value < sampled.value
    assert "exact" in " ".join(known.notes)
    truth = size * (0.1**2 + 0.2**2)
    assert known.low < truth < known.high


def test_results_do_not_depend_on_order_or_seed_of_clips():
    x, y = clips(1, 40, 5, 8), clips(2, 30, 5, 8, 0.2)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = x.take(order)
    assert shuffled.names != x.names
    assert frechet_distance(shuffled, y) == frechet_distance(x, y)
    assert frechet_distance(x, y, seed=1).value == frechet_distance(x, y, seed=2).value


def test_paired_comparison_is_sharper_than_two_intervals():
    reference = clips(1, 200, 4, 10)
    base = clips(3, 200, 4, 10, 0.3)
    # the second system: the same clips, a little further off
    worse = sets.Vectors(base.data + 0.04, base.clip, base.names)
    one, two = frechet_distance(base, reference), frechet_distance(worse, reference)
    both = frechet_compare(base, worse, reference)
    assert both.value == pytest.approx(one.value - two.value, rel=1e-9)
    assert both.high < 0
    assert both.error < 0.3 * one.error
    assert both.extra["p"] < 0.001
    assert frechet_compare(worse, base, reference).low > 0
    same = frechet_compare(base, base, reference)
    assert same.value == 0 == same.corrected
    assert same.extra["p"] == 1
    other = sets.Vectors(base.data, base.clip, tuple(f"x{name}" for name in base.names))
    assert "different clips" in frechet_compare(base, other, reference).reason


def test_extrapolation_finds_the_intercept():
    assert extrapolate([8, 4], [1 + 3 / 8, 1 + 3 / 4]) == pytest.approx(1)
    assert extrapolate([15, 7, 3], [2 + 3 / n - 5 / n**2 for n in (15, 7, 3)]) == pytest.approx(2)
    reference = Gaussian(torch.zeros(12, dtype=torch.float64), torch.eye(12, dtype=torch.float64))
    x = clips(1, 400, 5, 12, scale=1.3)
    curve, result = frechet_infinity(x, reference), frechet_distance(x, reference)
    truth = 12 * 0.3**2
    assert curve.slope > 0 and curve.r2 > 0.8
    assert curve.sizes[0] == 100 and curve.sizes[-1] == 400
    assert curve.distances[-1] == pytest.approx(result.value, rel=1e-12)
    assert curve.intercept < result.value
    assert curve.intercept == pytest.approx(truth, abs=2 * result.error)
    assert curve.intercept == pytest.approx(result.corrected, abs=result.error)
    with pytest.raises(ValueError, match="too few"):
        frechet_infinity(clips(1, 15, 5, 12), reference)


def test_stream_agrees_with_clips_and_resumes(tmp_path):
    x, y = clips(1, 400, 4, 10, 0.2, 1.1), clips(2, 400, 4, 10)
    full = FrechetStream(10, RECIPE)
    halves = [FrechetStream(10, RECIPE) for _ in range(2)]
    for start in range(0, 400, 50):
        for side, source in (("generated", x), ("reference", y)):
            batch = Batch(side, source.take(torch.arange(start, start + 50)))
            full.update(batch)
            halves[start % 100 == 0].update(batch)
    save_state(halves[1], tmp_path / "a.safetensors")
    resumed = FrechetStream(10, RECIPE)
    load_state(resumed, tmp_path / "a.safetensors")
    resumed.merge(halves[0].state())
    exact, one, two = frechet_distance(x, y, RECIPE), full.result(), resumed.result()
    assert one.value == pytest.approx(exact.value, rel=1e-12)
    assert two.value == pytest.approx(one.value, rel=1e-12)
    assert two.corrected == pytest.approx(one.corrected, rel=1e-9)
    assert one.corrected == pytest.approx(exact.corrected, abs=exact.error)
    assert 0.4 < one.error / exact.error < 2.5
    assert (one.clips, one.windows, one.recipe) == (400, 1600, exact.recipe)
    # what is kept does not grow with what was seen
    assert sum(value.numel() for value in full.state().values()) == 2 * 16 * (10 * 10 + 10 + 2)


def test_stream_says_what_it_lacks():
    stream = FrechetStream(4, RECIPE)
    assert "no clip" in stream.result().reason
    stream.update(Batch("generated", clips(1, 2, 3, 4)))
    stream.update(Batch("reference", clips(1, 2, 3, 4)))
    result = stream.result()
    assert result.value == pytest.approx(0, abs=1e-12)
    assert result.corrected is None and result.low is None
    with pytest.raises(ValueError, match="NaN"):
        stream.update(Batch("generated", sets.of(torch.full((1, 4), torch.nan))))
    with pytest.raises(ValueError, match="side"):
        stream.update(Batch("text", clips(1, 2, 3, 4)))
    with pytest.raises(ValueError, match="merge"):
        stream.merge(FrechetStream(5, RECIPE).state())
    with pytest.raises(ValueError, match="multiple of 4"):
        FrechetStream(4, RECIPE, groups=6)


@pytest.mark.parametrize(("generated", "words"), [
    (torch.zeros(0, 4), "generated set holds no clip"),
    (torch.ones(1, 4), "generated set holds a single window"),
    (torch.full((9, 4), torch.nan), "NaN or infinity in 9 clips"),
])  # fmt: skip
def test_what_cannot_be_computed_has_a_reason(generated, words):
    result = frechet_distance(generated, random(1, 30, 4), RECIPE)
    assert words in result.reason
    assert result.value is None and result.corrected is None and result.recipe == RECIPE.id
    assert "reference" in frechet_distance(random(1, 30, 4), generated).reason


def test_one_clip_silent_sets_and_few_clips_are_scored_with_what_is_known():
    reference = clips(1, 100, 5, 6)
    single = frechet_distance(clips(2, 1, 5, 6), reference)
    assert single.value > 0 and single.error is None and single.corrected is None
    assert "no interval" in " ".join(single.notes)
    few = frechet_distance(clips(2, 5, 5, 6), reference)
    assert few.low < few.value < few.high and few.corrected is None
    # silence: every window the same vector
    silent = frechet_distance(torch.zeros(50, 6), reference)
    assert silent.value == pytest.approx(
        float(of_samples(reference.data).trace + reference.data.mean(0).square().sum())
    )
    assert frechet_distance(torch.zeros(50, 6), torch.zeros(40, 6)).value == 0


def test_refusals():
    with pytest.raises(ValueError, match="dimensions"):
        frechet_distance(random(1, 30, 4), random(1, 30, 5))
    with pytest.raises(ValueError, match="symmetric"):
        of_moments(torch.zeros(2), torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="negative"):
        of_moments(torch.zeros(2), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    with pytest.raises(ValueError, match="NaN"):
        of_moments(torch.zeros(2), torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="statistics"):
        frechet_distance(of_samples(random(1, 30, 4)), random(1, 30, 4))
    with pytest.raises(ValueError, match="splits"):
        frechet_distance(random(1, 30, 4), random(2, 30, 4), splits=0)
