"""Blind listening tests as a folder to be opened in a browser: A/B, ABX, and MUSHRA (ITU-R BS.1534-3).

A test needs no server: listeners open ``index.html``, from a disk or a web space, and send back the JSON that it saves.
Sounds of an item play in step and are changed without a gap; every listener has an order of items and sounds of their
own, from the seed and the name they give. Nothing in the folder names a system: sounds lie under hashed names, and what
they stand for is in a key *beside* the folder, which stays with the person who runs the test. :func:`read_answers`
turns answers and key into figures.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from ..metric import write_whole
from . import page_stimuli as stimuli
from .page_answers import Choice, Scores, read_answers
from .page_html import Raw, data_block, document, join, tag

__all__ = ["Choice", "Item", "Pair", "Scores", "Study", "read_answers", "write_ab", "write_mushra"]

KEY = "descant-listening-key/1"
#: Names of the reference and of the anchors among the systems of a MUSHRA test.
REFERENCE, ANCHOR = "reference", "anchor {:g} Hz"
#: Sounds of one item that a person can still keep apart (BS.1534-3 advises no more than 12).
MOST = 12
#: Seconds by which the lengths of sounds of a MUSHRA item may differ: a codec may add a frame.
_SLACK = 0.5


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sounds to be compared: ``sounds`` is {system: file}, exactly two."""

    name: str
    sounds: Mapping[str, str | os.PathLike[str]]
    caption: str | None = None
    """Shown to the listener, such as the prompt."""
    reference: str | os.PathLike[str] | None = None
    """A sound that both are held against, in the open."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A passage for a MUSHRA test: ``sounds`` is {system: file} without reference and anchors, which are added."""

    name: str
    reference: str | os.PathLike[str]
    sounds: Mapping[str, str | os.PathLike[str]]
    caption: str | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a test looks like."""

    title: str = "Listening test"
    welcome: str = ""
    """A paragraph for the listener; the instructions follow it in any case."""
    question: str = "Which do you prefer?"
    """Of an A/B test."""
    ties: bool = True
    """Whether an A/B test allows "no preference"."""
    loudness: float | None = -23.0
    """Level every sound is brought to, LUFS (ITU-R BS.1770-4): the louder one would win. None leaves levels alone."""
    seconds: float = 30.0
    """Longer sounds are cut."""
    anchors: tuple[float, ...] = (3500.0,)
    """Low-pass anchors of a MUSHRA test, Hz; BS.1534-3 has 3500 and 7000."""

    def __post_init__(self) -> None:
        if not self.title.strip() or not self.question.strip():
            raise ValueError("a test needs a title and a question")
        if not 0.5 <= self.seconds <= 120:
            raise ValueError(f"seconds is {self.seconds}: sounds of a test last 0.5 to 120 s, 10 is usual")
        if self.loudness is not None and not -60 <= self.loudness <= -9:
            raise ValueError(f"loudness is {self.loudness} LUFS: use -60 to -9, such as -23, or None for no change")


_INSTRUCTIONS = {
    "ab": "You hear pairs of sounds. Change between them as often as you like while they play, then say which one you "
          "prefer.",
    "abx": "Sound X is either A or B. Change between them as often as you like while they play, then say which it is.",
    "mushra": "Rate each sound from 0 to 100 by how close it is to the reference. Change between them as often as you "
              "like while they play. One of the sounds is the reference itself: give that one 100.",
}  # fmt: skip


def write_ab(
    folder: str | os.PathLike[str], pairs: Sequence[Pair], seed: int, kind: Literal["ab", "abx"] = "ab",
    study: Study = Study(),
) -> Path:  # fmt: skip
    """Write a blind test of pairs into a new ``folder`` and return the path of its key, beside the folder.

    ``ab`` asks which is preferred, ``abx`` whether they can be told apart. Raises ValueError for a folder that is not
    empty, no pairs, or pairs that are none; :class:`descant.codec.audio.AudioError` for sounds that cannot be used.
    """
    if kind not in ("ab", "abx"):
        raise ValueError(f"kind is {kind!r}; allowed are 'ab' and 'abx', and write_mushra for ratings")
    wanted = []
    for pair in pairs:
        if len(pair.sounds) != 2:
            raise ValueError(f"{pair.name}: a pair has two sounds, not {len(pair.sounds)} ({', '.join(pair.sounds)})")
        files = {name: Path(path) for name, path in pair.sounds.items()}
        reference = None if pair.reference is None else Path(pair.reference)
        wanted.append(_Task(pair.name, pair.caption, files, reference, False, ()))
    return _write(Path(folder), wanted, seed, kind, study)


def write_mushra(
    folder: str | os.PathLike[str], items: Sequence[Item], seed: int,
    study: Study = Study(),
) -> Path:  # fmt: skip
    """Write a MUSHRA test into a new ``folder`` and return the path of its key, beside the folder.

    The hidden reference and the anchors (:func:`descant.eval.report.page_stimuli.low_pass` of the reference) are added
    to each item. Raises ValueError for a folder that is not empty, no items, names that the test needs itself or sounds
    whose lengths differ by more than half a second; :class:`descant.codec.audio.AudioError` for bad sounds.
    """
    wanted = []
    own = {REFERENCE, *(ANCHOR.format(cutoff) for cutoff in study.anchors)}
    for item in items:
        taken = sorted(own & set(item.sounds))
        count = len(item.sounds) + len(own)
        if taken or not item.sounds or count > MOST:
            seen = f"the names {', '.join(taken)}" if taken else f"{len(item.sounds)} systems"
            raise ValueError(f"{item.name}: has {seen}; allowed are 1 to {MOST - len(own)} systems of other names")
        files = {name: Path(path) for name, path in item.sounds.items()}
        wanted.append(_Task(item.name, item.caption, files, Path(item.reference), True, study.anchors))
    return _write(Path(folder), wanted, seed, "mushra", study)


@dataclass(frozen=True)
class _Task:
    name: str
    caption: str | None
    files: Mapping[str, Path]
    reference: Path | None
    hidden: bool
    """Whether the reference is also among the sounds to be judged."""
    anchors: tuple[float, ...]


def _write(folder: Path, tasks: Sequence[_Task], seed: int, kind: str, study: Study) -> Path:
    names = [task.name for task in tasks]
    if not tasks or len(set(names)) < len(names):
        raise ValueError("no items: a test needs one at least" if not tasks else "two items have one name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there already; name a new folder, so that no test is overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:60]}.", suffix=".part", dir=folder.parent))
    try:
        (part / "sounds").mkdir()
        shown, meant = [], {}
        for task in tasks:
            row, sounds = _item(part / "sounds", task, seed, study)
            shown.append(row)
            meant[row["code"]] = {"name": task.name, "sounds": sounds}
        digest = stimuli.code_of(kind, seed, study, json.dumps(shown, sort_keys=True))
        key = {"schema": KEY, "kind": kind, "study": digest, "seed": seed, "title": study.title, "items": meant}
        (part / "index.html").write_bytes(_page(kind, study, {
            "study": digest, "kind": kind, "seed": seed, "question": study.question, "ties": study.ties, "items": shown,
        }))  # fmt: skip
        where = folder.with_name(f"{folder.name}.key.json")
        write_whole(where, (json.dumps(key, indent=1, ensure_ascii=False) + "\n").encode())
        part.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return where


def _item(folder: Path, task: _Task, seed: int, study: Study) -> tuple[dict[str, Any], dict[str, str]]:
    """Store the sounds of an item; what the page knows of it, and {code: system}."""
    files = dict(task.files) if task.reference is None else {REFERENCE: task.reference, **task.files}
    if task.reference is not None and REFERENCE in task.files:
        raise ValueError(f"{task.name}: a system is called {REFERENCE!r}; call it otherwise")
    sounds: dict[str, Tensor]
    sounds, rate = stimuli.prepare(files, study.seconds, study.loudness, _SLACK if task.hidden else math.inf)
    for cutoff in task.anchors:
        sounds[ANCHOR.format(cutoff)] = stimuli.low_pass(sounds[REFERENCE], rate, cutoff)
    sounds = stimuli.limited(sounds)
    item = stimuli.code_of(seed, task.name, *(stimuli.digest_of(wav) for wav in sounds.values()))
    open_reference, meant = None, {}
    for name, wav in sounds.items():
        code = stimuli.code_of(seed, item, name, stimuli.digest_of(wav))
        if name == REFERENCE:
            open_reference = stimuli.code_of(seed, item, "open", stimuli.digest_of(wav))
            stimuli.store(folder, open_reference, wav, rate)
            if not task.hidden:
                continue
        stimuli.store(folder, code, wav, rate)
        meant[code] = name
    row = {
        "code": item,
        "caption": task.caption or "",
        "rate": rate,
        "sounds": sorted(meant),
        "reference": open_reference,
    }
    return row, meant


def _page(kind: str, study: Study, data: Mapping[str, Any]) -> bytes:
    welcome = tag("p", study.welcome) if study.welcome else None
    advice = (
        "Use headphones in a quiet room, set the volume with the first sounds, and then leave it. "
        "The keys 1, 2, 3 and so on choose sounds, 0 the reference, the space bar stops and plays. "
        "Your answers stay in this browser until you save them at the end."
    )
    name = tag("label", "Your name, or any word that stands for you", tag("input", id="listener", required=True,
               maxlength=64, autocomplete="off"))  # fmt: skip
    intro = tag(
        "section", welcome, tag("p", _INSTRUCTIONS[kind]), tag("p", advice, class_="quiet"),
        tag("form", name, tag("button", "Begin", type="submit", class_="main"), id="start"),
        tag("button", "Go on", type="button", id="resume", hidden=True), id="intro",
    )  # fmt: skip
    seek = tag("input", type="range", id="seek", min="0", max="1", step="0.01", value="0", aria_label="position")
    transport = tag("div", tag("button", "▶ Play", type="button", id="play", disabled=True), seek,
                    tag("span", id="clock"), class_="transport")  # fmt: skip
    loops = tag("div", tag("label", tag("input", type="checkbox", id="loop", checked=True), " repeat"),
                tag("span", id="region"), tag("button", "loop from here", type="button", id="from"),
                tag("button", "loop to here", type="button", id="to"),
                tag("button", "loop all", type="button", id="whole"), class_="loops")  # fmt: skip
    trial = tag(
        "section", tag("div", tag("progress", id="progress", max="1", value="0", aria_label="progress"),
                       tag("span", id="count", class_="quiet"), class_="bar"),
        tag("p", id="caption", dir="auto"), transport, loops, tag("div", id="references"), tag("div", id="answer"),
        tag("div", tag("p", id="hint", class_="quiet", role="status"),
            tag("button", "Next", type="button", id="next", class_="main", disabled=True), class_="foot"),
        id="trial", hidden=True,
    )  # fmt: skip
    end = tag(
        "section", tag("h2", "Thank you"), tag("p", "Save your answers and send the file to the person who asked you."),
        tag("p", tag("a", "Save answers", id="save", class_="main", download=True)),
        tag("details", tag("summary", "the answers as text"), tag("pre", id="raw")),
        tag("p", tag("button", "Another listener", type="button", id="again")), id="end", hidden=True,
    )  # fmt: skip
    trouble = tag("p", id="trouble", role="alert", hidden=True)
    body = join(
        (tag("header", tag("h1", study.title)), tag("main", trouble, intro, trial, end), data_block("study", data))
    )
    return document(study.title, Raw(body), ["page.css", "listening.css"], ["stage.js", "listening.js"], loads=True)
