"""SEANet on a CPU: the same weights, arranged for speed, for inference on one signal at a time.

What costs time on one core is not only arithmetic. Here weight normalisation is folded once; signals lie time-major
[T, C], so that padding is a few rows written beside the activation's output, a strided convolution and a transposed one
are two matrix products over shifted views with nothing moved, and a 1x1 convolution is one product that accumulates
into the shortcut. In half precision (bfloat16) the first and the last layer, which touch the samples, stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .seanet import Conv, Recurrent, Residual, Seanet, Transposed, pad

_LOG2_E = 1.4426950408889634
#: Elements worked on at a time where several passes follow each other.
_TILE = 1 << 16

#: One layer: [T, C] -> [T', C'].
Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """A network in three parts, split around its LSTM, so that the LSTM may run on several signals at once."""

    front: Sequence[Layer]
    lstm: nn.LSTM | None
    back: Sequence[Layer]

    @torch.no_grad()
    def __call__(self, signals: Sequence[Tensor]) -> list[Tensor]:
        """Signals [T, C], each on its own -> float32 [T', C'] each. Equal lengths share one pass of the LSTM."""
        rows = [_run(self.front, signal.float()) for signal in signals]
        if self.lstm is not None:
            rows = _recur(self.lstm, rows)
        return [_run(self.back, row).float() for row in rows]


def plan(net: Seanet, dtype: torch.dtype = torch.float32) -> Plan:
    """Arrange ``net``'s present weights; ``dtype``: float32 or bfloat16. Later changes of the weights go unseen."""
    layers: list[Layer] = []
    cut, lstm, activate = None, None, False
    last = len(net.layers) - 1
    for index, layer in enumerate(net.layers):
        if isinstance(layer, nn.ELU):
            activate = True
            continue
        inner = torch.float32 if index in (0, last) else dtype
        if isinstance(layer, Recurrent):
            cut, lstm = len(layers), _copy(layer.lstm, dtype)
        elif isinstance(layer, Residual):
            layers.append(_Residual(layer, dtype))
        elif isinstance(layer, Conv):
            layers.append(_Conv(layer, inner, activate, dtype))
        elif isinstance(layer, Transposed):
            layers.append(_Transposed(layer, dtype))
        activate = False
    return Plan(layers[:cut], lstm, layers[len(layers) if cut is None else cut :])


def _run(layers: Sequence[Layer], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _recur(lstm: nn.LSTM, rows: list[Tensor]) -> list[Tensor]:
    """[T, C] each -> [T, C] each; neighbours of equal length go together."""
    out: list[Tensor] = []
    while len(out) < len(rows):
        start = len(out)
        stop = start + 1
        while stop < len(rows) and rows[stop].shape == rows[start].shape:
            stop += 1
        x = torch.stack(rows[start:stop], 1)
        out.extend((lstm(x)[0] + x).unbind(1))
    return [row.contiguous() for row in out]


def _copy(lstm: nn.LSTM, dtype: torch.dtype) -> nn.LSTM:
    twin = nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers)
    twin.load_state_dict(lstm.state_dict())
    return twin.to(dtype).eval().requires_grad_(False)


def _elu(x: Tensor, left: int, right: int, reflect: bool) -> Tensor:
    """ELU of x [T, C] with padding around it: [left + T + right, C]."""
    if reflect and x.shape[0] <= max(left, right):
        return pad(_activate(x, torch.empty_like(x)).t(), left, right, True).t().contiguous()
    out = x.new_empty(left + x.shape[0] + right, x.shape[1])
    _activate(x, out[left : left + x.shape[0]])
    return _border(out, left, right, reflect)


def _activate(x: Tensor, out: Tensor) -> Tensor:
    """ELU of x [T, C] into ``out``, which may be x itself."""
    if x.dtype == torch.float32:
        torch.ops.aten.elu.out(x, out=out)
        return out
    # torch's own takes longer in bfloat16 than in float32; this is exact to a rounding, and stays in the cache
    for part in _tiles(x):
        wide = x[part].float()
        curve = (wide * _LOG2_E).clamp_(max=0).exp2_().sub_(1)
        out[part] = torch.maximum(wide, curve, out=wide)
    return out


def _tiles(x: Tensor) -> Iterator[slice]:
    """Runs of rows of x [T, C] that fit the cache together with what is made of them."""
    rows = max(1, _TILE // x.shape[1])
    return (slice(start, start + rows) for start in range(0, x.shape[0], rows))


def _pad(x: Tensor, left: int, right: int, reflect: bool) -> Tensor:
    """x [T, C] -> [left + T + right, C]."""
    if reflect and x.shape[0] <= max(left, right):
        return pad(x.t(), left, right, True).t().contiguous()
    out = x.new_empty(left + x.shape[0] + right, x.shape[1])
    out[left : left + x.shape[0]] = x
    return _border(out, left, right, reflect)


def _border(out: Tensor, left: int, right: int, reflect: bool) -> Tensor:
    """Fill the first ``left`` and the last ``right`` rows from the rows between."""
    end = out.shape[0] - right
    if reflect:
        out[:left] = out[left + 1 : 2 * left + 1].flip(0)
        out[end:] = out[end - 1 - right : end - 1].flip(0)
    else:
        out[:left] = 0
        out[end:] = 0
    return out


class _Norm:
    """GroupNorm with one group: over all of [T, C], then a scale and a shift per channel."""

    def __init__(self, layer: Any) -> None:
        self.weight, self.bias = layer.norm.weight.detach().float(), layer.norm.bias.detach().float()
        self.eps = float(layer.norm.eps)

    def __call__(self, x: Tensor) -> Tensor:
        flat = F.layer_norm(x.view(-1), (x.numel(),), eps=self.eps).view_as(x)
        for part in _tiles(flat):
            wide = flat[part].float()  # itself when it is float32 already
            torch.addcmul(self.bias, wide, self.weight, out=wide)
            if wide.dtype != flat.dtype:
                flat[part] = wide
        return flat


class _Conv:
    """A convolution, an activation before it if so asked; ``dtype`` of the work, ``leave`` of the result."""

    def __init__(self, layer: Conv, dtype: torch.dtype, activate: bool, leave: torch.dtype) -> None:
        weight = layer.conv.folded().detach().to(dtype)  # [C', C, k]
        self.bias = layer.conv.bias.detach().to(dtype)
        self.layer, self.dtype, self.activate, self.leave = layer, dtype, activate, leave
        self.norm = _Norm(layer) if layer.group_norm else None
        out, enter, kernel = weight.shape
        self.shape = weight.shape
        if kernel == 1:
            self.kind, self.weight = self._point, weight[:, :, 0].t().contiguous()
        elif kernel == 2 * layer.stride and layer.stride > 1 and enter > 128:
            self.kind = self._halves
            self.weight = weight.permute(2, 1, 0).reshape(2, layer.stride * enter, out).contiguous()
        elif layer.stride == 1 and layer.dilation == 1 and out <= 4:
            self.kind, self.weight = self._fan, weight.permute(1, 2, 0).reshape(enter, kernel * out).contiguous()
        elif layer.stride == 1 and layer.dilation == 1 and (enter <= 4 or kernel > 5):
            self.kind, self.weight = self._unfold, weight.permute(2, 1, 0).reshape(kernel * enter, out).contiguous()
        else:
            self.kind = self._image
            self.weight = weight[:, :, None].contiguous(memory_format=torch.channels_last)

    def __call__(self, x: Tensor) -> Tensor:
        borders = self.layer.borders(x.shape[0])
        x = x.to(self.dtype)
        x = (_elu if self.activate else _pad)(x, *borders, self.layer.reflect)
        y = self.kind(x)
        return (y if self.norm is None else self.norm(y)).to(self.leave)

    def _point(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)

    def _halves(self, x: Tensor) -> Tensor:
        """Kernel of two strides: each window is two neighbouring blocks of ``stride`` rows."""
        blocks = x.view(-1, self.layer.stride * x.shape[1])
        return torch.addmm(self.bias, blocks[:-1], self.weight[0]).addmm_(blocks[1:], self.weight[1])

    def _unfold(self, x: Tensor) -> Tensor:
        """Few inputs or few frames: the windows written out, one product."""
        width, kernel = x.shape[1], self.shape[2]
        windows = x.as_strided((x.shape[0] - kernel + 1, kernel * width), (width, 1))
        return torch.addmm(self.bias, windows.contiguous(), self.weight)

    def _fan(self, x: Tensor) -> Tensor:
        """Few outputs: every row times every tap, then the diagonals summed."""
        out, _, kernel = self.shape
        taps = x @ self.weight  # [T + k - 1, k * C']
        diagonal = taps.as_strided((x.shape[0] - kernel + 1, kernel, out), (kernel * out, (kernel + 1) * out, 1))
        return diagonal.sum(1) + self.bias

    def _image(self, x: Tensor) -> Tensor:
        """As a picture one pixel high with its channels last."""
        y = F.conv2d(x.t()[None, :, None], self.weight, self.bias, (1, self.layer.stride),
                     dilation=(1, self.layer.dilation))  # fmt: skip
        return y[0, :, 0].t().contiguous()


class _Transposed:
    """ELU, then a transposed convolution: each output block of ``stride`` rows comes from two neighbouring rows."""

    def __init__(self, layer: Transposed, dtype: torch.dtype) -> None:
        weight = layer.conv.folded().detach().to(dtype)  # [C, C', 2 s]
        enter, out, _ = weight.shape
        # row t of the input reaches blocks t and t + 1
        self.weight = weight.view(enter, out, 2, layer.stride).permute(2, 0, 3, 1).reshape(2, enter, -1).contiguous()
        self.bias = layer.conv.bias.detach().to(dtype).repeat(layer.stride)
        self.norm = _Norm(layer) if layer.group_norm else None
        self.stride, self.right, self.out = layer.stride, layer.right, out

    def __call__(self, x: Tensor) -> Tensor:
        x = _elu(x, 1, 1, False)
        y = torch.addmm(self.bias, x[1:], self.weight[0]).addmm_(x[:-1], self.weight[1]).view(-1, self.out)
        y = y if self.norm is None else self.norm(y)
        return y[self.stride - self.right : len(y) - self.right]


class _Residual:
    """Two convolutions, the second accumulating into the shortcut."""

    def __init__(self, layer: Residual, dtype: torch.dtype) -> None:
        _, first, _, second = layer.block
        if not isinstance(first, Conv) or not isinstance(second, Conv):
            raise TypeError("a residual block holds two convolutions")
        self.first = _Conv(first, dtype, True, dtype)
        self.second = _Conv(second, dtype, True, dtype)
        self.shortcut = _Conv(layer.shortcut, dtype, False, dtype) if isinstance(layer.shortcut, Conv) else None
        self.bias = self.second.bias + (0 if self.shortcut is None else self.shortcut.bias)

    def __call__(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.second.norm is not None:
            y = self.second(y)
            return y.add_(x if self.shortcut is None else self.shortcut(x))
        _activate(y, y)
        if self.shortcut is None:
            x = x.add_(self.bias)  # what this layer was given, nobody else needs
        else:
            x = torch.addmm(self.bias, x, self.shortcut.weight)
        return x.addmm_(y, self.second.weight)
