"""The parts of a report's page that are read: verdict, what was scored, self-check, figures, drawings, recipes."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping

from ..metric import Result
from ..recipe import Recipe
from . import names, plots
from .page_clips import clip_label
from .page_html import Raw, counted, duration, join, number, tag, titled
from .results import CheckGroup, Plot, Report, Side

#: Extra figures that are marked beside a value, by the end of their name, and what the mark says.
_MARKS = {"chance": "chance", "shuffled": "shuffled captions"}
#: Distances in units of the judge: those of two judges say nothing beside each other.
_UNITS = ("frechet", "frechet-clap", "kernel")


def verdict(report: Report) -> Raw:
    """Whether the figures can be trusted, in a sentence."""
    check = report.self_check
    broken = [group for group in check.groups if not group.ok]
    if not report.valid:
        judges = ", ".join(group.judge for group in broken)
        kind, sign, title = "bad", "✕", "Not valid"
        text = (
            f"The self-check failed for {judges}: it does not rank known damage as it should. Do not use its figures."
        )
    elif not any(group.rows for group in check.groups):
        kind, sign, title = "unsure", "?", "Not checked"
        text = check.reason or "No self-check was run, so nothing says whether the judges can be trusted."
    else:
        kind, sign, title = "good", "✓", "Valid"
        count = sum(1 for group in check.groups if group.rows)
        text = f"{counted(count, 'judge')} ranked known damage as expected. See the self-check below."
    said = [tag("p", text)]
    if check.reason and check.reason != text:
        said.append(tag("p", check.reason, class_="quiet"))
    mark = tag("span", sign, class_="sign", aria_hidden="true")
    return tag("div", mark, tag("div", tag("strong", title), *said), class_=f"verdict {kind}", role="status")


def scored(report: Report) -> Raw:
    """The sets of clips, what was given beside them, and how to do it again."""
    sides = [_side("Generated", report.generated)]
    if report.reference is not None:
        sides.append(_side("Reference", report.reference))
    given = [tag("li", tag("b", name), f": {_brief(about)}") for name, about in report.inputs.items() if about]
    notes = [tag("li", note) for note in report.notes]
    command = shlex.join(report.command)
    return join((
        tag("div", *sides, class_="pair"),
        tag("ul", *given, *notes, class_="notes") if given or notes else None,
        tag("div", tag("pre", tag("code", command), tabindex="0", aria_label="command"),
            tag("button", "Copy", type="button", class_="copy", data_copy=command), class_="command"),
        tag("p", f"Seed {report.seed}, descant {report.version}, {report.created}", class_="quiet"),
    ))  # fmt: skip


def _side(title: str, side: Side) -> Raw:
    failures = None
    if side.failures:
        rows = [tag("li", tag("code", clip, dir="auto"), f": {reason}") for clip, reason in side.failures.items()]
        failures = tag("details", tag("summary", f"Not scored: {counted(len(rows), 'clip')}"),
                       tag("ul", *rows), class_="failures")  # fmt: skip
    silent = None
    if side.silent:
        silent = tag("details", tag("summary", counted(len(side.silent), "silent clip")),
                     tag("ul", *(tag("li", clip) for clip in side.silent)))  # fmt: skip
    return tag(
        "div", tag("h3", title), tag("p", side.name, class_="name", dir="auto"),
        tag("p", tag("b", side.clips), f" clip{'' if side.clips == 1 else 's'}, ", tag("b", duration(side.seconds))),
        tag("p", "digest ", tag("code", side.digest[:16], title=side.digest), class_="quiet"),
        failures, silent, class_="side",
    )  # fmt: skip


def _brief(value: object) -> str:
    """What was given, in a line: lists are counted."""
    if isinstance(value, Mapping):
        return ", ".join(
            f"{name} {_brief(item)}" for name, item in value.items() if item not in (None, [], {}, "", False)
        )
    if isinstance(value, list | tuple):
        return f"{len(value)}"
    return number(value) if isinstance(value, float) else str(value)


def self_check(report: Report) -> Raw:
    """The conditions of each judge in the order expected, as drawings on one scale."""
    if not report.self_check.groups:
        return tag("p", report.self_check.reason or "No self-check was run.", class_="quiet")
    return tag("div", *(_group(group) for group in report.self_check.groups), class_="checks")


def _group(group: CheckGroup) -> Raw:
    state = ("in order", "good") if group.ok else ("out of order", "bad")
    if not group.rows:
        state = ("not checked", "unsure")
    title = tag("h3", group.judge, " ", tag("span", state[0], class_=f"chip {state[1]}"))
    if not group.rows:
        return tag("div", title, tag("p", group.reason or "no reason given", class_="quiet"), class_="check")
    scales = _chains(group)
    lines = []
    for row in group.rows:
        ends = scales[row.name]
        name = tag("th", row.name, tag("small", f"above {row.above}") if row.above else None, scope="row")
        if row.value is None:
            lines.append(tag("tr", name, tag("td", row.note or "not computed", colspan=3, class_="reason")))
            continue
        span = plots.Span(value=row.value, low=row.low, high=row.high)
        sign = words = None
        if row.above or not row.ok:
            sign = tag("span", "✓" if row.ok else "✕", class_="yes" if row.ok else "no",
                       title="as expected" if row.ok else "not above the row it must exceed")  # fmt: skip
            words = tag("span", "as expected" if row.ok else "not as expected", class_="unseen")
        note = tag("small", row.note) if row.note else None
        lines.append(tag("tr", name, tag("td", number(row.value), class_="figure"),
                         tag("td", plots.interval(row.name, span, ends, "" if row.ok else "wrong"), note),
                         tag("td", sign, words)))  # fmt: skip
    reason = tag("p", group.reason, class_="reason") if group.reason else None
    return tag("div", title, reason, tag("table", tag("tbody", *lines), class_="lines"), class_="check")


def _chains(group: CheckGroup) -> dict[str, tuple[float, float]]:
    """Ends of the scale of each row: rows that are held against each other share one."""
    root: dict[str, str] = {}
    for row in group.rows:  # a row comes after the one it must exceed
        root[row.name] = root.get(row.above, row.name) if row.above else row.name
    found: dict[str, list[float | None]] = {}
    for row in group.rows:
        found.setdefault(root[row.name], []).extend((row.value, row.low, row.high))
    return {name: plots.domain(found[first], zero=True) for name, first in root.items()}


def results(report: Report) -> Raw:
    """All figures: a table for each question, its rows kept apart by recipe."""
    ends = _scales(report.results)
    parts: list[Raw] = []
    for key, title in names.GROUPS.items():
        rows = [row for row in report.results if names.group(row.metric) == key]
        if rows:
            parts.append(tag("section", tag("h3", title), _figures(rows, report.recipes, ends), class_="question"))
    return join(parts) if parts else tag("p", "The report holds no figures.", class_="quiet")


def _scales(rows: Iterable[Result]) -> dict[str, tuple[float, float]]:
    """Ends of each scale: one for all rows of a metric, but distances are in their judge's unit and have their own."""
    found: dict[str, list[float | None]] = {}
    flat = set()
    for row in rows:
        metric = _scale(row)
        if row.best is not None:
            found.setdefault(metric, []).extend(span_of(row).all)
            if row.direction != "none":
                flat.add(metric)
    return {metric: plots.domain(values, zero=metric in flat) for metric, values in found.items()}


def _scale(row: Result) -> str:
    metric = names.split(row.metric)[0]
    return row.metric if metric in _UNITS else metric


def span_of(row: Result) -> plots.Span:
    """What is drawn of a result."""
    if row.best is None:
        raise ValueError(f"{row.metric}: has no value to draw, because {row.reason}")
    marks = {}
    for name, value in row.extra.items():
        for end, words in _MARKS.items():
            if name == end or name.endswith(f"_{end}"):
                marks[words] = value
    plain = row.value if row.corrected is not None else None
    return plots.Span(value=row.best, low=row.low, high=row.high, plain=plain, marks=marks or None)


def _figures(rows: list[Result], recipes: Mapping[str, Recipe], ends: Mapping[str, tuple[float, float]]) -> Raw:
    by_recipe: dict[str, list[Result]] = {}
    for row in rows:
        by_recipe.setdefault(row.recipe, []).append(row)
    head = tag("tr", *(tag("th", text, scope="col") for text in ("Metric", "Value", "Interval", "Clips")))
    bodies = []
    for recipe, some in by_recipe.items():
        about = recipes.get(recipe)
        judge = f", heard by {about.embedder}" if about else ""
        words = tag("span", "recipe ", tag("a", recipe, href=f"#recipe-{anchor(recipe)}"), judge)
        title = tag("tr", tag("th", words, colspan=4, scope="rowgroup"), class_="recipe")
        bodies.append(tag("tbody", title, *(_figure(row, ends) for row in some)))
    return tag("table", tag("thead", head), *bodies, class_="figures-table")


def _figure(row: Result, ends: Mapping[str, tuple[float, float]]) -> Raw:
    arrow = names.ARROWS[row.direction]
    better = f"{row.direction} is better"
    sign = tag("span", arrow, class_="arrow", title=better, role="img", aria_label=better) if arrow else None
    name = tag("th", titled(names.label(row.metric)), " ", sign, scope="row")
    clips = tag("td", f"{row.clips}", tag("small", f"{row.windows} windows") if row.windows else None,
                tag("small", f"{row.left_out} left out") if row.left_out else None, class_="count",
                data_label="Clips")  # fmt: skip
    if row.best is None:
        why = tag("td", tag("span", "not computed", class_="chip unsure"), " ", row.reason, colspan=2, class_="reason")
        return tag("tr", name, why, clips)
    values = [tag("b", number(row.best))]
    if row.corrected is not None:
        values.append(tag("small", f"not corrected {number(row.value)}"))
    if row.low is not None and row.high is not None:
        values.append(tag("small", f"{row.level:.0%}: {number(row.low)} to {number(row.high)}"))
    elif row.error is not None:
        values.append(tag("small", f"± {number(row.error, 2)}"))
    span = span_of(row)
    drawing = None
    if len([value for value in span.all if value is not None]) > 1:  # a dot alone says nothing beside its figure
        drawing = plots.interval(names.label(row.metric), span, ends[_scale(row)])
    more = [tag("li", note) for note in row.notes]
    more += [tag("li", f"{name.replace('_', ' ')}: {number(value)}") for name, value in row.extra.items()]
    about = tag("details", tag("summary", "notes"), tag("ul", *more)) if more else None
    return tag("tr", name, tag("td", *values, class_="figure"), tag("td", drawing, about, class_="drawn"), clips)


def curves(report: Report) -> Raw:
    """The curves of the report, each with its figures in a table below."""
    return tag("div", *(_curve(name, plot) for name, plot in report.curves.items() if plot.x), class_="gallery")


def _curve(name: str, plot: Plot) -> Raw:
    against = "1" in plot.x_label and "/" in plot.x_label  # against 1 / N: what matters lies at 0
    straight = (plot.fit["intercept"], plot.fit["slope"]) if {"intercept", "slope"} <= set(plot.fit) else None
    points = plots.Points(x=plot.x, y=plot.y, error=plot.error, line=straight, joined=straight is None)
    text = None
    if straight:
        r2 = f", R² {number(plot.fit['r2'], 3)}" if "r2" in plot.fit else ""
        text = tag("p", f"The line meets 0 at {number(straight[0])}{r2}.", class_="quiet")
    errors = plot.error or (None,) * len(plot.x)
    rows = [(number(x), number(y), "" if e is None else number(e, 2))
            for x, y, e in zip(plot.x, plot.y, errors, strict=True)]  # fmt: skip
    title = curve_title(name)
    drawn = plots.curve(title, points, plot.x_label or "x", plot.y_label or "y", zero=against)
    return tag("figure", tag("figcaption", title), drawn, text,
               plots.rows_table((plot.x_label or "x", plot.y_label or "y", "error"), rows, "as a table"))  # fmt: skip


def curve_title(name: str) -> str:
    """A curve is called after its metric where it has one."""
    return titled(names.label(name)) if names.split(name)[0] in names.METRICS else name


def histograms(report: Report) -> Raw:
    """How each metric is spread over clips."""
    found = []
    for row in report.results:
        values = [row.per_clip[clip] for clip in sorted(row.per_clip)]
        if len(values) < 2:
            continue
        title = clip_label(row.metric)
        rows = [(f"{number(low)} to {number(high)}", count) for low, high, count in plots.bins(values)]
        found.append(tag("figure", tag("figcaption", title, " ", names.ARROWS[row.direction]),
                         plots.histogram(title, values, title),
                         plots.rows_table(("from and to", "clips"), rows, "as a table")))  # fmt: skip
    return tag("div", *found, class_="gallery") if found else tag("p", "Too few clips to draw.", class_="quiet")


def recipes(report: Report) -> Raw:
    """Every rule behind the figures."""
    parts = []
    for name, recipe in report.recipes.items():
        row = recipe.to_json()
        cells = [tag("tr", tag("th", key.replace("_", " "), scope="row"), tag("td", _setting(value)))
                 for key, value in row.items() if value not in ("", None, {})]  # fmt: skip
        parts.append(tag("details", tag("summary", name), tag("table", tag("tbody", *cells), class_="small"),
                         id=f"recipe-{anchor(name)}", class_="recipe-box"))  # fmt: skip
    return join(parts)


def _setting(value: object) -> str:
    return "; ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def anchor(name: str) -> str:
    """A name as part of an address within the page."""
    return "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name)
