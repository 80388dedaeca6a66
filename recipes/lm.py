"""Training the token language model on shards of codes with their conditions, in one process or several.

Several processes share each batch: the crops and what is dropped of their conditions are drawn for the whole batch, as
one process draws them, and each takes its part. So they end where one process ends, up to rounding. With ``zero`` set,
DeepSpeed spreads optimiser states, gradients and weights over them (:mod:`descant.recipes.engine`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..lm import model as models
from ..lm.condition import ROLES, ConditionBatch, collate, drop
from ..lm.model import LMConfig, TokenLM
from ..lm.pretrained import load
from ..lm.text import train_tokenizer
from .ears import teach
from .flops import Meter, crop_flops
from .jobs import Jobs, JobSet, open_set
from .loop import LoopConfig, cosine, learned, run, stream
from .optimiser import optimisers
from .tokens import Crop, TokenSet, ngram_baselines
from .world import World

#: Rows for the weight of guidance that ``distil_guidance`` adds where ``lm.guidance_bins`` says nothing else.
GUIDANCE_BINS = 16

#: What there is to train on: tokens of pieces, or targets with stems.
Music = TokenSet | JobSet


@dataclass(frozen=True, kw_only=True)
class LMRecipe(LoopConfig):
    """A language-model run."""

    lm: LMConfig = field(default_factory=models.nano)
    init: str = ""
    """Begin with this model's weights and tokeniser: ``embedded``, or a folder that a run exported."""
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
    drop_melody: float = 0.5
    drop_stems: float = 0.15
    """Of samples that hear stems, those that lose all of them."""
    drop_each_stem: float = 0.2
    ears: int = 0
    """Steps beforehand, in which a model that never heard stems learns to hear beat and chords in them
    (:mod:`descant.recipes.ears`): much cheaper steps, and without them a few thousand of training teach it little."""
    jobs: Jobs = field(default_factory=Jobs)
    """What is asked for, where the data are targets of ``descant prepare DIR``."""
    book_weights: tuple[float, ...] = (1.0,)
    """What each codebook's loss counts; one number is for all alike."""
    optimiser: str = "muon"
    """``muon`` (the matrices inside the blocks; AdamW the rest) or ``adamw`` alone."""
    accumulate: int = 1
    """Parts a process takes its share of a batch in, one after another: less memory, the same step."""
    checkpointing: bool = False
    """Compute a block's activations again in the backward pass instead of keeping them."""
    zero: str = ""
    """``1``, ``2``, ``3`` or a DeepSpeed JSON file of one's own; needs ``optimiser=adamw``. Empty is without."""
    distil_guidance: bool = False
    """Teach the model ``init`` to do guidance in one row (:mod:`descant.recipes.distil`) instead of new music."""

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.book_weights
        if len(weights) not in (1, self.lm.books) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"book_weights {weights}: give one for all, or one for each of {self.lm.books} books, 0 or more and "
                "not all of them 0"
            )
        if self.optimiser not in ("muon", "adamw"):
            raise ValueError(f"unknown optimiser {self.optimiser!r}: muon or adamw")
        if self.ears < 0:
            raise ValueError(f"ears is {self.ears}: 0, or a number of steps")
        if self.ears and self.zero:
            # the engine has taken the weights apart by then
            raise ValueError("ears are taught before weights are spread: train with ears and without zero, then init=")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        if self.zero and self.optimiser != "adamw":
            # Muon's update of a matrix needs the whole of it, and ZeRO gives each process a piece
            raise ValueError("zero spreads matrices over processes, which Muon cannot take: set optimiser=adamw")
        if self.distil_guidance:
            if not self.init or self.zero:
                raise ValueError("distil_guidance teaches a finished model, whole: name it with init=, leave out zero")
            if not self.lm.guidance_bins:
                object.__setattr__(self, "lm", replace(self.lm, guidance_bins=GUIDANCE_BINS))

    @property
    def dropout(self) -> dict[str, float]:
        """Probability per condition."""
        return {"all": self.drop_all, "text": self.drop_text, "genre": self.drop_genre, "key": self.drop_key,
                "instruments": self.drop_instruments, "tempo": self.drop_tempo, "beat": self.drop_beat,
                "chords": self.drop_chords, "melody": self.drop_melody, "stems": self.drop_stems,
                "each_stem": self.drop_each_stem}  # fmt: skip


def recipe(name: str) -> LMRecipe:
    """The named runs.

    ``embedded`` (needs a GPU or days), ``base`` (twice its size), ``small`` (two CPU cores), ``nano`` (seconds, for
    trials).
    """
    common: dict[str, Any] = {"beta2": 0.95, "weight_decay": 0.1, "final_lr": 5e-5}
    if name == "embedded":
        return LMRecipe(lm=models.embedded(), steps=12000, batch=64, lr=1.5e-3, warmup=300, **common)
    if name == "base":
        return LMRecipe(lm=models.base(), steps=12000, batch=64, lr=1.2e-3, warmup=300, **common)
    if name == "small":
        # for its few million positions, a model of 5 M parameters learns more than one of 10 M (Hoffmann et al., 2022)
        lm = LMConfig(width=192, layers=6, heads=3)
        return LMRecipe(lm=lm, steps=2150, batch=8, lr=2e-3, warmup=100, validate_every=200, **common)
    if name == "nano":
        lm = LMConfig(width=32, layers=2, heads=2, window=64)
        return LMRecipe(lm=lm, steps=30, batch=4, frames=50, warmup=5, validate_every=15, log_every=5, bf16=False)
    raise ValueError(f"unknown language-model recipe {name!r}: embedded, base, small or nano")


class LMTask:
    """One step of language-model training."""

    measures = "ce"
    """What the objective is called in the log, of each book."""

    def __init__(self, config: LMRecipe, data: Music, dev: Music, world: World | None = None) -> None:
        self.config, self.data, self.dev = config, data, dev
        self.world = world or World(device=config.torch_device)
        self.device = self.world.device
        own = self.world.share(config.batch)
        if (own.stop - own.start) % config.accumulate:
            raise ValueError(
                f"a share of {own.stop - own.start} crops cannot be taken in {config.accumulate} parts: change batch "
                "or accumulate"
            )
        torch.manual_seed(config.seed)
        self.lm = begin(config, data)
        self.lm.to(self.device)
        if config.checkpointing:
            for block in self.lm.stack.blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        self.model: nn.Module = self.lm
        self.extra: dict[str, nn.Module] = {}
        self.optimisers = self._optimisers()
        self.held_out = {
            name: [part.draw(config.batch, config.frames, stream(1, n)) for n in range(6)]
            for name, part in dev.parts().items()
        }
        tokens = config.frames * config.lm.books
        self.meter = Meter(crop_flops(self.lm, config.frames), tokens, self.device, config.bf16, self.world.size)
        self._baselines: dict[str, float] = {}

    def lr(self, step: int) -> float:
        """Cosine over the whole run."""
        c = self.config
        return cosine(step, 0, c.steps, c.lr, c.final_lr, c.warmup)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c = self.config
        # every other window has slid away from the beginning, as windows do in long generation
        skip = c.lm.books if step % 2 and self.lm.pattern.endless else 0
        parts = self._parts(step)
        self.lm.zero_grad()
        losses = []
        for codes, batch in parts:
            with self.precision():
                loss, books = self.objective(codes, batch, skip)
                loss = self._weighed(loss, books)
            self.backward(loss / len(parts))
            losses.append(torch.cat([loss.detach()[None], books.detach()]))
        norm = self.update()
        self.meter.step(c.batch)
        mean = self.world.mean(torch.stack(losses).mean(0)).tolist()
        each = {f"{self.measures}_{k}": value for k, value in enumerate(mean[1:])}
        figures = {"loss": mean[0], **each, "norm": norm}
        return {**figures, **(self.meter.look() if (step + 1) % c.log_every == 0 else {})}

    def objective(self, codes: Tensor, batch: ConditionBatch, skip: int) -> tuple[Tensor, Tensor]:
        """What a step lowers: codes [B, K, F] and conditions -> the mean, and that of each book [K]."""
        return self.forward(codes, batch, skip)

    def forward(self, codes: Tensor, batch: ConditionBatch, skip: int) -> tuple[Tensor, Tensor]:
        """Codes [B, K, F] and their conditions -> mean cross-entropy, and that of each book [K]."""
        return self.lm.loss(codes, batch, skip)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one part's share of the loss."""
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self) -> float:
        """Move the weights by the gradients of all processes; returns the gradients' norm."""
        self.world.average_gradients(self.lm.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.lm.parameters(), self.config.clip)
        if torch.isfinite(norm):
            for optimiser in self.optimisers.values():
                optimiser.step()
        return float(norm)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Cross-entropy in nats per book on held-out crops, with all conditions and with none, beside n-gram models."""
        if not isinstance(model, TokenLM):
            raise TypeError("an LMTask validates a TokenLM")
        rows: dict[str, float] = {}
        for part, held_out in self.held_out.items():
            plain = part == "mix"
            for name, gone in (("ce", {}), ("blind", {"all": 1.0}) if plain else ("deaf", {"stems": 1.0})):
                books = self._held_out(held_out, gone)
                if plain:
                    rows |= {f"{name}_{k}": float(value) for k, value in enumerate(books)}
                else:
                    rows[f"{part}_{name}"] = float(books.mean())
        return {**rows, **self._ngrams()}

    def _held_out(self, held_out: list[list[Crop]], gone: Mapping[str, float]) -> Tensor:
        """Cross-entropy of each book [K], a mean over crops, without the conditions that are ``gone``."""
        each = []
        for crops in held_out:
            codes, batch = self._collate(crops)
            with self.precision():
                each.append(self.forward(codes, drop(batch, gone, stream(0, 0)).to(self.device), 0)[1])
        return torch.stack(each).mean(0)

    def _parts(self, step: int) -> list[tuple[Tensor, ConditionBatch]]:
        c, own = self.config, self.world.share(self.config.batch)
        codes, batch = self._collate(self.data.draw(c.batch, c.frames, stream(c.seed, step), own))
        # what is dropped is drawn for the whole batch: the rows of others stand in as copies while it is
        whole = rows_of(batch, torch.arange(c.batch) % len(codes))
        batch = rows_of(drop(whole, c.dropout, stream(c.seed, step, 1)), torch.arange(own.start, own.stop))
        pieces = torch.arange(len(codes)).chunk(c.accumulate)
        return [(codes[rows], rows_of(batch, rows).to(self.device)) for rows in pieces]

    def _collate(self, crops: list[Crop]) -> tuple[Tensor, ConditionBatch]:
        codes = torch.stack([crop.codes for crop in crops]).to(self.device)
        conditions = [crop.condition for crop in crops]
        return codes, collate(conditions, codes.shape[-1], frame_rate=self.data.frame_rate)

    def _weighed(self, loss: Tensor, books: Tensor) -> Tensor:
        if len(self.config.book_weights) == 1:
            return loss
        weights = torch.tensor(self.config.book_weights, device=books.device)
        return (books * weights).sum() / weights.sum()

    def precision(self) -> torch.autocast:
        """What products are computed in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        c, betas = self.config, (self.config.beta1, self.config.beta2)
        if c.optimiser == "muon":
            return optimisers("lm", self.lm, _inner, betas, c.weight_decay)
        values = list(self.lm.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [value for value in values if value.dim() >= 2]},
            {"params": [value for value in values if value.dim() < 2], "weight_decay": 0.0},
        ]
        # the loop sets the rate; at 0, what an engine tries beforehand moves nothing
        return {"lm": torch.optim.AdamW(groups, 0.0, betas, weight_decay=c.weight_decay)}

    def _ngrams(self) -> dict[str, float]:
        if not self._baselines:
            c = self.config.lm
            rows = ngram_baselines(self.data, self.dev, c.cardinality, c.books)
            self._baselines = {f"{name}_{k}": v for name, values in rows.items() for k, v in enumerate(values)}
        return self._baselines


def rows_of(batch: ConditionBatch, index: Tensor) -> ConditionBatch:
    """The rows of a batch that ``index`` [n] names."""
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    chosen: dict[str, Any] = {name: value[index] for name, value in values.items() if isinstance(value, Tensor)}
    return replace(batch, text=tuple(batch.text[row] for row in index.tolist()), **chosen)


def _inner(name: str) -> bool:
    return "blocks." in name


def begin(config: LMRecipe, data: Music) -> TokenLM:
    """The model a run begins with: a new one, or ``config.init``. Raises ValueError when that has another shape."""
    if not config.init:
        return TokenLM(config.lm, tokenizer(data, config.lm))
    lm = load(config.init)
    if lm.config != config.lm:
        new = {name: getattr(config.lm, name) for name in ("guidance_bins", "targets") if not getattr(lm.config, name)}
        if replace(lm.config, **new) != config.lm:
            raise ValueError(f"init={config.init}: that model has another shape than the recipe's ({lm.config})")
        # the weight of guidance, or what is written, becomes an input: its rows are zero at birth, all else is there
        told = TokenLM(config.lm, None if lm.tokenizer is None else lm.tokenizer.data)
        told.load_state_dict(lm.state_dict(), strict=False)
        lm = told
    return lm.float().train()


def tokenizer(data: Music, config: LMConfig) -> bytes:
    """A SentencePiece model of the set's captions, as bytes; deterministic."""
    captions = sorted(set(data.captions))
    return train_tokenizer(captions, config.text_vocab)


def train(config: LMRecipe, data: str, dev: str, out: str, stop: int | None = None, quiet: bool = False) -> Path:
    """Train on the token shards ``data``, validate on ``dev``; returns the folder of the exported averaged weights.

    One process, or several started by torchrun or ``accelerate launch``, which share each batch.
    """
    world = World.join(config.device)
    music = open_set(data, config.jobs)
    if isinstance(music, JobSet) and not config.lm.targets:
        # what is written must be told from now on
        config = replace(config, lm=replace(config.lm, targets=len(ROLES)))
    task = _task(config, music, open_set(dev, config.jobs), world)
    if config.ears and isinstance(music, JobSet) and not (Path(out) / "checkpoint.pt").exists():
        lessons = {"batch": config.batch, "frames": config.frames, "seed": config.seed}
        teach(task.lm, music, config.ears, **lessons, bf16=config.bf16, quiet=quiet)
    run(task, config, out, stop, quiet, world)
    folder = export(task, out) if world.rank == 0 else Path(out) / "export"
    world.leave()
    return folder


def _task(config: LMRecipe, data: Music, dev: Music, world: World) -> LMTask:
    if config.distil_guidance:
        from .distil import DistilTask

        return DistilTask(config, data, dev, world)
    if not config.zero:
        return LMTask(config, data, dev, world)
    from .engine import ZeroTask

    return ZeroTask(config, data, dev, world)


def export(task: LMTask, folder: str | os.PathLike[str]) -> Path:
    """Write the averaged weights of ``folder``'s checkpoint as a model that :func:`descant.lm.load` reads."""
    lm = TokenLM(task.config.lm, task.lm.tokenizer.data if task.lm.tokenizer is not None else None)
    learned(lm, folder)
    lm.save(Path(folder) / "export", half=True)
    return Path(folder) / "export"
