"""VGGish (Hershey et al., "CNN architectures for large-scale audio classification", 2017): 128 numbers a second.

One network and one log-mel front end under two names. What differs between Google's Fréchet audio distance and the
torch port is only how a clip is cut: 1 s windows every 0.5 s, or 0.975 s (96 frames) every 0.96 s; that is the recipe's
part. As in both there is no ReLU after the last layer, no PCA and no quantisation.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .ear import Ear, digest, filled
from .source import locate, read
from .spectra import at_least, frames, mel_triangles

#: The names that the weights are published under.
FILES: tuple[str, ...] = ("vggish-10086976.pth", "vggish.safetensors", "vggish.npz", "vggish_model.npz")
_FRAMES, _BANDS, _RATE = 96, 64, 16_000
_SAMPLES = 400 + (_FRAMES - 1) * 160
#: Our names of the layers under TensorFlow's (vggish_slim.py).
_SLIM = {
    "conv1": "features.0", "conv2": "features.3", "conv3/conv3_1": "features.6", "conv3/conv3_2": "features.8",
    "conv4/conv4_1": "features.11", "conv4/conv4_2": "features.13", "fc1/fc1_1": "embeddings.0",
    "fc1/fc1_2": "embeddings.2", "fc2": "embeddings.4",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class VggishConfig:
    """Sizes, as the shapes of the weights give them."""

    widths: tuple[int, ...] = (64, 128, 256, 256, 512, 512)
    """Channels of the convolutions."""
    hidden: tuple[int, int] = (4096, 4096)
    dim: int = 128


class Network(nn.Module):
    """Six convolutions, three linear layers; the parameters are named as in torchvggish."""

    def __init__(self, config: VggishConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(pairwise((1, *config.widths))):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            if place in (0, 1, 3, 5):
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        sizes = (config.widths[-1] * (_FRAMES // 16) * (_BANDS // 16), *config.hidden)
        hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
        self.embeddings = nn.Sequential(*hidden, nn.Linear(sizes[-1], config.dim))

    def forward(self, patch: Tensor) -> Tensor:
        """Log-mel patches [B, 96, 64] -> [B, D]."""
        # TensorFlow flattens with the channels last
        found: Tensor = self.embeddings(self.features(patch[:, None]).permute(0, 2, 3, 1).flatten(1))
        return found


class Vggish(Ear):
    """The judge: one vector for the first 96 frames (0.975 s) of a window; see :func:`load`."""

    rate, rows = _RATE, 16
    window = _SAMPLES / _RATE

    def __init__(self, name: str, network: Network, digest: str) -> None:
        super().__init__(name, network, digest)
        self.dim = network.config.dim

    def hear(self, wav: Tensor) -> tuple[None, Tensor]:
        """wav [B, T] at 16 kHz -> None, vectors [B, D]. What is missing to 0.975 s is silence."""
        return None, self.network(patches(wav))


def patches(wav: Tensor) -> Tensor:
    """Log-mel of the first 96 frames, as vggish_input.py: wav [B, T] at 16 kHz -> [B, 96, 64].

    25 ms periodic Hann windows every 10 ms, magnitudes of 512 points, 64 HTK bands from 125 to 7500 Hz,
    log(x + 0.01).
    """
    wav = at_least(wav, _SAMPLES)[:, :_SAMPLES]
    window = torch.hann_window(400, periodic=True, dtype=torch.float64).to(wav)
    bank = mel_triangles(_RATE, 512, _BANDS, 125.0, 7500.0).to(wav)
    return (frames(wav, window, 512, 160).abs() @ bank.T + 0.01).log()


def load(name: str, source: str | os.PathLike[str]) -> Vggish:
    """Read torchvggish's file, or Google's checkpoint as ``.npz`` or ``.safetensors`` by its variables' names.

    source: a file, a folder or a hub id. Raises FileNotFoundError or ValueError.
    """
    path = locate(source, FILES)
    state = _torch_names(read(path))
    try:
        widths = tuple(state[f"{name}.weight"].shape[0] for name in _SLIM.values())
    except KeyError as error:
        raise ValueError(f"{path} is no VGGish checkpoint (no {error}): need {FILES[0]}") from error
    with torch.device("meta"):
        network = Network(VggishConfig(widths=widths[:6], hidden=(widths[6], widths[7]), dim=widths[8]))
    return Vggish(name, filled(network, state, str(path)), digest(state))


def _torch_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the port's names: TensorFlow's renamed and turned, those of the unused PCA left out."""
    out = {}
    for name, value in state.items():
        layer, _, kind = name.removeprefix("vggish/").removesuffix(":0").rpartition("/")
        if layer in _SLIM and kind in ("weights", "biases"):
            turned = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T if value.ndim == 2 else value
            out[f"{_SLIM[layer]}.{'weight' if kind == 'weights' else 'bias'}"] = turned.contiguous()
        elif not name.startswith(("pproc.", "pca_")) and "/" not in name and name != "global_step":
            out[name] = value
    return out
