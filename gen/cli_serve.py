"""``descant serve``."""

from __future__ import annotations

import argparse
import sys

from .cli_wishes import default_threads
from .request import RequestError
from .serve_limits import Limits

_EPILOG = """examples:
  descant serve --open
  descant serve --port 9000 --model my-model --separator runs/separator/export
  descant serve --host 0.0.0.0 --allow-host studio.local --max-upload 50 --queue 4

A page to make, extend and take apart music, and an API under /api (docs/serve.md). Everything stays on this machine:
the page loads nothing from elsewhere, and what is sent and made lies in a temporary folder that goes when the server
ends (Ctrl-C). It listens to this machine only unless --host says otherwise; there are no passwords, so let in only whom
you trust. Needs the extra 'web': pip install 'descant[web]'.

Exit status: 0 ended by SIGTERM, 1 the model or the address cannot be had, 2 the command line is wrong, 130 Ctrl-C.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    limits = Limits()
    one = commands.add_parser(
        "serve", help="a page in the browser and an API, on this machine", epilog=_EPILOG, allow_abbrev=False,
        description="Serve a page and an API for making, extending and taking apart music.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    one.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="listen here (default: 127.0.0.1)")
    one.add_argument("--port", type=int, default=8765, metavar="N", help="0 takes a free one (default: 8765)")
    one.add_argument("--open", action="store_true", help="open the page in the browser")
    one.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a further name this server is called by"
    )
    models = one.add_argument_group("models")
    models.add_argument("--model", default="embedded", metavar="NAME", help="a folder, or a MusicGen's hub id")
    models.add_argument(
        "--separator", default="embedded", metavar="NAME", help="as 'descant separate --model' takes it"
    )
    models.add_argument(
        "--precision", default="fp32", choices=["fp32", "bf16", "int8"], help="of the language model's weights"
    )
    models.add_argument("--adapter", metavar="DIR", help="what 'descant finetune' made for this model")
    models.add_argument("--device", default="cpu", metavar="NAME", help="cpu, or cuda for an NVIDIA GPU")
    models.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: as many as help)")
    models.add_argument(
        "--workers", type=int, default=1, metavar="N", help="jobs at once, 1 to 16, each with its own copy (default: 1)"
    )
    bounds = one.add_argument_group("limits")
    for name, field, unit, text in _BOUNDS:
        bounds.add_argument(
            name, dest=field, type=type(getattr(limits, field)) if unit == 1 else float,
            default=getattr(limits, field) / unit if unit != 1 else getattr(limits, field), metavar="N",
            help=f"{text} (default: {getattr(limits, field) / unit:g})",
        )  # fmt: skip
    one.add_argument("--quiet", action="store_true", help="do not say where the page is")
    one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    one.set_defaults(run=run)


#: Option, field of the limits, its unit, help.
_BOUNDS = (
    ("--max-seconds", "seconds", 1, "seconds of music made at once, at most 600"),
    ("--max-upload", "upload", 1_000_000, "MB of a file that is sent"),
    ("--max-given", "given", 1, "seconds of music that is given"),
    ("--queue", "queue", 1, "requests that wait"),
    ("--keep", "keep", 1, "finished jobs kept"),
    ("--keep-minutes", "minutes", 1, "minutes for which they are kept"),
    ("--disk", "disk", 1_000_000, "MB of all files together"),
)


def run(args: argparse.Namespace) -> None:
    """``descant serve``: what can be wrong is found before a model is loaded."""
    from . import serve

    lacks = serve.missing()
    if lacks is not None:
        raise RuntimeError(lacks)
    if not 1 <= args.workers <= 16:
        raise RequestError(f"workers {args.workers} is outside 1 to 16")
    try:
        limits = Limits(**{
            field: getattr(args, field) if unit == 1 else round(getattr(args, field) * unit)
            for _, field, unit, _ in _BOUNDS
        })  # fmt: skip
        place = serve.Place(host=args.host, port=args.port, names=tuple(args.allow_host), limits=limits)
    except (ValueError, OverflowError) as error:
        raise RequestError(str(error)) from None
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise RequestError(f"threads {args.threads} is outside 1 to 1024")
    threads = args.threads or max(1, default_threads() // args.workers)
    serve.listen(args.host, args.port).close()
    import torch

    from .load import load
    from .serve_work import Tools

    torch.set_num_threads(threads)  # the workers share this setting
    tools = [
        Tools(load(args.model, threads, args.precision, args.adapter, args.device), args.separator)
        for _ in range(args.workers)
    ]
    tools[0].method(None)  # one that cannot be had is said now

    def ready(address: str) -> None:
        if not args.quiet:
            print(f"descant serve: {address} (Ctrl-C ends)", file=sys.stderr, flush=True)

    serve.serve(place, tools, ready, args.open)
