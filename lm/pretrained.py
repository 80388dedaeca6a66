"""A language model as a folder: config.json, model.safetensors (float16 or float32), tokenizer.model.

Nothing that is read is executed. Weights are computed in float32 whatever they are stored in. A file that is missing,
damaged, of another shape or not finite is refused in words.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .model import LMConfig, TokenLM
from .room import room
from .shapes import shapes_only
from .shards import pickled

FORMAT = "descant-lm"
VERSION = 1
#: Sizes that would cost time or memory before the weights could show them to be wrong.
_LIMITS = {"layers": 512, "books": 64, "width": 1 << 15, "text_tokens": 4096, "sinks": 4096, "guidance_bins": 1024,
           "targets": 1024}  # fmt: skip
_INSTEAD = "export the model again, or take a copy that is whole"
_CONFIG, _WEIGHTS, _TOKENIZER = "config.json", "model.safetensors", "tokenizer.model"


def save(model: TokenLM, folder: str | Path, half: bool = True) -> None:
    """Write ``model`` to ``folder``, which is made if need be; each file is replaced whole."""
    from safetensors.torch import save as to_bytes

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kind = torch.float16 if half else torch.float32
    weights = {name: value.detach().to("cpu", kind).contiguous() for name, value in model.state_dict().items()}
    for name, value in weights.items():
        if not bool(value.isfinite().all()):
            raise ValueError(f"weight {name!r} is not finite{' in float16' if half else ''}: nothing was saved")
    config = {"format": FORMAT, "version": VERSION, "config": asdict(model.config)}
    _replace(folder / _WEIGHTS, to_bytes(weights))
    if model.tokenizer is not None:
        _replace(folder / _TOKENIZER, model.tokenizer.data)
    else:
        (folder / _TOKENIZER).unlink(missing_ok=True)
    _replace(folder / _CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def load(name_or_folder: str | Path = "embedded") -> TokenLM:
    """Read a model that :func:`save` wrote, in evaluation mode on the CPU.

    A name that is no folder is looked for among the models the package carries.
    """
    folder = _find(name_or_folder)
    config = _config(folder / _CONFIG)
    tokenizer = folder / _TOKENIZER
    with shapes_only():
        # a config that lies about its sizes is found out before any memory is taken
        model = TokenLM(config, tokenizer.read_bytes() if tokenizer.is_file() else None)
    with room(f"the weights of {folder}", "choose a smaller model"):
        model.load_state_dict(_weights(folder / _WEIGHTS, model.state_dict()), assign=True)
    return model.requires_grad_(True).eval()


def _find(name: str | Path) -> Path:
    folder, shelf = Path(name), Path(__file__).parent.parent / "gen" / "weights"
    for place in (folder, shelf / f"lm_{folder.name}", shelf / folder.name):
        if (place / _CONFIG).is_file() and (place / _WEIGHTS).is_file():
            return place
    raise ValueError(f"no language model at {str(name)!r}: expected a folder with {_CONFIG} and {_WEIGHTS}")


def _config(path: Path) -> LMConfig:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(row, dict) or row.get("format") != FORMAT or row.get("version") != VERSION:
        raise ValueError(
            f"{path} is no language model of this package: 'format' must be {FORMAT!r}, 'version' {VERSION}"
        )
    row = row.get("config")
    if not isinstance(row, dict):
        raise ValueError(f"{path}: 'config' must hold the model's sizes")
    kinds: dict[str, Any] = {field.name: field.type for field in fields(LMConfig)}
    unknown, missing = sorted(set(row) - set(kinds)), sorted({"width", "layers", "heads"} - set(row))
    if unknown or missing:
        raise ValueError(f"{path}: unknown settings {unknown}, missing settings {missing}")
    allowed: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, allowed[kinds[name]]):
            raise ValueError(f"{path}: {name} must be of type {kinds[name]}, got {value!r}")
        if isinstance(value, int) and value > _LIMITS.get(name, 1 << 20):
            raise ValueError(f"{path}: {name} {value} is beyond {_LIMITS.get(name, 1 << 20)}")
    return LMConfig(**row)


def _weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    from safetensors.torch import load as from_bytes

    try:
        found = from_bytes(path.read_bytes())
    except MemoryError:
        raise
    except Exception as error:  # the reader raises its own kinds of error for a damaged file
        if pickled(path):
            raise ValueError(f"{path} is a pickle by another name, which is not opened: {_INSTEAD}") from None
        raise ValueError(f"{path} cannot be read: {error}; {_INSTEAD}") from None
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or unknown:
        raise ValueError(
            f"{path} does not fit its config: missing {missing[:3]} ({len(missing)} in all), unknown {unknown[:3]} "
            f"({len(unknown)} in all); {_INSTEAD}"
        )
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{path}: {name} is {list(value.shape)}, the config wants {list(expected[name].shape)}; {_INSTEAD}"
            )
        if not value.is_floating_point() or not bool(value.isfinite().all()):
            raise ValueError(f"{path}: {name} holds values that are not finite numbers; {_INSTEAD}")
    return {name: value.float() for name, value in found.items()}


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)
