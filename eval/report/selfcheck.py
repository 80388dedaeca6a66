"""Can the judges be trusted today, on these clips? Known damage must be ranked as damage.

Some clips of the reference are damaged and compared with themselves as they were: the same clips on both sides, so
their choice cancels and the distance is the damage's alone. Two random halves of the clips, compared with each other,
say what a distance between equal music looks like (corrected for its bias, so about 0). In order: halves; a codec's
reconstruction, which must not lie below the interval of the halves; a 4 kHz low-pass and white noise 10 dB down, each
above the codec and the halves. Half seconds in another order must be heard at all; how far, says how much of the
music's order the judge hears. Captions of the reference must fit their own clips better than other clips. A judge that
fails is not to be believed, and the report that used it is marked invalid.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...codec.audio import Audio, read, resample
from ..embed import digest, embed_audio
from ..frechet import frechet_distance
from ..gaussian import Transport, distance, of_samples
from ..metric import Result
from ..vectors import Vectors
from .bundle import Bundle, joined
from .hear import Desk, Ears, run
from .judges import Hearing, Line
from .results import CheckGroup, CheckRow, SelfCheck

#: Clips in all, seconds of each, and the fewest clips worth halving.
CLIPS, SECONDS, LEAST = 64, 10.0, 16
#: Random halvings of the clips, and of the halves, for their correction.
_HALVINGS, _SPLITS = 2, 4
#: Share of the judge's variance below which a distance is nothing but rounding.
_DEAF = 1e-9
NAMES: Mapping[str, str] = {
    "clean": "reference halves", "codec": "codec reconstruction", "low-pass": "low-pass 4 kHz",
    "noise": "white noise, 10 dB SNR", "segments": "segments of 0.5 s shuffled",
}  # fmt: skip
_CAPTIONS = ("other clips' captions", "own captions")
#: (wav [C, T], rate) -> what a codec makes of it, equally long.
Codec = Callable[[Tensor, int], Tensor]


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
        f"{group.judge}: '{row.name}' ({row.value:.4g}) is not above "
        + (f"'{row.above}' ({_value(group, row.above):.4g})" if row.above else "nothing")
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
    codec = ears.desk.tool
    try:
        content = digest(task.path)
        kept = _from_cache(task, ears, content, codec)
        if kept is not None:
            return Damaged(task.name, kept)
        sound = read(task.path, duration=SECONDS)
        seed = int(content[:12], 16)
        vectors: dict[tuple[str, str], Tensor] = {}
        for condition in NAMES:
            wav = damage(sound.wav, sound.rate, condition, seed, codec)
            for item in task.hearings:
                found = embed_audio({task.name: Audio(wav, sound.rate)}, ears.ear(item), item.recipe)
                if found.failures:
                    return Damaged(task.name, {}, found.failures[task.name])
                vectors[condition, item.key] = found.vectors.data
    except (ValueError, OSError) as error:
        return Damaged(task.name, {}, str(error))
    if ears.cache is not None and _nameable(codec):
        for item in task.hearings:
            table = {condition: vectors[condition, item.key] for condition in NAMES}
            ears.cache.put(_key(ears, content, item, codec), table)
    return Damaged(task.name, vectors)


def damage(wav: Tensor, rate: int, condition: str, seed: int = 0, codec: Codec | None = None) -> Tensor:
    """[C, T] at ``rate`` Hz under a condition of :data:`NAMES` -> [C, T]; without a codec, Opus at 64 kbit/s."""
    if condition not in NAMES:
        raise ValueError(f"no condition is called {condition!r}; there are {', '.join(NAMES)}")
    generator = torch.Generator().manual_seed(seed % (1 << 62))
    if condition == "codec":
        out = opus(wav, rate) if codec is None else codec(wav, rate)
        if out.shape != wav.shape:
            raise ValueError(f"the codec made {tuple(out.shape)} of {tuple(wav.shape)}: it must keep the shape")
        return out
    if condition == "low-pass":
        # a brick wall in the spectrum of the whole clip: nothing above is left to hear
        spectrum = torch.fft.rfft(wav.double())
        hertz = torch.fft.rfftfreq(wav.shape[1], 1 / rate)
        kept: Tensor = torch.fft.irfft(spectrum * (hertz <= 4000), wav.shape[1]).float()
        return kept
    if condition == "noise":
        power = wav.double().square().mean()
        noise = torch.randn(wav.shape, generator=generator, dtype=torch.float64)
        return (wav + noise * torch.sqrt(power / 10)).float()
    return _shuffled(wav, rate, generator) if condition == "segments" else wav


def opus(wav: Tensor, rate: int, bitrate: int = 64_000) -> Tensor:
    """[C, T] at ``rate`` Hz through Opus and back, equally long."""
    import soundfile

    inner = resample(wav, rate, 48_000).clamp(-1, 1)
    level = 1 - (bitrate * inner.shape[0] - 6000 * inner.shape[0]) / (250_000 * inner.shape[0])
    held = io.BytesIO()
    soundfile.write(held, inner.T.numpy(), 48_000, format="OGG", subtype="OPUS", compression_level=level)
    held.seek(0)
    table, _ = soundfile.read(held, dtype="float32", always_2d=True)
    out = resample(torch.from_numpy(table.T.copy()), 48_000, rate)
    return torch.nn.functional.pad(out, (0, max(0, wav.shape[1] - out.shape[1])))[:, : wav.shape[1]]


def _shuffled(wav: Tensor, rate: int, generator: torch.Generator) -> Tensor:
    """Half seconds in another order, with 5 ms of fade at each join so that no click tells."""
    size, fade = rate // 2, max(1, rate // 200)
    parts = list(torch.split(wav, size, dim=1))
    order = torch.randperm(len(parts), generator=generator).tolist()
    ramp = torch.linspace(0, 1, fade)
    out = []
    for index in order:
        part = parts[index].clone()
        if part.shape[1] > 2 * fade:
            part[:, :fade] *= ramp
            part[:, -fade:] *= ramp.flip(0)
        out.append(part)
    return torch.cat(out, dim=1)


def _judged(title: str, key: str, found: Sequence[Damaged]) -> CheckGroup:
    heard = sorted(found, key=lambda item: item.name)
    if len(heard) < LEAST:
        return CheckGroup(judge=title, reason=f"{len(heard)} reference clips could be damaged and heard: need {LEAST}")
    sets = {name: joined({item.name: item.vectors[name, key] for item in heard}) for name in NAMES}
    clean = sets["clean"]
    halves = _halves(clean)
    if isinstance(halves, str):
        return CheckGroup(judge=title, reason=halves)
    rows = [halves]
    least = _DEAF * of_samples(clean.data).trace
    for condition in list(NAMES)[1:]:
        value, error = _moved(clean, sets[condition])
        row = CheckRow(name=NAMES[condition], value=value, low=value - 2 * error, high=value + 2 * error)
        rows.append(_ranked(condition, row, rows, least))
    return CheckGroup(judge=title, rows=tuple(rows))


def _ranked(condition: str, row: CheckRow, before: Sequence[CheckRow], least: float) -> CheckRow:
    """The row with the one it must exceed, and whether it does. The first row is that of the halves."""
    value, halves = row.value or 0.0, before[0]
    if condition == "codec":
        ok = value > max(least, halves.low or 0.0)
        return replace(row, above=halves.name, ok=ok, note="above the lower end of the interval")
    if condition == "segments":
        return replace(row, ok=value > least, note="must be heard at all")
    other = max(before[:2], key=lambda item: item.value or 0.0)
    return replace(row, above=other.name, ok=value > max(least, other.value or 0.0))


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
    return CheckRow(name=NAMES["clean"], value=means[0], low=means[1], high=means[2], note="corrected for its bias")


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
    about = getattr(codec, "id", "") if codec is not None else "opus"
    return ears.cache.key(f"{content}|damaged 1|{about}", item.recipe)


def _nameable(codec: Any) -> bool:
    """Whether the cache can tell this codec from another."""
    return codec is None or bool(getattr(codec, "id", ""))


def _from_cache(task: Damage, ears: Ears, content: str, codec: Any) -> dict[tuple[str, str], Tensor] | None:
    if ears.cache is None or not _nameable(codec):
        return None
    found: dict[tuple[str, str], Tensor] = {}
    for item in task.hearings:
        table = ears.cache.get(_key(ears, content, item, codec))
        if table is None or set(table) != set(NAMES):
            return None
        found |= {(condition, item.key): value for condition, value in table.items()}
    return found
