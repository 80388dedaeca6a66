"""Steps of a MusicGen-shaped decoder in CPU time: transformers and this package's engines, one thread, one process.

Weights are drawn, in statistics like those of trained ones (:func:`weights_like_trained`): speed does not depend on
them, and what rounding does to the logits does.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..lm.fast import FastMusicGen
from ..lm.fast_memory import best_form
from ..lm.fast_threads import threads
from ..lm.musicgen import Conditions, MusicGenLM
from ..lm.musicgen_config import MusicGenConfig, small, to_transformers
from ..lm.musicgen_files import sources
from ..lm.sample import SamplingSettings, choose, noise

#: Engines, as (weights, form of the attention cache; None is the default of the machine).
ENGINES: tuple[tuple[str, str | None], ...] = (("fp32", None), ("bf16", None), ("int8", "bf16"), ("int8", None))
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ShapeRun:
    """What is measured."""

    contexts: tuple[int, ...] = (100, 1450)
    """Positions in the attention cache."""
    steps: int = 20
    """Steps timed at each context; the median counts."""
    text: int = 12
    """Tokens of text that are attended to."""
    config: MusicGenConfig | None = None
    """None: musicgen-small."""
    compare: bool = True
    """Whether the transformers library is measured too."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.text < 1 or not self.contexts or min(self.contexts) < 2:
            raise ValueError(
                f"{self.steps} steps, {self.text} tokens of text at contexts {self.contexts}: give at least one step, "
                "one token and contexts of two positions"
            )

    def sizes(self) -> MusicGenConfig:
        """The decoder's sizes, its text as wide as itself: the projection is not part of a step."""
        config = self.config or small()
        return replace(config, text_width=config.width)


def measure(run: ShapeRun, say: Say) -> dict[str, Any]:
    """Milliseconds of CPU time per guided step (two rows) of every engine, and how far their logits are apart."""
    config = run.sizes()
    with threads(1), torch.inference_mode():
        torch.manual_seed(0)
        model = MusicGenLM(config).eval()
        weights_like_trained(model)
        states = torch.randn(1, run.text, config.width)
        found: dict[str, Any] = {
            "shape": {"width": config.width, "layers": config.layers, "heads": config.heads, "ffn": config.ffn},
            "parameters": config.parameters, "text": run.text, "steps": run.steps, "contexts": list(run.contexts),
            "rows": [],
        }  # fmt: skip
        sequence = torch.randint(0, config.cardinality, (1, config.books, 64))
        cond = model.condition_states(states)
        exact = _logits(FastMusicGen(model, "fp32"), cond, sequence)
        if run.compare:
            found["rows"] += _transformers(model, run, states, sequence, exact, say)
            gc.collect()
        found["rows"].append(_row("MusicGenLM fp32", _ours(model, cond, run), say))
        for precision, form in ENGINES:
            form = best_form(precision) if form is None else form
            name = f"FastMusicGen {precision}, cache {form}"
            if any(row["name"] == name for row in found["rows"]):
                continue  # without numba the 8-bit cache is not there
            engine = FastMusicGen(model, precision, form)
            row = _row(name, _ours(engine, cond, run), say)
            row["weight_bytes"] = _step_bytes(config, run.text, precision)
            row["cache_bytes"] = {
                str(context): 4 * config.layers * context * config.width * {"fp32": 4, "bf16": 2, "int8": 1}[form]
                for context in run.contexts
            }
            row |= _apart(exact, _logits(engine, cond, sequence))
            found["rows"].append(row)
            del engine
            gc.collect()
        found["draw_ms"] = _draw(config, run.steps)
    return found


@torch.no_grad()
def weights_like_trained(model: MusicGenLM) -> None:
    """Fill a decoder with drawn weights: uneven columns, norms with a few large gains, logits of some five nats.

    Trained transformers have input channels of very different size and a few outliers (Dettmers et al., 2022,
    "LLM.int8()", section 3); evenly drawn weights would make rounding look harmless.
    """
    config = model.config
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            weight.normal_(std=0.3).exp_()
            weight[torch.randperm(len(weight))[: max(1, len(weight) // 200)]] *= 6
        elif name.endswith("norm.bias"):
            weight.normal_(std=0.1)
        elif weight.dim() == 2:
            inside = weight.shape[1]
            deep = 2 * config.layers if name.endswith(("out.weight", "fc2.weight")) else 1
            weight.normal_(std=(deep * inside) ** -0.5)
            if "embed" not in name:
                weight.mul_(torch.randn(inside).mul_(0.4).exp_())
    probe = FastMusicGen(model, "fp32")
    steps = torch.randint(0, config.cardinality, (1, config.books, 8))
    spread = probe(steps, model.condition_states(torch.randn(1, 4, config.text_width))).std()
    model.heads.weight.mul_(2.3 / spread)


class Library:
    """The same weights in the transformers library's decoder, with its own growing cache."""

    def __init__(self, model: MusicGenLM, states: Tensor) -> None:
        import transformers

        self.config, self._library = model.config, transformers
        sizes = to_transformers(model.config)
        made: Any = transformers.MusicgenForCausalLM(transformers.MusicgenDecoderConfig(**sizes))
        self._decoder = made.eval()
        state, own = self._decoder.state_dict(), model.state_dict()
        for ours, names in sources(model.config, ""):
            for name, part in zip(names, own[ours].chunk(len(names)), strict=True):
                state[name].copy_(part)
        # the unconditional row attends to zeros, as in the library's own generation
        self._told = torch.cat([states, torch.zeros_like(states)])
        self._mask = torch.ones(self._told.shape[:2], dtype=torch.long)

    @property
    def version(self) -> str:
        """The library's."""
        return str(self._library.__version__)

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Compute there, in that precision."""
        self._decoder, self._told = self._decoder.to(device, dtype), self._told.to(device, dtype)
        self._mask = self._mask.to(device)

    def forward(self, steps: Tensor, cache: Any) -> Tensor:
        """Steps [1, K, S] -> logits [2, K, S, V]."""
        out: Tensor = self._decoder(
            input_ids=steps.expand(2, -1, -1).flatten(0, 1), encoder_hidden_states=self._told,
            encoder_attention_mask=self._mask, past_key_values=cache, use_cache=True,
        ).logits  # fmt: skip
        return out.view(2, self.config.books, *out.shape[1:])

    def cache(self, context: int = 0) -> Any:
        """A cache that has seen ``context`` positions: two in earnest, the others drawn."""
        cache = self._library.EncoderDecoderCache(self._library.DynamicCache(), self._library.DynamicCache())
        if context:
            config = self.config
            self.forward(torch.zeros(1, config.books, 2, dtype=torch.long), cache)
            shape = (2, config.heads, context - 2, config.width // config.heads)
            for layer in range(config.layers):
                fill = torch.randn(shape, dtype=self._told.dtype)
                cache.self_attention_cache.update(fill, fill.clone(), layer)
        return cache


def _transformers(
    model: MusicGenLM, run: ShapeRun, states: Tensor, sequence: Tensor, exact: Tensor, say: Say
) -> list[dict[str, Any]]:
    """The library's rows."""
    library, one = Library(model, states), sequence[:, :, :1]
    rows, half = [], sequence.shape[2] // 2
    for kind in ("fp32", "bf16"):
        if kind == "bf16":
            library.to(states.device, torch.bfloat16)
        times = {}
        for context in run.contexts:
            times[str(context)] = _time(partial(library.forward, one, library.cache(context)), run.steps)
        row = _row(f"transformers {library.version} {kind}", times, say)
        cache = library.cache()
        parts = [sequence[:, :, :half], *torch.split(sequence[:, :, half:], 1, 2)]
        logits = torch.cat([library.forward(part, cache) for part in parts], 2).float()
        rows.append(row | _apart(exact, logits))
    return rows


def _ours(engine: MusicGenLM | FastMusicGen, cond: Conditions, run: ShapeRun) -> dict[str, float]:
    config = engine.config
    model: Any = engine
    ready = engine.ready(cond, True)
    one = torch.zeros(1, config.books, 1, dtype=torch.long)
    times = {}
    for context in run.contexts:
        cache = model.cache(ready, context + run.steps + 4)
        shape = (2, config.heads, context, config.width // config.heads)
        for layer in range(config.layers):
            drawn = torch.randn(shape)
            (cache.fill if isinstance(engine, FastMusicGen) else cache.add)(layer, drawn, drawn.clone())
        cache.seen = context
        times[str(context)] = _time(partial(model, one, ready, cache), run.steps)
        del cache
    return times


def _time(work: Callable[[], object], steps: int) -> float:
    """Median CPU milliseconds of ``steps`` calls after three to warm up."""
    for _ in range(3):
        work()
    spent = []
    for _ in range(steps):
        before = time.process_time_ns()
        work()
        spent.append((time.process_time_ns() - before) / 1e6)
    return statistics.median(spent)


def _row(name: str, times: dict[str, float], say: Say) -> dict[str, Any]:
    say(f"{name}: " + ", ".join(f"{ms:.1f} ms at {context}" for context, ms in times.items()))
    return {"name": name, "ms": times}


def _logits(engine: FastMusicGen, cond: Conditions, sequence: Tensor) -> Tensor:
    """Logits [2, K, S, V] of the rows of guidance: half of the steps read at once, the others one by one."""
    ready = engine.ready(cond, True)
    cache = engine.cache(ready, sequence.shape[2])
    half = sequence.shape[2] // 2
    parts = [sequence[:, :, :half], *torch.split(sequence[:, :, half:], 1, 2)]
    return torch.cat([engine(part, ready, cache) for part in parts], 2)


def _apart(exact: Tensor, other: Tensor) -> dict[str, float]:
    """How far logits [2, K, S, V] are from the exact ones: largest difference, and mean KL divergence in nats."""
    p, q = exact.float().log_softmax(-1), other.float().log_softmax(-1)
    mixed = [rows[1] + 3.0 * (rows[0] - rows[1]) for rows in (exact.float(), other.float())]
    entropy = -(p.exp() * p).sum(-1).mean()
    return {
        "largest": float((exact - other).abs().max()),
        "kl": float(F.kl_div(q, p, log_target=True, reduction="none").sum(-1).mean()),
        "kl_guided": float(
            F.kl_div(mixed[1].log_softmax(-1), mixed[0].log_softmax(-1), log_target=True, reduction="none")
            .sum(-1).mean()
        ),
        "entropy": float(entropy),
    }  # fmt: skip


def _step_bytes(config: MusicGenConfig, text: int, precision: str) -> int:
    """Weights that a guided step reads: the layers, cross-attention folded for ``text`` tokens, the heads."""
    width, head = config.width, config.width // config.heads
    cross = 2 * width * width if text > head else 2 * config.heads * text * width
    layer = 4 * width * width + 2 * width * config.ffn + cross
    size = {"fp32": 4, "bf16": 2, "int8": 1}[precision]
    return (config.layers * layer + config.books * config.cardinality * width) * size


def _draw(config: MusicGenConfig, steps: int) -> float:
    """CPU milliseconds of what follows a step's logits: guidance, top-k, noise, the largest."""
    logits = torch.randn(2, config.books, config.cardinality)
    settings, generator = SamplingSettings(), torch.Generator()

    def work() -> Tensor:
        mixed = logits[1] + 3.0 * (logits[0] - logits[1])
        return choose(mixed, settings, noise(0, 1, (config.books, config.cardinality), generator))

    return _time(work, max(steps, 20))


def fastest(rows: Sequence[dict[str, Any]], context: int) -> dict[str, Any]:
    """The engine's row with the least time at a context."""
    return min((row for row in rows if row["name"].startswith("Fast")), key=lambda row: row["ms"][str(context)])
