"""MusicGen models read from folders or hub ids in the transformers library's format.

A folder has config.json and safetensors, whole or in shards, in any float format; the names under ``decoder``,
``text_encoder``, ``enc_to_dec_proj`` and ``audio_enc_to_dec_proj`` are ours to check, those under ``audio_encoder``
are the codec room's. Older files also store the table of positions, which is computed here and ignored there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from . import hub
from .musicgen import MusicGenLM
from .musicgen_config import KINDS, MusicGenConfig, from_transformers
from .room import room
from .shapes import shapes_only
from .shards import Shards, read_json
from .t5 import TextEncoder

#: Ours -> the library's, of one layer; several are one product here.
_LAYER = {
    "attention_norm": ("self_attn_layer_norm",), "mlp_norm": ("final_layer_norm",),
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "out": ("self_attn.out_proj",),
    "cross_norm": ("encoder_attn_layer_norm",), "cross_q": ("encoder_attn.q_proj",),
    "cross_kv": ("encoder_attn.k_proj", "encoder_attn.v_proj"), "cross_out": ("encoder_attn.out_proj",),
    "fc1": ("fc1",), "fc2": ("fc2",),
}  # fmt: skip
_IGNORED = re.compile(r"(decoder\.)?model\.decoder\.embed_positions\.weights?")


def is_musicgen(name_or_folder: str | os.PathLike[str]) -> bool:
    """Whether this names a MusicGen: a folder whose config.json says so, or a hub id."""
    name = os.fspath(name_or_folder)
    if hub.is_id(name):
        return True
    try:
        row = read_json(Path(name) / "config.json")
    except (OSError, ValueError):
        return False
    return isinstance(row, dict) and str(row.get("model_type", "")).startswith("musicgen") and "format" not in row


def load(
    name_or_folder: str | os.PathLike[str], dtype: str = "fp32", text_cache: str | os.PathLike[str] | None = None
) -> MusicGenLM:
    """Load a MusicGen in evaluation mode, on the CPU.

    name_or_folder: a folder, or a hub id such as ``"facebook/musicgen-small"``, which is fetched if need be. dtype:
    ``"fp32"``, ``"bf16"`` or ``"fp16"``, what the decoder computes in; the text encoder stays in float32, float16
    overflows there. text_cache: a folder in which encoded sentences are kept.

    Raises FileNotFoundError when something is missing and ValueError when something is damaged or does not fit.
    """
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dtype not in kinds:
        raise ValueError(f"dtype must be one of {', '.join(kinds)}, got {dtype!r}")
    name = os.fspath(name_or_folder)
    folder = hub.fetch(name) if hub.is_id(name) else Path(name)
    path = folder / "config.json"
    row = read_json(path)
    try:
        config = from_transformers(row)
        alone = KINDS[row["model_type"]][1]
        with shapes_only():  # a description that lies is found out before memory is taken
            model = MusicGenLM(config)
        weights = Shards(folder)
        text = None if alone else TextEncoder(row["text_encoder"], weights, text_cache)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no description of a MusicGen: {error}") from error
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    with room(f"the weights of {folder}", "choose a smaller model"):
        fill(model, weights, text, "" if alone else "decoder.")
        model.source = folder
        return model.to(kinds[dtype]).eval().requires_grad_(False)


def fill(model: MusicGenLM, weights: Shards, text: TextEncoder | None, lead: str) -> None:
    """Give ``model``, made without memory, the tensors of ``weights``; ``lead`` is what names begin with."""
    parts = dict(sources(model.config, lead))
    _check(model, parts, weights, text)
    found = {}
    for ours, theirs in parts.items():
        # one at a time: a model is never held twice
        rows = [weights.weight(name) for name in theirs]
        found[ours] = rows[0] if len(rows) == 1 else torch.cat(rows)
    model.load_state_dict(found, assign=True)
    model.text = text


def sources(config: MusicGenConfig, lead: str = "decoder.") -> Iterator[tuple[str, list[str]]]:
    """(our tensor, the library's tensors that make it, one below the other), of a whole model or a decoder alone."""
    stem = f"{lead}model.decoder."
    yield "embed.weight", [f"{stem}embed_tokens.{book}.weight" for book in range(config.books)]
    for layer in range(config.layers):
        for ours, theirs in _LAYER.items():
            if config.melody and ours.startswith("cross"):
                continue
            for leaf in ("weight", "bias") if ours.endswith("norm") else ("weight",):
                yield f"blocks.{layer}.{ours}.{leaf}", [f"{stem}layers.{layer}.{name}.{leaf}" for name in theirs]
    for leaf in ("weight", "bias"):
        yield f"norm.{leaf}", [f"{stem}layer_norm.{leaf}"]
        if config.projects_text:
            yield f"project_text.{leaf}", [f"enc_to_dec_proj.{leaf}"]
        if config.projects_chroma:
            yield f"project_chroma.{leaf}", [f"audio_enc_to_dec_proj.{leaf}"]
    yield "heads.weight", [f"{lead}lm_heads.{book}.weight" for book in range(config.books)]


def _check(model: MusicGenLM, parts: Mapping[str, list[str]], weights: Shards, text: TextEncoder | None) -> None:
    """Names and shapes, from the files' headers alone."""
    wanted: dict[str, tuple[int, ...]] = {}
    state = model.state_dict()
    for ours, theirs in parts.items():
        first, *rest = state[ours].shape
        wanted |= {name: (first // len(theirs), *rest) for name in theirs}
    optional: set[str] = set()
    if text is not None:
        embedding = ("text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight")
        kept = embedding[0] if embedding[0] in weights.names else embedding[1]
        shapes = {f"text_encoder.{name}": shape for name, shape in text.shapes.items() if name != "shared.weight"}
        wanted |= {**shapes, kept: text.shapes["shared.weight"]}
        optional = set(embedding)
    names = {name for name in weights.names if not name.startswith("audio_encoder.") and not _IGNORED.fullmatch(name)}
    missing, extra = sorted(set(wanted) - names), sorted(names - set(wanted) - optional)
    if missing or extra:
        raise ValueError(
            f"{weights.folder}: weights do not fit config.json: missing {missing[:3]} ({len(missing)} in all), "
            f"unknown {extra[:3]} ({len(extra)} in all)"
        )
    for name in sorted(set(wanted) | (optional & names)):
        shape = wanted.get(name, text.shapes["shared.weight"] if text is not None else ())
        if weights.shape(name) != shape:
            raise ValueError(
                f"{weights.folder}: {name} is {list(weights.shape(name))}, config.json makes it {list(shape)}"
            )
