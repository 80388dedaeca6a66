"""``descant finetune``: a model learns the style of a folder of music."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .cli_train import pairs
from .request import RequestError

_EPILOG = """examples:
  descant finetune my-songs -o my-style
  descant generate "slow blues" --adapter my-style -o out.wav
  descant finetune my-songs --captions list.csv --rank 8 -o my-style steps=400 lr=1e-3
  descant finetune my-songs --model facebook/musicgen-small -o my-style batch=1
  descant finetune my-songs -o my-style --merge my-model

DIR holds sound files (.wav .flac .ogg .opus .mp3), two at least; folders inside count too. A caption may lie beside
each: song.txt (a sentence) or song.json ({"caption": .., "genre": .., "instruments": [..], "tempo": .., "key": ..}); or
all of them in a table, captions.csv or --captions FILE, with the columns file, caption, genre, instruments, tempo, key.
Some files are kept from training, and the weights that do best on them are the ones written. The same command goes on
where it was stopped. Train only on music that you may use so: the adapter learns from it.
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    raw = argparse.RawDescriptionHelpFormatter
    text = "teach a model the style of a folder of music"
    tune = commands.add_parser(
        "finetune", help=text, description=text, epilog=_EPILOG, formatter_class=raw, allow_abbrev=False
    )
    tune.add_argument("source", metavar="DIR", help="sound files, with or without captions")
    tune.add_argument("settings", nargs="*", metavar="key=value", help="steps, batch, lr, frames, share, minutes, ...")
    tune.add_argument("--model", default="embedded", metavar="NAME", help="embedded (default), a folder, or a hub id")
    tune.add_argument("--captions", metavar="FILE", help="a CSV table (default: captions.csv in DIR, if it is there)")
    tune.add_argument("--rank", type=int, metavar="R", help="size of the adapter (default: 16)")
    tune.add_argument("--merge", metavar="DIR", help="write the whole model with the adapter inside, too")
    tune.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    tune.add_argument("--stop", type=int, metavar="STEP", help="halt there; the same command goes on later")
    tune.add_argument("-o", "--output", required=True, metavar="DIR", help="adapter, card, log and checkpoint")
    tune.add_argument("--json", action="store_true", help="a report on standard output")
    tune.add_argument("--quiet", action="store_true")
    tune.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    tune.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """``descant finetune``: the files are looked through before a model is loaded."""
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise RequestError(f"threads {args.threads} is outside 1 to 1024")
    import torch

    from ..recipes import finetune, songs
    from ..recipes.loop import override

    settings = pairs(args.settings)
    if args.rank is not None:
        settings["rank"] = str(args.rank)
    try:
        config = override(finetune.FinetuneConfig(), settings)
    except ValueError as error:
        raise RequestError(str(error)) from None
    found = songs.find(args.source, args.captions)
    songs.held_out(len(found), config.share, config.seed)
    studio = finetune.open_model(args.model)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    outcome = finetune.finetune(config, found, studio, args.output, args.stop, None if args.quiet else _say)
    if args.merge:
        from ..lm import lora

        adapter = lora.load(outcome.adapter)
        lora.detach(studio.lm)
        lora.merge(studio.lm.cpu(), adapter)
        studio.lm.save(args.merge)
    if not args.quiet:
        before, after = (sum(row) / len(row) for row in (outcome.before, outcome.after))
        _say(f"{outcome.adapter}: cross-entropy on the {outcome.kept} kept files {before:.4f} -> {after:.4f} nats")
    if args.json:
        row = {
            "adapter": str(outcome.adapter), "model": args.model, "songs": outcome.songs, "kept": outcome.kept,
            "seconds": round(outcome.seconds, 3), "before": outcome.before, "after": outcome.after,
        }  # fmt: skip
        print(json.dumps(row, indent=2))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
