"""Training the token language model on shards of codes with their conditions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..lm import model as models
from ..lm.condition import collate, drop
from ..lm.model import LMConfig, TokenLM
from ..lm.text import train_tokenizer
from .loop import LoopConfig, cosine, run, stream
from .optimiser import optimisers
from .tokens import Crop, TokenSet


@dataclass(frozen=True, kw_only=True)
class LMRecipe(LoopConfig):
    """A language-model run."""

    lm: LMConfig = field(default_factory=models.nano)
    frames: int = 500
    """Frames per crop: 10 s at 50 frames per second."""
    drop_all: float = 0.1
    """Share of samples that lose every condition: the unconditional half of guidance."""
    drop_text: float = 0.3
    drop_genre: float = 0.2
    drop_instruments: float = 0.2
    drop_tempo: float = 0.2
    drop_beat: float = 0.1
    drop_key: float = 0.3
    drop_chords: float = 0.25

    @property
    def dropout(self) -> dict[str, float]:
        """Probability per condition."""
        return {"all": self.drop_all, "text": self.drop_text, "genre": self.drop_genre, "key": self.drop_key,
                "instruments": self.drop_instruments, "tempo": self.drop_tempo, "beat": self.drop_beat,
                "chords": self.drop_chords}  # fmt: skip


def recipe(name: str) -> LMRecipe:
    """The named runs: ``embedded`` (needs a GPU or days), ``small`` (two CPU cores), ``nano`` (seconds, for trials)."""
    common: dict[str, Any] = {"beta2": 0.95, "weight_decay": 0.1, "final_lr": 5e-5}
    if name == "embedded":
        return LMRecipe(lm=models.embedded(), steps=12000, batch=64, lr=1.5e-3, warmup=300, **common)
    if name == "small":
        # for its few million positions, a model of 5 M parameters learns more than one of 10 M (Hoffmann et al., 2022)
        lm = LMConfig(width=192, layers=6, heads=3)
        return LMRecipe(lm=lm, steps=2150, batch=8, lr=2e-3, warmup=100, validate_every=200, **common)
    if name == "nano":
        lm = LMConfig(width=32, layers=2, heads=2, window=64)
        return LMRecipe(lm=lm, steps=30, batch=4, frames=50, warmup=5, validate_every=15, log_every=5, bf16=False)
    raise ValueError(f"unknown language-model recipe {name!r}: embedded, small or nano")


class LMTask:
    """One step of language-model training."""

    def __init__(self, config: LMRecipe, data: TokenSet, dev: TokenSet) -> None:
        self.config, self.data = config, data
        self.device = config.torch_device
        torch.manual_seed(config.seed)
        self.lm = TokenLM(config.lm, tokenizer(data, config.lm))
        self.lm.to(self.device)
        self.model: nn.Module = self.lm
        self.extra: dict[str, nn.Module] = {}
        betas = (config.beta1, config.beta2)
        self.optimisers = optimisers("lm", self.lm, _inner, betas, config.weight_decay)
        self.held_out = [dev.draw(config.batch, config.frames, stream(1, n)) for n in range(6)]

    def lr(self, step: int) -> float:
        """Cosine over the whole run."""
        c = self.config
        return cosine(step, 0, c.steps, c.lr, c.final_lr, c.warmup)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c = self.config
        crops = self.data.draw(c.batch, c.frames, stream(c.seed, step))
        # every other window has slid away from the beginning, as windows do in long generation
        skip = c.lm.books if step % 2 else 0
        loss, per_book = self._loss(self.lm, crops, stream(c.seed, step, 1), skip=skip)
        self.lm.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.lm.parameters(), c.clip)
        if torch.isfinite(norm):
            for optimiser in self.optimisers.values():
                optimiser.step()
        return {"loss": loss.item(), **{f"ce_{k}": v for k, v in enumerate(per_book.tolist())}, "norm": float(norm)}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Cross-entropy in nats per book on held-out crops, with all conditions and with none."""
        if not isinstance(model, TokenLM):
            raise TypeError("an LMTask validates a TokenLM")
        told = torch.stack([self._loss(model, crops, None)[1] for crops in self.held_out]).mean(0)
        blind = torch.stack([self._loss(model, crops, None, blind=True)[1] for crops in self.held_out]).mean(0)
        rows = {f"ce_{k}": float(value) for k, value in enumerate(told)}
        return {**rows, **{f"blind_{k}": float(value) for k, value in enumerate(blind)}}

    def _loss(
        self, model: TokenLM, crops: list[Crop], rng: torch.Generator | None, blind: bool = False, skip: int = 0
    ) -> tuple[Tensor, Tensor]:
        codes = torch.stack([crop.codes for crop in crops]).to(self.device)
        batch = collate([crop.condition for crop in crops], codes.shape[-1], frame_rate=self.data.frame_rate)
        if rng is not None:
            batch = drop(batch, self.config.dropout, rng)
        elif blind:
            batch = drop(batch, {"all": 1.0}, stream(0, 0))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            loss, per_book = model.loss(codes, batch.to(self.device), skip)
        return loss, per_book.detach()


def _inner(name: str) -> bool:
    return "blocks." in name


def tokenizer(data: TokenSet, config: LMConfig) -> bytes:
    """A SentencePiece model of the set's captions, as bytes; deterministic."""
    captions = sorted({caption for piece in data.pieces for caption in piece.captions})
    return train_tokenizer(captions, config.text_vocab)


def train(config: LMRecipe, data: str, dev: str, out: str, stop: int | None = None, quiet: bool = False) -> Path:
    """Train on the token shards ``data``, validate on ``dev``; returns the folder of the exported averaged weights."""
    task = LMTask(config, TokenSet(data), TokenSet(dev))
    run(task, config, out, stop, quiet)
    return export(task, out)


def export(task: LMTask, folder: str | os.PathLike[str]) -> Path:
    """Write the averaged weights of ``folder``'s checkpoint as a model that :func:`descant.lm.load` reads."""
    state = torch.load(Path(folder) / "checkpoint.pt", map_location="cpu", weights_only=True)
    task.lm.load_state_dict(state["model"])
    with torch.no_grad():
        for name, value in task.lm.named_parameters():
            value.copy_(state["ema"][name])
    task.lm.save(Path(folder) / "export", half=True)
    return Path(folder) / "export"
