"""Data sets that people already have, as clips with labels: one module each.

``read(folder)`` recognises the layout and gives a :class:`Collection` of :class:`Clip`; the sound is read when it is
asked for.
"""

from __future__ import annotations

from .clip import Clip, ReaderError, Track
from .collection import Collection, Problem
from .detect import KINDS, read, scan
from .grouping import regroup
from .manifest import write as write_manifest
from .manifest import write_audiocraft

__all__ = [
    "Clip", "Collection", "Problem", "ReaderError", "Track", "KINDS", "read", "regroup", "scan", "write_audiocraft",
    "write_manifest",
]  # fmt: skip
