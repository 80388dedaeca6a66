"""Encoding and decoding piece by piece: samples go in as they come, codes come out as soon as they are certain.

The codes are those of :meth:`Codec.encode` on the whole signal, the samples those of :meth:`Codec.decode`, however
the signal is cut, because every layer does the same sums on the same frames: convolutions hand on the frames they
still need, transforms the samples that windows still overlap. Memory does not grow with the signal.

The state is a dictionary of tensors with the batch first: copy it, store it as safetensors, take rows of it.

Letters: B batch, C channels, K codebooks, n samples or frames of one push.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .contract import check_codes, check_wav, count_books
from .conv import ConvNeXt, steady
from .model import left_right, mid_side
from .noise import rows as noise_rows
from .stft import analyse_whole, overlap_add, overlap_weight, windowed

if TYPE_CHECKING:
    from .model import Codec

#: Frames done at a time; a longer push is cut, so that its size does not decide how much memory is used.
_BLOCK = 250

State = dict[str, Tensor]


class _Stream(ABC):
    """What both directions share: a state that is data, begun at the first push."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self._state: State = {}

    def reset(self) -> None:
        """Forget everything: the next push begins a new signal, of any batch size."""
        self._state = {}

    def state(self) -> State:
        """The state, tensors [B, ...]; empty before the first push. Nothing in it changes when the stream goes on."""
        return dict(self._state)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave. Raises ValueError when it is of another kind of stream."""
        if state:
            batch = next(iter(state.values())).shape[0]
            wanted = self._begin(batch)
            wrong = sorted(set(wanted) ^ set(state)) or sorted(
                name for name, value in wanted.items() if not _fits(name, state[name], value)
            )
            if wrong:
                raise ValueError(
                    f"the state is not one of this stream, first at {wrong[0]!r}: it belongs to another codec"
                )
        self._state = {name: value.to(self._device) for name, value in state.items()}

    def _open(self, batch: int) -> State:
        """The state for a push of ``batch`` items."""
        if not self._state:
            self._state = self._begin(batch)
        if bool(self._state["ended"][0]):
            raise ValueError("the stream is finished: call reset() to begin another signal")
        if len(self._state["ended"]) != batch:
            raise ValueError(
                f"a push of {batch} items into a stream of {len(self._state['ended'])}: keep B, or reset()"
            )
        return self._state

    @abstractmethod
    def _begin(self, batch: int) -> State:
        # the state of a signal that has not begun
        ...

    @property
    def _device(self) -> torch.device:
        return next(self.codec.parameters()).device

    def _counters(self, batch: int) -> State:
        ended = torch.zeros(batch, dtype=torch.bool, device=self._device)
        return {"ended": ended, "count": torch.zeros(batch, dtype=torch.int64, device=self._device)}


class Encoder(_Stream):
    """Samples to codes, piece by piece; ``books``: how many to compute (all by default).

    ``latency`` samples beyond the end of a frame must be known before its codes are.
    """

    def __init__(self, codec: Codec, books: int | None = None) -> None:
        super().__init__(codec)
        self.books = count_books(books, codec.books)
        config = codec.config
        self._window, self._hop = config.window, config.hop // 2
        self._side = (self._window - self._hop) // 2
        self._fast, self._slow = _blocks(codec.encoder.fast), _blocks(codec.encoder.slow)
        self.latency = self._side + config.hop * sum(block.depthwise.ahead for block in self._slow)

    @torch.no_grad()
    def push(self, wav: Tensor) -> Tensor:
        """Take the next samples: wav [B, C, n], n >= 0 -> the codes that are certain now, int64 [B, K, f]."""
        wav = check_wav(wav, self.codec.channels, "push", empty=True)
        self._open(wav.shape[0])
        return self._join([self._advance(part) for part in torch.split(wav, _BLOCK * self.codec.hop, dim=-1)])

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the signal: pads it to whole frames with silence -> the remaining codes, int64 [B, K, f]."""
        state = self._open(len(self._state["ended"]) if self._state else 1)
        state["ended"] = torch.ones_like(state["ended"])
        count = int(state["count"][0])
        if count == 0:
            return self._join([])
        silence = state["wav"].new_zeros(*state["wav"].shape[:2], -count % self.codec.hop + self._side)
        return self._advance(silence, last=True)

    def _begin(self, batch: int) -> State:
        silence = torch.zeros(batch, self.codec.channels, self._side, device=self._device)
        blocks = _held("fast", self._fast, batch) | _held("slow", self._slow, batch)
        return self._counters(batch) | {"wav": silence} | blocks

    def _advance(self, wav: Tensor, last: bool = False) -> Tensor:
        # wav: [B, C, n] -> codes [B, K, f]
        state, net = self._state, self.codec.encoder
        state["count"] = state["count"] + wav.shape[-1]
        wav = torch.cat([state["wav"], mid_side(wav)], -1)
        # two transforms make one frame: what is left over waits
        pairs = max(0, (wav.shape[-1] - self._window) // self._hop + 1) // 2
        state["wav"] = wav[..., 2 * pairs * self._hop :].clone()
        if pairs == 0 and not last:
            return self._join([])
        with torch.autocast(wav.device.type, enabled=False):
            x = wav.new_zeros(wav.shape[0], 0, self.codec.config.inner)
            if pairs:
                spec = analyse_whole(wav[..., : (2 * pairs - 1) * self._hop + self._window], self._window, self._hop)
                x = _through(self._fast, steady(net.enter, net.features(spec)), state, "fast", exact=True)
                x = steady(net.down, x, net.down.factor)
            x = _through(self._slow, x, state, "slow", exact=True, last=last)
            return steady(self._quantise, x).transpose(1, 2) if x.shape[1] else self._join([])

    def _quantise(self, x: Tensor) -> Tensor:
        # [B, n, D] -> [B, n, K]
        return self.codec.quantiser.encode(self.codec.encoder.norm(x.float()), self.books).transpose(1, 2)

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        if not parts:
            shape = (len(self._state["ended"]), self.books, 0)
            return torch.zeros(shape, dtype=torch.int64, device=self._device)
        return parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


class Decoder(_Stream):
    """Codes to samples, frame by frame.

    The last ``latency`` samples of what the frames so far cover come with the next frame, or with :meth:`finish`.
    """

    def __init__(self, codec: Codec) -> None:
        super().__init__(codec)
        config = codec.config
        self._window, self._hop = config.window, config.hop // 2
        self._side = self.latency = (self._window - self._hop) // 2
        self._slow, self._fast = _blocks(codec.decoder.slow), _blocks(codec.decoder.fast)

    @torch.no_grad()
    def push(self, codes: Tensor) -> Tensor:
        """Take the next frames: codes int64 [B, K, n], n >= 0 -> the samples that are certain now, [B, C, t].

        The number of books K may change from push to push.
        """
        codes = check_codes(codes, self.codec, "push", empty=True)
        self._open(codes.shape[0])
        if codes.shape[2] == 0:
            return self._nothing()
        latent = self.codec.decode_latent(codes)
        rows = noise_rows(codes)
        parts = zip(torch.split(latent, _BLOCK, 1), torch.split(rows, _BLOCK, 1), strict=True)
        gain = self.codec.decoder.gain(codes.shape[1])
        return torch.cat([self._advance(*part, gain) for part in parts], -1)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """End the signal -> the remaining samples [B, C, t]: F frames have given F * hop samples in all."""
        state = self._open(len(self._state["ended"]) if self._state else 1)
        state["ended"] = torch.ones_like(state["ended"])
        count = int(state["count"][0])
        if count == 0:
            return self._nothing()
        weight = overlap_weight(self._window, self._hop, min(count, 2 * self._steps), self._device)
        wav = state["tail"] / weight[-state["tail"].shape[-1] :].clamp(min=1e-8)
        return left_right(wav[..., max(0, self._side - count * self._hop) : self._side])

    @property
    def _steps(self) -> int:
        return -(-self._window // self._hop)

    def _begin(self, batch: int) -> State:
        tail = torch.zeros(batch, self.codec.channels, self._window - self._hop, device=self._device)
        blocks = _held("slow", self._slow, batch) | _held("fast", self._fast, batch)
        return self._counters(batch) | {"tail": tail} | blocks

    def _advance(self, latent: Tensor, rows: Tensor, gain: float) -> Tensor:
        # latent: [B, n, D], rows: [B, n] -> [B, C, t]
        state, net = self._state, self.codec.decoder
        with torch.autocast(latent.device.type, enabled=False):
            x = net.up(_through(self._slow, latent, state, "slow"))
            spec = net.spectra(_through(self._fast, x, state, "fast"), rows, gain)
        wav = overlap_add(windowed(spec, self._window), self._hop)
        wav[..., : self._window - self._hop] += state["tail"]
        frames, before = spec.shape[-2], int(state["count"][0])
        state["tail"] = wav[..., frames * self._hop :].clone()
        state["count"] = state["count"] + frames
        # the first windows of a signal overlap with fewer others than the later ones
        weight = overlap_weight(self._window, self._hop, 2 * self._steps, wav.device)
        weight = weight[: self._steps * self._hop].view(self._steps, self._hop)
        turn = torch.arange(before, before + frames, device=wav.device).clamp(max=self._steps - 1)
        ready = wav[..., : frames * self._hop] / weight[turn].flatten().clamp(min=1e-8)
        return left_right(ready[..., max(0, self._side - before * self._hop) :])

    def _nothing(self) -> Tensor:
        return torch.zeros(len(self._state["ended"]), self.codec.channels, 0, device=self._device)


def encode_batch(codec: Codec, wavs: Sequence[Tensor], books: int | None = None) -> list[Tensor]:
    """Encode signals of different lengths in one batch: [C, T_i] each -> codes [K, F_i] each, as one by one.

    Raises ValueError for what :meth:`Codec.encode` refuses.
    """
    for index, wav in enumerate(wavs):
        if wav.dim() != 2 or wav.shape[0] != codec.channels or wav.shape[1] == 0:
            raise ValueError(f"item {index}: wants [{codec.channels}, T >= 1] samples, got {list(wav.shape)}")
        if not torch.isfinite(wav).all():
            raise ValueError(f"item {index}: holds NaN or infinite samples; clean the audio first")
    if not wavs:
        return []
    frames = torch.tensor([-(-wav.shape[1] // codec.hop) for wav in wavs])
    whole = int(frames.max()) * codec.hop
    batch = torch.stack([nn.functional.pad(wav.float(), (0, whole - wav.shape[1])) for wav in wavs])
    with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
        latent = codec.encoder(batch, frames.to(batch.device))
        codes = codec.quantiser.encode(latent, books)
    return [rows[:, :count] for rows, count in zip(codes, frames.tolist(), strict=True)]


def _blocks(layers: Iterable[nn.Module]) -> list[ConvNeXt]:
    return [block for block in layers if isinstance(block, ConvNeXt)]


def _held(name: str, blocks: Sequence[ConvNeXt], batch: int) -> State:
    return {f"{name}.{index}": block.start(batch) for index, block in enumerate(blocks)}


def _through(
    blocks: Sequence[ConvNeXt], x: Tensor, state: State, name: str, exact: bool = False, last: bool = False
) -> Tensor:
    """Run frames x [B, n, D] through blocks -> [B, m, D]; at the end of a signal, look-ahead sees zeros.

    exact: round as the whole signal does. Codes need that; in samples a step of 1e-7 is nothing.
    """
    for index, block in enumerate(blocks):
        if last:
            x = nn.functional.pad(x, (0, 0, 0, block.depthwise.ahead))
        x, held = block.step(x, state[f"{name}.{index}"], exact)
        state[f"{name}.{index}"] = held.clone()
    return x


def _fits(name: str, value: Tensor, wanted: Tensor) -> bool:
    """Same kind of tensor; the dimension along which samples or frames wait may be of any length."""
    waiting = {"wav": 2, "ended": None, "count": None, "tail": None}.get(name, 1)
    shapes = [[size for index, size in enumerate(one.shape) if index != waiting] for one in (value, wanted)]
    return value.dtype == wanted.dtype and value.dim() == wanted.dim() and shapes[0] == shapes[1]
