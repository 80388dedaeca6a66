"""Least-squares filters between signals: correlations by FFT, and the block Toeplitz systems they make, solved fast.

Distortion filters of BSS Eval are the solution of a normal equation whose matrix is block Toeplitz: 4 stereo sources
and 512 taps give 4096 unknowns, but only 512 different blocks of 8 by 8. The Levinson recursion in its block form
(Whittle, "On the fitting of multivariate autoregressions", 1963) finds the first and the last block column of the
inverse in O(taps^2), the Gohberg-Semencul formula (in Heinig's block form, 1974) applies the whole inverse from these
two by FFT, and conjugate gradients preconditioned with it remove what rounding left. No dense matrix is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Loading of the diagonal, relative to its largest entry, tried in turn until the recursion holds.
_LOADING = (0.0, 1e-15, 1e-13, 1e-11, 1e-9)
#: Energy-norm error at which a solution is as good as double precision lets it be.
_ENOUGH = 1e-13


def correlations(left: Tensor, right: Tensor, lags: int) -> Tensor:
    """Sums over time of ``left`` times ``right`` delayed by 0 to ``lags - 1`` samples.

    left: [M, T], right: [N, T] -> float64 [lags, M, N], entry m, a, b = sum over t of left[a, t] * right[b, t + m].
    Signals are cut into blocks, so neither the transform nor the memory grows with T.
    """
    length = left.shape[-1]
    size = 1 << max(13, (4 * lags - 1).bit_length())
    block = size - lags
    total = torch.zeros(size // 2 + 1, left.shape[0], right.shape[0], dtype=torch.complex128)
    # so many blocks at a time that their spectra take about 64 MB
    stride = block * max(1, (1 << 22) // (size * (left.shape[0] + right.shape[0])))
    for start in range(0, length, stride):
        stop = min(start + stride, length)
        count = -(-(stop - start) // block)
        parts = left[:, start:stop].double()
        parts = torch.nn.functional.pad(parts, (0, count * block - parts.shape[-1]))
        first = torch.fft.rfft(parts.reshape(-1, count, block), size)
        ahead = right[:, start : min(start + count * block + lags, length)].double()
        ahead = torch.nn.functional.pad(ahead, (0, count * block + lags - ahead.shape[-1]))
        second = torch.fft.rfft(ahead.unfold(-1, size, block), size)
        total += first.conj().permute(2, 0, 1) @ second.permute(2, 1, 0)
    out: Tensor = torch.fft.irfft(total, size, dim=0)[:lags]
    return out


def solve(blocks: Tensor, right: Tensor, rounds: int = 80) -> Tensor:
    """Solve block Toeplitz systems T x = d with T positive semidefinite, block (i, k) = A[i - k], A[-m] = A[m]^T.

    blocks: A [S, L, n, n], right: d [S, L, n, m] -> x [S, L, n, m], all float64; S systems at once. A singular system
    (two equal channels) gets a solution with the same product T x: d must lie in the range of T, as it does for
    normal equations.
    """
    best: Tensor | None = None
    error = float("inf")
    # equal channels are singular at once: no need to let the recursion find out
    spread = torch.linalg.eigvalsh(blocks[:, 0])
    equal = bool((spread[:, 0] <= 1e-13 * spread[:, -1]).any())
    for loading in _LOADING[3 if equal else 0 :]:
        inverse = _Inverse.build(blocks, loading)
        if inverse is None:
            continue
        found, left = _refine(blocks, right, inverse, rounds)
        if left < error:
            best, error = found, left
        if error <= 1e-9:
            break
    if best is None:
        raise ValueError("the references are numerically zero: leave silent sources out")
    return best


def product(blocks: Tensor, x: Tensor) -> Tensor:
    """Multiply with the block Toeplitz matrix of :func:`solve`: A [S, L, n, n], x [S, L, n, m] -> T x [S, L, n, m]."""
    return _Circulant.of(blocks).apply(x)


class _Circulant:
    """T embedded in a circulant of twice the size, kept as its spectrum."""

    def __init__(self, spectrum: Tensor, size: int) -> None:
        self.spectrum, self.size = spectrum, size

    @staticmethod
    def of(blocks: Tensor) -> _Circulant:
        taps = blocks.shape[1]
        size = 2 * taps
        whole = torch.zeros(blocks.shape[0], size, *blocks.shape[2:], dtype=torch.float64)
        whole[:, :taps] = blocks
        whole[:, taps + 1 :] = blocks[:, 1:].flip(1).transpose(-1, -2)
        return _Circulant(torch.fft.rfft(whole, dim=1), size)

    def apply(self, x: Tensor) -> Tensor:
        spectrum = self.spectrum @ torch.fft.rfft(x, self.size, dim=1)
        out: Tensor = torch.fft.irfft(spectrum, self.size, dim=1)[:, : x.shape[1]]
        return out


class _Inverse:
    """T^-1 by its first and last block columns (Gohberg-Semencul-Heinig): L1 a L1^T - L2 b L2^T."""

    def __init__(self, first: Tensor, last: Tensor) -> None:
        self.size = 2 * first.shape[1]
        self.taps = first.shape[1]
        shifted = torch.nn.functional.pad(last[:, :-1], (0, 0, 0, 0, 1, 0))
        self.one = torch.fft.rfft(first, self.size, dim=1)
        self.two = torch.fft.rfft(shifted, self.size, dim=1)
        self.head = torch.linalg.inv(first[:, :1])
        self.tail = torch.linalg.inv(last[:, -1:])

    @staticmethod
    def build(blocks: Tensor, loading: float) -> _Inverse | None:
        """Run the recursion; None when rounding made a system indefinite on the way."""
        top = blocks[:, 0].diagonal(dim1=-2, dim2=-1).amax(dim=-1)
        if float(top.min()) <= 0:
            return None
        eye = torch.eye(blocks.shape[-1], dtype=torch.float64)
        blocks = blocks.clone()
        blocks[:, 0] += loading * top[:, None, None] * eye
        columns = _levinson(blocks)
        return None if columns is None else _Inverse(*columns)

    def apply(self, x: Tensor) -> Tensor:
        """x [S, L, n, m] -> T^-1 x."""
        spectrum = torch.fft.rfft(x, self.size, dim=1)
        out = torch.zeros_like(x)
        for side, middle, sign in ((self.one, self.head, 1.0), (self.two, self.tail, -1.0)):
            # the transpose of a lower triangular Toeplitz matrix correlates
            inner = torch.fft.irfft(side.mH @ spectrum, self.size, dim=1)[:, : self.taps]
            outer = side @ torch.fft.rfft(middle @ inner, self.size, dim=1)
            out += sign * torch.fft.irfft(outer, self.size, dim=1)[:, : self.taps]
        return out


def _levinson(blocks: Tensor) -> tuple[Tensor, Tensor] | None:
    """First and last block column of the inverse, [S, L, n, n] each; None when a pivot is not positive."""
    systems, taps, n, _ = blocks.shape
    eye = torch.eye(n, dtype=torch.float64)
    # rows of blocks, flattened so that a sum over lags is one matrix product
    ahead = blocks.permute(0, 2, 1, 3).flip(2).reshape(systems, n, taps * n)  # A[L-1] .. A[0]
    behind = blocks.permute(0, 3, 1, 2).reshape(systems, n, taps * n)  # A[0]^T A[1]^T ..
    forward = torch.zeros(systems, taps * n, n, dtype=torch.float64)
    backward = torch.zeros_like(forward)
    start, info = torch.linalg.inv_ex(blocks[:, 0])
    if int(info.abs().max()) != 0 or not torch.isfinite(start).all():
        return None
    forward[:, :n] = start
    backward[:, :n] = start
    for k in range(1, taps):
        f, b = forward[:, : k * n], backward[:, : k * n]
        ef = ahead[:, :, (taps - 1 - k) * n : (taps - 1) * n] @ f
        eb = behind[:, :, n : (k + 1) * n] @ b
        alpha, bad = torch.linalg.inv_ex(eye - eb @ ef)
        delta, worse = torch.linalg.inv_ex(eye - ef @ eb)
        if k % 32 == 0 and not _sound(bad, worse, forward[:, :n]):
            return None
        old_f, old_b = f.clone(), b.clone()
        forward[:, : k * n] = old_f @ alpha
        forward[:, n : (k + 1) * n] -= old_b @ (ef @ alpha)
        backward[:, n : (k + 1) * n] = old_b @ delta
        backward[:, :n] = 0
        backward[:, : k * n] -= old_f @ (eb @ delta)
    first = forward.reshape(systems, taps, n, n)
    last = backward.reshape(systems, taps, n, n)
    ends = torch.stack([first[:, 0], last[:, -1]])
    if not torch.isfinite(ends).all() or int(torch.linalg.cholesky_ex((ends + ends.mT) / 2)[1].max()) != 0:
        return None
    return first, last


def _sound(bad: Tensor, worse: Tensor, pivot: Tensor) -> bool:
    """Whether the recursion still runs on positive pivots."""
    singular = int(bad.abs().max()) or int(worse.abs().max())
    return not singular and bool(torch.isfinite(pivot).all()) and float(pivot.diagonal(dim1=1, dim2=2).min()) > 0


def _refine(blocks: Tensor, right: Tensor, inverse: _Inverse, rounds: int) -> tuple[Tensor, float]:
    """Preconditioned conjugate gradients, one run per column, from the direct solution; also the error left.

    The error is what counts for energies: the largest of sqrt(r^T T^-1 r / d^T T^-1 d), in the inverse at hand.
    """
    matrix = _Circulant.of(blocks)
    axes = (1, 2)
    scale = (right * inverse.apply(right)).sum(axes).clamp(min=1e-300)
    x = inverse.apply(right)
    residual = right - matrix.apply(x)
    z = inverse.apply(residual)
    rho = (residual * z).sum(axes)
    best, error = x, float((rho.abs() / scale).max().sqrt())
    way, waited = z, 0
    for _ in range(rounds):
        if error <= _ENOUGH or not torch.isfinite(rho).all():
            break
        image = matrix.apply(way)
        bend = (way * image).sum(axes)
        step = torch.where(bend > 0, rho / bend.clamp(min=1e-300), 0.0)[:, None, None]
        x = x + step * way
        residual = residual - step * image
        z = inverse.apply(residual)
        new = (residual * z).sum(axes)
        left = float((new.abs() / scale).max().sqrt())
        if left < error:
            best, error, waited = x, left, 0
        elif (waited := waited + 1) > 8:
            break
        way = z + (new / rho.where(rho != 0, 1.0))[:, None, None] * way
        rho = new
    return best, error
