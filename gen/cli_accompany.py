"""``descant accompany``: parts that fit given music."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_output import (
    checked_folder,
    checked_targets,
    delivered,
    described,
    is_folder,
    print_json,
    progress_bar,
    source_of,
    summary,
)
from .cli_wishes import request_of, stems_of, studio_of, wishes
from .request import RequestError, resolve_continuation

if TYPE_CHECKING:
    from ..codec.audio import Audio
    from .accompany import Accompaniment

_SOUND = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")
#: Names of files that hold everything together.
_WHOLE = ("mix", "mixture", "master")
_EXAMPLES = """examples:
  descant accompany song.wav --add bass,keys -o with-band.wav
  descant accompany --stem drums=beat.wav --stem bass=bass.wav --add keys,lead --text "smoky jazz" -o take.flac
  descant accompany stems/ --add strings --seed 3 -o band/
  descant accompany song.mp3 --add drums --separator htdemucs --only-new -o drums.wav --json

The new parts follow the tempo, beat and key that are heard in what is given, and are as long as it, to the sample, at
its rate and in its channels. A wish that contradicts the music is not followed, and you are told. A mix is taken apart
first, so that its instruments are heard one by one. A folder holds a file a stem, called by what plays: drums.wav,
bass.wav, piano.wav. Stems and mix stay as they are given; where the sum would clip, everything is turned down alike.

-o FILE is everything together, -o FOLDER/ that and every stem, given and new, which add up to it.

For models that play parts by themselves; 'descant info MODEL' lists which. Up to ten minutes at once.
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    one = commands.add_parser(
        "accompany", help="add parts to a recording or to stems", epilog=_EXAMPLES, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    one.add_argument("input", nargs="?", metavar="IN", help="a sound file, or a folder with a file a stem")
    one.add_argument(
        "--stem",
        action="append",
        default=[],
        metavar="ROLE=FILE",
        help="a stem that is given; instead of IN, repeatable",
    )
    one.add_argument("--add", required=True, metavar="A,B", help="what to add, such as bass,keys")
    one.add_argument("--text", metavar="SENTENCE", help="what the new parts shall be like")
    one.add_argument("--only-new", action="store_true", help="write the new parts without what was given")
    one.add_argument("--stems-to", metavar="DIR", help="also write every stem there, each to a file")
    one.add_argument(
        "--separator", default="embedded", metavar="NAME", help="what takes a mix apart, as 'descant separate --model'"
    )
    wishes(one)
    one.set_defaults(run=run, duration=10.0)


def run(args: argparse.Namespace) -> None:
    """``descant accompany``: everything that can be wrong is checked before a model is loaded."""
    request = request_of(args)
    resolve_continuation(replace(request, chords=()))
    given, notes = _given(args)
    targets, folder = _targets(args)
    from . import accompany, stem_files

    parts = [part.strip() for part in args.add.split(",") if part.strip()]
    accompany.check_parts(parts)
    files = [path for paths in given.values() for path in paths]
    _check(files, targets[0])
    suffix = "flac" if targets[0].lower().endswith(".flac") else "wav"
    names = (*given, *(f"{stem_files.NEW}{part}" for part in parts))
    _check_apart(args, files, [targets[0]] if folder is None else [targets[0], *_places(folder, names, suffix)])
    studio = studio_of(args)
    accompany.check(studio, parts)
    sounds = stem_files.gathered(given)
    whole: Audio | Mapping[str, Audio] = sounds.get("", sounds)
    began = time.perf_counter()
    with progress_bar(args.quiet, "music") as progress:
        made = accompany.accompany(studio, whole, parts, request, separator=args.separator, progress=progress)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with delivered(targets) as paths:
        written, more = stem_files.write(made, paths[0], folder, only_new=args.only_new, suffix=suffix, sources=files)
    _tell(args, made, (targets[0], written), time.perf_counter() - began, [*notes, *made.notes, *more])


def _targets(args: argparse.Namespace) -> tuple[list[str], Path | None]:
    """Where everything together goes, and the folder for the stems, both checked."""
    name = args.output or _name(args)
    if not is_folder(name):
        return checked_targets(name, 1, args.json), None if args.stems_to is None else checked_folder(args.stems_to)
    if args.stems_to is not None:
        raise RequestError(f"{name} is a folder and gets the stems: leave --stems-to out, or name a file with -o")
    return [str(Path(name) / "mix.wav")], checked_folder(name)


def _tell(
    args: argparse.Namespace, made: Accompaniment, names: tuple[str, Mapping[str, Path]], took: float,
    notes: Sequence[str],
) -> None:  # fmt: skip
    plan = made.plan
    channels, samples = made.mix.shape
    with_what = f"with {', '.join(made.added)}"
    summary(
        args, names[0], (f"{samples / made.rate:g} s", *described(plan), with_what, f"seed {made.seed}"), took, notes
    )
    row = {
        "file": names[0], "stems": {name: str(path) for name, path in names[1].items()},
        "given": list(made.given), "added": list(made.added), "seed": made.seed,
        "duration": round(samples / made.rate, 6), "rate": made.rate, "channels": channels,
        "tempo": plan.tempo, "key": plan.key, "asked": plan.asked, "notes": list(notes),
        "took": round(took, 3), "model": args.model,
    }  # fmt: skip
    print_json(args, [row])


def _name(args: argparse.Namespace) -> str:
    if args.input is None or Path(args.input).is_dir():
        return "accompanied.wav"
    source = Path(args.input)
    return str(source.with_name(f"{source.stem}-accompanied{source.suffix}"))


def _given(args: argparse.Namespace) -> tuple[dict[str, list[Path]], list[str]]:
    """Files of each stem, of the role ``""`` for a mix, and what there is to know about them."""
    if (args.input is None) == (not args.stem):
        raise RequestError("give either a sound file or a folder of stems, or stems with --stem drums=FILE")
    if args.input is None:
        return {role: [path] for role, path in stems_of(args.stem).items()}, []
    if not Path(args.input).is_dir():
        return {"": [source_of(args.input)]}, []
    from ..recipes.targets_roles import role_of

    found: dict[str, list[Path]] = {}
    notes = []
    taken: dict[str, Path] = {}
    # what is called by a part itself comes first
    for path in sorted(Path(args.input).iterdir(), key=lambda path: (path.stem.lower().startswith("new-"), path)):
        called = path.stem.lower().removeprefix("new-")
        if path.suffix.lower() not in _SOUND or called in _WHOLE or not path.is_file():
            continue
        if path.stem.lower().startswith("new-") and called in taken:
            notes.append(f"{path.name} is left out: {taken[called].name} is there, too")
            continue
        taken[called] = path
        role = called if called == "residual" else role_of(called)
        if role != called:
            notes.append(f"{path.name} is heard as {role}")
        found.setdefault(role, []).append(path)
    if not found:
        raise FileNotFoundError(
            f"{args.input} holds no stems: name a file by what plays, such as drums.wav or bass.wav"
        )
    return found, notes


def _places(folder: Path, names: Sequence[str], suffix: str) -> list[str]:
    """Files that stems may be written to; those of a mix come by any name of a part."""
    from ..lm.condition import ROLES

    known = [name for name in names if name] + ([*ROLES, "residual"] if "" in names else [])
    return [str(folder / f"{name}.{suffix}") for name in known]


def _check_apart(args: argparse.Namespace, files: Sequence[Path], targets: Sequence[str]) -> None:
    """Refuse to write over what is given, and into a folder of stems, where what is new would pass for given."""
    given = {path.resolve() for path in files}
    home = Path(args.input).resolve() if args.input is not None and Path(args.input).is_dir() else None
    for name in targets:
        place = Path(name).resolve()
        if name != "-" and place in given:
            raise RequestError(f"{name} is a file that is given: choose another name or another folder")
        if name != "-" and home is not None and home in place.parents:
            raise RequestError(f"{name} lies in the folder that is given: choose another folder")


def _check(files: Sequence[Path], target: str) -> None:
    """Refuse, before a model is loaded, files that cannot be used, and a format that cannot hold what is given."""
    from ..codec.formats import check_format
    from . import stem_files

    channels = max(stem_files.check_length(path).channels for path in files)
    if target != "-":
        check_format(target, channels)
