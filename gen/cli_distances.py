"""``descant bench distances``: the distances between sets of clips, measured against truth and against other tools."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .request import RequestError

_EXAMPLES = """examples:
  descant bench distances --out docs/benchmarks
  descant bench distances --only simulation --json

Needs scipy and no audio. Writes OUT/eval.md and OUT/eval.json; all is made from seeds, only CPU times differ. About ten
minutes of one core.
"""
_SECTIONS = ("exactness", "agreement", "cost", "simulation", "memory")
_Commands = argparse._SubParsersAction


def add_distances(kinds: _Commands[Any]) -> None:
    """Add ``distances`` to the kinds of ``descant bench``."""
    text = "exactness, cost, bias, coverage and memory of the distances"
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = kinds.add_parser(
        "distances", help=text, description=text, epilog=_EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("-o", "--out", metavar="DIR", help="folder for the report")
    parser.add_argument("--only", nargs="+", choices=_SECTIONS, default=_SECTIONS, metavar="SECTION",
                        help=", ".join(_SECTIONS))  # fmt: skip
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="simulated evaluations a row (default: 200)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of the simulation (default: 1)")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    parser.set_defaults(run=run_distances)


def run_distances(args: argparse.Namespace) -> None:
    """``descant bench distances``."""
    if args.out is None and not args.json:
        raise RequestError("name a folder with --out, or ask for --json")
    from ..recipes import bench_eval

    try:
        config = bench_eval.EvalBenchConfig(runs=args.runs, workers=args.workers)
    except ValueError as error:
        raise RequestError(str(error)) from None
    try:
        report = bench_eval.run(config, tuple(args.only), None if args.quiet else _say)
    except ImportError as error:
        raise RequestError("this benchmark compares with scipy: pip install 'descant[bench]'") from error
    if args.out is not None:
        bench_eval.write(Path(args.out), report)
        if not args.quiet:
            _say(f"the report is {Path(args.out) / 'eval.md'}")
    if args.json:
        print(json.dumps(report, indent=1))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
