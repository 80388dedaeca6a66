"""Open-Unmix weights: the projects' own files by target, or ours in safetensors; nothing in a file is run.

A folder holds ``<stem>.pth`` (or ``<stem>-<hash>.pth``, as published, or ``<stem>.safetensors``) for each stem, and may
hold ``separator.json`` with the hop and rate. Sizes follow from the tensors.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoint
from .openunmix import OpenUnmix, OpenUnmixConfig
from .openunmix_separator import OpenUnmixSeparator, OpenUnmixSettings

#: Published models: where their weights are, and the files.
PUBLISHED: dict[str, tuple[str, tuple[str, ...]]] = {
    "umx": ("3370486", ("vocals-c8df74a5", "drums-5a48008b", "bass-646024d3", "other-f8e132cc")),
    "umxhq": ("3370489", ("vocals-b62c91ce", "drums-9619578f", "bass-8d85a5bd", "other-b52fbbf7")),
    "umxl": ("5069601", ("vocals-bccbd9aa", "drums-69e0ebd4", "bass-2ca1ce51", "other-c8c5b3e6")),
}
#: Stems in the order that people know; others follow by name.
ORDER = ("vocals", "drums", "bass", "other")
_SUFFIXES = (".safetensors", ".pth")
_NEEDED = frozenset({"input_mean", "input_scale", "output_scale", "output_mean", "fc1.weight", "lstm.weight_ih_l0"})


def named(name: str) -> OpenUnmixSeparator:
    """A published model, whose files torch's hub has in its cache. Raises ValueError when it has not."""
    record, stems = PUBLISHED[name]
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    missing = [f"{stem}.pth" for stem in stems if not (cache / f"{stem}.pth").is_file()]
    if missing:
        raise ValueError(
            f"{name} wants {', '.join(missing)} in {cache}: get them from Zenodo's record {record}, or put them into a "
            "folder and name it"
        )
    networks = {stem.split("-")[0]: _network(cache / f"{stem}.pth") for stem in stems}
    return OpenUnmixSeparator(networks, _settings(cache, next(iter(networks.values()))))


def load(path: str | os.PathLike[str]) -> OpenUnmixSeparator:
    """A separator from a folder, or of one stem from a file. Raises ValueError for what holds none."""
    path = Path(path)
    if not path.is_dir():
        network = _network(path)
        return OpenUnmixSeparator({_stem(path): network}, _settings(path.parent, network))
    files: dict[str, Path] = {}
    for file in _files(path):
        if _stem(file) in files:
            raise ValueError(f"{path} holds {files[_stem(file)].name} and {file.name}: keep one of each stem")
        files[_stem(file)] = file
    if not files:
        raise ValueError(f"{path} holds no weights of Open-Unmix ({', '.join('<stem>' + s for s in _SUFFIXES)})")
    order = [name for name in ORDER if name in files] + sorted(set(files) - set(ORDER))
    networks = {name: _network(files[name]) for name in order}
    return OpenUnmixSeparator(networks, _settings(path, networks[order[0]]))


def save(method: OpenUnmixSeparator, folder: str | os.PathLike[str]) -> Path:
    """Write a separator's networks and spectra into a folder that :func:`load` reads. Returns the folder."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in method.networks.items():
        weights = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
        save_file(weights, str(folder / f"{name}.part"))
        os.replace(folder / f"{name}.part", folder / f"{name}.safetensors")
    about = {"sample_rate": method.rate, "nfft": method.window, "nhop": method.grain, "nb_channels": method.channels}
    (folder / "separator.json.part").write_text(json.dumps(about) + "\n", encoding="utf-8")
    os.replace(folder / "separator.json.part", folder / "separator.json")
    return folder


def is_file(held: checkpoint.Look) -> bool:
    """Whether a checkpoint is a network of Open-Unmix."""
    return held.names >= _NEEDED


def is_folder(path: Path) -> bool:
    """Whether a folder holds a separator of Open-Unmix: its JSON, or ``.pth`` files and no settings of others."""
    if (path / "separator.json").is_file():
        return True
    return any(file.suffix == ".pth" for file in _files(path)) and not list(path.glob("*.yaml"))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())


def _stem(file: Path) -> str:
    """The stem that a file is for, without the hash at the end of its name."""
    return re.sub(r"[-_][0-9a-f]{8}$", "", file.stem)


def _settings(folder: Path, network: OpenUnmix) -> OpenUnmixSettings:
    """What separator.json says; without it a hop is a quarter of a window, as in the published music models."""
    path = folder / "separator.json"
    if not path.is_file():
        return OpenUnmixSettings(hop=max(1, (network.config.bins - 1) // 2))
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return OpenUnmixSettings(rate=int(table["sample_rate"]), hop=int(table["nhop"]))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no sample_rate and nhop that can be used: {error}") from None


def _network(path: Path) -> OpenUnmix:
    state = checkpoint.tensors(path)
    missing = sorted(_NEEDED - set(state))
    if missing:
        raise ValueError(f"{path} holds no network of Open-Unmix: {missing[0]} is missing")
    try:
        network = OpenUnmix(_config(state))
        # files of old versions hold windows and rates, too
        own = network.state_dict()
        weights = {key: state[key] for key in own if key in state or not key.endswith("num_batches_tracked")}
        network.load_state_dict({**own, **{key: value.to(own[key].dtype) for key, value in weights.items()}})
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{path}: its tensors make no network of Open-Unmix: {reason}") from None
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise ValueError(f"{path}: the weights hold values that are not finite; fetch or train them again")
    return network.eval()


def _config(state: dict[str, Tensor]) -> OpenUnmixConfig:
    bins, kept = state["output_scale"].shape[0], state["input_mean"].shape[0]
    hidden, heard = state["fc1.weight"].shape
    sizes: dict[str, Any] = {"bins": bins, "kept": kept, "channels": heard // kept, "hidden": hidden}
    layers = len([name for name in state if re.fullmatch(r"lstm\.weight_ih_l\d+", name)])
    return OpenUnmixConfig(**sizes, layers=layers, causal="lstm.weight_ih_l0_reverse" not in state)
