"""``descant synth-eval`` makes the labelled evaluation set; ``descant scan`` says what is in a data set."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .request import RequestError

_SYNTH = """examples:
  descant synth-eval --clips 16 --seconds 5 -o data/small
  descant synth-eval --soundfont MuseScore_General_Full.sf3 -o data/synth-eval
  descant scan data/synth-eval --json

Each clip comes as FLAC, mix and stems, with exact tempo, beats, key, chords, melody, instruments and captions in
DIR/labels.json. The sound font (also: DESCANT_EVAL_SOUNDFONT) must be one that no model of yours was trained with; it
needs the packages mma, mido and tinysoundfont. Without a font the built-in synthesiser plays: enough for a test.
A stopped run goes on when the same command is given again; a larger --clips adds to the set.
"""
_SCAN = """examples:
  descant scan musdb18hq
  descant scan musiccaps-audio --table musiccaps-public.csv --json
  descant scan my-songs --open --manifest my-songs/clips.jsonl

Knows synth-eval, MusicCaps, Song Describer, MUSDB18 and -HQ, MoisesDB, MedleyDB, Slakh2100, FMA, MTG-Jamendo,
audiocraft's manifests, our own, and plain folders with or without labels. Exit status 1 with --strict when something
is wrong.
"""
_Commands = argparse._SubParsersAction


def add(commands: _Commands[Any]) -> None:
    """Add the commands."""
    synth = _command(commands, "synth-eval", "make a labelled set to evaluate on", _SYNTH)
    synth.add_argument("-o", "--out", required=True, metavar="DIR")
    synth.add_argument("--clips", type=int, default=512, metavar="N", help="how many (default: 512)")
    synth.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of each (default: 10)")
    synth.add_argument("--seed", type=int, default=0, metavar="N")
    synth.add_argument("--rate", type=int, default=32000, metavar="HZ", help="default: 32000")
    synth.add_argument("--soundfont", metavar="FILE", help="one the generator has not heard")
    synth.add_argument("--tunes", metavar="FILE", help="folk tunes for some of the melodies")
    synth.add_argument("--workers", type=int, metavar="N", help="processes (default: at most 4)")
    synth.set_defaults(run=run_synth_eval)
    scan = _command(commands, "scan", "say what is in a data set: found, missing, wrong", _SCAN)
    scan.add_argument("place", metavar="DIR|FILE", help="the data set's folder, or the table that lists it")
    scan.add_argument("--kind", metavar="KIND", help="instead of recognising the layout")
    scan.add_argument("--table", metavar="FILE", help="the table that lists the clips, where it lies elsewhere")
    scan.add_argument("--open", action="store_true", help="open every file, not only look for it")
    scan.add_argument("--links", action="store_true", help="use links that lead out of the folder")
    scan.add_argument("--strict", action="store_true", help="stop at the first problem")
    scan.add_argument("--manifest", metavar="FILE", help="write the clips as JSON lines (.jsonl, .jsonl.gz)")
    scan.add_argument("--audiocraft", metavar="FILE", help="write audiocraft's data.jsonl")
    scan.set_defaults(run=run_scan)


def run_synth_eval(args: argparse.Namespace) -> None:
    """``descant synth-eval``."""
    from ..eval import readers
    from ..recipes import syntheval

    try:
        config = syntheval.SynthEvalConfig(
            clips=args.clips, seconds=args.seconds, seed=args.seed, rate=args.rate, soundfont=args.soundfont,
            tunes=args.tunes,
        )  # fmt: skip
    except ValueError as error:
        raise RequestError(str(error)) from None
    if args.workers is not None and args.workers < 1:
        raise RequestError(f"{args.workers} processes are too few; use 1 or more")
    if syntheval.find_font(args.soundfont) is None:
        _say(args.quiet, "no sound font named: the built-in synthesiser plays")
    syntheval.make(args.out, config, args.workers, not args.quiet)
    _tell(args, readers.read(args.out))


def run_scan(args: argparse.Namespace) -> None:
    """``descant scan``."""
    from ..eval import readers

    if args.kind is not None and args.kind not in readers.KINDS:
        raise RequestError(f"unknown kind {args.kind!r}: one of {', '.join(readers.KINDS)}")
    found = readers.read(args.place, args.kind, table=args.table, strict=args.strict, links=args.links)
    if args.open:
        found = readers.scan(found)
        if args.strict and found.problems:
            raise readers.ReaderError(str(found.problems[0]))
    if args.manifest:
        readers.write_manifest(found, args.manifest)
        _say(args.quiet, f"the clips are listed in {Path(args.manifest)}")
    if args.audiocraft:
        readers.write_audiocraft(found, args.audiocraft)
        _say(args.quiet, f"the clips are listed in {Path(args.audiocraft)}")
    _tell(args, found)


def _tell(args: argparse.Namespace, found: Any) -> None:
    _say(args.quiet, found.summary())
    for line in () if args.quiet else (*found.notes, *(str(item) for item in found.problems[:10])):
        _say(False, f"  {line}")
    if len(found.problems) > 10:
        _say(args.quiet, f"  ... and {len(found.problems) - 10} more")
    if args.json:
        print(json.dumps(found.report(limit=1000), indent=1, ensure_ascii=False))


def _command(commands: _Commands[Any], name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="the account as JSON on standard output")
    parser.add_argument("--quiet", action="store_true", help="no progress, no summary")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    return parser


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(text, file=sys.stderr)
