"""The verbs' part of the benchmark: generate from held-out sentences, time a whole process, listen at a seam."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..codec import audio
from ..eval import reconstruction, seam
from ..eval.statistics import bootstrap
from .bench_adherence import Heard, analyse, relations, score
from .bench_codec import through_codec
from .clips import RATE

if TYPE_CHECKING:
    from .bench import Bench

_BETWEEN = """
import json, os, pathlib, sys, time
began = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
figures = [time.perf_counter() - began, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]
pathlib.Path(sys.argv[1]).write_text(json.dumps(figures))
"""
_SENTENCE = "an upbeat bossa nova in G minor with flute and nylon guitar"


def adherence(bench: Bench) -> dict[str, Any]:
    """Generate every held-out prompt, analyse it, and the true clips plain and through the codec."""
    folder = bench.folder / "adherence"
    folder.mkdir(exist_ok=True)
    rows: dict[str, list[Heard]] = {"ours": [], "codec": [], "plain": []}
    for index, (_, prompt) in enumerate(bench.prompts):
        place = folder / f"{index:03d}-{bench.judged_by}.json"
        if not place.is_file():
            bench.log(f"adherence: {index + 1} of {len(bench.prompts)}: {prompt.text}")
            clips = sounds(bench, index)
            heard = {name: asdict(analyse(wav, rate, bench.judge)) for name, (wav, rate) in clips.items()}
            place.write_text(json.dumps(heard), encoding="utf-8")
        found = json.loads(place.read_text(encoding="utf-8"))
        for name, clips_heard in rows.items():
            clips_heard.append(Heard.from_dict(found[name]))
    prompts = [prompt for _, prompt in bench.prompts]
    return {
        "rows": {name: score(clips, prompts) for name, clips in rows.items()},
        "tempo_relations": {name: relations(clips, prompts) for name, clips in rows.items()},
        "prompts": [asdict(prompt) for prompt in prompts],
        "heard": {name: [asdict(clip) for clip in clips] for name, clips in rows.items()},
    }


def sounds(bench: Bench, index: int) -> dict[str, tuple[Tensor, int]]:
    """What is heard for a prompt, as (wav [C, T], rate): our music, and its true clip through the codec and plain."""
    piece, prompt = bench.prompts[index]
    true = bench.true_clip(piece)
    passed = through_codec(bench.codec, true[None], bench.studio.lm.config.books)[0]
    return {"ours": (_generated(bench, index, prompt.text), bench.codec.rate), "codec": (passed, RATE),
            "plain": (true[None], RATE)}  # fmt: skip


def examples(bench: Bench, out: Path, count: int = 8) -> list[dict[str, str]]:
    """Write the first generated clip of ``count`` genres as Opus under ``out``/audio; return their files and texts."""
    folder = out / "audio"
    folder.mkdir(exist_ok=True)
    rows: list[dict[str, str]] = []
    genres: set[str] = set()
    for index, (_, prompt) in enumerate(bench.prompts):
        path = bench.folder / "adherence" / f"{index:03d}.flac"
        if len(rows) < count and prompt.genre not in genres and path.is_file():
            genres.add(prompt.genre)
            name = f"{prompt.genre.replace(' ', '-')}.opus"
            audio.write(folder / name, audio.Audio(audio.read(path, rate=48_000).wav, 48_000))
            rows.append({"file": f"audio/{name}", "text": prompt.text})
    return rows


def _generated(bench: Bench, index: int, text: str) -> Tensor:
    path = bench.folder / "adherence" / f"{index:03d}.flac"
    if not path.is_file():
        made = bench.studio.generate(text, duration=bench.config.seconds, seed=bench.config.seed + index)
        audio.write(path, made)
    wav: Tensor = audio.read(path).wav
    return wav


def speed(model: str, seconds: float, repeats: int = 3) -> dict[str, Any]:
    """Time ``descant generate`` as a process of its own, from start to written file, and its peak memory.

    The repeats use one seed: their files must be identical.
    """
    walls, peaks, digests = [], [], set()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            path = Path(folder) / f"{number}.wav"
            words = ["generate", _SENTENCE, "--duration", f"{seconds:g}", "--seed", "7", "-o", str(path), "--quiet"]
            if model != "embedded":
                words += ["--model", model]
            wall, peak = timed([sys.executable, "-m", "descant", *words])
            walls.append(wall)
            peaks.append(peak)
            digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        help_wall, _ = timed([sys.executable, "-m", "descant", "--help"])
    return {
        "wall_s": walls, "peak_rss_mb": max(peaks), "identical": len(digests) == 1, "help_s": help_wall,
        "seconds": seconds, "sentence": _SENTENCE,
    }  # fmt: skip


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Run a command to its end -> (wall seconds, peak resident MB). Raises RuntimeError when it fails.

    A process starts with the peak of the one that started it on its account; a small one stands between, so that ours,
    with all its libraries, is not counted.
    """
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "note.json"
        with (Path(folder) / "log").open("w+b") as log:
            between = [sys.executable, "-I", "-S", "-c", _BETWEEN, str(note), *command]
            subprocess.run(between, stdout=log, stderr=log, check=False)
            if not note.is_file():
                raise RuntimeError(f"{' '.join(command)} could not be started")
            wall, peak, code = json.loads(note.read_text(encoding="utf-8"))
            if code:
                log.seek(0)
                tail = log.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"{' '.join(command)} failed with {code}: {' '.join(tail)}")
    # Linux counts kilobytes, macOS bytes
    return wall, peak / (1e6 if sys.platform == "darwin" else 1e3)


def extend(bench: Bench, count: int = 12) -> dict[str, Any]:
    """Continue true clips by half their length and compare the seam with jumps inside true clips."""
    config, rate = bench.config, bench.codec.rate
    keep = config.seconds / 2
    pairs = bench.prompts[:: max(1, len(bench.prompts) // count)][:count]
    clips = [bench.true_clip(piece) for piece, _ in pairs]
    real = seam.jumps_inside(clips, rate, per_clip=64)
    through = seam.jumps_inside(
        [through_codec(bench.codec, clip[None], bench.studio.lm.config.books)[0] for clip in clips], rate, per_clip=64
    )
    rows, kept = [], []
    for index, clip in enumerate(clips):
        bench.log(f"extend: {index + 1} of {len(clips)}")
        given = audio.Audio(clip[None, : round(keep * rate)], rate)
        longer = bench.studio.extend(given, seconds=keep, seed=config.seed + index)
        length = given.wav.shape[-1]
        start = longer.wav[:, :length].mean(dim=0, keepdim=True)
        kept.append(reconstruction.si_sdr(given.wav, start))
        rows.append(seam.compare(seam.jump(longer.wav, longer.rate, keep), real))
    measures = ("level", "flux", "click")
    return {
        "count": len(rows),
        "kept_si_sdr": asdict(bootstrap(kept)),
        "inside_99": sum(row.inside() for row in rows) / len(rows),
        "seam": {name: [getattr(row.jump, name) for row in rows] for name in measures},
        "rank": {name: [getattr(row, f"{name}_rank") for row in rows] for name in measures},
        "real": {name: _quantiles([getattr(row, name) for row in real]) for name in measures},
        "codec": {name: _quantiles([getattr(row, name) for row in through]) for name in measures},
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    data = torch.tensor(values, dtype=torch.float64)
    return {f"q{int(100 * q)}": float(data.quantile(q)) for q in (0.5, 0.9, 0.99)}
