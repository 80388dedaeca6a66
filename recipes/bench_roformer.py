"""What a RoFormer of the community's size costs here and in the package it comes from, and how far the two differ.

Weights are random: cost and agreement do not depend on them. Without the package only ours is measured.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..gen.separation.roformer import Roformer, RoformerConfig
from ..gen.separation.roformer_bands import DEFAULT
from ..gen.separation.roformer_checkpoint import build

#: The size of many published checkpoints, in the package's words.
SIZE: Mapping[str, Any] = {
    "dim": 384, "depth": 8, "dim_head": 64, "heads": 8, "stereo": True, "time_transformer_depth": 1,
    "freq_transformer_depth": 1, "stft_hop_length": 441, "num_residual_streams": 1,
}  # fmt: skip


def report(seconds: float = 3.0, size: Mapping[str, Any] = SIZE) -> dict[str, Any]:
    """CPU seconds of one thread per second of stereo sound, float32 and bfloat16; differences on the same sound."""
    theirs = package(size)
    torch.manual_seed(0)
    ours = Roformer(plain(size)).eval() if theirs is None else build(theirs.state_dict(), told(size))
    wav = torch.randn(1, 2, round(seconds * 44100), generator=torch.Generator().manual_seed(0)) * 0.1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = _measured(ours, theirs, wav)
    finally:
        torch.set_num_threads(threads)
    weights = sum(value.numel() for value in ours.parameters())
    return {
        "seconds": seconds,
        "dim": size["dim"],
        "depth": size["depth"],
        "millions": round(weights / 1e6, 1),
        **found,
    }


def package(size: Mapping[str, Any]) -> nn.Module | None:
    """The package's network with random weights, or None without the package."""
    if importlib.util.find_spec("bs_roformer") is None:
        return None
    import bs_roformer

    torch.manual_seed(0)
    network: nn.Module = bs_roformer.BSRoformer(**size).eval()
    return network


def told(size: Mapping[str, Any]) -> dict[str, Any]:
    """The settings a checkpoint of such a network would come with."""
    training = {"instruments": ["vocals", "other"], "target_instrument": "vocals"}
    return {"model": dict(size), "training": training}


def plain(size: Mapping[str, Any]) -> RoformerConfig:
    """Our settings of the same size."""
    return RoformerConfig(
        stems=("vocals",), rest="other", bands=DEFAULT, hop=size["stft_hop_length"], width=size["dim"],
        blocks=size["depth"], heads=size["heads"], head=size["dim_head"], hidden=4 * size["dim"],
        mask_hidden=4 * size["dim"], values="plain",
    )  # fmt: skip


def section(found: Mapping[str, Any]) -> list[str]:
    """The report as lines of Markdown."""
    lines = [
        "", "## RoFormers", "",
        f"BS-RoFormer, {found['dim']} wide, {found['depth']} blocks, one stem, {found['millions']} M random weights; "
        f"{found['seconds']:g} s of stereo sound at 44.1 kHz. CPU seconds of one thread per second of sound:", "",
        "| program | float32 | bfloat16 |", "| :-- | --: | --: |",
        f"| descant | {found['ours']['fp32']:.2f} | {found['ours']['bf16']:.2f} |",
    ]  # fmt: skip
    if found["package"] is not None:
        theirs = found["package"]
        lines += [
            f"| BS-RoFormer {theirs['version']} | {theirs['fp32']:.2f} | {theirs['bf16']:.2f} |", "",
            f"The largest difference in float32 is {found['difference']:.1e} of the output's peak. Ours in bfloat16 "
            f"is {found['snr']:.1f} dB from ours in float32.",
        ]  # fmt: skip
    return lines


def _measured(ours: nn.Module, theirs: nn.Module | None, wav: Tensor) -> dict[str, Any]:
    cost, mine = _run(ours, wav, False)
    rough_cost, rough = _run(ours, wav, True)
    snr = 10 * math.log10(float(mine.square().sum() / (rough - mine).square().sum()))
    found: dict[str, Any] = {"ours": {"fp32": cost, "bf16": rough_cost}, "snr": snr, "package": None}
    if theirs is not None:
        cost, wanted = _run(theirs, wav, False)
        rough_cost, _ = _run(theirs, wav, True)
        version = importlib.metadata.version("BS-RoFormer")
        found["package"] = {"version": version, "fp32": cost, "bf16": rough_cost}
        # the package gives whole hops only
        gap = (mine[:, 0, :, : wanted.shape[-1]] - wanted).abs().max()
        found["difference"] = float(gap / wanted.abs().max())
    return found


def _run(network: Callable[[Tensor], Tensor], wav: Tensor, rough: bool) -> tuple[float, Tensor]:
    """CPU seconds per second of sound, and what came out."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=rough):
        network(wav[..., :11025])  # what is made once is not counted
        start = time.process_time()
        made = network(wav)
        return (time.process_time() - start) / (wav.shape[-1] / 44100), made.float()
