"""Drawings as SVG, by hand: intervals, histograms and curves, each with a title and a description for those who listen.

Colours come from the page's style by class, so that a drawing follows dark and light. Widths are those of a telephone,
so that letters keep their size where a drawing is not enlarged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .page_html import Raw, join, number, tag

#: Size of histograms and curves, and of the interval beside a figure.
WIDTH, HEIGHT = 360, 220
SPAN, ROW = 220, 34
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 12, 40


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear map from figures to places in a drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a figure."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, about: int = 5) -> list[float]:
        """Round figures within the scale, about this many."""
        return ticks(self.low, self.high, about)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two figures, about this many."""
    step = 10 ** math.floor(math.log10((high - low) / max(1, about)))
    step = min((step * k for k in (1, 2, 5, 10)), key=lambda s: abs((high - low) / s - about))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, last + 1)]


def domain(values: Iterable[float | None], zero: bool = False, room: float = 0.06) -> tuple[float, float]:
    """Ends of a scale that holds all values, with some room around; never empty."""
    known = [value for value in values if value is not None and math.isfinite(value)] + ([0.0] if zero else [])
    low, high = min(known, default=0.0), max(known, default=1.0)
    if low == high == 0.0:
        high = 1.0  # nothing but zeros: as if of shares
    width = (high - low) or abs(high) * 0.2
    return low - room * width, high + room * width


def short(value: float) -> str:
    """A figure on a scale: no zeros behind that say nothing."""
    text = number(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _svg(width: float, height: float, title: str, text: str, *parts: object, kind: str = "") -> Raw:
    return tag(
        "svg", tag("title", title), tag("desc", text), *parts,
        viewBox=f"0 0 {width} {height}", width=width, height=height, role="img", aria_label=f"{title}. {text}",
        class_=f"plot {kind}".strip(),
    )  # fmt: skip


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Raw:
    """A straight stroke of a class of the style."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def label(x: float, y: float, text: object, anchor: str = "middle", kind: str = "tick") -> Raw:
    """Letters at a place."""
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A figure with its interval, and the figures that are marked beside it: {name: value}."""

    value: float
    low: float | None = None
    high: float | None = None
    plain: float | None = None
    """The figure before its correction, drawn hollow."""
    marks: Mapping[str, float] | None = None

    @property
    def all(self) -> list[float | None]:
        """Everything that must fit the scale."""
        return [self.value, self.low, self.high, self.plain, *(self.marks or {}).values()]


def interval(title: str, span: Span, ends: tuple[float, float], kind: str = "") -> Raw:
    """A dot with whiskers on a scale from ``ends[0]`` to ``ends[1]``, zero and marks as upright strokes."""
    scale = Scale(low=ends[0], high=ends[1], start=6, end=SPAN - 6)
    middle = 13
    parts: list[Raw] = [line(6, middle, SPAN - 6, middle, "rail")]
    if "signed" in kind.split():
        parts.append(line(scale(0), 2, scale(0), middle + 9, "axis"))
    for tick in _few(scale.ticks(4)):
        parts += [line(scale(tick), middle - 3, scale(tick), middle + 3, "rail")]
        parts += [label(_kept(scale(tick), short(tick)), ROW - 2, short(tick))]
    said = [f"{number(span.value)}"]
    for name, value in (span.marks or {}).items():
        parts.append(
            tag("g", tag("title", f"{name}: {number(value)}"), line(scale(value), 3, scale(value), 23, "mark"))
        )
        said.append(f"{name} {number(value)}")
    if span.plain is not None:
        parts.append(tag("circle", tag("title", f"not corrected: {number(span.plain)}"), cx=scale(span.plain),
                         cy=middle, r=3.5, class_="hollow"))  # fmt: skip
        said.append(f"not corrected {number(span.plain)}")
    if span.low is not None and span.high is not None:
        low, high = scale(span.low), scale(span.high)
        parts += [line(low, middle, high, middle, "whisker")]
        parts += [line(x, middle - 5, x, middle + 5, "whisker") for x in (low, high)]
        said.append(f"interval from {number(span.low)} to {number(span.high)}")
    parts.append(tag("circle", cx=scale(span.value), cy=middle, r=4.5, class_="dot"))
    return _svg(SPAN, ROW, title, ", ".join(said), *parts, kind=f"interval {kind}".strip())


def _few(values: list[float]) -> list[float]:
    return values if len(values) <= 5 else values[:: math.ceil(len(values) / 5)]


def _kept(x: float, text: str) -> float:
    """A place at which letters of about 6.4 each stay within the drawing."""
    half = 3.2 * len(text)
    return min(max(x, half), SPAN - half)


def _axes(x: Scale, y: Scale, x_label: str, y_label: str, counts: bool = False) -> list[Raw]:
    bottom = HEIGHT - _BOTTOM
    parts = [line(_LEFT, bottom, WIDTH - _RIGHT, bottom, "axis")]
    for tick in x.ticks(5):
        parts += [line(x(tick), bottom, x(tick), bottom + 4, "axis"), label(x(tick), bottom + 16, short(tick))]
    for tick in y.ticks(4):
        if counts and tick != int(tick):
            continue
        parts += [line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid")]
        parts += [label(_LEFT - 6, y(tick) + 4, short(tick), "end")]
    parts.append(label((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, x_label, kind="name"))
    middle = (_TOP + bottom) / 2
    parts.append(tag("text", y_label, x=0, y=0, text_anchor="middle", class_="name",
                     transform=f"translate(11 {middle}) rotate(-90)"))  # fmt: skip
    return parts


def bins(values: Sequence[float], most: int = 40) -> list[tuple[float, float, int]]:
    """(from, to, count) of equal bins: Freedman and Diaconis' width (1981), between 5 and ``most`` of them."""
    data = sorted(values)
    low, high = data[0], data[-1]
    if high - low <= 1e-12 * max(1.0, abs(low)):
        half = abs(low) * 0.05 or 0.5
        return [(low - half, low + half, len(data))]
    spread = _quantile(data, 0.75) - _quantile(data, 0.25)
    width = 2 * spread / len(data) ** (1 / 3)
    count = most if width <= 0 else min(most, max(5, math.ceil((high - low) / width)))
    edges = [low + (high - low) * k / count for k in range(count + 1)]
    found = [0] * count
    for value in data:
        found[min(count - 1, int((value - low) / (high - low) * count))] += 1
    return list(zip(edges[:-1], edges[1:], found, strict=True))


def _quantile(data: Sequence[float], share: float) -> float:
    place = share * (len(data) - 1)
    below = math.floor(place)
    above = min(below + 1, len(data) - 1)
    return data[below] + (place - below) * (data[above] - data[below])


def histogram(title: str, values: Sequence[float], x_label: str) -> Raw:
    """How the figures of clips are spread, with their median as a stroke."""
    if not values:
        raise ValueError(f"{title}: no values to draw; leave the histogram out")
    found = bins(values)
    middle = _quantile(sorted(values), 0.5)
    x = Scale(low=found[0][0], high=found[-1][1], start=_LEFT, end=WIDTH - _RIGHT)
    y = Scale(low=0, high=max(count for _, _, count in found) * 1.08, start=HEIGHT - _BOTTOM, end=_TOP)
    bars = []
    for low, high, count in found:
        if count:
            words = f"{number(low)} to {number(high)}: {count} clip" + ("s" if count > 1 else "")
            width = max(1.0, round(x(high) - x(low) - 1, 2))
            bars.append(tag("rect", tag("title", words), x=x(low) + 0.5, y=y(count), width=width,
                            height=round(HEIGHT - _BOTTOM - y(count), 2), class_="bar"))  # fmt: skip
    text = (
        f"{len(values)} clips from {number(min(values))} to {number(max(values))}, half of them below {number(middle)}"
    )
    return _svg(
        WIDTH, HEIGHT, title, text, *_axes(x, y, x_label, "clips", counts=True), *bars,
        line(x(middle), _TOP, x(middle), HEIGHT - _BOTTOM, "median"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Points:
    """A curve: places, figures, their standard errors (or none), and the line ``intercept + slope x`` (or none)."""

    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] = ()
    line: tuple[float, float] | None = None
    joined: bool = False
    """Whether neighbouring points are joined."""


def curve(title: str, points: Points, x_label: str, y_label: str, zero: bool = False) -> Raw:
    """Points with error bars and the line through them; with ``zero`` the scale begins at x = 0."""
    if not points.x or len(points.x) != len(points.y) or len(points.error) not in (0, len(points.x)):
        raise ValueError(
            f"{title}: {len(points.x)} places, {len(points.y)} figures, {len(points.error)} errors: need as many of "
            "each, at least one"
        )
    errors = points.error or [0.0] * len(points.x)
    reach = [v + s * e for v, e in zip(points.y, errors, strict=True) for s in (-1, 1)]
    if points.line and zero:
        reach.append(points.line[0])
    left, right = domain(points.x, zero=zero)
    x = Scale(low=0.0 if zero else left, high=right, start=_LEFT, end=WIDTH - _RIGHT)
    y = Scale(low=domain(reach)[0], high=domain(reach)[1], start=HEIGHT - _BOTTOM, end=_TOP)
    parts = _axes(x, y, x_label, y_label)
    said = [f"{len(points.x)} points from {number(points.y[0])} to {number(points.y[-1])}"]
    if points.line:
        intercept, slope = points.line
        first, last = x.low if zero else min(points.x), max(points.x)
        parts.append(line(x(first), y(intercept + slope * first), x(last), y(intercept + slope * last), "fit"))
        if zero:
            parts.append(tag("circle", tag("title", f"at 0: {number(intercept)}"), cx=x(0), cy=y(intercept), r=4.5,
                             class_="hollow"))  # fmt: skip
            said.append(f"the line meets 0 at {number(intercept)}")
    if points.joined:
        path = " ".join(f"{x(a)},{y(b)}" for a, b in sorted(zip(points.x, points.y, strict=True)))
        parts.append(tag("polyline", points=path, class_="path"))
    for a, b, e in zip(points.x, points.y, errors, strict=True):
        if e > 0:
            parts.append(line(x(a), y(b - e), x(a), y(b + e), "whisker"))
        words = f"{number(a)}: {number(b)}" + (f" ± {number(e, 2)}" if e > 0 else "")
        parts.append(tag("circle", tag("title", words), cx=x(a), cy=y(b), r=4, class_="dot"))
    return _svg(WIDTH, HEIGHT, title, ", ".join(said), *parts)


def rows_table(head: Sequence[str], rows: Iterable[Sequence[object]], summary: str) -> Raw:
    """The figures of a drawing as a table that can be opened below it."""
    top = tag("tr", *(tag("th", name, scope="col") for name in head))
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    table = tag("table", tag("thead", top), tag("tbody", join(body)), class_="small")
    return tag("details", tag("summary", summary), table, class_="figures")
