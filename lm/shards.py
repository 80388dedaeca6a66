"""Tensors of a transformers folder by name, from one safetensors file or several: one at a time, and only as data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
#: Largest description that is read: published ones have a few kilobytes, indexes some hundred.
_MOST_JSON = 16 << 20
_INSTEAD = "fetch the model's safetensors files, or write them with the transformers library (save_pretrained)"
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.safetensors")


class Shards:
    """The tensors of ``folder``: names and shapes at once, values when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, Any] = {}
        index = folder / _INDEX
        if (folder / _WEIGHTS).is_file():
            names = [_WEIGHTS]
        elif index.is_file():
            names = files_in(index)
        else:
            raise FileNotFoundError(_nothing(folder))
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(f"{index} names {absent[:3]}, which {folder} does not hold: fetch the whole folder")
        for name in names:
            self._open(folder / name)
        if names != [_WEIGHTS]:
            unkept = sorted(set(_map(index)) - set(self._files))
            if unkept:
                raise ValueError(f"{index} promises {unkept[:3]}, which no file holds: fetch the folder again")

    def _open(self, path: Path) -> None:
        try:
            file: Any = safe_open(path, framework="pt")
        except SafetensorError as error:
            if pickled(path):
                raise ValueError(f"{path} is a pickle by another name, which is not opened: {_INSTEAD}") from error
            raise ValueError(f"{path} is damaged or no safetensors file: {error}; fetch it again") from error
        for name in file.keys():  # noqa: SIM118 - no mapping, it has keys() alone
            if name in self._files:
                raise ValueError(f"{path} holds {name!r} a second time: fetch the folder again")
            self._files[name] = file

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from its file's header."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def tensor(self, name: str) -> Tensor:
        """A tensor as it is stored."""
        value: Tensor = self._files[name].get_tensor(name)
        return value

    def weight(self, name: str) -> Tensor:
        """A tensor in float32. Raises ValueError when it is not made of finite numbers."""
        value = self.tensor(name)
        if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise ValueError(f"{self.folder}: {name} holds values that are not finite numbers; fetch it again")
        return value.float()

    def digest(self, names: Iterable[str]) -> str:
        """SHA-256 over tensors: names, shapes, kinds, bytes."""
        digest = hashlib.sha256()
        for name in sorted(names):
            value = self.tensor(name).contiguous()
            digest.update(f"{name}\0{list(value.shape)}\0{value.dtype}\0".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def files_in(index: Path) -> list[str]:
    """File names in an index. Raises ValueError unless they are plain: an index is no way out of its folder."""
    names = set(_map(index).values())
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{index} names the file {name!r}: only plain names of .safetensors files are read")
    return sorted(names)


def _map(index: Path) -> dict[str, Any]:
    table = read_json(index)
    table = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not table:
        raise ValueError(f"{index} is no index of shards: it must have a 'weight_map'; fetch it again")
    return table


def pickled(path: Path) -> bool:
    """Whether a file begins as pickles do, bare or in the archive that torch.save makes."""
    with open(path, "rb") as file:
        head = file.read(4)
    return head == b"PK\x03\x04" or head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"


def read_json(path: Path) -> Any:
    """A JSON file of bounded size. Raises FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: name a folder in the transformers library's format")
    if path.stat().st_size > _MOST_JSON:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, a description has at most {_MOST_JSON}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a description: {error}") from error


def _nothing(folder: Path) -> str:
    found = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.th") for path in folder.glob(pattern))
    if not found:
        return f"{folder} has no {_WEIGHTS}: fetch the whole folder"
    if any("state_dict" in name for name in found):
        return f"{folder} is an AudioCraft checkpoint ({found[0]}): convert it once with 'descant convert'"
    return f"{folder} has its weights in {found[0]} alone, a pickle, which is not opened: {_INSTEAD}"
