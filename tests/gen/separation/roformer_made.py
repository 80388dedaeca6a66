"""RoFormers with made-up weights: ours, and the state dicts of other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from descant.gen.separation.roformer import Roformer, RoformerConfig

#: Outputs of the original programs for ``filled`` weights and the ``mixture``; each case says which program made it.
GOLDEN = Path(__file__).with_name("roformer_golden.json")


def tiny(**changes: Any) -> RoformerConfig:
    sizes: dict[str, Any] = {
        "stems": ("bass", "drums"), "rate": 16000, "window": 512, "taper": 512, "hop": 128,
        "bands": (2,) * 8 + (16,) * 7 + (64, 65), "width": 8, "blocks": 2, "heads": 2, "head": 4, "hidden": 12,
        "mask_hidden": 12, "seconds": 0.6,
    }  # fmt: skip
    return RoformerConfig(**{**sizes, **changes})


def network(seed: int = 0, **changes: Any) -> Roformer:
    torch.manual_seed(seed)
    made = Roformer(tiny(**changes))
    with torch.no_grad():
        for name, value in made.named_parameters():
            if value.dim() > 1:
                value.mul_(2)  # masks far from equal
            elif "gain" not in name:
                value.add_(torch.randn(value.shape) * 0.2)
    return made.eval()


def filled(shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Weights for tensors of these shapes, of sines: the same on every machine and with every torch."""
    made = {}
    for number, (name, shape) in enumerate(sorted(shapes.items())):
        count = math.prod(shape)
        wave = torch.sin(torch.arange(count, dtype=torch.float64) * (1.7 + 0.37 * (number % 23)) + number)
        if name.endswith("freqs"):
            value = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)
        elif name.endswith(("gamma", "temperature")):
            value = 1 + 0.3 * wave
        else:
            value = wave * (1.5 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.2)
        made[name] = value.float().reshape(tuple(shape))
    return made


def mixture(channels: int, length: int) -> Tensor:
    """Sound [1, C, T], of sines."""
    time = torch.arange(length, dtype=torch.float64)
    rows = [0.3 * torch.sin(time**1.3 * 0.011 + c) + 0.2 * torch.sin(time * (0.7 + c)) for c in range(channels)]
    return torch.stack(rows).float()[None]


def settings(model: Mapping[str, Any], names: Sequence[str], target: str | None = None) -> dict[str, Any]:
    """What the training programs write beside a checkpoint."""
    return {
        "audio": {"chunk_size": 8192, "sample_rate": 16000},
        "model": {"sample_rate": 16000, **model} if "num_bands" in model else dict(model),
        "training": {"instruments": list(names), "target_instrument": target},
        "inference": {"num_overlap": 2},
    }


def golden() -> dict[str, Any]:
    """Case -> program, model (its settings), shapes (of its tensors), output (of every third sample)."""
    found: dict[str, Any] = json.loads(GOLDEN.read_text())
    return found
