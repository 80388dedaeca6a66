"""The whole state of a codec run as one safetensors file: what the exported codec leaves out, to be passed on.

``python -m descant.recipes.codec_state export runs/codec state.safetensors`` writes everything a checkpoint holds:
weights and their averages, discriminators, balancer, optimisers, step and settings. ``... restore state.safetensors
runs/again`` makes the folder of a run of it, which the same ``descant train codec`` command takes up, bit for bit.

Unlike ``checkpoint.pt`` such a file is no pickle: whoever gets it needs to trust nobody, and other programs can read
its tensors by name (``model.*``, ``ema.*``, ``extra.adversary.*``, ``optimisers.codec.state.0.exp_avg`` ...).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..codec.sink import whole_file

FORMAT = "descant-run/1"
_PARTS = ("step", "config", "model", "ema", "extra", "optimisers")


def export(run: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Write the checkpoint in the folder ``run`` as the safetensors file ``path``."""
    source = Path(run) / "checkpoint.pt"
    if not source.is_file():
        raise FileNotFoundError(f"{run} holds no checkpoint.pt: name the --out of 'descant train codec'")
    state = torch.load(source, map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = {}
    tree = _plain(state, "", tensors)
    with whole_file(path) as part:
        save_file(tensors, part, {"format": FORMAT, "tree": json.dumps(tree)})
    return Path(path)


def restore(path: str | os.PathLike[str], run: str | os.PathLike[str]) -> Path:
    """Write the checkpoint that :func:`export` read into the folder ``run``, which must not hold one yet.

    Raises ValueError for a file that is none of ours.
    """
    target = Path(run) / "checkpoint.pt"
    if target.exists():
        raise ValueError(f"{target} exists: a run's state is never written over, name another folder")
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"{path} is no state of a run ({about.get('format')}, not {FORMAT})")
            state = _built(json.loads(about["tree"]), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or no state of a run ({error}): copy it again") from error
    missing = [name for name in _PARTS if name not in state]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it is no state of a run")
    Path(run).mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        torch.save(state, part)
    return target


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` as JSON has it; tensors go into ``tensors`` under dotted names, what JSON lacks is written as $kind."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous().clone()  # no two names for one memory
        return {"$tensor": name}
    if isinstance(value, dict):
        rows = {key: _plain(one, f"{name}.{key}".removeprefix("."), tensors) for key, one in value.items()}
        if all(isinstance(key, str) and not key.startswith("$") for key in rows):
            return rows
        return {"$items": [[key, one] for key, one in rows.items()]}  # optimisers number their parameters
    if isinstance(value, list | tuple):
        parts = [_plain(one, f"{name}.{index}", tensors) for index, one in enumerate(value)]
        return parts if isinstance(value, list) else {"$tuple": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise ValueError(f"a checkpoint with {name} of {kind}: only tensors and plain data can be passed on")


def _built(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Inverse of :func:`_plain`."""
    if isinstance(value, list):
        return [_built(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_built(one, tensors) for one in value["$tuple"])
    if "$items" in value:
        return {key: _built(one, tensors) for key, one in value["$items"]}
    return {key: _built(one, tensors) for key, one in value.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file or the folder that was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m descant.recipes.codec_state", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    acts = parser.add_subparsers(dest="act", required=True)
    out = acts.add_parser("export", help="a run's checkpoint as a safetensors file")
    out.add_argument("run", metavar="RUN", help="the folder that --out of the training named")
    out.add_argument("file", metavar="FILE", help="the .safetensors file to write")
    back = acts.add_parser("restore", help="the folder of a run from such a file")
    back.add_argument("file", metavar="FILE", help="what export wrote")
    back.add_argument("run", metavar="RUN", help="a new folder, then --out of the training that goes on")
    args = parser.parse_args(argv)
    if args.act == "export":
        export(args.run, args.file)
    else:
        restore(args.file, args.run)


if __name__ == "__main__":
    main()
