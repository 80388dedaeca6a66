"""Writes packed stems song by song; :meth:`StemWriter.close` makes them visible under their final names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class StemWriter:
    """One flat int16 file, ``stems.i16``, and what lies where, ``index.json``."""

    def __init__(self, folder: str | os.PathLike[str], rate: int, stems: Sequence[str]) -> None:
        self.folder, self.rate, self.stems = Path(folder), rate, tuple(stems)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._part = self.folder / "stems.i16.part"
        self._file = open(self._part, "wb")  # noqa: SIM115 - open until close()
        self.rows: list[dict[str, Any]] = []
        self._at = 0

    def add(self, name: str, font: str, wav: Tensor, **labels: Any) -> None:
        """Append a song's stems, wav [N, 2, T]; one gain for all of them keeps the loudest sample in range.

        font: what it was rendered with, or where it comes from. labels: more for its row of the index.
        """
        if wav.dim() != 3 or wav.shape[:2] != (len(self.stems), 2) or not wav.shape[2]:
            raise ValueError(f"{name}: need stems [{len(self.stems)}, 2, samples], got {tuple(wav.shape)}")
        # one gain for all stems: their balance is part of the song
        wav = wav * min(1.0, 0.99 / max(1e-9, float(wav.abs().max())))
        data = (wav * 32767.0).round().to(torch.int16).transpose(1, 2).contiguous().numpy().astype("<i2")
        self._file.write(data.tobytes())
        row = {"name": name, "font": font, "start": self._at, "length": wav.shape[-1], **labels}
        self.rows.append({key: value for key, value in row.items() if value is not None})
        self._at += data.shape[0] * data.shape[1]

    def close(self, **facts: Any) -> Path:
        """Finish: rename the sound, then write the index with further ``facts``. Raises ValueError without a song."""
        if not self.rows:
            self.drop()
            raise ValueError("nothing to pack: not a single song with stems")
        self._file.close()
        os.replace(self._part, self.folder / "stems.i16")
        header: Mapping[str, Any] = {"rate": self.rate, "stems": list(self.stems), **facts, "index": self.rows}
        (self.folder / "index.json.part").write_text(json.dumps(header), encoding="utf-8")
        os.replace(self.folder / "index.json.part", self.folder / "index.json")
        return self.folder

    def drop(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._part.unlink(missing_ok=True)
