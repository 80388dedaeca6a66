"""synth-eval: our own labelled set, made by ``descant synth-eval`` and read back here.

``labels.json`` at the top lists every clip with all of its labels in the form of
:meth:`descant.eval.readers.clip.Clip.to_row`; the sound is in one folder a clip.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .clip import Clip, ReaderError
from .collection import Collection, Gather
from .labels import Options
from .table import load_json

SCHEMA = "descant-synth-eval/1"
LABELS = "labels.json"


def looks(root: Path) -> bool:
    """Whether the folder holds a set that was made completely."""
    try:
        return (root / LABELS).is_file() and load_json(root / LABELS).get("schema") == SCHEMA
    except ReaderError:
        return False


def about(root: Path) -> dict[str, Any]:
    """How the set was made: seed, layer, sound font, rate. Raises ReaderError where there is none."""
    head = load_json(root / LABELS)
    if head.get("schema") != SCHEMA:
        raise ReaderError(f"{root / LABELS}: is no synth-eval set; make one with 'descant synth-eval'")
    return {name: value for name, value in head.items() if name != "clips"}


def read(root: Path, options: Options) -> Collection:
    """The clips with mix, stems and all labels."""
    head = load_json(root / LABELS)
    rows = head.get("clips")
    if head.get("schema") != SCHEMA or not isinstance(rows, list):
        raise ReaderError(f"{root / LABELS}: is no synth-eval set; make one with 'descant synth-eval'")
    gather = Gather(str(head.get("name", "synth-eval")), root, options.strict)
    for place, row in enumerate(rows):
        where = f"{LABELS}:clips[{place}]"
        try:
            clip = Clip.from_row(row, root) if isinstance(row, dict) else None
        except ReaderError as error:
            gather.bad(where, error)
            continue
        if clip is None:
            gather.bad(where, "is no clip")
        elif not clip.tracks or not all(track.path.is_file() for track in clip.tracks):
            gather.lost(clip.id)
        else:
            gather.add(clip, where)
    return gather.done(root / LABELS)
