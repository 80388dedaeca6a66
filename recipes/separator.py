"""Training a separator on packed stems: ``separator_config`` has the recipes, ``stems_data`` the songs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..eval.separation import utterance_sdr
from ..gen.separation import losses, pretrained
from ..gen.separation.bandsplit import BandSplit
from .loop import cosine, learned, run
from .optimiser import optimisers
from .separator_config import NAMES, SeparatorRecipe, recipe
from .stems_data import StemCorpus
from .world import World

__all__ = ["NAMES", "SeparatorRecipe", "SeparatorTask", "export", "recipe", "train"]


class SeparatorTask:
    """Separator training, seen from the loop."""

    def __init__(self, config: SeparatorRecipe, data: StemCorpus, dev: StemCorpus, world: World | None = None) -> None:
        self.config, self.data, self.dev = config, data, dev
        self.world = world or World(device=config.torch_device)
        self.device = self.world.device
        self.share = self.world.share(config.batch)
        for corpus in (data, dev):
            if corpus.rate != config.network.rate or corpus.stems != config.network.stems:
                raise ValueError(
                    f"the packed stems are {', '.join(corpus.stems)} at {corpus.rate} Hz, the network makes "
                    f"{', '.join(config.network.stems)} at {config.network.rate} Hz: pack them again"
                )
        torch.manual_seed(config.seed)
        self.network = BandSplit(config.network)
        if config.init:
            start, _ = pretrained.load(config.init)
            if not isinstance(start, BandSplit) or start.config != config.network:
                raise ValueError(f"{config.init} holds another network than this recipe: give its settings")
            self.network.load_state_dict(start.state_dict())
        self.network.to(self.device)
        self.model: nn.Module = self.network
        self.extra: dict[str, nn.Module] = {}
        betas = (config.beta1, config.beta2)
        self.optimisers = optimisers("network", self.network, _inner, betas, config.weight_decay, config.matrix_scale)

    def lr(self, step: int) -> float:
        """Learning rate at ``step``."""
        c = self.config
        return cosine(step, 0, c.steps, c.lr, c.final_lr, c.warmup)

    def batch(self, step: int) -> Tensor:
        """Stems [B, N, C, T] of step ``step``: this process's share."""
        c = self.config
        length = round(c.crop * c.network.rate / c.network.hop) * c.network.hop
        stems = self.data.draw(step, c.batch, length, c.seed, c.mixing)[self.share]
        if c.network.channels == 1:
            stems = stems.mean(2, keepdim=True)
        return stems.to(self.device)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c = self.config
        stems = self.batch(step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.bf16):
            made = self.network(stems.sum(1))
        parts: dict[str, tuple[float, Tensor]] = {}
        if c.level_weight:
            parts["level"] = c.level_weight, losses.level(made, stems)
        if c.waveform_weight:
            parts["waveform"] = c.waveform_weight, losses.waveform(made, stems)
        if c.spectral_weight and step % c.spectral_every == 0:
            # each is met in turn; all of them in every step would cost more than the network
            windows = [w for w in losses.WINDOWS if w <= stems.shape[-1]]
            window = windows[step // c.spectral_every % len(windows)]
            parts["spectral"] = c.spectral_weight, losses.spectral(made, stems, [window])
        total = sum((weight * loss for weight, loss in parts.values()), torch.zeros((), device=self.device))
        self.network.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        trained = [p for p in self.network.parameters() if p.grad is not None]
        self.world.average_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, c.clip)
        if torch.isfinite(norm):
            for optimiser in self.optimisers.values():
                optimiser.step()
        figures = {name: loss.item() for name, (_, loss) in parts.items()}
        return {"loss": total.item(), **figures, "norm": norm.item()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Utterance SDR in dB of each stem, a mean over held-out songs in which it plays, and their mean."""
        rows: list[Tensor] = []
        for song in range(min(len(self.dev), self.config.dev_items)):
            stems = self.dev.song(song).to(self.device)
            if self.config.network.channels == 1:
                stems = stems.mean(1, keepdim=True)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
                made = model(stems.sum(0)[None])[0]
            score = utterance_sdr(stems, made)
            silent = stems.square().sum((1, 2)) == 0
            rows.append(torch.where(silent.to(score.device), torch.nan, score))
        scores = torch.stack(rows).nanmean(0).tolist()
        figures = {f"sdr_{name}": score for name, score in zip(self.dev.stems, scores, strict=True)}
        known = [score for score in scores if not math.isnan(score)]
        return {"sdr": sum(known) / max(1, len(known)), **figures}


def train(config: SeparatorRecipe, data: str, dev: str, out: str, stop: int | None = None, quiet: bool = False) -> Path:
    """Train on the packed stems ``data``, validate on ``dev``; checkpoints and the exported model go to ``out``.

    One process, or several started by torchrun or ``accelerate launch``, which share each batch. Returns the folder of
    the exported separator (averaged weights, float16).
    """
    world = World.join(config.device)
    task = SeparatorTask(config, StemCorpus(data), StemCorpus(dev), world)
    run(task, config, out, stop, quiet, world)
    folder = export(config, out) if world.rank == 0 else Path(out) / "export"
    world.leave()
    return folder


def export(config: SeparatorRecipe, folder: str | os.PathLike[str]) -> Path:
    """Write the averaged weights of ``folder``'s checkpoint as a separator that ``--model`` takes."""
    network = BandSplit(config.network)
    step = learned(network, folder)
    target = Path(folder) / "export"
    pretrained.save(network, target, about={"trained_steps": step})
    return target


def _inner(name: str) -> bool:
    # the blocks' matrices; the projections of single bands are tables of bins
    return name.startswith("blocks.") and name.endswith((".up.weight", ".down.weight", ".mix.weight"))
