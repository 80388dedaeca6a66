"""Training a codec: the runs. ``codec_config`` has the recipes, ``codec_task`` a step, ``codec_data`` the batches."""

from __future__ import annotations

import os
from pathlib import Path

from ..codec import pretrained
from ..codec.model import Codec
from .codec_config import NAMES, CodecRecipe, recipe
from .codec_data import held_out
from .codec_task import CodecTask, build
from .corpus import Corpus
from .loop import learned, run
from .world import World

__all__ = ["NAMES", "CodecRecipe", "CodecTask", "export", "held_out", "recipe", "train"]


def train(config: CodecRecipe, data: str, dev: str, out: str, stop: int | None = None, quiet: bool = False) -> Path:
    """Train on the packed corpus ``data``, validate on ``dev``; checkpoints and the exported model go to ``out``.

    One process, or several started by torchrun or ``accelerate launch``, which share each batch. Returns the folder of
    the exported codec (averaged weights; float16 for our own family).
    """
    world = World.join(config.device)
    corpus = Corpus(data)
    test = (
        held_out(dev, count=config.dev_items, hop=config.codec.hop, channels=config.channels) if world.rank == 0 else {}
    )
    task = CodecTask(config, corpus, test, world)
    run(task, config, out, stop, quiet, world)
    folder = export(config, out) if world.rank == 0 else Path(out) / "export"
    world.leave()
    return folder


def export(config: CodecRecipe, folder: str | os.PathLike[str]) -> Path:
    """Write the averaged weights of ``folder``'s checkpoint as a codec that :func:`descant.codec.load` reads."""
    codec = build(config.codec)
    learned(codec, folder)
    target = Path(folder) / "export"
    pretrained.save(codec, target, half=isinstance(codec, Codec))
    return target
