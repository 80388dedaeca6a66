"""LAION-CLAP as a judge of audio and text: its own checkpoints and transformers' folders, through ``ClapModel``.

Nothing is cut at random: a window of up to 10 s is repeated whole as often as it fits and filled up with silence, as
the authors do for short clips; longer audio is the recipe's to cut. The fused models hear such a window as they hear
any clip of up to 10 s, through their global branch, never the randomly chosen "longer" path that the reference's
feature extractor takes. Captions go in as they are, padded to 77 tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...codec.stft import mel_filters
from .ear import Ear, digest
from .laion import compared, config, is_laion, mapped, used
from .source import fetch, is_id, locate, read
from .spectra import hertz_triangles, log_mel

_RATE, _SECONDS, _N_FFT, _HOP, _TOKENS = 48_000, 10, 1024, 480, 77
_SIZES = {"sampling_rate": _RATE, "hop_length": _HOP, "fft_window_size": _N_FFT, "max_length_s": _SECONDS}
Edges = tuple[float, float]
#: Edges of LAION's mel banks, Hz.
EDGES: Edges = (50.0, 14_000.0)
_WORDS = ("vocab.json", "merges.txt")
#: Where the tokeniser of every LAION model was published.
_ROBERTA = "FacebookAI/roberta-base"


class Clap(Ear):
    """The judge; see :func:`load`. Vectors have length 1, as the reference returns them."""

    rate = _RATE

    def __init__(self, name: str, network: nn.Module, digest: str, words: Words, edges: Edges = EDGES) -> None:
        super().__init__(name, network, digest)
        settings: Any = network.config
        self.dim = int(settings.projection_dim)
        self.fused = bool(settings.audio_config.enable_fusion)
        self.bands = int(settings.audio_config.num_mel_bins)
        self.words, self.edges = words, edges

    def hear(self, wav: Tensor) -> tuple[None, Tensor]:
        """wav [B, T] at 48 kHz, T up to 10 s -> None, vectors [B, D]. Raises ValueError for longer windows."""
        mel = log_mel(repeated(wav, self.id), self.bank().to(wav), _N_FFT, _HOP)[:, None]
        longer = None
        if self.fused:
            mel = mel.expand(-1, 4, -1, -1)
            longer = torch.zeros(wav.shape[0], 1, dtype=torch.bool, device=wav.device)
        return None, _unit(self._model.get_audio_features(input_features=mel, is_longer=longer))

    def bank(self) -> Tensor:
        """The mel bank [M, 513]: torchaudio's default for fused models, librosa's for the others."""
        if self.fused:
            return hertz_triangles(_RATE, _N_FFT, self.bands, *self.edges)
        return mel_filters(_RATE, _N_FFT, self.bands, *self.edges)

    @torch.no_grad()
    def embed_text(self, captions: list[str]) -> Tensor:
        """N captions, verbatim -> vectors [N, D]. Raises FileNotFoundError when the tokeniser's files are missing."""
        rows = [torch.zeros(0, self.dim)]
        for start in range(0, len(captions), self.rows):
            ids, mask = self.words(captions[start : start + self.rows])
            found = self._model.get_text_features(input_ids=ids.to(self.device), attention_mask=mask.to(self.device))
            rows.append(_unit(found).float().cpu())
        return torch.cat(rows)

    @property
    def _model(self) -> Any:
        return self.network


@dataclass
class Words:
    """RoBERTa's tokeniser, read when the first caption comes."""

    folder: Path
    """Where vocab.json and merges.txt, or tokenizer.json, are looked for."""
    hub: str | None = None
    """A hub id to take them from otherwise."""
    found: Any = None

    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Captions -> token ids and attention mask, both [N, 77]."""
        if self.found is None:
            self.found = self._read()
        table = self.found(captions, padding="max_length", truncation=True, max_length=_TOKENS, return_tensors="pt")
        return table["input_ids"], table["attention_mask"]

    def _read(self) -> Any:
        from transformers import RobertaTokenizerFast

        folder = self.folder
        if not any((folder / name).is_file() for name in ("tokenizer.json", _WORDS[0])):
            if self.hub is None:
                raise FileNotFoundError(
                    f"{folder} holds no tokeniser: put vocab.json and merges.txt of {_ROBERTA} beside the weights"
                )
            files = [fetch(self.hub, name) or fetch(_ROBERTA, name) for name in _WORDS]
            if files[0] is None:
                raise FileNotFoundError(f"neither {self.hub} nor {_ROBERTA} on the hub has {_WORDS[0]}")
            folder = files[0].parent
        return RobertaTokenizerFast.from_pretrained(folder, local_files_only=True)


def load(name: str, source: str | os.PathLike[str], files: tuple[str, ...] = ()) -> Clap:
    """Read LAION's ``.pt`` file, or a folder or hub id in transformers' format.

    The tokeniser is taken from the same folder. Raises FileNotFoundError, or ValueError for files that do not fit, or
    without the transformers library.
    """
    try:
        from transformers import ClapConfig, ClapModel
    except ImportError as error:
        raise ValueError(f"{name} needs the transformers library: pip install 'descant[hub]'") from error
    path = locate(source, files)
    hub = str(source) if is_id(source) else None
    state, edges = read(path), EDGES
    if is_laion(state):
        try:
            settings = ClapConfig(**config(state))
            state = mapped(state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    else:
        for file in ("config.json", "preprocessor_config.json") if hub else ():
            fetch(str(hub), file)
        if not (path.parent / "config.json").is_file():
            raise FileNotFoundError(f"{path.parent} has no config.json beside {path.name}: fetch the whole folder")
        settings = ClapConfig.from_pretrained(path.parent, local_files_only=True)
        edges = _edges(path.parent / "preprocessor_config.json")
    network = _model(ClapModel, settings, state, str(path))
    return Clap(name, network, digest(used(state)), Words(path.parent, hub), edges)


def _edges(file: Path) -> Edges:
    """Edges of the mel bank from a preprocessor_config.json, LAION's without one. Raises ValueError for other sizes."""
    if not file.is_file():
        return EDGES
    try:
        row = json.loads(file.read_text(encoding="utf-8"))
        found = float(row.get("frequency_min", EDGES[0])), float(row.get("frequency_max", EDGES[1]))
        sizes = {key: row.get(key, value) for key, value in _SIZES.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a description of a feature extractor ({error}): fetch it again") from error
    if sizes != _SIZES or not 0 <= found[0] < found[1] <= _RATE / 2:
        raise ValueError(f"{file} asks for {sizes} and {found[0]:g} to {found[1]:g} Hz; known is {_SIZES} only")
    return found


def repeated(wav: Tensor, who: str) -> Tensor:
    """Fill up to 10 s: repeat whole as often as it fits, then zeros: [B, T] -> [B, 480000]."""
    size = _SECONDS * _RATE
    if wav.shape[-1] > size:
        raise ValueError(
            f"a window of {wav.shape[-1] / _RATE:g} s: {who} hears at most {_SECONDS} s at once; set the recipe's "
            f"window to {_SECONDS}"
        )
    wav = wav.repeat(1, size // wav.shape[-1])
    return torch.nn.functional.pad(wav, (0, size - wav.shape[-1]))


def _model(kind: Any, settings: Any, state: Mapping[str, Tensor], what: str) -> nn.Module:
    """A ``ClapModel`` with these weights, none drawn first."""
    with torch.device("meta"):
        network: nn.Module = kind(settings)
    network.load_state_dict(compared(state, network.state_dict(), what), assign=True)
    return network


def _unit(found: Any) -> Tensor:
    """The vectors of transformers 4, which returns them, and 5, which returns them as ``pooler_output``."""
    vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return torch.nn.functional.normalize(vectors, dim=-1)
