"""One step of codec training, and its stages.

1. Reconstruction without quantisation, until the latent space has settled.
2. Reconstruction with the books, which start from the data; quantiser dropout per item.
3. Encoder and books frozen at their averaged weights: tokens are final from here on, a language model can train on
   them. The decoder goes on against discriminators (AudioDec, Wu et al., 2023, trains this way).

A recipe may leave out the freeze, and let the discriminators enter earlier or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..codec import losses
from ..codec.losses import MEL_SCALES, PHASE_SCALES
from ..codec.model import Codec, CodecConfig
from ..codec.neural import NeuralCodec
from ..codec.official import EncodecConfig
from ..codec.rvq import usage
from . import codec_books
from .codec_adversary import Adversary
from .codec_config import AnyConfig, CodecRecipe
from .codec_data import Batches
from .codec_sound import Sound, reconstruction, sound
from .corpus import Corpus
from .loop import averaged, cosine, stream
from .optimiser import optimisers
from .world import World

Trainable: TypeAlias = Codec | NeuralCodec


class Marks(nn.Module):
    """What a run has behind it; a checkpoint keeps it."""

    quantised: Tensor
    frozen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("quantised", torch.tensor(False))
        self.register_buffer("frozen", torch.tensor(False))


def build(config: AnyConfig) -> Trainable:
    """A codec with random weights, of our family or of the published ones."""
    if isinstance(config, CodecConfig):
        return Codec(config)
    if isinstance(config, EncodecConfig):
        from ..codec.encodec import EncodecCodec

        return EncodecCodec(config)
    from ..codec.dac import DacCodec

    return DacCodec(config)


class CodecTask:
    """Codec training, seen from the loop."""

    def __init__(
        self, config: CodecRecipe, data: Corpus, held_out: Mapping[str, Tensor], world: World | None = None
    ) -> None:
        self.config, self.held_out = config, held_out
        self.world = world or World(device=config.torch_device)
        self.device = self.world.device
        for count in (config.batch, config.polish_batch):
            self.world.share(count)
        torch.manual_seed(config.seed)
        self.codec = build(config.codec)
        self.rate, self.hop, self.channels = self.codec.rate, self.codec.hop, self.codec.channels
        self.data = Batches(data, config, self.rate, self.channels, config.seed, self.world)
        self.marks = Marks()
        if config.init:
            codec_books.load(self.codec, config.init)
            self.marks.quantised.fill_(True)
        codec_books.join(self.codec.quantiser, self.world)
        self.codec.to(self.device)
        self.model: nn.Module = self.codec
        self.adversary = Adversary(config, self.rate, self.world)
        self.extra: dict[str, nn.Module] = {**self.adversary.modules, "marks": self.marks.to(self.device)}
        self.optimisers = {**self._optimisers(), "adversary": self.adversary.optimiser}
        self._place: int | None = None

    def at(self, place: int) -> None:
        """The next step is at ``place`` of the schedule."""
        self._place = place
        self.adversary.at(place, self.lr(place))

    def lr(self, step: int) -> float:
        """Cosine to the freeze, a second cosine for the polish."""
        c = self.config
        if not c.frozen(step):
            return cosine(step, 0, c.freeze or c.steps, c.lr, c.final_lr, c.warmup)
        return cosine(step, c.freeze, c.steps, c.polish_lr, 0.0, c.warmup)

    def batch(self, step: int, place: int | None = None) -> Tensor:
        """Augmented crops [B, C, T] of step ``step`` as they are at ``place``: this process's share."""
        c = self.config
        length = max(1, round(c.crop * self.rate / self.hop)) * self.hop
        frozen = c.frozen(step if place is None else place)
        return self.data.draw(step, c.polish_batch if frozen else c.batch, length).to(self.device)

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """One update."""
        c, place = self.config, step if self._place is None else self._place
        if place >= c.warm and not bool(self.marks.quantised):
            self._start_books(step)
        frozen = c.frozen(place)
        if frozen and not bool(self.marks.frozen):
            self._freeze(step, ema)
        for part in (self.codec.encoder, self.codec.quantiser):
            part.requires_grad_(not frozen).train(not frozen)
        wav = self.batch(step, place)
        with _Tap(self.codec) as tap:
            made = self._forward(wav, stream(c.seed, step, 1), place >= c.judged_from)
        output, quantised = made.heard, made.quantised
        loss, figures = reconstruction(made, wav, self.codec, c, self._scales(step))
        beside = torch.zeros((), device=self.device)
        if quantised is not None and not frozen:
            beside = c.commitment_weight * quantised.commitment
            figures["commitment"] = quantised.commitment.item()
        self.codec.zero_grad()
        parts = self.adversary.hear(step, place, wav, output, figures)
        if parts:
            place_of_balance, level = tap.balanced(output, wav)
            gradient, norms = self.adversary.balancer({"reconstruction": loss, **parts}, place_of_balance, level)
            figures |= {f"norm/{name}": value for name, value in norms.items()}
            # the gradient of this product with respect to its first factor is the balanced one
            loss = (place_of_balance * gradient).sum()
        (loss + beside).backward()  # type: ignore[no-untyped-call]
        codec_books.forget(self.codec.quantiser, self.optimisers["codec"], ema)
        for name, module in (("codec", self.codec), ("adversary", self.adversary.judges)):
            figures |= self._update(name, module)
        if (step + 1) % c.log_every == 0 and bool(self.marks.quantised):
            figures |= codec_books.telemetry(self.codec.quantiser)
        return figures

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Mel, phase and SI-SDR (dB) at half and all books, use of the books, over the held-out sets."""
        if not isinstance(model, Codec | NeuralCodec):
            raise TypeError("a CodecTask validates a codec")
        figures: dict[str, float] = {}
        for name, wav in self.held_out.items():
            wav = wav.to(self.device)
            if not bool(self.marks.quantised):
                output = model(wav, None)[0]
                figures[f"{name}/mel_open"] = float(self._spectral(output, wav)[0])
                continue
            codes = model.encode(wav)
            for books in sorted({max(1, model.books // 2), model.books}):
                output = model.decode(codes[:, :books])
                mel, phase = self._spectral(output, wav)
                figures[f"{name}/mel_{books}"], figures[f"{name}/phase_{books}"] = float(mel), float(phase)
                figures[f"{name}/sisdr_{books}"] = _si_sdr(output, wav)
            used = usage(codes, model.cardinality)
            figures[f"{name}/efficiency_min"] = min(used["efficiency"])
            figures[f"{name}/efficiency_mean"] = sum(used["efficiency"]) / len(used["efficiency"])
            figures |= {f"{name}/perplexity_{k + 1}": value for k, value in enumerate(used["perplexity"])}
        return figures

    def _forward(self, wav: Tensor, rng: torch.Generator, audible: bool) -> Sound:
        # what is thrown per item is thrown for the items of all processes, and each keeps its own
        c, keep, items = self.config, None, len(wav) * self.world.size
        if bool(self.marks.quantised):
            keep = self._keep(items, rng)[self.world.share(items)]
        else:
            torch.randint(2, (self.world.rank * len(wav) * (wav.shape[-1] // self.hop),), generator=rng)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.bf16):
            return sound(self.codec, wav, keep, rng, audible)

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        c, betas = self.config, (self.config.beta1, self.config.beta2)
        if isinstance(self.codec, Codec):
            return optimisers("codec", self.codec, _inner, betas, c.weight_decay, c.matrix_scale)
        return {"codec": torch.optim.AdamW(self.codec.parameters(), 1.0, betas, weight_decay=c.weight_decay)}

    def _keep(self, count: int, rng: torch.Generator) -> Tensor:
        fewer = torch.randint(1, self.codec.books + 1, (count,), generator=rng)
        every = torch.rand(count, generator=rng) >= self.config.dropout
        return torch.where(every, self.codec.books, fewer).to(self.device)

    def _spectral(
        self, output: Tensor, wav: Tensor, scales: list[tuple[int, int]] | None = None
    ) -> tuple[Tensor, Tensor]:
        weights = losses.view_weights(self.channels)
        return losses.spectral_loss(losses.views(output), losses.views(wav), self.rate, scales or MEL_SCALES, weights)

    def _scales(self, step: int) -> list[tuple[int, int]]:
        # the scales that carry phase in every step, the others in turn
        always = [row for row in MEL_SCALES if row[0] in PHASE_SCALES]
        others = [row for row in MEL_SCALES if row[0] not in PHASE_SCALES]
        return [*always, others[step % len(others)]]

    def _update(self, name: str, module: nn.Module) -> dict[str, float]:
        trained = [p for p in module.parameters() if p.grad is not None]
        if not trained:
            return {}
        self.world.average_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, self.config.clip)
        if torch.isfinite(norm):
            for key, optimiser in self.optimisers.items():
                if key.split("/")[0] == name:
                    optimiser.step()
        return {f"{name}/norm": float(norm)}

    @torch.no_grad()
    def _start_books(self, step: int) -> None:
        wanted = codec_books.PER_CODE * self.codec.cardinality
        latents: list[Tensor] = []
        self.codec.eval()
        while sum(len(rows) for rows in latents) < wanted:
            latent = self.codec.encoder(self.batch(step * 7919 + len(latents), place=0))
            latents.append(self.world.gather(latent.float()).flatten(0, 1))
        codec_books.start(self.codec.quantiser, torch.cat(latents), stream(self.config.seed, step, 3))
        self.world.align(self.codec.quantiser)
        self.codec.train()
        self.marks.quantised.fill_(True)

    @torch.no_grad()
    def _freeze(self, step: int, ema: Mapping[str, Tensor]) -> None:
        averaged(self, ema)
        for part in (self.codec.encoder, self.codec.quantiser):
            for value in part.parameters():
                # what is stored as float16 must be what the tokens come from
                value.copy_(value.half().float())
        if codec_books.averaging(self.codec.quantiser):
            self.codec.quantiser.train()
            for draw in range(self.config.settle):  # let the books settle around the averaged encoder
                latent = self.codec.encoder(self.batch(step * 7907 + draw, place=0))
                everything = torch.full((len(latent),), self.codec.books, device=latent.device)
                self.codec.quantiser(latent, everything, stream(self.config.seed, step, 4 + draw))
        for name, value in self.codec.named_parameters():
            if not name.startswith("decoder."):
                ema[name].copy_(value)
        self.marks.frozen.fill_(True)


def _inner(name: str) -> bool:
    # the two layers of each block and what changes the frame rate; not the way in and out of the spectrum
    return name.endswith((".up.weight", ".down.weight", ".mix.weight"))


class _Tap:
    """Where the gradients of reconstruction and adversary are weighed against each other.

    Equal norms in the waveform are not equal pulls on the weights: the gradient of spectral losses lies mostly in weak
    bins where the decoder cannot follow, the discriminators' in strong ones. In this codec the waveform overrates the
    reconstruction some twentyfold. So our own family is balanced at the inputs of its last, fixed transform (log
    magnitudes and directions of the spectrum), which has the order of what the weights feel; the published ones at
    their waveform, as in the papers, in units of each item's level.
    """

    def __init__(self, codec: Trainable) -> None:
        self._layer = codec.decoder.leave if isinstance(codec, Codec) else None
        self._seen: list[Tensor] = []
        self._hook: RemovableHandle | None = None

    def __enter__(self) -> _Tap:
        if self._layer is not None:
            self._hook = self._layer.register_forward_hook(lambda layer, given, made: self._seen.append(made))
        return self

    def __exit__(self, *_: object) -> None:
        if self._hook is not None:
            self._hook.remove()

    def balanced(self, output: Tensor, wav: Tensor) -> tuple[Tensor, Tensor | None]:
        """The tensor [B, ..] to balance at, and each item's unit [B]."""
        if self._seen:
            return self._seen[-1], None
        return output, wav.square().mean((1, 2)).sqrt().clamp(min=1e-3)


def _si_sdr(output: Tensor, target: Tensor) -> float:
    output, target = output.flatten(1), target.flatten(1)
    scale = (output * target).sum(1, keepdim=True) / target.square().sum(1, keepdim=True).clamp(min=1e-8)
    aim = scale * target
    ratio = aim.square().sum(1) / (output - aim).square().sum(1).clamp(min=1e-8)
    return float((10 * ratio.clamp(min=1e-8).log10()).mean())
