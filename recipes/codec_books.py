"""The books of a codec in training, whatever their kind: start, telemetry, several processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..codec.books import GradientBook
from ..codec.euclid import EuclideanRVQ, FactorisedRVQ
from ..codec.model import Codec, CodecConfig
from ..codec.neural import NeuralCodec
from ..codec.rvq import ResidualVQ, figures
from .world import World

Quantiser = ResidualVQ | EuclideanRVQ | FactorisedRVQ

#: Latent vectors per code that the books start from.
PER_CODE = 60


def load(codec: Codec | NeuralCodec, folder: str) -> None:
    """Give ``codec`` the weights of the exported codec in ``folder``. Raises ValueError when they do not fit."""
    from ..codec import pretrained

    found = pretrained.load(folder)
    shape = found.config if isinstance(found, Codec | NeuralCodec) else None
    if isinstance(shape, CodecConfig):
        shape = replace(shape, lift=())  # measured on weights that are about to change
    if not isinstance(found, Codec | NeuralCodec) or shape != codec.config:
        raise ValueError(f"init={folder}: that codec has another shape than the recipe's ({shape} for {codec.config})")
    codec.load_state_dict(found.state_dict())


def join(quantiser: Quantiser, world: World) -> None:
    """Have the books see the vectors of all processes; books that gradients move need not."""
    if not isinstance(quantiser, FactorisedRVQ):
        quantiser.gather = world.gather


def averaging(quantiser: Quantiser) -> bool:
    """Whether averages move the books, so that they follow an encoder without gradients."""
    return isinstance(quantiser, EuclideanRVQ) or (
        isinstance(quantiser, ResidualVQ) and not isinstance(quantiser.all()[0], GradientBook)
    )


@torch.no_grad()
def start(quantiser: Quantiser, latent: Tensor, generator: torch.Generator) -> None:
    """Start every book from latent vectors [n, D], at least 50 a code: k-means on what the books before left over."""
    if not isinstance(quantiser, FactorisedRVQ):
        quantiser.start(latent, generator)
        return
    residual = latent.float()
    for book in quantiser.all():
        size, dim = book.codebook.weight.shape
        model = GradientBook(residual.shape[1], size, dim).to(residual.device)
        residual = model.start(residual, generator)
        book.codebook.weight.copy_(model.embed)
        for part, weight in ((book.in_proj, model.project.weight), (book.out_proj, model.expand.weight)):
            part.bias.zero_()
            if part.normed:
                part.weight_v.copy_(weight[..., None])
                part.weight_g.copy_(weight.norm(dim=1)[:, None, None])
            else:
                part.weight.copy_(weight[..., None])


@torch.no_grad()
def forget(quantiser: Quantiser, optimiser: torch.optim.Optimizer, ema: Mapping[str, Tensor]) -> None:
    """Take restarted codes out of gradients, momentum and averages: these are about vectors that are gone."""
    if not isinstance(quantiser, ResidualVQ):
        return
    for place, book in enumerate(quantiser.all()):
        if not isinstance(book, GradientBook) or not len(book.fresh):
            continue
        state = optimiser.state.get(book.embed, {})
        for value in (book.embed.grad, state.get("exp_avg"), state.get("exp_avg_sq")):
            if value is not None:
                value[book.fresh] = 0.0
        average = ema.get(f"quantiser.books.{place}.embed")
        if average is not None:
            average[book.fresh] = book.embed[book.fresh]
        book.fresh = book.fresh[:0]


def telemetry(quantiser: Quantiser) -> dict[str, float]:
    """Perplexity and share of dead codes of each book of late, for the log; nothing for books that do not count."""
    if isinstance(quantiser, FactorisedRVQ):
        return {}
    if isinstance(quantiser, ResidualVQ):
        counts = [book.count for book in quantiser.all()]
    else:
        counts = [book.cluster_size for book in quantiser.all()]
    found = figures([count.double() for count in counts])
    rows = zip(found["perplexity"], found["dead"], strict=True)
    return {f"book{k + 1}/{key}": value for k, pair in enumerate(rows)
            for key, value in zip(("perplexity", "dead"), pair, strict=True)}  # fmt: skip
