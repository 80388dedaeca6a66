"""Language-model training under DeepSpeed: ZeRO spreads what a run holds over its processes.

Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", 2020 (arXiv:1910.02054):
stage 1 shares out the optimiser's states, stage 2 the gradients too, stage 3 the weights as well. The arithmetic is
that of plain data parallelism, so all of them end where one process ends, up to rounding.

``deepspeed.initialize`` is driven here directly, on CPUs over gloo as on GPUs over NCCL: Accelerate's own integration
does not reach it on CPUs. Checkpoints are those of a run without DeepSpeed, whole, gathered by its own documented
calls and read as plain tensors. A run goes on under the stage and the number of processes it was begun with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..lm.condition import ConditionBatch
from ..lm.conditioner import Conditioned
from ..lm.model import TokenLM
from .lm import LMRecipe, LMTask, Music, rows_of
from .world import World, check

#: What AdamW keeps of each weight, by DeepSpeed's names, which are torch's.
STATES = ("exp_avg", "exp_avg_sq")


class _Loss(nn.Module):
    """The loss as a module, because DeepSpeed gathers weights around a module's call."""

    def __init__(self, lm: TokenLM) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, codes: Tensor, batch: ConditionBatch, skip: int) -> tuple[Tensor, Tensor]:
        """Codes [B, K, F] and conditions -> mean cross-entropy, and that of each book [K]."""
        # all processes must use the same weights in the same order, and in a share that lost every sentence nothing
        # would call the text encoder: one more row has a sentence, and counts for nothing
        size = batch.size
        more = rows_of(batch, torch.tensor([*range(size), 0]))
        cond = self.lm.prepare(replace(more, text=(*batch.text, "music")))
        loss, books = self.lm.loss(codes, Conditioned(cond.prefix[:size], cond.added[:size]), skip)
        return loss + 0.0 * cond.prefix[size].float().sum(), books


class ZeroTask(LMTask):
    """Language-model training whose states are spread over the processes; :class:`descant.recipes.loop.Sharded`."""

    def __init__(self, config: LMRecipe, data: Music, dev: Music, world: World) -> None:
        """Raises RuntimeError or ValueError when DeepSpeed cannot run it in this world."""
        check(world.size)
        if world.size == 1:
            raise ValueError("zero spreads a run over processes and there is one: start several by torchrun")
        settings = configuration(config, world)
        super().__init__(config, data, dev, world)
        deepspeed = _deepspeed(self.device)
        self._gathered = deepspeed.zero.GatheredParameters
        self.engine, *_ = deepspeed.initialize(
            model=_Loss(self.lm), optimizer=self.optimisers["lm"], config=settings, dist_init_required=False
        )
        found = int(self.engine.world_size)
        if found != self.world.size:
            raise RuntimeError(f"DeepSpeed sees {found} processes where {self.world.size} train: nothing was started")
        self.stage = int(self.engine.zero_optimization_stage())
        if self.stage < 1:
            raise ValueError("the DeepSpeed configuration switches ZeRO off: leave out zero=, or set a stage of 1 to 3")
        self._parts_done = 0

    def forward(self, codes: Tensor, batch: ConditionBatch, skip: int) -> tuple[Tensor, Tensor]:
        """Codes [B, K, F] and their conditions -> mean cross-entropy, and that of each book [K]."""
        return self.engine(codes, batch, skip)  # type: ignore[no-any-return]

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of one part, and share them out."""
        # the engine divides by the number of parts itself
        self.engine.backward(loss * self.config.accumulate)
        self._parts_done += 1
        if self._parts_done % self.config.accumulate:
            self.engine.step()

    def update(self) -> float:
        """Move the weights by the gradients of all processes; returns the gradients' norm."""
        self.engine.step()
        return float(self.engine.get_global_grad_norm() or 0.0)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """As :meth:`LMTask.validate`, in all processes together."""
        # weights that are gathered at this moment are those before the averages were put in, and later the averages
        self._let_go()
        self.engine.eval()
        figures = super().validate(model)
        self.engine.train()
        self._let_go()
        return figures

    def pieces(self) -> dict[str, Tensor]:
        """Under stage 3 this process's piece of each parameter, else the parameters."""
        return {name: getattr(value, "ds_tensor", value) for name, value in self.lm.named_parameters()}

    @torch.no_grad()
    def collect(self, ema: Mapping[str, Tensor]) -> dict[str, Any]:
        """``model``, ``ema`` and ``optimisers`` whole, on the CPU, as a run of one process has them."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        self._link()
        state: dict[str, Any] = {"model": {}, "ema": {}, "optimisers": {}}
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in self.lm.named_parameters():
            state["model"][name] = safe_get_full_fp32_param(value).cpu().clone()
            state["ema"][name] = self._whole(value, ema[name]).cpu().clone()
            if self._done():
                found = {key: safe_get_full_optimizer_state(value, key) for key in STATES}
                moments[name] = {key: full.cpu().clone() for key, full in found.items() if full is not None}
        state["optimisers"]["lm"] = {"step": self._done(), "state": moments}
        return state

    def spread(self, state: Mapping[str, Any], ema: dict[str, Tensor]) -> None:
        """Take what :meth:`collect` gave, each process its part."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        saved = state["optimisers"]["lm"]
        if "step" not in saved:
            raise ValueError("this checkpoint was written without zero: go on without it, or choose another folder")
        if saved["step"]:
            self._rehearse()
            self._link()
        with torch.no_grad():
            for name, value in self.lm.named_parameters():
                whole = state["model"][name].to(self.device)
                with self._gathered([value], modifier_rank=0, enabled=self.stage == 3):
                    if self.stage < 3 or self.world.rank == 0:
                        value.copy_(whole)
                safe_set_full_fp32_param(value, whole)
                for key, full in saved["state"].get(name, {}).items():
                    safe_set_full_optimizer_state(value, full.to(self.device), key)
                ema[name].copy_(self._part(value, state["ema"][name]))
            for row in self._inner().state.values():
                row["step"].fill_(float(saved["step"]))

    def _rehearse(self) -> None:
        # the optimiser has no states to put anything into before it has moved once; at a rate of 0 nothing moves
        for group in self.engine.optimizer.param_groups:
            group["lr"] = 0.0
        codes, batch = self._parts(0)[0]
        for _ in range(self.config.accumulate):
            with self.precision():
                loss = self.forward(codes, batch, 0)[0]
            self.engine.backward(loss)
            self.engine.step()

    def _let_go(self) -> None:
        if self.stage == 3:
            self.engine.empty_partition_cache()

    def _link(self) -> None:
        # DeepSpeed looks for the states of all groups once the first group has moved, and so misses those of the others
        if self.stage < 3 and self._done():
            from deepspeed.utils import lazy_init_hp_params_optimizer_state as find

            zero = self.engine.optimizer
            for group, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
                find(group, flat, self._inner().state)

    def _inner(self) -> torch.optim.Optimizer:
        return self.engine.basic_optimizer  # type: ignore[no-any-return]

    def _done(self) -> int:
        rows = [row["step"] for row in self._inner().state.values() if "step" in row]
        return int(rows[0]) if rows else 0

    def _whole(self, value: Tensor, piece: Tensor) -> Tensor:
        """A parameter's average out of the pieces of all processes."""
        if self.stage < 3:
            return piece
        shape = value.ds_shape  # type: ignore[attr-defined]
        return self.world.gather(piece.reshape(-1))[: shape.numel()].view(shape)

    def _part(self, value: Tensor, whole: Tensor) -> Tensor:
        """This process's piece of a whole average."""
        if self.stage < 3:
            return whole
        size = value.ds_tensor.numel()  # type: ignore[attr-defined]
        flat = whole.new_zeros(size * self.world.size)
        flat[: whole.numel()] = whole.reshape(-1)
        return flat[self.world.rank * size : (self.world.rank + 1) * size]


def configuration(c: LMRecipe, world: World) -> dict[str, Any]:
    """DeepSpeed's settings: the JSON file that ``zero`` names, and what the recipe decides.

    Raises ValueError when the file decides something the recipe does, or cannot be read.
    """
    name = c.zero
    path = Path(__file__).with_name(f"zero{name}.json") if name in ("1", "2", "3") else Path(name)
    if not path.is_file():
        raise ValueError(f"zero={name}: there is no such file; 1, 2 and 3 are built in")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold an object of DeepSpeed's settings")
    own = world.share(c.batch)
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": (own.stop - own.start) // c.accumulate,
        "gradient_accumulation_steps": c.accumulate,
        "gradient_clipping": c.clip,
        # what runs in lower precision is the engine's to say: around it, it is switched off
        "torch_autocast": {"enabled": c.bf16, "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    twice = sorted(set(settings) & set(ours) | {"optimizer", "scheduler", "train_batch_size"} & set(settings))
    if twice:
        raise ValueError(f"{path} sets {', '.join(twice)}, which the recipe decides: take it out of the file")
    zero = dict(settings.get("zero_optimization", {}))
    if zero.get("stage") == 3:
        # a weight that DeepSpeed keeps whole beside its pieces would not follow when the averages are put in
        zero["stage3_param_persistence_threshold"] = 0
        zero.setdefault("stage3_gather_16bit_weights_on_model_save", False)
    return {**settings, **ours, "zero_optimization": zero}


def _deepspeed(device: torch.device) -> Any:
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if device.type == "cuda" else "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise RuntimeError("zero needs DeepSpeed: pip install 'descant[deepspeed]'") from error
    if device.type == "cpu":
        # an exchange through shared memory that would be compiled now; gloo needs no compiler
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
