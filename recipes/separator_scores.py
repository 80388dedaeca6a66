"""How a separator in training does on held-out songs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..eval.separation import utterance_sdr
from ..gen.separation.network import estimate
from .separator_config import SeparatorRecipe
from .separator_data import Mixtures, grouped
from .separator_losses import matched
from .stems_data import Mixing, StemCorpus

#: Held-out mixtures of mixtures are drawn as if for this step.
_STEP = 0


def score(
    config: SeparatorRecipe, model: nn.Module, dev: StemCorpus | Mixtures, device: torch.device
) -> dict[str, float]:
    """Utterance SDR in dB of ``model``, a mean over held-out songs in which a stem plays.

    ``sdr``, and ``sdr_<stem>`` for stems with names. Without names the best order counts; without stems it is that of
    two songs that were mixed, put together again from the outputs.
    """
    if isinstance(dev, Mixtures):
        return {"sdr": _mixtures(config, model, dev, device)}
    rows: list[Tensor] = []
    for stems in held_out(config, dev, device):
        made = _made(config, model, stems.sum(0)[None])
        found, _ = matched(made, stems[None], config.loss)
        rows.append(_scores(stems, found[0]))
    scores = torch.stack(rows).nanmean(0).tolist()
    named = config.loss == "named"
    figures = {f"sdr_{name}": value for name, value in zip(config.network.stems, scores, strict=True)} if named else {}
    known = [value for value in scores if not math.isnan(value)]
    return {"sdr": sum(known) / max(1, len(known)), **figures}


def held_out(config: SeparatorRecipe, dev: StemCorpus | Mixtures, device: torch.device) -> Iterator[Tensor]:
    """Stems [N, C, T] of the held-out songs, as the network names them."""
    if isinstance(dev, Mixtures):
        raise ValueError("held-out songs without stems cannot be scored stem by stem: pack stems for --dev")
    for song in range(min(len(dev), config.dev_items)):
        stems = grouped(config, dev.song(song), dev.stems).to(device)
        yield stems.mean(1, keepdim=True) if config.network.channels == 1 else stems


def _mixtures(config: SeparatorRecipe, model: nn.Module, dev: Mixtures, device: torch.device) -> float:
    still = Mixing(gain_db=0.0, speed=0.0)
    count = min(len(dev), config.dev_items)
    length = min(round(config.crop * dev.rate), int(min(dev.corpus.lengths[song] for song in dev.songs)))
    pairs = dev.draw(_STEP, count, length, config.seed, still).to(device)
    rows = []
    for pair in pairs:
        found, _ = matched(_made(config, model, pair.sum(0)[None]), pair[None], "mixit")
        rows.append(_scores(pair, found[0]))
    return float(torch.stack(rows).nanmean())


def _made(config: SeparatorRecipe, model: nn.Module, mix: Tensor) -> Tensor:
    with torch.autocast(mix.device.type, torch.bfloat16, enabled=config.bf16):
        return estimate(model, mix)


def _scores(stems: Tensor, made: Tensor) -> Tensor:
    """Utterance SDR of stems [N, C, T], NaN where one is silent."""
    found = utterance_sdr(stems, made)
    silent = stems.square().sum((1, 2)) == 0
    return torch.where(silent.to(found.device), torch.nan, found)
