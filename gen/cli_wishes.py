"""What all verbs that make music take on the command line: wishes, how tokens are drawn, the model, where it goes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .request import Request, RequestError, guidance_of

if TYPE_CHECKING:
    from .load import Studio

_THREADS = 1024


def wishes(command: argparse.ArgumentParser) -> None:
    """Add what all verbs take: wishes, how tokens are drawn, output."""
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
        "beat, key, chords, melody, stems and the rest one each: text=4,key=2,rest=3; with one "
        "number, a melody counts twice",
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


def stems_of(words: Sequence[str]) -> dict[str, Path]:
    """Files by role, of words such as ``drums=beat.wav``. Raises RequestError, FileNotFoundError."""
    found: dict[str, Path] = {}
    for word in words:
        role, equals, name = word.partition("=")
        if not (role and equals and name):
            raise RequestError(f"--stem {word}: write what plays, '=', and a file, such as drums=beat.wav")
        if role in found:
            raise RequestError(f"--stem {role}: given twice; mix them into one file, or name one of them other")
        found[role] = Path(name)
    if found:
        from ..lm.condition import ROLES
        from .fit import check_roles

        check_roles(found, ROLES[1:], "stem")
    for path in found.values():
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    return found


def studio_of(args: argparse.Namespace) -> Studio:
    """The model in parsed arguments."""
    from .load import load

    return load(args.model, args.threads or default_threads(), args.precision, args.adapter, args.device)


def default_threads() -> int:
    """Threads that help models of this size: the cores this process may use, four at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, 4, int(limit) if limit.isdigit() and int(limit) > 0 else cores))
