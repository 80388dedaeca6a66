"""A small report with sounds of its own, for the tests of pages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from descant.codec.audio import Audio, write
from descant.eval.metric import Result, average
from descant.eval.recipe import named
from descant.eval.report.results import CheckGroup, CheckRow, Plot, Report, SelfCheck, Side

RATE = 16_000
NASTY = '<script>document.title="broken"</script> "quoted" & \'single\' 日本 \u202e'
#: A file name that means something else in an address, in markup and in a shell.
FILE = "a #1 50% \"q\" 'é' ?&<b>.wav"


def tone(pitch: float, seconds: float = 1.0, rate: int = RATE, level: float = 0.3) -> Audio:
    """A sine with two overtones."""
    time = torch.arange(round(seconds * rate)) / rate
    return Audio(sum(level / k * torch.sin(2 * math.pi * pitch * k * time) for k in (1, 2, 3))[None], rate)


def check(ok: bool = True) -> SelfCheck:
    """A self-check of one judge, in order or not."""
    rows = (
        CheckRow(name="reference halves", value=1.0, low=0.8, high=1.2),
        CheckRow(name="codec reconstruction", value=2.0 if ok else 0.5, above="reference halves", ok=ok),
        CheckRow(name="other clips' captions", value=0.02),
        CheckRow(name="own captions", value=0.3, low=0.25, high=0.35, above="other clips' captions"),
    )
    reason = None if ok else "logmel-1: 'codec reconstruction' is not above 'reference halves'"
    return SelfCheck(groups=(CheckGroup(judge="logmel-1", rows=rows),), reason=reason)


def report(folder: Path, clips: int = 12, ok: bool = True) -> Report:
    """A report on ``clips`` tones, which are written into ``folder``."""
    (folder / "gen").mkdir(parents=True, exist_ok=True)
    about: dict[str, Mapping[str, Any]] = {}
    for k in range(clips):
        name, file = (NASTY, FILE) if k == 0 else (f"clip {k:02d}", f"{k:02d}.wav")
        write(folder / "gen" / file, tone(220 * 2 ** (k / 12)))
        about[name] = {
            "file": f"gen/{file}", "seconds": 1.0, "caption": NASTY if k == 1 else f"a tone, number {k}",
            "conditions": {"key": "A minor"} | ({"melody": "gen/02.wav"} if k == 3 else {}),
            "reference": "gen/01.wav" if k > 1 else None,
        }  # fmt: skip
    recipes = named("descant-v1")
    scores = {name: 0.1 + 0.05 * ((7 * k) % clips) for k, name in enumerate(about)}
    fad = Result(
        metric="frechet", direction="lower", recipe=recipes["frechet"].id, value=9.0, corrected=6.5, error=0.5, low=5.5,
        high=7.5, clips=clips, windows=10 * clips, notes=(NASTY,), per_clip={n: float(k) for k, n in enumerate(about)},
    )  # fmt: skip
    clap = average("clap", "higher", scores, recipes["clap"].id)
    rows = (
        fad,
        replace(clap, extra={"chance": 0.05}),
        Result(metric="melody", direction="higher", recipe=recipes["clap"].id, reason=f"no melody was given {NASTY}"),
    )
    side = Side(name=f"run {NASTY}", folder=str(folder / "gen"), clips=clips, seconds=float(clips), digest="ab" * 32,
                failures={NASTY: f"is damaged {NASTY}"}, silent=(NASTY,))  # fmt: skip
    sizes = (4, 6, 8, 12)
    curve = Plot(x=tuple(1 / n for n in sizes), y=tuple(6.5 + 30 / n for n in sizes), error=(0.4, 0.3, 0.2, 0.1),
                 x_label="1 / clips", y_label="Fréchet distance",
                 fit={"intercept": 6.5, "slope": 30.0, "r2": 1.0})  # fmt: skip
    return Report(
        version="1.0", created="2026-01-01T00:00:00+00:00", command=("descant", "score", "--generated", NASTY), seed=0,
        generated=side, reference=replace(side, failures={}, silent=()), recipes={r.id: r for r in recipes.values()},
        results=rows, self_check=check(ok), curves={"frechet": curve}, clips=about,
        inputs={"prompts": {"source": NASTY, "clips": clips}}, notes=(NASTY,),
    )  # fmt: skip


def save(folder: Path, made: Report) -> Path:
    """Write the record alone."""
    (folder / "results.json").write_text(json.dumps(made.to_json()), encoding="utf-8")
    return folder
