"""``descant encode`` and ``descant decode``: sound files to small files and back; ``descant bench fuzz``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .request import RequestError

if TYPE_CHECKING:
    from ..codec.contract import Codec

_SOUND = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")
_CODED = (".dsc", ".ecdc", ".dac")
_Commands = argparse._SubParsersAction
_ENCODE = """examples:
  descant encode song.flac -o song.dsc
  descant encode song.flac --kbps 2 -o song.dsc
  descant encode album/ more.mp3 -o coded/          whole folders, the tree is kept
  ffmpeg -i film.mkv -f wav - | descant encode - -o - > sound.dsc
  descant encode song.wav --model my-encodec-24khz -o song.ecdc

The file takes the codec's rate and channels. docs/format.md describes it bit by bit.
"""
_DECODE = """examples:
  descant decode song.dsc -o song.wav
  descant decode coded/ -o album/ --format flac
  descant decode - -o - < song.dsc | aplay
  descant decode old.ecdc --model my-encodec-24khz -o old.wav

The codec that wrote a .dsc file is found by its fingerprint among those of the package; name any other with --model.
A damaged file is played as far as it goes: what is lost is concealed and reported, and the exit status is 0.
"""


def add(commands: _Commands[Any]) -> None:
    """Add both commands."""
    encode = _command(commands, "encode", "sound to a small file", _ENCODE)
    encode.add_argument("inputs", nargs="+", metavar="IN", help="sound files, folders, or - for standard input")
    _output(encode, ".dsc (.ecdc for EnCodec) file, folder, or - for standard output")
    rate = encode.add_mutually_exclusive_group()
    rate.add_argument("--books", type=int, metavar="K", help="codebooks to use (default: all)")
    rate.add_argument("--kbps", type=float, metavar="X", help="bit rate before entropy coding, instead of --books")
    encode.add_argument("--coder", choices=["entropy", "packed"], default="entropy",
                        help="packed: larger, decoded twice as fast, the same sound (default: entropy)")  # fmt: skip
    encode.add_argument("--model", default="tiny", metavar="NAME", help="a codec or its folder (default: tiny)")
    encode.set_defaults(run=run_encode)
    decode = _command(commands, "decode", "a small file to sound", _DECODE)
    decode.add_argument(
        "inputs", nargs="+", metavar="IN", help=".dsc .ecdc .dac files, folders, or - for standard input"
    )
    _output(decode, "sound file, folder, or - for WAV on standard output")
    decode.add_argument("--format", default="wav", choices=[suffix[1:] for suffix in _SOUND[:5]],
                        help="of the files in a folder (default: wav)")  # fmt: skip
    decode.add_argument("--model", metavar="NAME", help="the codec or its folder (default: found by its fingerprint)")
    decode.set_defaults(run=run_decode)


def add_fuzz(kinds: _Commands[Any]) -> None:
    """Add ``fuzz`` to the kinds of ``descant bench``."""
    fuzz = _command(kinds, "fuzz", "hurt files at random and see what the readers do", None)
    fuzz.add_argument("--count", type=int, default=100_000, metavar="N", help="how many (default: 100000)")
    fuzz.add_argument("--seed", type=int, default=0, metavar="N")
    fuzz.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    fuzz.add_argument("--quiet", action="store_true", help="no progress, no summary")
    fuzz.set_defaults(run=run_fuzz)


def _command(commands: _Commands[Any], name: str, text: str, epilog: str | None) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    return parser


def _output(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("-o", "--output", required=True, metavar="OUT", help=text)
    command.add_argument("--json", action="store_true", help="a report on standard output")
    command.add_argument("--quiet", action="store_true", help="no progress, no summary")


def run_encode(args: argparse.Namespace) -> None:
    """``descant encode``."""
    if args.books is not None and args.books < 1:
        raise RequestError(f"--books {args.books}: at least 1")
    if args.kbps is not None and not args.kbps > 0:
        raise RequestError(f"--kbps {args.kbps:g}: more than 0")
    jobs = _jobs(args, _SOUND, ".dsc")
    if any(target not in ("-",) and Path(target).suffix.lower() not in (".dsc", ".ecdc") for _, target in jobs):
        raise RequestError(f"-o {args.output}: name a .dsc or .ecdc file, a folder, or -")
    codec, folder = load(args.model)
    books = _books(codec, args.books, args.kbps, args.model)
    _all(args, jobs, lambda source, target, bar: _encode_one(args, codec, folder, books, source, target, bar))


def run_decode(args: argparse.Namespace) -> None:
    """``descant decode``."""
    jobs = _jobs(args, _CODED, f".{args.format}")
    wrong = [target for _, target in jobs if target != "-" and Path(target).suffix.lower() not in _SOUND[:5]]
    if wrong:
        raise RequestError(f"-o {wrong[0]}: name it with one of {', '.join(_SOUND[:5])}")
    known: dict[str, tuple[Codec, Path]] = {}
    _all(args, jobs, lambda source, target, bar: _decode_one(args, known, source, target, bar))


def run_fuzz(args: argparse.Namespace) -> None:
    """``descant bench fuzz``: status 1 when a reader did what it must not."""
    from ..recipes import fuzz

    if args.count < 1:
        raise RequestError(f"--count {args.count}: at least 1")
    with _bar(args.quiet, "files", "file") as show:
        done = iter(range(1, args.count + 1))
        report = fuzz.run(args.count, args.seed, (lambda _: show(next(done), args.count)) if show else None)
    if args.json:
        print(json.dumps(asdict(report), indent=2))
    if not args.quiet:
        text = (
            f"{report.files} files: {report.refused} refused, {report.files - report.refused} read, "
            f"{len(report.failures)} failures; most memory {report.memory / 1e6:.1f} MB above the good file, slowest "
            f"{1000 * report.seconds:.0f} ms"
        )
        print(text, file=sys.stderr)
    if report.failures:
        raise RuntimeError(f"{len(report.failures)} failures, first: {report.failures[0]}")


def load(name: str) -> tuple[Codec, Path]:
    """A codec by name or folder, and its folder. Raises RequestError for a name that is neither."""
    from ..codec import load as load_codec

    folder = Path(name) if Path(name).is_dir() else _packaged().get(name, Path(name))
    try:
        codec: Any = load_codec(folder if folder.is_dir() else name)
    except FileNotFoundError as error:
        if folder.is_dir():
            raise
        known = ", ".join(sorted(_packaged()))
        raise RequestError(f"--model {name}: {error} (in the package: {known})") from None
    return codec, folder


def _packaged() -> dict[str, Path]:
    folders = (Path(__file__).parent / "weights").glob("codec_*")
    return {folder.name.removeprefix("codec_"): folder for folder in folders if folder.is_dir()}


def _books(codec: Codec, books: int | None, kbps: float | None, name: str) -> int:
    """How many books are asked for. Raises RequestError for what the codec does not have."""
    each = codec.frame_rate * max(1, (codec.cardinality - 1).bit_length()) / 1000
    if kbps is not None:
        wanted = kbps / each
        books = round(wanted)
        if not 1 <= books <= codec.books or abs(wanted - books) > 0.01 * books:
            raise RequestError(
                f"--kbps {kbps:g}: {name} does {each:g} to {each * codec.books:g} kbps in steps of {each:g}"
            )
    if books is not None and books > codec.books:
        raise RequestError(f"--books {books}: {name} has {codec.books}")
    return books or codec.books


def _jobs(args: argparse.Namespace, suffixes: tuple[str, ...], suffix: str) -> list[tuple[str, str]]:
    """Pairs (source, target), checked: files to one file, or many and folders into a folder."""
    out = args.output
    found: list[tuple[Path, Path]] = []
    for name in args.inputs:
        path = Path(name)
        if name == "-":
            if len(args.inputs) > 1:
                raise RequestError("- stands alone: standard input is one file")
            found.append((path, Path("standard-input")))
        elif path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
            if not inside:
                raise FileNotFoundError(f"{path} holds no {' '.join(suffixes)} files")
            found += [(file, file.relative_to(path)) for file in inside]
        elif not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
        else:
            found.append((path, Path(path.name)))
    many = len(found) > 1 or any(Path(name).is_dir() for name in args.inputs) or out.endswith("/") or Path(out).is_dir()
    if out == "-":
        if many or args.json:
            raise RequestError("-o - writes one file to standard output: leave --json out, or name a folder")
        if sys.stdout.isatty():
            raise RequestError("-o - writes bytes: send standard output to a file or a program, or name a file")
        return [(str(found[0][0]), "-")]
    if not many:
        jobs = [(str(found[0][0]), out)]
    else:
        jobs = [(str(source), str(Path(out) / place.with_suffix(suffix))) for source, place in found]
    targets = [target for _, target in jobs]
    twice = next((target for target in targets if targets.count(target) > 1), None) if len(jobs) < 10_000 else None
    if twice:
        raise RequestError(f"two inputs would become {twice}: encode them into different folders")
    for source, target in jobs:
        if source != "-" and Path(target).exists() and Path(target).samefile(source):
            raise RequestError(f"{target} is the input itself: name another file with -o")
    if many:
        for folder in {Path(target).parent for target in targets}:
            folder.mkdir(parents=True, exist_ok=True)
    return jobs


_Show = Callable[[int, "int | None"], None]


def _all(
    args: argparse.Namespace, jobs: list[tuple[str, str]], work: Callable[[str, str, _Show | None], dict[str, Any]]
) -> None:
    """Do every job; of several, one that fails does not stop the others, but the status is 1 in the end."""
    rows, failed = [], 0
    for index, (source, target) in enumerate(jobs):
        label = Path(source).name if len(jobs) == 1 else f"{index + 1}/{len(jobs)} {Path(source).name}"
        began = time.perf_counter()
        try:
            with _bar(args.quiet, label, "s") as show:
                row = work(source, target, show)
        except (ValueError, OSError) as error:
            if isinstance(error, RequestError) or (len(jobs) == 1 and isinstance(error, OSError)):
                raise
            if len(jobs) == 1:
                raise ValueError(_told(source, error)) from error
            failed += 1
            print(f"descant {args.command}: {_told(source, error)}", file=sys.stderr)
            rows.append({"input": source, "error": _told(source, error)})
            continue
        row = {"input": source, "output": target, **row, "took": round(time.perf_counter() - began, 3)}
        rows.append(row)
        if not args.quiet:
            _say(row)
    if args.json:
        print(json.dumps({"results": rows}, indent=2, ensure_ascii=False))
    if failed:
        raise RuntimeError(f"{failed} of {len(jobs)} files failed")


def _told(source: str, error: Exception) -> str:
    name = "standard input" if source == "-" else source
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split())
    return text if name in text else f"{name}: {text}"


def _encode_one(
    args: argparse.Namespace, codec: Codec, folder: Path, books: int, source: str, target: str, show: _Show | None
) -> dict[str, Any]:
    given: str | BinaryIO = sys.stdin.buffer if source == "-" else source
    if target.endswith(".ecdc"):
        return _encode_ecdc(codec, books, source, target)
    from ..codec import context
    from ..codec.files import encode_file

    tables = context.load(folder) if args.coder == "entropy" and folder.is_dir() else None
    made = encode_file(
        given, sys.stdout.buffer if target == "-" else target, codec, books=books, coder=args.coder, tables=tables,
        progress=_seconds(show, codec.rate),
    )  # fmt: skip
    coder = args.coder if args.coder == "packed" or tables is not None else "adaptive"
    return {"seconds": round(made.samples / codec.rate, 3), "bytes": made.size, "books": made.books, "coder": coder,
            "kbps": round(8 * made.size * codec.rate / max(1, made.samples) / 1000, 3)}  # fmt: skip


def _encode_ecdc(codec: Codec, books: int, source: str, target: str) -> dict[str, Any]:
    from ..codec import audio, ecdc
    from ..codec.sink import binary

    if source == "-":
        raise RequestError("an .ecdc file is made of a file, not of standard input: name one")
    wav = audio.read(source, codec.rate, codec.channels).wav
    recording = ecdc.of_wav(codec, wav[None], books)
    with binary(target) as file:
        ecdc.write(file, recording)
    size = Path(target).stat().st_size
    return {"seconds": round(wav.shape[1] / codec.rate, 3), "bytes": size, "books": books, "coder": "packed",
            "kbps": round(8 * size * codec.rate / wav.shape[1] / 1000, 3)}  # fmt: skip


def _decode_one(
    args: argparse.Namespace, known: dict[str, tuple[Codec, Path]], source: str, target: str, show: _Show | None
) -> dict[str, Any]:
    from ..codec import context
    from ..codec.files import decode_file

    if Path(source).suffix.lower() in (".ecdc", ".dac"):
        return _decode_foreign(args, source, target)
    with _opened(source) as (file, fingerprint):
        codec, folder = _codec_for(fingerprint, args.model, known)
        tables = context.load(folder) if folder.is_dir() else None
        done = decode_file(file, sys.stdout.buffer if target == "-" else target, codec, tables=tables,
                           progress=_seconds(show, codec.rate))  # fmt: skip
    lost = sum(row.frames for row in done.damage) * codec.hop / codec.rate
    return {"seconds": round(done.samples / done.rate, 3), "rate": done.rate, "lost_seconds": round(lost, 3),
            "clipped": done.clipped, "damage": [str(row) for row in done.damage]}  # fmt: skip


def _decode_foreign(args: argparse.Namespace, source: str, target: str) -> dict[str, Any]:
    from ..codec import audio, dacfile, ecdc
    from ..codec.sink import whole_file

    if args.model is None:
        raise RequestError(f"{source}: name the codec that wrote it with --model")
    if target == "-":
        raise RequestError(f"{source}: decode it into a file, not to standard output")
    codec, _ = load(args.model)
    with open(source, "rb") as file:
        if source.lower().endswith(".ecdc"):
            wav, rate = ecdc.to_wav(codec, ecdc.read(file))[0], codec.rate
        else:
            found = dacfile.read(file)
            wav, rate = dacfile.to_wav(codec, found)[0], found.rate
    with whole_file(target) as part:
        audio.write(part, audio.Audio(wav, rate))
    return {"seconds": round(wav.shape[1] / rate, 3), "rate": rate, "damage": []}


@contextmanager
def _opened(source: str) -> Iterator[tuple[BinaryIO, bytes]]:
    """A file or standard input, and the fingerprint in its header, which stays to be read."""
    from ..codec.header import HEADER_BYTES, Header

    with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
        peeked = file.peek(HEADER_BYTES)[:HEADER_BYTES]
        fingerprint = Header.from_bytes(peeked).fingerprint
        yield file, fingerprint


def _codec_for(fingerprint: bytes, name: str | None, known: dict[str, tuple[Codec, Path]]) -> tuple[Codec, Path]:
    """The codec that was named, or the one of the package that made the file."""
    names = [name] if name is not None else sorted(_packaged(), key=lambda word: (word != "tiny", word))
    for one in names:
        if one not in known:
            known[one] = load(one)
        if name is not None or known[one][0].fingerprint == fingerprint:
            return known[one]
    seen = f"was made by a codec ({fingerprint.hex()[:8]}) that is none of the package's ({', '.join(names)})"
    raise ValueError(f"{seen}; name its folder with --model")


def _seconds(show: _Show | None, rate: int) -> _Show | None:
    if show is None:
        return None
    return lambda done, total: show(done // rate, None if total is None else total // rate)


@contextmanager
def _bar(quiet: bool, label: str, unit: str) -> Iterator[_Show | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(desc=label, unit=unit, file=sys.stderr, leave=False, dynamic_ncols=True) as bar:

        def show(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _say(row: dict[str, Any]) -> None:
    where = "standard output" if row["output"] == "-" else row["output"]
    facts = [f"{row['seconds']:g} s"]
    if "bytes" in row:
        facts += [f"{row['bytes']:,} bytes", f"{row['kbps']:g} kbps", f"{row['books']} books, {row['coder']}"]
    if row.get("clipped"):
        facts.append(f"{row['clipped']} samples clipped")
    print(f"{where}: {', '.join(facts)} ({row['took']:.1f} s)", file=sys.stderr)
    for text in row.get("damage", []):
        print(f"damaged: {text}", file=sys.stderr)
