"""AudioCraft's MusicGen checkpoints, converted once, offline, into a folder of the transformers library's format.

``state_dict.bin`` is a pickle of tensors and a YAML text; torch opens it with ``weights_only=True``, which builds
tensors and plain values and calls nothing. The checkpoint lacks its text encoder, which is a published T5, and its
codec, which is a file of its own: both are named beside it. Names: AudioCraft 1.3, ``audiocraft/models/lm.py``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .musicgen import MusicGenLM
from .musicgen_config import MusicGenConfig
from .musicgen_save import Company, save
from .shapes import shapes_only
from .shards import Shards, read_json
from .t5 import shapes, tokenizer_files

_LAYER = {
    "attention_norm": "norm1", "qkv": "self_attn.in_proj_weight", "out": "self_attn.out_proj", "mlp_norm": "norm2",
    "cross_norm": "norm_cross", "cross_out": "cross_attention.out_proj", "fc1": "linear1", "fc2": "linear2",
}  # fmt: skip
_CONDITIONERS = "condition_provider.conditioners."
#: Derived by the extractor of the melody, no weights.
_IGNORED = re.compile(rf"{re.escape(_CONDITIONERS)}self_wav\.chroma\..*")
#: Settings under ``transformer_lm`` that MusicGen has, and no other value of which is known here.
_FIXED = {
    "norm_first": "true", "norm": "layer_norm", "positional_embedding": "sin", "causal": "true", "bias_attn": "false",
    "bias_ff": "false", "bias_proj": "false", "qk_layer_norm": "false", "qk_layer_norm_cross": "false",
    "kv_repeat": "1", "layer_scale": "null", "past_context": "null",
}  # fmt: skip


def convert(
    checkpoint: str | os.PathLike[str], folder: str | os.PathLike[str], text_encoder: str | os.PathLike[str],
    codec: str | os.PathLike[str],
) -> MusicGenLM:  # fmt: skip
    """Write the model in ``checkpoint`` (a ``state_dict.bin``) to ``folder``, and return it.

    text_encoder: a folder of the T5 model it was trained with (``t5-base``), with its tokenizer. codec: a folder of
    EnCodec in the transformers library's format. Raises ValueError for what is no MusicGen of AudioCraft.
    """
    config, state = read(Path(checkpoint))
    with_ = join(config, Path(text_encoder), Path(codec))
    with shapes_only():
        model = MusicGenLM(config)
    model.load_state_dict(_ours(config, state, Path(checkpoint)), assign=True)
    save(model, folder, like=with_)
    return model.eval().requires_grad_(False)


def read(path: Path) -> tuple[MusicGenConfig, dict[str, Tensor]]:
    """A checkpoint file -> sizes and AudioCraft's tensors. Raises ValueError saying what to do where that fails."""
    try:
        table = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged or hostile file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a checkpoint of plain tensors ({reason}): a training checkpoint carries objects, write it "
            "with AudioCraft's audiocraft.utils.export.export_lm first, which leaves tensors and text"
        ) from error
    if not isinstance(table, Mapping) or not isinstance(table.get("best_state"), Mapping):
        raise ValueError(f"{path} has no 'best_state': name the state_dict.bin that AudioCraft exports")
    if not isinstance(table.get("xp.cfg"), str):
        raise ValueError(f"{path}: 'xp.cfg' is no text: write it with AudioCraft's audiocraft.utils.export.export_lm")
    # the module has its matrices either itself or in one of torch's own inside
    state = {str(name).replace("attn.mha.", "attn.").replace("attention.mha.", "attention."): value
             for name, value in table["best_state"].items()}  # fmt: skip
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: 'best_state' must be tensors by name, {name!r} is a {type(value).__name__}")
    return config_of(settings(table["xp.cfg"]), state), state


def settings(text: str) -> dict[str, str | list[str]]:
    """The block-style YAML that OmegaConf writes -> dotted name -> its text, or list of texts."""
    out: dict[str, str | list[str]] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.fullmatch(r"( *)([A-Za-z0-9_./-]+):(?: (.*))?", line)
        item = re.fullmatch(r" *- (.*)", line)
        if found:
            indent = len(found[1])
            path = [*(step for step in path if step[0] < indent), (indent, found[2])]
            value = (found[3] or "").strip()
            if value:
                out[".".join(name for _, name in path)] = [] if value == "[]" else value.strip("'\"")
        elif item and path:
            row = out.setdefault(".".join(name for _, name in path), [])
            if isinstance(row, list):
                row.append(item[1].strip("'\""))
    return out


def config_of(said: Mapping[str, str | list[str]], state: Mapping[str, Tensor]) -> MusicGenConfig:
    """Settings and tensors -> sizes. Raises ValueError for a language model that is no MusicGen."""
    for name, wanted in _FIXED.items():
        value = said.get(f"transformer_lm.{name}", wanted)
        if value != wanted:
            raise ValueError(f"transformer_lm.{name} is {value!r}: MusicGen has {wanted!r}")
    if said.get("lm_model", "transformer_lm") != "transformer_lm":
        raise ValueError(f"lm_model {said['lm_model']!r} is no MusicGen")
    wav, text = f"{_CONDITIONERS}self_wav.output_proj.weight", f"{_CONDITIONERS}description.output_proj.weight"
    for name in ("emb.0.weight", text):
        if name not in state or state[name].dim() != 2:
            raise ValueError(f"the checkpoint has no matrix {name}: it is no text-to-music MusicGen")
    books = len({name for name in state if re.fullmatch(r"emb\.\d+\.weight", name)})
    layers = len({name.split(".")[2] for name in state if name.startswith("transformer.layers.")})
    width = state["emb.0.weight"].shape[1]
    first = state.get("transformer.layers.0.linear1.weight")
    if first is None:
        raise ValueError("the checkpoint has no transformer.layers.0.linear1.weight: it is no MusicGen")
    melody, delays = wav in state, said.get("codebooks_pattern.delay.delays")
    stereo = said.get("interleave_stereo_codebooks.use") == "true" or delays == _delays(books, 2)
    if stereo and said.get("interleave_stereo_codebooks.per_timestep", "false") == "true":
        raise ValueError("interleave_stereo_codebooks.per_timestep: published stereo models interleave codebooks")
    config = MusicGenConfig(
        width=width, layers=layers, heads=_whole(said, "transformer_lm.num_heads"), ffn=first.shape[0], books=books,
        cardinality=state["emb.0.weight"].shape[0] - 1, channels=2 if stereo else 1,
        activation=str(said.get("transformer_lm.activation", "gelu")), text_width=state[text].shape[1], melody=melody,
        chroma_bins=state[wav].shape[1] if melody else 12,
    )  # fmt: skip
    pattern = said.get("codebooks_pattern.modeling", "delay")
    if pattern != "delay" or (delays is not None and delays != _delays(books, config.channels)):
        raise ValueError(f"codebooks_pattern {pattern!r} with delays {delays}: MusicGen's are {config.pattern.delays}")
    for leaf, size in (("dim", width), ("num_layers", layers), ("n_q", books), ("card", config.cardinality)):
        name = f"transformer_lm.{leaf}"
        if name in said and _whole(said, name) != size:
            raise ValueError(f"{name} is {said[name]!r}, the tensors make it {size}")
    return config


def join(config: MusicGenConfig, text_encoder: Path, codec: Path) -> Company:
    """The text encoder and codec of two folders -> what the decoder is saved with."""
    text_row, codec_row = read_json(text_encoder / "config.json"), read_json(codec / "config.json")
    if text_row.get("model_type") != "t5" or codec_row.get("model_type") != "encodec":
        raise ValueError(
            f"a T5 and an EnCodec are needed, {text_encoder} is a {text_row.get('model_type')!r} and {codec} a "
            f"{codec_row.get('model_type')!r}"
        )
    if not tokenizer_files(text_encoder):
        raise FileNotFoundError(f"{text_encoder} has no tokenizer: tokenizer.json or spiece.model must be in it")
    text, sound = Shards(text_encoder), Shards(codec)
    tensors: dict[str, Callable[[], Tensor]] = {}
    for name in shapes(text_row):
        tied = "encoder.embed_tokens.weight" if name == "shared.weight" and name not in text.names else name
        if tied not in text.names:
            raise ValueError(f"{text_encoder} has no {tied}")
        tensors[f"text_encoder.{name}"] = partial(text.tensor, tied)
    tensors |= {f"audio_encoder.{name}": partial(sound.tensor, name) for name in sound.names}
    row: dict[str, Any] = {"text_encoder": text_row, "audio_encoder": codec_row}
    special = config.cardinality
    generation = {
        "decoder_start_token_id": special, "pad_token_id": special, "bos_token_id": special, "do_sample": True,
        "guidance_scale": 3.0, "max_length": 1500,
    }  # fmt: skip
    files = tuple(text_encoder / name for name in tokenizer_files(text_encoder))
    return Company(row, tensors, files, {"generation_config.json": json.dumps(generation, indent=1) + "\n"})


def _ours(config: MusicGenConfig, state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """AudioCraft's tensors under our names: every one of them used, or known to be none."""
    left = {name: value for name, value in state.items() if not _IGNORED.fullmatch(name)}

    def take(name: str) -> Tensor:
        if name not in left:
            raise ValueError(f"{path}: no tensor {name}")
        value = left.pop(name).float()
        if not bool(value.isfinite().all()):
            raise ValueError(f"{path}: {name} holds values that are not finite numbers")
        return value

    out = {"embed.weight": torch.cat([take(f"emb.{book}.weight") for book in range(config.books)])}
    out["heads.weight"] = torch.cat([take(f"linears.{book}.weight") for book in range(config.books)])
    for ours, theirs in _names(config):
        out[ours] = take(theirs)
    if not config.melody:
        width = config.width
        for layer in range(config.layers):
            fused = take(f"transformer.layers.{layer}.cross_attention.in_proj_weight")
            out[f"blocks.{layer}.cross_q.weight"] = fused[:width].clone()
            out[f"blocks.{layer}.cross_kv.weight"] = fused[width:].clone()
    if left:
        raise ValueError(f"{path}: {len(left)} tensors of an unknown use, first {sorted(left)[:3]}")
    with shapes_only():
        wanted = MusicGenLM(config).state_dict()
    for name, value in out.items():
        if value.shape != wanted[name].shape:
            raise ValueError(f"{path}: {name} is {list(value.shape)}, the settings make it {list(wanted[name].shape)}")
    return out


def _names(config: MusicGenConfig) -> Iterator[tuple[str, str]]:
    for leaf in ("weight", "bias"):
        yield f"norm.{leaf}", f"out_norm.{leaf}"
        if config.projects_text:
            yield f"project_text.{leaf}", f"{_CONDITIONERS}description.output_proj.{leaf}"
        if config.projects_chroma:
            yield f"project_chroma.{leaf}", f"{_CONDITIONERS}self_wav.output_proj.{leaf}"
    for layer in range(config.layers):
        for ours, theirs in _LAYER.items():
            if config.melody and ours.startswith("cross"):
                continue
            for leaf in ("weight", "bias") if ours.endswith("norm") else ("weight",):
                full = theirs if theirs.endswith("_weight") else f"{theirs}.{leaf}"
                yield f"blocks.{layer}.{ours}.{leaf}", f"transformer.layers.{layer}.{full}"


def _delays(books: int, channels: int) -> list[str]:
    return [str(book // channels) for book in range(books)]


def _whole(said: Mapping[str, str | list[str]], name: str) -> int:
    value = said.get(name)
    if not isinstance(value, str) or not value.isdigit():
        raise ValueError(f"the settings' {name} is {value!r}, a whole number is needed")
    return int(value)
