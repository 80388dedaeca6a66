"""EnCodec and DAC as codecs of the house: the contract, levels, half precision, training."""

from dataclasses import replace

import pytest
import torch

from descant.codec import contract, official, pretrained
from descant.codec.contract import Segment
from descant.codec.dac import DacCodec
from descant.codec.encodec import EncodecCodec
from descant.codec.euclid import EuclideanRVQ, FactorisedRVQ
from descant.codec.neural import NeuralCodec
from descant.codec.official import DacConfig, EncodecConfig
from descant.codec.seanet_cpu import plan

from .alike import check_codes
from .foreign import noise

SMALL = {"filters": 8, "width": 16, "cardinality": 64}
CONFIGS: dict[str, EncodecConfig | DacConfig] = {
    "24k": replace(official.encodec24(), **SMALL),
    "32k": replace(official.musicgen32(), **SMALL),
    "48k": replace(official.encodec48(), **SMALL),
    "deep": replace(
        official.encodec24(), **SMALL, residual_layers=2, lstm_layers=0, reflect=False, trim_right_ratio=0.3
    ),
    "dac": replace(official.dac24(), encoder_width=8, decoder_width=64, books=4, cardinality=64),
}  # fmt: skip


def make(name: str) -> NeuralCodec:
    torch.manual_seed(0)
    config = CONFIGS[name]
    codec = EncodecCodec(config) if isinstance(config, EncodecConfig) else DacCodec(config)
    with torch.no_grad():
        latent = codec.encoder(noise(1, codec.channels, 32 * codec.hop))[0]
        if isinstance(codec.quantizer, EuclideanRVQ):
            for k, book in enumerate(codec.quantizer.all()):
                book.embed.mul_(latent.std(0).mean() * 0.8**k).add_(latent.mean(0) if k == 0 else 0)
    return codec.eval().requires_grad_(False)


@pytest.fixture(params=list(CONFIGS))
def codec(request: pytest.FixtureRequest) -> NeuralCodec:
    return make(request.param)


def test_it_keeps_the_contract(codec: NeuralCodec) -> None:
    assert isinstance(codec, contract.Codec)
    assert isinstance(codec, contract.SegmentedCodec) == isinstance(codec, EncodecCodec)
    for length in (1, codec.hop, 7 * codec.hop + 1):
        codes = codec.encode(noise(2, codec.channels, length))
        frames = -(-length // codec.hop)
        assert codes.dtype == torch.int64 and codes.shape == (2, codec.books, frames)
        assert codec.decode(codes).shape == (2, codec.channels, frames * codec.hop)
        assert codec.decode_latent(codes).shape[:2] == (2, frames)
    wav = noise(1, codec.channels, 5 * codec.hop)
    few = codec.encode(wav, 2)
    check_codes(codec, wav, few, codec.encode(wav)[:, :2])
    assert codec.decode(few).isfinite().all()


def test_codes_do_not_depend_on_the_rest_of_the_batch(codec: NeuralCodec) -> None:
    wav = noise(3, codec.channels, 6 * codec.hop)
    codes = codec.encode(wav)
    audio = codec.decode(codes)
    for b in range(3):
        check_codes(codec, wav[b : b + 1], codec.encode(wav[b : b + 1]), codes[b : b + 1])
        torch.testing.assert_close(codec.decode(codes[b : b + 1]), audio[b : b + 1], atol=1e-6, rtol=1e-5)


def test_what_is_wrong_is_said(codec: NeuralCodec) -> None:
    good = noise(1, codec.channels, 700)
    for bad in (good[0], good.repeat(1, 3, 1), good[..., :0], good[:0], good * torch.nan, good / 0):
        with pytest.raises(ValueError, match="encode"):
            codec.encode(bad)
    for books in (0, codec.books + 1, -1):
        with pytest.raises(ValueError, match="books must lie"):
            codec.encode(good, books)
    codes = codec.encode(good)
    for wrong in (codes[0], codes[..., :0], codes - 100, codes + codec.cardinality, codes.float(),
                  codes.repeat(1, 2, 1)):  # fmt: skip
        with pytest.raises(ValueError, match=r"decode wants|codes must lie"):
            codec.decode(wrong)


def test_silence_is_no_trouble(codec: NeuralCodec) -> None:
    silence = torch.zeros(1, codec.channels, 3 * codec.hop)
    assert codec.decode(codec.encode(silence)).isfinite().all()
    if isinstance(codec, EncodecCodec):
        assert codec.from_segments(codec.segments(silence), 100).isfinite().all()


def test_bit_rates_that_cannot_be() -> None:
    codec = make("24k")
    each = 75 * 6 / 1000
    assert codec.books_for(each) == 1 and codec.books_for(3.7 * each) == 3
    for kbps in (0.0, 0.9 * each, each * (codec.books + 1)):
        with pytest.raises(ValueError, match="not to be had"):
            codec.books_for(kbps)
    assert [EncodecCodec.books_for(make_big(), kbps) for kbps in (1.5, 3, 6, 12, 24)] == [2, 4, 8, 16, 32]


def make_big() -> NeuralCodec:
    with torch.device("meta"):
        return EncodecCodec(official.encodec24())


def test_segments_keep_level_and_length() -> None:
    codec = make("48k")
    wav = noise(1, 2, 100_000)
    parts = codec.segments(wav, 4)
    assert [part.codes.shape[-1] for part in parts] == [150, 150, -(-(100_000 - 2 * 47_520) // 320)]
    louder = codec.segments(8 * wav, 4)
    for one, two in zip(parts, louder, strict=True):
        torch.testing.assert_close(two.scale, 8 * one.scale)
    assert codec.from_segments(parts, 100_000).shape == (1, 2, 100_000)
    torch.testing.assert_close(
        codec.from_segments([Segment(part.codes, 2 * part.scale) for part in parts], 100_000),
        2 * codec.from_segments(parts, 100_000),
    )
    with pytest.raises(ValueError, match="were asked for"):
        codec.from_segments(parts, 110_000)
    with pytest.raises(ValueError, match="from_segments wants"):
        codec.from_segments([], 1)


def test_sides_of_opposite_sign_keep_their_level() -> None:
    codec = make("48k")
    left = noise(1, 1, 9600)
    scale = codec.segments(torch.cat([left, -left], 1), 1)[0].scale
    # by the mono downmix alone it would be 1e-8, and the decoded sound silence
    torch.testing.assert_close(scale, left.square().mean().sqrt().view(1) + 1e-8)


def test_one_signal_of_one_segment() -> None:
    codec = make("24k")
    wav = noise(1, 1, 2000)
    parts = codec.segments(wav)
    assert len(parts) == 1 and float(parts[0].scale) == 1
    check_codes(codec, wav, parts[0].codes, codec.encode(wav))
    with pytest.raises(ValueError, match="does not cut"):
        codec.from_segments(parts * 2, 10)


@pytest.mark.parametrize("name", ["24k", "48k"])
def test_half_precision_is_close_and_asked_for(name: str) -> None:
    codec, half = make(name), make(name).to_bf16()
    wav = noise(1, codec.channels, 12 * codec.hop)
    codes = codec.encode(wav)
    assert float((half.encode(wav)[:, 0] == codes[:, 0]).double().mean()) > 0.5
    want, got = codec.decode(codes), half.decode(codes)
    assert got.dtype == torch.float32
    assert 0 < float((got - want).norm() / want.norm()) < 0.1
    assert half.quantizer.all()[0].embed.dtype == torch.float32


@pytest.mark.parametrize("name", ["24k", "32k", "48k", "deep"])
def test_the_arranged_network_is_the_network(name: str) -> None:
    codec = make(name)
    wav = noise(1, codec.channels, 9 * codec.hop + 3)
    with torch.no_grad():
        want = codec.encoder(wav)
        (got,) = plan(codec.encoder)([wav[0].t()])
        torch.testing.assert_close(got, want[0], rtol=0, atol=1e-5)
        (back,) = plan(codec.decoder)([want[0]])
        torch.testing.assert_close(back.t(), codec.decoder(want)[0], rtol=0, atol=1e-5)


def test_new_weights_are_seen() -> None:
    codec = make("24k")
    codes = torch.zeros(1, 1, 3, dtype=torch.int64)
    before, name = codec.decode(codes), codec.fingerprint
    with torch.no_grad():
        next(codec.decoder.parameters()).mul_(2)
    assert not torch.equal(codec.decode(codes), before) and codec.fingerprint != name


@pytest.mark.parametrize("name", ["24k", "48k", "dac"])
def test_everything_learns(name: str) -> None:
    codec = make(name).train().requires_grad_(True)
    wav = noise(2, codec.channels, 8 * codec.hop)
    output, quantised = codec(wav, torch.tensor([1, codec.books]))
    assert quantised is not None and output.shape == wav.shape
    torch.testing.assert_close(quantised.each.sum(), quantised.commitment)
    assert len(quantised.each) == codec.books
    ((output - wav).square().mean() + quantised.commitment).backward()
    still = [key for key, value in codec.named_parameters() if value.grad is None or not value.grad.any()]
    assert not still
    # an item that keeps one book is decoded from that book alone
    with torch.no_grad():
        alone = codec.quantizer.decode(quantised.codes[:1, :1])
    torch.testing.assert_close(quantised.latent[:1].detach(), alone, rtol=1e-4, atol=1e-5)


def test_every_euclidean_book_commits_and_restarts() -> None:
    torch.manual_seed(0)
    books = EuclideanRVQ(4, 3, 8)
    latent = torch.randn(2, 300, 4)
    books.start(latent.flatten(0, 1), torch.Generator().manual_seed(0))
    assert bool(books.started)
    with torch.no_grad():  # a code nobody will choose
        book = books.all()[1]
        book.embed[3] = 1e4
        book.embed_avg[3] = 0
        book.cluster_size[3] = 0
    books.train()
    result = books(latent.requires_grad_(True), torch.tensor([3, 3]), torch.Generator().manual_seed(1))
    assert (result.each > 0).all()
    assert book.embed[3].norm() < 10 and float(book.cluster_size[3]) > 0
    chosen = books(latent, torch.tensor([3, 3])).codes[:, 1]
    assert (chosen == 3).any()  # the very next lookup uses the new vector
    with pytest.raises(ValueError, match="at least 400 vectors"):
        EuclideanRVQ(4, 1, 8).start(torch.randn(399, 4))


def test_factorised_books_start_where_the_data_are() -> None:
    torch.manual_seed(0)
    config = DacConfig(ratios=(2, 2), encoder_width=4, decoder_width=16, books=2, cardinality=8, code_dim=2)
    books, latent = FactorisedRVQ(config), 5 + torch.randn(1, 400, 16)
    spread = [len(books.encode(latent)[:, 0].unique())]
    books.start(latent[0], torch.Generator().manual_seed(0))
    spread.append(len(books.encode(latent)[:, 0].unique()))
    assert spread[1] > 4 and spread[1] >= spread[0]


@pytest.mark.parametrize("name", ["musicgen32", "encodec24", "encodec48", "dac44", "dac24", "dac16"])
def test_presets_have_the_published_shape(name: str) -> None:
    rate, channels, hop, books, size = {
        "musicgen32": (32000, 1, 640, 4, 2048), "encodec24": (24000, 1, 320, 32, 1024),
        "encodec48": (48000, 2, 320, 16, 1024), "dac44": (44100, 1, 512, 9, 1024),
        "dac24": (24000, 1, 320, 32, 1024), "dac16": (16000, 1, 320, 12, 1024),
    }[name]  # fmt: skip
    with torch.device("meta"):
        codec = pretrained.build(name)
    assert (codec.rate, codec.channels, codec.hop, codec.books, codec.cardinality) == (rate, channels, hop, books, size)
    assert codec.training and all(value.requires_grad for value in codec.parameters())
