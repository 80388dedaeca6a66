"""Token shards of 10 bits a token, mapped from disk: a month of music takes no memory before it is read.

A shard is one ``.npy`` of bytes [frames, ceil(K * bits / 8)]: a frame's K tokens of ``bits`` bits each, highest bit
first, filled up to a whole byte. With K = 4 and codebooks of 1024 that is five bytes a frame, without a bit to spare,
0.9 MB an hour. Any frame is found by its number. ``python -m descant.recipes.packed TOKENS PACKED`` packs a folder that
``descant prepare tokens`` wrote; ``descant train lm --data`` takes either.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def width(cardinality: int) -> int:
    """Bits that a token of so many values needs."""
    if not 2 <= cardinality <= 1 << 16:
        raise ValueError(f"a codebook of {cardinality} tokens: 2 to 65,536 can be packed")
    return (cardinality - 1).bit_length()


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes [F, K] -> bytes [F, ceil(K * bits / 8)]. Raises ValueError for tokens that ``bits`` bits do not hold."""
    if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes must be whole numbers [F, K], got {list(codes.shape)} {codes.dtype}")
    if codes.size and (int(codes.min()) < 0 or int(codes.max()) >= 1 << bits):
        raise ValueError(f"tokens range over {codes.min()} ... {codes.max()}: {bits} bits hold 0 ... {(1 << bits) - 1}")
    places = np.arange(bits - 1, -1, -1)
    one = (codes[:, :, None].astype(np.uint32) >> places & 1).astype(np.uint8)
    return np.packbits(one.reshape(len(codes), codes.shape[1] * bits), axis=1)


def unpack(rows: np.ndarray, books: int, bits: int) -> np.ndarray:
    """Bytes [F, n] of :func:`pack` -> codes [F, K] uint16."""
    if rows.ndim != 2 or rows.dtype != np.uint8 or rows.shape[1] != -(-books * bits // 8):
        raise ValueError(f"{books} tokens of {bits} bits are bytes [F, {-(-books * bits // 8)}], got {rows.shape}")
    one = np.unpackbits(rows, axis=1, count=books * bits).reshape(len(rows), books, bits)
    codes: np.ndarray = (one.astype(np.uint16) << np.arange(bits - 1, -1, -1, dtype=np.uint16)).sum(2, dtype=np.uint16)
    return codes


class Rows:
    """The frames of one piece in a mapped shard; a slice of it unpacks what is asked for."""

    def __init__(self, rows: np.ndarray, books: int, bits: int) -> None:
        self._rows, self._books, self._bits = rows, books, bits

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice) -> np.ndarray:
        return unpack(np.asarray(self._rows[part]), self._books, self._bits)


def write(target: str | os.PathLike[str], codes: Sequence[np.ndarray], bits: int) -> None:
    """Write pieces' codes [F, K] as ``target`` (.npy) and where each begins as ``target`` with .starts.npy."""
    target = Path(target)
    rows = np.concatenate([pack(one, bits) for one in codes])
    starts = np.cumsum([0, *(len(one) for one in codes)])
    for path, data in ((target.with_suffix(".starts.npy"), starts), (target, rows)):
        part = path.with_name(path.name + ".part")
        with open(part, "wb") as file:
            np.save(file, data)
        os.replace(part, path)


def read(path: str | os.PathLike[str], books: int, cardinality: int) -> list[Rows]:
    """Pieces of a shard, mapped. Raises ValueError when it is damaged."""
    path, bits = Path(path), width(cardinality)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        starts = np.load(path.with_suffix(".starts.npy"), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no packed shard: {error}; pack the tokens again") from None
    wide = -(-books * bits // 8)
    whole = starts.ndim == 1 and len(starts) > 1 and starts[0] == 0 and bool((np.diff(starts) >= 0).all())
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != wide or not whole or starts[-1] != len(rows):
        raise ValueError(f"{path} does not fit its folder's tokens.json or its starts: pack the tokens again")
    return [Rows(rows[a:b], books, bits) for a, b in itertools.pairwise(starts)]


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Pack a folder of token shards; return how many bytes the tokens take. Shards that are there already are kept."""
    from .tokens import TokenSet

    source, target = Path(source), Path(target)
    if source.resolve() == target.resolve():
        raise ValueError(f"{source} cannot be packed into itself: name another folder")
    mark = TokenSet(source).mark
    target.mkdir(parents=True, exist_ok=True)
    size = 0
    for shard in sorted(source.glob("tokens-*.npz")):
        place = target / f"{shard.stem}.npy"
        if not place.exists():
            with np.load(shard, allow_pickle=False) as data:
                write(place, np.split(data["codes"], data["starts"][1:-1]), width(mark["cardinality"]))
        pieces = shard.name.replace("tokens", "pieces").replace(".npz", ".jsonl.gz")
        shutil.copyfile(source / pieces, target / pieces)
        size += place.stat().st_size
    # last: a folder without it is not taken for a finished one
    shutil.copyfile(source / "tokens.json", target / "tokens.json")
    return size


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m descant.recipes.packed TOKENS PACKED``."""
    parser = argparse.ArgumentParser(description="pack token shards into 10 bits a token")
    parser.add_argument("source", help="a folder of 'descant prepare tokens'")
    parser.add_argument("target", help="another folder")
    args = parser.parse_args(argv)
    sys.stderr.write(f"{convert(args.source, args.target) / 1e6:.1f} MB of tokens in {args.target}\n")


if __name__ == "__main__":
    main()
