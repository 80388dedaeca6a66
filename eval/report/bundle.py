"""A set of clips as heard: vectors of every hearing, facts, failures; one file that can be kept, shipped and shared.

A reference needs no audio to be compared with: ``descant score --reference FILE.safetensors`` takes what
``--save-reference`` wrote, with the self-check that was run where the audio was. The vectors beside every report are
the same kind of file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..metric import write_whole
from ..vectors import Vectors
from .hear import Heard, all_digests
from .judges import Hearing
from .results import CheckGroup, CheckRow, Side

_KIND = "descant-clips/1"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One side of an evaluation."""

    side: Side
    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    """Key of a hearing -> its vectors."""
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Key of a hearing -> its recipe as JSON."""
    facts: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """clip -> fact -> figure."""
    failures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Key of a hearing, or group of facts -> clip -> reason."""
    checks: tuple[CheckGroup, ...] = ()
    """What the self-check found where the audio was."""
    captions: Mapping[str, str] = field(default_factory=dict)

    def about(self, hearing: Hearing) -> tuple[Vectors | None, str, Mapping[str, str]]:
        """Vectors of a hearing, else why there are none, and the clips that failed it."""
        failed = self.failures.get(hearing.key, {})
        if hearing.key in self.vectors:
            return self.vectors[hearing.key], "", failed
        if failed:
            name, reason = sorted(failed.items())[0]
            return None, f"no clip of {self.side.name} could be used, such as {name}: {reason}", failed
        there = ", ".join(sorted({str(row["embedder"]) for row in self.recipes.values()})) or "none"
        reason = f"{self.side.name} holds no vectors of {hearing.recipe.embedder} under this recipe (it has: {there})"
        return None, reason, failed

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all."""
        from safetensors.torch import save

        table: dict[str, Tensor] = {}
        for key, vectors in sorted(self.vectors.items()):
            table |= {f"{key}.{name}": value for name, value in vectors.state().items()}
        plain = {name: {fact: float(value) for fact, value in facts.items() if value.ndim == 0}
                 for name, facts in self.facts.items()}  # fmt: skip
        about = {
            "side": asdict(self.side), "recipes": self.recipes, "failures": self.failures, "captions": self.captions,
            "checks": [asdict(group) for group in self.checks],
            "facts": {name: {fact: value for fact, value in row.items() if math.isfinite(value)}
                      for name, row in plain.items()},
        }  # fmt: skip
        table = {name: value.contiguous() for name, value in table.items()}
        meta = {"kind": _KIND, "about": json.dumps(about, ensure_ascii=False, sort_keys=True)}
        write_whole(path, save(table, meta | {"checksum": _checksum(table, meta["about"])}))


def load(path: str | os.PathLike[str]) -> Bundle:
    """Read a file of :meth:`Bundle.save`. Raises ValueError when it is missing, damaged or something else."""
    from safetensors import SafetensorError, safe_open

    where = Path(path)
    if not where.is_file():
        raise ValueError(f"{where}: no such file; a reference file is written with --save-reference")
    try:
        with safe_open(where, "pt") as file:
            meta = dict(file.metadata() or {})
            table = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{where}: is damaged ({error}); copy or make it again") from error
    if meta.get("kind") != _KIND:
        raise ValueError(f"{where}: is no set of clips of kind {_KIND}; make it with --save-reference")
    if meta.get("checksum") != _checksum(table, meta["about"]):
        raise ValueError(f"{where}: is damaged (its checksum differs); copy or make it again")
    about = json.loads(meta["about"])
    side = about["side"]
    keys = sorted({name.partition(".")[0] for name in table})
    return Bundle(
        side=Side(**{**side, "silent": tuple(side["silent"])}),
        vectors={key: Vectors.from_state({name.partition(".")[2]: value for name, value in table.items()
                                          if name.startswith(f"{key}.")}) for key in keys},
        recipes=about["recipes"], failures=about["failures"], captions=about["captions"],
        facts={name: {fact: torch.tensor(value, dtype=torch.float64) for fact, value in row.items()}
               for name, row in about["facts"].items()},
        checks=tuple(CheckGroup(judge=group["judge"], reason=group["reason"],
                                rows=tuple(CheckRow(**row) for row in group["rows"])) for group in about["checks"]),
    )  # fmt: skip


def gather(
    name: str, folder: str, heard: Sequence[Heard], hearings: Sequence[Hearing], captions: Mapping[str, str]
) -> Bundle:
    """What the clips of one side gave, joined. A clip counts as read when anything could be had of it."""
    usable = [item for item in heard if item.vectors or item.facts]
    failures: dict[str, dict[str, str]] = {}
    reasons: dict[str, str] = {}
    for item in heard:
        for key, reason in item.failures.items():
            failures.setdefault(key, {})[item.name] = reason
            reasons.setdefault(item.name, reason)
    sets = {}
    for one in hearings:
        rows = {item.name: item.vectors[one.key] for item in heard if one.key in item.vectors}
        if rows:
            sets[one.key] = joined(rows)
    side = Side(
        name=name, folder=folder, clips=len(usable), digest=all_digests(heard), failures=reasons,
        seconds=round(sum(float(item.facts["seconds"]) for item in usable if "seconds" in item.facts), 3),
        silent=tuple(sorted(item.name for item in heard if item.silent)),
    )  # fmt: skip
    return Bundle(
        side=side, vectors=sets, recipes={one.key: one.recipe.to_json() for one in hearings},
        facts={item.name: item.facts for item in heard if item.facts}, failures=failures, captions=dict(captions),
    )  # fmt: skip


def joined(rows: Mapping[str, Tensor]) -> Vectors:
    """Windows [N, D] of each clip as one set, clips by name."""
    names = tuple(sorted(rows))
    counts = torch.tensor([rows[name].shape[0] for name in names])
    return Vectors(torch.cat([rows[name] for name in names]), torch.arange(len(names)).repeat_interleave(counts), names)


def _checksum(table: Mapping[str, Tensor], about: str) -> str:
    total = hashlib.sha256(about.encode())
    for name in sorted(table):
        value = table[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
