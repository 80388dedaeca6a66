"""Tokens to tokens: patterns, transformer, conditions, sampling. Sees no sample of audio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import TokenLM
    from .musicgen import MusicGenLM


def load(name_or_folder: str | Path = "embedded") -> TokenLM | MusicGenLM:
    """Load a language model: one the package carries, a folder that ``save`` wrote, or a MusicGen.

    A MusicGen is a folder in the transformers library's format or a hub id such as ``"facebook/musicgen-small"``, the
    one case in which something may be downloaded.
    """
    from . import musicgen_files, pretrained

    if musicgen_files.is_musicgen(name_or_folder):
        return musicgen_files.load(name_or_folder)
    return pretrained.load(name_or_folder)
