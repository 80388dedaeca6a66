"""RoFormer checkpoints of the community and of the BS-RoFormer package, as networks of ours.

Two layouts of names are read: that of the package up to 0.4 and of the programs that carry a copy of it (all published
weights of 2023 to 2025), and that of later ones, with values of the first block in every other and with residual
streams. Networks with other positions than rotary ones, or adapters, are refused by name.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoint, pretrained, roformer_settings
from .checkpoint import Look
from .roformer import Roformer, RoformerConfig

_Take = Callable[[str], Tensor]
#: Copies of biases that some checkpoints keep outside the layers that share them.
_SHARED = ("linear_62_bias_0", "linear_64_bias_0")


def matches(found: Look) -> bool:
    """Whether a checkpoint holds a RoFormer."""
    return {"band_split.to_features.0.1.weight", "mask_estimators.0.to_freqs.0.0.0.weight"} <= found.names


def read(path: str | os.PathLike[str]) -> Roformer:
    """A checkpoint file and the settings beside it -> a network, ready to separate.

    Raises ValueError when either cannot be read or they do not fit.
    """
    path = Path(path)
    settings = roformer_settings.beside(path)
    try:
        return build(checkpoint.tensors(path), settings)
    except ValueError as error:
        raise ValueError(error if str(path) in str(error) else f"{path}: {error}") from None


def convert(path: str | os.PathLike[str], folder: str | os.PathLike[str], half: bool = False) -> Path:
    """Write a checkpoint file as a folder that loads without its settings. Returns the folder; raises like read."""
    return pretrained.save(read(path), folder, half, about={"source": Path(path).name})


def build(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Roformer:
    """Tensors by the checkpoint's names and its settings, by section -> a network, ready to separate.

    Raises ValueError when they do not fit, and for networks that are not built here.
    """
    left = _plain({name: value for name, value in tensors.items() if name not in _SHARED})
    config = roformer_settings.config_of(left, settings)
    weights = _weights(config, roformer_settings.places(left), left)
    if left:
        raise ValueError(f"networks with {min(left)} are not supported")
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Roformer(config).state_dict().items()}
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(f"the tensors for {name} have shape {tuple(weights[name].shape)}, need {tuple(shape)}")
        if not bool(torch.isfinite(weights[name]).all()):
            raise ValueError("the weights hold values that are not finite; fetch them again")
    network = Roformer(config)
    network.load_state_dict(weights)
    return network.eval()


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of the first layout; what belongs to residual streams is under ``streams``."""
    if not any(".branch." in name for name in tensors):
        return dict(tensors)
    around = re.compile(r"(layers\.\d+\.\d+\.layers\.\d+\.[01])\.(?!branch\.)")
    return {around.sub(r"\1.streams.", name).replace(".branch.", "."): value for name, value in tensors.items()}


def _weights(config: RoformerConfig, places: tuple[int | None, int, int], left: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by name; what is used is taken out of ``left``."""

    def take(name: str) -> Tensor:
        if name not in left:
            raise ValueError(f"the checkpoint lacks {name}")
        return left.pop(name).float()

    def gain(name: str) -> Tensor:
        gamma = take(name)
        return gamma * math.sqrt(gamma.shape[0])

    made: dict[str, Tensor] = {}
    for band in range(len(config.ranges)):
        name = f"band_split.to_features.{band}"
        made[f"split.{band}.weight"] = take(f"{name}.1.weight") * gain(f"{name}.0.gamma")
        made[f"split.{band}.bias"] = take(f"{name}.1.bias")
        for stem in range(len(config.stems)):
            for layer in range(0, 2 * config.mask_layers, 2):
                for part in ("weight", "bias"):
                    name = f"mask_estimators.{stem}.to_freqs.{band}.0.{layer}.{part}"
                    made[f"masks.{stem}.{band}.{layer}.{part}"] = take(name)
    if config.final_norm:
        made["gain"] = gain("final_norm.gamma")
    for block in range(config.blocks):
        known = [(place, depth) for place, depth in zip(places, config.depths, strict=True) if place is not None]
        for number, (place, depth) in enumerate(known):
            theirs, ours = f"layers.{block}.{place}", f"blocks.{block}.{number}"
            if config.block_norm:
                made[f"{ours}.gain"] = gain(f"{theirs}.norm.gamma")
            for layer in range(depth):
                name = f"{theirs}.layers.{layer}"
                made |= _attention(f"{name}.0", f"{ours}.attentions.{layer}", take, gain, left)
                up = gain(f"{name}.1.net.0.gamma")
                made[f"{ours}.feeds.{layer}.up.weight"] = take(f"{name}.1.net.1.weight") * up
                made[f"{ours}.feeds.{layer}.up.bias"] = take(f"{name}.1.net.1.bias")
                for part in ("weight", "bias"):
                    made[f"{ours}.feeds.{layer}.down.{part}"] = take(f"{name}.1.net.4.{part}")
                for half in range(2 if config.streams > 1 else 0):
                    made |= _streams(f"{name}.{half}.streams", f"{ours}.streams.{2 * layer + half}", take)
    return made | _speeds(config, places, left)


def _attention(theirs: str, ours: str, take: _Take, gain: _Take, left: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One attention layer: what is computed of the same input becomes one matrix."""
    made: dict[str, Tensor] = {}
    between = f"{theirs}.temperature" in left
    enter, leave = ("to_qkv.0", "to_out.1") if between else ("to_qkv", "to_out.0")
    parts = [enter, *([] if between else ["to_gates"])]
    parts += [name for name in ("to_value_residual_mix", "learned_value_residual_mix.0")
              if f"{theirs}.{name}.weight" in left]  # fmt: skip
    scale = gain(f"{theirs}.norm.gamma")
    weights = [take(f"{theirs}.{part}.weight") * scale for part in parts]
    biases = [
        _bias(f"{theirs}.{part}.bias", len(weight), left, take) for part, weight in zip(parts, weights, strict=True)
    ]
    made[f"{ours}.enter.weight"], made[f"{ours}.enter.bias"] = torch.cat(weights), torch.cat(biases)
    made[f"{ours}.leave.weight"] = out = take(f"{theirs}.{leave}.weight")
    made[f"{ours}.leave.bias"] = _bias(f"{theirs}.{leave}.bias", len(out), left, take)
    if between:
        made[f"{ours}.temperature"] = take(f"{theirs}.temperature")
    return made


def _streams(theirs: str, ours: str, take: _Take) -> dict[str, Tensor]:
    """Weights around a layer: gains and scales become parts of one matrix, what is fixed its bias."""
    alpha, beta = take(f"{theirs}.dynamic_alpha_fn"), take(f"{theirs}.dynamic_beta_fn")
    gain = (take(f"{theirs}.norm.gamma") + 1) * math.sqrt(len(beta))
    if beta.dim() != 1 or alpha.dim() not in (2, 3) or alpha.dim() == 3 and len(alpha) != 1:
        raise ValueError("networks with several proposals or parts of residual streams are not supported")
    alpha = alpha.reshape(alpha.shape[-2:])  # [D, 1 + R]
    before, between = take(f"{theirs}.pre_branch_scale"), take(f"{theirs}.residual_scale")
    scales = torch.cat([before, between.expand(alpha.shape[1] - 1)])
    rows = [alpha.T * scales[:, None], beta[None] * take(f"{theirs}.h_post_scale")]
    fixed = [take(f"{theirs}.static_alpha"), take(f"{theirs}.static_beta")[:, None]]
    return {f"{ours}.weight": torch.cat(rows) * gain, f"{ours}.bias": torch.cat(fixed, 1)}


def _bias(name: str, size: int, left: Mapping[str, Tensor], take: _Take) -> Tensor:
    return take(name) if name in left else torch.zeros(size)


def _speeds(config: RoformerConfig, places: tuple[int | None, int, int], left: dict[str, Tensor]) -> dict[str, Tensor]:
    """Speeds of the rotary positions, which all layers of a direction share; each checkpoint layer has a copy."""
    plain = 10000.0 ** (-torch.arange(0, config.head, 2) / config.head)
    made = {}
    for ours, place in zip(("time_speeds", "band_speeds"), places[1:], strict=True):
        copies = [name for name in left if name.endswith(".rotary_embed.freqs") and name.split(".")[2] == str(place)]
        found = [left.pop(name).float() for name in copies]
        if any(not torch.equal(one, found[0]) for one in found):
            raise ValueError("networks with rotary positions of their own in every layer are not supported")
        made[ours] = found[0] if found else plain
    return made
