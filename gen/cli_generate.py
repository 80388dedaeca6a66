"""``descant generate`` and ``descant extend``."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_output import checked_targets, delivered, print_json, progress_bar, report, source_of
from .cli_wishes import request_of, stems_of, studio_of, wishes
from .request import DURATION_LIMITS, Request, RequestError, resolve, resolve_continuation

if TYPE_CHECKING:
    from ..codec.audio import Audio
    from .load import Studio

_COUNT_LIMIT = 64
_GENERATE = """examples:
  descant generate "an upbeat bossa nova in G minor with flute and nylon guitar" --duration 10 --seed 7 -o out.wav
  descant generate "slow blues" --instruments "electric guitar, organ, drums" --key E --count 4 -o take.flac
  descant generate --genre waltz --chords "C Am F G7" --tempo 150 --json -o waltz.ogg
  descant generate "reggae" --guidance text=4,key=2,rest=3 --negative "loud drums, rock" -o far.wav
  descant generate "reggae" --quiet -o - | aplay
  descant generate "slow ambient electronic" --endless --quiet -o - | aplay
  descant generate "synth pop" --melody hum.wav -o song.wav
  descant generate --genre funk --stem drums=beat.wav --stem bass=bass.wav --duration 8 --count 3 -o take.wav

Options win over the sentence. What neither says is chosen by the seed and reported (--json: "asked" and "chosen").
With -o - you hear the music while it is made; its level is then the model's own, for nobody knows yet how loud it gets.
With --count the files are called take_1.flac, take_2.flac ...; number i is what --seed SEED+i-1 makes alone.
--melody is for models that hear stems and tunes, and for MusicGen's melody models; --stem is for the former. What is
given decides tempo and key, and you are told when a wish contradicts it. With --stem everything is played anew, the
stems included; 'descant accompany' leaves them as they are and adds to them. 'descant info MODEL' says what it hears.
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
    new.add_argument("--melody", metavar="FILE", help="a sound whose tune is followed")
    new.add_argument(
        "--stem", action="append", default=[], metavar="ROLE=FILE",
        help="a stem that the music goes with, such as drums=beat.wav; repeatable",
    )  # fmt: skip
    wishes(new)
    new.set_defaults(run=run_generate)
    more = commands.add_parser(
        "extend", help="continue a piece of music", epilog=_EXTEND, formatter_class=raw, allow_abbrev=False
    )
    more.add_argument("input", metavar="FILE", help="the music to continue (.wav .flac .ogg .opus .mp3)")
    more.add_argument("-s", "--seconds", dest="duration", type=float, default=10.0, metavar="S",
                      help="seconds to add, {:g} to {:g} (default: 10)".format(*DURATION_LIMITS))  # fmt: skip
    more.add_argument("--text", metavar="SENTENCE", help="what should follow")
    wishes(more)
    more.set_defaults(run=run_extend)


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
    targets = checked_targets(name, args.count, args.json)
    given = _given(args)
    studio = studio_of(args)
    if targets == ["-"]:
        _play(args, studio, requests[0], given)
        return
    reports = []
    with delivered(targets) as paths:
        for index, (one, path) in enumerate(zip(requests, paths, strict=True)):
            label = "music" if args.count == 1 else f"music {index + 1}/{args.count}"
            reports.append(_generate_one(args, (studio, given), one, path, (label, targets[index])))
    print_json(args, reports)


def _play(args: argparse.Namespace, studio: Studio, request: Request, given: _Given) -> None:
    """The music as WAV on standard output while it is made."""
    from .stream import play, wave_header, wave_samples

    began = time.perf_counter()
    player = play(studio, request, None if args.endless else request.duration, melody=given.melody, stems=given.stems)
    out, heard, first = sys.stdout.buffer, 0, 0.0
    samples = None if args.endless else round(request.duration * player.rate)
    out.write(wave_header(player.rate, player.channels, samples))
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
    args: argparse.Namespace, means: tuple[Studio, _Given], request: Request, path: Path, names: tuple[str, str]
) -> Any:
    from ..codec import audio
    from .generate import generate

    began = time.perf_counter()
    with progress_bar(args.quiet, names[0]) as progress:
        music = generate(means[0], request, progress, means[1].melody, means[1].stems)
    audio.write(path, music)
    return report(args, music, names[1], time.perf_counter() - began)


@dataclass(frozen=True)
class _Given:
    """Sounds that the music goes with."""

    melody: Audio | None
    stems: dict[str, Audio]


def _given(args: argparse.Namespace) -> _Given:
    """The first ten minutes of each sound file that is given: the longest music that is made."""
    stems = stems_of(args.stem)
    melody = None if args.melody is None else source_of(args.melody)
    if melody is None and not stems:
        return _Given(None, {})
    from ..codec import audio

    long = DURATION_LIMITS[1]
    sounds = {role: audio.read(path, duration=long) for role, path in stems.items()}
    return _Given(None if melody is None else audio.read(melody, duration=long), sounds)


def run_extend(args: argparse.Namespace) -> None:
    """``descant extend``."""
    from ..codec.sink import check_target

    request = request_of(args)
    resolve_continuation(request)
    source = source_of(args.input)
    name = args.output or str(source.with_name(f"{source.stem}-extended{source.suffix}"))
    targets = checked_targets(name, 1, args.json)
    began = time.perf_counter()
    with delivered(targets) as paths:
        check_target(paths[0])
        from ..codec import audio
        from .extend import SHORTEST, extend_file

        length = audio.info(source).duration
        if length < SHORTEST:
            raise ValueError(f"{source} lasts {length:.3f} s: at least {SHORTEST} s are needed to continue it")
        studio = studio_of(args)
        with progress_bar(args.quiet, "music") as progress:
            music = extend_file(studio, source, paths[0], request, progress)
    row = report(args, music, targets[0], time.perf_counter() - began)
    print_json(args, [{**row, "input": str(source), "given": round(length, 6)}])
