"""The command line: ``descant generate``, ``extend``, ``encode``, ``decode``, ``info``, and the runs of the recipes.

Exit status: 0 done, 1 the work failed, 2 the command line is wrong, 130 interrupted. A failure is one line on standard
error; ``--debug`` shows where it happened. Standard output carries data only: JSON, or sound with ``-o -``. Nothing
heavy is imported before a command runs, so that help and mistakes cost no waiting.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from . import (
    cli_accompany,
    cli_codec,
    cli_finetune,
    cli_generate,
    cli_info,
    cli_inpaint,
    cli_score,
    cli_selfcheck,
    cli_separation,
    cli_serve,
    cli_syntheval,
    cli_train,
)
from .request import RequestError

_EPILOG = """examples:
  descant generate "an upbeat bossa nova in G minor with flute and nylon guitar" -o bossa.wav
  descant generate --genre blues --key E --tempo 90 --chords "E7 A7 E7 B7" --seed 7 -o blues.flac
  descant extend bossa.wav --seconds 20 -o longer.wav
  descant accompany drums.wav --add bass,keys -o band.wav
  descant encode bossa.wav -o bossa.dsc
  descant finetune my-songs -o my-style
  descant info
  descant score --generated out --reference real -o report

'descant COMMAND --help' explains a command.
"""


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake in one line, and takes ``key=value`` settings after options too.

    With a default ``otherwise`` it goes on with that subcommand when the first word names none.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, with the name of the subcommand put before a first word that is none."""
        words = list(sys.argv[1:] if args is None else args)
        otherwise = self.get_default("otherwise")
        at = next((place for place, word in enumerate(words) if word != "--debug"), None)
        if otherwise is not None and at is not None and words[at] not in ("-h", "--help"):
            kinds = [word for item in self._actions if isinstance(item.choices, dict) for word in item.choices]
            words[at:at] = [] if words[at] in kinds else [otherwise]
        return super().parse_known_args(words, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, which ends a list of words at the first option; settings beyond it are ours."""
        found, rest = self.parse_known_args(args, namespace)
        if rest and hasattr(found, "settings") and all("=" in word and not word.startswith("-") for word in rest):
            found.settings = [*found.settings, *rest]
        elif rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Leave with status 2."""
        self.exit(2, f"{self.prog}: {message} (see '{self.prog} --help')\n")


_MEMORY = "not enough memory: ask for less at once (shorter, fewer, a smaller batch), or choose a smaller model"


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="descant", description="Music from a sentence, on your own machine.", epilog=_EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"descant {_version()}")
    top.add_argument("--debug", action="store_true", help="show where an error happened")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for module in (
        cli_generate,
        cli_accompany,
        cli_inpaint,
        cli_separation,
        cli_serve,
        cli_codec,
        cli_info,
        cli_score,
        cli_selfcheck,
        cli_syntheval,
        cli_train,
        cli_finetune,
    ):
        module.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 2
    if args.command is None:
        parser().print_help(sys.stderr)
        return 2
    name = f"descant {args.command}"
    try:
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail(args.debug, f"{name}: interrupted", 130)
    except BrokenPipeError:
        # the reader of our output is gone: say nothing, and keep the interpreter from flushing into the void
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RequestError as error:
        return _fail(args.debug, f"{name}: {_line(error)}", 2)
    except ModuleNotFoundError as error:
        return _fail(args.debug, f"{name}: needs the package {error.name!r}, which is not installed", 1)
    except MemoryError:
        return _fail(args.debug, f"{name}: {_MEMORY}", 1)
    except (ValueError, OSError, RuntimeError) as error:
        lacks = any(sign in str(error) for sign in ("can't allocate memory", "CUDA out of memory", "bad_alloc"))
        return _fail(args.debug, f"{name}: {_MEMORY if lacks else _line(error)}", 1)
    except Exception as error:
        return _fail(
            args.debug, f"{name}: internal error, {type(error).__name__}: {_line(error)}; --debug shows more", 1
        )
    return 0


def _fail(debug: bool, message: str, status: int) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    print(message, file=sys.stderr)
    return status


def _line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return " ".join(str(error).split()) or type(error).__name__


def _version() -> str:
    from .. import __version__

    return str(__version__)
