"""``descant inpaint`` and ``descant loop``: a stretch played anew, and music that leads back to its beginning."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cli_output import checked_targets, delivered, print_json, progress_bar, report, source_of
from .cli_wishes import request_of, studio_of, wishes
from .request import RequestError, resolve_continuation

#: Most repetitions that are written.
_TIMES = 1000
_INPAINT = """examples:
  descant inpaint song.wav --from 12 --to 15.5 -o mended.wav
  descant inpaint set.flac --from 1:02:10 --to 1:02:14 --text "a drum fill" --seed 3 -o mended.flac

What is played leads from what comes before to what follows. Every sample outside the stretch stays as it is, save the
20 ms on either side, which fade into it; rate, channels and length are the file's own. Tempo and key are heard around
the stretch. What is new is mono, given to every channel at that channel's level. Input may be hours long: only what is
near the stretch is held.

For models that hear what follows; 'descant info MODEL' lists the parts they play.
"""
_LOOP = """examples:
  descant loop groove.wav -o loop.wav
  descant loop groove.wav --seconds 2 --seed 3 --times 4 -o four-rounds.flac

A bridge is added that leads from the end to the beginning: played again and again, the file has no seam. Without
--seconds it is as long as it takes to make whole bars, half a bar at least.

For models that hear what follows; 'descant info MODEL' lists the parts they play. Up to ten minutes.
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add both commands."""
    raw = argparse.RawDescriptionHelpFormatter
    mend = commands.add_parser(
        "inpaint", help="play a stretch of a recording anew", epilog=_INPAINT, formatter_class=raw, allow_abbrev=False
    )
    mend.add_argument("input", metavar="FILE", help="the music (.wav .flac .ogg .opus .mp3)")
    mend.add_argument("--from", dest="start", type=seconds_of, required=True, metavar="S", help="seconds, or m:ss")
    mend.add_argument("--to", dest="end", type=seconds_of, required=True, metavar="S", help="seconds, or m:ss")
    mend.add_argument("--text", metavar="SENTENCE", help="what should be played there")
    wishes(mend)
    mend.set_defaults(run=run_inpaint, duration=10.0)
    turn = commands.add_parser(
        "loop", help="make a recording repeat without a seam", epilog=_LOOP, formatter_class=raw, allow_abbrev=False
    )
    turn.add_argument("input", metavar="FILE", help="the music (.wav .flac .ogg .opus .mp3)")
    turn.add_argument("-s", "--seconds", type=float, metavar="S", help="of the bridge, 0.1 to 60 (default: whole bars)")
    turn.add_argument("--times", type=int, default=1, metavar="N", help=f"rounds to write, 1 to {_TIMES} (default: 1)")
    turn.add_argument("--text", metavar="SENTENCE", help="what the bridge should be like")
    wishes(turn)
    turn.set_defaults(run=run_loop, duration=10.0)


def seconds_of(typed: str) -> float:
    """``75.5``, ``1:15.5`` or ``0:01:15.5`` in seconds. Raises ArgumentTypeError."""
    try:
        parts = [float(part) for part in typed.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or len(parts) > 1 and not all(0 <= part < 60 for part in parts[1:]):
        raise argparse.ArgumentTypeError(f"{typed!r} is no time: write seconds such as 75.5, or 1:15.5")
    total = 0.0
    for part in parts:
        total = total * 60 + part
    return total


def run_inpaint(args: argparse.Namespace) -> None:
    """``descant inpaint``: everything that can be wrong is checked before a model is loaded."""
    request = request_of(args)
    resolve_continuation(replace(request, chords=()))
    source = source_of(args.input)
    targets = checked_targets(args.output or str(_beside(source, "inpainted")), 1, args.json)
    from ..codec import audio
    from .inpaint import check_stretch
    from .inpaint_files import inpaint_file

    check_stretch(args.start, args.end)
    about = audio.info(source)
    if not about.format.startswith("MP3"):  # headers of those only estimate the length
        check_stretch(args.start, args.end, about.duration)
    with delivered(targets) as paths:
        _check_format(targets[0], about.channels)
        studio = studio_of(args)
        began = time.perf_counter()
        with progress_bar(args.quiet, "music") as progress:
            music = inpaint_file(studio, source, paths[0], (args.start, args.end), request, progress)
    row = report(args, music, targets[0], time.perf_counter() - began)
    print_json(args, [{**row, "input": str(source), "from": args.start, "to": args.end}])


def run_loop(args: argparse.Namespace) -> None:
    """``descant loop``: everything that can be wrong is checked before a model is loaded."""
    if not 1 <= args.times <= _TIMES:
        raise RequestError(f"{args.times} times: from 1 to {_TIMES}")
    if args.seconds is not None and not 0.1 <= args.seconds <= 60:
        raise RequestError(f"a bridge of {args.seconds:g} s: from 0.1 to 60 s")
    request = request_of(args)
    resolve_continuation(replace(request, chords=()))
    source = source_of(args.input)
    targets = checked_targets(args.output or str(_beside(source, "loop")), 1, args.json)
    from .inpaint_files import loop_file
    from .stem_files import check_length

    about = check_length(source)
    with delivered(targets) as paths:
        _check_format(targets[0], about.channels)
        studio = studio_of(args)
        began = time.perf_counter()
        with progress_bar(args.quiet, "music") as progress:
            music = loop_file(
                studio, source, paths[0], request, seconds=args.seconds, times=args.times, progress=progress
            )
    row = report(args, music, targets[0], time.perf_counter() - began)
    given = round(about.duration, 6)
    print_json(args, [{**row, "input": str(source), "given": given, "times": args.times}])


def _beside(source: Path, what: str) -> Path:
    return source.with_name(f"{source.stem}-{what}{source.suffix}")


def _check_format(target: str, channels: int) -> None:
    from ..codec.formats import check_format

    if target != "-":
        check_format(target, channels)
