"""The ``laion-clap`` package itself as a judge: for figures by the authors' own code, where its pins allow it.

It asks for numpy below 2, torchvision and more, so it lives in an environment of its own; :mod:`.clap` gives the same
vectors from the same file without it. Its loader unpickles whatever it is given; here the file is read as data and
handed to its network. It cuts what is longer than 10 s at random, so longer windows are refused.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from .ear import Ear, digest
from .laion import config, is_laion
from .source import locate, read

_RATE, _SAMPLES = 48_000, 480_000
#: HTSAT's published sizes by the channels of the first stage.
_SIZES = {96: "HTSAT-tiny", 128: "HTSAT-base", 256: "HTSAT-large"}


class LaionPackage(Ear):
    """The judge; see :func:`load`. Vectors have length 1."""

    rate = _RATE

    def __init__(self, name: str, module: Any, digest: str, dim: int) -> None:
        network: nn.Module = module.model
        super().__init__(name, network, digest)
        self.module, self.dim = module, dim

    def hear(self, wav: Tensor) -> tuple[None, Tensor]:
        """wav [B, T] at 48 kHz, T up to 10 s -> None, vectors [B, D]. Raises ValueError for longer windows."""
        if wav.shape[-1] > _SAMPLES:
            raise ValueError(
                f"a window of {wav.shape[-1] / _RATE:g} s: laion-clap would cut 10 s out of it at random; set the "
                "recipe's window to 10"
            )
        found: Tensor = self.module.get_audio_embedding_from_data(x=wav, use_tensor=True)
        return None, found

    @torch.no_grad()
    def embed_text(self, captions: list[str]) -> Tensor:
        """N captions, verbatim -> vectors [N, D]."""
        rows = [torch.zeros(0, self.dim)]
        for start in range(0, len(captions), self.rows):
            found: Tensor = self.module.get_text_embedding(captions[start : start + self.rows], use_tensor=True)
            rows.append(found.float().cpu())
        return torch.cat(rows)


def load(name: str, source: str | os.PathLike[str], files: tuple[str, ...] = ()) -> LaionPackage:
    """Build the package's network for LAION's ``.pt`` file and fill it; source: a file, a folder or a hub id.

    Raises ValueError, without the package one that names the extra, and FileNotFoundError.
    """
    try:
        import laion_clap
    except ImportError as error:
        raise ValueError(
            f"{name} needs the authors' package: pip install 'descant[laion-clap]' in an environment of its own, or "
            f"load {name.removesuffix('-package')}, which needs transformers only"
        ) from error
    path = locate(source, files)
    state = read(path)
    if not is_laion(state):
        raise ValueError(f"{path} is no file of LAION's: the package reads only those; use the name without -package")
    sizes = config(state)
    width = sizes["audio_config"]["patch_embeds_hidden_size"]
    if width not in _SIZES:
        raise ValueError(f"{path} has {width} channels; the package knows {', '.join(map(str, _SIZES))}")
    fused = sizes["audio_config"]["enable_fusion"]
    module = laion_clap.CLAP_Module(enable_fusion=fused, device="cpu", amodel=_SIZES[width], tmodel="roberta")
    wanted = module.model.state_dict()
    spare = "text_branch.embeddings.position_ids"  # a buffer that newer transformers no longer keep
    module.model.load_state_dict({key: value for key, value in state.items() if key in wanted or key != spare})
    return LaionPackage(name, module, digest(state), sizes["projection_dim"])
