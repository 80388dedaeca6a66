"""``descant bench lm``: how fast the language models decode on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .request import RequestError

_EXAMPLES = """examples:
  descant bench lm -o docs/benchmarks
  descant bench lm --tokens data/tokens/dev -o docs/benchmarks
  descant bench lm --only shape --contexts 100 1450 --steps 20 --json
  descant bench lm --only endless --minutes 10 -o docs/benchmarks
  descant bench lm --only realtime -o docs/benchmarks
  descant bench lm --only first -o docs/benchmarks
  descant bench lm --device cuda -o docs/benchmarks

Everything runs on one thread and is measured in the process's CPU time, save three sections that are measured on the
clock: 'realtime', on one thread and on two, 'first', on two, and 'gpu', which needs a CUDA device. 'shape' and 'gpu'
compare with transformers (pip install 'descant[hub]') on weights of MusicGen-small's size, 4 GB of memory; --alone
leaves that library out.
With --only, the other sections of the report in the folder are kept. About ten minutes of one core in all.
"""
_Commands = argparse._SubParsersAction
_SECTIONS = ("machine", "shape", "realtime", "first", "embedded", "int8", "endless", "gpu")


def add_lm(kinds: _Commands[Any]) -> None:
    """Add ``lm`` to the kinds of ``descant bench``."""
    text = "how fast the language models decode, beside transformers and the memory's bandwidth"
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = kinds.add_parser(
        "lm", help=text, description=text, epilog=_EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--only", nargs="+", metavar="SECTION", choices=_SECTIONS, help=", ".join(_SECTIONS))
    parser.add_argument("--model", default="embedded", metavar="NAME", help="name or folder (default: embedded)")
    parser.add_argument("--tokens", metavar="DIR", help="held-out tokens of its codec, for the section int8")
    parser.add_argument("--contexts", type=int, nargs="+", default=[100, 1450], metavar="N",
                        help="positions in the cache of the section shape (default: 100 1450)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps timed at each (default: 20)")
    parser.add_argument("--alone", action="store_true", help="leave transformers out of shape and gpu")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="music of 'embedded' (default: 10)")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="music of 'endless' (default: 10)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"),
                        help="cuda measures the section gpu alone (default: cpu)")  # fmt: skip
    parser.add_argument("-o", "--out", metavar="DIR", help="folder for lm.md and lm.json")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    parser.set_defaults(run=run_lm)


def run_lm(args: argparse.Namespace) -> None:
    """``descant bench lm``."""
    if args.out is None and not args.json:
        raise RequestError("name a folder with -o, or ask for --json")
    from ..recipes import bench_lm_speed
    from ..recipes.bench_lm_gpu import GpuRun
    from ..recipes.bench_lm_shape import ShapeRun

    said = None if args.quiet else _say
    try:
        shape = ShapeRun(contexts=tuple(args.contexts), steps=args.steps, compare=not args.alone)
        run = bench_lm_speed.SpeedRun(
            model=args.model, tokens=args.tokens, only=bench_lm_speed.chosen(args.only, args.tokens, args.device),
            shape=shape, seconds=args.seconds, minutes=args.minutes,
            gpu=GpuRun(peer_steps=0) if args.alone else GpuRun(),
        )  # fmt: skip
    except ValueError as error:
        raise RequestError(str(error)) from None
    try:
        found = bench_lm_speed.report(run, said, _command(args))
    except ImportError as error:
        hint = "the section shape compares with transformers: pip install 'descant[hub]', or add --alone"
        raise RequestError(f"{error}: {hint}") from error
    if args.out is not None:
        page = bench_lm_speed.write(args.out, found)
        if not args.quiet:
            _say(f"the report is {page}")
    if args.json:
        print(json.dumps(found, indent=1))


def _command(args: argparse.Namespace) -> str:
    """What was typed, as far as it shows in the figures; folders are the reader's own, their names say enough."""
    words = ["descant bench lm"]
    if args.only:
        words.append("--only " + " ".join(args.only))
    if args.device != "cpu":
        words.append(f"--device {args.device}")
    if args.model != "embedded":
        words.append(f"--model {Path(args.model).name}")
    if args.tokens is not None:
        words.append(f"--tokens {Path(args.tokens).name}")
    for name, usual in (("steps", 20), ("seconds", 10.0), ("minutes", 10.0)):
        value = getattr(args, name)
        if value != usual:
            words.append(f"--{name} {value:g}")
    return " ".join(words)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
