"""Gaussians from data, and the Fréchet distance between two of them, to the last digits a double has.

The distance is ``|m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)`` (Dowson and Landau, 1982). With factors
``C = F^T F`` its last term is the nuclear norm of ``F1 F2^T``, because ``F1 F2^T (F1 F2^T)^T`` has the eigenvalues of
``C1 C2``. So no matrix square root is taken, no multiple of the identity is added, nothing can turn complex, and fewer
samples than dimensions are no special case: the centred samples themselves are then the factor.

Any factor will do, and one from Cholesky costs least. It has a second virtue: its rows fall off as the variances do, so
that the product of two is graded from large to small, and the eigenvalues of a matrix graded so come out of the usual
reduction far more exactly than their worst case (Martin, Reinsch and Wilkinson, 1968, on tred; Barlow and Demmel, 1990,
on why). Whether they did is not hoped for but checked, see :func:`nuclear_norm`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Array = npt.NDArray[np.float64]
_EPS = 2.0**-52
#: Error of the fast path that is tolerated, relative to (tr C1 + tr C2) / 2.
_TOLERANCE = 1e-14
_BLOCK = 1 << 12
#: Columns of a block that stays in a core's cache, and variances so alike that their order is left as it is.
_CACHED, _ALIKE = 64, 4.0


class Statistics:
    """Count, mean [D] and scatter [D, D] of a stream of vectors, in float64, mergeable in any order.

    The pairwise update of Chan, Golub and LeVeque (1983) on blocks centred on their own mean: no cancellation, whatever
    the mean.
    """

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, vectors: Tensor) -> None:
        """Take in vectors [N, D]."""
        if vectors.ndim != 2 or vectors.shape[1] != self.mean.numel():
            raise ValueError(f"vectors have shape {tuple(vectors.shape)}: need [N, {self.mean.numel()}]")
        for block in torch.split(vectors, _BLOCK):
            if not block.shape[0]:
                continue
            wide = block.detach().to("cpu", torch.float64)
            mean = wide.mean(dim=0)
            centred = wide - mean
            self._add(block.shape[0], mean, centred.T @ centred)

    def merge(self, other: Statistics) -> None:
        """Take in everything another one has taken in."""
        if other.mean.shape != self.mean.shape:
            raise ValueError(f"statistics of {other.mean.numel()} dimensions do not merge with {self.mean.numel()}")
        self._add(other.count, other.mean, other.scatter)

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        if count == 0:
            return
        total = self.count + count
        step = mean - self.mean
        self.scatter += scatter
        self.scatter.addr_(step, step, alpha=self.count * count / total)
        self.mean += step * (count / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance [D, D]. Raises ValueError below two vectors."""
        if self.count < 2:
            raise ValueError(f"{self.count} vectors have no covariance: need at least 2")
        return self.scatter / (self.count - 1)

    def state(self) -> dict[str, Tensor]:
        """``count``, ``mean`` and ``scatter``."""
        return {"count": torch.tensor([self.count]), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Statistics:
        """What :meth:`state` gave. Raises ValueError when shapes do not fit."""
        mean, scatter = state["mean"].double(), state["scatter"].double()
        if mean.ndim != 1 or scatter.shape != (mean.numel(), mean.numel()) or int(state["count"]) < 0:
            raise ValueError(f"no statistics: mean {tuple(mean.shape)}, scatter {tuple(scatter.shape)}")
        found = cls(mean.numel())
        found.count, found.mean, found.scatter = int(state["count"]), mean.clone(), scatter.clone()
        return found


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution: ``mean`` [D] and ``factor`` [R, D], float64, covariance = factor^T factor."""

    mean: Tensor
    factor: Tensor
    count: int | None = None
    """Vectors it was estimated from; None when it is known exactly."""
    triangular: bool = False
    """Whether ``factor`` is upper triangular, from Cholesky."""
    volume: float | None = None
    """Logarithm of the determinant of a square ``factor``, where its making told."""

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(self.factor.square().sum())


def of_moments(mean: Tensor, covariance: Tensor, count: int | None = None) -> Gaussian:
    """A Gaussian of mean [D] and covariance [D, D]; ``count`` samples bound its rank where known.

    Factor: Cholesky, the largest variances first, where the covariance is safely positive definite; otherwise from its
    eigenvectors, those at the level of rounding left out. Raises ValueError when shapes do not fit, values are not
    finite, or the matrix is not symmetric or clearly not positive semidefinite.
    """
    centre, table = mean.detach().to("cpu", torch.float64), covariance.detach().to("cpu", torch.float64)
    size = centre.numel()
    if centre.ndim != 1 or table.shape != (size, size):
        raise ValueError(f"mean {tuple(mean.shape)} and covariance {tuple(covariance.shape)}: need [D] and [D, D]")
    # one vector finds what is not finite and what is not symmetric: no asymmetry is orthogonal to it but by design
    probe = torch.linspace(1, 2, size, dtype=torch.float64).sin() if size else table.new_zeros(0)
    askew = float(torch.linalg.vector_norm(table @ probe - probe @ table))
    if not (math.isfinite(askew) and bool(torch.isfinite(centre).all())):
        raise ValueError("mean or covariance holds NaN or infinity: leave such vectors out and say how many")
    scale = float(table.diagonal().abs().max()) if size else 0.0
    if askew > 1e-6 * size * scale:
        raise ValueError("the covariance is not symmetric: pass a covariance matrix, not a factor of one")
    if count is None or count > size:
        found = _by_cholesky(centre, table, count)
        if found is not None:
            return found
    values, basis = torch.linalg.eigh((table + table.T) / 2)
    if float(values[0]) < -1e-6 * max(scale, float(values[-1])):
        raise ValueError(f"the covariance has the negative eigenvalue {float(values[0]):.3g}: it is no covariance")
    kept = values > size * _EPS * float(values[-1])
    if count is not None:
        kept[: max(0, size - (count - 1))] = False
    return Gaussian(centre, (basis[:, kept] * values[kept].sqrt()).T, count)


def of_samples(vectors: Tensor) -> Gaussian:
    """The Gaussian of vectors [N, D], N >= 2, with the unbiased covariance. Their order matters only to rounding."""
    if vectors.ndim != 2 or vectors.shape[0] < 2:
        raise ValueError(f"vectors have shape {tuple(vectors.shape)}: need [N, D] with N >= 2")
    count, size = vectors.shape
    if count > size:
        gathered = Statistics(size)
        gathered.update(vectors)
        return of_statistics(gathered)
    wide = vectors.detach().to("cpu", torch.float64)
    mean = wide.mean(dim=0)
    return Gaussian(mean, (wide - mean) / math.sqrt(count - 1), count)


def of_statistics(gathered: Statistics) -> Gaussian:
    """The Gaussian of what was gathered. Raises ValueError below two vectors."""
    return of_moments(gathered.mean, gathered.covariance, gathered.count)


def nuclear_norm(matrix: Tensor, volume: float | None = None, scale: float = 0.0) -> float:
    """Sum of the singular values of [M, N].

    The roots of the eigenvalues of ``W W^T`` cost a third of the singular values of ``W``, but an eigenvalue is only
    certain to the rounding of the largest one; they are used where that cannot show, relative to the sum or to
    ``scale``. For a square matrix whose log |det| is known as ``volume`` there is a finer test: the eigenvalues'
    logarithms must add up to twice that. What is missing is mostly the relative error of the smallest; if errors are to
    eigenvalues as roots are, which is how those of graded matrices come out, it gives the error of the sum.
    """
    if 0 in matrix.shape:
        return 0.0
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    # numpy sees that a product with its own transpose is symmetric, and does half of it; its LAPACK is the faster, too
    table = wide.contiguous().numpy()
    values = np.linalg.eigvalsh(_square(table))
    if values[0] > 0:
        roots = np.sqrt(values)
        total = float(roots.sum())
        error = float(np.linalg.norm(2 * _EPS * values[-1] / roots))
        if volume is not None and error > _TOLERANCE * total:
            logs = np.log(values)
            missing = abs(float(logs.sum()) - 2 * volume) + _EPS * float(np.abs(logs).sum())
            error = 0.5 * missing * math.sqrt(roots.size) / float(np.linalg.norm(1 / roots))
        if error <= _TOLERANCE * max(total, scale):
            return total
    return float(np.linalg.svd(table, compute_uv=False).sum())


def distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians, >= 0; exactly symmetric inputs give rounding only."""
    if first.mean.shape != second.mean.shape:
        raise ValueError(f"{first.mean.numel()} and {second.mean.numel()} dimensions: use one embedder for both sets")
    apart = float((first.mean - second.mean).square().sum())
    spread = first.trace + second.trace
    one, two = first.factor.numpy(), second.factor.numpy().T
    both = first.triangular and second.triangular
    product = torch.from_numpy(_upper_by_lower(one, two) if both else one @ two)
    volumes = [side.volume for side in (first, second) if side.volume is not None]
    volume = sum(volumes) if len(volumes) == 2 else None
    return max(0.0, apart + spread - 2 * nuclear_norm(product, volume, spread / 2))


def _by_cholesky(mean: Tensor, table: Tensor, count: int | None) -> Gaussian | None:
    """The Gaussian with a Cholesky factor; None where the covariance is not safely positive definite."""
    spread = table.diagonal()
    if not spread.numel():
        return None
    scale, least = float(spread.max()), float(spread.min())
    # below this the last pivots are rounding, and eigenvalues tell better which
    floor = 64 * table.shape[0] * _EPS * scale
    if least <= floor:
        return None
    order = spread.argsort(descending=True) if scale > _ALIKE * least else None
    lower = _cholesky(table if order is None else table[order][:, order])
    if lower is None or float(lower.diagonal().square().min()) <= floor:
        return None
    volume = float(lower.diagonal().log().sum())
    if order is None:
        return Gaussian(mean, lower.T, count, triangular=True, volume=volume)
    factor = torch.empty_like(lower)
    factor[:, order] = lower.T
    return Gaussian(mean, factor, count, volume=volume)


def _cholesky(table: Tensor) -> Tensor | None:
    """Lower factor of [D, D], by blocks of columns that stay in a core's cache; None where a pivot is not positive."""
    size, rows = table.shape[0], table.numpy()
    lower = torch.zeros_like(table, memory_format=torch.contiguous_format)
    known = lower.numpy()
    for start in range(0, size, _CACHED):
        stop = min(size, start + _CACHED)
        panel = torch.from_numpy(rows[start:, start:stop] - known[start:, :start] @ known[start:stop, :start].T)
        head, failed = torch.linalg.cholesky_ex(panel[: stop - start])
        if int(failed):
            return None
        lower[start:stop, start:stop] = head
        lower[stop:, start:stop] = torch.linalg.solve_triangular(head, panel[stop - start :].T, upper=False).T
    return lower


def _square(table: _Array) -> _Array:
    """``table @ table.T`` for :func:`numpy.linalg.eigvalsh`, which reads the lower half: its upper block is 0."""
    half = len(table) // 2
    out = np.zeros((len(table), len(table)))
    out[:half, :half] = table[:half] @ table[:half].T
    np.matmul(table[half:], table[:half].T, out=out[half:, :half])
    out[half:, half:] = table[half:] @ table[half:].T
    return out


def _upper_by_lower(upper: _Array, lower: _Array) -> _Array:
    """Product of triangular matrices [D, D], zeros left out in blocks: less than half of the work."""
    size = len(upper)
    out = np.empty((size, size))
    for start in range(0, size, _CACHED):
        stop = min(size, start + _CACHED)
        out[:stop, start:stop] = upper[:stop, start:] @ lower[start:, start:stop]
        for row in range(stop, size, _CACHED):
            end = row + _CACHED
            np.matmul(upper[row:end, row:], lower[row:, start:stop], out=out[row:end, start:stop])
    return out


class Transport:
    """The optimal map from one Gaussian to another, ``x -> m2 + T (x - m1)``, and the distance's derivative.

    With ``F1 F2^T = U S V^T`` it is ``T = F2^T V U^T F1^-T`` (Peyré and Cuturi, "Computational Optimal Transport",
    2019, remark 2.31, in factors). Where the source is singular, T is the map on the subspace its samples span.
    """

    def __init__(self, source: Gaussian, target: Gaussian) -> None:
        self.source, self.target = source, target
        left, self._singular, right = torch.linalg.svd(source.factor @ target.factor.T, full_matrices=False)
        through = target.factor.T @ right.T @ left.T
        rows, size = source.factor.shape
        if rows == size and (source.count is None or source.count > size):
            # of full rank, from Cholesky or all eigenvectors
            self.matrix = torch.linalg.solve(source.factor, through.T).T
        else:
            self.matrix = through @ torch.linalg.pinv(source.factor.T)

    @property
    def distance(self) -> float:
        """The squared distance, as :func:`distance` gives it."""
        apart = float((self.source.mean - self.target.mean).square().sum())
        return max(0.0, apart + self.source.trace + self.target.trace - 2 * float(self._singular.sum()))

    def cost(self, vectors: Tensor) -> Tensor:
        """``|x - m2 - T (x - m1)|^2`` of vectors [N, D] -> [N]: what moving each costs.

        Over the samples of a full-rank source the mean is the distance, up to the N - 1 of its covariance.
        """
        out = []
        for block in torch.split(vectors, _BLOCK):
            wide = block.detach().to("cpu", torch.float64)
            out.append((wide - self.target.mean - (wide - self.source.mean) @ self.matrix.T).square().sum(dim=1))
        return torch.cat(out) if out else torch.zeros(0, dtype=torch.float64)

    def influence(self, vectors: Tensor) -> Tensor:
        """Influence function of the distance at vectors [N, D] of the source -> [N], mean about 0 over its samples.

        ``2 (m1 - m2).(x - m1) + (x - m1)^T (I - T) (x - m1) - tr (I - T) C1``: the derivatives of the distance are
        ``2 (m1 - m2)`` by the mean and ``I - T`` by the covariance.
        """
        base = self.source.trace - float(self._singular.sum())
        shift = 2 * (self.source.mean - self.target.mean)
        out = []
        for block in torch.split(vectors, _BLOCK):
            centred = block.detach().to("cpu", torch.float64) - self.source.mean
            moved = centred - centred @ self.matrix.T
            out.append(centred @ shift + (centred * moved).sum(dim=1) - base)
        return torch.cat(out) if out else torch.zeros(0, dtype=torch.float64)

    def influence_of(self, group: Statistics) -> float:
        """Sum of :meth:`influence` over the vectors of a group, from its statistics alone."""
        step = group.mean - self.source.mean
        moments = group.scatter + group.count * torch.outer(step, step)
        shift = 2 * (self.source.mean - self.target.mean)
        second = float(moments.trace() - (self.matrix * moments).sum())
        base = self.source.trace - float(self._singular.sum())
        return group.count * float(shift @ step) + second - group.count * base
