"""LAION-CLAP's checkpoints (Wu et al., "Large-scale contrastive language-audio pretraining", 2023) as transformers'
``ClapModel``: every size is read from the shapes, every tensor gets its name there, queries, keys and values apart.

The text branch is RoBERTa with its layer norms' epsilon of 1e-5; ``ClapTextConfig`` would say 1e-12.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

#: In the checkpoints but not in ``ClapModel``: heads of other losses, and what follows from the sizes.
_UNUSED = re.compile(
    r"(audio|text)_transform\.|audio_branch\.(tscam_conv|head|spectrogram_extractor|logmel_extractor)\."
    r"|.*\.(attn_mask|relative_position_index|position_ids)$"
)
_FIXED = re.compile(r".*\.(relative_position_index|position_ids|token_type_ids|num_batches_tracked)$")
_AUDIO = (
    (r"^bn0\.", "batch_norm."),
    (r"\.attn\.qkv\.", ".attention.self.qkv."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.relative_position_bias_table$", ".attention.self.relative_position_bias_table"),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)


def is_laion(state: Mapping[str, Tensor]) -> bool:
    """Whether these tensors carry LAION's names and not transformers'."""
    return any(name.startswith("audio_branch.") for name in state)


def mapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under ``ClapModel``'s names. Raises ValueError for a name that is unknown."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if _UNUSED.match(name):
            continue
        new = _renamed(name)
        if ".self.qkv." in new:
            for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[new.replace(".qkv.", f".{part}.")] = piece.clone()
        else:
            out[new] = value
    return out


def _renamed(name: str) -> str:
    branch, _, rest = name.partition(".")
    if name in ("logit_scale_a", "logit_scale_t"):
        return name
    if branch == "text_branch":
        return f"text_model.{rest}"
    if branch == "audio_branch":
        for old, new in _AUDIO:
            rest = re.sub(old, new, rest)
        return f"audio_model.audio_encoder.{rest}"
    if branch in ("audio_projection", "text_projection") and rest[:2] in ("0.", "2."):
        return f"{branch}.linear{1 if rest[0] == '0' else 2}.{rest[2:]}"
    raise ValueError(f"{name} belongs to no LAION-CLAP model with HTSAT and RoBERTa, the only kind that is understood")


def config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """``ClapConfig``'s arguments from the shapes of LAION's tensors. Raises ValueError when they are not a CLAP's."""
    try:
        audio, text = _audio(state), _text(state)
        joint, _ = state["audio_projection.0.weight"].shape
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"no LAION-CLAP model with HTSAT and RoBERTa: {error} is not as expected") from error
    return {"audio_config": audio, "text_config": text, "projection_dim": joint, "projection_hidden_act": "relu"}


def _audio(state: Mapping[str, Tensor]) -> dict[str, Any]:
    width, _, patch, _ = state["audio_branch.patch_embed.proj.weight"].shape
    blocks = {
        (int(found[1]), int(found[2]))
        for found in (re.match(r"audio_branch\.layers\.(\d+)\.blocks\.(\d+)\.", name) for name in state)
        if found
    }
    stages = 1 + max(stage for stage, _ in blocks)
    tables = [state[f"audio_branch.layers.{n}.blocks.0.attn.relative_position_bias_table"] for n in range(stages)]
    fusion = any("patch_embed.fusion_model." in name for name in state)
    ratio = {"aff_block_r": width // state[_LOCAL].shape[0]} if fusion else {}
    return ratio | {
        "patch_embeds_hidden_size": width,
        "hidden_size": width * 2 ** (stages - 1),
        "patch_size": patch,
        "patch_stride": [patch, patch],
        "depths": [sum(stage == n for stage, _ in blocks) for n in range(stages)],
        "num_attention_heads": [table.shape[1] for table in tables],
        "window_size": (math.isqrt(tables[0].shape[0]) + 1) // 2,
        "num_mel_bins": state["audio_branch.bn0.weight"].shape[0],
        "enable_fusion": fusion,
        "fusion_type": "aff_2d" if fusion else None,
        "num_hidden_layers": stages,
    }


_LOCAL = "audio_branch.patch_embed.fusion_model.local_att.0.weight"


def _text(state: Mapping[str, Tensor]) -> dict[str, Any]:
    words, width = state["text_branch.embeddings.word_embeddings.weight"].shape
    layers = {
        int(found[1]) for found in (re.match(r"text_branch\.encoder\.layer\.(\d+)\.", name) for name in state) if found
    }
    return {
        "vocab_size": words,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // 64),  # RoBERTa's heads are 64 wide
        "intermediate_size": state["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": state["text_branch.embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": state["text_branch.embeddings.token_type_embeddings.weight"].shape[0],
        "layer_norm_eps": 1e-5,
    }


def used(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a ``ClapModel``'s tensors is learnt: without the indices, which follow from the sizes."""
    return {name: value for name, value in state.items() if not _FIXED.match(name)}


def compared(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """Values for a ``ClapModel`` whose tensors are ``wanted`` (on ``meta``): those of ``state``, and the indices.

    Raises ValueError when something is missing, unknown, or of another shape.
    """
    state = used(state)
    missing = [name for name in wanted if name not in state and not _FIXED.match(name)]
    shapes = [name for name in state if name in wanted and state[name].shape != wanted[name].shape]
    odd = [name for name in state if name not in wanted]
    if missing or shapes or odd:
        some = ", ".join((missing or shapes or odd)[:3])
        kind = "lacks" if missing else "has another shape of" if shapes else "has, beyond a CLAP model,"
        raise ValueError(f"{what} {kind} {some}: name a whole CLAP checkpoint")
    return {name: state[name].float() if name in state else _index(name, value.shape) for name, value in wanted.items()}


def _index(name: str, shape: torch.Size) -> Tensor:
    """An index buffer of ``ClapModel``; of window attention that of Swin (Liu et al., 2021, section 3.2)."""
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).expand(shape)
    if not name.endswith("relative_position_index"):
        return torch.zeros(shape, dtype=torch.int64)
    side = math.isqrt(shape[0])
    down, right = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    apart = [place[:, None] - place[None] + side - 1 for place in (down, right)]
    return apart[0] * (2 * side - 1) + apart[1]
