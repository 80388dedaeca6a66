"""The page of ``descant bench control --pieces``: what was to be reached, and every measure with its three rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import bench_report
from .bench import save_json
from .bench_report import bounds, p_value, table

#: Chance below which a condition counts as followed.
CHANCE = 0.01
#: The measure of parts beside stems.
PULSE = "beat F1 where the true part shows its pulse"
_NAMES = {"clean": "ours", "apart": "ours, separated context", "codec": "the true part through the codec"}
_HEADER = ("measure", "of", "own", "shuffled", "p", "clips")
_FOLLOWED = (
    ("tempo", "words", "tempo within 4 %"), ("key", "words", "key exact"), ("genre", "words", "genre"),
    ("instruments", "words", "instruments, likelihood in nats"), ("melody", "tunes", "melody"),
    ("chords", "tunes", "chords, share of time"), ("beat of a part beside stems", "parts", PULSE),
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """Something that was to be reached."""

    what: str
    value: float | None
    """None where nothing was measured."""
    least: float
    reached: bool
    at_most: bool = False


def goals(found: Mapping[str, Any]) -> list[Goal]:
    """All that was to be reached, with what was."""
    made = []
    for what, section, name in _FOLLOWED:
        row = _ours(found, section).get(name)
        p = None if row is None else row["p"]
        made.append(Goal(f"p of {what}", p, CHANCE, p is not None and p < CHANCE, at_most=True))

    def least(what: str, section: str, name: str, limit: float, value: Callable[[Mapping[str, float]], float]) -> None:
        row = _ours(found, section).get(name)
        reached = None if row is None else value(row)
        made.append(Goal(what, reached, limit, reached is not None and reached >= limit))

    least("tempo within 4 %", "words", "tempo within 4 %", 0.8, _mean)
    least("key exact", "words", "key exact", 0.75, _mean)
    least("melody", "tunes", "melody", 0.6, _mean)
    least(PULSE, "parts", PULSE, 0.8, _mean)
    least("the same, more than shuffled by", "parts", PULSE, 0.3, lambda row: row["mean"] - row["shuffled"])
    lost = gap(found)
    made.append(Goal("change of beat F1 beside separated stems", lost, 0.1, lost is not None and lost <= 0.1, True))
    return made


def gap(found: Mapping[str, Any]) -> float | None:
    """Share of the beat F1 that differs between separated and true stems as context."""
    rows = [found["parts"]["rows"][who].get(PULSE) for who in ("clean", "apart")]
    if rows[0] is None or rows[1] is None or not rows[0]["mean"]:
        return None
    return abs(1 - float(rows[1]["mean"]) / float(rows[0]["mean"]))


def write(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write ``adherence.json`` and ``adherence.md``; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    save_json(folder / "adherence.json", found)
    path = folder / "adherence.md"
    part = path.with_name(path.name + ".part")
    part.write_text(page(found), encoding="utf-8")
    part.replace(path)
    return path


def page(found: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    parts = [_head(found), _goals(found), _words(found), _judge(found), _parts(found), _tunes(found)]
    return "\n\n".join([*parts, bench_report.extend(found["seam"])]) + "\n"


def _head(found: Mapping[str, Any]) -> str:
    about, settings = found["about"], found["settings"]
    where = (
        "in no training piece do their genre, key and lead instrument meet" if found["held_out"] == "train"
        else "pieces of the test split, whose combinations of genre, key and lead instrument no training piece has"
    )  # fmt: skip
    return (
        f"# Does the model follow what it is given?\n\nMade by `{about['command']}` on {about['machine']['cpu']}; "
        f"descant {about['versions']['descant']}, torch {about['versions']['torch']}. Codec "
        f"{about['weights']['codec']}, language model of {about['weights']['lm_parameters'] / 1e6:.1f} M parameters. "
        f"{found['count']} held-out pieces ({where}), {settings['seconds']:g} s of each, seeds from "
        f"{settings['seed']}. Means with 95 % bootstrap intervals over clips. *Shuffled* is the same against other "
        "pieces' conditions, the floor; p is from a one-sided permutation test that re-assigns the conditions; the "
        "true music through the codec is the ceiling. Every figure is also in `adherence.json`."
    )


def _goals(found: Mapping[str, Any]) -> str:
    rows = []
    for goal in goals(found):
        chance = goal.what.startswith("p of")
        value = "not measured" if goal.value is None else f"{goal.value:.3f}"
        value = "< 0.001" if chance and goal.value is not None and goal.value < 1e-3 else value
        sign = "<" if chance else "at most" if goal.at_most else "at least"
        rows.append([goal.what, f"{sign} {goal.least:g}", value, "reached" if goal.reached else "**missed**"])
    return "## What was to be reached\n\n" + table(["", "wanted", "found", ""], rows)


def _words(found: Mapping[str, Any]) -> str:
    return bench_report.adherence({**found["words"], "prompts": range(found["count"])})


def _judge(found: Mapping[str, Any]) -> str:
    names = {"ours": "ours", "codec": "true clips through the codec", "plain": "true clips",
             "noise": "true clips with noise at -10 dB"}  # fmt: skip
    lines = []
    for measure in found["judge"]["ours"]:
        for who, name in names.items():
            row = found["judge"][who].get(measure)
            if row is not None:
                lines.append(_line(measure, name, row, 3))
    return (
        "## What the judge thinks of it\n\nLikeness of clip and sentence in the judge's joint space; divergence of "
        "the tags it hears from those of the true clip; Fréchet distance of its vectors from the true clips', without "
        "the bias of small sets. For the latter two less is better, and the noise stands for the floor.\n\n"
        + table(_HEADER, lines)
    )


def _parts(found: Mapping[str, Any]) -> str:
    parts = found["parts"]
    asked = ", ".join(f"{role} {count}" for role, count in found["targets"].items() if count)
    lines = [
        _line(measure, name, parts["rows"][who][measure])
        for measure in parts["rows"]["clean"] for who, name in _NAMES.items() if measure in parts["rows"][who]
    ]  # fmt: skip
    total = sum(found["targets"].values())
    alike = "; ".join(f"{name} {parts['alike'][who]:.2f}" for who, name in _NAMES.items()
                      if parts["alike"][who] is not None)  # fmt: skip
    roles = [
        [role, str(row["count"]), *(f"{row[who][name]:.2f}" for name in ("beat F1", "onset F1") for who in _NAMES)]
        for role, row in parts["roles"].items()
    ]
    header = ["part", "pieces", *(f"{name}, {who}" for name in ("beat F1", "onset F1") for who in _NAMES.values())]
    lost = gap(found)
    told = "" if lost is None else f" Separated instead of true stems change the beat F1 by {100 * lost:.1f} %."
    return (
        f"## Parts beside given stems\n\nOne part of each piece is played anew to all the others ({asked}). Beat F1: "
        "the part alone is followed at the tempo of the others, counted between 85 and 170, and compared with the "
        "score's beats or, where they fit better, its off-beats, within 70 ms or an eighth of a beat. "
        f"{parts['shown']} of {total} *true* parts show their pulse (F1 of 0.8 or more without the codec); the others, "
        "syncopated comping mostly, cannot be judged this way and are left out of the first rows, whatever was "
        "generated for them. *Separated context* hears the others as our separator finds them in the whole mix, with "
        f"traces of the part in it: a model that copied would do better there.{told} Against pieces whose tempo is "
        f"within 4 %: {alike or 'none'}.\n\n{table(_HEADER, lines)}\n\nBy part, all pieces:\n\n{table(header, roles)}"
    )


def _tunes(found: Mapping[str, Any]) -> str:
    names = {"ours": "ours", "codec": "true mixes through the codec", "true": "true mixes"}
    lines = [
        _line(measure, name, found["tunes"][who][measure])
        for measure in found["tunes"]["ours"] for who, name in names.items() if measure in found["tunes"][who]
    ]  # fmt: skip
    return (
        "## Tunes and chords\n\nMixes made from genre, tempo, key, tune and chords, one a bar, of the same pieces; the "
        "tune is followed in the whole mix by an analyser that conditions nothing. Truth is measured against its own "
        "chords, which may change within a bar.\n\n" + table(_HEADER, lines)
    )


def _line(measure: str, who: str, row: Mapping[str, Any], digits: int = 2) -> Sequence[str]:
    if digits == 2:
        own = bounds(row)
    else:
        limits = "" if row["low"] is None else f" [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"
        own = f"**{row['mean']:.{digits}f}**{limits}"
    shuffled = f"{row['shuffled']:.{digits}f}" if "shuffled" in row else ""
    return [measure, who, own, shuffled, p_value(row["p"]) if "p" in row else "", str(row["count"])]


def _ours(found: Mapping[str, Any], section: str) -> Mapping[str, Mapping[str, float]]:
    rows: Mapping[str, Mapping[str, float]] = (
        found["parts"]["rows"]["clean"] if section == "parts"
        else found["tunes"]["ours"] if section == "tunes" else found["words"]["rows"]["ours"]
    )  # fmt: skip
    return rows


def _mean(row: Mapping[str, float]) -> float:
    return row["mean"]
