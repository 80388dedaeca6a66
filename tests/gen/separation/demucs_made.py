"""Tiny Demucs networks with random weights, and their files as demucs writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml
from demucs.apply import BagOfModels
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from descant.gen.separation.demucs import DemucsSeparator, Member

STEMS = ["drums", "bass", "other", "vocals"]


def transformer(seed: int = 0, **changes: Any) -> Any:
    """HTDemucs: hears 0.6 s at once."""
    sizes: dict[str, Any] = {
        "channels": 8, "nfft": 1024, "depth": 3, "t_layers": 2, "t_heads": 2, "t_hidden_scale": 1.0,
        "samplerate": 16000, "segment": Fraction(3, 5), "norm_groups": 2,
    }  # fmt: skip
    torch.manual_seed(seed)
    return HTDemucs(STEMS, **{**sizes, **changes}).eval()


def hybrid(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return HDemucs(STEMS, channels=8, nfft=1024, samplerate=16000, segment=0.6).eval()


def plain(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return Demucs(STEMS, channels=8, depth=3, lstm_layers=1, samplerate=16000, segment=0.6).eval()


NETWORKS: dict[str, Callable[[], Any]] = {"HTDemucs": transformer, "HDemucs": hybrid, "Demucs": plain}


def of(*networks: Any, **options: Any) -> DemucsSeparator:
    """A separator of networks that count alike."""
    return DemucsSeparator([Member(network, (1.0,) * len(STEMS)) for network in networks], **options)


def bag(specialists: bool = False, count: int = 4) -> tuple[DemucsSeparator, BagOfModels]:
    """Networks, each for one stem or with weights of its own, as we and as demucs hold them."""
    networks = [transformer(seed) for seed in range(count)]
    weights = [[1.0 * (a == b) if specialists else 0.5 + a + 2 * b for b in range(4)] for a in range(count)]
    ours = DemucsSeparator([Member(n, tuple(row)) for n, row in zip(networks, weights, strict=True)])
    return ours, BagOfModels(networks, weights)


def write_safetensors(network: Any, path: Path, **changes: str) -> Path:
    def coded(value: Any) -> Any:
        if isinstance(value, Fraction):
            return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
        return value

    args, kwargs = network._init_args_kwargs
    about = {
        "klass": f"{type(network).__module__}.{type(network).__name__}",
        "args": json.dumps(list(args)),
        "kwargs": json.dumps({key: coded(value) for key, value in kwargs.items()}),
    }
    state = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    save_file(state, str(path), {**about, **changes})
    return path


def write_th(network: Any, path: Path, **changes: Any) -> Path:
    args, kwargs = network._init_args_kwargs
    state = {key: value.half() for key, value in network.state_dict().items()}
    package = {"klass": type(network), "args": args, "kwargs": kwargs, "state": state, "training_args": {"seed": 42}}
    torch.save({**package, **changes}, path)
    return path


def write_bag(folder: Path, networks: list[Any], th: bool = False, **table: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"sig{number}" for number in range(len(networks))]
    for name, network in zip(names, networks, strict=True):
        if th:
            write_th(network, folder / f"{name}-0a1b2c3d.th")
        else:
            write_safetensors(network, folder / f"{name}.safetensors")
    (folder / "mine.yaml").write_text(yaml.safe_dump({"models": names, **table}))
    return folder
