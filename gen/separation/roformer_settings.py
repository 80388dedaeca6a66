"""From a RoFormer checkpoint's tensors and the settings beside it to a :class:`RoformerConfig`.

Sizes come from the shapes of tensors. The settings add what shapes do not tell: the hop, the names of the stems, how
much is heard at a time. They have the sections of the training programs of the community: ``audio``, ``model``,
``training`` and ``inference``; what they say of sizes must agree with the tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from . import roformer_bands, roformer_yaml
from .roformer import RoformerConfig

_SECTIONS = ("audio", "model", "training", "inference")
_ENDINGS = (".yaml", ".yml", ".json")
#: Settings of the model that are read here, or that the shapes tell.
_READ = frozenset({
    "stereo", "num_stems", "dim", "depth", "heads", "dim_head", "time_transformer_depth", "freq_transformer_depth",
    "linear_transformer_depth", "freqs_per_bands", "num_bands", "freq_range", "sample_rate", "stft_n_fft",
    "stft_hop_length", "stft_win_length", "stft_normalized", "mask_estimator_depth", "mlp_expansion_factor",
    "skip_connection", "zero_dc", "add_value_residual", "use_shared_bias", "num_residual_streams",
    "num_residual_fracs", "mc_hyper_conn_sinkhorn_iters",
})  # fmt: skip
#: Settings that change nothing in what the network gives: of training, of speed, or that no code ever used.
_IDLE = frozenset({
    "attn_dropout", "ff_dropout", "flash_attn", "linear_flash_attn", "sage_attention", "sage_attention_mode",
    "attention_layout", "dim_freqs_in", "multi_stft_resolution_loss_weight", "multi_stft_resolutions_window_sizes",
    "multi_stft_hop_size", "multi_stft_normalized", "match_input_audio_length", "use_torch_checkpoint",
})  # fmt: skip


def beside(checkpoint: Path) -> dict[str, Any]:
    """The settings in the file beside a checkpoint that has its name and ends in .yaml, .yml or .json.

    Raises ValueError when there is none, or when it cannot be read.
    """
    paths = [checkpoint.with_suffix(ending) for ending in _ENDINGS]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"{checkpoint.name} needs its settings, for the hop and the names of its stems are not in the weights: put "
            f"the YAML file that came with it at {paths[0]}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix == ".json" else roformer_yaml.read(text, _SECTIONS)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise ValueError(f"{path} holds no section 'model': name the settings that came with the checkpoint")
    return found


def config_of(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> RoformerConfig:
    """Tensors by the checkpoint's names and its settings -> the network's.

    Raises ValueError where they disagree, and for settings of networks that are not built here.
    """
    model, audio, listening = (_section(settings, name) for name in ("model", "audio", "inference"))
    _refuse(tensors, model)
    along = places(tensors)[1]
    layer = f"layers.0.{along}.layers.0"
    heads, inner = _size(tensors, f"{layer}.0.to_gates.weight"), _size(tensors, f"{layer}.0.to_qkv.weight") // 3
    sizes = [
        _size(tensors, f"band_split.to_features.{band}.1.weight", 1)
        for band in range(_count(tensors, r"band_split\.to_features\.(\d+)\."))
    ]
    window, rate = _whole(model, "stft_n_fft", 2048), _whole(model, "sample_rate", _whole(audio, "sample_rate", 44100))
    channels, streams = 2 if model.get("stereo") else 1, f"{layer}.0.streams.static_alpha"
    stems, rest = _stems(settings, _count(tensors, r"mask_estimators\.(\d+)\."))
    chunk = _whole(listening, "chunk_size", _whole(audio, "chunk_size", 8 * rate))
    config = RoformerConfig(
        stems=stems, rest=rest, rate=rate, channels=channels, window=window,
        taper=_whole(model, "stft_win_length", 2048), hop=_whole(model, "stft_hop_length", 512),
        orthonormal=bool(model.get("stft_normalized")), **_bands(sizes, channels, model, window, rate),
        width=_size(tensors, "band_split.to_features.0.1.weight"), blocks=_count(tensors, r"layers\.(\d+)\."),
        heads=heads, head=inner // heads, hidden=_size(tensors, f"{layer}.1.net.1.weight"), depths=_depths(tensors),
        mask_hidden=_size(tensors, "mask_estimators.0.to_freqs.0.0.0.weight"),
        mask_layers=_count(tensors, r"mask_estimators\.0\.to_freqs\.0\.0\.(\d+)\.") // 2 + 1,
        block_norm=f"layers.0.{along}.norm.gamma" in tensors, final_norm="final_norm.gamma" in tensors,
        streams=tensors[streams].shape[0] if streams in tensors else 1,
        rounds=_whole(model, "mc_hyper_conn_sinkhorn_iters", 2), skips=bool(model.get("skip_connection")),
        values=_values(tensors), zero_dc=bool(model.get("zero_dc")),
        seconds=chunk / rate, overlap=_whole(listening, "num_overlap", 2),
    )  # fmt: skip
    told = {"dim": config.width, "depth": config.blocks, "heads": heads, "dim_head": config.head,
            "num_stems": len(stems), "num_residual_streams": config.streams,
            "linear_transformer_depth": config.depths[0], "time_transformer_depth": config.depths[1],
            "freq_transformer_depth": config.depths[2]}  # fmt: skip
    for name, value in told.items():
        if name in model and (model[name] or 0) != value:
            raise ValueError(f"the settings say {name}: {model[name]}, the tensors {value}: they are of another file")
    return config


def places(tensors: Mapping[str, Tensor]) -> tuple[int | None, int, int]:
    """Where in a block of the checkpoint attention between channels, along time and across bands are."""
    found = sorted({int(match[1]) for name in tensors if (match := re.match(r"layers\.0\.(\d+)\.", name))})
    if len(found) not in (2, 3):
        raise ValueError(f"a block of {len(found)} transformers: two or three are known")
    return (found[0] if len(found) == 3 else None), found[-2], found[-1]


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise ValueError(f"the section {name!r} of the settings must hold names and values")
    return found or {}


def _whole(section: Mapping[str, Any], name: str, otherwise: int) -> int:
    found = section.get(name)
    if found is None:
        return otherwise
    if isinstance(found, bool) or not isinstance(found, int | float) or not 1 <= found <= 1 << 30 or found % 1:
        raise ValueError(f"{name}: {found!r} in the settings must be a whole number from 1")
    return int(found)


def _size(tensors: Mapping[str, Tensor], name: str, axis: int = 0) -> int:
    if name not in tensors or tensors[name].dim() <= axis:
        raise ValueError(f"the checkpoint lacks {name}")
    return tensors[name].shape[axis]


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number that ``pattern`` finds at the beginning of a name."""
    return max((int(found[1]) for name in tensors if (found := re.match(pattern, name))), default=-1) + 1


def _depths(tensors: Mapping[str, Tensor]) -> tuple[int, int, int]:
    first, along, across = (
        0 if place is None else _count(tensors, rf"layers\.0\.{place}\.layers\.(\d+)\.") for place in places(tensors)
    )
    return first, along, across


def _values(tensors: Mapping[str, Tensor]) -> str:
    if any(".to_value_residual_mix." in name for name in tensors):
        return "plain"
    return "swapped" if any(".learned_value_residual_mix." in name for name in tensors) else "none"


def _bands(sizes: list[int], channels: int, model: Mapping[str, Any], window: int, rate: int) -> dict[str, Any]:
    """Bands of a network whose band layers take so many numbers each."""
    widths = tuple(size // (2 * channels) for size in sizes)
    cut = model.get("freq_range") or (-1, -1)
    if not isinstance(cut, list | tuple) or len(cut) != 2 or not all(isinstance(one, int) for one in cut):
        raise ValueError(f"freq_range: {cut!r} in the settings must be two numbers of bins")
    if window > 1 << 17:
        raise ValueError(f"stft_n_fft: {window} in the settings is longer than any frame: at most {1 << 17}")
    if "num_bands" in model or (sum(widths) > window // 2 + 1 and "freqs_per_bands" not in model):
        bands = roformer_bands.mel(len(widths), window, rate)
        if tuple(stop - start for start, stop in bands) == widths:
            return {"mel_bands": len(widths)}
    else:
        low, high = max(0, cut[0]), window // 2 + 1 if cut[1] < 0 else cut[1]
        if tuple(model.get("freqs_per_bands") or widths) == widths and sum(widths) == high - low:
            return {"bands": widths, "first_bin": low}
    raise ValueError(
        f"bands of {', '.join(map(str, widths[:8]))}.. bins do not fit the settings: check stereo, "
        f"stft_n_fft ({window}), sample_rate ({rate}) and freqs_per_bands or num_bands"
    )


def _stems(settings: Mapping[str, Any], count: int) -> tuple[tuple[str, ...], str]:
    """Names of the stems, and of what they leave when the settings have one for it."""
    training = _section(settings, "training")
    names, target = training.get("instruments"), training.get("target_instrument")
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(f"the settings name no stems: write {count} in training: instruments: [..]")
    listed = [str(name) for name in names]
    if target is not None and count == 1:
        others = [name for name in listed if name != str(target)]
        return (str(target),), (others[0] if len(others) == 1 else "")
    if len(listed) != count:
        raise ValueError(f"the settings name {len(listed)} stems, the checkpoint has masks for {count}")
    return tuple(listed), ""


def _refuse(tensors: Mapping[str, Tensor], model: Mapping[str, Any]) -> None:
    """Raise ValueError for a network that is not built here, naming the setting."""
    marks = {"residual streams without bounds": ("dynamic_alpha_scale",), "use_pope": ("pope_embed",),
             "lora": ("lora_A", "lora_B")}  # fmt: skip
    for setting, parts in marks.items():
        name = next((name for name in tensors if any(part in name for part in parts)), None)
        if name is not None:
            raise ValueError(f"networks with {setting} are not supported (the checkpoint has {name})")
    if model.get("num_residual_fracs", 1) != 1:
        raise ValueError(f"networks with num_residual_fracs: {model['num_residual_fracs']} are not supported, only 1")
    for setting, value in model.items():
        if setting not in _READ | _IDLE and value not in (None, False, 0):
            raise ValueError(f"networks with {setting}: {value} are not supported")
