"""Which optimiser moves what: Muon the matrices inside a network, AdamW everything else.

Muon (Jordan et al., 2024; Liu et al., "Muon is scalable for LLM training", 2025) replaces the momentum of a matrix by
the nearest orthogonal one, so that all directions in which a layer can act learn at the same pace. Updates are scaled
as the second paper does, section 2.2, to the size of AdamW's, hence one learning rate serves both. Embeddings, heads,
biases and gains are not matrices in that sense: they are looked up, or one row serves one class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def optimisers(
    name: str,
    model: nn.Module,
    inner: Callable[[str], bool],
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    matrix_scale: float = 1.0,
) -> dict[str, torch.optim.Optimizer]:
    """Optimisers of ``model`` by name, for the loop: ``name`` (AdamW), and ``name/matrices`` (Muon).

    inner: says of a parameter's name whether it is a matrix inside the network; only two-dimensional ones are asked.
    matrix_scale: learning rate of the matrices over that of the rest. Weight decay spares vectors. Raises RuntimeError
    when this torch has no Muon, and ValueError when nothing is left for it.
    """
    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(f"training needs torch 2.9 or newer (torch.optim.Muon), this is {torch.__version__}")
    matrices: list[Tensor] = []
    tables: list[Tensor] = []
    vectors: list[Tensor] = []
    for parameter_name, value in model.named_parameters():
        if value.dim() == 2 and inner(parameter_name):
            matrices.append(value)
        else:
            (tables if value.dim() >= 2 else vectors).append(value)
    if not matrices:
        raise ValueError("the network has no inner matrices: it needs another rule for what Muon moves")
    muon = torch.optim.Muon(matrices, 1.0, weight_decay, 0.95, adjust_lr_fn="match_rms_adamw")
    for group in muon.param_groups:
        group["scale"] = matrix_scale
    rest: list[dict[str, Any]] = [{"params": tables}, {"params": vectors, "weight_decay": 0.0}]
    return {name: torch.optim.AdamW(rest, 1.0, betas, weight_decay=weight_decay), f"{name}/matrices": muon}
