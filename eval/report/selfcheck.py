"""Can the judges be trusted today, on these clips? Known damage must be ranked as damage.

Some clips of the reference are damaged and compared with themselves as they were: the same clips on both sides, so
their choice cancels and the distance is the damage's alone. What is asked of a judge:

* Two random halves of the clips are equal music: their distance, corrected for its bias, must not lie above 0.
* The strong dose of each damage (a 4 kHz low-pass, noise 10 dB down, half seconds in another order) must be heard,
  surely, above the weak dose of the same kind (8 kHz, 20 dB, two seconds).
* The strong low-pass and noise must lie above Opus at 64 kbit/s a channel, which is hardly audible, and that not below
  the halves.
* Captions of the reference must fit their own clips better than other clips'.

The codec's reconstruction has a row of its own: it says what a generator can reach that speaks through this codec. No
rule puts it between low-passes and noise, as :mod:`.damage` explains. A judge that fails is not to be believed, and the
report that used it is marked invalid.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...codec.audio import Audio, read
from ..embed import digest, embed_audio
from ..frechet import frechet_distance
from ..gaussian import Transport, distance, of_samples
from ..metric import Result
from ..vectors import Vectors
from .bundle import Bundle, joined
from .damage import NAMES, Codec, change, damage
from .hear import Desk, Ears, run
from .judges import Hearing, Line
from .results import CheckGroup, CheckRow, SelfCheck

#: Clips in all, seconds of each, and the fewest clips worth halving.
CLIPS, SECONDS, LEAST = 64, 10.0, 16
#: Random halvings of the clips, and of the halves, for their correction.
_HALVINGS, _SPLITS = 8, 4
#: Share of the judge's variance below which a distance is nothing but rounding.
_DEAF = 1e-9
#: Standard errors by which a strong dose must be heard.
_SURE = 2.0
#: dB below the clip: damage that changes less (a low-pass of what is dull already) asks nothing of a judge.
_FAINT = -40.0
#: Strong dose -> what it must exceed.
_WEAKER: Mapping[str, tuple[str, ...]] = {
    "low-pass-4k": ("opus", "low-pass-8k"), "noise-10": ("opus", "noise-20"), "segments-half": ("segments-2",),
}  # fmt: skip
_CAPTIONS = ("other clips' captions", "own captions")
_CHANGE = "|change"


@dataclass(frozen=True)
class Damage:
    """A clip to be damaged and heard."""

    name: str
    path: Path
    hearings: tuple[Hearing, ...]


@dataclass(frozen=True)
class Damaged:
    """What was heard of a damaged clip: (condition, key of the hearing) -> vectors, or why there are none."""

    name: str
    vectors: Mapping[tuple[str, str], Tensor]
    changes: Mapping[str, Tensor] = field(default_factory=dict)
    """Condition -> how much it changed the clip, dB below it."""
    reason: str = ""


def check(
    lines: Sequence[Line], reference: Bundle, files: Mapping[str, Path], desk: Desk, jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[CheckGroup, ...]:  # fmt: skip
    """One group for every hearing that Fréchet distances of ``lines`` rest on; a bounded choice of clips is used."""
    hearings = {line.hearing.key: line.hearing for line in lines
                if line.hearing is not None and line.metrics[0].startswith("frechet")}  # fmt: skip
    usable = sorted(name for name in files if any(name in item.names for item in reference.vectors.values()))
    chosen = _chosen([name for name in usable if name not in reference.side.silent])
    if len(chosen) < LEAST:
        reason = f"{len(chosen)} reference clips that sound are too few to halve: need {LEAST}"
        return tuple(CheckGroup(judge=_title(lines, key), reason=reason) for key in hearings)
    wanted = tuple(replace(item, recipe=_short(item)) for item in hearings.values())
    tasks = [Damage(name, files[name], wanted) for name in chosen]
    if progress is not None:
        progress(0, len(tasks))
    found = [item for item in run(damaged, tasks, desk, jobs, progress) if not item.reason]
    groups = []
    for key, item in zip(hearings, wanted, strict=True):
        groups.append(_judged(_title(lines, key), item.key, found))
    return tuple(groups)


def captions(judge: str, score: Result) -> CheckGroup:
    """Own captions against others', from the audio-text score of the reference clips."""
    if score.value is None:
        return CheckGroup(judge=judge, reason=score.reason)
    if "chance" not in score.extra:
        return CheckGroup(judge=judge, reason="one caption has no chance level")
    rows = (
        CheckRow(name=_CAPTIONS[0], value=score.extra["chance"]),
        CheckRow(name=_CAPTIONS[1], value=score.value, low=score.low, high=score.high, above=_CAPTIONS[0],
                 ok=score.value > score.extra["chance"]),
    )  # fmt: skip
    return CheckGroup(judge=judge, rows=rows)


def verdict(groups: Sequence[CheckGroup]) -> SelfCheck:
    """All groups together, with what is wrong in one line."""
    wrong = [
        f"{group.judge}: '{row.name}' ({row.value:.4g}) "
        + (f"is not above '{row.above}' ({_value(group, row.above):.4g})" if row.above else row.note)
        for group in groups
        for row in group.rows
        if not row.ok and row.value is not None
    ]
    if wrong:
        return SelfCheck(groups=tuple(groups), reason="; ".join(wrong))
    if not any(group.rows for group in groups):
        why = next((group.reason for group in groups if group.reason), "it needs reference clips: --reference DIR")
        return SelfCheck(groups=tuple(groups), reason=f"not run: {why}")
    return SelfCheck(groups=tuple(groups))


def damaged(task: Damage, ears: Ears) -> Damaged:
    """Hear a clip as it is and under every condition; the cache keeps what was heard."""
    codec: Codec | None = ears.desk.tool
    try:
        content = digest(task.path)
        kept = _from_cache(task, ears, content, codec)
        if kept is not None:
            return kept
        sound = read(task.path, duration=SECONDS)
        seed = int(content[:12], 16)
        vectors: dict[tuple[str, str], Tensor] = {}
        changes: dict[str, Tensor] = {}
        for condition in _conditions(codec):
            wav = damage(sound.wav, sound.rate, condition, seed, codec)
            changes[condition] = torch.tensor(change(sound.wav, wav), dtype=torch.float64)
            for item in task.hearings:
                found = embed_audio({task.name: Audio(wav, sound.rate)}, ears.ear(item), item.recipe)
                if found.failures:
                    return Damaged(task.name, {}, reason=found.failures[task.name])
                vectors[condition, item.key] = found.vectors.data
    except (ValueError, OSError) as error:
        return Damaged(task.name, {}, reason=str(error))
    if ears.cache is not None and _nameable(codec):
        for item in task.hearings:
            table = {condition: vectors[condition, item.key] for condition in changes}
            table |= {condition + _CHANGE: value for condition, value in changes.items()}
            ears.cache.put(_key(ears, content, item, codec), table)
    return Damaged(task.name, vectors, changes)


def _conditions(codec: Codec | None) -> list[str]:
    """Those that can be had: without a codec there is no reconstruction."""
    return [name for name in NAMES if name != "codec" or codec is not None]


def _judged(title: str, key: str, found: Sequence[Damaged]) -> CheckGroup:
    heard = sorted(found, key=lambda item: item.name)
    if len(heard) < LEAST:
        return CheckGroup(judge=title, reason=f"{len(heard)} reference clips could be damaged and heard: need {LEAST}")
    conditions = [name for name in NAMES if (name, key) in heard[0].vectors]
    sets = {name: joined({item.name: item.vectors[name, key] for item in heard}) for name in conditions}
    clean = sets["clean"]
    halves = _halves(clean)
    if isinstance(halves, str):
        return CheckGroup(judge=title, reason=halves)
    rows = {"clean": halves}
    least = _DEAF * of_samples(clean.data).trace
    for condition in conditions[1:]:
        value, error = _moved(clean, sets[condition])
        row = CheckRow(name=NAMES[condition], value=value, low=value - _SURE * error, high=value + _SURE * error)
        changed = torch.stack([item.changes[condition] for item in heard]).median()
        rows[condition] = _ranked(condition, row, rows, least, float(changed))
    return CheckGroup(judge=title, rows=tuple(rows.values()))


def _ranked(
    condition: str, row: CheckRow, before: Mapping[str, CheckRow], least: float, changed: float
) -> CheckRow:  # fmt: skip
    """The row with the one it must exceed, and whether it does."""
    value, halves = row.value or 0.0, before["clean"]
    if condition in ("opus", "codec"):
        ok = value > max(least, halves.low or 0.0)
        return replace(row, above=halves.name, ok=ok, note="above the lower end of the interval")
    if condition not in _WEAKER:
        return replace(row, note="the weak dose")
    if changed < _FAINT:
        return replace(row, note=f"changes these clips by {changed:.0f} dB: nothing is asked")
    if (row.low or 0.0) <= least:
        return replace(row, ok=False, note="is not surely heard")
    other = max((before[name] for name in _WEAKER[condition]), key=lambda item: item.value or 0.0)
    return replace(row, above=other.name, ok=value > (other.value or 0.0))


def _halves(clean: Vectors) -> CheckRow | str:
    """Corrected distance of random halves, the mean of a few, or why there is none."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(_HALVINGS):
        order = torch.randperm(len(clean.names), generator=generator)
        one, two = order[: order.numel() // 2].sort().values, order[order.numel() // 2 :].sort().values
        found.append(frechet_distance(clean.take(one), clean.take(two), splits=_SPLITS))
    reason = next((item.reason for item in found if item.reason), None)
    if reason is not None:
        return reason
    means = [sum(getattr(item, name) or 0.0 for item in found) / len(found) for name in ("best", "low", "high")]
    row = CheckRow(name=NAMES["clean"], value=means[0], low=means[1], high=means[2], note="corrected for its bias")
    return row if means[1] <= 0 else replace(row, ok=False, note="lies above 0, and halves are equal music")


def _moved(clean: Vectors, other: Vectors) -> tuple[float, float]:
    """Distance of the same clips under a condition, and its standard error over clips (delta method, paired)."""
    one, two = of_samples(clean.data), of_samples(other.data)
    count = len(clean.names)
    pulls = torch.zeros(count, dtype=torch.float64)
    for source, target, item in ((one, two, clean), (two, one, other)):
        pulls += item.per_clip(Transport(source, target).influence(item.data)) * (count / item.windows)
    return distance(one, two), float(pulls.std() / math.sqrt(count))


def _chosen(names: Sequence[str]) -> list[str]:
    """At most :data:`CLIPS` clips, in an order that has nothing to do with their names' order."""
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return order[:CLIPS]


def _short(item: Hearing) -> Any:
    limit = item.recipe.limit
    return replace(item.recipe, limit=SECONDS if limit is None else min(SECONDS, limit))


def _title(lines: Sequence[Line], key: str) -> str:
    return next(line.suffix for line in lines if line.hearing is not None and line.hearing.key == key)


def _value(group: CheckGroup, name: str | None) -> float:
    return next((row.value for row in group.rows if row.name == name and row.value is not None), math.nan)


def _key(ears: Ears, content: str, item: Hearing, codec: Any) -> str:
    if ears.cache is None:
        return ""
    about = getattr(codec, "id", "") if codec is not None else ""
    return ears.cache.key(f"{content}|damaged 2|{about}", item.recipe)


def _nameable(codec: Any) -> bool:
    """Whether the cache can tell this codec from another."""
    return codec is None or bool(getattr(codec, "id", ""))


def _from_cache(task: Damage, ears: Ears, content: str, codec: Any) -> Damaged | None:
    if ears.cache is None or not _nameable(codec):
        return None
    wanted = _conditions(codec)
    vectors: dict[tuple[str, str], Tensor] = {}
    changes: dict[str, Tensor] = {}
    for item in task.hearings:
        table = ears.cache.get(_key(ears, content, item, codec))
        if table is None or set(table) != {*wanted, *(name + _CHANGE for name in wanted)}:
            return None
        vectors |= {(name, item.key): table[name] for name in wanted}
        changes = {name: table[name + _CHANGE] for name in wanted}
    return Damaged(task.name, vectors, changes)
