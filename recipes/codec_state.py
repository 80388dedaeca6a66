"""The whole state of a codec run as one safetensors file: what the exported codec leaves out, to be passed on.

``python -m descant.recipes.codec_state export runs/codec state.safetensors`` writes everything a checkpoint holds:
weights and their averages, discriminators, balancer, optimisers, step and settings. ``... restore state.safetensors
runs/again`` makes the folder of a run of it, which the same ``descant train codec`` command takes up, bit for bit.

``export --small`` leaves the weights out, which are those of the exported codec, and keeps the optimisers' averages in
8 bits, in blocks of 256 with a scale of their own (Dettmers et al., 2022, section 2, with evenly spaced levels): a
tenth of the size. ``restore --codec FOLDER`` then takes the weights from there; the run goes on from its averaged
weights, near to where it was and not bit for bit.

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
#: Numbers that share a scale in a small file; smaller tensors are kept as they are.
_BLOCK = 256


def export(run: str | os.PathLike[str], path: str | os.PathLike[str], small: bool = False) -> Path:
    """Write the checkpoint in the folder ``run`` as the safetensors file ``path``; small: without weights."""
    source = Path(run) / "checkpoint.pt"
    if not source.is_file():
        raise FileNotFoundError(f"{run} holds no checkpoint.pt: name the --out of 'descant train codec'")
    state = torch.load(source, map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = {}
    weights: dict[str, Any] = {}
    if small:
        weights = {name: {"$codec": sorted(state.pop(name))} for name in ("model", "ema")}
    tree = _plain(state, "", tensors, small) | weights
    with whole_file(path) as part:
        save_file(tensors, part, {"format": FORMAT, "tree": json.dumps(tree)})
    return Path(path)


def restore(
    path: str | os.PathLike[str], run: str | os.PathLike[str], codec: str | os.PathLike[str] | None = None
) -> Path:
    """Write the checkpoint that :func:`export` read into the folder ``run``, which must not hold one yet.

    codec: the exported codec's folder, for a small file. Raises ValueError for a file that is none of ours.
    """
    target = Path(run) / "checkpoint.pt"
    if target.exists():
        raise ValueError(f"{target} exists: a run's state is never written over, name another folder")
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(f"{path} is no state of a run ({about.get('format')}, not {FORMAT})")
            tree = json.loads(about["tree"])
            for name in ("model", "ema"):
                if isinstance(tree.get(name), dict) and "$codec" in tree[name]:
                    tree[name] = _weights(tree[name]["$codec"], path, codec)
            state = _built(tree, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged or no state of a run ({error}): copy it again") from error
    missing = [name for name in _PARTS if name not in state]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it is no state of a run")
    Path(run).mkdir(parents=True, exist_ok=True)
    with whole_file(target) as part:
        torch.save(state, part)
    return target


def _weights(names: Sequence[str], path: str | os.PathLike[str], codec: str | os.PathLike[str] | None) -> Any:
    """The named weights of an exported codec."""
    from ..codec import load

    if codec is None:
        raise ValueError(f"{path} leaves out the weights: name the folder of the codec it belongs to (--codec)")
    model: Any = load(codec)
    found = model.state_dict()
    if not names or set(names) - set(found):
        raise ValueError(f"{path} belongs to a codec of another shape than {codec}: name the one of its run")
    return {name: found[name] for name in names}


def _plain(value: Any, name: str, tensors: dict[str, Tensor], small: bool = False) -> Any:
    """``value`` as JSON has it; tensors go into ``tensors`` under dotted names, what JSON lacks is written as $kind."""
    if isinstance(value, Tensor):
        if small and name.startswith("optimisers.") and value.is_floating_point() and value.numel() >= _BLOCK:
            tensors[name], tensors[f"{name}.scale"] = _eighth(value, name.endswith("_sq"))
            return {"$eighth": name, "shape": list(value.shape)}
        tensors[name] = value.detach().contiguous().clone()  # no two names for one memory
        return {"$tensor": name}
    if isinstance(value, dict):
        rows = {key: _plain(one, f"{name}.{key}".removeprefix("."), tensors, small) for key, one in value.items()}
        if all(isinstance(key, str) and not key.startswith("$") for key in rows):
            return rows
        return {"$items": [[key, one] for key, one in rows.items()]}  # optimisers number their parameters
    if isinstance(value, list | tuple):
        parts = [_plain(one, f"{name}.{index}", tensors, small) for index, one in enumerate(value)]
        return parts if isinstance(value, list) else {"$tuple": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise ValueError(f"a checkpoint with {name} of {kind}: only tensors and plain data can be passed on")


def _eighth(value: Tensor, squares: bool) -> tuple[Tensor, Tensor]:
    """A tensor as int8 [N, 256] and scales [N]; squares as uint8 of their roots.

    Roots are rounded up: a mean square that became 0 under a mean that did not would make an endless step.
    """
    flat = value.detach().float().flatten()
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % _BLOCK)).view(-1, _BLOCK)
    rows = rows.clamp(min=0).sqrt() if squares else rows
    scale = rows.abs().amax(1) / (255 if squares else 127)
    steps = rows / scale.clamp(min=1e-30)[:, None]
    whole = steps.ceil().clamp(max=255).to(torch.uint8) if squares else steps.round().clamp(-127, 127).to(torch.int8)
    return whole, scale


def _whole(rows: Tensor, scale: Tensor, shape: Sequence[int]) -> Tensor:
    """Inverse of :func:`_eighth`, up to rounding."""
    flat = (rows.float() * scale[:, None]).flatten()
    if rows.dtype == torch.uint8:
        flat = flat.square()
    return flat[: torch.Size(shape).numel()].view(*shape)


def _built(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Inverse of :func:`_plain`."""
    if isinstance(value, list):
        return [_built(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value  # a tensor, of a codec's weights, too
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$eighth" in value:
        name = value["$eighth"]
        return _whole(tensors[name], tensors[f"{name}.scale"], value["shape"])
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
    out.add_argument("--small", action="store_true", help="without the weights, averages in 8 bits")
    back = acts.add_parser("restore", help="the folder of a run from such a file")
    back.add_argument("file", metavar="FILE", help="what export wrote")
    back.add_argument("run", metavar="RUN", help="a new folder, then --out of the training that goes on")
    back.add_argument("--codec", metavar="DIR", help="the exported codec, whose weights a small file leaves out")
    args = parser.parse_args(argv)
    if args.act == "export":
        export(args.run, args.file, args.small)
    else:
        restore(args.file, args.run, args.codec)


if __name__ == "__main__":
    main()
