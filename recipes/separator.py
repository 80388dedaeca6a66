"""Training a separator: ``separator_config`` has the recipes, ``stems_data`` and ``separator_data`` the songs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..gen.separation import pretrained
from ..gen.separation.network import estimate
from ..gen.separation.sms_network import SmsConfig
from .loop import cosine, learned, run
from .optimiser import optimisers
from .separator_config import NAMES, SeparatorRecipe, recipe
from .separator_data import Mixtures, fits, grouped
from .separator_losses import matched, terms
from .separator_scores import score
from .separator_teacher import Teacher
from .stems_data import StemCorpus
from .world import World

__all__ = ["NAMES", "SeparatorRecipe", "SeparatorTask", "export", "recipe", "train"]


class SeparatorTask:
    """Separator training, seen from the loop."""

    def __init__(
        self, config: SeparatorRecipe, data: StemCorpus | Mixtures, dev: StemCorpus | Mixtures,
        world: World | None = None,
    ) -> None:  # fmt: skip
        self.config, self.data, self.dev = config, data, dev
        self.world = world or World(device=config.torch_device)
        self.device = self.world.device
        self.share = self.world.share(config.batch)
        for corpus in (data, dev):
            fits(config, corpus)
        self.network = network(config)
        if config.init:
            start, _ = pretrained.load(config.init)
            if type(start) is not type(self.network) or start.config != config.network:
                raise ValueError(f"{config.init} holds another network than this recipe: give its settings")
            self.network.load_state_dict(start.state_dict())
        self.network.to(self.device)
        self.model: nn.Module = self.network
        self.teacher = (
            Teacher(config, self.network, network(config).to(self.device)) if config.unlabelled.data else None
        )
        self.extra: dict[str, nn.Module] = {} if self.teacher is None else {"teacher": self.teacher.network}
        self.optimisers = _optimisers(config, self.network)

    def lr(self, step: int) -> float:
        """Learning rate at ``step``."""
        c = self.config
        return cosine(step, 0, c.steps, c.lr, c.final_lr, c.warmup)

    def batch(self, step: int) -> Tensor:
        """Stems [B, N, C, T] of step ``step``, or pairs of mixes [B, 2, C, T]: this process's share."""
        c = self.config
        length = crop(c)
        made = self.data.draw(step, c.batch, length, c.seed, c.mixing)[self.share]
        if isinstance(self.data, StemCorpus):
            made = grouped(c, made, self.data.stems)
        if c.network.channels == 1:
            made = made.mean(2, keepdim=True)
        return made.to(self.device)

    def parts(self, target: Tensor, step: int) -> dict[str, tuple[float, Tensor]]:
        """Losses of a batch [B, N, C, T]: name -> (weight, scalar)."""
        c = self.config
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.bf16):
            made = estimate(self.network, target.sum(1))
        return terms(c, *matched(made, target, c.loss), step)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c = self.config
        parts = self.parts(self.batch(step), step)
        if self.teacher is not None:
            parts["unlabelled"] = self.teacher.loss(self.network, step, self.world)
        total = sum((weight * loss for weight, loss in parts.values()), torch.zeros((), device=self.device))
        self.network.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        trained = [p for p in self.network.parameters() if p.grad is not None]
        self.world.average_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, c.clip)
        if torch.isfinite(norm):
            for optimiser in self.optimisers.values():
                optimiser.step()
        if self.teacher is not None:
            self.teacher.follow(self.network)
        figures = {name: loss.item() for name, (_, loss) in parts.items()}
        return {"loss": total.item(), **figures, "norm": norm.item()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Utterance SDR in dB on held-out songs: see :func:`descant.recipes.separator_scores.score`."""
        return score(self.config, model, self.dev, self.device)


def network(config: SeparatorRecipe) -> Any:
    """The recipe's network with the weights that its seed gives."""
    torch.manual_seed(config.seed)
    return pretrained.kind_of(config.network).network(config.network)


def crop(config: SeparatorRecipe) -> int:
    """Samples of an item: whole frames."""
    return round(config.crop * config.network.rate / config.network.hop) * config.network.hop


def opened(config: SeparatorRecipe, folder: str | os.PathLike[str]) -> StemCorpus | Mixtures:
    """The packed music of a folder, as the recipe's loss wants it."""
    return Mixtures(folder, config.network.channels) if config.loss == "mixit" else StemCorpus(folder)


def train(config: SeparatorRecipe, data: str, dev: str, out: str, stop: int | None = None, quiet: bool = False) -> Path:
    """Train on the packed stems ``data``, validate on ``dev``; checkpoints and the exported model go to ``out``.

    One process, or several started by torchrun or ``accelerate launch``, which share each batch. Returns the folder of
    the exported separator (averaged weights, float16).
    """
    world = World.join(config.device)
    task = task_of(config)(config, opened(config, data), opened(config, dev), world)
    run(task, config, out, stop, quiet, world)
    folder = export(config, out) if world.rank == 0 else Path(out) / "export"
    world.leave()
    return folder


def task_of(config: SeparatorRecipe) -> type[SeparatorTask]:
    """The task of a recipe: most networks share one."""
    if isinstance(config.network, SmsConfig):
        from .separator_sms import SmsTask

        return SmsTask
    return SeparatorTask


def export(config: SeparatorRecipe, folder: str | os.PathLike[str]) -> Path:
    """Write the averaged weights of ``folder``'s checkpoint as a separator that ``--model`` takes."""
    made = network(config)
    step = learned(made, folder)
    target = Path(folder) / "export"
    pretrained.save(made, target, about={"trained_steps": step})
    return target


def _optimisers(config: SeparatorRecipe, model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    betas = (config.beta1, config.beta2)
    if any(value.dim() == 2 and _inner(name) for name, value in model.named_parameters()):
        return optimisers("network", model, _inner, betas, config.weight_decay, config.matrix_scale)
    # kernels of convolutions are no matrices: AdamW moves everything
    values = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [value for value in values if value.dim() > 1]},
        {"params": [value for value in values if value.dim() <= 1], "weight_decay": 0.0},
    ]
    return {"network": torch.optim.AdamW(groups, 1.0, betas, weight_decay=config.weight_decay)}


def _inner(name: str) -> bool:
    # the blocks' matrices; the projections of single bands are tables of bins
    return name.startswith("blocks.") and name.endswith((".up.weight", ".down.weight", ".mix.weight"))
