"""Long signals through networks that were made for short ones: window by window, rims dropped, nothing changed.

An output of a convolutional network depends on a stretch of its input, the receptive field. Run it on a window, drop
the outputs whose field reaches over the window's border, and what is left is what the whole signal would have given.
At the true beginning and end nothing is dropped: there the network pads as it does for the whole. An LSTM has no such
field; it stands between two windowed networks and hands on its state.

The classes mirror those of :mod:`descant.codec.stream`, which need no rims; use these for EnCodec, DAC and other codecs
whose layers know nothing of streams. Letters: B batch, C channels, K codebooks, D width, n items of one push.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from .contract import Codec, check_codes, check_wav, count_books

State = dict[str, Tensor]

#: Frames computed at a time unless said otherwise; the rims come on top.
CHUNK = 100


@dataclass(frozen=True)
class Reach:
    """Receptive field of a token frame: the frames ``left`` and ``right`` of it that have a say in it."""

    left: int
    right: int

    def __post_init__(self) -> None:
        if self.left < 0 or self.right < 0:
            raise ValueError(f"a reach is counted in frames from 0 on, got {self.left} and {self.right}")


@torch.no_grad()
def measure(net: Callable[[Tensor], Tensor], like: Tensor, step: int, out: int, most: int = 1024) -> Reach:
    """Find the reach of ``net``: [1, n * step, D] -> [1, n * out, E], by following a NaN through it.

    like: an input [1, 1, D] of the right kind; step and out: inputs and outputs per frame. Weights do not matter: NaN
    times zero is NaN. Raises ValueError when the reach exceeds ``most`` frames or has no end, as an LSTM's.
    """
    frames = 16
    while frames <= 4 * most:
        middle, left, right = frames // 2, 0, 0
        for place in (middle * step, (middle + 1) * step - 1):
            x = like.repeat(1, frames * step, 1)
            x[:, place] = torch.nan
            lost = torch.nonzero(net(x)[0].isnan().flatten(1).any(1))[:, 0] // out
            if len(lost):
                left, right = max(left, int(lost[-1]) - middle), max(right, middle - int(lost[0]))
        if left < frames - 1 - middle and right < middle:
            return Reach(left, right)
        frames *= 2
    raise ValueError(f"the network's outputs depend on inputs more than {most} frames away: split it where it recurs")


class Stage(Protocol):
    """A step of a pipeline: items in, items out, with a state that is data."""

    def push(self, x: Tensor) -> Tensor | None:
        """Take x [B, n, D] -> what is certain now, [B, m, E], or None."""

    def finish(self) -> Tensor | None:
        """End the signal -> the rest [B, m, E], or None."""

    def reset(self) -> None:
        """Begin a new signal."""

    def state(self) -> State:
        """What is held, tensors with the batch first."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""


class Windowed:
    """``net``: [B, n * step, D] -> [B, n * out, E] over a signal of any length, ``chunk`` frames at a time.

    The last call may bring a part of a frame; it is left to ``net`` to pad it.
    """

    def __init__(self, net: Callable[[Tensor], Tensor], step: int, out: int, reach: Reach, chunk: int = CHUNK) -> None:
        if step < 1 or out < 1 or chunk < 1:
            raise ValueError(f"step, out and chunk must be at least 1, got {step}, {out}, {chunk}")
        self.net, self.step, self.out, self.reach, self.chunk = net, step, out, reach, chunk
        self._held: Tensor | None = None
        self._before = 0  # frames among those held whose outputs are out already

    def push(self, x: Tensor) -> Tensor | None:
        """Take x [B, n, D] -> what is certain now, [B, m, E], or None."""
        if self._held is not None and self._held.shape[2:] != x.shape[2:]:
            seen = f"{list(x.shape[2:])} after {list(self._held.shape[2:])}"
            raise ValueError(f"the width changed within a signal: {seen}; finish() first")
        held = x if self._held is None else torch.cat([self._held, x], 1)
        parts, at = [], 0
        while True:
            window = self._before + self.chunk + self.reach.right
            if held.shape[1] - at < window * self.step:
                break
            y = self.net(held[:, at : at + window * self.step])
            parts.append(y[:, self._before * self.out : (self._before + self.chunk) * self.out].clone())
            kept = min(self._before + self.chunk, self.reach.left)
            at += (self._before + self.chunk - kept) * self.step
            self._before = kept
        self._held = held[:, at:].clone()
        return torch.cat(parts, 1) if parts else None

    def finish(self) -> Tensor | None:
        """End the signal -> the rest [B, m, E], or None."""
        held, before = self._held, self._before
        self.reset()
        if held is None or held.shape[1] <= before * self.step:
            return None
        return self.net(held)[:, before * self.out :]

    def reset(self) -> None:
        """Begin a new signal."""
        self._held, self._before = None, 0

    def state(self) -> State:
        """What is held, tensors with the batch first."""
        if self._held is None:
            return {}
        return {"held": self._held, "before": torch.full((len(self._held),), self._before)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self._held = state.get("held")
        self._before = int(state["before"][0]) if "before" in state else 0


class Recurring:
    """An LSTM (time first) with a shortcut around it, which hands on its state."""

    def __init__(self, lstm: nn.LSTM) -> None:
        self.lstm = lstm
        self._hidden: tuple[Tensor, Tensor] | None = None

    def push(self, x: Tensor) -> Tensor | None:
        """Take x [B, n, D] -> [B, n, D]."""
        x = x.transpose(0, 1)
        y, self._hidden = self.lstm(x.to(next(self.lstm.parameters()).dtype), self._hidden)
        out: Tensor = (y + x).transpose(0, 1)
        return out

    def finish(self) -> Tensor | None:
        """End the signal; nothing is held back."""
        self.reset()
        return None

    def reset(self) -> None:
        """Begin a new signal."""
        self._hidden = None

    def state(self) -> State:
        """What is held, tensors with the batch first."""
        if self._hidden is None:
            return {}
        return {name: value.transpose(0, 1) for name, value in zip(("hidden", "cell"), self._hidden, strict=True)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        found = [state[name].transpose(0, 1).contiguous() for name in ("hidden", "cell") if name in state]
        self._hidden = (found[0], found[1]) if found else None


class _Pipeline:
    """Stages in a row, and the checks both directions share."""

    def __init__(self, codec: Codec, stages: Sequence[Stage]) -> None:
        self.codec, self._stages = codec, list(stages)
        self._batch, self._ended = 0, False

    def pace(self, frames: int) -> None:
        """Compute ``frames`` frames at a time from now on: few for sound that must come soon, many for little overhead.

        What comes out stays the same. Raises ValueError where frames are normalised together.
        """
        if frames < 1 or getattr(self.codec, "segmented", False):
            raise ValueError(f"{frames} frames at a time: at least 1, and of this codec a whole segment")
        for stage in self._stages:
            if isinstance(stage, Windowed):
                stage.chunk = frames

    def reset(self) -> None:
        """Forget everything: the next push begins a new signal, of any batch size."""
        self._batch, self._ended = 0, False
        for stage in self._stages:
            stage.reset()

    def state(self) -> State:
        """The state, tensors [B, ...]; empty before the first push. Nothing in it changes when the stream goes on."""
        if not self._batch:
            return {}
        held = {f"{index}.{name}": v for index, stage in enumerate(self._stages) for name, v in stage.state().items()}
        return {"ended": torch.full((self._batch,), self._ended), **held}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave. Raises ValueError when it is of another kind of stream."""
        numbers = {name.split(".")[0] for name in state} - {"ended"}
        if state and ("ended" not in state or not numbers <= {str(index) for index in range(len(self._stages))}):
            raise ValueError(f"the state is not one of this stream: it has {sorted(state)}")
        self._batch = len(state["ended"]) if state else 0
        self._ended = bool(state["ended"][0]) if state else False
        for index, stage in enumerate(self._stages):
            prefix = f"{index}."
            stage.restore({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})

    def _open(self, batch: int) -> None:
        if self._ended:
            raise ValueError("the stream is finished: call reset() to begin another signal")
        if self._batch not in (0, batch):
            raise ValueError(f"a push of {batch} items into a stream of {self._batch}: keep B, or reset()")
        self._batch = batch

    def _through(self, x: Tensor | None, last: bool = False) -> Tensor | None:
        for stage in self._stages:
            y = None if x is None or x.shape[1] == 0 else stage.push(x)
            rest = stage.finish() if last else None
            parts = [part for part in (y, rest) if part is not None]
            x = torch.cat(parts, 1) if parts else None
        return x


class ChunkedEncoder(_Pipeline):
    """Samples to codes, piece by piece: the last of ``stages`` gives codes [B, n, K].

    Without stages, :meth:`Codec.encode` itself is run on overlapping windows; ``reach`` says how far they must overlap.
    """

    def __init__(
        self, codec: Codec, reach: Reach | None = None, books: int | None = None, chunk: int = CHUNK,
        stages: Sequence[Stage] | None = None,
    ) -> None:  # fmt: skip
        self.books = count_books(books, codec.books)

        def encode(x: Tensor) -> Tensor:
            return codec.encode(x.transpose(1, 2), books).transpose(1, 2)

        if stages is None:
            if reach is None:
                raise ValueError("say how far the codec reaches: ChunkedEncoder(codec, Reach(left, right))")
            stages = [Windowed(encode, codec.hop, 1, reach, chunk)]
        super().__init__(codec, stages)

    @torch.no_grad()
    def push(self, wav: Tensor) -> Tensor:
        """Take the next samples: wav [B, C, n], n >= 0 -> the codes that are certain now, int64 [B, K, f]."""
        wav = check_wav(wav, self.codec.channels, "push", empty=True)
        self._open(wav.shape[0])
        return self._codes(self._through(wav.transpose(1, 2)))

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the signal -> the remaining codes, int64 [B, K, f]."""
        self._open(self._batch or 1)
        self._ended = True
        return self._codes(self._through(None, last=True))

    def _codes(self, x: Tensor | None) -> Tensor:
        if x is None:
            return torch.zeros(self._batch, self.books, 0, dtype=torch.int64)
        return x.transpose(1, 2)


class ChunkedDecoder(_Pipeline):
    """Codes to samples, piece by piece: the first of ``stages`` takes codes [B, n, K], the last gives [B, t, C].

    Without stages, :meth:`Codec.decode` itself is run on overlapping windows; ``reach`` says how far they must overlap.
    """

    def __init__(
        self, codec: Codec, reach: Reach | None = None, chunk: int = CHUNK, stages: Sequence[Stage] | None = None
    ) -> None:
        def decode(x: Tensor) -> Tensor:
            return codec.decode(x.transpose(1, 2)).transpose(1, 2)

        if stages is None:
            if reach is None:
                raise ValueError("say how far the codec reaches: ChunkedDecoder(codec, Reach(left, right))")
            stages = [Windowed(decode, 1, codec.hop, reach, chunk)]
        super().__init__(codec, stages)

    @torch.no_grad()
    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames: codes int64 [B, K, n], n >= 0, one K for all -> the samples that are certain [B, C, t].

        Raises ValueError on codes out of range.
        """
        codes = check_codes(codes, self.codec, "push", empty=True)
        self._open(codes.shape[0])
        return self._wav(self._through(codes.transpose(1, 2)))

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the signal -> the remaining samples [B, C, t]."""
        self._open(self._batch or 1)
        self._ended = True
        return self._wav(self._through(None, last=True))

    def _wav(self, x: Tensor | None) -> Tensor:
        if x is None:
            return torch.zeros(self._batch, self.codec.channels, 0)
        return x.transpose(1, 2)
