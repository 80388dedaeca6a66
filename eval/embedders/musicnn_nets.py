"""The two networks of the package musicnn, after Pons and Serra, "musicnn: pre-trained CNNs for music audio tagging",
2019, and what their layers are called in TensorFlow.

The first listens with tall filters for timbre and long ones for rhythm (Pons et al., "End-to-end learning for music
audio tagging at scale", 2018, figure 2); the second is the plain stack of small convolutions it was compared with.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

BANDS, TAGS = 96, 50
#: Frames of 16 ms the networks were trained on; the plain stack takes no other number.
FRAMES = 187
#: TensorFlow's default; torch's is 1e-5.
_EPS = 1e-3


class Layer(nn.Module):
    """Convolution (or matrix), ReLU, batch normalisation, in this order."""

    def __init__(self, linear: nn.Conv2d | nn.Conv1d | nn.Linear, norm: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm = linear, norm

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, ...] -> [B, D', ...]."""
        out: Tensor = self.norm(functional.relu(self.linear(x)))
        return out


class Musicnn(nn.Module):
    """Filters of many shapes over the spectrogram, three residual layers over time, pooling over the clip."""

    dim = 200

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.BatchNorm2d(1, eps=_EPS)
        self.timbre = nn.ModuleList(_spectral(204, 7, height) for height in (38, 67))
        self.rhythm = nn.ModuleList(_spectral(51, length, 1) for length in (128, 64, 32))
        self.middle = nn.ModuleList(
            Layer(nn.Conv1d(before, 64, 7, padding=3), nn.BatchNorm1d(64, eps=_EPS)) for before in (561, 64, 64)
        )
        self.pooled = nn.BatchNorm1d(2 * 753, eps=_EPS)
        self.dense = Layer(nn.Linear(2 * 753, self.dim), nn.BatchNorm1d(self.dim, eps=_EPS))
        self.tags = nn.Linear(self.dim, TAGS)

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, F, 96] -> tag logits [B, 50], vectors before the last layer [B, 200]."""
        x = self.input(patch[:, None])
        wide = functional.pad(x, (0, 0, 3, 3))
        parts = [layer(wide).amax(dim=3) for layer in self.timbre]
        for layer in self.rhythm:
            # TensorFlow's "same": of an even filter the odd frame is padded behind
            length = layer.get_submodule("linear").get_parameter("weight").shape[2]
            parts.append(layer(functional.pad(x, (0, 0, (length - 1) // 2, length // 2))).amax(dim=3))
        front = torch.cat(parts, dim=1)  # [B, 561, F]
        first = self.middle[0](front)
        second = self.middle[1](first) + first
        third = self.middle[2](second) + second
        tower = torch.cat([front, first, second, third], dim=1)
        # maximum and mean of a channel lie side by side
        pooled = torch.stack([tower.amax(dim=2), tower.mean(dim=2)], dim=2).flatten(1)
        vector = self.dense(self.pooled(pooled))
        return self.tags(vector), vector


class Vgg(nn.Module):
    """Five convolutions of 3 x 3 with 128 channels; its vector is the last of them, pooled."""

    dim = 256

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.BatchNorm2d(1, eps=_EPS)
        self.layers = nn.ModuleList(
            Layer(nn.Conv2d(before, 128, 3, padding=1), nn.BatchNorm2d(128, eps=_EPS)) for before in (1, *(4 * [128]))
        )
        self.tags = nn.Linear(self.dim, TAGS)

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, 187, 96] -> tag logits [B, 50], vectors before the last layer [B, 256]."""
        x = self.input(patch[:, None])
        pools = (((4, 1), 2), ((2, 2), 2), ((2, 2), 2), ((2, 2), 2), ((4, 4), 4))
        for layer, (size, stride) in zip(self.layers, pools, strict=True):
            x = functional.max_pool2d(layer(x), size, stride)
        # TensorFlow flattens with the channels last
        vector = x.permute(0, 2, 3, 1).flatten(1)
        return self.tags(vector), vector


def _spectral(width: int, frames: int, bands: int) -> Layer:
    return Layer(nn.Conv2d(1, width, (frames, bands)), nn.BatchNorm2d(width, eps=_EPS))


#: Where the values of our parameters lie in a TensorFlow layer.
_KINDS = {"weight": "kernel", "bias": "bias"}
_NORM_KINDS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
#: Our layers in the order in which TensorFlow numbered its own.
_MUSICNN = ["timbre.0", "timbre.1", *(f"rhythm.{i}" for i in range(3)), *(f"middle.{i}" for i in range(3))]


def names(network: Musicnn | Vgg) -> dict[str, str]:
    """Names of a network's parameters and averages: ours -> TensorFlow's."""
    if isinstance(network, Vgg):
        linear = {f"layers.{i}.linear": f"{i + 1}CNN" for i in range(5)} | {"tags": "dense"}
        norms = ["input", *(f"layers.{i}.norm" for i in range(5))]
    else:
        linear = {f"{layer}.linear": _numbered("conv2d", i) for i, layer in enumerate(_MUSICNN)}
        linear |= {"dense.linear": "dense", "tags": "dense_1"}
        norms = ["input", *(f"{layer}.norm" for layer in _MUSICNN), "pooled", "dense.norm"]
    out = {f"{ours}.{kind}": f"{theirs}/{name}" for ours, theirs in linear.items() for kind, name in _KINDS.items()}
    for place, ours in enumerate(norms):
        theirs = _numbered("batch_normalization", place)
        out |= {f"{ours}.{kind}": f"{theirs}/{name}" for kind, name in _NORM_KINDS.items()}
    return out


def turned(network: Musicnn | Vgg, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """TensorFlow's tensors under our names and in our order of dimensions.

    Kernels [H, W, in, out] become [out, in, H, W]; a convolution over time alone was one over [F, D, 1] there, and
    becomes [out, D, F].
    """
    out = {}
    for ours, theirs in names(network).items():
        value = tensors[theirs]
        if value.ndim == 4:
            over_time = ours.startswith("middle") and value.shape[2] == 1
            value = value[:, :, 0].permute(2, 1, 0) if over_time else value.permute(3, 2, 0, 1)
        elif value.ndim == 2:
            value = value.T
        out[ours] = value.contiguous()
    return out


def _numbered(name: str, place: int) -> str:
    return f"{name}_{place}" if place else name
