"""Samples <-> tokens: the neural audio codec and the audio door."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Codec

__all__ = ["load"]


def load(folder: str | os.PathLike[str]) -> Codec:
    """Load a codec from ``folder`` (``config.json`` and ``model.safetensors``). See :mod:`descant.codec.pretrained`."""
    from .pretrained import load as load_folder

    return load_folder(folder)
