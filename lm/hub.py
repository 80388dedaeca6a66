"""MusicGen models from the Hugging Face hub, when somebody names one: the only place of this room that may download."""

from __future__ import annotations

import re
from pathlib import Path

from .shards import files_in

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKENIZER = ("tokenizer.json", "spiece.model", "tokenizer_config.json", "special_tokens_map.json")
_BESIDE = ("generation_config.json", "preprocessor_config.json")


def is_id(name: str) -> bool:
    """Whether ``name`` reads as ``owner/model`` and not as a path: its first part must not be a folder here."""
    return bool(_ID.fullmatch(name)) and not Path(name).exists() and not Path(name.split("/")[0]).is_dir()


def fetch(name: str) -> Path:
    """The folder of the model ``owner/model`` in the local cache, downloaded if need be: weights, tokenizer, settings.

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
        try:
            files = files_in(Path(hf_hub_download(name, "model.safetensors.index.json")))
        except EntryNotFoundError:
            files = ["model.safetensors"]
        for file in files:
            hf_hub_download(name, file)
        for file in (*_TOKENIZER, *_BESIDE):
            try:
                hf_hub_download(name, file)
            except EntryNotFoundError:
                continue  # which of them there are differs from model to model
    except (OSError, EntryNotFoundError) as error:  # the package's network and cache errors are OSErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FileNotFoundError(
            f"cannot fetch {name} from the hub ({type(error).__name__}: {reason}): check the name and the network, "
            "or download its config.json, *.safetensors and tokenizer files elsewhere and name that folder"
        ) from error
    return config.parent
