"""Spectrograms as products of what sounds and when: non-negative matrix factorisation.

``V [K, J] = W [K, N] H [N, J]``: N templates over K bins and their activations over J frames. Multiplicative updates of
Lee and Seung, "Algorithms for Non-negative Matrix Factorization" (NIPS 2000): theorem 1 for the Euclidean distance,
theorem 2 for the divergence of Kullback and Leibler. Neither ever increases, and what starts at zero stays zero: that
is how harmonics and scores get their say (:mod:`descant.gen.separation.nmf_start`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

#: What nothing is divided by less than.
_TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class NmfSettings:
    """How a factorisation is found."""

    objective: Literal["kl", "euclidean"] = "kl"
    """What is made small: the divergence of Kullback and Leibler, or the squared distance."""
    iterations: int = 60
    seed: int = 0
    """Of random starts."""
    power: float = 1.0
    """Of the masks made of the parts; see :func:`descant.gen.separation.masks.shares`."""

    def __post_init__(self) -> None:
        if self.objective not in ("kl", "euclidean"):
            raise ValueError(f"no objective {self.objective!r}: choose kl or euclidean")
        if self.iterations < 1 or not self.power > 0:
            raise ValueError(f"need an iteration or more and a power above 0, got {self}")


def factorise(
    values: Tensor, templates: Tensor, activations: Tensor, settings: NmfSettings | None = None, learn: bool = True
) -> tuple[Tensor, Tensor]:
    """Improve templates and activations: [K, J], [K, N], [N, J] -> [K, N], [N, J].

    Without ``learn`` the templates stay as they are, as with dictionaries learnt elsewhere. Each iteration changes the
    templates first. Raises ValueError for shapes that do not fit and for negative values.
    """
    settings = settings or NmfSettings()
    if templates.shape != (len(values), len(activations)) or activations.shape[1] != values.shape[1]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (values, templates, activations))
        raise ValueError(f"need [K, J], [K, N] and [N, J], got {shapes}")
    if min(float(x.min()) if x.numel() else 0.0 for x in (values, templates, activations)) < 0:
        raise ValueError("spectrograms, templates and activations must not be negative")
    step = _kl if settings.objective == "kl" else _euclidean
    for _ in range(settings.iterations):
        if learn:
            templates = step(values.T, activations.T, templates.T).T
        activations = step(values, templates, activations)
    return templates, activations


def divergence(values: Tensor, templates: Tensor, activations: Tensor, objective: str = "kl") -> float:
    """What :func:`factorise` makes small: Kullback and Leibler's divergence, or half the squared distance."""
    model = templates @ activations
    if objective == "euclidean":
        return float((values - model).square().sum() / 2)
    return float((torch.xlogy(values, values / model.clamp(min=_TINY)) - values + model).sum())


def _euclidean(values: Tensor, templates: Tensor, activations: Tensor) -> Tensor:
    """Better activations (theorem 1): [K, J], [K, N], [N, J] -> [N, J]."""
    return activations * (templates.T @ values) / (templates.T @ templates @ activations).clamp_(min=_TINY)


def _kl(values: Tensor, templates: Tensor, activations: Tensor) -> Tensor:
    """Better activations (theorem 2): [K, J], [K, N], [N, J] -> [N, J]."""
    ratio = values / (templates @ activations).clamp_(min=_TINY)
    return activations * (templates.T @ ratio) / templates.sum(0).clamp(min=_TINY)[:, None]
