"""Excerpts of held-out recordings: chosen by rule, never twice the same samples, known by what they contain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..codec import audio
from .real import Row, read_manifest

KINDS: tuple[str, ...] = (".flac", ".wav", ".ogg", ".opus", ".mp3")
#: Mean square below which an excerpt says nothing (-50 dB), for the whole and for each channel.
_QUIET, _QUIET_CHANNEL = 1e-5, 1e-7


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One excerpt: where it is, how it is read, and the hash of the samples that come out."""

    path: str
    recording: str
    """Name of the recording it is from: the unit that intervals resample."""
    start: float
    seconds: float
    rate: int
    channels: int
    digest: str

    @property
    def name(self) -> str:
        """Recording and place."""
        return f"{self.recording}@{self.start:g}s"

    def read(self) -> Tensor:
        """The samples [C, T]. Raises ValueError when the file has changed since the clip was chosen."""
        wav = _read(self.path, self.rate, self.channels, self.start, self.seconds)
        if digest_of(wav) != self.digest:
            raise ValueError(f"{self.path} changed while it was being measured: start again")
        return wav


def choose(folders: Sequence[str], count: int, seconds: float, rate: int, channels: int) -> list[Clip]:
    """``count`` excerpts that do not overlap, spread over all recordings; fewer when there are no more.

    Every recording is cut into slots of ``seconds``; slots are taken one from each recording in turn, the middle one
    first, recordings in the order of their names' hashes. A larger count therefore keeps the excerpts of a smaller
    one. Slots with (nearly) silent channels are passed over, so are mono files when two channels are wanted, single
    parts of a recording, and files that a manifest beside them says are for training, which raises ValueError.
    """
    files = [path for path in recordings(folders) if channels == 1 or audio.info(path).channels >= channels]
    if not files:
        raise ValueError(f"the recordings under {', '.join(folders)} are mono: use channels=1")
    chosen: list[Clip] = []
    turns = [_slots(path, seconds, rate, channels) for path in files]
    while turns and len(chosen) < count:
        left = []
        for turn in turns:
            clip = next(turn, None)
            if clip is not None:
                chosen.append(clip)
                left.append(turn)
        turns = left
    if not chosen:
        raise ValueError(
            f"nothing to hear for {seconds:g} s under {', '.join(folders)}: name longer or louder recordings"
        )
    return chosen[:count]


def recordings(folders: Sequence[str]) -> list[Path]:
    """Whole recordings below the folders, in the order of their names' hashes. Raises ValueError without any."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"no folder {folder}: name one with held-out recordings ({' '.join(KINDS)})")
        for path in Path(folder).rglob("*"):
            if path.suffix.lower() in KINDS and path.is_file():
                row = credit(path)
                if row is not None and row.split in ("train", "dev"):
                    raise ValueError(
                        f"{path} is of the {row.split} split: only recordings nothing was trained on count"
                    )
                if row is None or row.stem == "mix":
                    found.setdefault(path.stem, path)
    if not found:
        raise ValueError(f"no recordings ({' '.join(KINDS)}) under {', '.join(folders)}")
    return [found[name] for name in sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest())]


def credit(path: str | Path) -> Row | None:
    """What the manifest of ``descant prepare real`` says about a recording, through links; None without one."""
    where = Path(path).resolve()
    return _rows(where.parent.parent).get(where.relative_to(where.parent.parent).as_posix())


def digest_of(wav: Tensor) -> str:
    """Hash of shape and samples."""
    head = f"{list(wav.shape)}".encode()
    return hashlib.sha256(head + wav.contiguous().numpy().tobytes()).hexdigest()[:24]


@lru_cache(maxsize=64)
def _rows(folder: Path) -> dict[str, Row]:
    return {row.path: row for row in read_manifest(folder)} if (folder / "manifest.json").is_file() else {}


@lru_cache(maxsize=2)
def _read(path: str, rate: int, channels: int, start: float, seconds: float) -> Tensor:
    return audio.read(path, rate, channels, start, seconds).wav


def _slots(path: Path, seconds: float, rate: int, channels: int) -> Iterator[Clip]:
    """Clips of one file, the middle slot first, then ever finer between them."""
    count = int(audio.info(path).duration / seconds)
    for slot in sorted(range(count), key=lambda slot: _spread(slot, count)):
        wav = audio.read(path, rate, channels, slot * seconds, seconds).wav
        level = wav.square().mean(dim=-1)
        whole = wav.shape[-1] == round(seconds * rate)
        if whole and float(level.mean()) > _QUIET and float(level.min()) > _QUIET_CHANNEL and _differ(wav):
            yield Clip(
                path=str(path), recording=path.stem, start=slot * seconds, seconds=seconds, rate=rate,
                channels=channels, digest=digest_of(wav),
            )  # fmt: skip


def _differ(wav: Tensor) -> bool:
    """Whether channels hold different things: mono in two channels is no stereo."""
    return wav.shape[0] == 1 or not torch.equal(wav[0], wav[1])


def _spread(slot: int, count: int) -> tuple[int, int]:
    """Sort key that takes 0..count-1 in the order 1/2, 1/4, 3/4, 1/8, ... of the way (van der Corput's, 1935)."""
    low, high, depth = 0, count, 0
    while True:
        middle = (low + high) // 2
        if slot == middle:
            return depth, slot
        low, high, depth = (low, middle, depth + 1) if slot < middle else (middle + 1, high, depth + 1)
