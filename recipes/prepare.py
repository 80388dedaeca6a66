"""Pieces and recordings into what training reads: packed audio for the codec, token shards for the language model.

Both are written under temporary names and renamed, so a killed run leaves nothing half-made; token shards are keyed
by the codec's fingerprint, because tokens mean nothing without the codec that made them.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..codec.contract import Codec
from ..codec.model import Codec as OwnCodec
from . import packed
from .corpus import Corpus, Packer
from .piece import Piece, read_pieces

SHARD = 256
"""Pieces per token shard: the unit of resuming."""


def pack_audio(
    out: str | os.PathLike[str],
    pieces: Sequence[Piece],
    files: Iterable[Path],
    rate: int = 32000,
    channels: int = 1,
    quiet: bool = False,
) -> Corpus:
    """Pack rendered pieces (the mix, and one stem of each in turn) and audio files as one corpus at ``rate`` Hz.

    channels: 1, or 2 to keep recordings in stereo; rendered pieces are mono in either.
    """
    from tqdm import tqdm

    from ..codec import audio

    packer = Packer(out, rate, channels)
    with _pool() as pool:
        jobs = pool.map(partial(_render, rate=rate), list(enumerate(pieces)), chunksize=2)
        for piece, (mix, stem) in zip(pieces, tqdm(jobs, total=len(pieces), disable=quiet, unit="piece"), strict=True):
            packer.add(piece.id, "mix", torch.from_numpy(mix)[None])
            if stem is not None:
                packer.add(piece.id, "stem", torch.from_numpy(stem)[None])
    for path in tqdm(list(files), disable=quiet, unit="file"):
        packer.add(path.stem, "real", audio.read(path, rate=rate, channels=channels).wav)
    packer.close()
    return Corpus(out)


def tokenise(
    codec: Codec,
    pieces: str | os.PathLike[str],
    out: str | os.PathLike[str],
    books: int = 4,
    limit: int | None = None,
    quiet: bool = False,
) -> int:
    """Render every piece of a ``.jsonl.gz`` file and store its mix as codes [F, K]; return how many there are.

    Shards of :data:`SHARD` pieces as :mod:`descant.recipes.packed` has them: ``tokens-00000.npy``, beside
    ``pieces-00000.jsonl.gz``. Finished shards are kept, those of the earlier form too: a second run over the same input
    does nothing.
    """
    from tqdm import tqdm

    from .piece import write_pieces

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    mark = {"codec": fingerprint(codec), "books": books, "rate": codec.rate, "hop": codec.hop}
    mark["cardinality"] = codec.cardinality
    bits = packed.width(codec.cardinality)
    _claim(out / "tokens.json", mark)
    total = 0
    with _pool() as pool:
        for number, group in enumerate(_groups(read_pieces(pieces), limit)):
            target = out / f"tokens-{number:05d}.npy"
            total += len(group)
            if target.exists() or target.with_suffix(".npz").exists():
                continue
            jobs = pool.map(partial(_encode, rate=codec.rate, codec=codec, books=books), group, chunksize=8)
            codes = list(tqdm(jobs, total=len(group), disable=quiet, unit="piece", desc=target.name))
            write_pieces(packed.pieces_of(target), group)
            packed.write(target, codes, bits)
    return total


def fingerprint(codec: Codec) -> str:
    """Hash of everything that decides a codec's tokens: configuration, encoder, books. 16 hex digits.

    Settings of playback do not count. Of codecs of other families the whole counts.
    """
    if not isinstance(codec, OwnCodec):
        return codec.fingerprint.hex()[:16]
    config = {name: value for name, value in codec.config.to_dict().items() if name not in codec.playback}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(codec.state_dict().items()):
        if name.startswith(("encoder.", "quantiser.")) and not name.endswith((".count", ".total")):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _claim(path: Path, mark: dict[str, object]) -> None:
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != mark:
            raise ValueError(
                f"{path.parent} holds tokens of another codec ({found} against {mark}): choose another folder"
            )
        return
    path.write_text(json.dumps(mark), encoding="utf-8")


def _groups(pieces: Iterator[Piece], limit: int | None) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    for count, piece in enumerate(pieces):
        if limit is not None and count >= limit:
            break
        group.append(piece)
        if len(group) == SHARD:
            yield group
            group = []
    if group:
        yield group


def _pool() -> ProcessPoolExecutor:
    # spawn: forking a process that already runs OpenMP threads can hang. An executor, because it fails when a worker
    # dies, where multiprocessing.Pool starts another one for ever
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        os.cpu_count() or 1, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    )


def _mix(piece: Piece, rate: int) -> tuple[Tensor, dict[str, Tensor]]:
    from .audio_of import mixdown, render_piece

    stems = render_piece(piece, rate)
    return mixdown(stems).mean(0), stems


def _render(job: tuple[int, Piece], rate: int) -> tuple[np.ndarray, np.ndarray | None]:
    number, piece = job
    mix, stems = _mix(piece, rate)
    stem = list(stems.values())[number % len(stems)].mean(0)
    loud = float(stem.square().mean()) > 1e-6
    return mix.numpy(), stem.numpy() if loud else None


def _encode(piece: Piece, rate: int, codec: Codec, books: int) -> np.ndarray:
    mix, _ = _mix(piece, rate)
    codes = codec.encode(mix[None, None], books)[0]
    return codes.t().numpy().astype(np.uint16)
