"""The log of a run: figures as JSON lines and as TensorBoard events."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Log:
    """Figures as JSON lines and, where the package is installed, as TensorBoard events; nowhere without a folder."""

    def __init__(self, folder: Path | None, step: int) -> None:
        self._file: Any = None
        self._board: Any = None
        if folder is None:
            return
        _trim(folder / "log.jsonl", step)
        self._file = open(folder / "log.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - open until __exit__
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        for target in (self._file, self._board):
            if target is not None:
                target.close()

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Add one row."""
        if self._file is None:
            return
        row = {"step": step, "time": round(time.time(), 1), **{key: round(float(v), 6) for key, v in figures.items()}}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board is not None:
            for key, value in figures.items():
                self._board.add_scalar(key, float(value), step)


def _trim(path: Path, step: int) -> None:
    # rows past the checkpoint belong to work that was lost: the resumed run writes them again
    if not path.exists():
        return
    rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    keep = [line for line in rows if json.loads(line)["step"] <= step]
    part = path.with_suffix(".part")
    part.write_text("".join(line + "\n" for line in keep), encoding="utf-8")
    os.replace(part, path)
