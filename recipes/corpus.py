"""Audio packed for training: one flat int16 file, memory-mapped, and an index of what lies where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


class Corpus:
    """Mono audio at one rate. ``index`` rows: name, start and length in samples, kind (``mix``, ``stem``, ``real``)."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not (folder / "index.json").exists():
            raise FileNotFoundError(f"no packed audio in {folder}: make it with 'descant prepare audio'")
        header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.rate: int = header["rate"]
        self.index: list[dict[str, object]] = header["index"]
        self.samples = np.memmap(folder / "audio.i16", dtype="<i2", mode="r")
        self.starts = np.array([row["start"] for row in self.index], dtype=np.int64)
        self.lengths = np.array([row["length"] for row in self.index], dtype=np.int64)
        self._kinds = np.array([str(row["kind"]) for row in self.index])

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return float(self.lengths.sum()) / self.rate / 3600

    def crop(self, start: int, length: int) -> Tensor:
        """Samples ``start``..``start + length`` of the flat file as float32 [length]."""
        return torch.from_numpy(self.samples[start : start + length].astype(np.float32) / 32768.0)

    def draw(self, count: int, length: int, generator: torch.Generator, shares: dict[str, float]) -> Tensor:
        """Random crops [count, 1, length]: the kind by ``shares``, then uniformly over that kind's audio."""
        kinds = [kind for kind in shares if (self._kinds == kind).any()]
        if not kinds:
            raise ValueError(f"packed audio has none of {list(shares)}")
        weights = torch.tensor([shares[kind] for kind in kinds])
        rows = []
        for kind in torch.multinomial(weights, count, replacement=True, generator=generator).tolist():
            members = np.flatnonzero((self._kinds == kinds[kind]) & (self.lengths > length))
            room = np.cumsum(self.lengths[members] - length)
            place = int(torch.rand((), generator=generator, dtype=torch.float64).item() * room[-1])
            item = int(np.searchsorted(room, place, side="right"))
            offset = place - (int(room[item - 1]) if item else 0)
            rows.append(self.crop(int(self.starts[members[item]]) + offset, length))
        return torch.stack(rows)[:, None]


class Packer:
    """Writes a corpus item by item; :meth:`close` makes it visible under its final name."""

    def __init__(self, folder: str | os.PathLike[str], rate: int) -> None:
        self.folder, self.rate = Path(folder), rate
        self.folder.mkdir(parents=True, exist_ok=True)
        self._part = self.folder / "audio.i16.part"
        self._file = open(self._part, "wb")  # noqa: SIM115 - open until close()
        self._index: list[dict[str, object]] = []
        self._at = 0

    def add(self, name: str, kind: str, wav: Tensor) -> None:
        """Append wav [C, T] as mono; peaks above full scale are scaled down."""
        mono = wav.mean(0)
        peak = float(mono.abs().max()) if mono.numel() else 0.0
        if peak > 0.99:
            mono = mono * (0.99 / peak)
        data = (mono * 32767.0).round().to(torch.int16).numpy().astype("<i2")
        self._file.write(data.tobytes())
        self._index.append({"name": name, "kind": kind, "start": self._at, "length": len(data)})
        self._at += len(data)

    def close(self) -> None:
        """Finish: rename the audio, then write the index."""
        self._file.close()
        os.replace(self._part, self.folder / "audio.i16")
        part = self.folder / "index.json.part"
        part.write_text(json.dumps({"rate": self.rate, "index": self._index}), encoding="utf-8")
        os.replace(part, self.folder / "index.json")


def pack_files(out: str | os.PathLike[str], files: Iterable[Path], rate: int, kind: str = "real") -> Corpus:
    """Pack audio files (any format the audio door reads) as mono at ``rate`` Hz."""
    from ..codec import audio

    packer = Packer(out, rate)
    for path in files:
        packer.add(path.stem, kind, audio.read(path, rate=rate, channels=1).wav)
    packer.close()
    return Corpus(out)
