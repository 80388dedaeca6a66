"""``descant bench score``: what a whole report costs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .request import RequestError

_EXAMPLES = """examples:
  descant bench score -o docs/benchmarks
  descant bench score --clips 40 --seconds 5 --json
  descant bench score --generated out --reference real -o timing

Scores 200 clips of 10 s against 200 others, with captions, labels, melodies and stems, self-check and page, on two
processes that may not touch a socket. Writes OUT/score.md and OUT/score.json. Clips are made first, unless they are
given. Some minutes of two cores.
"""
_Commands = argparse._SubParsersAction


def add_score(kinds: _Commands[Any]) -> None:
    """Add ``score`` to the kinds of ``descant bench``."""
    text = "what a whole report of 'descant score' costs, stage by stage, without a network"
    raw = argparse.RawDescriptionHelpFormatter
    score: argparse.ArgumentParser = kinds.add_parser(
        "score", help=text, description=text, epilog=_EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    score.add_argument("--clips", type=int, default=200, metavar="N", help="clips on either side (default: 200)")
    score.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of a clip (default: 10)")
    score.add_argument("--stems", type=int, metavar="N", help="clips with stems (default: 32, or all if fewer)")
    score.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    score.add_argument("--seed", type=int, default=0, metavar="N", help="of the music (default: 0)")
    score.add_argument("--generated", metavar="DIR", help="score these clips instead of made ones")
    score.add_argument("--reference", metavar="DIR", help="against these")
    score.add_argument("-o", "--out", metavar="DIR", help="folder for the report")
    score.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    score.add_argument("--quiet", action="store_true", help="no progress, no summary")
    score.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    score.set_defaults(run=run_score)


def run_score(args: argparse.Namespace) -> None:
    """``descant bench score``."""
    if args.out is None and not args.json:
        raise RequestError("name a folder with -o, or ask for --json")
    from ..recipes import bench_score

    try:
        config = bench_score.ScoreBenchConfig(
            clips=args.clips, seconds=args.seconds, stems=min(32, args.clips) if args.stems is None else args.stems,
            jobs=args.jobs, seed=args.seed, generated=args.generated, reference=args.reference,
        )  # fmt: skip
    except ValueError as error:
        raise RequestError(str(error)) from None
    found = bench_score.run(config, None if args.quiet else _say)
    if args.out is not None:
        bench_score.write(Path(args.out), found)
        if not args.quiet:
            _say(f"the report is {Path(args.out) / 'score.md'}")
    if args.json:
        print(json.dumps(found, indent=1))
        sys.stdout.flush()


def _say(text: str) -> None:
    print(text, file=sys.stderr)
