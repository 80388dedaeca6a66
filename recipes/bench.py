"""``descant bench main``: every figure of the front page, from the shipped weights, resumable section by section.

Sections: ``codec`` (what survives at 2 and 4 kbps), ``adherence`` (does the music follow the sentence), ``lm``
(cross-entropy beside n-grams), ``speed`` (a whole process from start to file), ``extend`` (is the seam audible).
Finished sections and finished clips are kept in the cache folder under the weights' fingerprint: a killed run goes on
where it stopped, new weights start afresh, and changed analysers listen again to the clips that are there.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codec import audio
from ..codec.contract import Codec
from ..eval import judge, judge_ear, rhythm, tonality
from . import bench_adherence, bench_codec, bench_lm, bench_report, bench_verbs
from .clips import busiest, clip_of
from .piece import Piece, read_pieces
from .prepare import fingerprint

if TYPE_CHECKING:
    from ..gen.load import Studio

SECTIONS: tuple[str, ...] = ("codec", "adherence", "lm", "speed", "extend")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure and where things are."""

    data: str
    """Folder with ``train.jsonl.gz`` and ``test.jsonl.gz`` of rendered pieces."""
    real: str | None = None
    """Folder with held-out recordings; their rows are left out without it."""
    tokens: str | None = None
    """Folder with ``train`` and ``test`` token shards of the same codec; the ``lm`` section is left out without it."""
    out: str = "docs/benchmarks"
    cache: str = "runs/bench"
    model: str = "embedded"
    judge: str | None = None
    """Folder of the judge; the one in the package by default."""
    soundfont: str | None = None
    prompts: int = 64
    seconds: float = 10.0
    clips: int = 16
    """Clips of each kind that ViSQOL hears."""
    use_clips: int = 96
    """Clips of each kind over which codebook use is counted."""
    seed: int = 2024

    def __post_init__(self) -> None:
        if self.prompts < 2 or self.clips < 1 or self.use_clips < self.clips:
            raise ValueError("need at least 2 prompts, 1 clip, and as many clips for codebook use as for scores")
        if self.seconds < 5:
            raise ValueError(f"clips of {self.seconds} s are too short to tell a tempo: use 5 s or more")


class Bench:
    """The things sections share, each made when first needed."""

    def __init__(self, config: BenchConfig, log: Callable[[str], None]) -> None:
        self.config, self.log = config, log

    @cached_property
    def studio(self) -> Studio:
        """The model under test."""
        from ..gen.load import load

        return load(self.config.model)

    @property
    def codec(self) -> Codec:
        """The codec under test."""
        codec: Codec = self.studio.codec
        return codec

    @cached_property
    def judge(self) -> judge.Judge:
        """The judge."""
        return judge.load(self.config.judge)

    def pieces(self, split: str) -> list[Piece]:
        """Pieces of a split. Raises ValueError when its file is missing."""
        path = Path(self.config.data) / f"{split}.jsonl.gz"
        if not path.is_file():
            raise ValueError(f"no {path}: make the pieces with 'descant render' and name their folder with --data")
        return list(read_pieces(path))

    @cached_property
    def prompts(self) -> list[tuple[Piece, bench_adherence.Wanted]]:
        """Held-out prompts and the pieces they describe."""
        return bench_adherence.held_out_prompts(self.pieces("test"), self.pieces("train"), self.config.prompts)

    def true_clip(self, piece: Piece) -> Tensor:
        """The fullest window of a piece, rendered: [T] at 32 kHz."""
        seconds = self.config.seconds
        return clip_of(piece, busiest(piece, seconds), seconds, self.config.soundfont)

    def real_clips(self, count: int) -> dict[str, Tensor]:
        """``count`` mono clips [1, T] spread evenly over the held-out recordings, quiet ones passed over."""
        if self.config.real is None:
            return {}
        kinds = (".ogg", ".flac", ".wav", ".opus")
        files = sorted(path for path in Path(self.config.real).rglob("*") if path.suffix.lower() in kinds)
        if not files:
            raise ValueError(f"no recordings (.ogg .flac .wav .opus) under {self.config.real}")
        found: dict[str, Tensor] = {}
        per_file = -(-count // len(files))
        for index in range(per_file):
            for path in files:
                length = audio.info(path).duration - self.config.seconds
                start = max(0.0, length) * (index + 0.5) / per_file
                clip = audio.read(path, self.codec.rate, 1, start, self.config.seconds).wav
                if len(found) < count and clip.shape[-1] > self.codec.rate and float(clip.square().mean()) > 1e-5:
                    found[f"{path.stem}@{start:.0f}s"] = clip
        return found

    @cached_property
    def mark(self) -> str:
        """What cached results depend on: weights and settings."""
        import hashlib

        digest = hashlib.sha256(self.codec.fingerprint)
        for name, value in sorted(self.studio.lm.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
        kept = {k: v for k, v in asdict(self.config).items() if k not in ("out", "cache")}
        digest.update(json.dumps(kept, sort_keys=True).encode())
        return digest.hexdigest()[:12]

    @cached_property
    def judged_by(self) -> str:
        """What cached analyses depend on: the analysers' code and the judge's weights."""
        import hashlib

        digest = hashlib.sha256()
        for module in (rhythm, tonality, judge, judge_ear, bench_adherence):
            digest.update(Path(str(module.__file__)).read_bytes())
        for name, value in sorted(self.judge.state_dict().items()):
            digest.update(name.encode() + value.float().numpy().tobytes())
        return digest.hexdigest()[:8]

    def part(self, section: str) -> Path:
        """Where the finished figures of a section are kept."""
        return self.folder / (f"{section}-{self.judged_by}.json" if section == "adherence" else f"{section}.json")

    @cached_property
    def folder(self) -> Path:
        """Where this run's parts are kept."""
        path = Path(self.config.cache) / self.mark
        path.mkdir(parents=True, exist_ok=True)
        return path


def run(
    config: BenchConfig,
    only: Sequence[str] | None = None,
    log: Callable[[str], None] | None = None,
    command: str = "descant bench main",
) -> dict[str, Any]:
    """Measure (or take from the cache) the sections ``only``, all by default, and write the report.

    Returns what ``main.json`` holds. Raises ValueError for an unknown section.
    """
    chosen = tuple(only or SECTIONS)
    unknown = sorted(set(chosen) - set(SECTIONS))
    if unknown:
        raise ValueError(f"unknown section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    bench = Bench(config, log or (lambda text: None))
    results: dict[str, Any] = {}
    for name in SECTIONS:
        path = bench.part(name)
        if not path.is_file() and name in chosen:
            bench.log(f"{name}: measuring")
            began = time.perf_counter()
            found = _MEASURES[name](bench)
            found["took_s"] = round(time.perf_counter() - began, 1)
            save_json(path, found)
        if path.is_file():
            results[name] = json.loads(path.read_text(encoding="utf-8"))
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"about": about(bench, command), "sections": results}
    if "adherence" in results:
        report["examples"] = bench_verbs.examples(bench, out)
    save_json(out / "main.json", report)
    bench_report.write(out, report)
    return report


def about(bench: Bench, command: str) -> dict[str, Any]:
    """Machine, versions, weights and settings of a run."""
    from .. import __version__

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    places = ("data", "real", "tokens", "cache", "out", "soundfont", "judge")
    settings = {name: value for name, value in asdict(bench.config).items() if name not in places}
    cores = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return {
        "command": command,
        "machine": {"cpu": name, **cores, "system": platform.system()},
        "versions": {"descant": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "weights": {
            "codec": fingerprint(bench.codec),
            "codec_parameters": sum(value.numel() for value in _module(bench.codec).parameters()),
            "lm_parameters": sum(value.numel() for value in bench.studio.lm.parameters()),
            "mark": bench.mark,
        },
        "settings": settings,
    }


def _module(codec: Codec) -> torch.nn.Module:
    if not isinstance(codec, torch.nn.Module):
        raise TypeError(f"{type(codec).__name__} is no torch module: the report counts parameters")
    return codec


def save_json(path: Path, value: Any) -> None:
    """Write JSON under a temporary name and rename it."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _codec(bench: Bench) -> dict[str, Any]:
    config, out = bench.config, {}
    books = sorted({min(4, bench.codec.books), bench.codec.books})
    pieces = [piece for piece in bench.pieces("test") if piece.duration >= config.seconds]
    step = max(1, len(pieces) // config.use_clips)
    rendered = {piece.id: bench.true_clip(piece)[None] for piece in pieces[::step][: config.use_clips]}
    for kind, clips in (("rendered", rendered), ("real", bench.real_clips(config.use_clips))):
        if not clips:
            continue
        # spread over the whole set, since pieces and files come sorted
        heard = dict(list(clips.items())[:: max(1, len(clips) // config.clips)][: config.clips])
        path = bench.folder / f"codec-{kind}.json"
        if not path.is_file():
            scores = bench_codec.measure(bench.codec, heard, books, progress=bench.log)
            scores["use"] = bench_codec.use(bench.codec, list(clips.values()))
            save_json(path, scores)
        out[kind] = json.loads(path.read_text(encoding="utf-8"))
    return out


def _adherence(bench: Bench) -> dict[str, Any]:
    return bench_verbs.adherence(bench)


def _lm(bench: Bench) -> dict[str, Any]:
    if bench.config.tokens is None:
        return {"left_out": "no token shards were named"}
    tokens = Path(bench.config.tokens)
    return bench_lm.measure(bench.studio.lm, tokens / "train", tokens / "test", fingerprint(bench.codec))


def _speed(bench: Bench) -> dict[str, Any]:
    return bench_verbs.speed(bench.config.model, bench.config.seconds)


def _extend(bench: Bench) -> dict[str, Any]:
    return bench_verbs.extend(bench)


_MEASURES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "codec": _codec,
    "adherence": _adherence,
    "lm": _lm,
    "speed": _speed,
    "extend": _extend,
}
