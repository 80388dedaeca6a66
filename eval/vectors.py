"""Vectors of a set of clips: what embedders make and what distances compare.

Windows of one clip are not independent, so every vector knows its clip; all error bars and corrections count clips.
The order in which clips arrive never matters: every score looks at them sorted by name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .metric import write_whole


@dataclass(frozen=True)
class Vectors:
    """``data`` [N, D] float32 or float64, ``clip`` int64 [N] into ``names``, which are unique.

    Windows of a clip lie in the order in which they sound. A clip without a window may not be listed.
    """

    data: Tensor
    clip: Tensor
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.data.ndim != 2 or self.data.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"vectors are {self.data.dtype} of shape {tuple(self.data.shape)}: need float32 or float64 [N, D], "
                "a row per window (half precision loses digits that a covariance needs)"
            )
        if self.clip.shape != self.data.shape[:1] or self.clip.dtype != torch.int64:
            raise ValueError(f"clip is {self.clip.dtype} of shape {tuple(self.clip.shape)}: need int64, one per vector")
        if len(set(self.names)) != len(self.names):
            twice = sorted({name for name in self.names if self.names.count(name) > 1})[:3]
            raise ValueError(f"clips listed twice: {', '.join(twice)}; give every clip a name of its own")
        if self.clip.numel() and not 0 <= int(self.clip.min()) <= int(self.clip.max()) < len(self.names):
            raise ValueError(
                f"clip reaches {int(self.clip.min())}..{int(self.clip.max())}: allowed are 0..{len(self.names) - 1}"
            )
        if bool((self.counts == 0).any()):
            raise ValueError("some clips have no vector: leave them out and say so with the result")

    @property
    def dim(self) -> int:
        """D."""
        return int(self.data.shape[1])

    @property
    def windows(self) -> int:
        """N."""
        return int(self.data.shape[0])

    @property
    def counts(self) -> Tensor:
        """Windows of each clip, int64 [clips]."""
        return torch.bincount(self.clip, minlength=len(self.names))[: len(self.names)]

    def ordered(self) -> Vectors:
        """The same set, clips sorted by name and windows of a clip adjacent, so that sums never depend on arrival."""
        rank = sorted(range(len(self.names)), key=self.names.__getitem__)
        place = torch.empty(len(rank), dtype=torch.int64)
        place[torch.tensor(rank, dtype=torch.int64)] = torch.arange(len(rank))
        clip = place[self.clip] if rank else self.clip
        order = clip.argsort(stable=True)
        return Vectors(self.data[order], clip[order], tuple(self.names[index] for index in rank))

    def take(self, clips: Tensor) -> Vectors:
        """Only the clips with these indices, int64 [n], each once."""
        place = torch.full((len(self.names),), -1, dtype=torch.int64)
        place[clips] = torch.arange(clips.numel())
        clip = place[self.clip]
        kept = clip >= 0
        return Vectors(self.data[kept], clip[kept], tuple(self.names[index] for index in clips.tolist()))

    def means(self) -> Vectors:
        """One vector per clip, the mean of its windows in float64."""
        total = torch.zeros(len(self.names), self.dim, dtype=torch.float64)
        total.index_add_(0, self.clip, self.data.double())
        return Vectors(total / self.counts[:, None], torch.arange(len(self.names)), self.names)

    def per_clip(self, values: Tensor) -> Tensor:
        """Sum of a value per window [N] over the windows of each clip -> float64 [clips]."""
        total = torch.zeros(len(self.names), dtype=torch.float64)
        return total.index_add_(0, self.clip, values.double())

    def problem(self) -> str | None:
        """Why nothing can be computed of this set, or None."""
        if not self.names:
            return "holds no clip"
        bad = ~torch.isfinite(self.data).all(dim=1)
        if bool(bad.any()):
            found = [self.names[index] for index in sorted(set(self.clip[bad].tolist()))]
            some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            return f"holds NaN or infinity in {len(found)} clips: {some}"
        return None

    def state(self) -> dict[str, Tensor]:
        """As tensors: ``data``, ``clip``, and ``names`` as the bytes of a JSON list."""
        names = torch.frombuffer(bytearray(json.dumps(self.names).encode()), dtype=torch.uint8)
        return {"data": self.data, "clip": self.clip, "names": names}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Vectors:
        """What :meth:`state` gave. Raises ValueError when it does not fit together."""
        missing = sorted({"data", "clip", "names"} - set(state))
        if missing:
            raise ValueError(f"a set of vectors lacks {', '.join(missing)}: it was not written by descant")
        try:
            names = json.loads(state["names"].numpy().tobytes())
        except ValueError as error:
            raise ValueError("the names of a set of vectors are damaged") from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("the names of a set of vectors are damaged")
        return cls(state["data"], state["clip"], tuple(names))

    def save(self, path: str | os.PathLike[str], recipe: str) -> None:
        """Write a set that others can use as reference: one safetensors file with the id of its recipe."""
        from safetensors.torch import save

        table = {name: value.contiguous() for name, value in self.state().items()}
        write_whole(path, save(table, {"kind": "vectors", "recipe": recipe}))

    @classmethod
    def load(cls, path: str | os.PathLike[str], recipe: str) -> Vectors:
        """Read a file of :meth:`save`. Raises ValueError unless it is whole and was made with the same recipe."""
        from safetensors import SafetensorError, safe_open

        from .recipe import require_same

        where = Path(path)
        if not where.is_file():
            raise ValueError(f"{where}: no such file; a reference is written by Vectors.save")
        try:
            with safe_open(where, "pt") as file:
                about = file.metadata() or {}
                table = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{where}: is damaged ({error}); download or make it again") from error
        if about.get("kind") != "vectors":
            raise ValueError(f"{where}: holds no vectors of clips")
        require_same(about.get("recipe", "none"), recipe)
        return cls.from_state(table)


def join(sets: Sequence[Vectors]) -> Vectors:
    """One set of several. Raises ValueError when a clip is in two of them or dimensions differ."""
    if not sets:
        raise ValueError("no sets to join: give at least one")
    if len({item.dim for item in sets if item.names}) > 1:
        raise ValueError(f"vectors of {sorted({item.dim for item in sets})} dimensions do not join: use one embedder")
    full = [item for item in sets if item.names] or [sets[0]]
    starts, total = [], 0
    for item in full:
        starts.append(total)
        total += len(item.names)
    return Vectors(
        torch.cat([item.data for item in full]),
        torch.cat([item.clip + start for item, start in zip(full, starts, strict=True)]),
        tuple(name for item in full for name in item.names),
    )


def of(values: Any, clips: Any = None) -> Vectors:
    """Vectors of anything: a set stays one; a tensor or array [N, D] takes ``clips``, a name or number per row.

    Without ``clips`` every row is a clip of its own. Half precision is widened.
    """
    if isinstance(values, Vectors):
        return values
    data = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values).detach().cpu()
    if data.dtype not in (torch.float32, torch.float64):
        data = data.float()
    if data.ndim != 2:
        raise ValueError(f"vectors have shape {tuple(data.shape)}: need [N, D], a row per window")
    if clips is None:
        # zero-padded, so that sorting by name keeps the order of rows
        return Vectors(data, torch.arange(data.shape[0]), tuple(f"{row:09d}" for row in range(data.shape[0])))
    labels = [f"{item:09d}" if isinstance(item, int) else str(item) for item in list(_plain(clips))]
    if len(labels) != data.shape[0]:
        raise ValueError(f"{len(labels)} clips for {data.shape[0]} rows: need a clip for each row")
    names = list(dict.fromkeys(labels))
    index = {name: place for place, name in enumerate(names)}
    return Vectors(data, torch.tensor([index[name] for name in labels], dtype=torch.int64), tuple(names))


def _plain(clips: Any) -> Any:
    return clips.tolist() if hasattr(clips, "tolist") else clips
