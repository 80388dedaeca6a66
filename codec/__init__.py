"""Samples <-> tokens: the neural audio codec and the audio door."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Codec

__all__ = ["load"]


def load(name_or_folder: str | os.PathLike[str] = "tiny") -> Codec:
    """Load a codec: ``tiny`` from the package, or a folder. See :func:`descant.codec.pretrained.load`."""
    from .pretrained import load as load_folder

    return load_folder(name_or_folder)
