"""A cache of vectors by content: what was heard once under a recipe need not be heard again.

The key is the audio's bytes, the recipe (which names the judge and its weights) and nothing else: renamed files hit,
changed files miss, and two machines may share one folder. Entries appear whole or not at all, and carry a checksum; a
damaged one is a miss, is counted and is written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .metric import write_whole
from .recipe import Recipe

#: Of the layout of entries; part of every key.
_VERSION = 1


class Cache:
    """Entries ``ab/abcd....safetensors`` in a folder, which is made when first written to."""

    def __init__(self, folder: str | os.PathLike[str], readonly: bool = False) -> None:
        self.folder = Path(folder)
        self.readonly = readonly
        self.hits = self.misses = self.damaged = 0
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: is a file; name a folder for the cache")

    def key(self, audio: str, recipe: Recipe) -> str:
        """Key of the clip with this SHA-256 under this recipe, 64 hexadecimal digits."""
        text = json.dumps([_VERSION, audio, recipe.embedder, recipe.digest])
        return hashlib.sha256(text.encode()).hexdigest()

    def path(self, key: str) -> Path:
        """Where an entry lies."""
        if len(key) != 64 or set(key) - set("0123456789abcdef"):
            raise ValueError(f"{key!r} is no key: need 64 hexadecimal digits, from Cache.key")
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors under a key; None when there are none or they are damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            data = self.path(key).read_bytes()
        except FileNotFoundError:
            self.misses += 1
            return None
        try:
            size = int.from_bytes(data[:8], "little")
            about = json.loads(data[8 : 8 + size])["__metadata__"]
            table = dict(load(data))
            if about["key"] != key or about["checksum"] != _checksum(table):
                raise ValueError("checksum")
        except (SafetensorError, ValueError, KeyError, TypeError, UnicodeDecodeError):
            self.damaged += 1
            self.misses += 1
            return None
        self.hits += 1
        return table

    def put(self, key: str, table: Mapping[str, Tensor]) -> None:
        """Keep tensors under a key; a read-only cache keeps nothing. Finite, bounded, CPU."""
        if self.readonly:
            return
        from safetensors.torch import save

        whole = {name: value.detach().cpu().contiguous() for name, value in table.items()}
        write_whole(self.path(key), save(whole, {"key": key, "checksum": _checksum(whole)}))


def _checksum(table: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(table):
        value = table[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
