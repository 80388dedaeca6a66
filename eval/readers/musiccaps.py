"""MusicCaps: one table of captions for 10 s of YouTube videos; the sound is the user's own copy, never complete.

Agostinelli et al., "MusicLM: Generating Music From Text", 2023. A file is matched by its video: ``<ytid>.*`` (the
excerpt or the whole video, told apart by its length), ``[<ytid>]-[30-40].*`` or ``<ytid>_30_40.*`` (the excerpt).
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from ...codec.audio import AudioError
from .clip import Clip, ReaderError, Track
from .collection import Collection, Gather
from .labels import Options, without_singing
from .table import audio_below, number, rows, truth

NEED: tuple[str, ...] = ("ytid", "start_s", "end_s", "aspect_list", "caption")
_NAME = re.compile(r"\[(?P<a>[\w-]{11})\]-\[\d+(\.\d+)?-\d+(\.\d+)?\]|(?P<b>[\w-]{11})[_-]\d+(\.\d+)?[_-]\d+(\.\d+)?")


def read(root: Path, table: Path, options: Options) -> Collection:
    """The clips of the table whose sound lies below ``root``.

    Subsets: ``eval`` (in AudioSet's evaluation part), ``balanced``, ``no-singing`` (by words of caption and aspects).
    """
    gather = Gather("MusicCaps", root, options.strict)
    files, outside = audio_below(root, options.links)
    for path in outside:
        gather.bad(path, "is a link that leaves the folder; allow links to use it")
    cut, whole = _index(files)
    for row in rows(table, NEED):
        where = gather.place(table, row.line)
        if row.problem:
            gather.bad(where, row.problem)
            continue
        try:
            clip = _clip(row.values, cut, whole)
        except (AudioError, ReaderError) as error:
            gather.bad(where, error)
            gather.lost(row.values["ytid"])
            continue
        if clip.mix is None:
            gather.lost(clip.id)
        else:
            gather.add(clip, where)
    return gather.done(table)


def aspects(text: str) -> tuple[str, ...]:
    """The list of texts that the column ``aspect_list`` holds, written as Python would. Raises ReaderError."""
    try:
        found = ast.literal_eval(text) if len(text) < 20_000 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ReaderError(f"aspect_list is no list of texts: {text[:60]!r}")
    return tuple(found)


def _index(files: list[Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Video -> file, of files named as excerpts and of files named by the video alone."""
    cut: dict[str, Path] = {}
    whole: dict[str, Path] = {}
    for path in files:
        named = _NAME.fullmatch(path.stem)
        if len(path.stem) == 11:
            whole.setdefault(path.stem, path)
        elif named:
            cut.setdefault(named["a"] or named["b"], path)
    return cut, whole


def _clip(values: dict[str, str], cut: dict[str, Path], whole: dict[str, Path]) -> Clip:
    video = values["ytid"].strip()
    if not re.fullmatch(r"[\w-]{11}", video):
        raise ReaderError(f"{video[:40]!r} is no video id: those have 11 letters, digits, '-' and '_'")
    start, end = number(values["start_s"], "start_s"), number(values["end_s"], "end_s")
    if start is None or end is None or not 0 <= start < end:
        raise ReaderError(f"an excerpt from {values['start_s']!r} to {values['end_s']!r} s is none")
    caption, words = values["caption"].strip(), aspects(values["aspect_list"])
    marks = {
        "eval": truth(values.get("is_audioset_eval", "")), "balanced": truth(values.get("is_balanced_subset", "")),
        "no-singing": without_singing(caption, *words),
    }  # fmt: skip
    track, begin, until = None, 0.0, None
    if video in cut:
        track = Track(cut[video])
    elif video in whole:
        track = Track(whole[video])
        begin, until = _place(track, start, end)
    extra = {"start_s": start, "end_s": end}
    labels = [word for word in values.get("audioset_positive_labels", "").split(",") if word]
    return Clip(
        id=video, mix=track, start=begin, end=until, seconds=end - start, captions=(caption,) if caption else (),
        tags=words, subsets=tuple(name for name, true in marks.items() if true),
        extra={**extra, "audioset": labels} if labels else extra,
    )  # fmt: skip


def _place(track: Track, start: float, end: float) -> tuple[float, float | None]:
    """Where the excerpt lies in a file that is named by its video alone."""
    length = track.seconds()
    if length <= end - start + 1:
        return 0.0, None
    if length >= end - 0.5:
        return start, end
    raise ReaderError(
        f"{track.path.name} is {length:.1f} s long: neither the excerpt of {end - start:g} s nor a video that reaches "
        f"{end:g} s"
    )
