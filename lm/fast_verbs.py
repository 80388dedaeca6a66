"""What MusicGen's engines offer beside their steps: the verbs of the model that they were made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from .musicgen import Conditions

if TYPE_CHECKING:
    from .musicgen_sample import Progress
    from .sample import SamplingSettings


class Verbs:
    """Sampling by an engine, as by :class:`descant.lm.musicgen.MusicGenLM` itself."""

    def stream(
        self, frames: int, cond: Conditions, *, prompt: Tensor | None = None, settings: SamplingSettings | None = None,
        seed: int | Sequence[int] = 0, ready: Any = None,
    ) -> Iterator[Tensor]:  # fmt: skip
        """Yield the codes [B, K] of one new frame after another; see :func:`descant.lm.musicgen_sample.stream`."""
        from .musicgen_sample import stream

        return stream(cast(Any, self), frames, cond, prompt=prompt, settings=settings, seed=seed, ready=ready)

    def generate(
        self, frames: int, cond: Conditions, *, prompt: Tensor | None = None, settings: SamplingSettings | None = None,
        seed: int | Sequence[int] = 0, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """``frames`` new frames -> codes [B, K, F0 + frames]; see :func:`descant.lm.musicgen_sample.generate`."""
        from .musicgen_sample import generate

        return generate(cast(Any, self), frames, cond, prompt=prompt, settings=settings, seed=seed, progress=progress)
