"""MusicGen models written as the transformers library reads them: whole, with text encoder, codec and tokenizer."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .musicgen import MusicGenLM
from .musicgen_config import from_transformers, to_transformers
from .musicgen_files import sources
from .shards import Shards, read_json
from .t5 import tokenizer_files

#: Largest file that is written; larger models go into several.
SHARD = 5 << 30
_BESIDE = ("generation_config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Company:
    """What a decoder is saved with: the text encoder, the codec, the tokenizer."""

    row: Mapping[str, Any]
    """A config.json with ``text_encoder`` and ``audio_encoder``."""
    tensors: Mapping[str, Callable[[], Tensor]]
    """Name under ``text_encoder`` or ``audio_encoder`` -> what reads it."""
    files: tuple[Path, ...]
    """Tokenizer and settings, copied as they are."""
    extra: Mapping[str, str]
    """Further small files: name -> text."""


def company(folder: Path) -> Company | None:
    """The company of the model in ``folder``; None for a decoder alone."""
    row = read_json(folder / "config.json")
    if row.get("model_type") == "musicgen_decoder":
        return None
    weights = Shards(folder)
    names = [name for name in weights.names if name.startswith(("text_encoder.", "audio_encoder."))]
    files = [folder / name for name in (*_BESIDE, *tokenizer_files(folder)) if (folder / name).is_file()]
    return Company(row, {name: partial(weights.tensor, name) for name in names}, tuple(files), {})


def save(
    model: MusicGenLM, folder: str | os.PathLike[str], half: bool = False,
    like: str | os.PathLike[str] | Company | None = None,
) -> None:  # fmt: skip
    """Write ``model``. Each file is made under a temporary name first, and nothing is replaced before all are made.

    The company, text encoder, codec and tokenizer, is taken untouched from ``like``, by default the folder the model
    came from; a model that came from a decoder alone, or was built, is written as one. ``half`` stores the decoder in
    float16. Raises ValueError when the company is another model's.
    """
    if isinstance(like, Company):
        with_: Company | None = like
    else:
        origin = model.source if like is None else Path(like)
        with_ = None if origin is None else company(origin)
    if with_ is None and (model.project_text is not None or model.config.melody):
        raise ValueError(
            "a MusicGen is saved with the text encoder and codec it works with: name the folder that has them (like=)"
        )
    row = to_transformers(model.config, None if with_ is None else with_.row)
    if with_ is not None and from_transformers(row) != model.config:
        raise ValueError(f"the text encoder or codec is not this model's: {from_transformers(row)} != {model.config}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".descant-") as name:
        part = Path(name)
        _write(_tensors(model, half, {} if with_ is None else with_.tensors, "" if with_ is None else "decoder."), part)
        (part / "config.json").write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
        if with_ is not None:
            for path in with_.files:
                shutil.copyfile(path, part / path.name)
            for file, text in with_.extra.items():
                (part / file).write_text(text, encoding="utf-8")
        fresh = sorted(path.name for path in part.iterdir())
        for file in fresh:
            os.replace(part / file, folder / file)
    # what an earlier save left would be read instead of, or beside, what this one wrote
    for path in folder.glob("model*.safetensors*"):
        if path.name not in fresh:
            path.unlink()


def _tensors(
    model: MusicGenLM, half: bool, others: Mapping[str, Callable[[], Tensor]], lead: str
) -> Iterator[tuple[str, Tensor]]:
    """Name and value under the library's names, one at a time."""
    kind = torch.float16 if half else torch.float32
    state = model.state_dict()
    for ours, theirs in sources(model.config, lead):
        value = state[ours].detach().to("cpu", kind)
        if not bool(value.isfinite().all()):
            raise ValueError(f"{ours} is not finite{' in float16' if half else ''}: nothing was saved")
        for name, piece in zip(theirs, value.chunk(len(theirs)), strict=True):
            yield name, piece.clone()
    for name in sorted(others):
        yield name, others[name]().contiguous()


def _write(tensors: Iterator[tuple[str, Tensor]], folder: Path) -> None:
    """One file, or several and their index."""
    from safetensors.torch import save_file

    held: dict[str, Tensor] = {}
    files: list[list[str]] = []
    size = total = 0

    def flush() -> None:
        save_file(held, folder / f"{len(files)}.part", metadata={"format": "pt"})
        files.append(list(held))
        held.clear()

    for name, value in tensors:
        count = value.numel() * value.element_size()
        if held and size + count > SHARD:
            flush()
            size = 0
        held[name] = value
        size, total = size + count, total + count
    flush()
    if len(files) == 1:
        (folder / "0.part").rename(folder / "model.safetensors")
        return
    names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
    for i, name in enumerate(names):
        (folder / f"{i}.part").rename(folder / name)
    table = {
        "metadata": {"total_size": total},
        "weight_map": {tensor: name for name, inside in zip(names, files, strict=True) for tensor in inside},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
