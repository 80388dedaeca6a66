"""Linear layers with 8-bit weights: a quarter of the memory traffic, of which a decoding step on a CPU consists.

Weights are whole numbers with one scale per output row. Activations are brought to a largest magnitude of 1 row by row
and rounded to 8 bits; products are summed in whole numbers. So a row's result depends on nothing but that row: the
tokens of a piece are the same whatever is generated beside it, which per-tensor ranges (the usual dynamic quantisation)
do not give. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 2; Dettmers et al., "LLM.int8()", 2022, section 2.1 for the row-wise scales.

Three backends behind one layer: ``fbgemm`` (x86), ``pack`` (bfloat16 activations, other processors) and ``plain``
(weights expanded to float32: exact to the stored numbers, saves memory on disk only).
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BACKENDS: tuple[str, ...] = ("fbgemm", "pack", "plain")
#: Columns that pin the range of the activations; a few, so that rows stay aligned.
_PINS = 4
#: Up to so many rows the widened activations keep their place in memory from call to call: a decoding step's.
_KEPT_ROWS = 64
#: Columns that the kernel of ``pack`` takes at once.
_VECTOR = 64
_INF = float("inf")


@functools.lru_cache(maxsize=1)
def default_backend() -> str:
    """The fastest backend that this torch and this processor have."""
    if "fbgemm" in torch.backends.quantized.supported_engines and torch.cpu._is_avx512_supported():
        return "fbgemm"
    return "pack" if hasattr(torch, "_weight_int8pack_mm") else "plain"


def _dot_products() -> bool:
    """Whether the processor sums products of 8-bit numbers in 32 bits at once (VNNI)."""
    known = getattr(torch.cpu, "_is_vnni_supported", None)
    return bool(known is not None and known())


class QuantLinear(nn.Module):
    """``y = x W^T + b`` with W of 8 bits; made by :meth:`of` or :func:`quantise`. For inference: no gradients."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None, backend: str | None = None) -> None:
        """weight: int8 [N, D]; scale: float32 [N]; bias: float32 [N] or None."""
        super().__init__()
        if weight.dim() != 2 or weight.dtype != torch.int8 or scale.shape != weight.shape[:1]:
            raise ValueError(
                f"need weights int8 [N, D] and scales [N], got {weight.dtype} {list(weight.shape)}, {list(scale.shape)}"
            )
        backend = default_backend() if backend is None else backend
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: {', '.join(BACKENDS)}")
        self.out_features, self.in_features = weight.shape
        self.backend = backend
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.float())
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self._run: Callable[[Tensor], Tensor] | None = None

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None = None, backend: str | None = None) -> QuantLinear:
        """Round a weight [N, D] to 8 bits, each row by its own largest magnitude."""
        whole, scale = rounded(weight)
        return QuantLinear(whole, scale, bias, backend)

    def rows(self) -> Callable[[Tensor], Tensor]:
        """What :meth:`forward` runs on float32 rows [M, D] -> [M, N], without its bias: for loops that count calls."""
        if self._run is None:
            made = {"fbgemm": self._fbgemm, "pack": self._pack, "plain": self._plain}
            self._run = made[self.backend]()
        return self._run

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., N], in the type of x."""
        run = self.rows()
        rows = x.reshape(-1, self.in_features)
        out = run(rows.detach().float())
        if self.bias is not None:
            out = out + self.bias
        return out.to(x.dtype).reshape(*x.shape[:-1], self.out_features)

    def _fbgemm(self) -> Callable[[Tensor], Tensor]:
        size = self.in_features
        padded = F.pad(self.weight, (0, _PINS))
        with warnings.catch_warnings():
            # torch announces that these constructors will go; the layer then falls to another backend
            warnings.simplefilter("ignore")
            whole = torch._make_per_channel_quantized_tensor(
                padded, self.scale.double(), torch.zeros(len(padded), dtype=torch.long), 0
            )
            packed = torch.ops.quantized.linear_prepack(whole, None)

        kept = threading.local()
        # without the dot-product instructions, products of full 8 bits overflow 16: 7 bits do not
        coarse = not _dot_products()
        linear = torch.ops.quantized.linear_dynamic

        def room(x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.inference_mode(False):
                wide = torch.empty(len(x), size + _PINS)
                # these columns meet zero weights; they only make every row span -1 to 1, so that all share one range
                wide[:, size::2] = 1.0
                wide[:, size + 1 :: 2] = -1.0
                return wide, wide[:, :size]

        def run(x: Tensor) -> Tensor:
            top = torch.linalg.vector_norm(x, _INF, 1, True).clamp_(min=1e-20)
            rows = len(x)
            if rows <= _KEPT_ROWS:
                rooms: dict[int, tuple[Tensor, Tensor]] = cast(Any, kept.__dict__)
                wide, inner = rooms.get(rows) or rooms.setdefault(rows, room(x))
            else:
                wide, inner = room(x)
            torch.div(x, top, out=inner)
            out: Tensor = linear(wide, packed, coarse)
            return out.mul_(top)

        return run

    def _pack(self) -> Callable[[Tensor], Tensor]:
        # the kernel reads whole vectors, beyond the end of shorter rows too: it has crashed on them
        spare = -self.in_features % _VECTOR
        weight, scale = F.pad(self.weight, (0, spare)).contiguous(), self.scale.bfloat16()
        if not spare:
            return lambda x: torch._weight_int8pack_mm(x.bfloat16(), weight, scale).float()
        return lambda x: torch._weight_int8pack_mm(F.pad(x.bfloat16(), (0, spare)), weight, scale).float()

    def _plain(self) -> Callable[[Tensor], Tensor]:
        weight = self.weight.float() * self.scale[:, None]
        return lambda x: F.linear(x, weight)


def rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [N, D] -> whole numbers int8 [N, D] and scales [N] whose product is nearest to it row by row."""
    if weight.dim() != 2 or not bool(torch.isfinite(weight).all()):
        raise ValueError(f"need a finite matrix of weights, got {list(weight.shape)}")
    scale = weight.detach().float().abs().amax(dim=1).clamp(min=1e-12) / 127
    return (weight.detach().float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def quantise(model: nn.Module, backend: str | None = None, keep: Callable[[str], bool] | None = None) -> nn.Module:
    """Replace every ``nn.Linear`` of ``model``, in place, by a :class:`QuantLinear`; returns it in evaluation mode.

    keep: says of a layer's dotted name whether it stays as it is. Embeddings, norms and convolutions always stay.
    """
    for name, module in list(model.named_modules()):
        for child_name, child in list(module.named_children()):
            full = f"{name}.{child_name}" if name else child_name
            if type(child) is nn.Linear and not (keep is not None and keep(full)):
                setattr(module, child_name, QuantLinear.of(child.weight, child.bias, backend))
    return model.eval()
