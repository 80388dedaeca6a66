"""Tokens to tokens: patterns, transformer, conditions, sampling. Sees no sample of audio."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import TokenLM


def load(name_or_folder: str | Path = "embedded") -> TokenLM:
    """Load a language model: a folder that :meth:`TokenLM.save` wrote, or the name of one the package carries."""
    from .pretrained import load as load_model

    return load_model(name_or_folder)
