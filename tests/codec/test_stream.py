from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as unpack
from safetensors.torch import save as pack
from torch import Tensor

import descant.codec
from descant.codec import contract, stream
from descant.codec.model import Codec, nano

from .alike import check_codes


@pytest.fixture(scope="module")
def mono() -> Codec:
    torch.manual_seed(0)
    return Codec(nano()).eval()


@pytest.fixture(scope="module")
def stereo() -> Codec:
    torch.manual_seed(1)
    # another geometry too: a window that is no multiple of its hop, no block after the halving
    config = dataclasses.replace(nano(), channels=2, hop=480, window=900, encoder_blocks=(2, 2), decoder_blocks=(2, 0))
    return Codec(config).eval()


@pytest.fixture(scope="module")
def shipped() -> Codec:
    return descant.codec.load("tiny")


def music(channels: int, samples: int, seed: int, batch: int = 1) -> Tensor:
    """Tones that come and go over noise, from loud to very quiet."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / 32000
    pitch = 110 * 2 ** (torch.randint(0, 48, (batch, channels, 5, 1), generator=rng) / 12)
    tones = (torch.sin(6.2832 * pitch * time) * (2 * time * torch.rand(5, 1, generator=rng)).cos()).sum(2) * 0.1
    noise = torch.randn(batch, channels, samples, generator=rng) * torch.linspace(-5, -1, samples).mul(2.3).exp()
    return tones + noise


def cuts(total: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Pieces of 0, 1, a few or many."""
    at = 0
    while at < total:
        size = min(total - at, rng.choice([0, 1, rng.randrange(2, 50), rng.randrange(50, 2000), rng.randrange(9000)]))
        yield at, at + size
        at += size


def encoded(encoder: stream.Encoder, wav: Tensor, rng: random.Random) -> Tensor:
    parts = [encoder.push(wav[..., start:end]) for start, end in cuts(wav.shape[-1], rng)]
    return torch.cat([*parts, encoder.finish()], -1)


def decoded(decoder: stream.Decoder, codes: Tensor, rng: random.Random) -> Tensor:
    parts, at = [], 0
    while at < codes.shape[-1]:
        size = rng.choice([0, 1, 1, 2, 3, 7, 40])
        parts.append(decoder.push(codes[..., at : at + size]))
        at += size
    return torch.cat([*parts, decoder.finish()], -1)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_any_chunking_gives_the_codes_and_samples_of_the_whole(
    name: str, seed: int, request: pytest.FixtureRequest
) -> None:
    codec: Codec = request.getfixturevalue(name)
    rng = random.Random(seed)
    wav = music(codec.channels, rng.choice([1, 479, 640, 641, 1281, 9000, 40000]), seed, batch=1 + seed % 2)
    books = rng.choice([None, 1, 3])
    codes = codec.encode(wav, books)
    check_codes(codec, wav, encoded(codec.encoder_stream(books), wav, rng), codes)
    torch.testing.assert_close(decoded(codec.decoder_stream(), codes, rng), codec.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(2))
def test_the_shipped_codec_streams_as_it_encodes(shipped: Codec, seed: int) -> None:
    rng, wav = random.Random(seed), music(1, 100_000, seed)
    codes = shipped.encode(wav)
    check_codes(shipped, wav, encoded(shipped.encoder_stream(), wav, rng), codes)
    torch.testing.assert_close(decoded(shipped.decoder_stream(), codes, rng), shipped.decode(codes), atol=1e-5, rtol=0)


def test_single_samples(mono: Codec) -> None:
    wav = music(1, 3000, 0)
    encoder = mono.encoder_stream()
    parts = [encoder.push(wav[..., at : at + 1]) for at in range(3000)]
    check_codes(mono, wav, torch.cat([*parts, encoder.finish()], -1), mono.encode(wav))


def test_latency_is_as_stated(mono: Codec, shipped: Codec) -> None:
    assert (shipped.encoder_stream().latency, shipped.decoder_stream().latency) == (1120, 480)
    encoder, decoder = mono.encoder_stream(), mono.decoder_stream()
    ready = 5 * mono.hop + encoder.latency  # the end of frame 4, and what must be known after it
    assert encoder.push(torch.zeros(1, 1, ready - 1)).shape[-1] == 4
    assert encoder.push(torch.zeros(1, 1, 1)).shape[-1] == 1
    assert decoder.push(torch.zeros(1, 8, 3).long()).shape[-1] == 3 * mono.hop - decoder.latency
    assert decoder.push(torch.zeros(1, 8, 1).long()).shape[-1] == mono.hop
    assert decoder.finish().shape[-1] == decoder.latency


def test_state_is_data(mono: Codec) -> None:
    wav = music(1, 20000, 3)
    codes = mono.encode(wav)
    first, decoder = mono.encoder_stream(), mono.decoder_stream()
    head = first.push(wav[..., :7777])
    stored = pack({name: value.contiguous() for name, value in first.state().items()})
    kept = first.state()
    first.push(torch.randn(1, 1, 5000))  # the kept state must not notice
    for state in (unpack(stored), kept):
        second = mono.encoder_stream()
        second.restore(state)
        check_codes(mono, wav, torch.cat([head, second.push(wav[..., 7777:]), second.finish()], -1), codes)
    start = decoder.push(codes[..., :9])
    other = mono.decoder_stream()
    other.restore(decoder.state())
    ends = [torch.cat([start, one.push(codes[..., 9:]), one.finish()], -1) for one in (decoder, other)]
    torch.testing.assert_close(*ends, atol=1e-6, rtol=0)


def test_rows_of_a_state_are_streams_of_their_own(mono: Codec) -> None:
    wav = music(1, 20000, 4, batch=3)
    encoder = mono.encoder_stream()
    head = encoder.push(wav[..., :9000])
    alone = mono.encoder_stream()
    alone.restore({name: value[1:2] for name, value in encoder.state().items()})
    tail = torch.cat([alone.push(wav[1:2, :, 9000:]), alone.finish()], -1)
    check_codes(mono, wav[1:2], torch.cat([head[1:2], tail], -1), mono.encode(wav[1:2]))


def test_reset_and_reuse(mono: Codec) -> None:
    wav = music(1, 5000, 5, batch=2)
    encoder, decoder = mono.encoder_stream(), mono.decoder_stream()
    encoder.push(torch.randn(1, 1, 3000))
    encoder.finish()
    with pytest.raises(ValueError, match=r"reset\(\)"):
        encoder.push(wav)
    encoder.reset()
    codes = torch.cat([encoder.push(wav), encoder.finish()], -1)
    check_codes(mono, wav, codes, mono.encode(wav))
    decoder.push(codes)
    with pytest.raises(ValueError, match="keep B"):
        decoder.push(codes[:1])


def test_nothing_in_nothing_out(mono: Codec) -> None:
    assert mono.encoder_stream().finish().shape == (1, 8, 0)
    assert mono.decoder_stream().finish().shape == (1, 1, 0)
    encoder, decoder = mono.encoder_stream(2), mono.decoder_stream()
    assert encoder.push(torch.zeros(3, 1, 0)).shape == encoder.finish().shape == (3, 2, 0)
    assert decoder.push(torch.zeros(3, 8, 0).long()).shape == decoder.finish().shape == (3, 1, 0)


def test_books_may_change_between_pushes(mono: Codec) -> None:
    codes = mono.encode(music(1, 20000, 6))
    decoder = mono.decoder_stream()
    wav = torch.cat([decoder.push(codes[..., :10]), decoder.push(codes[:, :2, 10:]), decoder.finish()], -1)
    whole = mono.decode(codes)
    torch.testing.assert_close(wav[..., : 9 * 640], whole[..., : 9 * 640], atol=1e-5, rtol=0)
    assert wav.shape == whole.shape and not torch.allclose(wav, whole, atol=1e-3)


def test_memory_does_not_grow(mono: Codec) -> None:
    def held(state: stream.State) -> int:
        return sum(value.untyped_storage().nbytes() for value in state.values())

    encoder, decoder = mono.encoder_stream(), mono.decoder_stream()
    sizes = []
    for seed in range(4):
        decoder.push(encoder.push(music(1, 50_000, seed)))
        sizes.append(held(encoder.state()) + held(decoder.state()))
    assert max(sizes) < 100_000 and max(sizes[1:]) - min(sizes[1:]) < 10_000


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(1, 2, 9), r"\[B, 1, n\]"),
        (torch.zeros(9), r"\[B, 1, n\]"),
        (torch.zeros(0, 1, 9), r"\[B, 1, n\]"),
        (torch.full((1, 1, 9), torch.nan), "NaN"),
        (torch.full((1, 1, 9), -torch.inf), "NaN or infinite"),
    ],
)
def test_bad_pushes(mono: Codec, wav: Tensor, message: str) -> None:
    encoder = mono.encoder_stream()
    with pytest.raises(ValueError, match=message):
        encoder.push(wav)
    assert encoder.push(torch.zeros(2, 1, 640)).shape == (2, 8, 0)  # a refused push leaves no trace


def test_bad_codes_and_states(mono: Codec, stereo: Codec) -> None:
    decoder = mono.decoder_stream()
    with pytest.raises(ValueError, match="codes must lie"):
        decoder.push(torch.full((1, 8, 2), 64))
    with pytest.raises(ValueError, match="books"):
        mono.encoder_stream(9)
    other = stereo.encoder_stream()
    other.push(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="another codec"):
        decoder.restore(other.state())


def test_the_contract_is_kept(mono: Codec, tmp_path: Path) -> None:
    assert isinstance(mono, contract.Codec)
    codes = mono.encode(music(1, 5000, 8), 3)
    latent = mono.decode_latent(codes)
    assert latent.shape == (1, 8, 64)
    assert not torch.equal(latent, mono.decode_latent(codes[:, :2]))
    with pytest.raises(ValueError, match="codes must lie"):
        mono.decode_latent(codes + 64)
    mono.save(tmp_path / "m")
    assert descant.codec.load(tmp_path / "m").fingerprint == mono.fingerprint
    with pytest.raises(ValueError, match="format"):
        mono.save(tmp_path / "m", "transformers")


@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_ragged_batches_are_encoded_as_one_by_one(name: str, request: pytest.FixtureRequest) -> None:
    codec: Codec = request.getfixturevalue(name)
    wavs = [music(codec.channels, samples, samples)[0] for samples in (1, 640, 641, 9999, 20000, 3)]
    for codes, wav in zip(stream.encode_batch(codec, wavs, 4), wavs, strict=True):
        check_codes(codec, wav[None], codes[None], codec.encode(wav[None], 4))
    assert stream.encode_batch(codec, []) == []
    with pytest.raises(ValueError, match="item 1"):
        stream.encode_batch(codec, [wavs[0], torch.zeros(codec.channels, 0)])
