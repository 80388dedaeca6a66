"""Separators on disk: a folder with ``config.json`` and ``model.safetensors``, nothing that runs when it is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from .contract import Separator

#: The layout of the folder, in its config.json.
FORMAT = "descant-separator/1"


class Kind(NamedTuple):
    """A kind of network: its class, its settings (a frozen dataclass, the constructor's only argument), its runner."""

    network: type[nn.Module]
    config: type[Any]
    separator: Callable[[Any], Separator]


def _bandsplit() -> Kind:
    from .bandsplit import BandSplit, BandSplitConfig
    from .bandsplit_separator import BandSplitSeparator

    return Kind(BandSplit, BandSplitConfig, BandSplitSeparator)


def _convtasnet() -> Kind:
    from .convtasnet import ConvTasNet, ConvTasNetConfig
    from .network import NetworkSeparator

    return Kind(ConvTasNet, ConvTasNetConfig, NetworkSeparator)


def _sms() -> Kind:
    from .network import NetworkSeparator
    from .sms_network import SmsConfig, SmsNetwork

    return Kind(SmsNetwork, SmsConfig, NetworkSeparator)


def _unet() -> Kind:
    from .network import NetworkSeparator
    from .unet import MaskUNet, MaskUNetConfig

    return Kind(MaskUNet, MaskUNetConfig, NetworkSeparator)


def _roformer() -> Kind:
    from .roformer import Roformer, RoformerConfig
    from .roformer_separator import RoformerSeparator

    return Kind(Roformer, RoformerConfig, RoformerSeparator)


#: What ``network`` in a config.json may say -> its kind. A new network is one more row; it keeps its settings in
#: ``.config``.
NETWORKS: dict[str, Callable[[], Kind]] = {
    "bandsplit": _bandsplit, "convtasnet": _convtasnet, "sms": _sms, "unet": _unet, "roformer": _roformer,
}  # fmt: skip


def kind_of(config: Any) -> Kind:
    """The kind of network with these settings. Raises ValueError when :data:`NETWORKS` has none."""
    for make in NETWORKS.values():
        if type(config) is make().config:
            return make()
    raise ValueError(f"no network has settings of the type {type(config).__name__}: {', '.join(NETWORKS)}")


def save(
    model: nn.Module, folder: str | os.PathLike[str], half: bool = True, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a network; float16 when ``half``. about: further facts for its config.json. Returns the folder.

    Raises ValueError for a network that :data:`NETWORKS` does not know.
    """
    from safetensors.torch import save_file

    name = next((name for name, kind in NETWORKS.items() if type(model) is kind().network), None)
    if name is None:
        raise ValueError(f"only {', '.join(NETWORKS)} networks are saved in this format, not {type(model).__name__}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        key: (value.half() if half and value.is_floating_point() else value).contiguous()
        for key, value in ((key, value.detach().cpu()) for key, value in model.state_dict().items())
    }
    save_file(weights, str(folder / "model.safetensors.part"), {"format": FORMAT})
    os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
    settings: Any = model.config
    config = {"format": FORMAT, "network": name, "config": asdict(settings), "about": dict(about or {})}
    part = folder / "config.json.part"
    part.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / "config.json")
    return folder


def load(folder: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Read a network in float32, ready to separate, and the facts saved with it.

    Raises FileNotFoundError for a folder without a separator and ValueError for one that cannot be read.
    """
    model, _, about = _read(Path(folder))
    return model, about


def separator(folder: str | os.PathLike[str]) -> Separator:
    """The network in a folder as a separator, whatever its kind. Raises like :func:`load`."""
    model, kind, _ = _read(Path(folder))
    return kind.separator(model)


def _read(folder: Path) -> tuple[nn.Module, Kind, dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"no separator in {folder}: {name} is missing")
    try:
        header = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        if header.get("network") not in NETWORKS:
            raise ValueError(f"its network {header.get('network')!r} is none of {', '.join(NETWORKS)}")
        kind = NETWORKS[header["network"]]()
        unknown = sorted(set(header["config"]) - {field.name for field in fields(kind.config)})
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}")
        config = kind.config(**{key: _frozen(value) for key, value in header["config"].items()})
        model = kind.network(config)
        weights = load_file(str(folder / "model.safetensors"))
        model.load_state_dict({key: v.float() if v.is_floating_point() else v for key, v in weights.items()})
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no separator of this version: {str(error).splitlines()[0]}") from None
    if not all(torch.isfinite(value).all() for value in model.parameters()):
        raise ValueError(f"{folder}: the weights hold values that are not finite; fetch or train them again")
    return model.eval(), kind, dict(header.get("about", {}))


def _frozen(value: Any) -> Any:
    """Lists as the tuples they were."""
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value
