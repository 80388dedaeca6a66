"""Token shards of 10 bits a token, mapped from disk: a month of music takes no memory before it is read.

A shard is one ``.npy`` of bytes [frames, ceil(K * bits / 8)]: a frame's K tokens of ``bits`` bits each, highest bit
first, filled up to a whole byte. With K = 4 and codebooks of 1024 that is five bytes a frame, without a bit to spare,
0.9 MB an hour. Any frame is found by its number. ``descant prepare tokens`` writes it.

Shards were ``.npz`` files of 16 bits a token before, which are read into memory; :func:`read` takes both, in one folder
too, and ``python -m descant.recipes.packed TOKENS PACKED`` packs a folder of them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .piece import Piece, read_pieces


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


def shards(folder: str | os.PathLike[str]) -> list[Path]:
    """Token shards of a folder in their order, of either form; of two forms of one shard the packed one."""
    found = {path.name[:12]: path for pattern in ("tokens-?????.npz", "tokens-?????.npy") for path in
             Path(folder).glob(pattern)}  # fmt: skip
    return [found[name] for name in sorted(found)]


def pieces_of(shard: Path) -> Path:
    """Where the pieces of a shard are."""
    return shard.with_name(f"{shard.stem.replace('tokens', 'pieces')}.jsonl.gz")


def read(path: str | os.PathLike[str], books: int, cardinality: int) -> list[tuple[Piece, np.ndarray | Rows]]:
    """Pieces of a shard and their codes [F, K], mapped if they are packed. Raises ValueError when it is damaged."""
    path, bits = Path(path), width(cardinality)
    kept = path.suffix == ".npy"
    try:
        if kept:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            starts = np.load(path.with_suffix(".starts.npy"), allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as data:
                rows, starts = data["codes"], data["starts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no token shard: {error}; delete it and prepare the tokens again") from None
    wide, kind = (-(-books * bits // 8), np.uint8) if kept else (books, np.uint16)
    whole = starts.ndim == 1 and len(starts) > 1 and starts[0] == 0 and bool((np.diff(starts) >= 0).all())
    if rows.dtype != kind or rows.ndim != 2 or rows.shape[1] != wide or not whole or starts[-1] != len(rows):
        raise ValueError(f"{path} does not fit its folder's tokens.json or its starts: prepare the tokens again")
    codes = [rows[a:b] for a, b in itertools.pairwise(starts)]
    pieces = list(read_pieces(pieces_of(path)))
    if len(codes) != len(pieces):
        raise ValueError(f"{path}: {len(codes)} token rows for {len(pieces)} pieces; prepare it again")
    return list(zip(pieces, [Rows(one, books, bits) for one in codes] if kept else codes, strict=True))


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Pack a folder of token shards; return how many bytes the tokens take. Shards that are there already are kept."""
    from .tokens import TokenSet

    source, target = Path(source), Path(target)
    if source.resolve() == target.resolve():
        raise ValueError(f"{source} cannot be packed into itself: name another folder")
    mark = TokenSet(source).mark
    target.mkdir(parents=True, exist_ok=True)
    size = 0
    for shard in shards(source):
        place = target / f"{shard.stem}.npy"
        if not place.exists():
            codes = [rows[:] for _, rows in read(shard, mark["books"], mark["cardinality"])]
            write(place, codes, width(mark["cardinality"]))
        shutil.copyfile(pieces_of(shard), pieces_of(place))
        size += place.stat().st_size
    # last: a folder without it is not taken for a finished one
    shutil.copyfile(source / "tokens.json", target / "tokens.json")
    return size


def main(argv: Sequence[str] | None = None) -> None:
    """``python -m descant.recipes.packed TOKENS PACKED``."""
    parser = argparse.ArgumentParser(description="pack token shards of 16 bits a token into as many as they need")
    parser.add_argument("source", help="a folder of token shards")
    parser.add_argument("target", help="another folder")
    args = parser.parse_args(argv)
    sys.stderr.write(f"{convert(args.source, args.target) / 1e6:.1f} MB of tokens in {args.target}\n")


if __name__ == "__main__":
    main()
