"""``descant prepare DIR -o SHARDS``: what a generator that hears stems and melodies is trained on."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from .request import RequestError

_Commands = argparse._SubParsersAction
_TARGETS = """examples:
  descant prepare my-songs -o shards
  descant prepare musdb18hq -o shards --workers 2 --json
  descant prepare data/pieces/train.jsonl.gz --soundfont FluidR3Mono_GM.sf3 -o shards
  descant prepare medleydb -o shards --sum
  descant prepare musdb18hq -o shards --apart

DIR: songs as files; song folders with true stems (MUSDB18, MoisesDB, MedleyDB, Slakh2100, or drums.wav, bass.wav, ...);
or rendered pieces. True stems are used where they add up to the mix; other songs are taken apart. Each song is read
once. The same command again does only what is missing, after a crash too. 'descant prepare targets DIR' is the same; it
is needed for a folder that is called like another kind.
"""
_BENCH = """examples:
  descant bench melody --data data/stems/test --pieces data/pieces/test.jsonl.gz -o docs/benchmarks
  descant bench melody --data data/stems/test --pieces data/pieces/test.jsonl.gz --songs 4 --json

Writes OUT/melody.md and OUT/melody.json: the tune follower and the leak meter of 'descant prepare DIR'.
"""


def add_prepare(kinds: _Commands[Any]) -> None:
    """Add ``targets`` to the kinds of ``descant prepare``."""
    raw = argparse.RawDescriptionHelpFormatter
    text = "tokens of mixes and stems, activity, melodies and leaks, for training a generator"
    one: argparse.ArgumentParser = kinds.add_parser(
        "targets", help=text, description=text, epilog=_TARGETS, formatter_class=raw, allow_abbrev=False
    )
    one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    one.add_argument("source", metavar="DIR", help="a folder of music, a data set, its table, or a .jsonl.gz of pieces")
    one.add_argument("-o", "--out", required=True, metavar="SHARDS", help="folder for the shards")
    one.add_argument("--separator", default="embedded", metavar="NAME", help="for songs without stems; or its folder")
    one.add_argument("--codec", metavar="DIR", help="default: the embedded codec")
    one.add_argument("--books", type=int, default=4, metavar="K", help="of the codec, how many (default: 4)")
    one.add_argument("--soundfont", metavar="FILE", help="for pieces of the synth layer")
    one.add_argument("--sum", action="store_true", help="stems that do not add up to the mix: take their sum for it")
    one.add_argument("--apart", action="store_true", help="beside true stems, keep what the separator finds in the mix")
    one.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    one.add_argument("--limit", type=int, metavar="N", help="use the first N songs")
    one.add_argument("--retry", action="store_true", help="try songs again that could not be used before")
    one.add_argument("--json", action="store_true", help="the summary as JSON on standard output")
    one.add_argument("--quiet", action="store_true", help="no progress, no summary")
    one.set_defaults(run=run_prepare)


def add_bench(kinds: _Commands[Any]) -> None:
    """Add ``melody`` to the kinds of ``descant bench``."""
    raw = argparse.RawDescriptionHelpFormatter
    text = "the tune follower and the leak meter on held-out songs"
    one: argparse.ArgumentParser = kinds.add_parser(
        "melody", help=text, description=text, epilog=_BENCH, formatter_class=raw, allow_abbrev=False
    )
    one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    one.add_argument("--data", required=True, metavar="DIR", help="packed stems of 'descant prepare stems'")
    one.add_argument("--pieces", required=True, metavar="FILE", help="the .jsonl.gz they were rendered from")
    one.add_argument("--model", default="embedded", metavar="NAME", help="the separator (default: embedded)")
    one.add_argument("--songs", type=int, metavar="N", help="the first N songs")
    one.add_argument("-o", "--out", metavar="DIR", help="folder for the report")
    one.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    one.add_argument("--quiet", action="store_true", help="no progress, no summary")
    one.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> None:
    """``descant bench melody``."""
    if args.out is None and not args.json:
        raise RequestError("name a folder with -o, or ask for --json")
    if args.songs is not None and args.songs < 1:
        raise RequestError(f"--songs {args.songs}: at least 1")
    from ..recipes import bench_melody

    found = bench_melody.report(args.data, args.pieces, args.model, args.songs, None if args.quiet else _say)
    if args.out is not None:
        bench_melody.write(args.out, found)
        if not args.quiet:
            _say(f"the report is {Path(args.out) / 'melody.md'}")
    if args.json:
        print(json.dumps(found, indent=1))


def run_prepare(args: argparse.Namespace) -> None:
    """``descant prepare DIR``."""
    if not Path(args.source).exists():
        raise RequestError(f"there is no folder or file {args.source}, and no kind of preparation of that name")
    for name in ("workers", "limit", "books"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise RequestError(f"--{name} {value}: at least 1")
    from ..recipes.targets import TargetSettings, prepare
    from .load import find

    settings = TargetSettings(
        separator=args.separator, codec=str(args.codec or find("embedded")[0]), books=args.books,
        soundfont=args.soundfont, trust=args.sum, apart=args.apart,
    )  # fmt: skip
    done = prepare(
        args.source, args.out, settings, workers=args.workers or os.cpu_count() or 1, limit=args.limit,
        retry=args.retry, quiet=args.quiet,
    )  # fmt: skip
    if args.json:
        print(json.dumps({"out": str(args.out), **done.to_dict()}, indent=1))
    if not args.quiet:
        for row in done.failed[:20]:
            _say(f"skipped {row['id']}: {row['reason']}")
        _say(
            f"{done.made} songs made, {done.kept} there already, {len(done.failed)} skipped, "
            f"{len(done.duplicates)} duplicates; {done.totals['hours']:.2f} hours in {args.out}"
        )
    if not done.totals["songs"]:
        reason = f", first {done.failed[0]['id']}: {done.failed[0]['reason']}" if done.failed else ""
        raise ValueError(f"nothing in {args.source} could be used ({len(done.failed)} skipped{reason})")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
