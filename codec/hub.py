"""Official codecs from the Hugging Face hub, when somebody names one: the only place that may touch the network."""

from __future__ import annotations

import re
from pathlib import Path

from .transformers_format import config_of, read_json, shards

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def is_id(name: str) -> bool:
    """Whether ``name`` reads as ``owner/model`` and not as a path: its first part must not be a folder here."""
    return bool(_ID.fullmatch(name)) and not Path(name).exists() and not Path(name.split("/")[0]).is_dir()


def fetch(name: str) -> Path:
    """The folder of the model ``owner/model`` in the local cache, downloaded if need be; of MusicGen only its codec.

    Raises FileNotFoundError in one line when it cannot be had: no such model, no network, no package.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise FileNotFoundError(
            f"{name} is on the hub and needs its package: pip install 'descant[hub]', or name a local folder"
        ) from error
    try:
        config = Path(hf_hub_download(name, "config.json"))
        _, prefix = config_of(read_json(config))
        try:
            files = shards(Path(hf_hub_download(name, "model.safetensors.index.json")), prefix)
        except EntryNotFoundError:
            files = ["model.safetensors"]
        for file in files:
            hf_hub_download(name, file)
    except (OSError, EntryNotFoundError) as error:  # the package's network and cache errors are OSErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FileNotFoundError(
            f"cannot fetch {name} from the hub ({type(error).__name__}: {reason}): check the name and the network, "
            "or download its config.json and *.safetensors elsewhere and name that folder"
        ) from error
    return config.parent
