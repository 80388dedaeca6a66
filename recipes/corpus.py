"""Audio packed for training: one flat int16 file, memory-mapped, and an index of what lies where."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: A recording counts as full-band when it has something to hear up to this share of half the sample rate.
FULL_BAND = 0.85


class Corpus:
    """Audio at one rate. ``index`` rows: name, start and length in samples, kind (``mix``, ``stem``, ``real``)."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        if not (folder / "index.json").exists():
            raise FileNotFoundError(f"no packed audio in {folder}: make it with 'descant prepare audio'")
        header = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        self.rate: int = header["rate"]
        self.channels: int = header.get("channels", 1)
        self.index: list[dict[str, object]] = header["index"]
        self.samples = np.memmap(folder / "audio.i16", dtype="<i2", mode="r").reshape(-1, self.channels)
        self.starts = np.array([row["start"] for row in self.index], dtype=np.int64)
        self.lengths = np.array([row["length"] for row in self.index], dtype=np.int64)
        self._kinds = np.array([str(row["kind"]) for row in self.index])

    @property
    def hours(self) -> float:
        """Hours of audio."""
        return float(self.lengths.sum()) / self.rate / 3600

    def crop(self, start: int, length: int) -> Tensor:
        """Samples ``start``..``start + length`` of the flat file in mono, float32 [length]."""
        return self.read(start, length).mean(0)

    def read(self, start: int, length: int) -> Tensor:
        """Samples ``start``..``start + length`` of the flat file, float32 [C, length]."""
        return torch.from_numpy(self.samples[start : start + length].T.astype(np.float32) / 32768.0)

    @functools.cached_property
    def bandwidth(self) -> np.ndarray:
        """Highest frequency of each item, in Hz, that stands out of the noise of rounding to 16 bit.

        MP3, Vorbis and lower sample rates leave nothing above some frequency; a decoder that sees only such recordings
        learns that there never is anything.
        """
        return np.array([self._bandwidth(int(a), int(n)) for a, n in zip(self.starts, self.lengths, strict=True)])

    def plan(
        self, count: int, length: int, generator: torch.Generator, shares: dict[str, float], full: int = 0
    ) -> list[int]:
        """Starts of ``count`` random crops: the kind by ``shares``, then uniformly over that kind's audio.

        full: the first so many come from full-band items, if any item is long enough and full-band.
        """
        long = self.lengths > length
        kinds = [kind for kind in shares if shares[kind] > 0 and (long & (self._kinds == kind)).any()]
        if not kinds:
            raise ValueError(f"packed audio has none of {list(shares)} that is longer than {length / self.rate:.2f} s")
        wide = long & (self.bandwidth >= FULL_BAND * self.rate / 2) if full else long
        rows: list[int] = []
        for number, dice in enumerate(torch.rand(count, 2, generator=generator, dtype=torch.float64).tolist()):
            among = wide if number < full and wide[np.isin(self._kinds, kinds)].any() else long
            present = [kind for kind in kinds if (among & (self._kinds == kind)).any()]
            edges = np.cumsum([shares[kind] for kind in present])
            kind = present[min(int(np.searchsorted(edges, dice[0] * edges[-1], side="right")), len(present) - 1)]
            members = np.flatnonzero(among & (self._kinds == kind))
            room = np.cumsum(self.lengths[members] - length)
            place = int(dice[1] * room[-1])
            item = int(np.searchsorted(room, place, side="right"))
            rows.append(int(self.starts[members[item]]) + place - (int(room[item - 1]) if item else 0))
        return rows

    def draw(self, count: int, length: int, generator: torch.Generator, shares: dict[str, float]) -> Tensor:
        """Random crops [count, C, length]: the kind by ``shares``, then uniformly over that kind's audio."""
        return torch.stack([self.read(start, length) for start in self.plan(count, length, generator, shares)])

    def _bandwidth(self, start: int, length: int, window: int = 2048, count: int = 12) -> float:
        if length < window:
            return 0.0
        places = start + np.linspace(0, length - window, count).astype(np.int64)
        frames = np.stack([self.samples[place : place + window].astype(np.float64) for place in places])
        taper = np.hanning(window + 1)[:-1]
        power = (np.abs(np.fft.rfft(frames * taper[:, None], axis=1)) ** 2).mean((0, 2))
        smooth = np.convolve(power, np.ones(16) / 16, mode="same")
        # rounding alone gives a twelfth of a squared step, dither up to three times that; ten times stands out of both
        heard = np.flatnonzero(smooth > 10 * (taper**2).sum() / 12)
        return float(heard[-1]) * self.rate / window if len(heard) else 0.0


class Packer:
    """Writes a corpus item by item; :meth:`close` makes it visible under its final name."""

    def __init__(self, folder: str | os.PathLike[str], rate: int, channels: int = 1) -> None:
        if channels not in (1, 2):
            raise ValueError(f"packed audio is mono or stereo, not of {channels} channels")
        self.folder, self.rate, self.channels = Path(folder), rate, channels
        self.folder.mkdir(parents=True, exist_ok=True)
        self._part = self.folder / "audio.i16.part"
        self._file = open(self._part, "wb")  # noqa: SIM115 - open until close()
        self._index: list[dict[str, object]] = []
        self._at = 0

    def add(self, name: str, kind: str, wav: Tensor) -> None:
        """Append wav [C, T], in mono unless the corpus is stereo; peaks above full scale are scaled down."""
        wav = wav.mean(0, keepdim=True) if self.channels == 1 else wav.expand(self.channels, -1)
        peak = float(wav.abs().max()) if wav.numel() else 0.0
        if peak > 0.99:
            wav = wav * (0.99 / peak)
        data = (wav * 32767.0).round().to(torch.int16).t().contiguous().numpy().astype("<i2")
        self._file.write(data.tobytes())
        self._index.append({"name": name, "kind": kind, "start": self._at, "length": len(data)})
        self._at += len(data)

    def close(self) -> None:
        """Finish: rename the audio, then write the index."""
        self._file.close()
        os.replace(self._part, self.folder / "audio.i16")
        part = self.folder / "index.json.part"
        header = {"rate": self.rate, "channels": self.channels, "index": self._index}
        part.write_text(json.dumps(header), encoding="utf-8")
        os.replace(part, self.folder / "index.json")


def pack_files(
    out: str | os.PathLike[str], files: Iterable[Path], rate: int, kind: str = "real", channels: int = 1
) -> Corpus:
    """Pack audio files (any format the audio door reads) at ``rate`` Hz, mono or stereo."""
    from ..codec import audio

    packer = Packer(out, rate, channels)
    for path in files:
        packer.add(path.stem, kind, audio.read(path, rate=rate, channels=channels).wav)
    packer.close()
    return Corpus(out)
