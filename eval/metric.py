"""What every score has in common: a result that says how sure it is, and a state that can be saved and merged.

A :class:`Result` either has a value or a stated reason why it has none; there is no third case, so a table never shows
a missing row, a -1 or a mean that silently left clips out. A :class:`Metric` gathers what it needs in ``update`` and
hands out tensors as its ``state``: those go to safetensors (:func:`save_state`), are read again after an interruption
(:func:`load_state`), and are merged across processes (:func:`synchronise`), always to the same result.
"""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from .statistics import bootstrap

Direction = Literal["lower", "higher", "none"]
_BATCH = TypeVar("_BATCH", contravariant=True)
#: Clips above which a mean over clips gets a t interval: resampling thousands of clips thousands of times only costs.
_BOOTSTRAP_CLIPS = 1000


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure with everything needed to read it, or the reason why there is none."""

    metric: str
    direction: Direction
    """Which way is better; ``none`` for figures that are only reported."""
    recipe: str = "none"
    """Id of the recipe (:attr:`descant.eval.recipe.Recipe.id`); ``none`` for bare arrays, which no table accepts."""
    value: float | None = None
    """The plain figure, as other tools define it."""
    corrected: float | None = None
    """The same without its finite-sample bias, where that is known."""
    error: float | None = None
    """Standard error over clips of :attr:`best`."""
    low: float | None = None
    high: float | None = None
    """Ends of the confidence interval around :attr:`best`."""
    level: float = 0.95
    clips: int = 0
    windows: int = 0
    left_out: int = 0
    """Clips that were there but could not be scored; ``notes`` names them."""
    reason: str | None = None
    """Why there is no value."""
    notes: tuple[str, ...] = ()
    per_clip: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)
    """Figures that belong to this one, such as its chance level."""

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"{self.metric}: a result has either a value or a reason, and not both")
        for name in ("value", "corrected", "error", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{self.metric}: {name} is {number}; give a reason instead of a value")
        if self.direction not in ("lower", "higher", "none"):
            raise ValueError(f"{self.metric}: direction is {self.direction!r}; allowed are lower, higher and none")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}: a confidence level lies between 0 and 1, such as 0.95")

    @property
    def best(self) -> float | None:
        """The corrected value where there is one, otherwise the plain one."""
        return self.value if self.corrected is None else self.corrected

    def to_json(self) -> dict[str, Any]:
        """Plain types, for a report."""
        return asdict(self) | {"notes": list(self.notes)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Result:
        """What :meth:`to_json` gave. Raises ValueError for unknown fields."""
        unknown = sorted(set(row) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"unknown fields {unknown} in a result: it was written by another version of descant")
        return cls(**{**row, "notes": tuple(row.get("notes", ()))})

    def with_left_out(self, failures: Mapping[str, str]) -> Result:
        """The same result, saying which clips could not be scored and why: {clip: reason}."""
        if not failures:
            return self
        named = [f"left out {name}: {reason}" for name, reason in sorted(failures.items())]
        return replace(self, left_out=self.left_out + len(failures), notes=(*self.notes, *named))

    def __str__(self) -> str:
        if self.best is None:
            return f"{self.metric}: not computed, {self.reason}"
        bounds = "" if self.low is None or self.high is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.metric}: {self.best:.4g}{bounds}, {self.clips} clips"


class Metric(Protocol[_BATCH]):
    """A score that is fed batch by batch, in any order and by any number of processes."""

    @property
    def name(self) -> str:
        """What the table calls it."""

    @property
    def direction(self) -> Direction:
        """Which way is better."""

    @property
    def needs(self) -> frozenset[str]:
        """What must be given: ``generated`` and some of ``reference``, ``paired``, ``text``, ``labels``, ``stems``."""

    @property
    def recipe(self) -> str:
        """Id of the recipe; states of different recipes do not merge."""

    def update(self, batch: _BATCH) -> None:
        """Take in a batch."""

    def state(self) -> dict[str, Tensor]:
        """Everything taken in so far, as tensors."""

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Take in what another process, or an earlier run, had taken in."""

    def result(self) -> Result:
        """The figure over all that was taken in; may be asked for at any time."""


def unavailable(metric: str, direction: Direction, reason: str, recipe: str = "none", clips: int = 0) -> Result:
    """A result without a value."""
    return Result(metric=metric, direction=direction, reason=reason, recipe=recipe, clips=clips)


def average(
    metric: str, direction: Direction, per_clip: Mapping[str, float], recipe: str = "none", level: float = 0.95
) -> Result:
    """The mean over clips, with its standard error and interval.

    The interval is a percentile bootstrap over clips, above 1000 clips Student's t (the two then agree). Without clips,
    or with a value that is not finite, the result has a reason.
    """
    if not per_clip:
        return unavailable(metric, direction, "no clip could be scored", recipe)
    bad = sorted(name for name, value in per_clip.items() if not math.isfinite(value))
    if bad:
        some = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        return unavailable(metric, direction, f"{len(bad)} clips have no finite score: {some}", recipe, len(per_clip))
    # sorted, so that the order of clips never shows in the last digit
    values = torch.tensor([per_clip[name] for name in sorted(per_clip)], dtype=torch.float64)
    count, mean = values.numel(), float(values.mean())
    result = Result(
        metric=metric, direction=direction, recipe=recipe, value=mean, level=level, clips=count, per_clip=dict(per_clip)
    )
    if count < 2:
        return replace(result, notes=("one clip has no interval",))
    error = float(values.std() / math.sqrt(count))
    if count <= _BOOTSTRAP_CLIPS:
        estimate = bootstrap(values, level=level)
        return replace(result, error=error, low=estimate.low, high=estimate.high)
    return with_interval(result, error, count - 1)


def with_interval(result: Result, error: float, freedom: int) -> Result:
    """The result with a standard error and Student's t interval of ``freedom`` degrees around its best value."""
    if result.best is None:
        return result
    reach = t_quantile(0.5 + result.level / 2, freedom) * error
    return replace(result, error=error, low=result.best - reach, high=result.best + reach)


def t_quantile(p: float, freedom: int) -> float:
    """Quantile of Student's t (Abramowitz and Stegun, 26.7.5; exact for 1 and 2 degrees of freedom)."""
    if not 0 < p < 1 or freedom < 1:
        raise ValueError(f"no quantile of Student's t for p = {p}, {freedom} degrees of freedom: need 0 < p < 1, >= 1")
    if freedom == 1:
        return math.tan(math.pi * (p - 0.5))
    if freedom == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    x, v = NormalDist().inv_cdf(p), float(freedom)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + sum(term / v ** (power + 1) for power, term in enumerate(terms))


def pack_state(metric: Metric[Any]) -> bytes:
    """The state of a metric as safetensors bytes, its name and recipe in the header."""
    from safetensors.torch import save

    table = {name: value.contiguous() for name, value in metric.state().items()}
    return bytes(save(table, {"metric": metric.name, "recipe": metric.recipe}))


def merge_bytes(metric: Metric[Any], data: bytes, source: str = "state") -> None:
    """Merge what :func:`pack_state` gave. Raises ValueError when it is damaged or of another metric or recipe."""
    import json

    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        table = load(data)
        size = int.from_bytes(data[:8], "little")
        about = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{source}: is damaged ({error}); delete it and score again") from error
    for what, mine in (("metric", metric.name), ("recipe", metric.recipe)):
        if about.get(what) != mine:
            raise ValueError(
                f"{source}: holds {what} {about.get(what)!r}, not {mine!r}; only states of one {what} merge"
            )
    metric.merge(table)


def save_state(metric: Metric[Any], path: str | os.PathLike[str]) -> None:
    """Write the state of a metric to a safetensors file, whole or not at all."""
    write_whole(path, pack_state(metric))


def load_state(metric: Metric[Any], path: str | os.PathLike[str]) -> None:
    """Merge a file of :func:`save_state` into a metric. Raises ValueError when it is missing, damaged or of another."""
    where = Path(path)
    if not where.is_file():
        raise ValueError(f"{where}: no such file; a metric without a saved state starts empty")
    merge_bytes(metric, where.read_bytes(), str(where))


def synchronise(metric: Metric[Any]) -> None:
    """Merge the states of all processes of the default ``torch.distributed`` group into each of them.

    Does nothing where no group was started. Collective: every process must call it, once, with its own part.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    device = torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
    mine = torch.frombuffer(bytearray(pack_state(metric)), dtype=torch.uint8).to(device)
    world = distributed.get_world_size()
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world)]
    distributed.all_gather(sizes, torch.tensor([mine.numel()], device=device))
    longest = max(int(size) for size in sizes)
    parts = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in range(world)]
    distributed.all_gather(parts, torch.nn.functional.pad(mine, (0, longest - mine.numel())))
    for rank, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        if rank != distributed.get_rank():
            merge_bytes(metric, part[: int(size)].cpu().numpy().tobytes(), f"state of process {rank}")


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to a file that appears at once, complete, or not at all; folders are made."""
    where = Path(path)
    where.parent.mkdir(parents=True, exist_ok=True)
    part = where.with_name(f".{where.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)
        os.replace(part, where)
    finally:
        part.unlink(missing_ok=True)
