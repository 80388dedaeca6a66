"""Codecs on disk: a folder with ``config.json`` and ``model.safetensors``. Nothing is unpickled, nothing downloaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise

from .model import Codec, CodecConfig

FORMAT = "descant-codec"
VERSION = 1


def save(codec: Codec, folder: str | os.PathLike[str], half: bool = False) -> None:
    """Write ``codec`` into ``folder``, each file under a temporary name first; ``half`` stores float16."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, value in codec.state_dict().items():
        # training statistics of the books are no part of the codec: the vectors are
        if name.endswith((".total", ".count")):
            continue
        value = value.detach().cpu().contiguous()
        # codes depend on distances between book vectors: those stay float32
        shrink = half and value.is_floating_point() and not name.endswith(".embed")
        tensors[name] = value.half() if shrink else value
    part = folder / "model.safetensors.part"
    part.write_bytes(serialise(tensors, metadata={"format": FORMAT}))
    os.replace(part, folder / "model.safetensors")
    text = json.dumps({"format": FORMAT, "version": VERSION, "config": codec.config.to_dict()}, indent=1) + "\n"
    part = folder / "config.json.part"
    part.write_text(text, encoding="utf-8")
    os.replace(part, folder / "config.json")


def load(name_or_folder: str | os.PathLike[str] = "tiny") -> Codec:
    """Load a codec, in evaluation mode, float32: ``tiny`` from the package, or a folder made by :func:`save`.

    Raises FileNotFoundError when a file is missing and ValueError when one is damaged or does not fit.
    """
    folder = _find(name_or_folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"no codec in {folder}: {name} is missing; name a folder made by 'descant train codec'"
            )
    try:
        header = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise ValueError(f"format {header['format']!r} version {header['version']!r}")
        config = CodecConfig.from_dict(header["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'config.json'} is not a codec description this version reads: {error}") from error
    try:
        tensors = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise ValueError(f"{folder / 'model.safetensors'} is damaged: {error}; fetch or train it again") from error
    codec = Codec(config)
    wanted = {name: value for name, value in codec.state_dict().items() if not name.endswith((".total", ".count"))}
    wrong = sorted(
        [name for name in wanted if name not in tensors or tensors[name].shape != wanted[name].shape]
        + [name for name in tensors if name not in wanted]
    )
    if wrong:
        raise ValueError(f"{folder}: weights do not fit the configuration, first at {wrong[:3]}")
    tensors = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{folder}: weights contain NaN or infinity, first in {name}; fetch or train it again")
    codec.load_state_dict(tensors, strict=False)
    for book in codec.quantiser.all():  # the averages are not stored: start them where the vectors are
        book.total.copy_(book.embed)
        book.count.fill_(1.0)
    return codec.eval().requires_grad_(False)


def _find(name: str | os.PathLike[str]) -> Path:
    packed = Path(__file__).parent.parent / "gen" / "weights" / f"codec_{name}"
    return packed if packed.is_dir() and not Path(name).is_dir() else Path(name)
