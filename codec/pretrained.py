"""Codecs on disk and by name: descant folders, transformers folders, hub ids, checkpoints of the original packages.

A descant folder holds ``config.json`` and ``model.safetensors``. Nothing is unpickled into anything but tensors, and
nothing is downloaded unless a hub id is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from . import model, official
from .model import Codec, CodecConfig

if TYPE_CHECKING:
    from . import contract
    from .neural import NeuralCodec
    from .official import DacConfig, EncodecConfig

FORMAT = "descant-codec"
VERSION = 1
#: Presets: shapes to build and train. Trained weights are loaded by a folder's name or a hub id.
PRESETS: dict[str, Callable[[], CodecConfig | official.EncodecConfig | official.DacConfig]] = {
    "tiny": model.tiny, "tiny-stereo": model.tiny_stereo, "hifi48": model.hifi48,
    "hifi48-small": model.hifi48_small, "musicgen32": official.musicgen32, "encodec24": official.encodec24,
    "encodec48": official.encodec48, "dac44": official.dac44, "dac24": official.dac24, "dac16": official.dac16,
}  # fmt: skip
#: Where trained weights of the official presets are.
_HUB = {
    "musicgen32": "facebook/encodec_32khz", "encodec24": "facebook/encodec_24khz",
    "encodec48": "facebook/encodec_48khz", "dac44": "descript/dac_44khz", "dac24": "descript/dac_24khz",
    "dac16": "descript/dac_16khz",
}  # fmt: skip
#: Endings of the original packages' checkpoints.
_CHECKPOINTS = (".th", ".pth", ".pt", ".bin")


def build(name: str) -> Codec | NeuralCodec:
    """A codec of the preset ``name`` with random weights, in training mode. Raises ValueError for an unknown name."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    config = PRESETS[name]()
    if isinstance(config, CodecConfig):
        return Codec(config)
    # DAC is trained with weight normalisation, which its published files have folded
    return _neural(replace(config, weight_norm=True) if isinstance(config, official.DacConfig) else config)


def save(codec: Codec | NeuralCodec, folder: str | os.PathLike[str], half: bool = False) -> None:
    """Write ``codec`` into ``folder``, each file under a temporary name first; ``half`` stores float16."""
    from .transformers_format import write

    tensors = {}
    for name, value in codec.state_dict().items():
        # training statistics of the books are no part of the codec: the vectors are
        if name.endswith((".total", ".count")):
            continue
        value = value.detach().cpu().contiguous()
        # codes depend on distances between book vectors: those stay float32
        shrink = half and value.is_floating_point() and not name.endswith((".embed", ".codebook.weight"))
        tensors[name] = value.half() if shrink else value
    row: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if not isinstance(codec, Codec):
        row["family"] = "encodec" if isinstance(codec.config, official.EncodecConfig) else "dac"
    row["config"] = codec.config.to_dict()
    write(Path(folder), row, serialise(tensors, metadata={"format": FORMAT}))


def load(name_or_folder: str | os.PathLike[str] = "tiny", dtype: str = "fp32") -> contract.Codec:
    """Load a codec in evaluation mode.

    name_or_folder: ``"tiny"`` (in the package); a folder made by :func:`save`; a folder in the transformers library's
    format (EnCodec, DAC, MusicGen); a checkpoint file of the original packages; or a hub id such as
    ``"facebook/encodec_32khz"``, the one case in which something may be downloaded. dtype: ``"fp32"``, or ``"bf16"`` to
    compute an official model's networks in bfloat16 (the lookup of codes stays float32).

    Raises FileNotFoundError when a file is missing and ValueError when one is damaged or does not fit.
    """
    from . import hub

    if dtype not in ("fp32", "bf16"):
        raise ValueError(f"dtype must be 'fp32' or 'bf16', got {dtype!r}")
    name = os.fspath(name_or_folder)
    path = _find(name)
    if path.is_file() and path.suffix in _CHECKPOINTS:
        codec: Codec | NeuralCodec = _original(path)
    else:
        if name in PRESETS and not path.is_dir():
            raise ValueError(_without_weights(name))
        codec = _folder(hub.fetch(name) if hub.is_id(name) else path)
    if dtype == "bf16":
        if isinstance(codec, Codec):
            raise ValueError("dtype 'bf16' is for EnCodec and DAC: this codec is fast in fp32; leave dtype out")
        codec.to_bf16()
    return codec


def _without_weights(name: str) -> str:
    how = f"load {_HUB[name]!r} or a folder" if name in _HUB else "name the folder of a trained one"
    return f"{name} is a preset without weights in the package: {how}, or train one from descant.codec.build({name!r})"


def _folder(folder: Path) -> Codec | NeuralCodec:
    from .transformers_format import canonical, folded, read_tensors

    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no codec in {folder}: config.json is missing; name a folder made by 'descant train codec' or one in the "
            "transformers library's format"
        )
    config, prefix = _describe(path)
    if prefix is None:
        tensors = _tensors(folder / "model.safetensors")
        return _ours(config, tensors, folder) if isinstance(config, CodecConfig) else _filled(config, tensors, folder)
    if isinstance(config, CodecConfig):
        raise TypeError("the transformers format describes no codec of ours")
    tensors = canonical(read_tensors(folder, prefix))
    return _filled(config, folded(tensors) if isinstance(config, official.DacConfig) else tensors, folder)


def _describe(path: Path) -> tuple[CodecConfig | EncodecConfig | DacConfig, str | None]:
    """A config.json -> configuration and, of the transformers format, the prefix of the tensors' names."""
    from .transformers_format import config_of, read_json

    try:
        header = read_json(path)
        if "model_type" in header and "format" not in header:
            return config_of(header)
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise ValueError(f"format {header['format']!r} version {header['version']!r}")
        family, row = header.get("family", "descant"), header["config"]
        if family == "encodec":
            return official.EncodecConfig.from_dict(row), None
        if family == "dac":
            return official.DacConfig.from_dict(row), None
        if family != "descant":
            raise ValueError(f"family {family!r}; known: descant, encodec, dac")
        return CodecConfig.from_dict(row), None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a codec description this version reads: {error}") from error


def _original(path: Path) -> NeuralCodec:
    from .originals import read
    from .transformers_format import canonical

    config, tensors = read(path)
    return _filled(config, canonical(tensors), path)


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"no codec in {path.parent}: {path.name} is missing; name a folder made by 'descant train codec'"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}; fetch or train it again") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _check(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], place: Path) -> None:
    wrong = sorted(
        [name for name in wanted if name not in tensors or tensors[name].shape != wanted[name].shape]
        + [name for name in tensors if name not in wanted]
    )
    if wrong:
        raise ValueError(f"{place}: weights do not fit the configuration, first at {wrong[:3]}")
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{place}: weights contain NaN or infinity, first in {name}; fetch or train it again")


def _ours(config: CodecConfig, tensors: dict[str, Tensor], folder: Path) -> Codec:
    codec = Codec(config)
    statistics = (".total", ".count")
    _check({k: v for k, v in codec.state_dict().items() if not k.endswith(statistics)}, tensors, folder)
    codec.load_state_dict(tensors, strict=False)
    for book in codec.quantiser.all():  # the averages are not stored: start them where the vectors are
        book.reset()
    return codec.eval().requires_grad_(False)


def _neural(config: EncodecConfig | DacConfig) -> NeuralCodec:
    from .dac import DacCodec
    from .encodec import EncodecCodec

    return EncodecCodec(config) if isinstance(config, official.EncodecConfig) else DacCodec(config)


def _filled(config: EncodecConfig | DacConfig, tensors: dict[str, Tensor], place: Path) -> NeuralCodec:
    """A codec of ``config`` that holds ``tensors``; its training statistics may be missing."""
    from .neural import NeuralCodec

    with torch.device("meta"):  # nothing is drawn or allocated only to be overwritten
        codec = _neural(config)
    for name, value in codec.state_dict().items():
        if name.endswith(NeuralCodec.statistics) and name not in tensors:
            vectors = tensors.get(name.rpartition(".")[0] + ".embed")
            known = vectors is not None and name.endswith(".embed_avg")
            tensors[name] = vectors.clone() if vectors is not None and known else torch.ones(value.shape)
    _check(codec.state_dict(), tensors, place)
    codec.load_state_dict(tensors, assign=True)
    return codec.eval().requires_grad_(False)


def _find(name: str) -> Path:
    packed = Path(__file__).parent.parent / "gen" / "weights" / f"codec_{name}"
    return packed if packed.is_dir() and not Path(name).is_dir() else Path(name)
