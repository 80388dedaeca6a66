"""``descant info``: what a model is, what a sound file or a coded file is, what words are known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..lm import vocab

_EPILOG = """examples:
  descant info                 the embedded model, known genres, instruments and keys
  descant info take.flac       rate, channels, length and loudness of a file
  descant info take.dsc        codec, length, bit rate and damage of a coded file (.dsc .ecdc .dac)
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
        facts = about_coded(path) if path.suffix.lower() in (".dsc", ".ecdc", ".dac") else about_file(path)
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


def about_coded(path: Path) -> dict[str, Any]:
    """Facts of a file of codes. Every chunk's check sum is checked, nothing is decoded. Raises ValueError."""
    from ..codec import dacfile, ecdc
    from ..codec.bitstream import BitstreamError

    facts: dict[str, Any] = {"file": str(path), "bytes": path.stat().st_size}
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".dsc":
                facts.update(_about_dsc(file))
            elif path.suffix.lower() == ".ecdc":
                found = ecdc.read(file)
                kind, frames = found.kind, sum(codes.shape[1] for codes in found.codes)
                facts.update(format="ecdc, raw", codec=found.model, rate=kind.rate, channels=kind.channels,
                             books=len(found.codes[0]), samples=found.samples, frames=frames)  # fmt: skip
            else:
                dac = dacfile.read(file)
                facts.update(format="dac", codec="Descript audio codec", rate=dac.rate, channels=dac.channels,
                             books=dac.codes.shape[1], samples=dac.samples, frames=dac.codes.shape[2])  # fmt: skip
    except BitstreamError as error:
        raise ValueError(f"{path}: {error}") from error
    if facts["samples"] is not None:
        seconds = facts["samples"] / facts["rate"]
        facts["seconds"] = round(seconds, 6)
        facts["kbps"] = round(8 * facts["bytes"] / max(seconds, 1e-9) / 1000, 3) if seconds else None
    return facts


def _about_dsc(file: Any) -> dict[str, Any]:
    from ..codec.bitstream import Reader

    reader = Reader(file)
    header, found = reader.header, reader.survey()
    samples = reader.samples
    if samples is None:  # cut off: as far as it goes
        samples = max(0, found.frames * header.hop - header.pre_skip)
    return {
        "format": "dsc, version 1", "codec": header.fingerprint.hex(), "rate": header.rate,
        "channels": header.channels, "hop": header.hop, "bits_per_code": header.bits,
        "books": found.books[0] if len(found.books) == 1 else list(found.books), "coder": ", ".join(found.coders),
        "samples": samples, "frames": found.frames, "chunks": found.chunks,
        "lost_seconds": round(found.lost / header.frame_rate, 3), "damage": [str(row) for row in reader.damage],
    }  # fmt: skip


def about_model(name: str) -> dict[str, Any]:
    """Facts of a model: sizes, parameters, rates, presets."""
    from ..codec import model as codecs
    from ..lm import model as models
    from ..lm.condition import ROLES
    from ..lm.musicgen_files import is_musicgen
    from .load import find, load

    if is_musicgen(name):
        return _about_musicgen(name)
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
            "hears_stems_and_tunes": bool(lm.config.targets), "plays_by_themselves": list(ROLES[1 : lm.config.targets]),
        },
        "presets": {
            "codec": [row.__name__ for row in (codecs.nano, codecs.tiny)],
            "lm": [row.__name__ for row in (models.nano, models.embedded, models.base)],
        },
    }  # fmt: skip


def _about_musicgen(name: str) -> dict[str, Any]:
    from .musicgen import load

    studio = load(name)
    codec, lm = studio.codec, studio.lm.config
    kind = f"MusicGen, {'melody' if lm.melody else 'text'}, {'stereo' if lm.channels == 2 else 'mono'}"
    return {
        "model": name, "kind": kind,
        "codec": {"rate": codec.rate, "frames_per_second": codec.frame_rate, "parameters": _count(codec)},
        "lm": {"folder": str(studio.lm.source), "parameters": lm.parameters, "width": lm.width, "layers": lm.layers,
               "heads": lm.heads, "books": lm.books},
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
                ", ".join(map(str, value)) or "none"
                if isinstance(value, list)
                else f"{value:,}"
                if isinstance(value, int)
                else value
            )
            print(f"{indent}{label}: {text}")
