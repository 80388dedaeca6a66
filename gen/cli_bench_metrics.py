"""``descant bench bss`` and ``descant bench control``: scores of separation and control, themselves judged."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .request import RequestError

_BSS = """examples:
  descant bench bss -o docs/benchmarks
  descant bench bss --seconds 5 --pieces 1 --json

Compares with museval (pip install --no-deps museval, beside scipy) on rendered stems, and scores the oracles. Writes
OUT/bss.md and OUT/bss.json. About two minutes of one core.
"""
_CONTROL = """examples:
  descant bench control -o docs/benchmarks
  descant bench control --genre-pieces 1 --pattern-loops 1 --json
  descant bench control --basic-pitch nmp.onnx -o docs/benchmarks
  descant bench control --pieces data/pieces --workers 2 -o docs/benchmarks
  descant bench control --pieces data/pieces --model runs/lm/export --count 16 --json

Without --pieces the analysers are measured: tempo, beats, key, chords and melody of music whose labels are known.
Writes OUT/control.md and OUT/control.json; equal arguments give equal figures. A few minutes of one core. --basic-pitch
adds the melody by that package's network (pip install 'descant[melody]').

With --pieces, a folder of 'descant render' with test.jsonl.gz, the analysers measure a model: words, parts beside
stems, tunes and chords, and what it continues, each beside its floor and its ceiling. Writes OUT/adherence.md and
OUT/adherence.json. A run that was stopped goes on when the same command is given again.
"""
_Commands = argparse._SubParsersAction


def add_metrics(kinds: _Commands[Any]) -> None:
    """Add ``bss`` and ``control`` to the kinds of ``descant bench``."""
    bss = _kind(kinds, "bss", "the separation scores against museval: equal numbers, and at what cost", _BSS)
    bss.add_argument("--seconds", type=float, nargs="+", default=[10.0, 30.0], metavar="S",
                     help="lengths of the compared stems (default: 10 30)")  # fmt: skip
    bss.add_argument("--pieces", type=int, default=4, metavar="N", help="pieces for the oracles (default: 4)")
    bss.add_argument("--repeats", type=int, default=1, metavar="N", help="timings, the median counts (default: 1)")
    bss.set_defaults(run=run_bss)
    control = _kind(kinds, "control", "the analysers of tempo, beats, key, chords and melody against labels", _CONTROL)
    control.add_argument("--genre-pieces", type=int, default=2, metavar="N", help="pieces a genre (default: 2)")
    control.add_argument("--pattern-loops", type=int, default=5, metavar="N", help="loops a pattern (default: 5)")
    control.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of a clip (default: 10)")
    control.add_argument("--basic-pitch", metavar="FILE", help="nmp.onnx of the package basic-pitch")
    model = control.add_argument_group("a model instead of the analysers")
    model.add_argument("--pieces", metavar="DIR", help="held-out pieces, test.jsonl.gz of 'descant render'")
    model.add_argument("--model", default="embedded", metavar="NAME", help="name or folder (default: embedded)")
    model.add_argument("--soundfont", metavar="FILE", help="that plays them (default: $DESCANT_SOUNDFONT)")
    model.add_argument("--count", type=int, default=64, metavar="N", help="pieces (default: 64)")
    model.add_argument("--seed", type=int, default=2024, metavar="N", help="of the music (default: 2024)")
    model.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    model.add_argument("--cache", default="runs/bench", metavar="DIR", help="what was made already")
    control.set_defaults(run=run_control)


def run_bss(args: argparse.Namespace) -> None:
    """``descant bench bss``."""
    _check(args)
    from ..recipes import bench_bss

    try:
        found = bench_bss.report(args.seconds, args.pieces, args.repeats, None if args.quiet else _say)
    except ValueError as error:
        raise RequestError(str(error)) from None
    except ImportError as error:
        hint = "this benchmark compares with museval: pip install 'descant[bench]', then pip install --no-deps museval"
        raise RequestError(hint) from error
    if args.out is not None:
        bench_bss.write(Path(args.out), found)
    _finish(args, "bss", found)


def run_control(args: argparse.Namespace) -> None:
    """``descant bench control``."""
    _check(args)
    if args.pieces is not None:
        _run_model(args)
        return
    model = args.basic_pitch
    if model is not None and not Path(model).is_file():
        raise RequestError(f"--basic-pitch: {model} is no file: it is nmp.onnx out of the package basic-pitch")
    from ..recipes import bench_control

    said = None if args.quiet else _say
    try:
        found = bench_control.report(args.genre_pieces, args.pattern_loops, args.seconds, model, said)
    except (ValueError, ImportError) as error:
        raise RequestError(str(error)) from None
    if args.out is not None:
        bench_control.write(Path(args.out), found)
    _finish(args, "control", found)


def _run_model(args: argparse.Namespace) -> None:
    from ..recipes import bench_follow, bench_follow_page

    command = f"descant bench control --pieces {Path(args.pieces).name} --count {args.count}"
    command += "" if args.model == "embedded" else f" --model {Path(args.model).name}"
    command += "" if args.seconds == 10 else f" --seconds {args.seconds:g}"
    try:
        config = bench_follow.FollowConfig(
            pieces=args.pieces, model=args.model, soundfont=args.soundfont, count=args.count, seconds=args.seconds,
            seed=args.seed, cache=args.cache, workers=args.workers,
        )  # fmt: skip
        found = bench_follow.run(config, None if args.quiet else _say, command)
    except ValueError as error:
        raise RequestError(str(error)) from None
    if args.out is not None:
        bench_follow_page.write(Path(args.out), found)
    _finish(args, "adherence", found)


def _kind(kinds: _Commands[Any], name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = kinds.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("-o", "--out", metavar="DIR", help="folder for the report")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    return parser


def _check(args: argparse.Namespace) -> None:
    if args.out is None and not args.json:
        raise RequestError("name a folder with -o, or ask for --json")


def _finish(args: argparse.Namespace, name: str, found: dict[str, Any]) -> None:
    if args.out is not None and not args.quiet:
        _say(f"the report is {Path(args.out) / name}.md")
    if args.json:
        print(json.dumps(found, indent=1))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
