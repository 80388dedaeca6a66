"""``descant bench control --pieces``: does the model do what it is given? Words, tunes, chords, stems, a beginning.

Everything is asked for held-out pieces, and every measure has three rows: the results against *other* pieces'
conditions (the floor), against their own, and the true music through the codec against its own (the ceiling). What was
generated and what was heard in it are kept clip by clip under the weights' fingerprint, so that a run that was stopped
goes on, and several processes can share the work.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..codec import audio
from ..codec.audio import Audio
from ..eval import beats, chords, divergence, melody, pitch, rhythm, stems, tonality
from ..eval.frechet import frechet_distance
from ..eval.statistics import Matching, matching_test
from ..gen import accompany, against, fit, generate, listen, listen_chords
from ..gen.separation.registry import get
from ..lm import guidance, sample
from . import bench_accompany, bench_adherence, bench_verbs
from .bench import Bench, BenchConfig, about, save_json
from .bench_accompany import Excerpt
from .clips import RATE
from .piece import Piece
from .targets_plan import separator_mark

#: Analysers on which what was heard of parts and tunes depends.
_EARS = (bench_accompany, beats, chords, melody, pitch, rhythm, stems, tonality)
#: What decides how they sound, beside the weights.
_MAKERS = (accompany, against, fit, generate, listen, listen_chords, guidance, sample)
#: dB below the music: the noise that is the floor of the distance.
_NOISE = 10.0
#: A true part whose beat F1 is below this does not show its pulse.
SHOWN = 0.8
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """What is measured."""

    pieces: str
    """Folder with ``test.jsonl.gz``; combinations that ``train.jsonl.gz`` beside it has are not asked for."""
    model: str = "embedded"
    soundfont: str | None = None
    count: int = 64
    """Held-out pieces, of each of which words, a part and a tune are asked for."""
    seconds: float = 10.0
    seed: int = 2024
    cache: str = "runs/bench"
    workers: int = 1
    shuffles: int = 10_000

    def __post_init__(self) -> None:
        if self.count < 2 or self.workers < 1 or self.seconds < 5 or self.shuffles < 100:
            raise ValueError(
                f"{self.count} pieces of {self.seconds:g} s, {self.workers} workers, {self.shuffles} shuffles: need at "
                "least 2 of 5 s, 1, and 100"
            )


class FollowBench(Bench):
    """The things the parts of the report share."""

    def __init__(self, config: FollowConfig, log: Say) -> None:
        self.follow = config
        super().__init__(
            BenchConfig(data=config.pieces, model=config.model, soundfont=config.soundfont, prompts=config.count,
                        seconds=config.seconds, seed=config.seed, cache=config.cache), log
        )  # fmt: skip

    @cached_property
    def prompts(self) -> list[tuple[Piece, bench_adherence.Wanted]]:
        """Held-out prompts and the pieces they describe; the test split's own ones where no training pieces are."""
        beside = (Path(self.follow.pieces) / "train.jsonl.gz").is_file()
        return bench_adherence.held_out_prompts(
            self.pieces("test"), self.pieces("train") if beside else [], self.follow.count
        )

    @cached_property
    def mark(self) -> str:
        """What was made depends on the weights and settings, on the code that hears what is given, and on the data."""
        digest = hashlib.sha256(super().mark.encode())
        for module in _MAKERS:
            digest.update(Path(str(module.__file__)).read_bytes())
        digest.update((Path(self.follow.pieces) / "test.jsonl.gz").read_bytes())
        digest.update(separator_mark(get("embedded"), "embedded").encode())
        return digest.hexdigest()[:12]

    @cached_property
    def excerpts(self) -> list[Excerpt]:
        """Where in the same pieces a part and a tune are asked for."""
        return bench_accompany.excerpts([piece for piece, _ in self.prompts], self.follow.count, self.follow.seconds)

    @cached_property
    def ears(self) -> str:
        """What is heard of parts and tunes depends on this."""
        digest = hashlib.sha256()
        for module in _EARS:
            digest.update(Path(str(module.__file__)).read_bytes())
        return digest.hexdigest()[:8]

    def place(self, kind: str, index: int) -> Path:
        """The file that says what was heard."""
        mark = self.ears if kind in ("part", "tune") else self.judged_by
        name = "adherence" if kind == "words" else kind
        return self.folder / name / f"{index:03d}-{mark}.json"

    def jobs(self) -> list[tuple[str, int]]:
        """What is not there yet."""
        counts = {"words": len(self.prompts), "judged": len(self.prompts), "part": len(self.excerpts),
                  "tune": len(self.excerpts)}  # fmt: skip
        every = [(kind, index) for kind, count in counts.items() for index in range(count)]
        return [job for job in every if not self.place(*job).is_file()]

    def work(self, kind: str, index: int) -> None:
        """Make and hear one item, and keep what was heard."""
        path = self.place(kind, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "words":
            clips = bench_verbs.sounds(self, index)
            heard = {name: asdict(bench_adherence.analyse(*clip, self.judge)) for name, clip in clips.items()}
        elif kind == "judged":
            heard = dict(_judged(self, index))
        else:
            heard = dict(self._heard(kind, index))
        save_json(path, heard)

    def heard(self, kind: str, count: int) -> list[dict[str, Any]]:
        """What was heard of the first ``count`` items."""
        return [json.loads(self.place(kind, index).read_text(encoding="utf-8")) for index in range(count)]

    def _heard(self, kind: str, index: int) -> Iterator[tuple[str, dict[str, Any]]]:
        case = bench_accompany.render(self.excerpts[index], self.config.soundfont)
        play, hear = (
            (bench_accompany.play_parts, bench_accompany.hear_part) if kind == "part"
            else (bench_accompany.play_tune, bench_accompany.hear_tune)
        )  # fmt: skip
        for name, make in play(self.studio, case, self.config.seed + index):
            if name in ("clean", "apart", "ours"):
                # what took long to make is kept: other analysers hear it again
                kept = self.folder / kind / f"{index:03d}-{name}.flac"
                if not kept.is_file():
                    audio.write(kept, Audio(make()[None].clamp(-1, 1), RATE))
                yield name, hear(audio.read(kept).wav[0])
            else:
                yield name, hear(make())


def run(config: FollowConfig, said: Say | None = None, command: str = "descant bench control") -> dict[str, Any]:
    """Generate and hear what is not there yet, and score everything: what ``adherence.json`` holds."""
    say = said or (lambda _: None)
    bench = FollowBench(config, say)
    found = bench.excerpts
    accompany.check(bench.studio, ["bass"])  # before an hour of work, not after
    _fill(bench, say)
    say("scoring")
    score = partial(matching_test, shuffles=config.shuffles)
    seam = bench.folder / "seam.json"
    if not seam.is_file():
        save_json(seam, bench_verbs.extend(bench))
    words = bench_verbs.adherence(bench)
    parts, tunes = bench.heard("part", len(found)), bench.heard("tune", len(found))
    report = {
        "schema": "descant-bench-adherence/1", "about": about(bench, command), "count": len(bench.prompts),
        "held_out": "train" if (Path(config.pieces) / "train.jsonl.gz").is_file() else "split",
        "words": {"rows": words["rows"], "tempo_relations": words["tempo_relations"]},
        "judge": _distances(bench, config.shuffles),
        "parts": _parts(found, parts, score),
        "tunes": {
            who: {name: row(score(table), table) for name, table in
                  bench_accompany.tune_tables(found, tunes, who).items()} for who in ("ours", "codec", "true")
        },
        "seam": json.loads(seam.read_text(encoding="utf-8")),
        "targets": {role: sum(one.target == role for one in found) for role in bench_accompany.WANTED},
    }  # fmt: skip
    report["settings"] = {name: value for name, value in asdict(config).items() if name in ("seconds", "seed", "count")}
    return report


def row(found: Matching, table: Tensor | None = None) -> dict[str, Any]:
    """An outcome as plain data."""
    return {
        "mean": round(found.matched.mean, 4), "low": round(found.matched.low, 4),
        "high": round(found.matched.high, 4), "shuffled": round(found.shuffled, 4), "p": found.p,
        "count": found.matched.count if table is None else len(table),
    }  # fmt: skip


def _parts(
    found: Sequence[Excerpt], heard: Sequence[Mapping[str, Any]], score: Callable[[Tensor], Matching]
) -> dict[str, Any]:
    true = bench_accompany.pulse_table(found, [one["true"]["envelope"] for one in heard])
    shown = [place for place in range(len(found)) if float(true[place, place]) >= SHOWN]
    tempi = torch.tensor([one.pulse[0] for one in found], dtype=torch.float64).log2()
    alike = ((tempi[:, None] - tempi).abs() < 0.058) & ~torch.eye(len(found), dtype=torch.bool)  # within 4 %
    out: dict[str, Any] = {"shown": len(shown), "rows": {}, "roles": {}, "alike": {}}
    for who in ("clean", "apart", "codec", "true"):
        tables = bench_accompany.part_tables(found, heard, who)
        pulse = tables["beat F1"]
        if len(shown) > 1:
            tables = {"beat F1 where the true part shows its pulse": pulse[shown][:, shown], **tables}
        out["rows"][who] = {name: row(score(table), table) for name, table in tables.items()}
        out["alike"][who] = round(float(pulse[alike].mean()), 4) if bool(alike.any()) else None
        for role in sorted({one.target for one in found}):
            places = [place for place, one in enumerate(found) if one.target == role]
            out["roles"].setdefault(role, {"count": len(places)})[who] = {
                name: round(float(tables[name].diagonal()[places].mean()), 4) for name in ("beat F1", "onset F1")
            }
    return out


def _judged(bench: FollowBench, index: int) -> Iterator[tuple[str, Any]]:
    """Vectors and tags of a prompt's clips; with noise, what the distance's floor is made of."""
    clips = bench_verbs.sounds(bench, index)
    true, rate = clips["plain"]
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(index))
    clips["noise"] = (true + noise * true.square().mean().sqrt() * 10 ** (-_NOISE / 20), rate)
    for name, (wav, rate) in clips.items():
        mono = audio.resample(wav.mean(0, keepdim=True), rate, RATE)[None]
        kept = {"vector": bench.judge.embed(mono), "tags": bench.judge.tagger.embed(mono)}
        yield name, {what: [round(value, 5) for value in values[0].tolist()] for what, values in kept.items()}
    yield "text", {"vector": bench.judge.embed_text([bench.prompts[index][1].text])[0].tolist()}


def _distances(bench: FollowBench, shuffles: int) -> dict[str, Any]:
    """Likeness to the words, divergence from the true clips' tags, and distance from the true clips."""
    heard = bench.heard("judged", len(bench.prompts))

    def stack(who: str, what: str) -> Tensor:
        return torch.tensor([one[who][what] for one in heard], dtype=torch.float64)

    text, true, tags = stack("text", "vector"), stack("plain", "vector"), stack("plain", "tags")
    out: dict[str, Any] = {}
    for who in ("ours", "codec", "plain", "noise"):
        mine, mine_tags = stack(who, "vector"), stack(who, "tags")
        rows = {"likeness to the words": row(matching_test(mine @ text.T, shuffles=shuffles))}
        if who != "plain":
            each = [divergence.divergences(tags, one.expand_as(tags), "bernoulli")[divergence.FORWARD]
                    for one in mine_tags]  # fmt: skip
            # matching asks for more where better is less
            less = matching_test(-torch.stack(each), shuffles=shuffles)
            rows["KL of tags from the true clips, nats"] = _negated(row(less))
            far = frechet_distance(mine, true)
            rows["Fréchet distance"] = {"mean": far.best, "low": far.low, "high": far.high, "count": len(mine)}
        out[who] = rows
    return out


def _negated(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "mean": -found["mean"], "low": -found["high"], "high": -found["low"],
            "shuffled": -found["shuffled"]}  # fmt: skip


def _fill(bench: FollowBench, say: Say) -> None:
    """Do what is not done, here or in several processes."""
    jobs = bench.jobs()
    workers = min(bench.follow.workers, len(jobs))
    if workers <= 1:
        for number, job in enumerate(jobs):
            say(f"{number + 1} of {len(jobs)}: {job[0]} {job[1]}")
            bench.work(*job)
        return
    context = multiprocessing.get_context("spawn")
    config = replace(bench.follow, workers=1)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(config,)) as pool:
        waiting = {pool.submit(_do, job): job for job in jobs}
        try:
            for number, done in enumerate(as_completed(waiting)):
                done.result()
                say(f"{number + 1} of {len(jobs)}: {waiting[done][0]} {waiting[done][1]}")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_AT_WORK: list[FollowBench] = []


def _begin(config: FollowConfig) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    _AT_WORK.append(FollowBench(config, lambda _: None))


def _do(job: tuple[str, int]) -> None:
    _AT_WORK[0].work(*job)
