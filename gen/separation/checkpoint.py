"""Checkpoints of other projects: their tensors, without running what else may be in them.

Files are safetensors, or pickles of torch, which are opened with ``weights_only=True``: that builds tensors and plain
values and calls nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Where training programs put the weights in a file, the averaged ones first.
_NESTS = ("ema_state_dict", "model_ema", "ema", "state_dict", "model_state_dict", "best_state", "model", "state")
#: What wrappers write before each name.
_WRAPS = ("module.", "_orig_mod.", "ema_model.", "model.")


class Look(NamedTuple):
    """What a checkpoint holds: names of its tensors, and classes it wants that are not plain data."""

    names: frozenset[str]
    classes: frozenset[str]


def look(path: Path) -> Look:
    """What is in a checkpoint file. Raises ValueError when it is damaged, or no checkpoint at all."""
    try:
        return Look(frozenset(tensors(path)), frozenset())
    except ValueError as error:
        classes = frozenset(re.findall(r"GLOBAL ([\w.]+)", str(error.__cause__ or "")))
        if not classes:
            raise
        return Look(frozenset(), classes)


def tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file by name, averaged weights where there are both; nothing is copied yet.

    Raises ValueError when the file is damaged, holds more than plain data, or holds no tensors by name.
    """
    held: Any = raw(path)
    for _ in range(3):  # {"state_dict": {"model": ...}} and the like
        inner = next((held[name] for name in _NESTS if isinstance(held.get(name), Mapping) and held[name]), None)
        if inner is None:
            break
        held = inner
    found = {name: value for name, value in held.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if not found:
        raise ValueError(f"{path} holds no tensors by name: name a checkpoint's state dict")
    for wrap in _WRAPS:
        inside = {name.removeprefix(wrap): value for name, value in found.items() if name.startswith(wrap)}
        # an average's file holds the network it averages as well
        if len(inside) == len(found) or (inside and wrap == "ema_model."):
            found = inside
    return found


def raw(path: Path) -> Mapping[Any, Any]:
    """A checkpoint file as it is. Raises ValueError like :func:`tensors`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(str(path)))
        table = _unpickled(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged or hostile file
        reason = f"{type(error).__name__} {str(error).strip()}".splitlines()[0]
        raise ValueError(
            f"{path} is not a checkpoint of plain tensors ({reason}): name a file that torch.save or safetensors wrote"
        ) from error
    if not isinstance(table, Mapping):
        raise ValueError(f"{path} holds a {type(table).__name__}, a checkpoint is a mapping")
    return table


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)  # written before torch 1.6
