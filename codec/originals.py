"""Checkpoints of the original packages: ``encodec`` and AudioCraft (``.th``, ``.bin``) and Descript's DAC (``.pth``).

They are pickles; torch opens them here with ``weights_only=True``, which builds tensors and plain values and calls
nothing. EnCodec's carry no configuration: it follows from the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .official import DacConfig, EncodecConfig, encodec24, encodec48, musicgen32

#: Descript's names of settings that :class:`DacConfig` has.
_KWARGS = {
    "encoder_dim": "encoder_width", "encoder_rates": "ratios", "decoder_dim": "decoder_width",
    "decoder_rates": "decoder_ratios", "n_codebooks": "books", "codebook_size": "cardinality",
    "codebook_dim": "code_dim", "sample_rate": "rate",
}  # fmt: skip


def read(path: Path) -> tuple[EncodecConfig | DacConfig, dict[str, Tensor]]:
    """A checkpoint file -> configuration and tensors under the house's names.

    Raises ValueError when it is none of the known kinds or holds more than data.
    """
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged or hostile file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is not a checkpoint of plain tensors: {reason}") from error
    if not isinstance(table, Mapping):
        raise ValueError(f"{path} holds a {type(table).__name__}, a checkpoint is a mapping")
    if "metadata" in table and "state_dict" in table:
        return _descript(table["metadata"], _tensors(table["state_dict"], path))
    for name in ("best_state", "model"):  # AudioCraft wraps its states
        table = table[name] if isinstance(table.get(name), Mapping) else table
    tensors = _tensors(table, path)
    if "encoder.model.0.conv.conv.bias" not in tensors:
        raise ValueError(f"{path}: neither EnCodec's names nor Descript's; first is {next(iter(tensors), 'none')!r}")
    return _facebook(tensors)


def _tensors(table: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(table, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in table.items()
    ):
        raise ValueError(f"{path}: a state must be tensors by name")
    return {name: value.float() if value.is_floating_point() else value for name, value in table.items()}


def _facebook(tensors: Mapping[str, Tensor]) -> tuple[EncodecConfig, dict[str, Tensor]]:
    out = {}
    for name, value in tensors.items():
        name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
        name = re.sub(r"\.conv(?:tr)?\.(conv|convtr|norm)\.", _inner, name)
        name = re.sub(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)
        out[name] = value
    books = len({name.split(".")[2] for name in out if name.startswith("quantizer.layers.")})
    filters, channels = tensors["encoder.model.0.conv.conv.bias"].shape[0], _channels(tensors)
    if channels == 2:
        config = encodec48()
    elif filters == 64:
        config = musicgen32()
    else:
        config = encodec24()
    if books and books < config.books:
        each = config.frames_per_second * config.bits / 1000
        config = replace(
            config, bandwidths=(*[rate for rate in config.bandwidths if rate < each * books], each * books)
        )
    return config, out


def _inner(match: re.Match[str]) -> str:
    return ".norm." if match.group(1) == "norm" else ".conv."


def _channels(tensors: Mapping[str, Tensor]) -> int:
    stem = "encoder.model.0.conv.conv."
    for name in ("weight", "weight_v", "parametrizations.weight.original1"):
        if stem + name in tensors:
            return tensors[stem + name].shape[1] if tensors[stem + name].dim() == 3 else 0
    raise ValueError(f"the state has no {stem}weight")


def _descript(metadata: Any, tensors: dict[str, Tensor]) -> tuple[DacConfig, dict[str, Tensor]]:
    row = metadata.get("kwargs") if isinstance(metadata, Mapping) else None
    if not isinstance(row, Mapping):
        raise ValueError("a Descript checkpoint must say its settings under metadata.kwargs")
    if row.get("latent_dim") not in (None, row.get("encoder_dim", 64) * 2 ** len(row.get("encoder_rates", "1234"))):
        raise ValueError(f"latent_dim {row['latent_dim']!r}: only the encoder's own width is known")
    values = {ours: row[theirs] for theirs, ours in _KWARGS.items() if theirs in row}
    normed = any(name.endswith((".weight_g", "original0")) for name in tensors)
    config = DacConfig(**values, weight_norm=normed)
    return config, {_descript_name(name, len(config.ratios)): value for name, value in tensors.items()}


def _descript_name(name: str, ratios: int) -> str:
    """Numbered layers -> named ones; ``ratios``: how many blocks each side has."""
    unit = {"0": "snake1", "1": "conv1", "2": "snake2", "3": "conv2"}
    side = r"(encoder\.block|decoder\.model)"
    found = re.fullmatch(rf"{side}\.(\d+)\.(.+)", name)
    if not found:
        return name
    stem, place, rest = found.group(1).split(".")[0], int(found.group(2)), found.group(3)
    if place == 0 or place > ratios:
        layer = "conv1" if place == 0 else ("snake1" if place == ratios + 1 else "conv2")
        return f"{stem}.{layer}.{rest}"
    found = re.fullmatch(r"block\.(\d+)\.(?:block\.(\d)\.)?(.+)", rest)
    if not found:
        return name
    inner, part, leaf = int(found.group(1)), found.group(2), found.group(3)
    first = 0 if stem == "encoder" else 2  # the decoder's units follow its transposed convolution
    if part is not None:
        return f"{stem}.block.{place - 1}.res_unit{inner - first + 1}.{unit.get(part, part)}.{leaf}"
    plain = {"encoder": {3: "snake1", 4: "conv1"}, "decoder": {0: "snake1", 1: "conv_t1"}}[stem]
    return f"{stem}.block.{place - 1}.{plain.get(inner, str(inner))}.{leaf}"
