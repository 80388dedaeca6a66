"""``descant score``: how good is a folder of clips, how sure is that, and may the judges be believed?"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .request import RequestError

if TYPE_CHECKING:
    from torch import Tensor

_EXAMPLES = """examples:
  descant score --generated out --reference real -o report
  descant score --generated out --reference real --prompts captions.csv -o report
  descant score --generated out --labels wishes.json --stems given -o report
  descant score --generated out --reference real --recipe paper-musicgen --judge vggish-google=vggish.npz -o report
  descant score --generated out --reference real --save-reference real.safetensors -o report
  descant score --generated new --reference real.safetensors --against report -o report-new

Writes REPORT/results.json, tables as Markdown, CSV and LaTeX, and index.html, which needs no network. A report whose
self-check fails is written all the same, and the command ends with status 1. Nothing is downloaded, unless a judge of
yours is named by its hub id. A run that was stopped goes on when the same command is given again.
"""
_Commands = argparse._SubParsersAction


def add(commands: _Commands[Any]) -> None:
    """Add the command."""
    text = "score clips: distances, adherence, defects, diversity"
    raw = argparse.RawDescriptionHelpFormatter
    score: argparse.ArgumentParser = commands.add_parser(
        "score", help=text, description=text, epilog=_EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    given = score.add_argument_group("what is scored")
    given.add_argument("--generated", required=True, metavar="DIR", help="the clips")
    given.add_argument("--reference", metavar="DIR|FILE", help="clips to compare with, or a file of --save-reference")
    given.add_argument("--prompts", metavar="FILE", help="captions: .csv, .tsv, .json or .jsonl that names the clips "
                       "(default: a .txt or .json beside each clip)")  # fmt: skip
    given.add_argument(
        "--labels", metavar="FILE", help="tempo, key, genre, instruments, melody: the same kinds of file"
    )
    given.add_argument("--stems", metavar="DIR", help="DIR/CLIP/NAME.wav: the stems that were given for a clip")
    how = score.add_argument_group("how")
    how.add_argument("--recipe", nargs="+", default=["descant-v1"], metavar="NAME",
                     help="descant-v1 (default), paper-musicgen, fadtk-compat, stable-audio-compat")  # fmt: skip
    how.add_argument("--judge", nargs="+", action="extend", default=[], metavar="NAME[=PATH]",
                     help="a judge of yours, with the file or folder of its weights")  # fmt: skip
    how.add_argument("--no-judge", action="store_true", help="leave the package's judge out: faster, and says less")
    how.add_argument("--against", metavar="REPORT", help="compare with this earlier report, clip by clip")
    how.add_argument("--save-reference", metavar="FILE", help="keep the reference as one .safetensors file")
    how.add_argument("--strict", action="store_true", help="stop at the first clip or entry that cannot be used")
    how.add_argument("--no-check", action="store_true", help="leave the self-check of the judges out")
    how.add_argument(
        "--jobs", type=int, metavar="N", help="processes (default: all cores); figures do not depend on it"
    )
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of all random choices (default: 0)")
    where = how.add_mutually_exclusive_group()
    where.add_argument("--cache", metavar="DIR", help="where vectors are kept (default: $DESCANT_CACHE/score, else "
                       "$XDG_CACHE_HOME/descant/score, else ~/.cache/descant/score)")  # fmt: skip
    where.add_argument("--no-cache", action="store_true", help="keep nothing")
    out = score.add_argument_group("output")
    out.add_argument("-o", "--out", required=True, metavar="REPORT", help="folder of the report")
    out.add_argument("--no-page", action="store_true", help="no index.html")
    out.add_argument("--json", action="store_true", help="results.json on standard output, too")
    out.add_argument("--quiet", action="store_true", help="no progress, no summary")
    score.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    score.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """``descant score``."""
    judges = _judges(args.judge)
    jobs = _cores() if args.jobs is None else args.jobs
    if jobs < 1 or args.seed < 0:
        raise RequestError(f"--jobs {jobs} --seed {args.seed}: need at least 1 job, and a seed of 0 or more")
    if len(set(args.recipe)) < len(args.recipe):
        raise RequestError("a recipe is named twice")
    from ..eval.recipe import protocols

    unknown = [name for name in args.recipe if name not in protocols()]
    if unknown:
        raise RequestError(f"no recipe is called {unknown[0]}; there are {', '.join(protocols())}")
    from ..eval.report import judges as shelf
    from ..eval.report import score

    try:
        target = score.check_target(args.out)
    except ValueError as error:
        raise RequestError(str(error)) from None
    settings = score.ScoreSettings(
        recipes=tuple(args.recipe), judges=tuple(shelf.Judge(name, source) for name, source in judges), jobs=jobs,
        seed=args.seed, strict=args.strict, own_judge=not args.no_judge,
        cache=None if args.no_cache else str(args.cache or cache_folder()),
        codec=RoundTrip(), self_check=not args.no_check, save_reference=args.save_reference, against=args.against,
        command=("descant", *sys.argv[1:]), progress=None if args.quiet else _Progress(),
    )  # fmt: skip
    report = score.score(
        args.generated, args.reference, prompts=args.prompts, labels=args.labels, stems=args.stems, settings=settings
    )  # fmt: skip
    score.write(report, target, page=not args.no_page)
    if not args.quiet:
        _summary(report, target, args.no_page)
    if args.json:
        print((target / "results.json").read_text(encoding="utf-8"), end="")
        sys.stdout.flush()
    if not report.valid:
        raise ValueError(f"the report is invalid, its self-check failed: {report.self_check.reason}")


def cache_folder() -> Path:
    """Where vectors are kept unless ``--cache`` says otherwise."""
    own = os.environ.get("DESCANT_CACHE")
    if own:
        return Path(own) / "score"
    shared = os.environ.get("XDG_CACHE_HOME")
    # the standard has a relative path ignored
    root = Path(shared) if shared and os.path.isabs(shared) else Path.home() / ".cache"
    return root / "descant" / "score"


@dataclass
class RoundTrip:
    """The embedded codec as the self-check's damage: loaded where it is used, so that every process has its own."""

    name: str = "codec_tiny"
    _codec: Any = None
    _id: str = ""

    @property
    def id(self) -> str:
        """For the cache: the codec and the digest of its weights."""
        if self._id:
            return self._id
        import hashlib

        from .load import SHELF

        total = hashlib.sha256()
        for path in sorted((SHELF / self.name).glob("*.*")):
            if path.suffix in (".json", ".safetensors"):
                total.update(path.read_bytes())
        self._id = f"{self.name}+{total.hexdigest()[:12]}"
        return self._id

    def __call__(self, wav: Tensor, rate: int) -> Tensor:
        """[C, T] at ``rate`` Hz -> what the codec leaves of it, [C, T]."""
        import torch

        from ..codec.audio import resample

        if self._codec is None:
            from ..codec import pretrained
            from .load import SHELF

            self._codec = pretrained.load(SHELF / self.name)
        codec = self._codec
        inner = resample(wav, rate, codec.rate)
        with torch.no_grad():
            # every channel by itself, as rows of a batch
            coded = codec.decode(codec.encode(inner[:, None]))[:, 0, : inner.shape[1]]
        out = resample(coded, codec.rate, rate)
        return torch.nn.functional.pad(out, (0, max(0, wav.shape[1] - out.shape[1])))[:, : wav.shape[1]]

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_codec": None, "_id": self._id}


class _Progress:
    """One line on standard error, rewritten where that is a terminal."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def __call__(self, what: str, done: int, count: int) -> None:
        last = done == count
        if self.live:
            print(f"\r{what}: {done} of {count}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif done * 10 // count > (done - 1) * 10 // count:
            print(f"{what}: {done} of {count}", file=sys.stderr)


def _judges(words: list[str]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for word in words:
        name, sign, path = word.partition("=")
        if not name or (sign and not path):
            raise RequestError(f"--judge {word}: write NAME=PATH, such as vggish-google=vggish.npz, or NAME alone")
        if name in [one for one, _ in found]:
            raise RequestError(f"--judge {name} is named twice")
        found.append((name, path or None))
    return found


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _summary(report: Any, target: Path, without_page: bool) -> None:
    from ..eval.report.names import ARROWS, label
    from ..eval.report.tables import figure

    for item in report.results:
        if item.best is None:
            continue
        bounds = "" if item.low is None or item.high is None else f" [{figure(item.low)}, {figure(item.high)}]"
        arrow = ARROWS[item.direction]
        print(f"{label(item.metric)} {arrow}: {figure(item.best)}{bounds}", file=sys.stderr)
    absent = [item for item in report.results if item.best is None]
    if absent:
        print(f"{len(absent)} rows have no value; the report says why", file=sys.stderr)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    if report.self_check.reason and report.valid:
        print(f"self-check {report.self_check.reason}", file=sys.stderr)
    print(f"the report is {target / ('tables.md' if without_page else 'index.html')}", file=sys.stderr)
