"""EnCodec and DAC piece by piece: which stages a stream of theirs has.

EnCodec's networks are split around their LSTM; the convolutions on either side run on overlapping windows, the LSTM
hands on its state. The 48 kHz model is normalised over each second, which is therefore a window of its own. DAC has
neither and runs on windows as it is. How far they must overlap is measured, not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from .chunked import CHUNK, ChunkedDecoder, ChunkedEncoder, Reach, Recurring, Stage, Windowed, measure
from .encodec import EncodecCodec
from .neural import NeuralCodec
from .seanet import Recurrent, Seanet
from .seanet_cpu import Plan, plan

Net = Callable[[Tensor], Tensor]


def encoder_stream(codec: NeuralCodec, books: int | None = None) -> ChunkedEncoder:
    """A fresh encoder for EnCodec or DAC; its codes are those of ``codec.encode`` on the whole signal."""
    if not isinstance(codec, EncodecCodec):
        probe = next(codec.parameters()).new_zeros(1, 1, codec.channels)
        reach = _once(
            codec, "encoder", lambda: measure(lambda x: codec.encoder(x.transpose(1, 2)), probe, codec.hop, 1)
        )
        return ChunkedEncoder(codec, reach, books)
    if codec.segmented:
        return ChunkedEncoder(codec, Reach(0, 0), books, _segment(codec))
    count = codec.books if books is None else books

    def quantise(latent: Tensor) -> Tensor:
        # item by item, as the codec does it: [B, n, D] -> [B, n, K]
        with torch.autocast(latent.device.type, enabled=False):
            return torch.cat([codec.quantizer.encode(item[None], count) for item in latent.float()]).transpose(1, 2)

    stages = _stages(codec, codec.encoder, codec.channels, codec.hop, 1)
    return ChunkedEncoder(codec, books=books, stages=[*stages, Each(quantise)])


def decoder_stream(codec: NeuralCodec) -> ChunkedDecoder:
    """A fresh decoder for EnCodec or DAC; its samples are those of ``codec.decode`` on all codes."""
    if not isinstance(codec, EncodecCodec):
        probe = next(codec.parameters()).new_zeros(1, 1, codec.config.width)
        reach = _once(
            codec, "decoder", lambda: measure(lambda x: codec.decoder(x).transpose(1, 2), probe, 1, codec.hop)
        )
        return ChunkedDecoder(codec, reach)
    if codec.segmented:
        return ChunkedDecoder(codec, Reach(0, 0), _segment(codec))
    latents = Each(lambda codes: codec.decode_latent(codes.transpose(1, 2)))
    stages = _stages(codec, codec.decoder, codec.config.width, 1, codec.hop)
    return ChunkedDecoder(codec, stages=[latents, *stages])


class Each:
    """A stage that treats every item alone and holds nothing: [B, n, D] -> [B, n, E]."""

    def __init__(self, net: Net) -> None:
        self.net = net

    def push(self, x: Tensor) -> Tensor | None:
        """Take x [B, n, D] -> [B, n, E]."""
        return self.net(x)

    def finish(self) -> Tensor | None:
        """End the signal; nothing is held back."""
        return None

    def reset(self) -> None:
        """Begin a new signal; nothing is held."""

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def restore(self, state: object) -> None:
        """Go on; nothing is held."""


def _segment(codec: EncodecCodec) -> int:
    """Frames of a segment."""
    return max(1, (codec.config.segment_length or 0) // codec.hop)


def _once(codec: NeuralCodec, name: str, find: Callable[[], Reach]) -> Reach:
    """A reach that was found before, or ``find()``: it takes the time of a second of music."""
    return codec._cached(f"reach of {name}", find)


def _stages(codec: EncodecCodec, net: nn.Module, width: int, step: int, out: int) -> list[Stage]:
    """The parts of an EnCodec network, [B, n * step, width] -> [B, n * out, E]; only one of step and out is above 1."""
    if not isinstance(net, Seanet):
        raise TypeError(f"an EnCodec network is a Seanet, not {type(net).__name__}")
    like = next(codec.parameters()).new_zeros(1, 1, width)
    layers = list(net.layers)
    cut = next((index for index, layer in enumerate(layers) if isinstance(layer, Recurrent)), None)
    plain = [layers] if cut is None else [layers[:cut], layers[cut + 1 :]]
    runs: list[Net] = [_chained(part, codec.bf16) for part in plain]
    lstm = layers[cut].lstm if cut is not None else None
    # the network's weights as they are run by encode and decode, so that both round alike
    if not codec.training and like.device.type == "cpu":
        whole = plan(net, torch.bfloat16 if codec.bf16 else torch.float32)
        parts = [whole.front] if cut is None else [whole.front, whole.back]
        runs, lstm = [_planned(part) for part in parts], whole.lstm
    stages: list[Stage] = []
    for index, (layer, run) in enumerate(zip(plain, runs, strict=True)):
        # the side with the strided layers works on samples, the other one on frames alone
        steps, outs = (step, out) if _strided(layer) else (1, 1)
        probe = like if index == 0 else like.new_zeros(1, 1, codec.config.filters << len(codec.config.ratios))
        name = f"{'encoder' if net is codec.encoder else 'decoder'} {index}"
        reach = _once(codec, name, partial(measure, _chained(layer), probe, steps, outs))
        stages.append(Windowed(run, steps, outs, reach, CHUNK))
        if index == 0 and isinstance(lstm, nn.LSTM):
            stages.append(Recurring(lstm))
    return stages


def _strided(layers: Sequence[nn.Module]) -> bool:
    return any(getattr(layer, "stride", 1) > 1 for layer in layers)


def _chained(layers: Sequence[nn.Module], bf16: bool = False) -> Net:
    chain = Seanet(list(layers))

    def run(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            return chain.chain(x.transpose(1, 2)).float().transpose(1, 2)

    return run


def _planned(layers: Sequence[Callable[[Tensor], Tensor]]) -> Net:
    run = Plan(layers, None, [])
    return lambda x: torch.stack([run([item])[0] for item in x])
