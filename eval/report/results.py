"""The record of one evaluation: what was scored, how, what came out, and whether the judges could be trusted.

:class:`Report` goes to ``results.json`` (schema ``descant-score/1``) and comes back with :func:`read`;
:func:`validate` says where a table departs from the schema. Rows are named ``metric@judge`` where several judges may
give the same figure; the names are unique within a report.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..metric import Result, write_whole
from ..recipe import Recipe
from .names import label

if TYPE_CHECKING:
    from .bundle import Bundle

SCHEMA = "descant-score/1"
#: Name of the record in a report's folder, and of the vectors of the generated clips beside it.
RESULTS, VECTORS = "results.json", "vectors.safetensors"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two sets of clips."""

    name: str
    folder: str
    clips: int
    """Clips that could be read."""
    seconds: float
    digest: str
    """Of names and contents of all clips: equal for equal sets."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Clips that could not be used by every judge, and why."""
    silent: tuple[str, ...] = ()
    """Clips of nothing but zeros."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Points of a curve, with the line through them where one was fitted."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()
    """Standard error of each point; empty where it is not known."""
    x_label: str = ""
    y_label: str = ""
    fit: Mapping[str, float] = field(default_factory=dict)
    """``intercept``, ``slope`` and ``r2`` of a straight line."""


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """One condition of the self-check."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    above: str | None = None
    """The row whose value this one must exceed."""
    ok: bool = True
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class CheckGroup:
    """The conditions of one judge, in the order expected."""

    judge: str
    rows: tuple[CheckRow, ...] = ()
    reason: str | None = None
    """Why this judge could not be checked."""

    @property
    def ok(self) -> bool:
        """Whether every row lies above the one it must exceed."""
        return all(row.ok for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """Whether the judges rank known damage as they should."""

    groups: tuple[CheckGroup, ...] = ()
    reason: str | None = None
    """What is wrong, or why nothing was checked."""

    @property
    def ok(self) -> bool:
        """False when a judge ranks damage wrongly; a check that was not run is not held against the report."""
        return all(group.ok for group in self.groups)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything :func:`descant.eval.report.score.score` found."""

    version: str
    created: str
    command: tuple[str, ...]
    seed: int
    generated: Side
    reference: Side | None
    recipes: Mapping[str, Recipe]
    results: tuple[Result, ...]
    self_check: SelfCheck
    curves: Mapping[str, Plot] = field(default_factory=dict)
    clips: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per generated clip: ``file``, ``seconds``, ``caption``, ``conditions``, ``reference``; paths absolute."""
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """What was given beside the sound: ``prompts``, ``labels``, ``stems``, each with counts."""
    comparison: Mapping[str, Any] | None = None
    """Against another report, see :mod:`descant.eval.report.compare`."""
    notes: tuple[str, ...] = ()
    heard: Bundle | None = field(default=None, repr=False, compare=False)
    """Vectors of the generated clips, kept beside the record; a report that was read has none."""

    @property
    def valid(self) -> bool:
        """Whether the self-check found nothing wrong."""
        return self.self_check.ok

    def result(self, metric: str) -> Result:
        """The row of this name. Raises ValueError naming those there are."""
        for item in self.results:
            if item.metric == metric:
                return item
        raise ValueError(f"the report has no {metric!r}; it has {', '.join(item.metric for item in self.results)}")

    def to_json(self, folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """Plain types of the schema; paths of clips relative to ``folder`` where it shares their drive."""
        names = [item.metric for item in self.results]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rows named twice in one report: {', '.join(twice)}")
        table: dict[str, Any] = {
            "schema": SCHEMA, "descant": self.version, "created": self.created, "command": list(self.command),
            "seed": self.seed, "valid": self.valid,
            "self_check": {"ok": self.self_check.ok, "reason": self.self_check.reason,
                           "groups": [asdict(group) | {"ok": group.ok} for group in self.self_check.groups]},
            "generated": asdict(self.generated),
            "reference": None if self.reference is None else asdict(self.reference),
            "recipes": {name: recipe.to_json() for name, recipe in self.recipes.items()},
            "results": [row_of(item) for item in self.results],
            "per_clip": {item.metric: dict(item.per_clip) for item in self.results if item.per_clip},
            "curves": {name: asdict(curve) for name, curve in self.curves.items()},
            "clips": {name: _placed(clip, folder) for name, clip in self.clips.items()},
            "inputs": dict(self.inputs), "comparison": self.comparison, "notes": list(self.notes),
        }  # fmt: skip
        return dict(_plain(table))

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Report:
        """What :meth:`to_json` gave; paths stay as they were written. Raises ValueError outside the schema."""
        validate(table)
        per_clip = table["per_clip"]
        check = table["self_check"]
        return cls(
            version=table["descant"], created=table["created"], command=tuple(table["command"]), seed=table["seed"],
            generated=_record(Side, table["generated"]),
            reference=None if table["reference"] is None else _record(Side, table["reference"]),
            recipes={name: Recipe.from_json(row) for name, row in table["recipes"].items()},
            results=tuple(result_of(row, per_clip.get(row["metric"], {})) for row in table["results"]),
            self_check=SelfCheck(groups=tuple(
                CheckGroup(judge=group["judge"], reason=group["reason"],
                           rows=tuple(_record(CheckRow, row) for row in group["rows"]))
                for group in check["groups"]
            ), reason=check["reason"]),
            curves={name: _record(Plot, row) for name, row in table["curves"].items()},
            clips=table["clips"], inputs=table["inputs"], comparison=table["comparison"], notes=tuple(table["notes"]),
        )  # fmt: skip

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the record and its tables into a folder, results.json last; pages are made by :mod:`.score`."""
        from . import tables

        root = Path(folder)
        for name, text in tables.all_tables(self).items():
            write_whole(root / name, text.encode())
        if self.heard is not None:
            self.heard.save(root / VECTORS)
        where = root / RESULTS
        text = json.dumps(self.to_json(root), indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(where, (text + "\n").encode())
        return where


def read(path: str | os.PathLike[str]) -> Report:
    """A report from its ``results.json`` or the folder that holds it. Raises ValueError naming what is wrong."""
    where = Path(path)
    where = where / RESULTS if where.is_dir() else where
    if not where.is_file():
        raise ValueError(f"{where}: no such file; a report is written by 'descant score -o FOLDER'")
    try:
        table = json.loads(where.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{where}: is no JSON ({error}); score again") from error
    try:
        return Report.from_json(table)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def row_of(result: Result) -> dict[str, Any]:
    """A result as a row of the schema, without its clips."""
    return {
        "metric": result.metric, "label": label(result.metric), "recipe": result.recipe,
        "direction": result.direction, "value": result.value, "corrected": result.corrected, "stderr": result.error,
        "low": result.low, "high": result.high, "level": result.level, "clips": result.clips,
        "windows": result.windows, "left_out": result.left_out, "reason": result.reason,
        "notes": list(result.notes), "extra": dict(result.extra),
    }  # fmt: skip


def result_of(row: Mapping[str, Any], per_clip: Mapping[str, float]) -> Result:
    """What :func:`row_of` gave, with its clips."""
    table = {name: value for name, value in row.items() if name not in ("label", "stderr")}
    return Result.from_json(table | {"error": row["stderr"], "per_clip": dict(per_clip)})


def validate(table: Any) -> None:
    """Raise ValueError, naming the place, where a table is no ``descant-score/1`` record."""
    if not isinstance(table, dict) or table.get("schema") != SCHEMA:
        seen = table.get("schema") if isinstance(table, dict) else type(table).__name__
        raise ValueError(f"schema is {seen!r}: this version of descant reads {SCHEMA!r}")
    _check(table, _REPORT, "report")
    names = [row["metric"] for row in table["results"]]
    for row in table["results"]:
        where = f"results[{row['metric']}]"
        if (row["value"] is None) == (row["reason"] is None):
            raise ValueError(f"{where} has {'neither' if row['value'] is None else 'both'} value and reason: need one")
        if row["direction"] not in ("lower", "higher", "none"):
            raise ValueError(f"{where}.direction is {row['direction']!r}; allowed are lower, higher and none")
        if row["recipe"] not in table["recipes"]:
            raise ValueError(f"{where}.recipe is {row['recipe']!r}, which is not among the recipes")
    if len(set(names)) < len(names):
        raise ValueError("two results have one name: each metric may occur once")
    odd = sorted(set(table["per_clip"]) - set(names))
    if odd:
        raise ValueError(f"per_clip has {', '.join(odd)}, which are no results")


_NUMBER, _TEXT = (int, float), (str,)
_OPTIONAL = (int, float, type(None))
_SIDE = {"name": _TEXT, "folder": _TEXT, "clips": (int,), "seconds": _NUMBER, "digest": _TEXT,
         "failures": {"*": _TEXT}, "silent": [_TEXT]}  # fmt: skip
_ROW = {"metric": _TEXT, "label": _TEXT, "recipe": _TEXT, "direction": _TEXT, "value": _OPTIONAL,
        "corrected": _OPTIONAL, "stderr": _OPTIONAL, "low": _OPTIONAL, "high": _OPTIONAL, "level": _NUMBER,
        "clips": (int,), "windows": (int,), "left_out": (int,), "reason": (str, type(None)), "notes": [_TEXT],
        "extra": {"*": _NUMBER}}  # fmt: skip
_CHECK_ROW = {"name": _TEXT, "value": _OPTIONAL, "low": _OPTIONAL, "high": _OPTIONAL, "above": (str, type(None)),
              "ok": (bool,), "note": _TEXT}  # fmt: skip
_GROUP = {"judge": _TEXT, "rows": [_CHECK_ROW], "ok": (bool,), "reason": (str, type(None))}
_PLOT = {"x": [_NUMBER], "y": [_NUMBER], "error": [_NUMBER], "x_label": _TEXT, "y_label": _TEXT,
         "fit": {"*": _NUMBER}}  # fmt: skip
_CLIP = {"file": _TEXT, "seconds": _NUMBER, "caption": (str, type(None)), "conditions": {"*": _TEXT},
         "reference": (str, type(None))}  # fmt: skip
_REPORT = {
    "schema": _TEXT, "descant": _TEXT, "created": _TEXT, "command": [_TEXT], "seed": (int,), "valid": (bool,),
    "self_check": {"ok": (bool,), "reason": (str, type(None)), "groups": [_GROUP]},
    "generated": _SIDE, "reference": (_SIDE, None), "recipes": {"*": (dict,)}, "results": [_ROW],
    "per_clip": {"*": {"*": _NUMBER}}, "curves": {"*": _PLOT}, "clips": {"*": _CLIP}, "inputs": (dict,),
    "comparison": (dict, type(None)), "notes": [_TEXT],
}  # fmt: skip


def _check(value: Any, shape: Any, where: str) -> None:
    """``shape``: a tuple of types; a dict of shapes, ``*`` for any key; a list of one shape; (shape, None)."""
    if isinstance(shape, tuple) and shape[-1] is None:
        if value is not None:
            _check(value, shape[0], where)
    elif isinstance(shape, tuple):
        if not isinstance(value, shape) or (isinstance(value, bool) and bool not in shape):
            raise ValueError(f"{where} is {value!r}: need {' or '.join(kind.__name__ for kind in shape)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{where} is {value}: need a finite number")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} is {type(value).__name__}: need a list")
        for place, item in enumerate(value):
            _check(item, shape[0], f"{where}[{place}]")
    elif not isinstance(value, dict):
        raise ValueError(f"{where} is {type(value).__name__}: need an object")
    elif "*" in shape:
        for name, item in value.items():
            _check(item, shape["*"], f"{where}[{name}]")
    else:
        missing, odd = sorted(set(shape) - set(value)), sorted(set(value) - set(shape))
        if missing or odd:
            raise ValueError(f"{where} lacks {missing} and has unknown {odd}: it is of another version of descant")
        for name, item in value.items():
            _check(item, shape[name], f"{where}.{name}")


def _record(kind: Any, row: Mapping[str, Any]) -> Any:
    table = {item.name: row[item.name] for item in fields(kind)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in table.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _placed(clip: Mapping[str, Any], folder: str | os.PathLike[str] | None) -> dict[str, Any]:
    """A clip with its paths relative to the report, so that both can be moved together."""
    row = dict(clip)
    if folder is None:
        return row
    for name in ("file", "reference"):
        if row[name]:
            row[name] = _relative(row[name], folder)
    row["conditions"] = {
        name: _relative(text, folder) if os.path.isabs(text) and os.path.exists(text) else text
        for name, text in row["conditions"].items()
    }
    return row


def _relative(path: str, folder: str | os.PathLike[str]) -> str:
    try:
        return Path(os.path.relpath(path, Path(folder).resolve())).as_posix()
    except ValueError:  # another drive
        return str(path)
