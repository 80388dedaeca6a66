"""``descant render``: write labelled pieces, split by split, with every core."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from ..lm import vocab
from . import audio_of, compose, mma, splits, tunes
from .piece import Piece, read_pieces, write_pieces
from .soundfont import find_soundfont

LAYERS: tuple[str, ...] = ("builtin", "synth")
#: Pieces of one part file: what an interrupted run may lose.
_PART = 25
_T = TypeVar("_T")
_FORMATS = ("flac", "wav", "ogg")


def render(
    layer: str, out: str | os.PathLike[str], *, hours: float | None = None, count: int | None = None, seed: int = 0,
    split: str = "train", duration: float = 60.0, soundfont: str | os.PathLike[str] | None = None,
    tunes_at: str | os.PathLike[str] | None = None, workers: int | None = None, progress: bool = True,
) -> Path:  # fmt: skip
    """Write ``count`` pieces (or ``hours`` of them) of one split to ``out``/``split``.jsonl.gz and return that path.

    A piece depends on (layer, split, seed, its number) alone, so a longer set begins with the shorter one. Finished
    parts are kept until the file is complete: the same call goes on where a stopped one was. An existing file with the
    same settings is left as it is.
    """
    if layer not in LAYERS:
        raise ValueError(f"unknown layer {layer!r}: one of {', '.join(LAYERS)}")
    splits.check(split)
    count = _count(hours, count, duration)
    target = Path(out) / f"{split}.jsonl.gz"
    mark = f"{layer} {split} seed {seed} duration {duration:g} count {count} tunes {bool(tunes_at)}"
    done = target.with_suffix(".txt")
    if target.exists() and done.exists() and done.read_text(encoding="utf-8") == mark:
        return target
    if layer == "synth":
        # a missing tool is told here, before any worker starts
        mma.find_mma()
        soundfont = find_soundfont(soundfont)
    folder = Path(out) / f".{split}-{hashlib.sha256(mark.encode()).hexdigest()[:10]}"
    folder.mkdir(parents=True, exist_ok=True)
    make = partial(
        make_piece, layer=layer, split=split, seed=seed, duration=duration, soundfont=_text(soundfont),
        tunes_at=_text(tunes_at),
    )  # fmt: skip
    _write_parts(folder, count, make, workers or os.cpu_count() or 1, progress)
    parts = (folder / f"{start:07d}.jsonl.gz" for start in range(0, count, _PART))
    write_pieces(target, (piece for part in parts for piece in read_pieces(part)))
    done.write_text(mark, encoding="utf-8")
    shutil.rmtree(folder)
    return target


def make_piece(
    index: int, *, layer: str, split: str, seed: int, duration: float = 60.0, soundfont: str | None = None,
    tunes_at: str | None = None,
) -> Piece:  # fmt: skip
    """Piece number ``index`` of a set."""
    number = splits.seed_of(split, index, seed)
    if layer == "builtin":
        from . import builtin

        return builtin.compose(number, split, duration)
    genre, key, lead = assignment(index, split, seed)
    order = compose.Order(genre=genre, key=key, lead=lead, split=split, seed=number, duration=duration)
    return audio_of.balance(compose.compose(order, _tunes(tunes_at)), soundfont)


def assignment(index: int, split: str, seed: int) -> tuple[str, str, str]:
    """Genre, key and lead instrument of piece ``index``: each goes evenly round its table, independent of the others.

    In train and dev no combination is held out, in test every one is (:func:`descant.recipes.splits.held_out`).
    """
    genre = _round(vocab.GENRES, index, f"{split}/{seed}/genre")
    key = _round(vocab.KEYS, index, f"{split}/{seed}/key")
    lead = _round(compose.LEADS, index, f"{split}/{seed}/lead")
    wanted = split == "test"
    draw = random.Random(f"{split}/{seed}/{index}")
    while splits.held_out(genre, lead, key) is not wanted:
        lead = draw.choice(compose.LEADS)
        if wanted:
            key = draw.choice(vocab.KEYS)
    return genre, key, lead


def write_audio(
    pieces: str | os.PathLike[str], out: str | os.PathLike[str], *, rate: int = 32000, suffix: str = "flac",
    stems: bool = True, limit: int | None = None, soundfont: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> int:  # fmt: skip
    """Render the pieces of a file to ``out``/<id>/mix.<suffix> and one file a stem; return how many were written.

    Pieces whose mix is there already are skipped, so a stopped call can be given again.
    """
    if suffix not in _FORMATS:
        raise ValueError(f"unknown format {suffix!r}: one of {', '.join(_FORMATS)}")
    rows = list(islice(read_pieces(pieces), limit))
    write = partial(_write_one, out=str(out), rate=rate, suffix=suffix, stems=stems, soundfont=_text(soundfont))
    written = 0
    with _pool(os.cpu_count() or 1) as pool:
        for made in _bar(pool.imap(write, rows), len(rows), "audio", progress):
            written += made
    return written


def _write_one(piece: Piece, out: str, rate: int, suffix: str, stems: bool, soundfont: str | None) -> int:
    from ..codec.audio import Audio, write

    folder = Path(out) / piece.id
    mix = folder / f"mix.{suffix}"
    if mix.exists():
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    parts = audio_of.render_piece(piece, rate, soundfont)
    if stems:
        for role, wav in parts.items():
            write(folder / f"{role}.{suffix}", Audio(wav, rate))
    (folder / "piece.json").write_text(piece.to_json(), encoding="utf-8")
    # last, because its presence says that the piece is complete
    write(mix, Audio(audio_of.mixdown(parts), rate))
    return 1


def _write_parts(folder: Path, count: int, make: partial[Piece], workers: int, progress: bool) -> None:
    starts = [start for start in range(0, count, _PART) if not (folder / f"{start:07d}.jsonl.gz").exists()]
    if not starts:
        return
    if workers == 1:
        for start in _bar(iter(starts), len(starts), "pieces", progress):
            _part(start, folder, count, make)
        return
    job = partial(_part, folder=folder, count=count, make=make)
    with _pool(workers) as pool:
        for _ in _bar(pool.imap_unordered(job, starts), len(starts), "pieces", progress):
            pass


def _part(start: int, folder: Path, count: int, make: partial[Piece]) -> None:
    rows = [make(index) for index in range(start, min(count, start + _PART))]
    write_pieces(folder / f"{start:07d}.jsonl.gz", rows)


_TUNES: dict[str | None, tuple[tunes.Tune, ...]] = {}


def _tunes(place: str | None) -> tuple[tunes.Tune, ...]:
    if place not in _TUNES:  # once a process
        _TUNES[place] = tunes.find_tunes(place)
    return _TUNES[place]


def _round(table: Sequence[str], index: int, salt: str) -> str:
    """Every run of len(table) indices takes every entry once, in an order of its own."""
    turn, place = divmod(index, len(table))
    order = list(table)
    random.Random(f"{salt}/{turn}").shuffle(order)
    return order[place]


def _count(hours: float | None, count: int | None, duration: float) -> int:
    if (hours is None) == (count is None):
        raise ValueError("say how much to render: either hours or count, not both")
    number = count if count is not None else math.ceil((hours or 0) * 3600 / duration)
    if number < 1:
        raise ValueError(f"{number} pieces are too few: give 1 or more")
    return number


def _text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)


def _pool(workers: int) -> multiprocessing.pool.Pool:
    # spawn: forking a process that already runs OpenMP threads can hang
    return multiprocessing.get_context("spawn").Pool(workers, initializer=torch.set_num_threads, initargs=(1,))


def _bar(rows: Iterator[_T], total: int, what: str, show: bool) -> Iterator[_T]:
    from tqdm import tqdm

    return iter(tqdm(rows, total=total, desc=what, unit="", disable=not show))
