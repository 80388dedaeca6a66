"""Low-rank adapters: a style or an instrument taught to a finished model, in a file of some hundred kilobytes.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021 (arXiv:2106.09685), section 4.1: beside a frozen
layer W [N, D] runs B A with A [R, D], B [N, R] and R small, scaled by alpha / R; A starts random, B at zero, so that an
adapter begins as nothing. It may run beside the layer, exchanged at any time, also where the layer's weights are of
8 bits (:class:`descant.lm.quant.QuantLinear`); or be added into the weights, which then cost what they always did.

An attached adapter is seen by everything that reads a layer's weight: ``layer.weight`` and the model's ``state_dict``
give W + B A. So the fast engines decode with it, and saving the model writes the merged one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .quant import QuantLinear

FORMAT = "descant-lora"
VERSION = 1
#: Layers inside the blocks of our own models and of MusicGen's decoder.
TARGETS: tuple[str, ...] = ("qkv", "out", "up", "down", "fc1", "fc2")
#: What the file is called in a folder that ``descant finetune`` wrote.
NAME = "adapter.safetensors"
_MOST_RANK = 1024


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What an adapter is beside."""

    rank: int = 16
    alpha: float = 16.0
    """The adapter's product is multiplied by alpha / rank."""
    targets: tuple[str, ...] = TARGETS
    """Last names of the layers that get one; a model need not have all of them."""

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= _MOST_RANK:
            raise ValueError(f"rank {self.rank} is outside 1 to {_MOST_RANK}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha must be a positive number, got {self.alpha}")
        if not self.targets or isinstance(self.targets, str):
            raise ValueError(f"targets must name layers, such as {', '.join(TARGETS[:4])}; got {self.targets!r}")


class Pair(nn.Module):
    """The two factors beside one layer: ``a`` [R, D] and ``b`` [N, R]."""

    def __init__(self, shape: tuple[int, int], rank: int) -> None:
        """shape: N and D of the layer."""
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, shape[1]))
        self.b = nn.Parameter(torch.zeros(shape[0], rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N]."""
        return F.linear(F.linear(x, self.a), self.b)

    def product(self) -> Tensor:
        """What it adds to the weight, [N, D], without alpha."""
        return self.b @ self.a


class Adapter(nn.Module):
    """One pair for each adapted layer of a model. ``base`` is the model's mark, as :func:`mark` gives it."""

    def __init__(self, config: LoraConfig, shapes: Mapping[str, tuple[int, int]], base: str) -> None:
        """shapes: dotted name of a layer -> its N and D."""
        super().__init__()
        self.config, self.base = config, base
        # a module's name may not have dots
        self.pairs = nn.ModuleDict({_key(name): Pair(shape, config.rank) for name, shape in shapes.items()})

    @staticmethod
    def of(model: nn.Module, config: LoraConfig | None = None) -> Adapter:
        """A fresh adapter for ``model``, which stays as it is until :func:`attach`."""
        config = config or LoraConfig()
        shapes = {name: _shape(layer) for name, layer in _layers(model) if name.split(".")[-1] in config.targets}
        if not shapes:
            raise ValueError(f"the model has no linear layer called {' or '.join(config.targets)}: name others")
        return Adapter(config, shapes, mark(model))

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.config.alpha / self.config.rank

    @property
    def names(self) -> list[str]:
        """Dotted names of the layers it is beside."""
        return [name.replace("/", ".") for name in self.pairs]

    def pair(self, name: str) -> Pair:
        """The pair beside the layer ``name``."""
        found = self.pairs[_key(name)]
        if not isinstance(found, Pair):
            raise TypeError(f"{name} holds a {type(found).__name__}")
        return found

    def forward(self, x: Tensor, name: str) -> Tensor:
        """What it adds to the output of layer ``name``: [..., D] -> [..., N]."""
        return self.pair(name)(x) * self.scale  # type: ignore[no-any-return]


class Adapted(nn.Module):
    """A layer with a pair running beside it; its ``weight`` and state are those of both together."""

    def __init__(self, layer: nn.Linear | QuantLinear, pair: Pair, scale: float) -> None:
        super().__init__()
        self.layer, self.pair, self.scale = layer, pair, scale
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N]."""
        beside: Tensor = self.pair(x)
        return self.layer(x) + (beside * self.scale).to(x.dtype)  # type: ignore[no-any-return]

    @property
    def weight(self) -> Tensor:
        """[N, D], the pair's product included."""
        layer = self.layer
        whole = layer.weight.float() * layer.scale[:, None] if isinstance(layer, QuantLinear) else layer.weight
        return torch.add(whole, self.pair.product().to(whole.dtype), alpha=self.scale)

    @property
    def bias(self) -> Tensor | None:
        """[N] or None."""
        return self.layer.bias

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """What the plain layer would have after merging, under its own names; the parts inside do not show."""
        destination = {} if destination is None else destination
        for name, value in (("weight", self.weight), ("bias", self.bias)):
            if value is not None:
                destination[prefix + name] = value if keep_vars else value.detach()
        return destination


def attach(model: nn.Module, adapter: Adapter, strength: float = 1.0) -> None:
    """Let ``adapter`` run beside the layers of ``model``; one that is attached already makes way.

    Works on models of full and of 8-bit weights (:func:`descant.lm.quant.quantise`). strength: 0 is the plain model, 1
    what was trained. Raises ValueError when the adapter was made for another model; ``model`` is then unchanged.
    """
    if not math.isfinite(strength):
        raise ValueError(f"strength must be a number, got {strength}; 1 is what was trained")
    _check(model, adapter)
    detach(model)
    for name in adapter.names:
        parent, last = _parent(model, name)
        setattr(parent, last, Adapted(getattr(parent, last), adapter.pair(name), adapter.scale * strength))


def detach(model: nn.Module) -> None:
    """Give ``model`` its plain layers back, the very ones it had."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Adapted):
            parent, last = _parent(model, name)
            setattr(parent, last, module.layer)


@torch.no_grad()
def merge(model: nn.Module, adapter: Adapter, strength: float = 1.0) -> None:
    """Add ``adapter`` into the weights of ``model``, which must be floats; ``strength=-1`` takes it out again."""
    if not math.isfinite(strength):
        raise ValueError(f"strength must be a number, got {strength}; 1 is what was trained")
    _check(model, adapter)
    layers = {}
    for name in adapter.names:
        parent, last = _parent(model, name)
        layers[name] = getattr(parent, last)
        if not isinstance(layers[name], nn.Linear):
            what = type(layers[name]).__name__
            raise ValueError(f"{name} is a {what}: merge into the plain model, or attach the adapter instead")
    for name, layer in layers.items():
        product = adapter.pair(name).product().to(layer.weight)
        layer.weight.add_(product, alpha=adapter.scale * strength)


def save(adapter: Adapter, path: str | Path, about: Mapping[str, str] | None = None) -> None:
    """Write ``adapter`` as one safetensors file of float16; about: what else people should know, as texts."""
    from safetensors.torch import save as to_bytes

    tensors = {name.replace("/", ".").removeprefix("pairs."): value for name, value in adapter.state_dict().items()}
    tensors = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in tensors.items()}
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} is not finite in float16: nothing was saved; train with a smaller lr")
    header = {"format": FORMAT, "version": VERSION, "base": adapter.base, "config": asdict(adapter.config)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(to_bytes(tensors, metadata={**(about or {}), "descant": json.dumps(header)}))
    part.replace(path)


def load(path: str | os.PathLike[str]) -> Adapter:
    """Read an adapter that :func:`save` wrote: a file, or a folder that holds :data:`NAME`.

    Raises ValueError for a file that is none, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path) / NAME if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no adapter {path}: 'descant finetune' makes one")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get("descant", "")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from None
    config, base = _header(header, path)
    shapes = {}
    for name, value in tensors.items():
        layer, _, factor = name.rpartition(".")
        if factor not in ("a", "b") or value.dim() != 2 or not value.is_floating_point():
            raise ValueError(f"{path}: {name} {list(value.shape)} {value.dtype} is no part of an adapter")
        if not bool(value.isfinite().all()):
            raise ValueError(f"{path}: {name} holds values that are not finite numbers")
        if layer not in shapes and f"{layer}.a" in tensors and f"{layer}.b" in tensors:
            shapes[layer] = (tensors[f"{layer}.b"].shape[0], tensors[f"{layer}.a"].shape[1])
    adapter = Adapter(config, shapes, base)
    wanted = {name.replace("/", ".").removeprefix("pairs."): name for name in adapter.state_dict()}
    if set(wanted) != set(tensors) or not wanted:
        raise ValueError(f"{path} is incomplete: each layer needs .a and .b; it holds {sorted(tensors)[:4]}")
    try:
        adapter.load_state_dict({wanted[name]: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own header (rank {config.rank}): {error}") from None
    return adapter.eval().requires_grad_(False)


def mark(model: nn.Module) -> str:
    """What tells a model from others of its shape, whatever its precision: a hash of its token embeddings."""
    embed = getattr(model, "embed", None)
    if not isinstance(embed, nn.Embedding):
        raise ValueError(f"a {type(model).__name__} has no token embedding 'embed': adapters are for language models")
    rounded = embed.weight.detach().to("cpu", torch.float16).contiguous()
    return hashlib.sha256(rounded.numpy().tobytes()).hexdigest()[:16]


def _header(text: str, path: Path) -> tuple[LoraConfig, str]:
    try:
        row = json.loads(text)
        if row["format"] != FORMAT or row["version"] != VERSION:
            raise KeyError("format")
        config = row["config"]
        targets = tuple(str(name) for name in config["targets"])
        return LoraConfig(rank=int(config["rank"]), alpha=float(config["alpha"]), targets=targets), str(row["base"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no adapter of this package ('descant finetune' makes them): {error}") from None


def _check(model: nn.Module, adapter: Adapter) -> None:
    layers = dict(_layers(model))
    for name in adapter.names:
        shape = adapter.pair(name).b.shape[0], adapter.pair(name).a.shape[1]
        if name not in layers:
            raise ValueError(f"the adapter is for a model with a layer {name}, this one has none: use its own model")
        if _shape(layers[name]) != shape:
            raise ValueError(
                f"the adapter is for another model: its {name} is {shape[0]} x {shape[1]}, this one's is "
                f"{_shape(layers[name])[0]} x {_shape(layers[name])[1]}"
            )
    if mark(model) != adapter.base:
        raise ValueError(
            f"the adapter was made for another model of the same shape ({adapter.base}, this is {mark(model)}): load "
            "that model, or train the adapter again with 'descant finetune'"
        )


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Linear layers inside the blocks, by the names they have without an adapter."""
    inside: set[str] = set()
    for name, module in model.named_modules():
        if isinstance(module, Adapted):
            inside |= {f"{name}.layer", f"{name}.pair"}
            yield name, module.layer
        elif isinstance(module, nn.Linear | QuantLinear) and name not in inside and _decodes(name):
            yield name, module


def _decodes(name: str) -> bool:
    # the decoder's blocks; those of text and stem encoders lie within a conditioner
    return name.startswith(("stack.blocks.", "blocks."))


def _shape(layer: nn.Module) -> tuple[int, int]:
    return int(layer.out_features), int(layer.in_features)  # type: ignore[arg-type]


def _parent(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    above, _, last = name.rpartition(".")
    return model.get_submodule(above), last


def _key(name: str) -> str:
    return name.replace(".", "/")
