"""``descant bench codec``: the codec report."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .request import RequestError

_EXAMPLES = """examples:
  descant bench codec --real data/real/test data/real/test_sa
  descant bench codec --real data/real/test --codec runs/codec/export visqol_clips=16
  descant bench codec --real music --codec hifi-run/export --peer encodec_48khz dac_44khz rate=48000 channels=2

Scores are kept in --cache by what they were computed from: a stopped run goes on, a new codec is scored alone.
"""
_Commands = argparse._SubParsersAction


def add_codec(kinds: _Commands[Any]) -> None:
    """Add ``codec`` to the kinds of ``descant bench``."""
    text = "our codecs beside Opus, MP3, other codecs and controls, on held-out recordings"
    raw = argparse.RawDescriptionHelpFormatter
    codec: argparse.ArgumentParser = kinds.add_parser(
        "codec", help=text, description=text, epilog=_EXAMPLES, formatter_class=raw, allow_abbrev=False
    )
    codec.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    codec.add_argument("--real", nargs="+", required=True, metavar="DIR", help="held-out recordings")
    codec.add_argument("--codec", nargs="+", default=["tiny"], metavar="NAME", help="our codecs (default: tiny)")
    codec.add_argument("--peer", nargs="+", default=[], metavar="DIR", help="folders with EnCodec, DAC, ...")
    codec.add_argument("--out", default="docs/benchmarks", metavar="DIR")
    codec.add_argument("--cache", default="runs/bench", metavar="DIR")
    codec.add_argument("--quiet", action="store_true")
    codec.add_argument("settings", nargs="*", metavar="key=value", help="such as clips=64 visqol_clips=16 workers=1")
    codec.set_defaults(run=run_codec)


def run_codec(args: argparse.Namespace) -> None:
    """``descant bench codec``."""
    from ..recipes.bench_codec_run import CodecBenchConfig, run
    from ..recipes.loop import override
    from .cli_train import pairs

    # a key=value that follows --real, --codec or --peer would else be taken for a folder
    lists = {name: [word for word in getattr(args, name) if "=" not in word] for name in ("real", "codec", "peer")}
    words = [word for name in lists for word in getattr(args, name) if "=" in word]
    settings = pairs([*words, *args.settings])
    try:
        config = CodecBenchConfig(
            real=tuple(lists["real"]), codecs=tuple(lists["codec"]), peers=tuple(lists["peer"]), out=args.out,
            cache=args.cache,
        )  # fmt: skip
        odd = [name for name in settings if isinstance(getattr(config, name, None), tuple)]
        if odd:
            raise ValueError(f"{odd[0]} is no setting: use --real, --codec or --peer")
        config = override(config, settings)
    except ValueError as error:
        raise RequestError(str(error)) from None
    run(config, lambda line: _say(args.quiet, line), " ".join(["descant", *sys.argv[1:]]))
    _say(args.quiet, f"the report is in {args.out}")


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(text, file=sys.stderr)
