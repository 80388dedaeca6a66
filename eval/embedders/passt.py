"""PaSST (Koutini et al., "Efficient training of audio transformers with Patchout", 2022): 768 numbers, 527 tags.

A vision transformer over overlapping 16 x 16 patches of a spectrogram, with two extra tokens whose mean is the vector.
Patchout is for training; here every patch is heard. How far patches lie apart and how long a clip may be is read from
the shapes of the position embeddings, so files with stride 10 and 16, for 10, 20 and 30 s are all understood.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from .ear import Ear, Tagger, digest, filled
from .source import locate, read
from .spectra import at_least, mel_triangles

_RATE, _BANDS, _PATCH, _HOP, _N_FFT = 32_000, 128, 16, 320, 1024
_HEAD = 64
#: Upper edge of the mel bank, Hz: hear21passt's, in the middle of the edges that training drew.
_HIGH = 15_000.0


@dataclass(frozen=True, kw_only=True)
class PasstConfig:
    """Sizes, as the shapes of the weights give them."""

    width: int = 768
    depth: int = 12
    hidden: int = 3072
    tags: int = 527
    rows: int = 12
    """Patches over frequency."""
    columns: int = 99
    """Patches over time, at most."""

    @property
    def stride(self) -> int:
        """Bands, and frames, from one patch to the next."""
        return _BANDS // self.rows

    @property
    def frames(self) -> int:
        """Spectrogram frames that have position embeddings."""
        return (self.columns - 1) * self.stride + _PATCH + self.stride - 1


class Attention(nn.Module):
    """Self-attention with heads of 64."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, _HEAD)).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        mixed: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return mixed


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        mapped: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return mapped


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Network(nn.Module):
    """The transformer behind its spectrogram; the parameters are named as in the published checkpoints."""

    def __init__(self, config: PasstConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(1, width, _PATCH, stride=config.stride)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.new_pos_embed = nn.Parameter(torch.zeros(1, 2, width))
        self.freq_new_pos_embed = nn.Parameter(torch.zeros(1, width, config.rows, 1))
        self.time_new_pos_embed = nn.Parameter(torch.zeros(1, width, 1, config.columns))
        self.blocks = nn.Sequential(*(Block(width, config.hidden) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.tags))

    def forward(self, patch: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrograms [B, 128, F] -> tag logits [B, V], vectors [B, D]."""
        x = self.patch_embed["proj"](patch[:, None])
        x = x + self.time_new_pos_embed[..., : x.shape[-1]] + self.freq_new_pos_embed
        two = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        x = torch.cat([two.expand(x.shape[0], -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        vector = self.norm(self.blocks(x)[:, :2]).mean(dim=1)
        return self.head(vector), vector


class Passt(Ear):
    """The judge; see :func:`load`."""

    rate, rows = _RATE, 4

    def __init__(self, name: str, network: Network, digest: str) -> None:
        super().__init__(name, network, digest)
        self.config, self.dim = network.config, network.config.width
        self.window = float(self.config.frames * _HOP // _RATE)

    @property
    def tagger(self) -> Tagger:
        """The same network's AudioSet tags, as logits."""
        return Tagger(self, self.config.tags)

    def hear(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """wav [B, T] -> tag logits [B, V], vectors [B, D]. Raises ValueError when T is more than the file was made for.

        What is missing to 16 frames is silence.
        """
        most = self.config.frames * _HOP
        if wav.shape[-1] > most:
            raise ValueError(
                f"a window of {wav.shape[-1] / _RATE:g} s: {self.id} hears at most {most / _RATE:.4g} s at once; "
                "shorten the recipe's window, or load the weights for longer clips"
            )
        found: tuple[Tensor, Tensor] = self.network(spectrogram(wav))
        return found


def spectrogram(wav: Tensor) -> Tensor:
    """The authors' spectrogram in evaluation mode: wav [B, T] at 32 kHz -> [B, 128, F].

    Pre-emphasis 0.97, 25 ms symmetric Hann windows every 10 ms in 1024 points, 128 Kaldi bands from 0 to 15 kHz,
    (log(power + 1e-5) + 4.5) / 5.
    """
    wav = at_least(wav, (_PATCH - 1) * _HOP + 1)
    wav = wav[:, 1:] - 0.97 * wav[:, :-1]
    window = torch.hann_window(800, periodic=False, dtype=torch.float64).to(wav)
    found = torch.stft(wav, _N_FFT, _HOP, 800, window, center=True, pad_mode="reflect", return_complex=True)
    bank = mel_triangles(_RATE, _N_FFT, _BANDS, 0.0, _HIGH).to(wav)
    return ((bank @ found.abs().square() + 1e-5).log() + 4.5) / 5.0


def load(name: str, source: str | os.PathLike[str], file: str) -> Passt:
    """Read a published checkpoint; source: a file, a folder with ``file`` in it, or a hub id.

    Raises FileNotFoundError or ValueError.
    """
    path = locate(source, (file,))
    # the second head only taught the second token; the vector needs neither
    state = {key: value for key, value in read(path).items() if not key.startswith(("head_dist.", "mel."))}
    try:
        config = _config(state)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is no PaSST checkpoint ({error}): need {file}") from error
    with torch.device("meta"):
        network = Network(config)
    return Passt(name, filled(network, state, str(path)), digest(state))


def _config(state: Mapping[str, Tensor]) -> PasstConfig:
    blocks = {int(found[1]) for found in (re.match(r"blocks\.(\d+)\.", name) for name in state) if found}
    hidden, width = state["blocks.0.mlp.fc1.weight"].shape
    _, _, rows, _ = state["freq_new_pos_embed"].shape
    _, _, _, columns = state["time_new_pos_embed"].shape
    if width % _HEAD or rows not in range(1, _BANDS // 8) or not 0 < columns <= 4096 or max(blocks) >= 64:
        raise ValueError(f"width {width}, {rows} x {columns} patches, {len(blocks)} blocks")
    tags = state["head.1.weight"].shape[0]
    return PasstConfig(width=width, depth=len(blocks), hidden=hidden, tags=tags, rows=rows, columns=columns)
