"""``descant bench judge``: how well the judge hears, on labelled pieces it never met."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .request import RequestError

_EXAMPLES = """examples:
  descant bench judge --data data/judge/test --out docs/benchmarks
  descant bench judge --data same-font=data/judge/test other-font=data/judge/fluid --json

A folder comes from 'descant render --split test' and 'descant prepare judge'.
"""
_Commands = argparse._SubParsersAction


def add_judge(kinds: _Commands[Any]) -> None:
    """Add ``judge`` to the kinds of ``descant bench``."""
    text = "how well the judge hears, beside chance"
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = kinds.add_parser(
        "judge", help=text, description=text, epilog=_EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--data", nargs="+", required=True, metavar="[NAME=]DIR",
                        help="folders of 'descant prepare judge'")  # fmt: skip
    parser.add_argument("--judge", metavar="DIR", help="default: the one in the package")
    parser.add_argument("--clips", type=int, metavar="N", help="clips of each folder (default: two a piece)")
    parser.add_argument("--out", metavar="DIR", help="folder for judge.md and judge.json")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no summary")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    parser.set_defaults(run=run_judge)


def run_judge(args: argparse.Namespace) -> None:
    """``descant bench judge``."""
    if args.out is None and not args.json:
        raise RequestError("name a folder with --out, or ask for --json")
    if args.clips is not None and args.clips < 2:
        raise RequestError(f"--clips {args.clips}: give 2 or more")
    from ..eval.judge import load
    from ..recipes import bench_judge

    sets = {}
    for word in args.data:
        name, sign, place = word.partition("=")
        sets[name if sign else Path(word).name] = place if sign else word
    report = bench_judge.run(load(args.judge), sets, args.clips)
    if args.out is not None:
        # folders are the reader's own; their names say what they hold
        words = ["descant bench judge --data", *(f'"{name}=DIR"' for name in sets)]
        words += [f"--clips {args.clips}"] if args.clips else []
        page = bench_judge.write(args.out, report, " ".join(words))
        if not args.quiet:
            print(f"the report is {page}", file=sys.stderr)
    if args.json:
        print(json.dumps(report, indent=1))
