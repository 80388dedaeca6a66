"""A second oracle, run by hand: AudioCraft 1.3.0's own test cases of patterns, transformer and rotary positions.

    python tests/lm/audiocraft_job.py                      # fetches the source package with pip
    python tests/lm/audiocraft_job.py audiocraft-1.3.0.tar.gz

Their test files run unchanged; the modules they import are adapters to ours, below. Two models stand behind their
``StreamingTransformer``: MusicGen's blocks with sinusoidal positions, and our own stack with rotary positions and a
window. Cases of what neither has are listed in ``NOT_OURS`` with the reason, and printed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from descant.lm.attention import rope_table, rotate
from descant.lm.cache import Cache
from descant.lm.musicgen import MusicGenLM
from descant.lm.musicgen_config import MusicGenConfig
from descant.lm.musicgen_decoder import StaticCache, Told, positions
from descant.lm.pattern import Pattern as OurPattern
from descant.lm.transformer import Stack

PACKAGE = "audiocraft==1.3.0"
FILES = ("test_codebooks_patterns.py", "test_transformer.py", "test_rope.py")
#: Their case -> why it says nothing about ours.
NOT_OURS = {
    "TestUnrolledPatternProvider": "MusicGen's models have no flattened pattern",
    "test_transformer_vs_pytorch": "compares a post-norm, two-way encoder with biases; MusicGen is none of it",
    "test_memory_efficient": "compares two implementations of attention; ours has one",
    "test_rope_memory_efficient": "compares two implementations of attention; ours has one",
    "test_attention_as_float32": "an option of theirs; ours computes attention in the type of its weights",
    "test_cross_attention_compat": "an attention module with biases whose keys and values come from two sources",
    "test_repeat_kv": "an option of theirs: keys and values shared by several heads",
    "test_qk_layer_norm": "an option of theirs; our stack always normalises, MusicGen's never does",
    "test_rope_with_xpos": "an option of theirs: rotary positions that decay",
    "test_positional_scale": "an option of theirs: rotary positions that are switched off",
}


class LayoutCoord(NamedTuple):
    """Frame and codebook of a cell."""

    t: int
    q: int


class Pattern:
    """Their pattern, every answer of which is read from ours."""

    def __init__(self, ours: OurPattern, timesteps: int) -> None:
        self.ours, self.timesteps, self.n_q = ours, timesteps, ours.books
        steps = ours.steps(timesteps)
        # their layout also names the cells beyond the end
        frames = torch.arange(timesteps + ours.tail).expand(1, ours.books, -1)
        cells = ours.apply(frames, -1)[0, :, :steps]
        self.layout = [
            [LayoutCoord(int(t), q) for q, t in enumerate(cells[:, s].tolist()) if t >= 0] for s in range(steps)
        ]

    @property
    def num_sequence_steps(self) -> int:
        return len(self.layout) - 1

    @property
    def max_delay(self) -> int:
        return self.ours.tail

    @property
    def valid_layout(self) -> list[list[LayoutCoord]]:
        return self.layout[: len(self.layout) - self.max_delay]

    def build_pattern_sequence(self, z: Tensor, special: int) -> tuple[Tensor, None, Tensor]:
        assert z.shape[2] == self.timesteps
        with refusals():
            return self.ours.apply(z, special), None, self.ours.mask(self.timesteps)

    def revert_pattern_sequence(self, s: Tensor, special: int) -> tuple[Tensor, None, Tensor]:
        with refusals():
            return self.ours.revert(s), None, torch.ones(self.n_q, self.timesteps, dtype=torch.bool)

    def revert_pattern_logits(self, logits: Tensor, special: float) -> tuple[Tensor, None, Tensor]:
        """[B, card, K, S] -> [B, card, K, T]: what was expected at step s is said at step s - 1."""
        late = torch.cat([logits.new_full((*logits.shape[:3], 1), special), logits[..., :-1]], 3)
        found = self.ours.revert(late.flatten(0, 1)).unflatten(0, logits.shape[:2])
        return found, None, torch.ones(self.n_q, self.timesteps, dtype=torch.bool)


class ParallelPatternProvider:
    def __init__(self, n_q: int, delays: Sequence[int] | None = None) -> None:
        self.ours = OurPattern.parallel(n_q)

    def get_pattern(self, timesteps: int) -> Pattern:
        return Pattern(self.ours, timesteps)


class DelayedPatternProvider(ParallelPatternProvider):
    def __init__(self, n_q: int, delays: Sequence[int] | None = None) -> None:
        self.ours = OurPattern.delayed(n_q) if delays is None else OurPattern(tuple(delays))


class UnrolledPatternProvider(ParallelPatternProvider):
    """Never asked: its cases are left out."""


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Their tests wait for an AssertionError where ours refuse with a ValueError."""
    try:
        yield
    except ValueError as error:
        raise AssertionError(str(error)) from error


class StreamingTransformer(nn.Module):
    """Their transformer: MusicGen's blocks with sinusoidal positions, our stack with rotary ones or a window."""

    def __init__(
        self, width: int, heads: int, layers: int, causal: bool = False, past_context: int | None = None,
        cross_attention: bool = False, positional_embedding: str = "sin", **_: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cross, self.window = cross_attention, past_context and past_context + 1
        self.rotary = positional_embedding == "rope" or past_context is not None
        self.shape = (layers, heads, width // heads)
        self.state: Any = None
        self.live = False
        if self.rotary:
            self.stack = Stack(width, layers, heads)
        else:
            config = MusicGenConfig(width=width, layers=layers, heads=heads, ffn=4 * width, text_width=width)
            self.config = config
            self.blocks = MusicGenLM(config).blocks
            for weight in self.parameters():
                if weight.dim() == 2:
                    nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def forward(self, x: Tensor, cross_attention_src: Tensor | None = None) -> Tensor:
        assert (cross_attention_src is not None) == self.cross
        if self.rotary:
            return self._own(x)
        told = None
        if cross_attention_src is not None:
            pairs = [block.tell(cross_attention_src) for block in self.blocks]
            told = Told([k for k, _ in pairs], [v for _, v in pairs], None)
        if self.live and self.state is None:
            self.state = StaticCache(self.config, len(x), 64, x)
        cache = self.state if self.live else None
        seen = 0 if cache is None else cache.seen
        x = x + positions(seen, x.shape[1], x.shape[2])
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, told, cache)
        if cache is not None:
            cache.seen += x.shape[1]
        return x

    def _own(self, x: Tensor) -> Tensor:
        from descant.lm.attention import banded, causal, heads, unit

        layers, count, head = self.shape
        window = self.window or 64
        if self.live:
            if self.state is None:
                self.state = Cache((layers, len(x), count, head), 0, window, x.device)
            cache = self.state
            if cache.steps:
                cache.advance(x.shape[1])
            x = self.stack(x, cache.step if cache.steps else cache.begin)
            cache.commit(x.shape[1])
            return x
        none = torch.zeros(len(x), count, 0, head)

        def mix(_: int, qkv: Tensor) -> Tensor:
            if x.shape[1] <= window:
                return causal(*heads(qkv, rope_table(0, x.shape[1], head)))
            return banded(qkv, (unit(none), none), None, 0, window)[0]

        return self.stack(x, mix)

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        self.live, self.state = True, None
        try:
            yield
        finally:
            self.live, self.state = False, None

    def get_streaming_state(self) -> dict[str, Tensor]:
        cache = self.state
        return {"keys": cache.keys, "values": cache.values, "seen": torch.tensor(cache.seen)}

    def set_streaming_state(self, state: dict[str, Tensor]) -> None:
        self.state.keys, self.state.values = state["keys"].clone(), state["values"].clone()
        self.state.seen = int(state["seen"])

    def flush(self) -> None:
        """Nothing is held back."""


class StreamingMultiheadAttention:
    """Never asked: its cases are left out."""


class RotaryEmbedding:
    """Their rotary positions by ours, whose table has one precision."""

    def __init__(self, dim: int, dtype: torch.dtype = torch.float32) -> None:
        self.dim = dim

    def rotate_qk(self, q: Tensor, k: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        table = rope_table(start, q.shape[1], self.dim)[:, None]
        return rotate(q, table).to(q.dtype), rotate(k, table).to(k.dtype)


def pytest_configure() -> None:
    """As a plugin: our adapters under the names their tests import."""
    named: dict[str, dict[str, Any]] = {
        "codebooks_patterns": {
            "Pattern": Pattern, "ParallelPatternProvider": ParallelPatternProvider,
            "DelayedPatternProvider": DelayedPatternProvider, "UnrolledPatternProvider": UnrolledPatternProvider,
        },
        "transformer": {
            "StreamingTransformer": StreamingTransformer, "StreamingMultiheadAttention": StreamingMultiheadAttention,
            "set_efficient_attention_backend": lambda _: None,
        },
        "rope": {"RotaryEmbedding": RotaryEmbedding},
    }  # fmt: skip
    for name in ("audiocraft", "audiocraft.modules"):
        sys.modules[name] = types.ModuleType(name)
    for name, inside in named.items():
        module = types.ModuleType(f"audiocraft.modules.{name}")
        vars(module).update(inside)
        sys.modules[module.__name__] = module


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not apply, and take their unrolled patterns out of the cases that mix all kinds."""
    gone = [item for item in items if any(f"::{name}" in item.nodeid for name in NOT_OURS)]
    gone = [item for item in gone if any(part.split("[")[0] in NOT_OURS for part in item.nodeid.split("::")[1:])]
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=gone)
    for item in items:
        kind = getattr(item, "cls", None)
        if kind is not None and hasattr(kind, "_get_pattern_providers"):
            kind._get_pattern_providers = lambda _, n_q: [
                ParallelPatternProvider(n_q), DelayedPatternProvider(n_q),
                DelayedPatternProvider(n_q, [0] + [1] * (n_q - 1)),
                DelayedPatternProvider(n_q, [k // 2 for k in range(n_q)]),
            ]  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Fetch or open the source package and run its tests; return pytest's status."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if words:
            archive = Path(words[0])
        else:
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "audiocraft"]
            subprocess.run([*pip, PACKAGE, "-d", name], check=True)
            archive = next(folder.glob("audiocraft-*.tar.gz"))
        with tarfile.open(archive) as package:
            for member in package.getmembers():
                if "/tests/modules/" in member.name and Path(member.name).name in FILES:
                    file = package.extractfile(member)
                    if file is not None:
                        (folder / Path(member.name).name).write_bytes(file.read())
        (folder / "pytest.ini").write_text("[pytest]\n")
        for case, why in NOT_OURS.items():
            print(f"left out: {case}: {why}")
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "audiocraft_job", "-p", "no:cacheprovider", *FILES]
        return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
