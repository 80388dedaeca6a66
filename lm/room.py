"""Memory that is not there, said in one line with the setting to lower, whoever noticed: Python, torch or a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# torch's allocators on Linux, Windows and devices, C++'s own, and a size beyond all numbers
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "size calculation overflowed")


def lacking(error: BaseException) -> bool:
    """Whether this error says that memory ran out."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextmanager
def room(what: str, instead: str) -> Iterator[None]:
    """Inside, memory that runs out is a RuntimeError "no memory for WHAT: INSTEAD"."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacking(error) or str(error).startswith("no memory for "):
            raise
        raise RuntimeError(f"no memory for {what}: {instead}") from error


def with_room(rows: Iterator[Tensor], pieces: int, frames: int) -> Iterator[Tensor]:
    """The same tokens, and what to ask for instead when memory runs out while they are drawn."""
    instead = "ask for a shorter duration, fewer pieces at once or guidance 1, or choose a smaller model"
    with room(f"{pieces} piece(s) of {frames} frames", instead):
        yield from rows
