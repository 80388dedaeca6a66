"""The one chunk engine: long recordings through methods that see a stretch at a time.

A recording is cut into chunks. Each is estimated with real sound on both sides as context; what was estimated of the
context is thrown away, because a network knows least at its edges, and neighbouring chunks fade into each other. Where
chunks lie and what they hold depends on the recording alone, never on the blocks it comes in: so a stream gives the
same bits as the whole, and memory is bounded by a few chunks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ...codec import audio as door
from ...codec.audio import Audio
from .channels import Channels
from .contract import Separator
from .rates import Rate
from .stems import Choice, Stems, choose

#: Lowest and highest rate of a sound.
RATES = (1000, 768000)
#: Samples of a whole sound that are given to the engine at a time.
_STEP = 1 << 20


def separate(
    method: Separator, sound: str | os.PathLike[str] | Audio | Tensor | np.ndarray, rate: int | None = None,
    stems: str | Sequence[str] | None = None,
) -> Stems:  # fmt: skip
    """See :meth:`descant.gen.separation.contract.Separator.separate`."""
    if isinstance(sound, str | os.PathLike):
        if rate is not None:
            raise ValueError("a file knows its own rate: leave the rate out")
        sound = door.read(sound)
    if isinstance(sound, Audio):
        if rate not in (None, sound.rate):
            raise ValueError(f"the audio is at {sound.rate} Hz, not at {rate} Hz: leave the rate out")
        wav, rate = sound.wav, sound.rate
    else:
        wav = torch.as_tensor(sound)
        if rate is None:
            raise ValueError("samples without a rate: say how many there are in a second")
    wav = wav[None] if wav.dim() == 1 else wav
    wav = _checked(wav, None)
    parts = list(stream(method, torch.split(wav, _STEP, -1), rate, stems))
    names = parts[0].keys()
    return Stems({name: torch.cat([part[name] for part in parts], -1) for name in names}, wav, rate)


def stream(
    method: Separator, blocks: Iterable[Tensor], rate: int, stems: str | Sequence[str] | None = None
) -> Iterator[Stems]:
    """See :meth:`descant.gen.separation.contract.Separator.stream`."""
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"a rate of {rate} Hz is out of range: {RATES[0]} to {RATES[1]}")
    choice = choose(method.stems, stems)
    return _run(method, blocks, rate, choice)


def _run(method: Separator, blocks: Iterable[Tensor], rate: int, choice: Choice) -> Iterator[Stems]:
    engine: Engine | None = None
    for block in blocks:
        block = _checked(block, None if engine is None else engine.channels.count)
        if engine is None:
            engine = Engine(method, rate, block.shape[0], choice)
        made = engine.push(block)
        if made is not None:
            yield made
    if engine is None:
        raise ValueError("no sound: there was not a single block")
    made = engine.finish()
    if made is not None:
        yield made


class Engine:
    """One recording on its way: :meth:`push` blocks [C, t], get stems that are final, :meth:`finish` for the rest."""

    def __init__(self, method: Separator, rate: int, channels: int, choice: Choice) -> None:
        self.method, self.rate, self.choice = method, rate, choice
        self.channels = Channels(channels, method.channels)
        work = method.rate or rate
        self.inward = Rate(rate, work, channels)
        self.outward = Rate(work, rate, channels * len(choice.names))
        self.cutter = method.cutter(work, self.channels, choice)
        self._mix = _Held(torch.zeros(channels, 0))
        self._ready = _Held(torch.zeros(len(choice.names), channels, 0))

    def push(self, block: Tensor) -> Stems | None:
        """Take [C, t] -> stems that are final by now, or None."""
        with torch.no_grad():
            self._mix.add(block)
            made = self.cutter.push(self.inward.push(block))
            self._add(self.outward.push(made.flatten(0, 1)))
            return self._give(self._ready.count)

    def finish(self) -> Stems | None:
        """End the recording -> the rest, or None."""
        with torch.no_grad():
            made = torch.cat([self.cutter.push(self.inward.finish()), self.cutter.finish()], -1)
            self._add(torch.cat([self.outward.push(made.flatten(0, 1)), self.outward.finish()], -1))
            # resamplers round the length; as much comes out as went in
            missing = max(0, self._mix.count - self._ready.count)
            self._ready.add(torch.zeros(len(self.choice.names), self.channels.count, missing))
            return self._give(self._mix.count)

    def _add(self, made: Tensor) -> None:
        if made.shape[-1]:
            self._ready.add(made.reshape(len(self.choice.names), -1, made.shape[-1]))

    def _give(self, count: int) -> Stems | None:
        count = min(count, self._mix.count)
        if not count:
            return None
        mix, stems = self._mix.all[:, :count].clone(), self._ready.all[..., :count].clone()
        self._mix.drop(count)
        self._ready.drop(count)
        return Stems(dict(zip(self.choice.names, stems.unbind(0), strict=True)), mix, self.rate)


class Cutter:
    """Cuts a recording at the method's own rate into chunks, estimates them and fades them together."""

    def __init__(self, method: Separator, rate: int, channels: Channels, choice: Choice) -> None:
        self.method, self.channels, self.choice = method, channels, choice
        layout = method.layout
        grain = method.grain
        self.chunk = max(1, round(layout.chunk * rate / grain)) * grain
        self.fade = min(round(layout.fade * rate), self.chunk)
        # chunks begin on the grain, so that a method's frames lie where they would in the whole
        self.before, self.after = math.ceil(layout.before * rate / grain) * grain, round(layout.after * rate)
        self.batch = layout.batch
        self.past = self.before  # how far back of its start a chunk may look
        self._held = _Held(torch.zeros(channels.count, 0))
        self._start = 0  # place of the first held sample in the recording
        self._next = 0  # number of the chunk that comes next
        self._tail: Tensor | None = None

    @property
    def seen(self) -> int:
        """Samples that came in."""
        return self._start + self._held.count

    def push(self, wav: Tensor) -> Tensor:
        """Take [C, t] -> estimates that are final by now, [N, C, t']."""
        self._held.add(wav)
        done = []
        while self._reach(self._next + self.batch - 1) <= self.seen:
            done.append(self._estimate(range(self._next, self._next + self.batch), None))
        return self._joined(done)

    def finish(self) -> Tensor:
        """End the recording -> estimates of the rest, [N, C, t']."""
        done = []
        while self._next * self.chunk < self.seen:
            last = self._last(self._next, self.seen)
            done.append(self._estimate(range(self._next, self._next + 1), self.seen))
            if last:
                break
        return self._joined(done)

    def _reach(self, number: int) -> int:
        """Where the sound ends that chunk ``number`` wants to see."""
        return (number + 1) * self.chunk + self.fade + self.after

    def _last(self, number: int, end: int) -> bool:
        """Whether no chunk follows ``number`` in a recording that ends at ``end``."""
        return (number + 1) * self.chunk + self.fade >= end

    def _cut(self, number: int, end: int | None) -> tuple[Tensor, slice]:
        """The piece [C, T] to hear for chunk ``number``, and where in it lies what is kept of the estimate."""
        start = max(0, number * self.chunk - self.before)
        stop = self._reach(number) if end is None else min(self._reach(number), end)
        return self._held.all[:, start - self._start : stop - self._start], slice(number * self.chunk - start, None)

    def _estimate(self, numbers: range, end: int | None) -> Tensor:
        """Estimate whole chunks in a batch, or a single one in a recording that ends at ``end``."""
        cuts = [self._cut(number, end) for number in numbers]
        # all but the very first have equal sizes
        same = len({piece.shape[-1] for piece, _ in cuts}) == 1
        pieces = [piece for piece, _ in cuts]
        made = list(self._heard(torch.stack(pieces))) if same else [self._heard(piece[None])[0] for piece in pieces]
        rows = []
        for number, (_, kept), row in zip(numbers, cuts, made, strict=True):
            row = row[..., kept]
            final = end is not None and self._last(number, end)
            rows.append(self._faded(row if final else row[..., : self.chunk + self.fade], final))
        self._next = numbers.stop
        keep = max(self._start, min(self.seen, self._next * self.chunk - self.past))
        self._held.drop(keep - self._start)
        self._start = keep
        return self._joined(rows)

    def _faded(self, row: Tensor, final: bool) -> Tensor:
        """Fade a chunk's estimate into its predecessor's tail, and keep its own tail back."""
        if self._tail is not None:
            count = min(self._tail.shape[-1], row.shape[-1])
            # from 1 / (fade + 1), so that the two ramps add up to one and mirror each other
            rise = (torch.arange(count, dtype=row.dtype) + 1) / (self.fade + 1)
            head = row[..., :count] * rise + self._tail[..., :count] * (1 - rise)
            row = torch.cat([head, row[..., count:]], -1)
        if final or not self.fade:
            self._tail = None
            return row
        self._tail = row[..., self.chunk :].clone()
        return row[..., : self.chunk]

    def _heard(self, wav: Tensor) -> Tensor:
        """Estimates of pieces [P, C, T] -> [P, N, C, T]; silence is not asked about."""
        rows = self.channels.split(wav)  # [P * G, C', T]
        loud = rows.abs().amax((1, 2)) > 0
        keep = self.choice.keep
        made = rows.new_zeros((rows.shape[0], len(keep), *rows.shape[1:]))
        if bool(loud.any()):
            heard = rows[loud]
            level = torch.ones(len(heard), 1, 1)
            if self.method.levelled:
                level = heard.double().square().mean((1, 2), keepdim=True).sqrt().float()
            found = self._asked((heard / level).to(self.method.device))
            made[loud] = found.float().cpu() * level[:, None]
        return self.choice.group(self.channels.join(made, len(wav)))

    def _asked(self, wav: Tensor) -> Tensor:
        keep = self.choice.keep
        if self.method.precision == "fp32":
            return self.method.estimate(wav, keep)
        with torch.autocast(wav.device.type, torch.bfloat16):
            return self.method.estimate(wav, keep)

    def _joined(self, rows: Sequence[Tensor]) -> Tensor:
        if rows:
            return torch.cat(list(rows), -1)
        return torch.zeros(len(self.choice.names), self.channels.count, 0)


class _Held:
    """Samples [.., T] that wait, joined only when they are wanted: blocks may be tiny."""

    def __init__(self, empty: Tensor) -> None:
        self._parts, self.count = [empty], 0

    def add(self, wav: Tensor) -> None:
        self._parts.append(wav)
        self.count += wav.shape[-1]

    @property
    def all(self) -> Tensor:
        if len(self._parts) > 1:
            self._parts = [torch.cat(self._parts, -1)]
        return self._parts[0]

    def drop(self, count: int) -> None:
        self._parts = [self.all[..., count:].clone()]
        self.count -= count


def _checked(wav: Tensor, channels: int | None) -> Tensor:
    if wav.dim() != 2 or not wav.shape[0]:
        raise ValueError(f"need samples [channels, samples], got {tuple(wav.shape)}")
    if channels is None and not wav.shape[1]:
        raise ValueError("the sound holds no samples")
    if channels is not None and wav.shape[0] != channels:
        raise ValueError(f"a block of {wav.shape[0]} channels after blocks of {channels}")
    if not wav.is_floating_point():
        raise ValueError(f"need samples as floats in -1 to 1, got {wav.dtype}: divide by the largest whole number")
    wav = wav.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(wav).all()):
        raise ValueError("the sound holds NaN or infinite samples: clean it first")
    return wav
