"""Official codecs in the transformers library's format: config.json beside safetensors, whole or in shards.

Read are folders of EnCodec and DAC models and of MusicGen models, whose codec lies under ``audio_encoder``. Weight
normalisation is stored as ``weight_g`` and ``weight_v`` by older releases and as ``parametrizations.weight.original0``
and ``original1`` by newer ones; DAC is stored folded. Only the codec's own tensors are read, and only as data.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor

from .neural import NeuralCodec
from .official import DacConfig, EncodecConfig

#: EncodecConfig's fields under the names that the library's config.json has for them.
_ENCODEC = {
    "rate": "sampling_rate", "channels": "audio_channels", "bandwidths": "target_bandwidths",
    "cardinality": "codebook_size", "width": "hidden_size", "filters": "num_filters", "ratios": "upsampling_ratios",
    "residual_layers": "num_residual_layers", "kernel": "kernel_size", "last_kernel": "last_kernel_size",
    "residual_kernel": "residual_kernel_size", "dilation_growth": "dilation_growth_rate", "compress": "compress",
    "lstm_layers": "num_lstm_layers", "causal": "use_causal_conv", "conv_shortcut": "use_conv_shortcut",
    "trim_right_ratio": "trim_right_ratio", "normalize": "normalize", "segment": "chunk_length_s", "overlap": "overlap",
}  # fmt: skip
_DAC = {
    "rate": "sampling_rate", "ratios": "downsampling_ratios", "encoder_width": "encoder_hidden_size",
    "decoder_width": "decoder_hidden_size", "books": "n_codebooks", "cardinality": "codebook_size",
    "code_dim": "codebook_dim", "quantizer_dropout": "quantizer_dropout",
    "commitment_loss_weight": "commitment_loss_weight", "codebook_loss_weight": "codebook_loss_weight",
}  # fmt: skip
_NORMS = {"weight_norm": False, "time_group_norm": True}
_PADS = {"reflect": True, "constant": False}
#: Largest configuration or index that is read: the official ones have a few kilobytes.
_MOST_JSON = 16 << 20


def config_of(row: Mapping[str, Any]) -> tuple[EncodecConfig | DacConfig, str]:
    """A parsed config.json -> the codec's configuration and the prefix of its tensors' names.

    Raises ValueError when it is not a codec's, when a value cannot be, or when parts contradict each other.
    """
    kind, prefix = row.get("model_type"), ""
    if kind in ("musicgen", "musicgen_melody"):
        prefix = "audio_encoder."
        row = row.get("audio_encoder")  # type: ignore[assignment]
        if not isinstance(row, Mapping):
            raise ValueError(f"a {kind} model without its audio_encoder")
        kind = row.get("model_type")
    if kind == "encodec":
        return _encodec(row), prefix
    if kind == "dac":
        return _dac(row), prefix
    raise ValueError(f"model_type {kind!r}; known: encodec, dac, musicgen, musicgen_melody")


def _encodec(row: Mapping[str, Any]) -> EncodecConfig:
    values = {ours: row[theirs] for ours, theirs in _ENCODEC.items() if theirs in row}
    if values.get("segment") is None:
        values.pop("overlap", None)  # the library ignores it then
    for ours, theirs, known in (("group_norm", "norm_type", _NORMS), ("reflect", "pad_mode", _PADS)):
        if theirs in row:
            if not isinstance(row[theirs], str) or row[theirs] not in known:
                raise ValueError(f"{theirs} {row[theirs]!r}; known: {', '.join(known)}")
            values[ours] = known[row[theirs]]
    config = EncodecConfig(**values)
    if row.get("codebook_dim") not in (None, config.width):
        raise ValueError(f"codebook_dim {row['codebook_dim']!r} differs from hidden_size {config.width}")
    return config


def _dac(row: Mapping[str, Any]) -> DacConfig:
    values = {ours: row[theirs] for ours, theirs in _DAC.items() if theirs in row}
    values.setdefault("rate", 16000)  # the library's default; ours is the 44.1 kHz model
    if "upsampling_ratios" in row:
        values["decoder_ratios"] = row["upsampling_ratios"]
    if isinstance(values.get("quantizer_dropout"), bool):  # the first release wrote true and false
        values["quantizer_dropout"] = float(values["quantizer_dropout"])
    config = DacConfig(**values)
    for name, wanted in (("hidden_size", config.width), ("hop_length", config.hop)):
        if row.get(name) not in (None, wanted):
            raise ValueError(f"{name} {row[name]!r} contradicts the other values, which make it {wanted}")
    return config


def describe(config: EncodecConfig | DacConfig) -> dict[str, Any]:
    """The config.json that the transformers library reads. Raises ValueError for what it cannot express."""
    row: dict[str, Any]
    if isinstance(config, EncodecConfig):
        row = {theirs: getattr(config, ours) for ours, theirs in _ENCODEC.items()}
        row |= {"codebook_dim": config.width, "norm_type": "time_group_norm" if config.group_norm else "weight_norm",
                "pad_mode": "reflect" if config.reflect else "constant"}  # fmt: skip
        head = {"architectures": ["EncodecModel"], "model_type": "encodec"}
    else:
        if config.up_ratios != config.ratios[::-1]:
            raise ValueError("the transformers format has no decoder whose ratios are not the encoder's in reverse")
        row = {theirs: getattr(config, ours) for ours, theirs in _DAC.items()}
        row |= {"hidden_size": config.width, "hop_length": config.hop, "upsampling_ratios": config.up_ratios}
        head = {"architectures": ["DacModel"], "model_type": "dac"}
    row = {name: list(value) if isinstance(value, tuple) else value for name, value in row.items()}
    return {**head, **row, "dtype": "float32", "torch_dtype": "float32"}


def canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names that :class:`EncodecCodec` and :class:`DacCodec` have for them, in float32."""
    out = {}
    for name, value in tensors.items():
        name = re.sub(r"parametrizations\.weight\.original0$", "weight_g", name)
        name = re.sub(r"parametrizations\.weight\.original1$", "weight_v", name)
        out[name] = value.float() if value.is_floating_point() else value
    return out


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pairs of ``weight_g`` and ``weight_v`` multiplied out to ``weight``."""
    out = {}
    for name, value in tensors.items():
        if name.endswith(".weight_v"):
            stem = name.removesuffix("weight_v")
            if stem + "weight_g" not in tensors:
                raise ValueError(f"{name} has no {stem}weight_g beside it")
            out[stem + "weight"] = torch._weight_norm(value, tensors[stem + "weight_g"], 0)
        elif not name.endswith(".weight_g"):
            out[name] = value
    return out


def read_tensors(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, without it, from one or several safetensors files.

    Raises FileNotFoundError when a file is missing, ValueError when one is damaged or the index names odd files.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file() or not index.is_file():
        return _read(folder / "model.safetensors", prefix)
    out: dict[str, Tensor] = {}
    for name in shards(index, prefix):
        out |= _read(folder / name, prefix)
    return out


def shards(index: Path, prefix: str) -> list[str]:
    """File names that an index gives for the tensors beginning with ``prefix``.

    Raises ValueError unless they are plain names of safetensors files: an index is no way out of its folder.
    """
    try:
        names = {file for name, file in read_json(index)["weight_map"].items() if name.startswith(prefix)}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is not an index of shards: {error!r}; fetch it again") from error
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.safetensors", name):
            raise ValueError(f"{index} names the file {name!r}: only plain names of .safetensors files are read")
    return sorted(names)


def _read(path: Path, prefix: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no codec in {path.parent}: {path.name} is missing; fetch the whole folder")
    try:
        with safe_open(path, framework="pt") as file:
            return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; fetch it again") from error


def read_json(path: Path) -> Any:
    """A JSON file of bounded size. Raises ValueError when it is larger, or no JSON."""
    if path.stat().st_size > _MOST_JSON:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, a description has at most {_MOST_JSON}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a description: {error}") from error


def save(codec: NeuralCodec, folder: str | os.PathLike[str]) -> None:
    """Write ``codec`` so that the transformers library loads it; each file under a temporary name first."""
    folder = Path(folder)
    tensors: dict[str, Tensor] = {
        name: value.detach().float().cpu().contiguous() for name, value in codec.state_dict().items()
    }
    if isinstance(codec.config, EncodecConfig):
        # its loader has both key styles; the old one is read by every release
        row = describe(codec.config)
    else:
        row, tensors = describe(codec.config), folded(tensors)
    write(folder, row, serialise(tensors, metadata={"format": "pt"}))


def write(folder: Path, row: Mapping[str, Any], weights: bytes) -> None:
    """Write config.json and model.safetensors, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "model.safetensors.part"
    part.write_bytes(weights)
    os.replace(part, folder / "model.safetensors")
    part = folder / "config.json.part"
    part.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / "config.json")
