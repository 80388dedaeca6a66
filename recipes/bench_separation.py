"""``descant bench separation``: how well stems are separated, between the floor of doing nothing and the oracles.

Songs are packed stems (``descant prepare stems``), which no separator of ours was trained on when they come from the
test split. Every method hears the same mixes; the oracles of :mod:`descant.eval.oracles` know the true stems.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import __version__
from ..codec.sink import whole_file
from ..eval import oracles
from ..eval.separation import BssSettings, median, utterance_sdr, windowed_sdr
from ..gen.separation.contract import Separator
from ..gen.separation.registry import REGISTRY, get
from . import bench_demucs, bench_real_stems, bench_roformer, bench_separation_limits, bench_separation_page
from .stems_data import StemCorpus

#: Separators that are scored on recordings, too: a method of each kind.
ON_RECORDINGS: tuple[str, ...] = ("embedded", "hpss", "centre", "repet-sim")
#: Separators on the audio page, and its folder.
HEARD, PAGE = ("embedded", "hpss", "repet-sim"), "separation-audio"
#: What methods with stems of their own call ours.
ALIASES: Mapping[str, str] = {"percussive": "drums", "vocals": "lead", "foreground": "lead", "melody": "lead"}
#: A stem quieter than this, in dB of the mix, does not play: there is nothing to separate, and its ratio says nothing.
ACTIVE = -50.0
_METHOD = Callable[[Tensor, Tensor, int], Mapping[str, Tensor]]


def report(
    data: str | os.PathLike[str], models: Sequence[str] = (), songs: int | None = None,
    said: Callable[[str], None] | None = None, real: str | os.PathLike[str] | None = None,
    limits: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Score the mixture, separators and oracles on the songs of a packed corpus.

    models: names or folders of separators (none: every one that is registered). songs: the first so many. real: a
    folder of recordings with their stems (see :mod:`descant.recipes.bench_real_stems`). limits: measure memory,
    promises and the cost of RoFormers, too. Raises ValueError for models that do not exist, or an empty corpus.
    """
    corpus = StemCorpus(data)
    count = min(songs or len(corpus), len(corpus))
    if count < 1:
        raise ValueError(f"{data} holds no songs to score: songs must be 1 or more")
    found = {str(name): get(name) for name in (models or REGISTRY)}
    rows = [_scored("mixture", "floor", _mixture(corpus.stems), corpus, count)]
    for name, method in found.items():
        if said is not None:
            said(f"{name}: {count} songs")
        rows.append(_scored(name, "separator", _separator(method, corpus.stems), corpus, count))
    for kind in oracles.ORACLES:
        if said is not None:
            said(f"oracle {kind}: {count} songs")
        rows.append(_scored(kind, "oracle", _oracle(kind, corpus.stems), corpus, count))
    on_real = None if real is None else bench_real_stems.report(real, models or ON_RECORDINGS, said=said)
    return {
        "schema": "descant-bench-separation/1", "descant": __version__, "songs": count, "rate": corpus.rate,
        "hours": round(sum(corpus.lengths[:count]) / corpus.rate / 3600, 3), "stems": list(corpus.stems),
        "fonts": sorted(set(corpus.fonts[:count])), "oracle_window": oracles.OracleSettings().window, "rows": rows,
        "real": on_real, "limits": bench_separation_limits.report() if limits else None, "demucs": None,
        "roformer": bench_roformer.report() if limits else None,
    }  # fmt: skip


def write(
    folder: str | os.PathLike[str], found: Mapping[str, Any], data: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Write ``separation.json`` and ``separation.md`` into a folder; returns both.

    With the corpus ``data`` also a page with its first songs in ``separation-audio``, where matplotlib is installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if data is not None:
        heard = [row["name"] for row in found["rows"] if row["kind"] == "separator" and row["name"] in HEARD]
        methods = {name: get(name) for name in heard}
        if bench_separation_page.write(folder / PAGE, StemCorpus(data), methods, ALIASES):
            found = {**found, "page": PAGE}
    if found.get("demucs") is None:  # measured by a command of its own, which is not asked again here
        found = {**found, "demucs": _held(folder).get("demucs")}
    files = {"separation.json": json.dumps(found, indent=1) + "\n", "separation.md": page(found)}
    for name, text in files.items():
        with whole_file(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def _held(folder: Path) -> dict[str, Any]:
    """The report that is in a folder."""
    path = folder / "separation.json"
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return held


def page(found: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    stems = found["stems"]
    lines = [
        "# Separation of rendered songs", "",
        f"{found['songs']} songs of the test split ({found['hours'] * 60:.0f} minutes at {found['rate']} Hz, rendered "
        f"with {', '.join(found['fonts'])}). uSDR in dB: 10 log10 of a stem's energy over the error's, the whole song "
        "at once, a mean over the songs in which the stem plays. cSDR: the median over windows of one second. Oracles "
        f"know the true stems and mask the mixture's spectrum (frames of {found['oracle_window']} samples).", "",
        f"| method | {' | '.join(stems)} | mean uSDR | mean cSDR | CPU s per s |",
        f"| :-- | {' | '.join('--:' for _ in stems)} | --: | --: | --: |",
    ]  # fmt: skip
    for row in found["rows"]:
        scores = " | ".join(_text(row["uSDR"].get(stem)) for stem in stems)
        name = f"{row['kind']} {row['name']}" if row["kind"] == "oracle" else row["name"]
        lines.append(f"| {name} | {scores} | {_text(row['mean'])} | {_text(row['cSDR'])} | {row['cpu']:.3f} |")
    fonts = found["fonts"]
    if len(fonts) > 1:
        lines += ["", "The same mean uSDR by sound font:", "", f"| method | {' | '.join(fonts)} |",
                  f"| :-- | {' | '.join('--:' for _ in fonts)} |"]  # fmt: skip
        lines += [
            f"| {row['name']} | {' | '.join(_text(row['fonts'].get(font)) for font in fonts)} |"
            for row in found["rows"] if row["kind"] != "oracle" and row["mean"] is not None
        ]  # fmt: skip
    lines += ["", "CPU seconds are those of one thread, per second of stereo sound."]
    if found.get("page"):
        lines += ["", f"[Players beside spectrograms]({found['page']}/index.html): stems heard, without a network."]
    if found.get("real"):
        lines += bench_real_stems.section(found["real"])
    if found.get("limits"):
        lines += bench_separation_limits.section(found["limits"])
    if found.get("demucs"):
        lines += bench_demucs.section(found["demucs"])
    if found.get("roformer"):
        lines += bench_roformer.section(found["roformer"])
    return "\n".join(lines) + "\n"


def _scored(name: str, kind: str, method: _METHOD, corpus: StemCorpus, count: int) -> dict[str, Any]:
    scores: dict[str, list[float]] = {stem: [] for stem in corpus.stems}
    framed: dict[str, list[float]] = {stem: [] for stem in corpus.stems}
    fonts: dict[str, dict[str, list[float]]] = {font: {s: [] for s in corpus.stems} for font in corpus.fonts[:count]}
    spent = seconds = 0.0
    for song in range(count):
        stems = corpus.song(song)
        mix = stems.sum(0)
        start = time.process_time()
        made = method(mix, stems, corpus.rate)
        spent, seconds = spent + time.process_time() - start, seconds + mix.shape[-1] / corpus.rate
        floor = float(mix.square().sum()) * 10 ** (ACTIVE / 10)
        for stem, estimate in made.items():
            target = stems[corpus.stems.index(stem)]
            if float(target.square().sum()) <= floor:
                continue
            score = float(utterance_sdr(target[None], estimate[None])[0])
            scores[stem].append(score)
            fonts[corpus.fonts[song]][stem].append(score)
            windows = windowed_sdr(target[None], estimate[None], corpus.rate, BssSettings(silence="own"))
            framed[stem].append(float(median(windows)[0]))
    means = {stem: _mean(values) for stem, values in scores.items() if values}
    return {
        "name": name, "kind": kind, "uSDR": {stem: round(value, 2) for stem, value in means.items()},
        "mean": _over_all(means, corpus.stems),
        "cSDR": _over_all({stem: _mean(values) for stem, values in framed.items() if values}, corpus.stems),
        "fonts": {
            font: _over_all({stem: _mean(values) for stem, values in rows.items() if values}, corpus.stems)
            for font, rows in fonts.items()
        },
        "cpu": round(spent / seconds, 4),
    }  # fmt: skip


def _separator(method: Separator, names: Sequence[str]) -> _METHOD:
    def run(mix: Tensor, stems: Tensor, rate: int) -> Mapping[str, Tensor]:
        made = {ALIASES.get(name, name): wav for name, wav in method.separate(mix, rate).items()}
        return {name: wav for name, wav in made.items() if name in names}

    return run


def _mixture(names: Sequence[str]) -> _METHOD:
    return lambda mix, stems, rate: dict.fromkeys(names, mix)


def _oracle(kind: str, names: Sequence[str]) -> _METHOD:
    return lambda mix, stems, rate: dict(zip(names, oracles.oracle(stems, kind), strict=True))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _over_all(means: Mapping[str, float], stems: Sequence[str]) -> float | None:
    """The mean over stems, of a method that makes all of them."""
    if any(stem not in means or math.isnan(means[stem]) for stem in stems):
        return None
    return round(sum(means.values()) / len(means), 2)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
