"""``descant info``: what a model is, what a sound file is, what words are known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..lm import vocab

_EPILOG = """examples:
  descant info                 the embedded model, known genres, instruments and keys
  descant info take.flac       rate, channels, length and loudness of a file
  descant info my-model        a folder as 'generate --model' takes it
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command."""
    info = commands.add_parser(
        "info", help="about a model or a sound file", epilog=_EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    info.add_argument("what", nargs="?", default="embedded", metavar="FILE|MODEL", help="default: the embedded model")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error happened")
    info.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """``descant info``."""
    path = Path(args.what)
    if path.is_file():
        facts = about_file(path)
    else:
        facts = about_model(args.what)
        if args.what == "embedded":
            facts["genres"], facts["instruments"] = list(vocab.GENRES), list(vocab.INSTRUMENTS)
            facts["keys"] = "24: C ... B, major and minor"
    if args.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _show(facts)


def about_file(path: Path) -> dict[str, Any]:
    """Facts of a sound file; its loudness is that of its first ten minutes."""
    from ..codec import audio

    found = audio.info(path)
    facts: dict[str, Any] = {
        "file": str(path), "format": found.format, "rate": found.rate, "channels": found.channels,
        "samples": found.samples, "seconds": round(found.duration, 6), "bytes": path.stat().st_size,
    }  # fmt: skip
    opening = audio.read(path, duration=600.0)
    facts["loudness_lufs"] = _finite(audio.loudness(opening.wav, opening.rate))
    facts["peak"] = round(float(opening.wav.abs().max()), 4) if opening.wav.numel() else 0.0
    return facts


def about_model(name: str) -> dict[str, Any]:
    """Facts of a model: sizes, parameters, rates, presets."""
    from ..codec import model as codecs
    from ..lm import model as models
    from .load import find, load

    folders = find(name)
    studio = load(name)
    codec, lm = studio.codec, studio.lm
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir() if path.is_file())
    return {
        "model": name,
        "megabytes": round(size / 1e6, 2),
        "codec": {
            "folder": str(folders[0]), "parameters": _count(codec), "rate": codec.rate, "channels": codec.channels,
            "hop": codec.hop, "frames_per_second": codec.frame_rate, "books": codec.books,
            "cardinality": codec.cardinality,
        },
        "lm": {
            "folder": str(folders[1]), "parameters": _count(lm), "width": lm.config.width, "layers": lm.config.layers,
            "heads": lm.config.heads, "books": lm.config.books,
            "window_seconds": lm.config.window / lm.config.frame_rate, "reads_text": lm.tokenizer is not None,
        },
        "presets": {
            "codec": [row.__name__ for row in (codecs.nano, codecs.tiny)],
            "lm": [row.__name__ for row in (models.nano, models.embedded, models.base)],
        },
    }  # fmt: skip


def _count(module: Any) -> int:
    return sum(int(value.numel()) for value in module.parameters())


def _finite(value: float) -> float | None:
    return round(value, 2) if value > float("-inf") else None


def _show(facts: dict[str, Any], indent: str = "") -> None:
    for name, value in facts.items():
        label = name.replace("_", " ")
        if isinstance(value, dict):
            print(f"{indent}{label}:")
            _show(value, indent + "  ")
        else:
            text = (
                ", ".join(map(str, value))
                if isinstance(value, list)
                else f"{value:,}"
                if isinstance(value, int)
                else value
            )
            print(f"{indent}{label}: {text}")
