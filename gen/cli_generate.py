"""``descant generate`` and ``descant extend``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .request import DURATION_LIMITS, Request, RequestError, guidance_of, resolve, resolve_continuation

if TYPE_CHECKING:
    from ..codec.audio import Audio
    from .generate import Music
    from .load import Studio

_COUNT_LIMIT = 64
_THREADS = 1024
_GENERATE = """examples:
  descant generate "an upbeat bossa nova in G minor with flute and nylon guitar" --duration 10 --seed 7 -o out.wav
  descant generate "slow blues" --instruments "electric guitar, organ, drums" --key E --count 4 -o take.flac
  descant generate --genre waltz --chords "C Am F G7" --tempo 150 --json -o waltz.ogg
  descant generate "reggae" --guidance text=4,key=2,rest=3 --negative "loud drums, rock" -o far.wav
  descant generate "reggae" --quiet -o - | aplay
  descant generate "slow ambient electronic" --endless --quiet -o - | aplay
  descant generate "synth pop" --model facebook/musicgen-melody --melody hum.wav -o song.wav

Options win over the sentence. What neither says is chosen by the seed and reported (--json: "asked" and "chosen").
With -o - you hear the music while it is made; its level is then the model's own, for nobody knows yet how loud it gets.
With --count the files are called take_1.flac, take_2.flac ...; number i is what --seed SEED+i-1 makes alone.
"""
_EXTEND = """examples:
  descant extend in.wav --seconds 10 -o out.wav
  descant extend loop.mp3 --seconds 30 --text "funk with slap bass" --tempo 104 -o longer.flac

The given part is kept as it is, at its own rate and channels, save the last 20 ms, which fade into what follows. The
continuation is mono, given to every channel at that channel's level; a stereo MusicGen continues both. Input may be
hours long: it is never held whole.
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add both commands."""
    raw = argparse.RawDescriptionHelpFormatter
    new = commands.add_parser(
        "generate",
        help="make music from a sentence and options",
        epilog=_GENERATE,
        formatter_class=raw,
        allow_abbrev=False,
    )
    new.add_argument("text", nargs="?", metavar="SENTENCE", help="what to play, at most 2,000 characters")
    new.add_argument(
        "-d", "--duration", type=float, default=10.0, metavar="S",
        help="seconds, {:g} to {:g} (default: 10)".format(*DURATION_LIMITS),
    )  # fmt: skip
    new.add_argument("--endless", action="store_true", help="play until stopped (with -o - only)")
    new.add_argument("--count", type=int, default=1, metavar="N", help=f"how many, 1 to {_COUNT_LIMIT} (default: 1)")
    new.add_argument("--melody", metavar="FILE", help="a sound whose tune is followed (MusicGen's melody models)")
    _wishes(new)
    new.set_defaults(run=run_generate)
    more = commands.add_parser(
        "extend", help="continue a piece of music", epilog=_EXTEND, formatter_class=raw, allow_abbrev=False
    )
    more.add_argument("input", metavar="FILE", help="the music to continue (.wav .flac .ogg .opus .mp3)")
    more.add_argument("-s", "--seconds", dest="duration", type=float, default=10.0, metavar="S",
                      help="seconds to add, {:g} to {:g} (default: 10)".format(*DURATION_LIMITS))  # fmt: skip
    more.add_argument("--text", metavar="SENTENCE", help="what should follow")
    _wishes(more)
    more.set_defaults(run=run_extend)


def _wishes(command: argparse.ArgumentParser) -> None:
    wish = command.add_argument_group("wishes")
    wish.add_argument("--genre", metavar="NAME", help="such as 'bossa nova' ('descant info' lists all)")
    wish.add_argument("--instruments", default="", metavar="A,B", help="such as 'flute, nylon guitar'")
    wish.add_argument("--tempo", type=float, metavar="BPM", help="quarter notes per minute, 40 to 240")
    wish.add_argument("--key", metavar="KEY", help="such as 'G minor', Bb or F#m")
    wish.add_argument("--beats-per-bar", type=int, metavar="N", help="2 to 7")
    wish.add_argument(
        "--chords", default="", metavar="C", help="one a bar, such as 'Gm Cm7 D7 Gm'; repeated to the end"
    )
    draw = command.add_argument_group("how tokens are drawn")
    draw.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same music (default: a fresh one)")
    draw.add_argument(
        "--guidance", default=None, metavar="G",
        help="how strictly wishes are followed, 0 to 20 (default: 3); or for some of text, genre, instruments, tempo, "
        "beat, key, chords and the rest one each: text=4,key=2,rest=3",
    )  # fmt: skip
    draw.add_argument("--nested", action="store_true", help="each of those on top of the ones before it")
    draw.add_argument("--negative", metavar="SENTENCE", help="what to lead away from, such as 'loud drums, rock'")
    draw.add_argument(
        "--temperature", type=float, default=None, metavar="T", help="0 is the most likely, 1 is as trained"
    )
    draw.add_argument("--top-k", type=int, default=None, metavar="K", help="keep the K likeliest tokens; 0 keeps all")
    draw.add_argument(
        "--top-p", type=float, default=None, metavar="P", help="keep the likeliest tokens up to this share"
    )
    out = command.add_argument_group("output")
    out.add_argument(
        "-o", "--output", metavar="FILE", help=".wav .flac .ogg .opus .mp3, or - for WAV on standard output"
    )
    out.add_argument("--json", action="store_true", help="a report on standard output")
    out.add_argument("--quiet", action="store_true", help="no progress, no summary")
    out.add_argument(
        "--model",
        default="embedded",
        metavar="NAME",
        help="a folder, or a MusicGen's hub id such as facebook/musicgen-small",
    )
    out.add_argument(
        "--precision", default="fp32", choices=["fp32", "bf16", "int8"],
        help="of the language model's weights; int8 is the fastest, and gives other music for the same seed",
    )  # fmt: skip
    out.add_argument("--adapter", metavar="DIR", help="what 'descant finetune' made for this model")
    out.add_argument(
        "--device", default="cpu", metavar="NAME", help="cpu, or cuda for an NVIDIA GPU, best with --precision bf16"
    )
    out.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: as many as help)")
    out.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")


def request_of(args: argparse.Namespace) -> Request:
    """The request in parsed arguments."""
    if args.threads is not None and not 1 <= args.threads <= _THREADS:
        raise RequestError(f"threads {args.threads} is outside 1 to {_THREADS}")
    given = {name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "negative")}
    given["guidance"] = None if args.guidance is None else guidance_of(args.guidance)
    return Request(
        text=args.text, genre=args.genre, instruments=args.instruments, tempo=args.tempo, key=args.key,
        beats_per_bar=args.beats_per_bar, chords=args.chords, duration=args.duration, seed=args.seed,
        nested=args.nested, **{name: value for name, value in given.items() if value is not None},
    ).seeded()  # fmt: skip


def run_generate(args: argparse.Namespace) -> None:
    """``descant generate``: everything that can be wrong is checked before a model is loaded."""
    if not 1 <= args.count <= _COUNT_LIMIT:
        raise RequestError(f"count {args.count} is outside 1 to {_COUNT_LIMIT}")
    request = request_of(args)
    first = request.seed or 0
    requests = [replace(request, seed=first + index) for index in range(args.count)]
    resolve(requests[0])
    name = args.output or f"descant-{first}.wav"
    if args.endless and name != "-":
        raise RequestError("--endless plays to standard output: add -o - and pipe it into a player")
    targets = _targets(name, args.count, args.json)
    melody = _melody(args.melody)
    studio = _studio(args)
    if targets == ["-"] and melody is None and _plays(studio):
        _play(args, studio, requests[0])
        return
    if args.endless:
        raise RequestError(f"{args.model} cannot play endlessly: give a duration")
    reports = []
    with _delivered(targets) as paths:
        for index, (one, path) in enumerate(zip(requests, paths, strict=True)):
            label = "music" if args.count == 1 else f"music {index + 1}/{args.count}"
            reports.append(_generate_one(args, (studio, melody), one, path, (label, targets[index])))
    _print_json(args, reports)


def _plays(studio: Studio) -> bool:
    from .musicgen import MusicGenStudio

    return not isinstance(studio, MusicGenStudio)


def _play(args: argparse.Namespace, studio: Studio, request: Request) -> None:
    """The music as WAV on standard output while it is made."""
    from .stream import Player, wave_header, wave_samples

    began = time.perf_counter()
    player = Player(studio, request, None if args.endless else request.duration)
    out, heard, first = sys.stdout.buffer, 0, 0.0
    samples = None if args.endless else round(request.duration * player.rate)
    out.write(wave_header(player.rate, studio.codec.channels, samples))
    for block in player:
        out.write(wave_samples(block.wav))
        out.flush()
        first = first or time.perf_counter() - began
        heard += block.wav.shape[-1]
    if not args.quiet:
        plan = player.plan
        facts = [f"{heard / player.rate:g} s", *(f"{word}" for word in (plan.genre, plan.key) if word)]
        took = time.perf_counter() - began
        times = f"heard after {first:.2f} s, done after {took:.1f} s"
        print(f"standard output: {', '.join(facts)}, seed {plan.seed} ({times})", file=sys.stderr)
        for note in plan.notes:
            print(f"note: {note}", file=sys.stderr)


def _generate_one(
    args: argparse.Namespace, means: tuple[Studio, Audio | None], request: Request, path: Path, names: tuple[str, str]
) -> Any:
    from ..codec import audio
    from .generate import generate

    began = time.perf_counter()
    with _progress(args.quiet, names[0]) as progress:
        music = generate(means[0], request, progress, means[1])
    audio.write(path, music)
    return _report(args, music, names[1], time.perf_counter() - began)


def _melody(name: str | None) -> Audio | None:
    """The first ten minutes of a sound file, the longest music that is made."""
    if name is None:
        return None
    if not Path(name).is_file():
        raise FileNotFoundError(f"there is no file {name}")
    from ..codec import audio

    return audio.read(name, duration=DURATION_LIMITS[1])


def run_extend(args: argparse.Namespace) -> None:
    """``descant extend``."""
    from ..codec.sink import check_target

    request = request_of(args)
    resolve_continuation(request)
    source = Path(args.input)
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    name = args.output or str(source.with_name(f"{source.stem}-extended{source.suffix}"))
    targets = _targets(name, 1, args.json)
    began = time.perf_counter()
    with _delivered(targets) as paths:
        check_target(paths[0])
        from ..codec import audio
        from .extend import SHORTEST, extend_file

        length = audio.info(source).duration
        if length < SHORTEST:
            raise ValueError(f"{source} lasts {length:.3f} s: at least {SHORTEST} s are needed to continue it")
        studio = _studio(args)
        with _progress(args.quiet, "music") as progress:
            music = extend_file(studio, source, paths[0], request, progress)
    report = _report(args, music, targets[0], time.perf_counter() - began)
    _print_json(args, [{**report, "input": str(source), "given": round(length, 6)}])


def _studio(args: argparse.Namespace) -> Studio:
    from .load import load

    return load(args.model, args.threads or default_threads(), args.precision, args.adapter, args.device)


def default_threads() -> int:
    """Threads that help models of this size: the cores this process may use, four at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, 4, int(limit) if limit.isdigit() and int(limit) > 0 else cores))


def _targets(name: str, count: int, as_json: bool) -> list[str]:
    """Names of the files to write, checked; ``-`` stands for standard output."""
    from ..codec.sink import check_target

    if name == "-":
        if count > 1 or as_json:
            raise RequestError("-o - writes one sound to standard output: leave --count and --json out, or name a file")
        if sys.stdout.isatty():
            raise RequestError("-o - writes sound: send standard output to a file or a program, or name a file")
        return [name]
    path = Path(name)
    names = (
        [str(path)] if count == 1 else [str(path.with_name(f"{path.stem}_{i + 1}{path.suffix}")) for i in range(count)]
    )
    for one in names:
        check_target(one)
    return names


@contextmanager
def _delivered(targets: list[str]) -> Iterator[list[Path]]:
    """Paths to write to; a sound for standard output goes through a temporary file."""
    if targets != ["-"]:
        yield [Path(name) for name in targets]
        return
    with tempfile.TemporaryDirectory(prefix="descant-") as folder:
        path = Path(folder) / "out.wav"
        yield [path]
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


@contextmanager
def _progress(quiet: bool, label: str) -> Iterator[Callable[[int, int], None] | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=label, unit="frame", file=sys.stderr, leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _report(args: argparse.Namespace, music: Music, target: str, seconds: float) -> dict[str, Any]:
    """Plain data of one result, and its summary on standard error unless asked to be quiet."""
    report = {"file": target, **music.report(), "took": round(seconds, 3), "model": args.model}
    if not args.quiet:
        plan = music.plan
        said = [plan.genre, f"{plan.tempo:g} BPM" if plan.tempo else None, plan.key, *plan.instruments]
        facts = [f"{music.duration:g} s", *(word for word in said if word), f"seed {music.seed}"]
        where = "standard output" if target == "-" else target
        print(f"{where}: {', '.join(facts)} ({seconds:.1f} s)", file=sys.stderr)
        for note in music.notes:
            print(f"note: {note}", file=sys.stderr)
    return report


def _print_json(args: argparse.Namespace, reports: list[dict[str, Any]]) -> None:
    if args.json:
        print(json.dumps({"results": reports}, indent=2, ensure_ascii=False))
