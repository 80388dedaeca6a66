"""Tables of a report for people, spreadsheets and papers: Markdown, CSV, and LaTeX with booktabs.

Rows of different judges or protocols stand in tables of their own, with the ids of their recipes; a row without a
value says why in its place.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..metric import Result
from .names import ARROWS, GROUPS, METRICS, group, split
from .results import Report, row_of

#: Further figures worth a column of their own.
_BESIDE = ("chance", "reference", "p")
_COLUMNS = ("metric", "label", "recipe", "direction", "value", "corrected", "stderr", "low", "high", "level", "clips",
            "windows", "left_out", "reason")  # fmt: skip
_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
          "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "<": r"\textless{}",
          ">": r"\textgreater{}", "±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "−": r"$-$"}  # fmt: skip


def all_tables(report: Report) -> dict[str, str]:
    """File name -> text of ``tables.md``, ``tables.csv`` and ``tables.tex``."""
    return {"tables.md": markdown(report), "tables.csv": comma_separated(report), "tables.tex": latex(report)}


def sheets(report: Report) -> list[tuple[str, str, list[Result]]]:
    """(title, recipe without digest, rows) of each table: one for every group of metrics, protocol and judge."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    for item in report.results:
        recipe = report.recipes[item.recipe]
        found.setdefault((group(item.metric), recipe.name, recipe.embedder), []).append(item)
    order = list(GROUPS)
    keys = sorted(found, key=lambda key: order.index(key[0]))
    return [(GROUPS[key[0]], f"{key[1]}, {key[2]}", found[key]) for key in keys]


def markdown(report: Report) -> str:
    """All tables as Markdown, what makes the report invalid above them."""
    lines = [f"# {report.generated.name}", "", _about(report)]
    if not report.valid:
        lines += ["", f"**Invalid: the self-check failed.** {report.self_check.reason}"]
    for title, recipe, results in sheets(report):
        lines += ["", f"## {title}: {recipe}", ""]
        heads = _heads(results)
        lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        lines += ["| " + " | ".join(_cell(text) for text in _cells(item, heads)) + " |" for item in results]
    lines += ["", "## Self-check", "", *_check_lines(report)]
    if report.comparison is not None:
        lines += ["", f"## This report minus {report.comparison['against']['name']}", ""]
        lines += ["| metric | difference | 95 % interval | p | clips |", "|---|---|---|---|---|"]
        lines += ["| " + " | ".join(_cell(text) for text in _compared(row)) + " |" for row in report.comparison["rows"]]
    for note in _notes(report):
        lines += ["", note]
    return "\n".join(lines) + "\n"


def comma_separated(report: Report) -> str:
    """All rows as CSV with one header, figures in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["group", *_COLUMNS, *_BESIDE, "notes"])
    for item in report.results:
        row = row_of(item)
        writer.writerow([
            group(item.metric), *("" if row[name] is None else row[name] for name in _COLUMNS),
            *(item.extra.get(name, "") for name in _BESIDE), "; ".join(item.notes),
        ])  # fmt: skip
    return out.getvalue()


def latex(report: Report) -> str:
    """All tables as LaTeX (booktabs), one ``table`` each, captions saying set, recipe and clips."""
    parts = ["% needs \\usepackage{booktabs}"]
    for number, (title, recipe, results) in enumerate(sheets(report), 1):
        heads = _heads(results)
        caption = f"{title}: {report.generated.name}, {recipe}, {report.generated.clips} clips"
        parts += [
            "\\begin{table}", "\\centering", f"\\caption{{{_tex(caption)}}}", f"\\label{{tab:descant-{number}}}",
            "\\begin{tabular}{l" + "r" * (len(heads) - 1) + "}", "\\toprule",
            " & ".join(_tex(head) for head in heads) + " \\\\", "\\midrule",
        ]  # fmt: skip
        parts += [" & ".join(_tex(text) for text in _cells(item, heads)) + " \\\\" for item in results]
        parts += ["\\bottomrule", "\\end{tabular}", "\\end{table}", ""]
    if not report.valid:
        parts.insert(1, "% INVALID: " + str(report.self_check.reason))
    return "\n".join(parts) + "\n"


def figure(value: float | None) -> str:
    """Four significant digits; an en dash for nothing."""
    if value is None:
        return "–"
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-4:
        return f"{value:.3e}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def _heads(results: Sequence[Result]) -> list[str]:
    level = next((item.level for item in results), 0.95)
    heads = ["metric", "value", f"{level:.0%} interval".replace("%", " %"), "clips"]
    if any(item.corrected is not None for item in results):
        heads.append("uncorrected")
    heads += [name for name in _BESIDE if any(name in item.extra for item in results)]
    return [*heads, "recipe"]


def _cells(item: Result, heads: Iterable[str]) -> list[str]:
    return [_one(item, head) for head in heads]


def _one(item: Result, head: str) -> str:
    if head == "metric":
        metric, _ = split(item.metric)
        return f"{METRICS[metric][0]} {ARROWS[item.direction]}".strip()
    if head == "recipe":
        return item.recipe.rpartition(":")[2]
    if head == "clips":
        left = f" ({item.left_out} left out)" if item.left_out else ""
        return f"{item.clips}{left}"
    if item.best is None:
        return str(item.reason) if head == "value" else ""
    if head == "value":
        return figure(item.best) if item.error is None else f"{figure(item.best)} ± {figure(item.error)}"
    if head.endswith("interval"):
        return "" if item.low is None or item.high is None else f"[{figure(item.low)}, {figure(item.high)}]"
    if head == "uncorrected":
        return "" if item.corrected is None else figure(item.value)
    return figure(item.extra[head]) if head in item.extra else ""


def _about(report: Report) -> str:
    mine, theirs = report.generated, report.reference
    text = f"{mine.clips} clips, {mine.seconds:.0f} s"
    if theirs is not None:
        text += f", against {theirs.clips} clips, {theirs.seconds:.0f} s of {theirs.name}"
    lost = [f"{len(side.failures)} of {side.name} left out" for side in (mine, theirs) if side and side.failures]
    text = "; ".join([text, *lost])
    made = f"descant {report.version}, {report.created}, seed {report.seed}"
    return f"{text}. Values are ± one standard error over clips. {made}."


def _check_lines(report: Report) -> list[str]:
    found = []
    for one in report.self_check.groups:
        if one.reason:
            found.append(f"{one.judge}: not checked, {one.reason}")
        else:
            rows = [f"{row.name} {figure(row.value)}{'' if row.ok else ' (WRONG ORDER)'}" for row in one.rows]
            found.append(f"{one.judge}: {'; '.join(rows)}")
    texts = found or [str(report.self_check.reason)]
    return [line for text in texts for line in (f"* {text}",)]


def _compared(row: Mapping[str, Any]) -> list[str]:
    name = f"{row['label']} {ARROWS[row['direction']]}".strip()
    if row["value"] is None:
        return [name, row["reason"], "", "", ""]
    best = row["value"] if row["corrected"] is None else row["corrected"]
    interval = "" if row["low"] is None else f"[{figure(row['low'])}, {figure(row['high'])}]"
    value = figure(best) if row["stderr"] is None else f"{figure(best)} ± {figure(row['stderr'])}"
    chance = figure(row["extra"]["p"]) if "p" in row["extra"] else ""
    return [name, value, interval, chance, str(row["clips"])]


def _notes(report: Report) -> list[str]:
    """Every note once, with the rows it belongs to."""
    table: dict[str, list[str]] = {}
    for item in report.results:
        for note in item.notes:
            table.setdefault(note, []).append(item.metric)
    lines = [
        f"* {_escape(note)} ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
        for note, names in table.items()
    ]
    lines = [*(f"* {_escape(note)}" for note in report.notes), *lines]
    return ["## Notes\n\n" + "\n".join(lines)] if lines else []


def _cell(text: str) -> str:
    return _escape(text) or " "


def _escape(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in re.sub(r"\s+", " ", text))
