"""Two runs side by side: the difference of each figure, which way it points, and whether it can be told from none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import names, plots
from .page_html import Raw, counted, join, number, tag, titled
from .results import Report


def comparison(report: Report) -> Raw | None:
    """The block ``comparison`` of a report (:func:`descant.eval.report.compare.against`); None where there is none."""
    block = report.comparison
    if not block:
        return None
    other, rows = block.get("against", {}), block.get("rows", [])
    done = [_row(row) for row in rows if row.get("value") is not None]
    refused = [
        tag("li", tag("b", titled(_label(row))), f": {row.get('reason') or 'not compared'}")
        for row in rows
        if row.get("value") is None
    ]
    name = str(other.get("name", "another report"))
    warning = None
    if other.get("valid") is False:
        warning = tag("p", tag("span", "not valid", class_="chip bad"), " The other report failed its own self-check.")
    intro = tag("p", "This run minus ", tag("b", name, dir="auto"), f" of {other.get('created', 'unknown date')}, ",
                "digest ", tag("code", str(other.get("digest", ""))[:16]), class_="quiet")  # fmt: skip
    head = tag("tr", *(tag("th", text, scope="col") for text in ("Metric", "This, other", "Difference", "Verdict")))
    table = tag("table", tag("thead", head), tag("tbody", *done), class_="figures-table compared") if done else None
    box = tag("details", tag("summary", f"Not compared: {counted(len(refused), 'row')}"), tag("ul", *refused),
              class_="notes") if refused else None  # fmt: skip
    return join((intro, warning, tag("div", table, box, class_="question")))


def judgement(row: Mapping[str, Any]) -> tuple[str, str]:
    """(words, class): better, worse, or no clear difference, by whether the interval holds zero."""
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:
        return "no interval", "plain"
    if low <= 0 <= high:
        return "no clear difference", "plain"
    higher = low > 0
    if row.get("direction") not in ("lower", "higher"):
        return ("higher" if higher else "lower"), "plain"
    return ("better", "good") if higher == (row["direction"] == "higher") else ("worse", "bad")


def _label(row: Mapping[str, Any]) -> str:
    metric = str(row.get("metric", ""))
    return names.label(metric) if names.split(metric)[0] in names.METRICS else metric


def _row(row: Mapping[str, Any]) -> Raw:
    best = row["value"] if row.get("corrected") is None else row["corrected"]
    extra = row.get("extra", {})
    span = plots.Span(value=best, low=row.get("low"), high=row.get("high"))
    reach = (max(abs(value) for value in span.all if value is not None) or 1.0) * 1.08
    words, kind = judgement(row)
    arrow = names.ARROWS.get(str(row.get("direction")), "")
    name = tag("th", titled(_label(row)), " ", tag("span", arrow, class_="arrow") if arrow else None, scope="row")
    both = tag("td", tag("b", number(extra.get("first"))), tag("small", f"other {number(extra.get('second'))}"),
               class_="figure")  # fmt: skip
    signed = ("+" if best > 0 else "") + number(best)
    notes = [tag("li", note) for note in row.get("notes", [])]
    more = tag("details", tag("summary", "notes"), tag("ul", *notes)) if notes else None
    drawing = plots.interval(f"Difference of {_label(row)}", span, (-reach, reach), f"signed {kind}")
    level = f"{row.get('level', 0.95):.0%}"
    bounds = None
    if span.low is not None and span.high is not None:
        bounds = tag("small", f"{level}: {number(span.low)} to {number(span.high)}")
    p = tag("small", f"p = {number(extra['p'], 2)}") if "p" in extra else None
    return tag("tr", name, both, tag("td", tag("b", signed), drawing, bounds, more, class_="drawn"),
               tag("td", tag("span", words, class_=f"chip {kind}"), p, class_="judged"))  # fmt: skip
