"""DAC, the Descript Audio Codec: Snake convolutions around factorised books, mono (Kumar et al., 2023).

Layers carry the names of the transformers library's files.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .contract import check_codes
from .euclid import FactorisedRVQ
from .neural import NeuralCodec
from .official import DacConfig
from .seanet import Weights


class Snake(nn.Module):
    """x + sin^2(a x) / a with a learned per channel (Ziyin et al., 2020): periodic, as music is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C, T]."""
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)


class Convolution(Weights):
    """A convolution padded with zeros."""

    def __init__(self, shape: tuple[int, int, int], normed: bool, stride: int = 1, padding: int = 0, dilation: int = 1):
        super().__init__(shape, shape[0], normed)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C', T']."""
        return F.conv1d(x, self.folded(), self.bias, self.stride, self.padding, self.dilation)


class Transposition(Weights):
    """A transposed convolution with a kernel of two strides."""

    def __init__(self, enter: int, leave: int, stride: int, normed: bool) -> None:
        super().__init__((enter, leave, 2 * stride), leave, normed)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C', T * stride], one sample less where the stride is odd."""
        return F.conv_transpose1d(x, self.folded(), self.bias, self.stride, math.ceil(self.stride / 2))


class Unit(nn.Module):
    """A dilated and a 1x1 convolution beside the identity."""

    def __init__(self, width: int, dilation: int, normed: bool) -> None:
        super().__init__()
        self.snake1 = Snake(width)
        self.conv1 = Convolution((width, width, 7), normed, padding=3 * dilation, dilation=dilation)
        self.snake2 = Snake(width)
        self.conv2 = Convolution((width, width, 1), normed)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C, T]."""
        out: Tensor = x + self.conv2(self.snake2(self.conv1(self.snake1(x))))
        return out


class Down(nn.Module):
    """Three units, then a strided convolution to twice the width."""

    def __init__(self, width: int, stride: int, normed: bool) -> None:
        super().__init__()
        self.res_unit1, self.res_unit2, self.res_unit3 = (Unit(width, dilation, normed) for dilation in (1, 3, 9))
        self.snake1 = Snake(width)
        self.conv1 = Convolution((2 * width, width, 2 * stride), normed, stride, math.ceil(stride / 2))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, 2 C, T / stride]."""
        out: Tensor = self.conv1(self.snake1(self.res_unit3(self.res_unit2(self.res_unit1(x)))))
        return out


class Up(nn.Module):
    """A transposed convolution to half the width, then three units."""

    def __init__(self, width: int, stride: int, normed: bool) -> None:
        super().__init__()
        self.snake1 = Snake(width)
        self.conv_t1 = Transposition(width, width // 2, stride, normed)
        self.res_unit1, self.res_unit2, self.res_unit3 = (Unit(width // 2, dilation, normed) for dilation in (1, 3, 9))

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, T] -> [B, C / 2, T * stride], one sample less where the stride is odd."""
        out: Tensor = self.res_unit3(self.res_unit2(self.res_unit1(self.conv_t1(self.snake1(x)))))
        return out


class Encoder(nn.Module):
    """Samples to latent frames."""

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        width, normed = config.encoder_width, config.weight_norm
        self.conv1 = Convolution((width, 1, 7), normed, padding=3)
        self.block = nn.ModuleList(Down(width << index, ratio, normed) for index, ratio in enumerate(config.ratios))
        self.snake1 = Snake(config.width)
        self.conv2 = Convolution((config.width, config.width, 3), normed, padding=1)

    def forward(self, wav: Tensor) -> Tensor:
        """wav: [B, 1, T] with T a multiple of hop -> latent [B, F, D]."""
        x = self.conv1(wav)
        for block in self.block:
            x = block(x)
        out: Tensor = self.conv2(self.snake1(x))
        return out.transpose(1, 2)


class Decoder(nn.Module):
    """Latent frames to samples."""

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        width, normed = config.decoder_width, config.weight_norm
        self.hop = config.hop
        self.conv1 = Convolution((width, config.width, 7), normed, padding=3)
        self.block = nn.ModuleList(Up(width >> index, ratio, normed) for index, ratio in enumerate(config.up_ratios))
        width >>= len(config.up_ratios)
        self.snake1 = Snake(width)
        self.conv2 = Convolution((1, width, 7), normed, padding=3)

    def forward(self, latent: Tensor) -> Tensor:
        """latent: [B, F, D] -> wav [B, 1, F * hop]; what odd strides leave out at the end is silence."""
        x = self.conv1(latent.transpose(1, 2))
        for block in self.block:
            x = block(x)
        wav = torch.tanh(self.conv2(self.snake1(x)))
        return F.pad(wav, (0, latent.shape[1] * self.hop - wav.shape[-1]))


class DacCodec(NeuralCodec):
    """DAC: :meth:`encode` and :meth:`decode`, mono; stereo is two signals in the batch."""

    config: DacConfig
    encoder: Encoder
    decoder: Decoder
    quantizer: FactorisedRVQ

    def __init__(self, config: DacConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantizer = FactorisedRVQ(config)

    @torch.no_grad()
    def encode(self, wav: Tensor, books: int | None = None) -> Tensor:
        """wav: [B, 1, T] at ``rate`` -> codes int64 [B, K, F], F = ceil(T / hop); the end is padded with silence.

        books: how many books to compute (all by default). Raises ValueError on wrong shapes, emptiness, NaN.
        """
        wav = self._check(wav)
        wav = F.pad(wav, (0, -wav.shape[-1] % self.hop))
        latent = torch.cat([self._run(self.encoder, item[None]) for item in wav])
        with torch.autocast(wav.device.type, enabled=False):
            return torch.cat([self.quantizer.encode(item[None], books) for item in latent])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes: int64 [B, K, F], K <= books -> wav [B, 1, F * hop]. Raises ValueError on codes out of range."""
        # item by item from the codes on: what a signal becomes depends on nothing beside it
        check_codes(codes, self, "decode")
        return torch.cat([self._run(self.decoder, self.decode_latent(item[None])) for item in codes])

    def _run(self, net: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            out: Tensor = net(x)
        return out.float()
