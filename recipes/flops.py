"""What a training step costs in arithmetic, and how much of a machine's arithmetic that is.

Model FLOPs utilisation after Chowdhery et al., "PaLM", 2022 (arXiv:2204.02311), appendix B: the products that the model
itself needs, forward and backward, over what the device could do at best in the time. Recomputed activations, the
optimiser and the conditioner do not count.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from ..lm.model import TokenLM

#: Dense bfloat16 TFLOP/s as the makers' data sheets have them, by a part of the device's name.
PEAKS: Mapping[str, float] = {
    "H200": 989.0, "H100 PCIe": 756.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}  # fmt: skip


def crop_flops(lm: TokenLM, frames: int) -> float:
    """FLOPs of one crop of ``frames`` frames, forward and backward.

    Six for every weight of a product and position (two forward, four backward); attention as causal: two products of
    S x S / 2 positions and the width per layer, three times.
    """
    inputs, width = lm.pattern.inputs(frames), lm.config.width
    steps = lm.config.prefix + inputs
    inner = sum(value.numel() for value in lm.stack.blocks.parameters() if value.dim() == 2)
    attention = lm.config.layers * 6 * steps * steps * width
    return 6.0 * (inner * steps + lm.heads.weight.numel() * inputs) + attention


def peak(device: torch.device, bf16: bool) -> float:
    """FLOP/s at best: a known GPU's data sheet, or a quick measurement by a matrix product."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = [value for part, value in PEAKS.items() if part in name]
        if known and bf16:
            return known[0] * 1e12
    size = 4096 if device.type == "cuda" else 768
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    best = float("inf")
    for _ in range(4):
        _wait(device)
        begin = time.perf_counter()
        a @ a
        _wait(device)
        best = min(best, time.perf_counter() - begin)
    return 2.0 * size**3 / best


class Meter:
    """Tokens a second and utilisation between two looks; for all processes together."""

    def __init__(self, crop: float, tokens: int, device: torch.device, bf16: bool, size: int) -> None:
        """crop: FLOPs of a crop; tokens: how many it has; size: processes, each with a device of its own."""
        self.crop, self.tokens, self.device, self.bf16, self.size = crop, tokens, device, bf16, size
        self._peak = 0.0
        self._crops = 0
        self._since: float | None = None

    def step(self, crops: int) -> None:
        """A step of ``crops`` crops, of all processes, is done."""
        if self._since is None:
            # the first step waits for much that later ones do not
            self._since, self._crops = time.perf_counter(), 0
            return
        self._crops += crops

    def look(self) -> dict[str, float]:
        """``tokens/s`` and ``mfu`` since the last look; nothing when there is nothing to say yet."""
        if self._since is None or not self._crops:
            return {}
        if not self._peak:
            self._peak = peak(self.device, self.bf16) * self.size
        _wait(self.device)
        now = time.perf_counter()
        rate = self._crops / max(now - self._since, 1e-9)
        self._since, self._crops = now, 0
        return {"tokens/s": rate * self.tokens, "mfu": rate * self.crop / self._peak}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
