from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load as unpack
from safetensors.torch import save as pack
from torch import Tensor, nn

from descant.codec.chunked import ChunkedDecoder, ChunkedEncoder, Reach, Windowed, measure
from descant.codec.dac import DacCodec
from descant.codec.encodec import EncodecCodec
from descant.codec.neural import NeuralCodec
from descant.codec.official import dac24, encodec24, encodec48, musicgen32

from .alike import check_codes

MAKERS: dict[str, Callable[[], NeuralCodec]] = {
    "encodec24": lambda: EncodecCodec(dataclasses.replace(encodec24(), filters=4)),
    "musicgen32": lambda: EncodecCodec(dataclasses.replace(musicgen32(), filters=4)),
    "encodec48": lambda: EncodecCodec(dataclasses.replace(encodec48(), filters=4)),
    "no_lstm": lambda: EncodecCodec(dataclasses.replace(musicgen32(), filters=4, lstm_layers=0)),
    "dac24": lambda: DacCodec(dataclasses.replace(dac24(), encoder_width=4, decoder_width=64, books=4)),
}


@pytest.fixture(scope="module", params=list(MAKERS))
def codec(request: pytest.FixtureRequest) -> NeuralCodec:
    torch.manual_seed(0)
    made = MAKERS[request.param]().eval()
    for name, value in made.named_buffers():
        if name.endswith("embed"):
            value.normal_()  # a book of zeros would hide everything
    return made


def pieces(x: Tensor, seed: int) -> list[Tensor]:
    """Cut [.., T] at random places, some pieces empty."""
    rng = torch.Generator().manual_seed(seed)
    cuts = torch.cat([torch.randint(0, x.shape[-1] + 1, (6,), generator=rng), torch.zeros(1).long()])
    return list(torch.tensor_split(x, cuts.sort().values.tolist(), -1))


@pytest.mark.parametrize("samples", [1, 500, 4000, 170_003])
def test_streams_equal_one_pass(codec: NeuralCodec, samples: int) -> None:
    wav = torch.randn(2, codec.channels, samples, generator=torch.Generator().manual_seed(samples))
    codes = codec.encode(wav, 2)
    encoder, decoder = codec.encoder_stream(2), codec.decoder_stream()
    streamed = torch.cat([*(encoder.push(part) for part in pieces(wav, samples)), encoder.finish()], -1)
    check_codes(codec, wav, streamed, codes)
    heard = torch.cat([*(decoder.push(part) for part in pieces(codes, samples)), decoder.finish()], -1)
    torch.testing.assert_close(heard, codec.decode(codes), atol=1e-5, rtol=1e-5)


def test_state_is_data(codec: NeuralCodec) -> None:
    wav = torch.randn(1, codec.channels, 120_000, generator=torch.Generator().manual_seed(1))
    encoder, other = codec.encoder_stream(1), codec.encoder_stream(1)
    parts = [encoder.push(wav[..., :90_001])]
    stored = pack({name: value.contiguous() for name, value in encoder.state().items()})
    encoder.push(torch.randn(1, codec.channels, 5000))
    other.restore(unpack(stored))
    parts += [other.push(wav[..., 90_001:]), other.finish()]
    check_codes(codec, wav, torch.cat(parts, -1), codec.encode(wav, 1))
    with pytest.raises(ValueError, match="not one of this stream"):
        other.restore({"9.held": torch.zeros(1)})


def test_the_generic_wrapper_needs_only_the_contract_and_a_reach() -> None:
    torch.manual_seed(0)
    codec = MAKERS["dac24"]().eval()
    wav = torch.randn(1, 1, 60_000)
    codes = codec.encode(wav)
    generous, small = Reach(20, 20), 7
    encoder = ChunkedEncoder(codec, generous, chunk=small)
    decoder = ChunkedDecoder(codec, generous, chunk=small)
    check_codes(codec, wav, torch.cat([encoder.push(wav), encoder.finish()], -1), codes)
    heard = torch.cat([decoder.push(codes), decoder.finish()], -1)
    torch.testing.assert_close(heard, codec.decode(codes), atol=1e-5, rtol=1e-5)
    # rims that are too narrow are heard
    careless = ChunkedDecoder(codec, Reach(0, 0), chunk=small)
    heard = torch.cat([careless.push(codes), careless.finish()], -1)
    assert not torch.allclose(heard, codec.decode(codes), atol=1e-5)
    with pytest.raises(ValueError, match="Reach"):
        ChunkedEncoder(codec)


@pytest.mark.parametrize(("left", "right", "stride"), [(0, 0, 1), (3, 0, 1), (2, 5, 1), (9, 3, 4), (40, 1, 1)])
def test_reach_is_measured(left: int, right: int, stride: int) -> None:
    conv = nn.Conv1d(2, 3, left + 1 + right, stride)

    def net(x: Tensor) -> Tensor:
        return conv(nn.functional.pad(x.transpose(1, 2), (left, right))).transpose(1, 2)

    with torch.no_grad():
        conv.weight.zero_()  # what counts is what could matter, not what does
    found = measure(net, torch.zeros(1, 1, 2), stride, 1)
    # output f sees inputs f * stride - left ... f * stride + right
    assert (found.left, found.right) == (-(-left // stride), -(-(right + 1) // stride) - 1 if right else 0)


def test_a_reach_without_end_is_an_error() -> None:
    lstm = nn.LSTM(1, 1, batch_first=True)
    with pytest.raises(ValueError, match="split it"):
        measure(lambda x: lstm(x)[0], torch.zeros(1, 1, 1), 1, 1, most=32)


def test_windows_hold_no_more_than_they_need() -> None:
    window = Windowed(lambda x: x, 10, 10, Reach(2, 3), chunk=5)
    for size in (7, 1000, 3):
        window.push(torch.zeros(1, size, 1))
        held = window.state()["held"]
        assert held.untyped_storage().nbytes() // 4 <= (2 + 5 + 3 + 1) * 10


def test_misuse_is_refused() -> None:
    codec = MAKERS["no_lstm"]().eval()
    encoder, decoder = codec.encoder_stream(), codec.decoder_stream()
    for wav in (torch.zeros(1, 2, 5), torch.full((1, 1, 5), torch.nan)):
        with pytest.raises(ValueError, match="push"):
            encoder.push(wav)
    with pytest.raises(ValueError, match="codes must lie"):
        decoder.push(torch.full((1, 1, 2), codec.cardinality))
    with pytest.raises(ValueError, match="books"):
        codec.encoder_stream(99)
    encoder.push(torch.zeros(1, 1, 5))
    with pytest.raises(ValueError, match="keep B"):
        encoder.push(torch.zeros(2, 1, 5))
    assert encoder.finish().shape == (1, codec.books, 1)
    with pytest.raises(ValueError, match=r"reset\(\)"):
        encoder.finish()
    assert decoder.finish().shape == (1, 1, 0)
