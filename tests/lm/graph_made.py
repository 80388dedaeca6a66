"""A MusicGen small enough to compare token by token, and what it is told."""

import torch
from torch import Tensor

from descant.lm.musicgen import Conditions, MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig


def made(**other: object) -> MusicGenLM:
    sizes = {"width": 64, "layers": 2, "heads": 4, "ffn": 96, "cardinality": 48, "text_width": 24, **other}
    torch.manual_seed(0)
    model = MusicGenLM(MusicGenConfig(**sizes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm.weight" in name:
                weight.uniform_(0.5, 1.5)
            elif weight.dim() == 2:
                # large enough for decisions to be clear
                weight.normal_(std=1.5 * weight.shape[1] ** -0.5)
            else:
                weight.normal_(std=0.3)
    return model


def conditions(model: MusicGenLM, pieces: int, length: int = 5) -> Conditions:
    """Texts of unequal length; the second piece has none."""
    generator = torch.Generator().manual_seed(length)
    states = torch.randn(pieces, length, model.config.text_width, generator=generator)
    mask = torch.ones(pieces, length, dtype=torch.bool)
    if pieces > 1:
        mask[0, length - 2 :] = False
        mask[1] = False
    return model.condition_states(states, mask)


def prompt_of(pieces: int, frames: int, books: int = 4) -> Tensor:
    return torch.randint(0, 48, (pieces, books, frames), generator=torch.Generator().manual_seed(0))
