"""Clips of one data set as a list that knows what was missing and what was wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Collection as Names
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

from .clip import Clip, ReaderError


@dataclass(frozen=True)
class Problem:
    """Something that could not be used: ``where`` (a file, with its line where it has lines) and why."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Collection(Sequence[Clip]):
    """The clips of a data set that are there, sorted by id, with an account of the others."""

    name: str
    root: Path
    clips: tuple[Clip, ...]
    missing: tuple[str, ...] = ()
    """Ids of clips the data set lists and whose audio is not there."""
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of a score should know about this copy."""
    table: str | None = field(default=None)
    """The file that lists the clips, relative to the root, where there is one."""

    @overload
    def __getitem__(self, place: int) -> Clip: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Clip]: ...
    def __getitem__(self, place: int | slice) -> Clip | Sequence[Clip]:
        return self.clips[place]

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    @property
    def found(self) -> int:
        """How many listed clips have their audio."""
        return len(self.clips)

    @property
    def share(self) -> float:
        """Share of the listed clips that was found, 0 to 1. Rows that could not be read are no clips: see problems."""
        listed = len(self.clips) + len(self.missing)
        return len(self.clips) / listed if listed else 0.0

    @property
    def digest(self) -> str:
        """SHA-256 of the listing (ids, excerpts, labels, relative paths), in hexadecimal: which clips were used.

        It does not depend on where the data set lies, nor on the sound itself.
        """
        total = hashlib.sha256()
        for clip in self.clips:
            total.update(dump(clip.to_row(self.root)).encode() + b"\n")
        return total.hexdigest()

    def get(self, name: str) -> Clip:
        """The clip of that id. Raises ReaderError where there is none."""
        for clip in self.clips:
            if clip.id == name:
                return clip
        raise ReaderError(f"{self.name} has no clip {name!r}{' here: its audio is missing' * (name in self.missing)}")

    def select(
        self, *, split: str | None = None, subset: str | None = None, ids: Names[str] | None = None,
        where: Callable[[Clip], bool] | None = None,
    ) -> Collection:  # fmt: skip
        """The clips of a split, of a subset, out of a list of ids, for which ``where`` holds: all that are given.

        Where captions of a clip differ in their subsets, only those of the subset stay. ``missing`` and ``problems``
        belong to the whole set and are left out. Raises ReaderError for a split or subset that no clip has.
        """
        clips: tuple[Clip, ...] = self.clips
        if split is not None:
            self._known("split", split, {clip.split for clip in clips if clip.split})
            clips = tuple(clip for clip in clips if clip.split == split)
        if subset is not None:
            self._known("subset", subset, {name for clip in self.clips for name in clip.subsets})
            clips = tuple(_of_subset(clip, subset) for clip in clips if subset in clip.subsets)
        if ids is not None:
            wanted = frozenset(ids)
            clips = tuple(clip for clip in clips if clip.id in wanted)
        if where is not None:
            clips = tuple(clip for clip in clips if where(clip))
        words = [word for word in (split, subset) if word is not None]
        return replace(self, name=" ".join([self.name, *words]), clips=clips, missing=(), problems=())

    def files(self) -> dict[str, Path]:
        """Clip id -> file of its mix, for clips that are a whole file: what ``embed_files`` takes."""
        return {clip.id: clip.path for clip in self.clips if clip.path and clip.start == 0 and clip.end is None}

    def captions(self) -> dict[str, str]:
        """Clip id -> first caption, for clips that have one."""
        return {clip.id: clip.captions[0] for clip in self.clips if clip.captions}

    def counts(self) -> dict[str, int]:
        """Number of clips in each split and subset, under ``split:NAME`` and ``subset:NAME``."""
        total: dict[str, int] = {}
        for clip in self.clips:
            for name in [*([f"split:{clip.split}"] if clip.split else []), *(f"subset:{s}" for s in clip.subsets)]:
                total[name] = total.get(name, 0) + 1
        return dict(sorted(total.items()))

    def summary(self) -> str:
        """One line: how much was found, what was wrong, which digest."""
        listed = len(self.clips) + len(self.missing)
        text = f"{self.name}: {self.found} of {listed} clips found ({100 * self.share:.1f} %)"
        if self.problems:
            text += f", {len(self.problems)} problem{'s' * (len(self.problems) != 1)}"
        return f"{text}; digest {self.digest[:12]}"

    def report(self, limit: int = 20) -> dict[str, Any]:
        """Counts, digest and the first ``limit`` problems as JSON."""
        return {
            "name": self.name, "found": self.found, "missing": len(self.missing), "share": round(self.share, 6),
            "digest": self.digest, "counts": self.counts(), "notes": list(self.notes),
            "problems": len(self.problems), "first_problems": [str(item) for item in self.problems[:limit]],
            "first_missing": list(self.missing[:limit]),
        }  # fmt: skip

    def _known(self, what: str, name: str, have: Names[str]) -> None:
        if name not in have:
            known = f"it has {', '.join(sorted(have))}" if have else "none is marked"
            raise ReaderError(f"{self.name}: no clip here is of the {what} {name!r}; {known}")


class Gather:
    """Collects what a reader finds. With ``strict`` the first problem is raised as :class:`ReaderError`."""

    def __init__(self, name: str, root: Path, strict: bool = False) -> None:
        self.name, self.root, self.strict = name, root, strict
        self._clips: dict[str, Clip] = {}
        self._missing: dict[str, None] = {}
        self._problems: list[Problem] = []
        self.notes: list[str] = []

    def add(self, clip: Clip, where: str | Path) -> None:
        """Take in a clip; a second one of the same id is a problem."""
        if clip.id in self._clips:
            self.bad(where, f"the id {clip.id!r} is there already; the first one stays")
        else:
            self._clips[clip.id] = clip

    def bad(self, where: str | Path, reason: str | Exception) -> None:
        """Take in a problem."""
        text = self.place(where) if isinstance(where, Path) else where
        problem = Problem(text, " ".join(str(reason).split()))
        if self.strict:
            raise ReaderError(str(problem))
        self._problems.append(problem)

    def lost(self, name: str) -> None:
        """Count a clip whose audio is not there."""
        self._missing[name] = None

    def place(self, path: Path, line: int | None = None) -> str:
        """A path relative to the root, and a line, as people write them."""
        text = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        return text if line is None else f"{text}:{line}"

    def done(self, table: Path | None = None) -> Collection:
        """The collection, sorted by id."""
        clips = tuple(clip for _, clip in sorted(self._clips.items()))
        missing = tuple(sorted(name for name in self._missing if name not in self._clips))
        return Collection(
            name=self.name, root=self.root, clips=clips, missing=missing, problems=tuple(self._problems),
            notes=tuple(self.notes), table=None if table is None else self.place(table),
        )  # fmt: skip


def dump(row: Mapping[str, Any]) -> str:
    """One line of JSON that is the same for equal mappings."""
    return json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _of_subset(clip: Clip, subset: str) -> Clip:
    if not clip.caption_subsets:
        return clip
    kept = [(text, marks) for text, marks in zip(clip.captions, clip.caption_subsets, strict=True) if subset in marks]
    return replace(clip, captions=tuple(text for text, _ in kept), caption_subsets=tuple(marks for _, marks in kept))
