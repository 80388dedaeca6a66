"""Products of a decoding step at a chosen precision, as plain functions of rows [M, D] -> [M, N] in float32."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from .quant import QuantLinear

#: Precisions of weights.
PRECISIONS: tuple[str, ...] = ("fp32", "bf16", "int8")
Product = Callable[[Tensor], Tensor]


def product(weight: Tensor, precision: str) -> Product:
    """Rows [M, D] -> rows times ``weight`` [N, D] transposed.

    fp32 uses ``weight`` as it is, without a copy. bf16 rounds both, sums in float32. int8 is
    :class:`descant.lm.quant.QuantLinear`, whose rows do not see each other.
    """
    weight = weight.detach()
    if precision == "fp32":
        whole = weight.float()
        return lambda x: F.linear(x, whole)
    if precision == "bf16":
        half = weight.bfloat16()
        return lambda x: F.linear(x.bfloat16(), half).float()
    if precision == "int8":
        return QuantLinear.of(weight).rows()
    raise ValueError(f"unknown precision {precision!r}: {', '.join(PRECISIONS)}")


def stored(precision: str) -> int:
    """Bytes of one weight."""
    return {"fp32": 4, "bf16": 2, "int8": 1}[precision]


def on_cpu(weight: Tensor) -> None:
    """Refuse weights that the engines cannot read."""
    if weight.device.type != "cpu":
        raise ValueError(f"the fast engines decode on the CPU, these weights are on {weight.device}: move them first")


def each_row(work: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``work`` on one row of x [R, ...] after another, so that no row's result depends on how many there are."""
    return torch.cat([work(x[row : row + 1]) for row in range(len(x))])
