"""``descant bench codec``: our codecs beside Opus, MP3, other codecs and controls, on held-out recordings.

Every score is kept in the cache under what it was computed from (:mod:`descant.recipes.bench_codec_score`), so a
stopped run goes on and a new codec is scored without scoring the others again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..eval.reconstruction import book_use
from . import bench_codec_page, bench_codec_plots, bench_codec_report, bench_codec_speed
from .bench import save_json
from .bench_codec_clips import Clip, choose, credit
from .bench_codec_score import Scores, Task, score_all, table
from .bench_codec_stats import interval, paired, rate_for
from .bench_codec_systems import System, codec_mark, codes_of, loaded, systems, tables_of

#: Measures whose larger values are better; of the others smaller ones are.
RISING: tuple[str, ...] = ("visqol", "si_sdr")
#: Measures compared with Opus.
COMPARED: tuple[str, ...] = ("visqol", "mel", "stft", "si_sdr")


@dataclass(frozen=True, kw_only=True)
class CodecBenchConfig:
    """What to score on what."""

    real: tuple[str, ...]
    """Folders with held-out recordings."""
    codecs: tuple[str, ...] = ("tiny",)
    """Codecs of ours: preset names in the package, or folders."""
    peers: tuple[str, ...] = ()
    """Folders with other codecs."""
    out: str = "docs/benchmarks"
    cache: str = "runs/bench"
    rate: int = 32000
    """Rate in Hz at which everything is scored."""
    channels: int = 1
    clips: int = 64
    """Excerpts: 64 of 10 s are nearly eleven minutes."""
    visqol_clips: int = 64
    """Excerpts that ViSQOL hears, the first ones (all, if that is more than there are); it takes most of the time."""
    use_clips: int = 180
    """Excerpts over which codebook use is counted."""
    seconds: float = 10.0
    workers: int = 2

    def __post_init__(self) -> None:
        if not self.real or not self.codecs:
            raise ValueError("need a folder with recordings and a codec to score")
        if self.channels not in (1, 2):
            raise ValueError(f"channels is {self.channels}: use 1 or 2")
        if not 8000 <= self.rate <= 48_000:
            raise ValueError(f"rate is {self.rate}: use 8000 to 48000")
        for name in ("clips", "visqol_clips", "use_clips", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: use at least 1")
        if self.seconds < 1:
            raise ValueError(f"excerpts of {self.seconds} s are too short to score: use 1 s or more")


def run(
    config: CodecBenchConfig, log: Callable[[str], None] | None = None, command: str = "descant bench codec"
) -> dict[str, Any]:
    """Score what the cache lacks and write ``codec.md``, ``codec.json``, plots and the audio page into ``config.out``.

    Returns what ``codec.json`` holds.
    """
    tell = log or (lambda text: None)
    clips = choose(config.real, max(config.clips, config.use_clips), config.seconds, config.rate, config.channels)
    scored, heard = clips[: config.clips], clips[: min(config.clips, config.visqol_clips)]
    tell(f"{len(scored)} excerpts of {config.seconds:g} s from {len({clip.recording for clip in scored})} recordings")
    sources = named((*config.codecs, *config.peers))
    ours = {name: source for name, source in sources.items() if source in config.codecs}
    rows = systems(ours, {name: sources[name] for name in sources if name not in ours}, config.rate, config.channels)
    scores = Scores(Path(config.cache) / "codec-scores.jsonl")
    tasks = [Task(clip, row, visqol) for clip in scored for row in rows for visqol in (False, True)
             if not visqol or clip in heard]  # fmt: skip
    score_all(tasks, scores, config.workers, _teller(tell))
    found = table(rows, scored, heard, scores)
    named_clips = {clip.digest: clip for clip in scored}
    report = {
        "about": about(config, rows, clips, command),
        "systems": [summary(row, found[row.name], named_clips) for row in rows],
        "paired": against_opus(rows, found, named_clips),
        "use": {name: _use(config, source, clips) for name, source in sources.items()},
        "speed": _speed(config, sources, scored[0]),
        "clips": [_credited(clip) for clip in scored],
    }
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    drawn = bench_codec_plots.draw(out, report)
    page = bench_codec_page.write(out / "codec-audio", rows, scored, tell)
    if page:
        drawn.append(bench_codec_plots.spectrograms(out, page))
    save_json(out / "codec.json", report)
    bench_codec_report.write(out, report, drawn, bool(page))
    return report


def named(sources: Sequence[str]) -> dict[str, str]:
    """Names to show for codecs: the last part of a folder's name; the whole where two would be the same."""
    short = [Path(source).name or source for source in sources]
    return {name if short.count(name) == 1 else source: source for name, source in zip(short, sources, strict=True)}


def summary(row: System, found: Mapping[str, Mapping[str, float]], clips: Mapping[str, Clip]) -> dict[str, Any]:
    """A row of the report: means with intervals, and every excerpt's score in the order of ``clips``."""
    each = {
        measure: [float(f"{values[digest]:.5g}") if digest in values else None for digest in clips]
        for measure, values in found.items()
    }
    return {
        "system": row.name, "family": row.family, "kind": row.kind, "ours": row.ours, "books": row.books,
        "nominal_kbps": row.kbps, "mean": {name: interval(values, clips) for name, values in found.items()},
        "clips": each,
    }  # fmt: skip


def against_opus(
    rows: Sequence[System], found: Mapping[str, Mapping[str, Mapping[str, float]]], clips: Mapping[str, Clip]
) -> list[dict[str, Any]]:
    """For every codec row: differences from each rate of Opus, the nearest in bytes, and the rate Opus needs."""
    rates = {row.name: interval(found[row.name]["kbps"], clips)[0] for row in rows if row.kind != "control"}
    opus = [row.name for row in rows if row.kind == "opus"]
    out = []
    for row in rows:
        if row.kind != "codec":
            continue
        equal = {}
        for measure in COMPARED:
            curve = [(rates[name], interval(found[name][measure], clips)[0]) for name in opus]
            equal[measure] = rate_for(interval(found[row.name][measure], clips)[0], curve, measure in RISING)
        out.append({
            "system": row.name, "kbps": rates[row.name], "ours": row.ours, "opus_kbps_for_the_same": equal,
            "nearest": min(opus, key=lambda name: abs(rates[name] - rates[row.name])),
            "minus": {
                name: {"kbps": rates[name]} | {
                    measure: paired(found[row.name][measure], found[name][measure], clips) for measure in COMPARED
                } for name in opus
            },
        })  # fmt: skip
    return out


def about(config: CodecBenchConfig, rows: Sequence[System], clips: Sequence[Clip], command: str) -> dict[str, Any]:
    """Machine, versions, codecs and settings of a run."""
    import soundfile

    from .. import __version__
    from .bench_codec_score import version

    weights = {}
    for row in rows:
        if row.kind == "codec":
            codec = loaded(row.source)
            weights[row.family] = {
                "fingerprint": bytes(codec.fingerprint).hex(), "rate": codec.rate, "channels": codec.channels,
                "books": codec.books, "cardinality": codec.cardinality, "frame_rate": codec.frame_rate,
                "parameters": sum(part.numel() for part in codec.parameters())
                if isinstance(codec, torch.nn.Module) else None, "ours": row.ours,
            }  # fmt: skip
    scored = clips[: config.clips]
    return {
        "command": command,
        "machine": {"cpu": bench_codec_speed.processor(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {
            "descant": __version__, "torch": torch.__version__, "python": platform.python_version(),
            "libsndfile": soundfile.__libsndfile_version__, "visqol-python": version(True),
        },
        "codecs": weights,
        "settings": {
            "rate": config.rate, "channels": config.channels, "seconds": config.seconds, "clips": len(scored),
            "visqol_clips": min(config.visqol_clips, len(scored)),
        },
        "recordings": len({clip.recording for clip in scored}),
    }  # fmt: skip


def _use(config: CodecBenchConfig, source: str, clips: Sequence[Clip]) -> list[dict[str, float]]:
    codec = loaded(source)
    chosen = clips[: config.use_clips]
    key = hashlib.sha256("".join([codec_mark(codec), *(clip.digest for clip in chosen)]).encode()).hexdigest()[:24]

    def count() -> list[dict[str, float]]:
        with torch.no_grad():
            codes = torch.cat([codes_of(codec, clip.read(), clip.rate) for clip in chosen], dim=-1)
        return [
            {"entropy": book.entropy, "efficiency": book.efficiency, "corrected": book.corrected, "dead": book.dead,
             "frames": book.frames} for book in book_use(codes, codec.cardinality)
        ]  # fmt: skip

    found: list[dict[str, float]] = _kept(Path(config.cache) / "codec-use" / f"{key}.json", count)
    return found


def _speed(config: CodecBenchConfig, codecs: Mapping[str, str], clip: Clip) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    cpu = bench_codec_speed.processor()
    folder, wav = Path(config.cache) / "codec-speed", clip.read()
    for name, source in codecs.items():
        codec = loaded(source)
        streams = source in config.codecs
        tables = tables_of(source) if streams else None
        mark = codec_mark(codec, tables)
        key = hashlib.sha256(f"{mark} {cpu} {torch.__version__} {streams}".encode()).hexdigest()[:24]
        measure = partial(bench_codec_speed.of_codec, codec, wav, clip.rate, streams, tables)
        found[name] = _kept(folder / f"{key}.json", measure)
    formats = _kept(
        folder / f"{hashlib.sha256(cpu.encode()).hexdigest()[:24]}-{config.channels}.json",
        lambda: bench_codec_speed.of_file_formats(wav, clip.rate),
    )
    return {**found, **formats}


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    """What the file holds, or what ``make`` returns, then put there."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_json(path, make())
    return json.loads(path.read_text(encoding="utf-8"))


def _credited(clip: Clip) -> dict[str, Any]:
    row = credit(clip.path)
    told = {} if row is None else {"title": row.title, "author": row.author, "licence": row.licence,
                                   "source": row.source}  # fmt: skip
    return {"name": clip.name, "recording": clip.recording, "start": clip.start, "digest": clip.digest, **told}


def _teller(tell: Callable[[str], None]) -> Callable[[int, int, Task], None]:
    """Tells now and then how far the scoring is and how long the rest will take."""
    began = time.monotonic()

    def step(done: int, of: int, task: Task) -> None:
        if done == of or done % 20 == 1:
            left = (time.monotonic() - began) / done * (of - done) / 60
            tell(f"{done} of {of}: {task.system.name} on {task.clip.name}; about {left:.0f} min left")

    return step
