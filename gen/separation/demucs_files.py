"""Demucs weights: by their official names, from folders and from files; nothing in a file is run.

A file holds one network: safetensors with the class and its arguments as JSON in the header, as demucs 4.1 publishes
them, or ``.th``, opened with ``weights_only=True``. A folder holds files and, for a bag, a YAML with their signatures.
Files name a class and its arguments; only the three classes of demucs are made, first without memory, and their tensors
must have the shapes of those in the file.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoint import Look
from .demucs import DemucsSeparator, Member

#: Official models, and what they are.
NAMES: Mapping[str, str] = {
    "htdemucs": "drums, bass, other, vocals",
    "htdemucs_ft": "the same, one fine-tuned network a stem",
    "htdemucs_6s": "guitar and piano, too",
    "hdemucs_mmi": "the hybrid before transformers",
}
_CLASSES: Mapping[str, str] = {"HTDemucs": "htdemucs", "HDemucs": "hdemucs", "Demucs": "demucs"}
_SIGNATURE = re.compile(r"[A-Za-z0-9_]+")
#: Numbers among the arguments of a class stay below this: the largest there is counts samples a second.
_LARGEST = 1 << 20


def named(name: str) -> DemucsSeparator:
    """An official model by its name: from the hub's cache, else fetched as demucs fetches it.

    Raises ValueError in one line when the package or the weights cannot be had.
    """
    _package()
    from demucs.hf import DEFAULT_NAMESPACE, hf_repo_name
    from huggingface_hub import hf_hub_download

    place = f"{DEFAULT_NAMESPACE}/{hf_repo_name(name)}"

    def fetch(file: str) -> Path:
        try:
            return Path(hf_hub_download(place, file, local_files_only=True))
        except OSError:
            return Path(hf_hub_download(place, file))

    try:
        sheet = fetch(f"{name}.yaml")
        for signature in _sheet(sheet)["models"]:
            fetch(f"{signature}.safetensors")
    except OSError as error:  # the package's network and cache errors are OSErrors
        reason = (str(error).strip().splitlines() or ["no reason given"])[0].split(". ")[0].rstrip(".")
        raise ValueError(
            f"{name} is not in this machine's cache and cannot be fetched from {place} on the hub "
            f"({type(error).__name__}: {reason}): get {name}.yaml and its .safetensors elsewhere and name their folder"
        ) from error
    return DemucsSeparator(_bag(sheet))


def read(path: str | os.PathLike[str]) -> list[Member]:
    """The bag in a folder, or the network in a file. Raises ValueError when there is none that can be used."""
    _package()
    path = Path(path)
    if not path.is_dir():
        network = _network(path)
        return [Member(network, (1.0,) * len(network.sources))]
    sheets = _sheets(path)
    if len(sheets) > 1:
        raise ValueError(f"{path} holds {len(sheets)} bags ({', '.join(s.name for s in sheets)}): keep one in a folder")
    if sheets:
        return _bag(sheets[0])
    files = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".th"))
    if len(files) != 1:
        raise ValueError(f"{path} holds {len(files)} networks and no YAML that makes a bag of them: name one file")
    return read(files[0])


def is_file(held: Look) -> bool:
    """Whether a checkpoint is one of Demucs: it names a class of it, or its tensors are those of a hybrid network."""
    return any(name.startswith("demucs.") for name in held.classes) or "tencoder.0.conv.weight" in held.names


def is_folder(path: Path) -> bool:
    """Whether a folder holds demucs weights: a bag's YAML beside a file it names, or a single ``.th``."""
    names = {file.stem.split("-")[0] for file in path.iterdir() if file.suffix in (".safetensors", ".th")}
    for sheet in path.glob("*.yaml"):
        text = sheet.read_text(encoding="utf-8", errors="replace") if sheet.stat().st_size < _LARGEST else ""
        if "models:" in text and any(name in text for name in names):
            return True
    return len(list(path.glob("*.th"))) == 1


def _package() -> None:
    try:
        import demucs.apply  # noqa: F401
    except ImportError as error:
        raise ValueError(f"Demucs networks need the package demucs ({error}): pip install 'descant[demucs]'") from error


def _sheets(folder: Path) -> list[Path]:
    return sorted(sheet for sheet in folder.glob("*.yaml") if _signatures(sheet))


def _signatures(sheet: Path) -> list[str]:
    """Signatures a YAML file names, without trusting it: [] for any other file."""
    try:
        return list(_sheet(sheet)["models"])
    except ValueError:
        return []


def _sheet(path: Path) -> dict[str, Any]:
    import yaml

    table: Any
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {str(error).splitlines()[0]}") from None
    table = table if isinstance(table, dict) else {}
    names = table.get("models")
    if not isinstance(names, list) or not 0 < len(names) <= 64:
        raise ValueError(f"{path} names no models: a bag lists the signatures of its networks")
    if not all(isinstance(name, str) and _SIGNATURE.fullmatch(name) for name in names):
        raise ValueError(f"{path} names models that are no signatures: {names}")
    found: dict[str, Any] = table
    return found


def _bag(sheet: Path) -> list[Member]:
    table = _sheet(sheet)
    names: list[str] = table["models"]
    rows: Any
    rows, segment = table.get("weights"), table.get("segment")
    networks: dict[str, Any] = {}
    for name in names:
        file = _file(sheet.parent, name)
        if file is None:
            raise ValueError(f"{sheet} wants {name}.safetensors or {name}.th beside it: fetch it, too")
        networks.setdefault(name, _network(file))
    count = len(networks[names[0]].sources)
    rows = [[1.0] * count for _ in names] if rows is None else rows
    try:
        weights = [[float(value) for value in row] for row in rows]
    except (TypeError, ValueError):
        raise ValueError(f"{sheet}: its weights are no numbers") from None
    if len(weights) != len(names) or any(len(row) != count or not all(map(math.isfinite, row)) for row in weights):
        raise ValueError(f"{sheet}: {len(names)} networks of {count} stems need as many rows of as many weights")
    if segment is not None:
        _shorten(networks, sheet, segment)
    # a network named twice is run once
    totals = {name: [0.0] * count for name in names}
    for name, row in zip(names, weights, strict=True):
        totals[name] = [a + b for a, b in zip(totals[name], row, strict=True)]
    return [Member(networks[name], tuple(row)) for name, row in totals.items()]


def _shorten(networks: Mapping[str, Any], sheet: Path, segment: Any) -> None:
    """Give networks the segment of their bag, as demucs does: not beyond what one was trained with."""
    if not isinstance(segment, int | float) or not 0 < segment < 600:
        raise ValueError(f"{sheet}: a segment of {segment!r} s cannot be")
    for network in networks.values():
        if type(network).__name__ != "HTDemucs" or segment <= network.segment:
            network.segment = segment


def _file(folder: Path, signature: str) -> Path | None:
    """The file of a signature; a ``.th`` may have its checksum in its name."""
    plain = folder / f"{signature}.safetensors"
    if plain.is_file():
        return plain
    found = sorted(file for file in folder.glob(f"{signature}*.th") if file.stem.split("-")[0] == signature)
    return found[0] if found else None


def _network(path: Path) -> Any:
    """Read one network. Raises ValueError for a file that is damaged, or holds something else."""
    table = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    try:
        name, args, kwargs, state = table["klass"], table["args"], table["kwargs"], table["state"]
    except KeyError as error:
        raise ValueError(f"{path} holds no network as demucs saves them: {error.args[0]} is missing") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds quantised weights: use the model that is not (mdx_extra, not mdx_extra_q)")
    network = _blank(path, str(name), args, kwargs)
    own = network.state_dict()
    odd = [key for key, value in own.items() if key in state and value.shape != state[key].shape]
    wrong = sorted([*(set(own) ^ set(state)), *odd])
    if wrong:
        raise ValueError(f"{path}: the tensor {wrong[0]} and its settings do not agree: fetch the file again")
    weights = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise ValueError(f"{path}: the weights hold values that are not finite; fetch them again")
    nn.Module.load_state_dict(network, weights, assign=True)  # Demucs overrides it, without assign
    transformer = getattr(network, "crosstransformer", None)
    if transformer is not None:
        transformer.sin_random_shift = 0  # a random start of positions, for training; demucs leaves it on
    return network.requires_grad_(False).eval()


def _blank(path: Path, name: str, args: Any, kwargs: Any) -> nn.Module:
    """A network of a class of demucs by its dotted name, with parameters that have shapes but no memory."""
    import importlib

    module, _, kind = name.rpartition(".")
    if kind not in _CLASSES or module != f"demucs.{_CLASSES[kind]}":
        raise ValueError(f"{path} wants to be a {name}: only demucs' own {', '.join(_CLASSES)} are made")
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping) or not _modest([args, dict(kwargs)]):
        raise ValueError(f"{path}: the settings in its header cannot be those of a network")
    made = getattr(importlib.import_module(module), kind)
    known = inspect.signature(made).parameters
    try:
        with torch.device("meta"):
            network: nn.Module = made(*args, **{key: value for key, value in kwargs.items() if key in known})
    except Exception as error:  # whatever a class does with settings that are none
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: the settings in its header make no {kind}: {reason}") from None
    return network


def _modest(value: Any, depth: int = 0) -> bool:
    """Whether a setting is a plain one of a size that a network can have."""
    if isinstance(value, str | bool) or value is None:
        return True
    if isinstance(value, int | float | Fraction):
        return -_LARGEST < value < _LARGEST
    if depth < 4 and isinstance(value, list | tuple):
        return len(value) <= 64 and all(_modest(item, depth + 1) for item in value)
    if depth < 4 and isinstance(value, Mapping):
        counts: list[Any] = [value.get(key, 0) for key in ("depth", "t_layers", "dconv_depth")]
        if not all(isinstance(number, int) and number <= 64 for number in counts):
            return False
        return len(value) <= 128 and all(_modest(item, depth + 1) for item in value.values())
    return False


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            about = dict(file.metadata() or {})
            if "structure" in about:
                return {"klass": "", "args": [], "kwargs": {}, "state": None}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        settings = {key: _decoded(json.loads(about[key])) for key in ("args", "kwargs") if key in about}
    except (SafetensorError, json.JSONDecodeError, ZeroDivisionError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    return {**{key: about[key] for key in ("klass",) if key in about}, **settings, "state": state}


def _decoded(value: Any) -> Any:
    """A setting from JSON, where fractions are written as tables."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return Fraction(value["numerator"], value["denominator"])
        return {key: _decoded(item) for key, item in value.items()}
    return [_decoded(item) for item in value] if isinstance(value, list) else value


def _pickled(path: Path) -> dict[str, Any]:
    """A ``.th`` file, in which the classes of demucs and fractions may stand beside tensors and plain values."""
    import importlib

    classes = [getattr(importlib.import_module(f"demucs.{module}"), name) for name, module in _CLASSES.items()]
    try:
        with torch.serialization.safe_globals([*classes, Fraction]):
            table = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged or hostile file
        raise ValueError(
            f"{path} cannot be opened as plain weights ({_reason(error)}): descant runs nothing that is in a file; "
            "fetch the .safetensors of this model"
        ) from None
    if not isinstance(table, dict):
        raise ValueError(f"{path} holds a {type(table).__name__}, not a network as demucs saves them")
    kind = table.get("klass")
    if isinstance(kind, type):
        table["klass"] = f"{kind.__module__}.{kind.__name__}"
    return table


def _reason(error: Exception) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return f"it wants {found[1]}" if found else (str(error).splitlines() or [type(error).__name__])[0]
