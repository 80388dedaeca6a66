"""Residual vector quantisation in low-dimensional projections.

A stack of K books quantises what the books before left over (Zeghidour et al., SoundStream, 2021, section III-C).
The books themselves, in two forms, are in :mod:`descant.codec.books`. What holds for both:

* every book commits: the residual handed on is ``residual - step.detach()``. Were it ``residual - step`` with a
  straight-through step, its gradient would be zero, and all books but the first would lose their commitment;
* quantiser dropout is per item, so that one batch teaches every bit rate;
* a book starts from a buffer of many vectors after a phase without quantisation: one batch holds too few, and books
  that start at random collapse onto a handful of codes;
* with several processes, all of them see all vectors (:attr:`ResidualVQ.gather`), so their books stay equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .books import DEAD, Book, GradientBook
from .contract import count_books

__all__ = ["Book", "GradientBook", "Quantised", "ResidualVQ", "usage"]

_FORMS: dict[str, type[Book]] = {"ema": Book, "gradient": GradientBook}


@dataclass(frozen=True)
class Quantised:
    """What the quantiser returns in training.

    latent [B, F, D] carries straight-through gradients; codes int64 [B, K, F]; commitment is a scalar loss, where the
    books have losses of their own the sum of these, ``each`` [K].
    """

    latent: Tensor
    codes: Tensor
    commitment: Tensor
    each: Tensor | None = None


class ResidualVQ(nn.Module):
    """K books in a row over a latent of fixed scale, [B, F, D]; lookup: ``"ema"`` or ``"gradient"``."""

    started: Tensor

    def __init__(self, width: int, books: int, size: int, dim: int, decay: float = 0.99, lookup: str = "ema") -> None:
        super().__init__()
        if lookup not in _FORMS:
            raise ValueError(f"lookup must be one of {', '.join(_FORMS)}, got {lookup!r}")
        self.books = nn.ModuleList(_FORMS[lookup](width, size, dim) for _ in range(books))
        self.decay = decay
        #: Rows [n, ..] of this process -> rows of all processes; a training run of several processes sets it.
        self.gather: Callable[[Tensor], Tensor] = _own
        self.register_buffer("started", torch.tensor(False))

    def encode(self, latent: Tensor, books: int | None = None) -> Tensor:
        """latent: [B, F, D] -> codes int64 [B, K, F] of the first ``books`` books."""
        residual, codes = latent.float(), []
        for book in self._take(books):
            index = book.lookup(book.project(residual))
            codes.append(index)
            residual = residual - book.expand(book.embed[index])
        return torch.stack(codes, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """codes: [B, K, F] with K up to the number of books -> latent [B, F, D]."""
        latent = torch.zeros((), device=codes.device)
        for book, index in zip(self._take(codes.shape[1]), codes.unbind(1), strict=True):
            latent = latent + book.expand(book.embed[index])
        return latent

    def forward(self, latent: Tensor, keep: Tensor, generator: torch.Generator | None = None) -> Quantised:
        """Quantise with gradients, moving the books when in training mode.

        latent: [B, F, D]; keep: [B] = how many books each item uses (quantiser dropout, per item).
        """
        latent = latent.float()
        residual, out = latent, torch.zeros_like(latent)
        seen, codes, losses = [], [], []
        for k, book in enumerate(self._take(None)):
            z = book.project(residual)
            index = book.lookup(z)
            value = book.embed[index]
            # straight through: forward sees the code, backward sees the projection
            step = book.expand(z + (value - z).detach())
            live = (keep > k).to(latent.dtype)
            losses.append((live * book.objective(residual, z, value)).mean())
            out = out + live[:, None, None] * step
            residual = residual - step.detach()
            seen.append(z.detach())
            codes.append(index)
        each, chosen = torch.stack(losses), torch.stack(codes, 1)
        if self.training and bool(self.started):
            self._update(torch.stack(seen, 1), chosen, generator)
        return Quantised(out, chosen, each.sum(), each)

    @torch.no_grad()
    def start(self, latent: Tensor, generator: torch.Generator | None = None) -> None:
        """Start every book in turn from latent vectors [n, D], n >= 50 times the book size."""
        residual = latent.float()
        for book in self._take(None):
            residual = book.start(residual, generator)
        self.started.fill_(True)

    def all(self) -> list[Book]:
        """The books, coarsest first."""
        return self._take(None)

    @torch.no_grad()
    def telemetry(self) -> dict[str, list[float]]:
        """How the books are used of late, from their running counts; the keys and meanings of :func:`usage`."""
        return figures([book.count.double() for book in self._take(None)])

    @torch.no_grad()
    def _update(self, z: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        # z: [B, K, F, dim], codes: [B, K, F]; one exchange each for all books
        z, codes = self.gather(z), self.gather(codes)
        for k, book in enumerate(self._take(None)):
            book.update(z[:, k].reshape(-1, z.shape[-1]), codes[:, k].reshape(-1), self.decay, generator)

    def _take(self, books: int | None) -> list[Book]:
        count = count_books(books, len(self.books))
        return [book for book in self.books if isinstance(book, Book)][:count]


def usage(codes: Tensor, size: int) -> dict[str, list[float]]:
    """Telemetry per book of codes [B, K, F].

    ``efficiency`` = entropy / log2(size); ``perplexity`` = 2 ** entropy, the number of codes that would be as
    surprising if all were as frequent; ``dead`` = share of codes never chosen.
    """
    rows = codes.transpose(0, 1).reshape(codes.shape[1], -1)
    return figures([torch.bincount(row, minlength=size).double() for row in rows], floor=0.0)


def figures(counts: list[Tensor], floor: float = DEAD) -> dict[str, list[float]]:
    """The keys of :func:`usage` from each book's counts [V]; dead: at most ``floor`` of a fair share of the visits."""
    efficiency, perplexity, dead = [], [], []
    for count in counts:
        share = count / count.sum()
        positive = share[share > 0]
        entropy = float(-(positive * positive.log2()).sum())
        efficiency.append(entropy / max(1e-9, float(torch.log2(torch.tensor(float(len(count)))))))
        perplexity.append(2**entropy)
        dead.append(float((share <= floor / len(count)).double().mean()))
    return {"efficiency": efficiency, "perplexity": perplexity, "dead": dead}


def _own(rows: Tensor) -> Tensor:
    return rows
