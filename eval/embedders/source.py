"""Weights from a file, a folder, or the Hugging Face hub, always as data: nothing in them is ever executed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
#: Names under which folders keep a whole model.
USUAL: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".ckpt", ".bin")
#: Where published checkpoints keep their tensors beside optimiser state and the like.
_NESTS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.", "net.")


def is_id(source: str | os.PathLike[str]) -> bool:
    """Whether this reads as ``owner/model`` on the hub and not as a path: its first part must not be a folder here."""
    name = str(source)
    return bool(_ID.fullmatch(name)) and not Path(name).exists() and not Path(name.split("/")[0]).is_dir()


def locate(source: str | os.PathLike[str], names: Sequence[str]) -> Path:
    """The file meant by a file, by a folder, or by a hub id: there, the first of ``names`` that exists.

    A folder with a single weights file needs no name. Raises FileNotFoundError saying what was looked for.
    """
    path = Path(source)
    if path.is_file():
        return path
    wanted = tuple(dict.fromkeys((*names, *USUAL)))
    if path.is_dir():
        for name in wanted:
            if (path / name).is_file():
                return path / name
        found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
        if len(found) == 1:
            return found[0]
        seen = f"holds {', '.join(file.name for file in found[:4])}" if found else "holds no weights"
        raise FileNotFoundError(f"{path} {seen}; need {' or '.join(names or USUAL)}: name the file itself")
    if is_id(source):
        for name in wanted:
            file = fetch(str(source), name)
            if file is not None:
                return file
        raise FileNotFoundError(f"{source} on the hub has none of {', '.join(wanted)}: name a local file")
    raise FileNotFoundError(f"{path}: no such file or folder; need {' or '.join(names or USUAL)}")


def fetch(name: str, file: str) -> Path | None:
    """A file of ``owner/model`` in the local cache, downloaded if need be; None when the model has no such file.

    Raises FileNotFoundError in one line without a network, without the package, or for an unknown model.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise FileNotFoundError(
            f"{name} is on the hub and needs its package: pip install 'descant[hub]', or name a local file"
        ) from error
    try:
        return Path(hf_hub_download(name, file))
    except (OSError, EntryNotFoundError) as error:  # the package's network and cache errors are OSErrors
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            return None
        raise FileNotFoundError(
            f"cannot fetch {file} of {name} from the hub ({type(error).__name__}): check the name and the network, or "
            "download it elsewhere and name the local file"
        ) from error


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, out of whatever nest a training script put them in.

    Raises ValueError for a file that is damaged, no weights file, or holds more than data.
    """
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return _named(load_file(path), path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}): fetch it again") from error
    if path.suffix == ".npz":
        return _named(_arrays(path), path)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"{path} is no weights file; known are {', '.join(_SUFFIXES)}")
    try:
        with _numbers():
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a file that is cut short or holds code
        reason = (str(error).strip().splitlines() or [""])[0][:120]
        raise ValueError(f"{path} cannot be read as data ({type(error).__name__}: {reason}): fetch it again") from error
    return _named(found, path)


def _named(found: Any, path: Path) -> dict[str, Tensor]:
    while isinstance(found, Mapping):
        nest = next((found[name] for name in _NESTS if isinstance(found.get(name), Mapping)), None)
        if nest is None:
            break
        found = nest
    table = found if isinstance(found, Mapping) else {}
    state = {str(name): value for name, value in table.items() if isinstance(value, Tensor)}
    if not state:
        raise ValueError(f"{path} holds no tensors by name: is it a checkpoint of this judge?")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _arrays(path: Path) -> dict[str, Tensor]:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as table:
            return {name: torch.from_numpy(np.ascontiguousarray(table[name])) for name in table.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged ({error}): fetch it again") from error


@contextlib.contextmanager
def _numbers() -> Iterator[None]:
    """Let checkpoints hold numpy's plain numbers (a best loss, an epoch), as LAION's do; they are data too."""
    import numpy as np

    if torch.__version__ < "2.6":  # cannot allow a function under the name that another numpy wrote
        yield
        return
    scalar = np.float64(0).__reduce__()[0]
    kinds: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64))]
    kinds += [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals(kinds):
        yield
