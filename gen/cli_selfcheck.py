"""``descant selfcheck`` and ``descant convert``: models of other projects proved against them, and taken over."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_SELFCHECK = """examples:
  descant selfcheck facebook/musicgen-small
  descant selfcheck ./musicgen-melody --steps 50 --json

Loads the model twice, here and with the transformers library (pip install 'descant[hub]'), and compares what the two
make of the same prompts: text states, logits, greedy tokens with and without guidance, a continuation, sound. Without
the library the decoder alone is compared, with its formulas computed in double precision. Exit status 0 when everything
agrees, 1 when something does not. Memory: twice the model.
"""
_CONVERT = """examples:
  descant convert state_dict.bin --text-encoder ./t5-base --codec compression_state_dict.bin -o ./musicgen-small
  descant convert state_dict.bin --text-encoder ./t5-base --codec facebook/encodec_32khz -o ./musicgen-small
  descant convert model_bs_roformer.ckpt --half -o ./vocals

Reads a checkpoint that AudioCraft exported (tensors and text only: a pickle of anything else is refused) and writes a
folder in the transformers library's format, which 'descant generate --model' takes. AudioCraft's files lack the text
encoder: name the folder of the T5 model it was trained with, with its tokenizer.

Without --text-encoder and --codec: a separator's checkpoint, with its settings beside it (model.ckpt, model.yaml), as
'descant separate --model' takes it, becomes a folder that loads faster, needs no settings and holds no pickle.
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add both commands."""
    raw = argparse.RawDescriptionHelpFormatter
    check = commands.add_parser(
        "selfcheck", help="prove that a MusicGen gives the library's numbers here", epilog=_SELFCHECK,
        formatter_class=raw, allow_abbrev=False,
    )  # fmt: skip
    check.add_argument("model", metavar="MODEL", help="a folder in the transformers format, or a hub id")
    check.add_argument("--steps", type=int, default=200, metavar="N", help="greedy steps, 8 to 1500 (default: 200)")
    check.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    check.add_argument("--json", action="store_true", help="a report on standard output")
    check.add_argument("--quiet", action="store_true", help="no progress")
    check.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    check.set_defaults(run=run_selfcheck)
    take = commands.add_parser(
        "convert", help="take over a checkpoint: AudioCraft's MusicGen, a RoFormer separator", epilog=_CONVERT,
        formatter_class=raw, allow_abbrev=False,
    )  # fmt: skip
    take.add_argument("checkpoint", metavar="FILE", help="state_dict.bin, as AudioCraft exports it; a separator")
    take.add_argument("--text-encoder", metavar="DIR", help="MusicGen: the T5 model's folder")
    take.add_argument(
        "--codec", metavar="MODEL", help="MusicGen: compression_state_dict.bin, an EnCodec folder, or a hub id"
    )
    take.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    take.add_argument("--half", action="store_true", help="separators: store float16")
    take.add_argument("--json", action="store_true", help="a report on standard output")
    take.add_argument("--quiet", action="store_true", help="no summary")
    take.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    take.set_defaults(run=run_convert)


def run_selfcheck(args: argparse.Namespace) -> None:
    """``descant selfcheck``: a table on standard output; ValueError, so status 1, when something differs."""
    from .request import RequestError

    if not 8 <= args.steps <= 1500:
        raise RequestError(f"steps {args.steps} is outside 8 to 1500")
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise RequestError(f"threads {args.threads} is outside 1 to 1024")
    import torch

    from ..codec import pretrained as codec_files
    from ..lm import hub, musicgen_check

    if args.threads:
        torch.set_num_threads(args.threads)
    began = time.perf_counter()
    folder = hub.fetch(args.model) if hub.is_id(args.model) else Path(args.model)
    codec = codec_files.load(folder)

    def say(what: str) -> None:
        if not args.quiet:
            print(f"{what} ...", file=sys.stderr)

    found = importlib.util.find_spec("transformers") is not None
    if found:
        checks = musicgen_check.compare(folder, args.steps, codec.decode, say)
    else:
        checks = musicgen_check.examine(folder, min(args.steps, 24), say)
    failed = [check.name for check in checks if not check.ok]
    if args.json:
        rows = [vars(check) for check in checks]
        took = round(time.perf_counter() - began, 3)
        against = "transformers" if found else "formulas"
        report = {"model": args.model, "ok": not failed, "against": against, "took": took, "checks": rows}
        print(json.dumps(report, indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            verdict = "ok" if check.ok else "DIFFERS"
            note = f"  ({check.note})" if check.note else ""
            print(f"{check.name:<{width}}  {check.value:>9.3g}  {check.limit:<9}  {verdict}{note}")
        if not found and not args.quiet:
            print("compared with formulas: pip install 'descant[hub]' to compare with the library", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(checks)} comparisons differ: {'; '.join(failed)}")


def run_convert(args: argparse.Namespace) -> None:
    """``descant convert``."""
    if not Path(args.checkpoint).exists():
        raise FileNotFoundError(f"there is no {args.checkpoint}")
    if args.text_encoder is None and args.codec is None:
        _convert_separator(args)
        return
    if args.text_encoder is None or args.codec is None or args.half:
        from .request import RequestError

        raise RequestError("a MusicGen checkpoint needs --text-encoder and --codec, and is stored as it is")
    from ..codec import pretrained as codec_files
    from ..lm import audiocraft

    if not Path(args.text_encoder).exists():
        raise FileNotFoundError(f"there is no {args.text_encoder}")
    with tempfile.TemporaryDirectory(prefix="descant-") as folder:
        codec_files.load(args.codec).save(folder, format="transformers")
        model = audiocraft.convert(args.checkpoint, args.output, args.text_encoder, folder)
    kind = ("stereo " if model.config.channels == 2 else "") + ("melody" if model.config.melody else "text")
    if args.json:
        print(json.dumps({"folder": args.output, "kind": kind, "parameters": model.config.parameters}, indent=2))
    elif not args.quiet:
        print(f"{args.output}: a {kind} model of {model.config.parameters / 1e6:.1f} M weights", file=sys.stderr)


def _convert_separator(args: argparse.Namespace) -> None:
    from .separation import pretrained
    from .separation.registry import get

    try:
        method: Any = get(Path(args.checkpoint))
    except ValueError as error:
        hint = "; MusicGen's also need --text-encoder and --codec" if " is no checkpoint of " in str(error) else ""
        raise ValueError(f"{error}{hint}") from None
    if not hasattr(method, "network"):
        raise ValueError(f"{args.checkpoint}: only {', '.join(pretrained.NETWORKS)} networks are taken over")
    pretrained.save(method.network, args.output, args.half, about={"source": Path(args.checkpoint).name})
    weights = sum(value.numel() for value in method.network.parameters())
    if args.json:
        print(json.dumps({"folder": args.output, "stems": method.stems, "parameters": weights}, indent=2))
    elif not args.quiet:
        print(
            f"{args.output}: a separator of {weights / 1e6:.1f} M weights into {', '.join(method.stems)}",
            file=sys.stderr,
        )
