"""Files into stem files, of any length in bounded memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...codec import audio
from ...codec.sink import sound
from .contract import Separator
from .stems import choose


def separate_file(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], method: Separator, *,
    stems: str | Sequence[str] | None = None, suffix: str = "flac", residual: bool = False,
    progress: Callable[[float, float], None] | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Write ``folder``/<stem>.<suffix> for each stem of a sound file; return the files by stem.

    The files appear together when all is done. residual: also write what the stems leave. progress: told the seconds
    done, and how many there are. Samples beyond full scale are clipped, as a file of whole numbers must.
    """
    about = audio.info(source)
    choice = choose(method.stems, stems)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = (*choice.names, "residual") if residual else choice.names
    files = {name: folder / f"{name}.{suffix.lstrip('.')}" for name in names}
    with contextlib.ExitStack() as stack:
        sinks = {
            name: stack.enter_context(sound(path, about.rate, about.channels, samples=about.samples))
            for name, path in files.items()
        }
        done = 0
        for made in method.stream(audio.blocks(source), about.rate, stems=stems):
            for name, sink in sinks.items():
                sink.add(made.residual if name == "residual" else made[name])
            done += made.mix.shape[-1]
            if progress is not None:
                progress(done / about.rate, max(done / about.rate, about.duration))
    return files
