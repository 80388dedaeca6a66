"""Samples <-> tokens: the neural audio codec and the audio door."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contract import Codec
    from .model import Codec as OurCodec
    from .neural import NeuralCodec

__all__ = ["build", "load"]


def load(name_or_folder: str | os.PathLike[str] = "tiny", dtype: str = "fp32") -> Codec:
    """Load a codec: ``tiny`` from the package, a folder, a checkpoint or a hub id such as ``facebook/encodec_32khz``.

    See :func:`descant.codec.pretrained.load`.
    """
    from .pretrained import load as load_codec

    return load_codec(name_or_folder, dtype)


def build(name: str) -> OurCodec | NeuralCodec:
    """A codec of a preset with random weights, to be trained. See :func:`descant.codec.pretrained.build`."""
    from .pretrained import build as build_codec

    return build_codec(name)
