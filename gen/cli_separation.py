"""``descant separate``, ``descant prepare stems`` and ``descant bench separation``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .request import RequestError

_Commands = argparse._SubParsersAction
_SOUND = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")
_SEPARATE = """examples:
  descant separate song.flac -o stems/
  descant separate song.mp3 --stems drums,bass -o stems/ --format wav
  descant separate album/ --stems -lead --residual -o karaoke/
  descant separate song.wav --model runs/separator/export -o stems/
  descant separate song.flac --model htdemucs_ft --stems vocals --precision bf16 -o stems/

--model: embedded, the trained one (default); hpss, hpss-rest, two-stage, centre, repet-sim, repet, rpca or nmf, which
need no weights; htdemucs, htdemucs_ft, htdemucs_6s or hdemucs_mmi, of the demucs package and with its weights from the
hub; umx, umxhq or umxl, when torch's hub has their files; or a folder or file with a separator of ours or with weights
of another project (docs/separation-methods.md).

Writes OUT/<song>/<stem>.flac at the song's own rate, channels and length. --stems: names; -name for all but it; a+b for
two as one. Stems and residual add up to the song. Long recordings take no more memory than short ones.
"""
_STEMS = """examples:
  descant prepare stems --pieces data/pieces/train.jsonl.gz --soundfont A.sf3 B.sf3 --out data/stems/train
  descant prepare stems --pieces data/pieces/dev.jsonl.gz --seconds 12 --limit 32 --out data/stems/dev
  descant prepare stems --songs musdb18hq --split train --licence "educational use only" --out data/musdb/train
  descant prepare stems --songs my-songs --pulses --out data/stems/mine

--pieces are rendered. --songs are one's own: a folder per song with drums.wav, bass.wav, vocals.wav, other.wav and
mixture.wav, or MUSDB18, MUSDB18-HQ, MoisesDB, MedleyDB, Slakh. Songs whose stems do not add up to their mix, that are
damaged, or in which fewer than two stems play are named and left out.
"""
_BENCH = """examples:
  descant bench separation --data data/stems/test -o docs/benchmarks
  descant bench separation --data data/stems/test --real MUSDB18-HQ/test -o docs/benchmarks
  descant bench separation --data data/stems/test --model runs/separator/export --songs 6 --json

Writes OUT/separation.md and OUT/separation.json: uSDR of the mixture, of separators and of oracles. Where matplotlib is
installed also OUT/separation-audio/index.html, a page to listen to.
"""


def add(commands: _Commands[Any]) -> None:
    """Add ``separate`` to the commands."""
    one = _command(commands, "separate", "take recordings apart into stems", _SEPARATE)
    one.add_argument("inputs", nargs="+", metavar="IN", help="sound files, or folders of them")
    one.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the stems, one folder a song")
    one.add_argument("--model", default="embedded", metavar="NAME", help="a separator or its folder")
    one.add_argument("--stems", metavar="LIST", help="which ones (default: all)")
    one.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="of networks (default: fp32)")
    one.add_argument("--format", default="flac", choices=[suffix[1:] for suffix in _SOUND[:5]], help="default: flac")
    one.add_argument("--residual", action="store_true", help="also write what the stems leave of the song")
    one.add_argument("--json", action="store_true", help="the files as JSON on standard output")
    one.add_argument("--quiet", action="store_true", help="no progress, no summary")
    one.set_defaults(run=run_separate)


def add_prepare(kinds: _Commands[Any]) -> None:
    """Add ``stems`` to the kinds of ``descant prepare``."""
    one = _command(kinds, "stems", "pack songs with stems, rendered or recorded, for separator training", _STEMS)
    source = one.add_mutually_exclusive_group(required=True)
    source.add_argument("--pieces", metavar="FILE", help="a .jsonl.gz of 'descant render'")
    source.add_argument("--songs", metavar="DIR", help="songs with stems, see below")
    one.add_argument("--soundfont", nargs="+", metavar="FILE", help="for the synth layer; several take turns")
    one.add_argument("--seconds", type=float, default=24.0, metavar="S", help="of each piece (default: 24)")
    one.add_argument("--rate", type=int, metavar="HZ", help="default: 32000, of songs 44100")
    one.add_argument("--limit", type=int, metavar="N", help="use the first N pieces")
    own = one.add_argument_group("songs")
    own.add_argument("--stems", type=int, choices=(4, 5, 6), default=4, help="drums bass other vocals; guitar; piano")
    own.add_argument("--split", metavar="NAME", help="train, validation, test, ..., where the data set has them")
    own.add_argument("--licence", default="", metavar="TEXT", help="of songs that do not say theirs; kept with them")
    own.add_argument("--accept", action="store_true", help="also songs whose stems do not add up to their mix")
    own.add_argument("--pulses", action="store_true", help="estimate tempo, beats and key, for mixing.automix")
    one.add_argument("--out", required=True, metavar="DIR")
    one.add_argument("--quiet", action="store_true")
    one.set_defaults(run=run_prepare)


def add_bench(kinds: _Commands[Any]) -> None:
    """Add ``separation`` to the kinds of ``descant bench``."""
    one = _command(kinds, "separation", "separators on held-out songs, between doing nothing and the oracles", _BENCH)
    one.add_argument("--data", required=True, metavar="DIR", help="packed stems of 'descant prepare stems'")
    one.add_argument("--model", nargs="+", default=[], metavar="NAME", help="separators (default: all there are)")
    one.add_argument("--songs", type=int, metavar="N", help="the first N songs")
    one.add_argument("--real", metavar="DIR", help="recordings with their stems, one folder a song")
    one.add_argument("--limits", action="store_true", help="also memory, promises, the cost of RoFormers (minutes)")
    one.add_argument("-o", "--out", metavar="DIR", help="folder for the report")
    one.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    one.add_argument("--quiet", action="store_true", help="no progress, no summary")
    one.set_defaults(run=run_bench)


def run_separate(args: argparse.Namespace) -> None:
    """``descant separate``."""
    files = _files(args.inputs)
    twice = {path.stem for path in files if sum(other.stem == path.stem for other in files) > 1}
    if twice:
        raise RequestError(f"several songs are called {sorted(twice)[0]}: their stems would overwrite each other")
    from .separation.files import separate_file
    from .separation.registry import get
    from .separation.stems import choose

    try:
        method = get(args.model)
        choose(method.stems, args.stems)
        if args.precision not in method.precisions:
            raise ValueError(f"--precision {args.precision}: {args.model} computes in {', '.join(method.precisions)}")
    except ValueError as error:
        raise RequestError(str(error)) from None
    method.precision = args.precision
    done: dict[str, dict[str, str]] = {}
    for path in files:
        with _bar(args.quiet, path.name) as show:
            made = separate_file(
                path, Path(args.output) / path.stem, method, stems=args.stems, suffix=args.format,
                residual=args.residual, progress=show,
            )  # fmt: skip
        done[str(path)] = {stem: str(file) for stem, file in made.items()}
    if args.json:
        print(json.dumps({"model": str(args.model), "files": done}, indent=1))
    if not args.quiet:
        _say(f"the stems of {len(files)} recordings are in {args.output}")


def run_prepare(args: argparse.Namespace) -> None:
    """``descant prepare stems``."""
    from itertools import islice

    from tqdm import tqdm

    from ..recipes import stems_data
    from ..recipes.piece import read_pieces

    if args.songs is not None:
        _songs(args)
        return
    rate = 32000 if args.rate is None else args.rate
    if not args.seconds > 0 or rate < 8000 or (args.limit is not None and args.limit < 1):
        raise RequestError("--seconds must be more than 0, --rate 8000 or more, --limit 1 or more")
    pieces = tqdm(islice(read_pieces(args.pieces), args.limit), desc="pieces", unit="", disable=args.quiet)
    try:
        corpus = stems_data.pack(pieces, args.out, args.soundfont or (None,), rate=rate, seconds=args.seconds)
    except ValueError as error:
        raise RequestError(str(error)) from None
    if not args.quiet:
        _say(f"{len(corpus)} songs, {corpus.hours:.2f} hours in {args.out}")


def _songs(args: argparse.Namespace) -> None:
    from ..recipes.stems_songs import SongSettings, pack_songs

    if args.soundfont or args.limit is not None:
        raise RequestError("--soundfont and --limit are for --pieces: songs are not rendered")
    try:
        settings = SongSettings(
            rate=args.rate or 44100, stems=args.stems, split=args.split, licence=args.licence, accept=args.accept,
            pulses=args.pulses,
        )  # fmt: skip
        corpus, notes = pack_songs(args.songs, args.out, settings, None if args.quiet else lambda note: _say(str(note)))
    except ValueError as error:
        raise RequestError(str(error)) from None
    if not args.quiet:
        out = sum(note.kind == "left out" for note in notes)
        _say(f"{len(corpus)} songs, {corpus.hours:.2f} hours in {args.out}; {out} were left out")


def run_bench(args: argparse.Namespace) -> None:
    """``descant bench separation``."""
    if args.out is None and not args.json:
        raise RequestError("name a folder with -o, or ask for --json")
    if args.songs is not None and args.songs < 1:
        raise RequestError(f"--songs {args.songs}: at least 1")
    from ..recipes import bench_separation

    try:
        found = bench_separation.report(
            args.data, args.model, args.songs, None if args.quiet else _say, args.real, args.limits
        )
    except ValueError as error:
        raise RequestError(str(error)) from None
    if args.out is not None:
        bench_separation.write(args.out, found, args.data)
        if not args.quiet:
            _say(f"the report is {Path(args.out) / 'separation.md'}")
    if args.json:
        print(json.dumps(found, indent=1))


def _files(names: list[str]) -> list[Path]:
    files: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SOUND and file.is_file())
            if not inside:
                raise FileNotFoundError(f"{path} holds no sound files ({' '.join(_SOUND)})")
            files += inside
        elif not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        else:
            files.append(path)
    return files


def _command(commands: _Commands[Any], name: str, text: str, epilog: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    return parser


@contextmanager
def _bar(quiet: bool, name: str) -> Iterator[Any]:
    if quiet:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=0, desc=name, unit="s", bar_format="{desc}: {n:.0f} of {total:.0f} s [{elapsed}]") as bar:

        def show(done: float, whole: float) -> None:
            bar.total = whole
            bar.update(done - bar.n)

        yield show


def _say(text: str) -> None:
    print(text, file=sys.stderr)
