"""``descant render``, ``prepare``, ``train`` and ``bench``: the runs of the recipes, imported when asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import (
    cli_bench_codec,
    cli_bench_judge,
    cli_bench_lm,
    cli_bench_metrics,
    cli_bench_score,
    cli_codec,
    cli_distances,
    cli_separation,
    cli_targets,
)
from .request import RequestError

_RENDER = """examples:
  descant render --layer builtin --count 20 --out data/pieces
  descant render --layer synth --hours 40 --split train --soundfont FluidR3Mono_GM.sf3 --out data/pieces
  descant render --layer builtin --count 5 --out data/pieces --audio data/wav

Writes OUT/SPLIT.jsonl.gz: symbolic pieces with exact labels. --audio renders them to sound files too, stem by stem.
A stopped run goes on when the same command is given again.
"""
_TRAIN = """examples:
  descant train codec tiny --data data/audio/train --dev data/audio/dev --out runs/codec
  descant train codec hifi48 --data data/48/train --dev data/48/dev --out runs/hifi codec.books=8 batch=24
  descant train codec tiny --init runs/codec/export --data mine/train --dev mine/dev --out runs/mine freeze=1 steps=2000
  torchrun --nproc-per-node 2 -m descant train codec tiny --data data/audio/train --dev data/audio/dev --out runs/two
  descant train lm embedded --data data/tokens/train --dev data/tokens/dev --out runs/lm
  descant train lm small --data data/tokens/train --dev data/tokens/dev --out runs/lm steps=2000 batch=8
  torchrun --nproc-per-node 8 -m descant train lm embedded --data data/tokens/train --dev data/tokens/dev --out runs/big
  (and 'zero=2 optimiser=adamw' behind it for DeepSpeed, which spreads what a run holds over the processes)
  descant train separator embedded --data data/stems/train --dev data/stems/dev --out runs/separator
  descant train lm small --init embedded --data mine/train --dev mine/dev --out runs/mine lr=1e-3 steps=1000
  descant train judge small --data data/judge/train --dev data/judge/dev --out runs/judge

A run that was stopped or killed goes on where its last checkpoint was when the same command is given again.
'tensorboard --logdir runs' shows its curves; the model that --model takes is in the folder 'export' of --out.
"""
_PREPARE = """examples:
  descant prepare my-songs -o shards
  descant prepare real --out data/real
  descant prepare folder my-recordings --licence CC0-1.0 --author "A. Musician" --out data/mine
  descant prepare audio --pieces data/pieces/train.jsonl.gz --files data/real/train --out data/audio/train
  descant prepare audio --files my-records --rate 48000 --stereo --out data/48/train
  descant prepare tokens --pieces data/pieces/train.jsonl.gz --codec runs/codec/export --out data/tokens/train
  descant prepare judge --pieces judge/train.jsonl.gz --soundfont MuseScore_General.sf3 --out data/judge/train
"""
_BENCH = """examples:
  descant bench main --data data/pieces --real data/real/test --tokens data/tokens
  descant bench main --data data/pieces --only speed adherence
"""
_BENCHES = """examples:
  descant bench main --data data/pieces --real data/real/test --tokens data/tokens
  descant bench codec --real data/real/test
  descant bench distances --out docs/benchmarks
  descant bench bss -o docs/benchmarks
  descant bench control -o docs/benchmarks
  descant bench score -o docs/benchmarks
  descant bench lm -o docs/benchmarks
  descant bench fuzz --count 2000
"""
_AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_Commands = argparse._SubParsersAction


def add(commands: _Commands[Any]) -> None:
    """Add the commands."""
    _add_render(commands)
    _add_prepare(commands)
    _add_train(commands)
    _add_bench(commands)


def _command(commands: _Commands[Any], name: str, text: str, epilog: str | None = None) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=raw, allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    return parser


def _add_render(commands: _Commands[Any]) -> None:
    render = _command(commands, "render", "write labelled multi-stem music", _RENDER)
    render.add_argument("--layer", default="builtin", metavar="NAME", help="builtin (default) or synth")
    render.add_argument("--split", default="train", metavar="NAME", help="train (default), dev or test")
    much = render.add_mutually_exclusive_group(required=True)
    much.add_argument("--hours", type=float, metavar="H", help="how much")
    much.add_argument("--count", type=int, metavar="N", help="how many pieces")
    render.add_argument("--duration", type=float, default=60.0, metavar="S", help="seconds a piece (default: 60)")
    render.add_argument("--seed", type=int, default=0, metavar="N")
    render.add_argument("--soundfont", metavar="FILE", help="for the synth layer")
    render.add_argument("--tunes", metavar="DIR", help="tunes for the synth layer")
    render.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    render.add_argument("--out", required=True, metavar="DIR")
    render.add_argument("--audio", metavar="DIR", help="render to sound files, too")
    render.add_argument("--quiet", action="store_true")
    render.set_defaults(run=_render)


def _add_prepare(commands: _Commands[Any]) -> None:
    prepare = _command(commands, "prepare", "make training data out of pieces and recordings", _PREPARE)
    kinds = prepare.add_subparsers(dest="kind", metavar="KIND", required=True)
    real = _command(kinds, "real", "fetch the listed free recordings with the system's package client and convert them")
    real.add_argument("--out", required=True, metavar="DIR")
    real.add_argument("--tier", nargs="+", default=["free"], metavar="TIER", help="free, sharealike (default: free)")
    real.add_argument("--packages", metavar="DIR", help="packages fetched earlier")
    real.set_defaults(run=_real)
    mine = _command(kinds, "folder", "convert a folder of your own recordings")
    mine.add_argument("source", metavar="DIR")
    mine.add_argument("--licence", required=True)
    mine.add_argument("--author", required=True)
    mine.add_argument("--out", required=True, metavar="DIR")
    mine.set_defaults(run=_folder)
    audio = _command(kinds, "audio", "render pieces and pack them with recordings for codec training")
    audio.add_argument("--pieces", metavar="FILE", help="a .jsonl.gz of 'descant render'")
    audio.add_argument("--files", nargs="*", default=[], metavar="DIR", help="folders with recordings")
    audio.add_argument("--limit", type=int, metavar="N", help="use the first N pieces")
    audio.add_argument("--rate", type=int, default=32000, metavar="HZ", help="what the codec runs at (default: 32000)")
    audio.add_argument("--stereo", action="store_true", help="keep recordings in stereo, for a stereo codec")
    audio.add_argument("--out", required=True, metavar="DIR")
    audio.add_argument("--quiet", action="store_true")
    audio.set_defaults(run=_audio)
    tokens = _command(kinds, "tokens", "render pieces and encode them for language-model training")
    tokens.add_argument("--pieces", required=True, metavar="FILE", help="a .jsonl.gz of 'descant render'")
    tokens.add_argument("--codec", metavar="DIR", help="default: the embedded codec")
    tokens.add_argument("--books", type=int, default=4, metavar="K")
    tokens.add_argument("--limit", type=int, metavar="N", help="use the first N pieces")
    tokens.add_argument("--out", required=True, metavar="DIR")
    tokens.add_argument("--quiet", action="store_true")
    tokens.set_defaults(run=_tokens)
    judge = _command(kinds, "judge", "render pieces stem by stem and keep what the judge hears of them")
    judge.add_argument(
        "--pieces", required=True, metavar="FILE", help="a .jsonl.gz of 'descant render', made for it alone"
    )
    judge.add_argument(
        "--soundfont", metavar="FILE", help="for the synth layer: another than the generator's data used"
    )
    judge.add_argument("--codec", metavar="DIR", help="its traces are among the damages (default: the embedded codec)")
    judge.add_argument("--limit", type=int, metavar="N", help="use the first N pieces")
    judge.add_argument("--out", required=True, metavar="DIR")
    judge.add_argument("--quiet", action="store_true")
    judge.set_defaults(run=_judge)
    cli_separation.add_prepare(kinds)
    cli_targets.add_prepare(kinds)
    prepare.set_defaults(otherwise="targets")  # descant prepare DIR -o SHARDS


def _add_train(commands: _Commands[Any]) -> None:
    train = _command(commands, "train", "train a model", _TRAIN)
    models = train.add_subparsers(dest="model", metavar="MODEL", required=True)
    codecs = "tiny, tiny-stereo, hifi48, hifi48-small, musicgen32, encodec24, dac44, nano"
    names = {
        "codec": codecs, "lm": "embedded, base, small, nano", "judge": "small, nano",
        "separator": "embedded, embedded-causal, conv-tasnet, conv-tasnet-causal, conv-tasnet-mixit, mask-unet,"
        " sms-experiment, nano",
    }  # fmt: skip
    for name, recipes in names.items():
        one = _command(models, name, f"recipes: {recipes}", _TRAIN)
        one.add_argument("recipe", metavar="RECIPE", help=recipes)
        one.add_argument("settings", nargs="*", metavar="key=value", help="change a setting of the recipe")
        one.add_argument("--data", required=True, metavar="DIR", help="what to train on")
        one.add_argument("--dev", required=True, metavar="DIR", help="held-out data of the same kind")
        one.add_argument("--out", required=True, metavar="DIR", help="checkpoints, logs and the exported model")
        one.add_argument("--stop", type=int, metavar="STEP", help="halt there; the same command goes on later")
        one.add_argument("--quiet", action="store_true")
        if name in ("codec", "lm", "separator"):
            one.add_argument("--init", metavar="NAME|DIR", help="start from this model's weights")
        one.set_defaults(run=_train)


def _add_bench(commands: _Commands[Any]) -> None:
    kinds = _command(commands, "bench", "measure the models and write the reports", _BENCHES).add_subparsers(
        dest="kind", metavar="KIND", required=True
    )
    bench = _command(kinds, "main", "every figure of the front page", _BENCH)
    bench.add_argument("--data", required=True, metavar="DIR", help="folder with train.jsonl.gz and test.jsonl.gz")
    bench.add_argument("--real", metavar="DIR", help="held-out recordings")
    bench.add_argument("--tokens", metavar="DIR", help="folder with train and test token shards")
    bench.add_argument("--model", default="embedded", metavar="NAME")
    bench.add_argument("--out", default="docs/benchmarks", metavar="DIR")
    bench.add_argument("--cache", default="runs/bench", metavar="DIR")
    bench.add_argument("--only", nargs="+", metavar="SECTION", help="codec, adherence, lm, speed, extend")
    bench.add_argument("--quiet", action="store_true")
    bench.add_argument("settings", nargs="*", metavar="key=value", help="such as prompts=64 seconds=10")
    bench.set_defaults(run=_bench)
    cli_bench_codec.add_codec(kinds)
    cli_codec.add_fuzz(kinds)
    cli_distances.add_distances(kinds)
    cli_bench_metrics.add_metrics(kinds)
    cli_bench_judge.add_judge(kinds)
    cli_bench_lm.add_lm(kinds)
    cli_bench_score.add_score(kinds)
    cli_separation.add_bench(kinds)
    cli_targets.add_bench(kinds)


def pairs(settings: Sequence[str]) -> dict[str, str]:
    """``key=value`` words as a mapping. Raises RequestError for a word without ``=``."""
    found: dict[str, str] = {}
    for word in settings:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise RequestError(f"{word!r} is no setting: write key=value")
        found[name] = value
    return found


def _render(args: argparse.Namespace) -> None:
    from ..recipes import render

    target = render.render(
        args.layer,
        args.out,
        hours=args.hours,
        count=args.count,
        seed=args.seed,
        split=args.split,
        duration=args.duration,
        soundfont=args.soundfont,
        tunes_at=args.tunes,
        workers=args.workers,
        progress=not args.quiet,
    )
    _say(args.quiet, f"the pieces are in {target}")
    if args.audio:
        made = render.write_audio(target, args.audio, soundfont=args.soundfont, progress=not args.quiet)
        _say(args.quiet, f"{made} pieces as sound in {args.audio}")


def _train(args: argparse.Namespace) -> None:
    from ..recipes.loop import override

    settings = pairs(args.settings)
    recipes: Any
    if args.model == "codec":
        from ..recipes import codec as recipes

    elif args.model == "separator":
        from ..recipes import separator as recipes
    elif args.model == "lm":
        from ..recipes import lm as recipes
    else:
        from ..recipes import judge as recipes
    if getattr(args, "init", None):
        settings["init"] = args.init
    try:
        config = override(recipes.recipe(args.recipe), settings)
    except ValueError as error:
        raise RequestError(str(error)) from None
    folder = recipes.train(config, args.data, args.dev, args.out, args.stop, args.quiet)
    _say(args.quiet, f"the model is in {folder}")


def _real(args: argparse.Namespace) -> None:
    from ..recipes import real

    rows = real.fetch(args.out, args.tier, args.packages)
    _say(False, f"{len(rows)} recordings in {args.out}; credits in {Path(args.out) / 'ATTRIBUTION.md'}")


def _folder(args: argparse.Namespace) -> None:
    from ..recipes import real

    rows = real.from_folder(args.source, args.out, licence=args.licence, author=args.author)
    _say(False, f"{len(rows)} recordings in {args.out}")


def _audio(args: argparse.Namespace) -> None:
    from itertools import islice

    from ..recipes import prepare
    from ..recipes.piece import read_pieces

    pieces = list(islice(read_pieces(args.pieces), args.limit)) if args.pieces else []
    files = sorted(path for folder in args.files for path in Path(folder).rglob("*") if path.suffix.lower() in _AUDIO)
    if not pieces and not files:
        raise RequestError("nothing to pack: name --pieces, --files or both")
    corpus = prepare.pack_audio(args.out, pieces, files, args.rate, 2 if args.stereo else 1, args.quiet)
    _say(args.quiet, f"{corpus.hours:.2f} hours in {args.out}")


def _tokens(args: argparse.Namespace) -> None:
    from ..codec import load
    from ..recipes import prepare
    from .load import find

    codec = load(args.codec or find("embedded")[0])
    count = prepare.tokenise(codec, args.pieces, args.out, args.books, args.limit, args.quiet)
    _say(args.quiet, f"{count} pieces in {args.out}")


def _judge(args: argparse.Namespace) -> None:
    from itertools import islice

    from tqdm import tqdm

    from ..codec import load
    from ..recipes import judge_data
    from ..recipes.piece import read_pieces
    from .load import find

    codec = load(args.codec or find("embedded")[0])
    pieces = tqdm(islice(read_pieces(args.pieces), args.limit), desc="pieces", unit="", disable=args.quiet)
    count = judge_data.prepare(pieces, args.out, args.soundfont, codec)
    _say(args.quiet, f"{count} pieces in {args.out}")


def _bench(args: argparse.Namespace) -> None:
    from ..recipes import bench
    from ..recipes.loop import override

    try:
        config = bench.BenchConfig(
            data=args.data, real=args.real, tokens=args.tokens, model=args.model, out=args.out, cache=args.cache
        )
        config = override(config, pairs(args.settings))
    except ValueError as error:
        raise RequestError(str(error)) from None
    bench.run(config, args.only, lambda text: _say(args.quiet, text), " ".join(["descant", *sys.argv[1:]]))
    _say(args.quiet, f"the report is in {args.out}")


def _say(quiet: bool, text: str) -> None:
    if not quiet:
        print(text, file=sys.stderr)
