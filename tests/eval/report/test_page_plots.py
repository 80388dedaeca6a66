"""The drawings of the report's page, read back from the SVG."""

from __future__ import annotations

import math
import xml.etree.ElementTree as tree

import numpy as np
import pytest

from descant.eval.report import plots
from descant.eval.report.page_html import Raw


def read(drawing: Raw) -> tree.Element:
    """An SVG, which must also be well-formed XML."""
    return tree.fromstring(drawing)


def of(root: tree.Element, kind: str) -> list[tree.Element]:
    return [item for item in root.iter() if kind in (item.get("class") or "").split()]


def test_ticks_are_round_and_within() -> None:
    for low, high in ((0, 1), (-3.7, 12.2), (1e-7, 3e-7), (990, 1010), (-0.02, 0.02)):
        found = plots.ticks(low, high)
        assert 3 <= len(found) <= 9 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
        steps = np.diff(found)
        assert np.allclose(steps, steps[0], rtol=1e-6)
        lead = steps[0] / 10 ** math.floor(math.log10(steps[0] * 1.0000001))
        assert min(abs(lead - k) for k in (1, 2, 5, 10)) < 1e-6


def test_a_scale_is_never_empty() -> None:
    for values in ([], [3.0], [0.0, 0.0], [None], [1.0, None, float("nan")]):
        low, high = plots.domain(values)
        assert math.isfinite(low) and high > low
    assert plots.domain([2.0, 3.0], zero=True)[0] < 0 < plots.domain([-2.0], zero=True)[1]


def test_an_interval_lies_where_its_figures_are() -> None:
    span = plots.Span(value=5.0, low=4.0, high=7.0, plain=8.0, marks={"chance": 1.0})
    root = read(plots.interval("A & B", span, (0.0, 10.0)))
    scale = plots.Scale(low=0, high=10, start=6, end=plots.SPAN - 6)
    assert [float(item.get("cx", 0)) for item in of(root, "dot")] == [scale(5.0)]
    assert [float(item.get("cx", 0)) for item in of(root, "hollow")] == [scale(8.0)]
    ends = {float(item.get(name, 0)) for item in of(root, "whisker") for name in ("x1", "x2")}
    assert ends == {scale(4.0), scale(7.0)}
    assert [float(item.get("x1", 0)) for item in of(root, "mark")] == [scale(1.0)]
    said = root.get("aria-label") or ""
    assert all(words in said for words in ("A & B", "5", "interval from 4 to 7", "chance 1", "not corrected 8"))


def test_bins_count_everything_once() -> None:
    rng = np.random.default_rng(0)
    for values in (
        rng.normal(size=500),
        rng.integers(0, 2, 50).astype(float),
        np.array([3.0, 3.0]),
        np.array([1e-9, 1.0]),
    ):
        found = plots.bins(list(values))
        assert sum(count for _, _, count in found) == len(values) and len(found) <= 40
        edges = np.array([found[0][0], *(high for _, high, _ in found)])
        assert (np.diff(edges) > 0).all() and edges[0] <= values.min() and edges[-1] >= values.max()
        if len(found) > 1:
            assert [count for _, _, count in found] == np.histogram(values, edges)[0].tolist()


def test_a_histogram_draws_its_bins_and_its_median() -> None:
    values = [0.0, 0.1, 0.2, 0.2, 1.0]
    root = read(plots.histogram("spread", values, "score"))
    bars = of(root, "bar")
    assert len(bars) == len([count for _, _, count in plots.bins(values) if count])
    heights = [float(bar.get("height", 0)) for bar in bars]
    counts = [count for _, _, count in plots.bins(values) if count]
    assert np.allclose(np.array(heights) / heights[0], np.array(counts) / counts[0], rtol=0.01)
    x = plots.Scale(low=0.0, high=1.0, start=54, end=plots.WIDTH - 14)
    assert float(of(root, "median")[0].get("x1", 0)) == pytest.approx(x(0.2))
    with pytest.raises(ValueError, match="no values"):
        plots.histogram("none", [], "score")


def test_a_fit_is_drawn_to_its_intercept() -> None:
    points = plots.Points(x=(0.25, 0.125, 0.0625), y=(11.0, 9.0, 8.0), error=(0.5, 0.3, 0.0), line=(7.0, 16.0))
    root = read(plots.curve("FAD", points, "1 / clips", "distance", zero=True))
    dots, fit, hollow = of(root, "dot"), of(root, "fit")[0], of(root, "hollow")[0]
    assert len(dots) == 3 and len(of(root, "whisker")) == 2
    assert float(hollow.get("cx", 0)) == float(fit.get("x1", 0)) and float(hollow.get("cy", 0)) == float(
        fit.get("y1", 0)
    )
    # these points lie on the line: so do their dots
    x1, y1, x2, y2 = (float(fit.get(name, 0)) for name in ("x1", "y1", "x2", "y2"))
    for dot in dots:
        x, y = float(dot.get("cx", 0)), float(dot.get("cy", 0))
        assert y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.1)
    assert "meets 0 at 7" in (root.get("aria-label") or "")
    with pytest.raises(ValueError, match="2 places, 1 figures"):
        plots.curve("FAD", plots.Points(x=(1, 2), y=(1,)), "x", "y")


def test_one_point_is_a_curve() -> None:
    assert len(of(read(plots.curve("one", plots.Points(x=(1.0,), y=(2.0,)), "x", "y")), "dot")) == 1
