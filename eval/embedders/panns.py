"""PANNs CNN14 (Kong et al., "PANNs: large-scale pretrained audio neural networks", 2020): 2048 numbers, 527 tags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...codec.stft import mel_filters
from .ear import Ear, Tagger, digest, filled
from .source import locate, read
from .spectra import at_least, log_mel

_BANDS = 64


@dataclass(frozen=True, kw_only=True)
class Front:
    """The front end of one published variant."""

    rate: int
    n_fft: int
    hop: int
    high: float
    """Upper edge of the bank, Hz; the lower one is 50."""
    file: str
    """The name that its weights are published under."""


#: The variants by the judges' names.
FRONTS: Mapping[str, Front] = {
    "panns-cnn14-32k": Front(rate=32_000, n_fft=1024, hop=320, high=14_000.0, file="Cnn14_mAP=0.431.pth"),
    "panns-cnn14-16k": Front(rate=16_000, n_fft=512, hop=160, high=8_000.0, file="Cnn14_16k_mAP=0.438.pth"),
}


@dataclass(frozen=True, kw_only=True)
class PannsConfig:
    """Sizes, as the shapes of the weights give them."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    dim: int = 2048
    tags: int = 527


class Block(nn.Module):
    """Two convolutions, each with batch normalisation and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, F, M] -> [B, D', F, M]."""
        return functional.relu(self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


class Network(nn.Module):
    """CNN14 behind its spectrogram; the parameters are named as in the published checkpoints."""

    def __init__(self, config: PannsConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.bn0 = nn.BatchNorm2d(_BANDS)
        for place, (before, after) in enumerate(pairwise((1, *widths)), start=1):
            self.add_module(f"conv_block{place}", Block(before, after))
        self.fc1 = nn.Linear(widths[-1], config.dim)
        self.fc_audioset = nn.Linear(config.dim, config.tags)

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, F, 64], F >= 32 -> tag logits [B, V], vectors [B, D]."""
        x = self.bn0(patch.transpose(1, 2)[..., None])  # [B, M, F, 1]
        x = x.permute(0, 3, 2, 1)
        for place in range(1, 7):
            x = self.get_submodule(f"conv_block{place}")(x)
            if place < 6:
                x = functional.avg_pool2d(x, 2)
        x = x.mean(dim=3)
        vector = functional.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
        return self.fc_audioset(vector), vector


class Panns(Ear):
    """The judge; see :func:`load`."""

    def __init__(self, name: str, front: Front, network: Network, digest: str) -> None:
        super().__init__(name, network, digest)
        self.front, self.rate = front, front.rate
        self.config, self.dim = network.config, network.config.dim

    @property
    def tagger(self) -> Tagger:
        """The same network's AudioSet tags, as logits."""
        return Tagger(self, self.config.tags)

    def hear(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """wav [B, T] -> tag logits [B, V], vectors [B, D]. What is missing to 32 frames is silence."""
        front = self.front
        wav = at_least(wav, 31 * front.hop)
        found: tuple[Tensor, Tensor] = self.network(log_mel(wav, _bank(front).to(wav), front.n_fft, front.hop))
        return found


def load(name: str, source: str | os.PathLike[str]) -> Panns:
    """Read a published checkpoint of the variant ``name``; source: a file, a folder or a hub id.

    Raises FileNotFoundError, or ValueError, also when the file is of a variant with another front end.
    """
    front = FRONTS[name]
    path = locate(source, (front.file,))
    state = read(path)
    stored = state.get("logmel_extractor.melW")
    bank = _bank(front)
    if stored is not None and (stored.shape != bank.T.shape or float((stored - bank.T).abs().max()) > 1e-5):
        raise ValueError(
            f"{path} was trained on another spectrogram than {name} computes ({front.rate} Hz, {front.n_fft} points): "
            f"need {front.file}"
        )
    state = {key: value for key, value in state.items() if not key.startswith(("spectrogram_ext", "logmel_ext"))}
    try:
        config = PannsConfig(
            widths=tuple(state[f"conv_block{place}.conv1.weight"].shape[0] for place in range(1, 7)),
            dim=state["fc1.weight"].shape[0],
            tags=state["fc_audioset.weight"].shape[0],
        )
    except KeyError as error:
        raise ValueError(f"{path} is no CNN14 checkpoint (no {error}): need {front.file}") from error
    with torch.device("meta"):
        network = Network(config)
    return Panns(name, front, filled(network, state, str(path)), digest(state))


def _bank(front: Front) -> Tensor:
    return mel_filters(front.rate, front.n_fft, _BANDS, 50.0, front.high)
