"""Separators on disk: a folder with ``config.json`` and ``model.safetensors``, nothing that runs when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .bandsplit import BandSplit, BandSplitConfig

#: The layout of the folder, in its config.json.
FORMAT = "descant-separator/1"


def save(
    model: nn.Module, folder: str | os.PathLike[str], half: bool = True, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a network; float16 when ``half``. about: further facts for its config.json. Returns the folder."""
    from safetensors.torch import save_file

    if not isinstance(model, BandSplit):
        raise ValueError(f"only band-split networks are saved in this format, not {type(model).__name__}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: value.detach().to("cpu", torch.float16 if half else torch.float32).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, str(folder / "model.safetensors.part"), {"format": FORMAT})
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    config = {"format": FORMAT, "network": "bandsplit", "config": asdict(model.config), "about": dict(about or {})}
    part = folder / "config.json.part"
    part.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / "config.json")
    return folder


def load(folder: str | os.PathLike[str]) -> tuple[BandSplit, dict[str, Any]]:
    """Read a network in float32, ready to separate, and the facts saved with it.

    Raises FileNotFoundError for a folder without a separator and ValueError for one that cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no separator in {folder}: {name} is missing")
    try:
        header = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("network") != "bandsplit":
            raise ValueError(f"its format is not {FORMAT}")
        known = {field.name for field in fields(BandSplitConfig)}
        unknown = sorted(set(header["config"]) - known)
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}")
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in header["config"].items()
        }
        model = BandSplit(BandSplitConfig(**values))
        weights = load_file(str(folder / "model.safetensors"))
        model.load_state_dict({name: value.float() for name, value in weights.items()})
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no separator of this version: {str(error).splitlines()[0]}") from None
    if not all(torch.isfinite(value).all() for value in model.parameters()):
        raise ValueError(f"{folder}: the weights hold values that are not finite; fetch or train them again")
    return model.eval(), dict(header.get("about", {}))
