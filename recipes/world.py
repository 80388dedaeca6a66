"""The processes of one training run, and what they exchange.

One process needs nothing. Several are started by ``torchrun`` or ``accelerate launch``; Accelerate then places them on
devices and joins them (NCCL on GPUs, gloo on CPUs). A process that was launched as one of several and finds itself
alone would train a model of its own and write over the others' files, so :meth:`World.join` counts heads and refuses.

Every process computes gradients of its share of the batch, a slice of the batch one process would have drawn, and
gradients are averaged before each update: a run of several processes ends where a run of one does, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

#: Where launchers say how many processes they started: torchrun and Accelerate, Open MPI, MPICH, MVAPICH, srun.
_LAUNCHERS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def launched() -> int:
    """How many processes the launcher says it started; 1 without a launcher."""
    sizes = [os.environ.get(name, "") for name in _LAUNCHERS]
    return max([1, *(int(size) for size in sizes if size.isdigit())])


@dataclass(frozen=True)
class World:
    """This process among ``size``, number ``rank`` of them, on ``device``."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    accelerator: Any = None

    @staticmethod
    def join(device: str = "auto") -> World:
        """Join the other processes of this run; alone when no launcher started more. device: ``auto``, ``cpu``, ..

        Raises RuntimeError when the processes found are not the processes launched.
        """
        wanted = launched()
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        place = torch.device(auto if device == "auto" else device)
        if wanted == 1:
            return World(device=place)
        try:
            from accelerate import Accelerator
        except ImportError as error:
            raise RuntimeError(
                f"{wanted} processes were launched, and joining them needs Accelerate: pip install 'descant[train]'"
            ) from error
        # without cpu=True, Accelerate leaves each CPU process alone in a world of its own and says nothing
        accelerator = Accelerator(cpu=place.type == "cpu")
        world = World(
            rank=accelerator.process_index, size=accelerator.num_processes, device=accelerator.device,
            accelerator=accelerator,
        )  # fmt: skip
        check(int(world.sum(torch.ones(1, device=world.device))))
        return world

    def share(self, count: int) -> slice:
        """Which of ``count`` items of a batch are this process's. Raises ValueError when they cannot be shared."""
        if count % self.size:
            raise ValueError(f"a batch of {count} cannot be shared by {self.size} processes: make it a multiple")
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows [n, ..] of each process -> [size * n, ..] in the order of the processes."""
        if self.size == 1:
            return rows
        gathered: Tensor = self.accelerator.gather(rows.contiguous())
        return gathered

    def sum(self, figures: Tensor) -> Tensor:
        """Sum of [n] over all processes."""
        if self.size == 1:
            return figures
        total: Tensor = self.accelerator.reduce(figures.clone(), "sum")
        return total

    def mean(self, figures: Tensor) -> Tensor:
        """Mean of [n] over all processes."""
        return self.sum(figures) / self.size

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean over all processes, in one exchange.

        A parameter that had no part in this process's share counts as zero there, if it had one in another's.
        """
        if self.size == 1:
            return
        parameters = list(parameters)
        used = self.sum(torch.tensor([float(p.grad is not None) for p in parameters], device=self.device))
        for parameter, count in zip(parameters, used.tolist(), strict=True):
            if count and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = self.mean(torch.cat([g.reshape(-1) for g in gradients]))
        for gradient, fresh in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(fresh.view_as(gradient))

    @torch.no_grad()
    def align(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size == 1:
            return
        for value in module.state_dict().values():
            torch.distributed.broadcast(value, 0)

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor([float(flag)], device=self.device)) > 0)

    def first(self, figure: float) -> float:
        """The first process's figure."""
        if self.size == 1:
            return figure
        value = torch.tensor([figure], dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(value, 0)
        return float(value)

    def leave(self) -> None:
        """Wait for the others, then part; nothing to do alone."""
        if self.size > 1:
            self.accelerator.wait_for_everyone()
            torch.distributed.destroy_process_group()


#: A run of one process on the CPU.
ALONE = World()


def check(found: int) -> None:
    """Raise RuntimeError unless ``found`` processes are what the launcher started."""
    wanted = launched()
    if found != wanted:
        raise RuntimeError(
            f"{wanted} processes were launched but this one trains among {found}: each would train a model of its own "
            f"and write over the others' files. Start one process, or several by torchrun with Accelerate installed"
        )
