"""Training a codec, in three stages of one run.

1. Reconstruction without quantisation, until the latent space has settled.
2. Reconstruction with the books, which start from the data; quantiser dropout per item.
3. Encoder and books frozen at their averaged weights: tokens are final from here on, a language model can train on
   them. The decoder goes on against a multi-scale STFT discriminator (AudioDec, Wu et al., 2023, trains this way).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..codec import pretrained
from ..codec.discriminator import MultiScaleSTFT
from ..codec.losses import MEL_SCALES, PHASE_SCALES, adversarial_loss, discriminator_loss, feature_loss, spectral_loss
from ..codec.model import Codec, CodecConfig, nano, tiny
from ..codec.rvq import usage
from .corpus import Corpus
from .loop import LoopConfig, averaged, cosine, run, stream


@dataclass(frozen=True, kw_only=True)
class CodecRecipe(LoopConfig):
    """A codec run."""

    codec: CodecConfig = field(default_factory=tiny)
    warm: int = 700
    """Step at which quantisation starts."""
    freeze: int = 7500
    """Step at which encoder and books freeze and the adversary enters."""
    settle: int = 100
    """Batches from which the books find their place around the averaged encoder at the freeze."""
    crop: float = 0.6
    """Seconds per item."""
    dropout: float = 0.5
    """Share of items that use fewer than all books."""
    mel_weight: float = 15.0
    phase_weight: float = 5.0
    commitment_weight: float = 1.0
    adversarial_weight: float = 1.0
    feature_weight: float = 2.0
    filters: int = 12
    """Filters of the discriminator."""
    polish_lr: float = 3e-4
    polish_batch: int = 6
    real_share: float = 0.4
    """Share of real recordings in a batch; the rest is rendered music, two thirds mixes, one third single stems."""


def recipe(name: str) -> CodecRecipe:
    """The named runs: ``tiny`` (the shipped model), ``nano`` (seconds, for trials)."""
    if name == "tiny":
        return CodecRecipe(steps=8600, batch=12, lr=1e-3, final_lr=5e-5, beta1=0.8)
    if name == "nano":
        return CodecRecipe(codec=nano(), steps=60, batch=4, warm=15, freeze=50, filters=4, settle=5, polish_batch=2,
                           validate_every=30, warmup=5, log_every=5)  # fmt: skip
    raise ValueError(f"unknown codec recipe {name!r}: tiny or nano")


class CodecTask:
    """One step of codec training; see the module."""

    def __init__(self, config: CodecRecipe, data: Corpus, held_out: Mapping[str, Tensor]) -> None:
        self.config, self.data, self.held_out = config, data, held_out
        self.device = config.torch_device
        torch.manual_seed(config.seed)
        self.codec = Codec(config.codec).to(self.device)
        self.model: nn.Module = self.codec
        self.adversary = MultiScaleSTFT((2048, 1024, 512), config.filters, config.codec.channels).to(self.device)
        self.extra: dict[str, nn.Module] = {"adversary": self.adversary}
        betas = (config.beta1, config.beta2)
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "codec": torch.optim.AdamW(self.codec.parameters(), 1.0, betas, weight_decay=config.weight_decay),
            "adversary": torch.optim.AdamW(self.adversary.parameters(), 1.0, betas, weight_decay=0.0),
        }
        self.shares = {
            "real": config.real_share,
            "mix": (1 - config.real_share) * 2 / 3,
            "stem": (1 - config.real_share) / 3,
        }

    def lr(self, step: int) -> float:
        """Cosine to the freeze, a second cosine for the polish."""
        c = self.config
        if step < c.freeze:
            return cosine(step, 0, c.freeze, c.lr, c.final_lr, c.warmup)
        return cosine(step, c.freeze, c.steps, c.polish_lr, 0.0, c.warmup)

    def batch(self, step: int) -> Tensor:
        """Augmented crops [B, C, T] of step ``step``."""
        c = self.config
        hop, rng = c.codec.hop, stream(c.seed, step)
        length = max(1, round(c.crop * c.codec.rate / hop)) * hop
        count = c.batch if step < c.freeze else c.polish_batch
        wav = self.data.draw(count, length, rng, self.shares)
        # now and then two sources at once: denser than any one recording
        if step % 3 == 0:
            other = self.data.draw(count, length, rng, self.shares)
            wav = torch.where(torch.rand(count, 1, 1, generator=rng) < 0.3, wav + other, wav)
        gain = 10 ** ((torch.rand(count, 1, 1, generator=rng) * 18 - 12) / 20)
        sign = torch.randint(0, 2, (count, 1, 1), generator=rng) * 2.0 - 1.0
        wav = wav * gain * sign
        wav = wav / wav.abs().amax((1, 2), keepdim=True).clamp(min=1.0)
        return wav.expand(-1, c.codec.channels, -1).to(self.device)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c = self.config
        if step == c.warm:
            self._start_books(step)
        if step == c.freeze:
            self._freeze(step, ema)
        frozen = step >= c.freeze
        for part in (self.codec.encoder, self.codec.quantiser):
            part.requires_grad_(not frozen).train(not frozen)
        wav, rng = self.batch(step), stream(c.seed, step, 1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.bf16):
            output, quantised = self.codec(wav, None if step < c.warm else self._keep(len(wav), rng), rng)
        mel, phase = spectral_loss(output, wav, c.codec.rate, self._scales(step))
        figures = {"mel": mel.item(), "phase": phase.item()}
        loss = c.mel_weight * mel + c.phase_weight * phase
        if quantised is not None and not frozen:
            loss = loss + c.commitment_weight * quantised.commitment
            figures["commitment"] = quantised.commitment.item()
        if frozen:
            loss = loss + self._adversarial(wav, output, figures)
        return {**figures, **self._update("codec", self.codec, loss)}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mel and SI-SDR (dB) at half and all books, code efficiency, over the held-out sets."""
        if not isinstance(model, Codec):
            raise TypeError("a CodecTask validates a Codec")
        figures: dict[str, float] = {}
        for name, wav in self.held_out.items():
            wav = wav.to(self.device)
            if not bool(model.quantiser.started):
                output = model(wav, None)[0]
                figures[f"{name}/mel_open"] = float(spectral_loss(output, wav, self.config.codec.rate)[0])
                continue
            codes = model.encode(wav)
            for books in (model.books // 2, model.books):
                output = model.decode(codes[:, :books])
                figures[f"{name}/mel_{books}"] = float(spectral_loss(output, wav, self.config.codec.rate)[0])
                figures[f"{name}/sisdr_{books}"] = _si_sdr(output, wav)
            efficiency = usage(codes, model.cardinality)["efficiency"]
            figures[f"{name}/efficiency_min"] = min(efficiency)
            figures[f"{name}/efficiency_mean"] = sum(efficiency) / len(efficiency)
        return figures

    def _keep(self, count: int, rng: torch.Generator) -> Tensor:
        books = self.config.codec.books
        fewer = torch.randint(1, books + 1, (count,), generator=rng)
        every = torch.rand(count, generator=rng) >= self.config.dropout
        return torch.where(every, books, fewer).to(self.device)

    def _scales(self, step: int) -> list[tuple[int, int]]:
        # the scales that carry phase in every step, the others in turn
        always = [row for row in MEL_SCALES if row[0] in PHASE_SCALES]
        others = [row for row in MEL_SCALES if row[0] not in PHASE_SCALES]
        return [*always, others[step % len(others)]]

    def _adversarial(self, wav: Tensor, output: Tensor, figures: dict[str, float]) -> Tensor:
        c = self.config
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.bf16):
            real = self.adversary(wav)
            fake = self.adversary(output.detach())
        judge = discriminator_loss([s.float() for s in real[0]], [s.float() for s in fake[0]])
        figures["judge"] = judge.item()
        self._update("adversary", self.adversary, judge)
        self.adversary.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.bf16):
            with torch.no_grad():
                real = self.adversary(wav)
            fake = self.adversary(output)
        self.adversary.requires_grad_(True)
        adversarial, features = adversarial_loss(fake[0]).float(), feature_loss(real[1], fake[1]).float()
        figures["adversarial"], figures["features"] = adversarial.item(), features.item()
        return c.adversarial_weight * adversarial + c.feature_weight * features

    def _update(self, name: str, module: nn.Module, loss: Tensor) -> dict[str, float]:
        optimiser = self.optimisers[name]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), self.config.clip)
        if torch.isfinite(norm):
            optimiser.step()
        return {f"{name}/norm": float(norm)}

    @torch.no_grad()
    def _start_books(self, step: int) -> None:
        wanted = 60 * self.config.codec.cardinality
        latents: list[Tensor] = []
        self.codec.eval()
        draw = 0
        while sum(len(rows) for rows in latents) < wanted:
            latents.append(self.codec.encoder(self.batch(step * 7919 + draw)).flatten(0, 1))
            draw += 1
        self.codec.quantiser.start(torch.cat(latents), stream(self.config.seed, step, 2))
        self.codec.train()

    @torch.no_grad()
    def _freeze(self, step: int, ema: Mapping[str, Tensor]) -> None:
        averaged(self, ema)
        for part in (self.codec.encoder, self.codec.quantiser):
            for value in part.parameters():
                # what is stored as float16 must be what the tokens come from
                value.copy_(value.half().float())
        self.codec.quantiser.train()
        for draw in range(self.config.settle):  # let the books settle around the averaged encoder
            latent = self.codec.encoder(self.batch(step * 7907 + draw))
            everything = torch.full((len(latent),), self.config.codec.books, device=latent.device)
            self.codec.quantiser(latent, everything, stream(self.config.seed, step, 3 + draw))
        for name, value in self.codec.named_parameters():
            if isinstance(ema[name], Tensor) and not name.startswith("decoder."):
                ema[name].copy_(value)


def held_out(folder: str | os.PathLike[str], seconds: float = 4.0, count: int = 12) -> dict[str, Tensor]:
    """Evenly spaced excerpts [count, 1, T] of each kind of a packed corpus."""
    corpus = Corpus(folder)
    length = int(seconds * corpus.rate) // 640 * 640
    sets: dict[str, Tensor] = {}
    for kind in ("mix", "real"):
        members = [i for i, row in enumerate(corpus.index) if row["kind"] == kind and corpus.lengths[i] > length]
        if members:
            chosen = [members[int(i * len(members) / count)] for i in range(count)]
            middles = [corpus.starts[i] + (corpus.lengths[i] - length) * (1 + n % 5) // 6 for n, i in enumerate(chosen)]
            sets[kind] = torch.stack([corpus.crop(int(start), length) for start in middles])[:, None]
    return sets


def train(config: CodecRecipe, data: str, dev: str, out: str, stop: int | None = None, quiet: bool = False) -> Path:
    """Train on the packed corpus ``data``, validate on ``dev``; checkpoints and the exported model go to ``out``.

    Returns the folder of the exported codec (averaged weights, float16).
    """
    task = CodecTask(config, Corpus(data), held_out(dev))
    run(task, config, out, stop, quiet)
    return export(config, out)


def export(config: CodecRecipe, folder: str | os.PathLike[str]) -> Path:
    """Write the averaged weights of ``folder``'s checkpoint as a codec that :func:`descant.codec.load` reads."""
    state = torch.load(Path(folder) / "checkpoint.pt", map_location="cpu", weights_only=True)
    codec = Codec(config.codec)
    codec.load_state_dict(state["model"])
    with torch.no_grad():
        for name, value in codec.named_parameters():
            value.copy_(state["ema"][name])
    pretrained.save(codec, Path(folder) / "export", half=True)
    return Path(folder) / "export"


def _si_sdr(output: Tensor, target: Tensor) -> float:
    output, target = output.flatten(1), target.flatten(1)
    scale = (output * target).sum(1, keepdim=True) / target.square().sum(1, keepdim=True).clamp(min=1e-8)
    aim = scale * target
    ratio = aim.square().sum(1) / (output - aim).square().sum(1).clamp(min=1e-8)
    return float((10 * ratio.clamp(min=1e-8).log10()).mean())
