"""SEANet, the convolutional encoder and decoder of EnCodec (Défossez et al., 2022, section 3.1), batched and trainable.

Layers carry the names of the transformers library's files, so that a state dict goes in and out unchanged; index N of
``layers`` counts activations too. :mod:`descant.codec.seanet_cpu` runs the same weights faster on a CPU.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .official import EncodecConfig


class Weights(nn.Module):
    """Weight and bias of a convolution, the weight either plain or as magnitude and direction per row.

    Weight normalisation (Salimans & Kingma, 2016): w = g v / ||v||, the norm over all but the first dimension. That is
    the output channel of a convolution and the input channel of a transposed one.
    """

    def __init__(self, shape: tuple[int, int, int], biases: int, normed: bool) -> None:
        super().__init__()
        weight = torch.empty(shape)
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        if normed:
            self.weight_g = nn.Parameter(weight.flatten(1).norm(dim=1)[:, None, None])
            self.weight_v = nn.Parameter(weight)
        else:
            self.weight = nn.Parameter(weight)
        bound = 1 / math.sqrt(shape[1] * shape[2])
        self.bias = nn.Parameter(torch.empty(biases).uniform_(-bound, bound))
        self.normed = normed

    def folded(self) -> Tensor:
        """The weight itself."""
        # the very function the reference implementations call, so that equal files give equal weights
        return torch._weight_norm(self.weight_v, self.weight_g, 0) if self.normed else self.weight


class Conv(nn.Module):
    """A convolution that pads so that every window is full, optionally normalised over channels and time."""

    def __init__(self, config: EncodecConfig, enter: int, leave: int, kernel: int, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.conv = Weights((leave, enter, kernel), leave, not config.group_norm)
        if config.group_norm:
            self.norm = nn.GroupNorm(1, leave)
        self.causal, self.reflect, self.group_norm = config.causal, config.reflect, config.group_norm
        self.kernel, self.stride, self.dilation = kernel, stride, dilation

    def borders(self, length: int) -> tuple[int, int]:
        """Samples to add on the left and on the right of ``length``."""
        span = (self.kernel - 1) * self.dilation + 1
        total = span - self.stride
        frames = math.ceil((length - span + total) / self.stride)
        extra = frames * self.stride + span - total - length
        if self.causal:
            return total, extra
        return total - total // 2, total // 2 + extra

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C', ceil(T / stride)]."""
        x = pad(x, *self.borders(x.shape[-1]), self.reflect)
        x = F.conv1d(x, self.conv.folded(), self.conv.bias, self.stride, dilation=self.dilation)
        return self.norm(x) if self.group_norm else x


class Transposed(nn.Module):
    """A transposed convolution with a kernel of two strides, cut to ``stride`` times its input."""

    def __init__(self, config: EncodecConfig, enter: int, leave: int, stride: int) -> None:
        super().__init__()
        self.conv = Weights((enter, leave, 2 * stride), leave, not config.group_norm)
        if config.group_norm:
            self.norm = nn.GroupNorm(1, leave)
        self.group_norm, self.stride = config.group_norm, stride
        # the surplus is kernel - stride = stride samples
        self.right = math.ceil(stride * config.trim_right_ratio) if config.causal else stride // 2

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C', T * stride]."""
        x = F.conv_transpose1d(x, self.conv.folded(), self.conv.bias, self.stride)
        x = self.norm(x) if self.group_norm else x  # over the surplus, too
        return x[..., self.stride - self.right : x.shape[-1] - self.right]


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, config: EncodecConfig, width: int, dilation: int) -> None:
        super().__init__()
        narrow = width // config.compress
        self.block = nn.ModuleList([
            nn.ELU(), Conv(config, width, narrow, config.residual_kernel, dilation=dilation),
            nn.ELU(), Conv(config, narrow, width, 1),
        ])  # fmt: skip
        self.shortcut = Conv(config, width, width, 1) if config.conv_shortcut else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C, T]."""
        y = x
        for layer in self.block:
            y = layer(y)
        out: Tensor = self.shortcut(x) + y
        return out


class Recurrent(nn.Module):
    """An LSTM over time with a shortcut."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, layers)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C, T]."""
        x = x.permute(2, 0, 1)
        y: Tensor = self.lstm(x)[0] + x
        return y.permute(1, 2, 0)


class Seanet(nn.Module):
    """A chain of layers."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def chain(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C', T'], the first and the last layer's channels."""
        for layer in self.layers:
            x = layer(x)
        return x


class Encoder(Seanet):
    """Samples to latent frames."""

    def __init__(self, config: EncodecConfig) -> None:
        width = config.filters
        layers: list[nn.Module] = [Conv(config, config.channels, width, config.kernel)]
        for ratio in reversed(config.ratios):
            layers += [Residual(config, width, config.dilation_growth**j) for j in range(config.residual_layers)]
            layers += [nn.ELU(), Conv(config, width, 2 * width, 2 * ratio, stride=ratio)]
            width *= 2
        if config.lstm_layers:
            layers.append(Recurrent(width, config.lstm_layers))
        super().__init__([*layers, nn.ELU(), Conv(config, width, config.width, config.last_kernel)])

    def forward(self, wav: Tensor) -> Tensor:
        """wav: [B, C, T] -> latent [B, F, D], F = ceil(T / hop)."""
        return self.chain(wav).transpose(1, 2)


class Decoder(Seanet):
    """Latent frames to samples."""

    def __init__(self, config: EncodecConfig) -> None:
        width = config.filters << len(config.ratios)
        layers: list[nn.Module] = [Conv(config, config.width, width, config.kernel)]
        if config.lstm_layers:
            layers.append(Recurrent(width, config.lstm_layers))
        for ratio in config.ratios:
            layers += [nn.ELU(), Transposed(config, width, width // 2, ratio)]
            width //= 2
            layers += [Residual(config, width, config.dilation_growth**j) for j in range(config.residual_layers)]
        super().__init__([*layers, nn.ELU(), Conv(config, width, config.channels, config.last_kernel)])

    def forward(self, latent: Tensor) -> Tensor:
        """latent: [B, F, D] -> wav [B, C, F * hop]."""
        return self.chain(latent.transpose(1, 2))


def pad(x: Tensor, left: int, right: int, reflect: bool) -> Tensor:
    """Pad the last dimension; a signal shorter than its reflection is first extended with zeros, then cropped."""
    if not reflect:
        return F.pad(x, (left, right))
    short = max(0, max(left, right) - x.shape[-1] + 1)
    if short:
        x = F.pad(x, (0, short))
    x = F.pad(x, (left, right), mode="reflect")
    return x[..., : x.shape[-1] - short]
