import numpy as np
import pytest
import scipy.spatial
import torch

from descant.eval import vectors as sets
from descant.eval.coverage import NAMES, neighbours


def points(seed, count, dim=4, scale=1.0, shift=0.0):
    return scale * torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).double() + shift


def test_agrees_with_the_definitions_on_a_tree():
    x, y, k = points(1, 80, scale=1.5), points(2, 60), 3
    tree_x, tree_y = scipy.spatial.cKDTree(x), scipy.spatial.cKDTree(y)
    # the first neighbour is the point itself
    ball_x, ball_y = tree_x.query(x, k + 1)[0][:, -1], tree_y.query(y, k + 1)[0][:, -1]
    apart = scipy.spatial.distance.cdist(x, y)
    truth = {
        "precision": (apart <= ball_y).any(1).mean(),
        "recall": (apart <= ball_x[:, None]).any(0).mean(),
        "density": (apart <= ball_y).sum(1).mean() / k,
        "coverage": (apart.min(0) <= ball_y).mean(),
    }
    found = neighbours(x, y, k)
    assert {name: found[name].value for name in NAMES} == pytest.approx(truth)
    assert found["recall"].extra == {"k": 3, "reference_clips": 60}
    assert found["precision"].low <= found["precision"].value <= found["precision"].high


def test_fidelity_and_diversity_are_told_apart():
    y = points(2, 300)
    narrow, wide = neighbours(points(1, 300, scale=0.3), y), neighbours(points(1, 300, scale=4.0), y)
    assert narrow["precision"].value > 0.95 > 0.6 > narrow["coverage"].value
    assert wide["precision"].value < 0.5
    same = neighbours(points(3, 300), y)
    assert min(same[name].value for name in ("precision", "recall", "coverage")) > 0.85
    assert same["density"].value == pytest.approx(1, abs=0.15)
    assert neighbours(y, y)["coverage"].value == 1


def test_a_clip_is_one_point():
    x, y = points(1, 50), points(2, 50)
    # four windows around each clip's mean
    spread = torch.randn(50, 4, 4, generator=torch.Generator().manual_seed(3)).double()
    spread -= spread.mean(dim=1, keepdim=True)
    windows = sets.of((x[:, None] + spread).reshape(-1, 4), torch.arange(50).repeat_interleave(4))
    for name in NAMES:
        assert neighbours(windows, y)[name].value == pytest.approx(neighbours(x, y)[name].value)


def test_blocks_do_not_show():
    x, y = points(1, 700), points(2, 600)
    apart = scipy.spatial.distance.cdist(x, y)
    ball = np.sort(scipy.spatial.distance.cdist(y, y), axis=1)[:, 5]
    assert neighbours(x, y)["coverage"].value == pytest.approx((apart.min(0) <= ball).mean())


@pytest.mark.parametrize("bad", [torch.zeros(0, 4), torch.zeros(5, 4), torch.full((9, 4), torch.nan)])
def test_what_cannot_be_computed_has_a_reason(bad):
    for found in (neighbours(bad, points(1, 30)), neighbours(points(1, 30), bad)):
        assert set(found) == set(NAMES)
        assert all(item.value is None and item.reason for item in found.values())
    with pytest.raises(ValueError, match="neighbour"):
        neighbours(points(1, 30), points(2, 30), k=0)
    with pytest.raises(ValueError, match="dimensions"):
        neighbours(points(1, 30), points(2, 30, dim=3))
