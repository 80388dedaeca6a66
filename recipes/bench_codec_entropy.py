"""What a codec's entropy tables save on held-out recordings, and how fast: whole files in memory, one core, CPU time.

``python -m descant.recipes.bench_codec_entropy --real FOLDER ... --out docs/benchmarks/entropy.json`` encodes the
middle of every recording, writes the codes as packed, adaptive and context-coded ``.dsc`` files, reads these back, and
refuses to go on if one code differs.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..codec import audio
from ..codec.bitstream import Header, Reader, Writer
from ..codec.contract import Codec
from ..codec.entropy import Coder
from .bench_codec_speed import one_thread, processor
from .bench_codec_systems import loaded, tables_of

_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")


def middles(folders: Sequence[str | os.PathLike[str]], codec: Codec, seconds: float) -> dict[str, Tensor]:
    """All books' codes [K, F] of the middle ``seconds`` of every recording in folders: {name: codes}."""
    found = {}
    for folder in folders:
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
        for path in paths:
            start = max(0.0, (audio.info(path).duration - seconds) / 2)
            wav = audio.read(path, codec.rate, codec.channels, start, seconds).wav
            found[path.name] = codec.encode(wav[None])[0]
    if not found:
        raise ValueError(f"no recordings in {', '.join(map(str, folders))}: name a folder with sound files")
    return found


def through(
    codec: Codec, codes: Tensor, coder: Literal["packed", "entropy"], tables: Coder | None
) -> tuple[int, float, float]:
    """Codes [K, F] to a ``.dsc`` file and back -> (bytes, seconds of CPU to write, to read).

    Raises RuntimeError when another code comes back.
    """
    file, began = io.BytesIO(), time.process_time()
    with Writer(file, Header.of(codec, books=codes.shape[0]), coder, tables) as writer:
        writer.write(codes)
    middle = time.process_time()
    file.seek(0)
    back = torch.cat([chunk.codes for chunk in Reader(file, tables, codec.cardinality)], 1)
    ended = time.process_time()
    if not torch.equal(back, codes):
        raise RuntimeError(f"the {coder} coder gives back other codes: nothing measured here would mean anything")
    return len(file.getvalue()), middle - began, ended - middle


def measure(codec: Codec, codes: dict[str, Tensor], tables: Coder, books: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each number of books: bytes and kbps of the three kinds of files, what is saved, times real time."""
    rows = []
    seconds = sum(row.shape[1] for row in codes.values()) * codec.hop / codec.rate
    for count in books:
        total: dict[str, list[float]] = {}
        saved = {}
        for name, row in codes.items():
            sizes = {}
            for kind, given in (("packed", None), ("adaptive", None), ("context", tables)):
                found = through(codec, row[:count], "packed" if kind == "packed" else "entropy", given)
                sizes[kind] = found[0]
                total[kind] = [a + b for a, b in zip(total.get(kind, [0.0, 0.0, 0.0]), found, strict=True)]
            saved[name] = round(1 - sizes["context"] / sizes["packed"], 4)
        packed = total["packed"][0]
        kinds = {
            kind: {
                "bytes": int(size), "kbps": round(8 * size / seconds / 1000, 3), "saved": round(1 - size / packed, 4),
                "write_x": round(seconds / max(write, 1e-9), 1), "read_x": round(seconds / max(read, 1e-9), 1),
            }
            for kind, (size, write, read) in total.items()
        }  # fmt: skip
        rows.append({"books": count, "files": kinds, "saved_by_recording": saved})
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m descant.recipes.bench_codec_entropy", description=__doc__)
    parser.add_argument("--real", nargs="+", required=True, metavar="DIR", help="held-out recordings")
    parser.add_argument("--codec", default="tiny", help="name or folder (default: tiny)")
    parser.add_argument(
        "--books", nargs="+", type=int, default=[], metavar="K", help="(default: all, and half of them)"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="of the middle of each recording (default: 30)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the JSON file to write")
    args = parser.parse_args(argv)
    codec, tables = loaded(args.codec), tables_of(args.codec)
    if tables is None:
        raise ValueError(f"{args.codec} has no entropy tables: train them with descant.recipes.entropy.fit")
    with one_thread(), torch.no_grad():
        codes = middles(args.real, codec, args.seconds)
        rows = measure(codec, codes, tables, args.books or [codec.books, max(1, codec.books // 2)])
    report = {
        "codec": bytes(codec.fingerprint).hex(), "tables": tables.identity, "cpu": processor(),
        "recordings": len(codes), "seconds": args.seconds, "rows": rows,
    }  # fmt: skip
    out = Path(args.out)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(part, out)


if __name__ == "__main__":
    main()
