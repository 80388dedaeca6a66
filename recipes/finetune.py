"""Fine-tuning: a finished model learns the style of a folder of music, as a low-rank adapter beside its weights.

The base model stays as it is; :mod:`descant.lm.lora` has the adapter. A part of the files is kept from training, and
what is exported are the averaged weights that did best on them, so that more steps than the music is worth do no harm.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..lm import lora
from ..lm.condition import Condition, collate, drop
from ..lm.lora import Adapter, LoraConfig
from ..lm.model import TokenLM
from ..lm.musicgen import MusicGenLM
from . import songs as folders
from .loop import LoopConfig, averaged, cosine, run, stream
from .songs import Song, Takes

if TYPE_CHECKING:
    from ..gen.load import Studio
    from ..gen.musicgen import MusicGenStudio

CARD = "CARD.md"
Crops = Sequence[tuple[Tensor, Condition]]


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LoopConfig):
    """A fine-tuning run."""

    steps: int = 200
    batch: int = 4
    lr: float = 2e-3
    final_lr: float = 1e-4
    warmup: int = 10
    beta2: float = 0.95
    ema: float = 0.98
    validate_every: int = 25
    save_seconds: float = 60.0
    log_every: int = 5
    rank: int = 16
    alpha: float = 16.0
    frames: int = 500
    """Frames per crop: 10 s at 50 frames per second."""
    share: float = 0.15
    """Share of the files that is kept from training."""
    measured: int = 16
    """At most so many crops of the kept files are measured."""
    drop_all: float = 0.1
    """Share of crops that lose every condition: the unconditional half of guidance."""
    drop_text: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 8 or self.measured < 1 or not 0 < self.share < 1:
            raise ValueError(
                f"frames {self.frames} must be at least 8, measured {self.measured} at least 1, share {self.share} "
                "between 0 and 1"
            )
        LoraConfig(rank=self.rank, alpha=self.alpha)


class Learner(Protocol):
    """What a language model is to the task."""

    def loss(self, crops: Crops, rng: torch.Generator | None, skip: bool) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy over the books and that of each, [K], nats; ``rng`` drops conditions."""


class _Own:
    """A :class:`TokenLM`."""

    def __init__(self, lm: TokenLM, config: FinetuneConfig) -> None:
        self.lm, self.config = lm, config

    def loss(self, crops: Crops, rng: torch.Generator | None, skip: bool) -> tuple[Tensor, Tensor]:
        """See :class:`Learner`."""
        device = self.lm.embed.weight.device
        codes = torch.stack([codes for codes, _ in crops]).to(device)
        rate = self.lm.config.frame_rate
        batch = collate([condition for _, condition in crops], codes.shape[-1], frame_rate=rate)
        # where a recording's beats lie is not known, whatever its tempo
        gone = {"beat": 1.0, **({"all": self.config.drop_all, "text": self.config.drop_text} if rng else {})}
        batch = drop(batch, gone, rng or stream(0, 0))
        return self.lm.loss(codes, batch.to(device), self.lm.config.books if skip and self.lm.pattern.endless else 0)


class _MusicGen:
    """A :class:`MusicGenLM`: the sentence is all it is told."""

    def __init__(self, lm: MusicGenLM, config: FinetuneConfig) -> None:
        self.lm, self.config = lm, config

    def loss(self, crops: Crops, rng: torch.Generator | None, skip: bool) -> tuple[Tensor, Tensor]:
        """See :class:`Learner`; ``skip`` is not for a model whose windows all begin at a beginning."""
        lm, share = self.lm, 1 - (1 - self.config.drop_all) * (1 - self.config.drop_text)
        silent = torch.rand(len(crops), generator=rng) < share if rng is not None else torch.zeros(len(crops)) > 0
        texts = [None if drop else condition.text for drop, (_, condition) in zip(silent, crops, strict=True)]
        with torch.no_grad(), torch.autocast(lm.norm.weight.device.type, enabled=False):
            cond = lm.condition(texts)
        sequence = lm.pattern.apply(torch.stack([codes for codes, _ in crops]).to(lm.norm.weight.device), -1)
        inputs, targets = sequence[:, :, :-1], sequence[:, :, 1:]
        logits = lm(inputs.masked_fill(inputs < 0, lm.special), cond).flatten(0, 2).float()
        each = F.cross_entropy(logits, targets.flatten(), ignore_index=-1, reduction="none").view(targets.shape)
        books = each.sum((0, 2)) / (targets >= 0).sum((0, 2)).clamp(min=1)
        return books.mean(), books


class Best(nn.Module):
    """The averaged weights that did best so far, and how well; a checkpoint keeps them."""

    score: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.register_buffer("score", torch.tensor(float("inf")))
        self.names = [name for name, _ in model.named_parameters()]
        for number, value in enumerate(model.parameters()):
            self.register_buffer(f"weight{number}", value.detach().clone())

    @torch.no_grad()
    def offer(self, model: nn.Module, score: float) -> None:
        """Keep the weights of ``model`` if they are better."""
        if score < float(self.score):
            self.score.fill_(score)
            for number, value in enumerate(model.parameters()):
                getattr(self, f"weight{number}").copy_(value)

    def weights(self) -> dict[str, Tensor]:
        """Name of a parameter -> its best value."""
        return {name: getattr(self, f"weight{number}") for number, name in enumerate(self.names)}


class FinetuneTask:
    """One step of fine-tuning, seen from the loop. ``model`` is the adapter."""

    def __init__(self, config: FinetuneConfig, lm: TokenLM | MusicGenLM, data: Takes, dev: Takes) -> None:
        self.config, self.data = config, data
        self.device = config.torch_device
        lm.requires_grad_(False).to(self.device)
        torch.manual_seed(config.seed)
        self.adapter = Adapter.of(lm, LoraConfig(rank=config.rank, alpha=config.alpha)).to(self.device)
        lora.attach(lm, self.adapter)
        self.learner: Learner = _Own(lm, config) if isinstance(lm, TokenLM) else _MusicGen(lm, config)
        self.model: nn.Module = self.adapter
        self.best = Best(self.adapter)
        self.extra: dict[str, nn.Module] = {"best": self.best}
        betas = (config.beta1, config.beta2)
        adamw = torch.optim.AdamW(self.adapter.parameters(), 1.0, betas, weight_decay=config.weight_decay)
        self.optimisers = {"adapter": adamw}
        self.held_out = dev.tiles(config.frames, config.measured)

    def lr(self, step: int) -> float:
        """Cosine over the whole run."""
        c = self.config
        return cosine(step, 0, c.steps, c.lr, c.final_lr, c.warmup)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c = self.config
        crops = self.data.draw(c.batch, c.frames, stream(c.seed, step))
        loss, books = self._loss(crops, stream(c.seed, step, 1), bool(step % 2))
        self.adapter.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), c.clip)
        if torch.isfinite(norm):
            self.optimisers["adapter"].step()
        return {"loss": loss.item(), **{f"ce_{k}": v for k, v in enumerate(books.tolist())}, "norm": float(norm)}

    @torch.no_grad()
    def measure(self) -> list[float]:
        """Cross-entropy of each book (nats) on the kept files, with all that is known of them."""
        rows, size = [], self.config.batch
        for start in range(0, len(self.held_out), size):
            part = self.held_out[start : start + size]
            rows.append(self._loss(part, None, False)[1] * (len(part) / len(self.held_out)))
        found: list[float] = torch.stack(rows).sum(0).tolist()
        return found

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Cross-entropy of each book and their mean; the best weights are kept."""
        books = self.measure()
        mean = sum(books) / len(books)
        self.best.offer(model, mean)
        return {"ce": mean, **{f"ce_{k}": value for k, value in enumerate(books)}}

    def _loss(self, crops: Crops, rng: torch.Generator | None, skip: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            loss, books = self.learner.loss(crops, rng, skip)
        return loss, books.detach()


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to."""

    adapter: Path
    before: list[float]
    """Cross-entropy of each book on the kept files without the adapter, nats."""
    after: list[float]
    """The same with it."""
    songs: int
    kept: int
    seconds: float
    """Of music, all files together."""


def finetune(
    config: FinetuneConfig, songs: Sequence[Song], studio: Studio | MusicGenStudio, out: str | os.PathLike[str],
    stop: int | None = None, said: Callable[[str], None] | None = None,
) -> Outcome:  # fmt: skip
    """Train an adapter for ``studio``'s language model on ``songs``; goes on where a run in ``out`` was stopped.

    Leaves ``adapter.safetensors`` and its card in ``out``, beside the checkpoint, the log and the encoded music. stop:
    halt after this step. said: told what happens, in words; None is quiet. The studio's model has the best adapter
    attached afterwards.
    """
    said_or_not = said or (lambda _: None)
    out, lm, codec = Path(out), studio.lm, studio.codec
    out.mkdir(parents=True, exist_ok=True)
    books, channels = (lm.config.books, 1) if isinstance(lm, TokenLM) else _layout(lm)
    takes = folders.encode(
        songs, codec, books, channels, out / "tokens.npz",
        lambda number, path: said_or_not(f"encoding {number + 1}/{len(songs)}: {path.name}"),
    )  # fmt: skip
    kept = folders.held_out(len(songs), config.share, config.seed)
    conditions = [song.condition for song in songs]
    data, dev = (Takes([t for t in takes if (t.song in kept) == inside], conditions) for inside in (False, True))
    task = FinetuneTask(config, lm, data, dev)
    before = _plain(task)
    said_or_not(f"{len(songs)} files, {len(kept)} kept for measuring: cross-entropy {sum(before) / len(before):.4f}")
    run(task, config, out, stop, said is None)
    with torch.no_grad():
        averaged(task, task.best.weights())
    after = task.measure()
    frames = sum(take.codes.shape[1] for take in takes)
    outcome = Outcome(
        adapter=out / lora.NAME, before=before, after=after, songs=len(songs), kept=len(kept),
        seconds=frames / codec.frame_rate,
    )  # fmt: skip
    about = {"model": studio.name, "before": json.dumps(before), "after": json.dumps(after)}
    lora.save(task.adapter, outcome.adapter, about)
    _write(out / CARD, card(config, songs, kept, studio.name, outcome))
    return outcome


def card(config: FinetuneConfig, songs: Sequence[Song], kept: set[int], name: str, outcome: Outcome) -> str:
    """What the adapter is, in words: for which model, from which files, and what it is worth on the kept ones."""
    told = sum(song.condition != Condition() for song in songs)
    rows = "\n".join(
        f"| {book + 1} | {before:.3f} | {after:.3f} |"
        for book, (before, after) in enumerate(zip(outcome.before, outcome.after, strict=True))
    )
    files = "\n".join(
        f"* {song.path.name}{' (kept for measuring)' if number in kept else ''}" for number, song in enumerate(songs)
    )
    size = outcome.adapter.stat().st_size
    return f"""# Adapter for the model `{name}`

Made by `descant finetune`: a low-rank adapter (rank {config.rank}, alpha {config.alpha:g}), {size / 1e6:.2f} MB, for
that model only. `descant generate --adapter {outcome.adapter.name}` plays with it.

{outcome.seconds / 60:.1f} minutes of music in {outcome.songs} files, {told} of them with a caption or labels; at most
{config.steps} steps of {config.batch} crops of {config.frames} frames, seed {config.seed}.

Cross-entropy in nats on the {outcome.kept} files that were kept from training (the weights were chosen on them):

| book | without | with the adapter |
|---|---|---|
{rows}

What may be done with it depends on the rights in these files, which its maker must know:

{files}
"""


def open_model(name: str, threads: int | None = None) -> Studio | MusicGenStudio:
    """The model to fine-tune: ``embedded``, a folder of ours, or a MusicGen (a folder, or a hub id)."""
    from ..gen.load import load

    return load(name, threads)


def _plain(task: FinetuneTask) -> list[float]:
    # without the adapter: its second factors at zero
    values = [task.adapter.pair(name).b for name in task.adapter.names]
    backup = [value.detach().clone() for value in values]
    with torch.no_grad():
        for value in values:
            value.zero_()
        books = task.measure()
        for value, old in zip(values, backup, strict=True):
            value.copy_(old)
    return books


def _layout(lm: MusicGenLM) -> tuple[int, int]:
    return lm.config.books // lm.config.channels, lm.config.channels


def _write(path: Path, text: str) -> None:
    part: Any = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
