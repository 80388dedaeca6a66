"""How well does the judge hear? Attributes, sentences and retrieval on labelled pieces it never met, beside chance."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..eval.judge import Judge
from ..eval.metric import write_whole
from .bench_report import table
from .judge import evaluate
from .judge_data import JudgeSet

#: Measure -> what it is called, and the name of its chance level or the level itself.
ROWS: Mapping[str, tuple[str, str | float]] = {
    "genre": ("genre, by its head", "genre_chance"),
    "zero_shot_genre": ("genre, by the nearest sentence", "genre_chance"),
    "key": ("key, by its head", "key_chance"),
    "zero_shot_key": ("key, by the nearest sentence", "key_chance"),
    "tempo": ("tempo class or a neighbour, by its head", "tempo_chance"),
    "zero_shot_tempo": ("tempo class or a neighbour, by the nearest sentence", "tempo_chance"),
    "lead": ("lead instrument", "lead_chance"),
    "instrument_auc": ("instruments, area under the ROC curve", 0.5),
    "zero_shot_instrument_auc": ("instruments by sentences, area under the ROC curve", 0.5),
    "instrument_f1": ("instruments, F1", "instrument_f1_chance"),
    "family_auc": ("instrument families, area under the ROC curve", 0.5),
    "family_f1": ("instrument families, F1", "family_f1_chance"),
    "audio_to_text_r1": ("clip finds its caption, R@1", "1/n"),
    "text_to_audio_r1": ("caption finds its clip, R@1", "1/n"),
    "audio_to_text_r10": ("clip finds its caption, R@10", "10/n"),
    "text_to_audio_r10": ("caption finds its clip, R@10", "10/n"),
}
_PROPORTIONS = {"genre", "zero_shot_genre", "key", "zero_shot_key", "tempo", "zero_shot_tempo", "lead"}


def run(judge: Judge, sets: Mapping[str, str | Path], clips: int | None = None) -> dict[str, Any]:
    """Score the judge on folders of :func:`descant.recipes.judge_data.prepare`: name -> folder.

    clips: how many clips of each (default: two a piece). Every other one is damaged where the folder has that.
    """
    if not sets:
        raise ValueError("no labelled pieces to listen to: name a folder made by 'descant prepare judge'")
    out: dict[str, Any] = {"judge": judge.id, "machine": f"{platform.machine()}, Python {platform.python_version()}"}
    out["sets"] = {}
    for name, folder in sets.items():
        data = JudgeSet(folder)
        count = clips or 2 * len(data.pieces)
        out["sets"][name] = {"clips": count, "pieces": len(data.pieces), "scores": evaluate(judge, data, count)}
    return out


def write(out: str | Path, report: Mapping[str, Any], command: str = "") -> Path:
    """``judge.json`` and ``judge.md`` in a folder."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "judge.json", (json.dumps(report, indent=1) + "\n").encode())
    write_whole(folder / "judge.md", markdown(report, command).encode())
    return folder / "judge.md"


def markdown(report: Mapping[str, Any], command: str = "") -> str:
    """The page."""
    text = [
        "# How well the judge hears",
        "",
        f"`{report['judge']}`, on labelled pieces whose styles, combinations and seeds it never met. Chance is the "
        "best constant answer; 95 % intervals of shares are Wilson's.",
        "",
    ]
    for name, part in report["sets"].items():
        scores, count = part["scores"], part["clips"]
        rows = []
        for key, (label, level) in ROWS.items():
            if key in scores:
                rows.append([label, _value(key, scores[key], count), f"{_chance(level, scores):.3f}"])
        text += [f"## {name}", "", f"{count} clips of 10 s from {part['pieces']} pieces.", ""]
        text += [table(["measure", "judge", "chance"], rows), ""]
    if command:
        text += [f"Made by `{command}` ({report['machine']}).", ""]
    return "\n".join(text)


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson, "Probable Inference", 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def _value(key: str, value: float, count: int) -> str:
    if key not in _PROPORTIONS:
        return f"{value:.3f}"
    low, high = wilson(value, count)
    return f"{value:.3f} ({low:.2f} to {high:.2f})"


def _chance(level: str | float, scores: Mapping[str, float]) -> float:
    if isinstance(level, float):
        return level
    if level.endswith("/n"):
        return min(1.0, float(level[:-2]) / scores["retrieval_clips"])
    return scores[level]
