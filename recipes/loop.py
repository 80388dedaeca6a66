"""One training loop for every model: schedule, averaging, checkpoints, exact resume, logs, validation.

A task says what one step is; the loop does the rest. Nothing about a run depends on how often it was interrupted:
batches and noise are functions of (seed, step), so a checkpoint needs only weights, optimisers and the step, and a
run that was killed ends at the weights of one that was not. Nothing depends on wall-clock either, unless ``minutes``
asks for it: then the time spent so far, which the checkpoint keeps, says how far along the schedule the run is.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..lm.room import room
from .log import Log
from .world import ALONE, World, check


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What every run has; a task's own settings live beside the task."""

    steps: int
    batch: int = 16
    lr: float = 1e-3
    final_lr: float = 1e-5
    warmup: int = 100
    """Steps of linear rise to ``lr``; a cosine to ``final_lr`` follows."""
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Decay of the averaged weights that are validated and exported."""
    seed: int = 0
    minutes: float = 0.0
    """When positive, the schedule of ``steps`` steps is stretched or squeezed into this many minutes of training."""
    validate_every: int = 500
    save_seconds: float = 120.0
    log_every: int = 20
    device: str = "auto"
    """``cpu``, ``cuda`` or ``auto``."""
    bf16: bool = True
    """bfloat16 matrix products."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.ema < 1 or self.lr <= 0 or self.clip <= 0:
            raise ValueError(f"lr {self.lr} and clip {self.clip} must be positive, ema {self.ema} in 0..1")
        if not 0 <= self.minutes < 1e6:
            raise ValueError(f"minutes must be 0 (count steps) or the minutes of training, got {self.minutes}")

    @property
    def torch_device(self) -> torch.device:
        """The device the run uses."""
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(auto if self.device == "auto" else self.device)


class Task(Protocol):
    """What a recipe gives the loop."""

    @property
    def model(self) -> nn.Module:
        """The model that is averaged, validated and exported."""

    @property
    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """Optimisers by name; their groups' ``scale`` multiplies the learning rate."""

    @property
    def extra(self) -> Mapping[str, nn.Module]:
        """Modules that are trained and checkpointed beside the model (a discriminator)."""

    def step(self, step: int, ema: Mapping[str, Tensor]) -> dict[str, float]:
        """Do one update, number ``step`` counted from 0; return figures for the log."""

    def lr(self, step: int) -> float:
        """Learning rate at ``step``."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures of ``model`` on held-out data."""


@runtime_checkable
class Sharded(Protocol):
    """A task whose weights or optimisers are spread over the processes, and which therefore gathers them itself.

    All processes call all of these together.
    """

    def pieces(self) -> dict[str, Tensor]:
        """What this process has of each parameter: these are averaged."""

    def collect(self, ema: Mapping[str, Tensor]) -> dict[str, Any]:
        """``model``, ``ema`` and ``optimisers`` whole, as a run of one process would save them."""

    def spread(self, state: Mapping[str, Any], ema: dict[str, Tensor]) -> None:
        """Take what :meth:`collect` gave, each process its part."""


@runtime_checkable
class Staged(Protocol):
    """A task whose steps differ along the schedule, and which therefore wants to know where it is."""

    def at(self, place: int) -> None:
        """The next step is at ``place`` of the schedule: the step's number, or more or less of it by wall-clock."""


def cosine(step: int, start: int, end: int, peak: float, final: float, warmup: int) -> float:
    """Linear warm-up from ``start``, then a half cosine from ``peak`` to ``final`` at ``end``."""
    if step - start < warmup:
        return peak * (step - start + 1) / warmup
    share = min(1.0, (step - start - warmup) / max(1, end - start - warmup))
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * share))


def stream(seed: int, step: int, purpose: int = 0) -> torch.Generator:
    """The generator of a step: all randomness of a run is drawn from these."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 31 + purpose)


def override(config: Any, pairs: Mapping[str, str]) -> Any:
    """Replace fields of a dataclass by ``key=value`` texts; ``codec.books`` is a field of the field ``codec``.

    Several values are separated by commas. Raises ValueError on unknown keys or unreadable values.
    """
    values: dict[str, Any] = {}
    inner: dict[str, dict[str, str]] = {}
    for key, text in pairs.items():
        name, _, rest = key.partition(".")
        if name not in config.__dataclass_fields__:
            raise ValueError(f"unknown setting {key!r}; known: {', '.join(sorted(config.__dataclass_fields__))}")
        now = getattr(config, name)
        if is_dataclass(now):
            if not rest:
                raise ValueError(f"{key}={text}: {key} has settings of its own, write {key}.name=value")
            inner.setdefault(name, {})[rest] = text
            continue
        try:
            values[key] = _read(now, text)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{key}={text}: expected a value like {now!r}") from error
    for name, texts in inner.items():
        values[name] = override(getattr(config, name), texts)
    return replace(config, **values)


def _read(now: Any, text: str) -> Any:
    if isinstance(now, bool):
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if isinstance(now, str):
        return text
    if isinstance(now, tuple):
        like = now[0] if now else ""
        return tuple(_read(like, part.strip()) for part in text.split(",") if part.strip())
    return type(now)(float(text) if isinstance(now, int) else text)


def run(
    task: Task,
    config: LoopConfig,
    folder: str | os.PathLike[str],
    stop: int | None = None,
    quiet: bool = False,
    world: World = ALONE,
) -> int:
    """Train ``task`` in ``folder``, resuming from its checkpoint; return the step reached.

    stop: halt after this step (the schedule still spans ``config.steps``). Interrupts (SIGINT, SIGTERM) save first.
    world: the processes that share the work; the first writes ``checkpoint.pt`` (tensors only), ``log.jsonl`` and
    ``tensorboard/``. Raises RuntimeError when more processes were launched than ``world`` has.
    """
    from tqdm import tqdm

    check(world.size)
    folder, first = Path(folder), world.rank == 0
    folder.mkdir(parents=True, exist_ok=True)
    for module in (task.model, *task.extra.values()):
        world.align(module)
    sharded = isinstance(task, Sharded)
    ema = {name: value.detach().clone().float() for name, value in _pieces(task).items()}
    clock = _Clock(config, world)
    step = restore(task, config, ema, folder, clock)
    if world.any(step != world.first(step)):
        raise RuntimeError(f"the processes found different checkpoints: {folder} must be one folder they all see")
    end = math.inf if stop is None else stop
    halt = _Halt()
    saved = time.monotonic()
    place = clock.place(step)
    with halt, Log(folder if first else None, step) as log, tqdm(
        total=config.steps, initial=place, disable=quiet or not first, unit="step"
    ) as bar:  # fmt: skip
        while place < config.steps and step < end and not world.any(halt.asked):
            if isinstance(task, Staged):
                task.at(place)
            for optimiser in task.optimisers.values():
                for group in optimiser.param_groups:
                    group["lr"] = task.lr(place) * group.get("scale", 1.0)
            with room(f"a step of {config.batch} crops", _smaller(config)):
                figures = task.step(step, ema)
            _average(ema, _pieces(task), min(config.ema, (step + 1) / (step + 10)))
            step, before, place = step + 1, place, clock.place(step + 1)
            bar.update(place - before)
            last = place >= config.steps
            if step % config.log_every == 0 or last or step >= end:
                log.write(step, {"lr": task.lr(before), **figures})
                bar.set_postfix({key: f"{value:.3f}" for key, value in list(figures.items())[:4]})
            if (first or sharded) and (step % config.validate_every == 0 or last):
                log.write(step, {f"val/{key}": value for key, value in _validate(task, ema).items()})
            due = time.monotonic() - saved > config.save_seconds
            if world.any(due) if sharded else first and due:
                save(task, config, ema, step, folder, clock, first)
                saved = time.monotonic()
    if first or sharded:
        save(task, config, ema, step, folder, clock, first)
    return step


def _smaller(config: LoopConfig) -> str:
    """Settings that make a step of this run smaller, those it has."""
    settings = [f"{name} (it is {getattr(config, name)})" for name in ("batch", "frames", "seconds") if
                hasattr(config, name)]  # fmt: skip
    more = [text for name, text in (("accumulate", "raise accumulate"), ("checkpointing", "set checkpointing=true")) if
            hasattr(config, name)]  # fmt: skip
    return ", ".join([f"lower {' or '.join(settings)}", *more])


def averaged(task: Task, ema: Mapping[str, Tensor]) -> None:
    """Put the averaged weights into ``task.model`` (buffers stay)."""
    with torch.no_grad():
        for name, value in _pieces(task).items():
            value.copy_(ema[name])


def save(
    task: Task, config: LoopConfig, ema: Mapping[str, Tensor], step: int, folder: Path, clock: _Clock | None = None,
    write: bool = True,
) -> None:  # fmt: skip
    """Write the checkpoint under a temporary name, flush it to disk, rename it; unless others do (``write``)."""
    state = {
        "step": step,
        "seconds": clock.seconds if clock is not None else 0.0,
        "config": asdict(config),
        "extra": {name: module.state_dict() for name, module in task.extra.items()},
    }
    if isinstance(task, Sharded):
        state |= task.collect(ema)
    else:
        state["model"], state["ema"] = task.model.state_dict(), dict(ema)
        state["optimisers"] = {name: optimiser.state_dict() for name, optimiser in task.optimisers.items()}
    if not write:
        return
    part = folder / "checkpoint.pt.part"
    with open(part, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / "checkpoint.pt")


def restore(task: Task, config: LoopConfig, ema: dict[str, Tensor], folder: Path, clock: _Clock | None = None) -> int:
    """Load the checkpoint of ``folder`` into task and ema, if there is one; return its step.

    Raises ValueError when the checkpoint belongs to a run with other settings.
    """
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    free = {"save_seconds", "log_every", "validate_every", "dev_items", "device"}
    # a setting that is younger than the checkpoint had its default then
    then = _aged(config, state["config"])
    changed = [key for key, value in asdict(config).items() if key not in free and then.get(key) != value]
    if changed:
        raise ValueError(f"{path} was made with other settings ({', '.join(changed)}): choose another folder")
    for name, module in task.extra.items():
        module.load_state_dict(state["extra"][name])
    if isinstance(task, Sharded):
        task.spread(state, ema)
    else:
        task.model.load_state_dict(state["model"])
        for name, optimiser in task.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        for name, value in state["ema"].items():
            ema[name].copy_(value)
    if clock is not None:
        clock.seconds = float(state.get("seconds", 0.0))
    return int(state["step"])


def _aged(config: Any, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint, with the defaults of those it is too old to know; settings within settings likewise."""
    then: dict[str, Any] = {f.name: _default(f) for f in fields(config) if f.name not in saved} | dict(saved)
    for field in fields(config):
        inner = getattr(config, field.name)
        if is_dataclass(inner) and isinstance(then[field.name], Mapping):
            then[field.name] = _aged(inner, then[field.name])
    return then


def _default(field: Field[Any]) -> Any:
    """What a setting is when nobody says, as a checkpoint would keep it."""
    value = field.default if field.default_factory is MISSING else field.default_factory()
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class _Clock:
    """Where on the schedule a run is: at its step, or where the time spent in it says."""

    def __init__(self, config: LoopConfig, world: World) -> None:
        self.config, self.world = config, world
        self.seconds = 0.0
        self._last: float | None = None

    def place(self, step: int) -> int:
        """The place after ``step`` steps; equal in all processes."""
        if self.config.minutes <= 0:
            return step
        now = time.monotonic()
        # the time between two calls, so that time in which nothing ran does not count
        self.seconds += now - self._last if self._last is not None else 0.0
        self._last = now
        share = self.world.first(self.seconds) / (60 * self.config.minutes)
        return min(self.config.steps, int(share * self.config.steps))


class _Halt:
    """Turns the first SIGINT or SIGTERM into a request to save and stop."""

    def __init__(self) -> None:
        self.asked = False
        self._old: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._old[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: the caller handles signals
                return

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._old[number])


def _pieces(task: Task) -> dict[str, Tensor]:
    return task.pieces() if isinstance(task, Sharded) else dict(task.model.named_parameters())


def _average(ema: dict[str, Tensor], pieces: Mapping[str, Tensor], decay: float) -> None:
    averages = [ema[name] for name in pieces]
    torch._foreach_lerp_(averages, [value.detach().float() for value in pieces.values()], 1 - decay)


def _validate(task: Task, ema: Mapping[str, Tensor]) -> dict[str, float]:
    backup = {name: value.detach().clone() for name, value in _pieces(task).items()}
    training = task.model.training
    averaged(task, ema)
    task.model.eval()
    with torch.no_grad():
        figures = task.validate(task.model)
        for name, value in _pieces(task).items():
            value.copy_(backup[name])
    task.model.train(training)
    return figures


def learned(model: nn.Module, folder: str | os.PathLike[str]) -> int:
    """Put what the run in ``folder`` has learned into ``model``, averages for weights -> the step of its checkpoint."""
    state = torch.load(Path(folder) / "checkpoint.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(state["ema"][name])
    return int(state["step"])
