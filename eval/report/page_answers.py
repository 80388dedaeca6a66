"""From the answers of a listening test to figures: preferences with exact tests, ratings with intervals."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from ..metric import Result, unavailable, with_interval

__all__ = ["Choice", "Scores", "read_answers"]

_ANSWERS, _KEY = "descant-answers/1", "descant-listening-key/1"
_LARGEST = 8_000_000
#: BS.1534-3, post-screening: a listener is left out who, in more than so many percent of the items, rates the hidden
#: reference lower or the 7 kHz anchor higher than the level.
_PERCENT, _LEVEL = 15, 90.0
_REFERENCE, _MIDDLE = "reference", "anchor 7000 Hz"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How often one of two was chosen. In an ABX test ``first`` is "right" and ``second`` "wrong"."""

    first: str
    second: str
    wins: int
    """Answers for ``first``."""
    losses: int
    ties: int
    share: float | None
    """Of ``first`` among the answers that chose."""
    low: float | None
    high: float | None
    """Exact interval of ``share`` (Clopper and Pearson, 1934), as if all answers were independent."""
    p: float | None
    """Of the exact binomial test that both are as likely: two-sided for preferences, more than chance for ABX."""
    systems: tuple[str, ...] = ()
    """The two systems of an ABX test."""
    by_listener: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """listener -> (wins, losses, ties): a listener's answers are not independent of each other."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a listening test found."""

    kind: str
    listeners: tuple[str, ...]
    """Those whose answers count."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Listeners that the post-screening left out, and why."""
    choices: tuple[Choice, ...] = ()
    ratings: Mapping[str, Result] = field(default_factory=dict)
    """system -> mean of the listeners' means, with Student's t interval over listeners."""
    differences: Mapping[str, Result] = field(default_factory=dict)
    """``a - b`` -> the same of the difference, listener by listener: surer than two ratings apart."""
    items: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """item -> system -> mean rating."""

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        table = asdict(self)
        for name in ("ratings", "differences"):
            table[name] = {key: result.to_json() for key, result in getattr(self, name).items()}
        return table


def read_answers(
    paths: Iterable[str | os.PathLike[str]], key: str | os.PathLike[str], level: float = 0.95, screen: bool = True
) -> Scores:
    """Figures of a test from the files its listeners saved and its ``key``, of which :func:`write_ab` gave the path.

    ``screen`` leaves out MUSHRA listeners by the rule of ITU-R BS.1534-3. Raises ValueError, naming the file,
    for answers that are damaged, of another test, out of range, or twice of one listener.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: a confidence level lies between 0 and 1, such as 0.95")
    about = _load(Path(key), _KEY)
    answers: dict[str, list[Mapping[str, Any]]] = {}
    for path in sorted(Path(item) for item in paths):
        table = _load(path, _ANSWERS)
        listener = _checked(table, about, path)
        if listener in answers:
            raise ValueError(f"{path}: holds answers of {listener!r} again; keep one file of each listener")
        answers[listener] = table["answers"]
    if not answers:
        raise ValueError("no answers: name the files that the listeners saved")
    if about["kind"] == "mushra":
        return _rated(answers, about["items"], level, screen)
    chosen = _right(answers, about["items"], level) if about["kind"] == "abx" else _preferred(answers, about, level)
    return Scores(kind=about["kind"], listeners=tuple(sorted(answers)), choices=chosen)


def _load(path: Path, schema: str) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"{path}: has {path.stat().st_size} bytes, too many for answers; is it the right file?")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); ask for the file again") from error
    seen = table.get("schema") if isinstance(table, dict) else None
    if seen != schema:
        raise ValueError(f"{path}: its schema is {seen!r} where {schema!r} was expected")
    return dict(table)


def _checked(table: Mapping[str, Any], key: Mapping[str, Any], path: Path) -> str:
    """The listener's name. Raises ValueError unless every answer belongs to the test."""
    if table.get("study") != key["study"] or table.get("kind") != key["kind"]:
        raise ValueError(f"{path}: belongs to test {table.get('study')!r}, the key to {key['study']!r}")
    listener, answers = table.get("listener"), table.get("answers")
    if not isinstance(listener, str) or not listener.strip() or not isinstance(answers, list):
        raise ValueError(f"{path}: has no listener or no answers; ask for the file again")
    seen = set()
    for answer in answers:
        item = answer.get("item") if isinstance(answer, dict) else None
        if not isinstance(item, str) or item not in key["items"] or item in seen:
            raise ValueError(f"{path}: item {item!r} is {'answered twice' if item in seen else 'not of this test'}")
        seen.add(item)
        sounds = key["items"][item]["sounds"]
        if key["kind"] == "mushra":
            _check_ratings(answer.get("ratings"), sounds, f"{path}: item {item}")
        elif not (answer.get("choice") in sounds or (answer.get("choice") is None and key["kind"] == "ab")):
            raise ValueError(
                f"{path}: item {item}: the choice is {answer.get('choice')!r}, which is none of its sounds"
            )
        elif key["kind"] == "abx" and answer.get("x") not in sounds:
            raise ValueError(f"{path}: item {item}: X is {answer.get('x')!r}, which is none of its sounds")
    return listener


def _check_ratings(ratings: Any, sounds: Mapping[str, str], where: str) -> None:
    if not isinstance(ratings, dict) or set(ratings) != set(sounds):
        raise ValueError(f"{where}: its ratings are not those of its {len(sounds)} sounds; ask for the file again")
    for code, value in ratings.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise ValueError(f"{where}: sound {code} is rated {value!r}: ratings lie between 0 and 100")


def _rated(
    answers: Mapping[str, Sequence[Mapping[str, Any]]], items: Mapping[str, Any], level: float, screen: bool
) -> Scores:
    # listener -> item -> system -> rating
    table = {
        listener: {
            answer["item"]: {items[answer["item"]]["sounds"][code]: float(value)
                             for code, value in answer["ratings"].items()}
            for answer in rows
        }
        for listener, rows in answers.items()
    }  # fmt: skip
    excluded = {name: why for name, rows in sorted(table.items()) if (why := _screened(rows))} if screen else {}
    kept = {name: table[name] for name in sorted(table) if name not in excluded and table[name]}
    systems = list(dict.fromkeys(system for item in items.values() for system in item["sounds"].values()))
    ratings = {one: _over_listeners("rating", _means(kept, one), level) for one in systems}
    differences = {
        f"{one} - {two}": _over_listeners("difference", _means(kept, one, two), level)
        for one, two in combinations(systems, 2)
    }
    by_item: dict[str, dict[str, float]] = {}
    for code, item in items.items():
        rows = [listener[code] for listener in kept.values() if code in listener]
        if rows:
            by_item[item["name"]] = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return Scores(kind="mushra", listeners=tuple(kept), excluded=excluded, ratings=ratings, differences=differences,
                  items=by_item)  # fmt: skip


def _screened(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Why a listener is left out, or nothing."""
    for system, sign, words in (
        (_REFERENCE, 1, "rates the hidden reference below 90"),
        (_MIDDLE, -1, "rates the 7 kHz anchor above 90"),
    ):
        values = [row[system] for row in rows.values() if system in row]
        count = sum(sign * value < sign * _LEVEL for value in values)
        if 100 * count > _PERCENT * len(values):
            return f"{words} in {count} of {len(values)} items, which is more than {_PERCENT} %"
    return ""


def _means(
    kept: Mapping[str, Mapping[str, Mapping[str, float]]], one: str, less: str | None = None
) -> dict[str, float]:
    """Each listener's mean rating of a system over the items that have it, or of its difference to another."""
    found = {}
    for name, rows in kept.items():
        values = [row[one] - (0.0 if less is None else row[less]) for row in rows.values()
                  if one in row and (less is None or less in row)]  # fmt: skip
        if values:
            found[name] = sum(values) / len(values)
    return found


def _over_listeners(metric: str, values: Mapping[str, float], level: float) -> Result:
    """The mean with Student's t interval over listeners, who are the independent unit; ``clips`` counts them."""
    count = len(values)
    if not count:
        return unavailable(metric, "higher", "no listener is left whose answers count")
    mean = sum(values.values()) / count
    result = Result(metric=metric, direction="higher", value=mean, level=level, clips=count, per_clip=dict(values),
                    notes=("one listener has no interval",) if count == 1 else ())  # fmt: skip
    if count == 1:
        return result
    error = math.sqrt(sum((value - mean) ** 2 for value in values.values()) / (count - 1) / count)
    return with_interval(result, error, count - 1)


def _preferred(
    answers: Mapping[str, Sequence[Mapping[str, Any]]], key: Mapping[str, Any], level: float
) -> tuple[Choice, ...]:
    counts: dict[tuple[str, str], dict[str, list[int]]] = {}
    for listener, rows in sorted(answers.items()):
        for answer in rows:
            sounds = key["items"][answer["item"]]["sounds"]
            first, second = sorted(sounds.values())
            place = 2 if answer["choice"] is None else (0 if sounds[answer["choice"]] == first else 1)
            counts.setdefault((first, second), {}).setdefault(listener, [0, 0, 0])[place] += 1
    return tuple(_choice(pair, table, level, both=True) for pair, table in sorted(counts.items()))


def _right(
    answers: Mapping[str, Sequence[Mapping[str, Any]]], items: Mapping[str, Any], level: float
) -> tuple[Choice, ...]:
    counts: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for listener, rows in sorted(answers.items()):
        for answer in rows:
            pair = tuple(sorted(items[answer["item"]]["sounds"].values()))
            place = 0 if answer["choice"] == answer["x"] else 1
            counts.setdefault(pair, {}).setdefault(listener, [0, 0, 0])[place] += 1
    return tuple(
        _choice(("right", "wrong"), table, level, both=False, systems=pair) for pair, table in sorted(counts.items())
    )


def _choice(
    pair: tuple[str, str], table: Mapping[str, Sequence[int]], level: float, both: bool, systems: tuple[str, ...] = ()
) -> Choice:
    wins, losses, ties = (sum(row[place] for row in table.values()) for place in range(3))
    count = wins + losses
    low, high = interval(wins, count, level) if count else (None, None)
    return Choice(
        first=pair[0], second=pair[1], wins=wins, losses=losses, ties=ties, share=wins / count if count else None,
        low=low, high=high, p=binomial_p(wins, count, both) if count else None, systems=systems,
        by_listener={name: (row[0], row[1], row[2]) for name, row in table.items()},
    )  # fmt: skip


def _log_mass(k: int, n: int, p: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(p) + (n - k) * math.log1p(-p)


def _above(k: int, n: int, p: float) -> float:
    """Probability of k or more of n."""
    return 1.0 if k <= 0 else min(1.0, math.fsum(math.exp(_log_mass(j, n, p)) for j in range(k, n + 1)))


def binomial_p(k: int, n: int, both: bool) -> float:
    """Exact p of k of n at even odds: two-sided (all outcomes no likelier than this one), or of k or more."""
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"{k} of {n} is no count: need 0 <= k <= n and n > 0")
    return _above(k, n, 0.5) if not both else min(1.0, 2 * _above(max(k, n - k), n, 0.5))


def interval(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a share of k of n, by bisection."""
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"{k} of {n} is no count: need 0 <= k <= n and n > 0")
    tail = (1 - level) / 2

    def solve(rising: Any) -> float:
        low, high = 1e-12, 1 - 1e-12
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if rising(middle) < 0 else (low, middle)
        return (low + high) / 2

    lower = 0.0 if k == 0 else solve(lambda p: _above(k, n, p) - tail)
    upper = 1.0 if k == n else solve(lambda p: tail - (1 - _above(k + 1, n, p)))
    return lower, upper
