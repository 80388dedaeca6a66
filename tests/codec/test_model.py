import dataclasses

import pytest
import torch

from descant.codec.model import Codec, CodecConfig, nano, tiny


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    return Codec(nano()).eval()


@pytest.mark.parametrize("samples", [1, 639, 640, 641, 5000])
def test_shapes(codec: Codec, samples: int) -> None:
    wav = torch.randn(2, 1, samples)
    codes = codec.encode(wav)
    frames = -(-samples // 640)
    assert codes.shape == (2, 8, frames) and codes.dtype == torch.int64
    assert codec.decode(codes).shape == (2, 1, frames * 640)
    assert codec.decode(codes[:, :3]).shape == (2, 1, frames * 640)


def test_fewer_books_are_the_first_ones(codec: Codec) -> None:
    wav = torch.randn(1, 1, 6400)
    assert torch.equal(codec.encode(wav, 3), codec.encode(wav)[:, :3])


def test_encoding_looks_one_frame_ahead_and_no_further(codec: Codec) -> None:
    wav = torch.randn(1, 1, 640 * 30, generator=torch.Generator().manual_seed(0))
    changed = wav.clone()
    changed[..., 640 * 20 :] = torch.randn(1, 1, 640 * 10, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a, b = codec.encoder(wav), codec.encoder(changed)
    # frame 18 ends at 19 * 640; its windows reach 480 samples further and one convolution one frame further
    torch.testing.assert_close(a[:, :18], b[:, :18], atol=1e-5, rtol=0)
    assert not torch.allclose(a[:, 19], b[:, 19], atol=1e-3)


def test_decoding_looks_one_frame_ahead_and_no_further(codec: Codec) -> None:
    rng = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 64, (1, 8, 30), generator=rng)
    changed = codes.clone()
    changed[..., 20:] = torch.randint(0, 64, (1, 8, 10), generator=rng)
    a, b = codec.decode(codes), codec.decode(changed)
    torch.testing.assert_close(a[..., : 19 * 640], b[..., : 19 * 640], atol=1e-5, rtol=0)
    assert not torch.allclose(a[..., 20 * 640 : 21 * 640], b[..., 20 * 640 : 21 * 640], atol=1e-4)


def test_stereo_keeps_the_side_channel() -> None:
    torch.manual_seed(0)
    codec = Codec(dataclasses.replace(nano(), channels=2)).eval()
    wav = torch.randn(1, 1, 6400).repeat(1, 2, 1) * torch.tensor([[[1.0], [-1.0]]])  # anti-phase: the mid is silent
    with torch.no_grad():
        assert not torch.allclose(codec.encoder(wav), codec.encoder(torch.zeros_like(wav)))
    assert codec.decode(codec.encode(wav)).shape == (1, 2, 6400)


def test_tiny_is_what_it_says() -> None:
    codec = Codec(tiny())
    assert (codec.rate, codec.channels, codec.hop, codec.books, codec.cardinality) == (32000, 1, 640, 8, 1024)
    assert codec.frame_rate == 50
    assert 7e6 < sum(p.numel() for p in codec.parameters()) < 8.5e6


@pytest.mark.parametrize(
    ("wav", "message"),
    [
        (torch.zeros(1, 2, 640), r"\[B, 1, T\]"),
        (torch.zeros(640), r"\[B, 1, T\]"),
        (torch.zeros(1, 1, 0), "no samples"),
        (torch.full((1, 1, 640), torch.nan), "NaN"),
        (torch.full((1, 1, 640), torch.inf), "NaN or infinite"),
    ],
)
def test_bad_audio(codec: Codec, wav: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        codec.encode(wav)


@pytest.mark.parametrize("codes", [torch.full((1, 8, 3), 64), torch.full((1, 8, 3), -1), torch.zeros(1, 9, 3).long()])
def test_bad_codes(codec: Codec, codes: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="codes"):
        codec.decode(codes)


def test_silence_is_finite(codec: Codec) -> None:
    assert torch.isfinite(codec.decode(codec.encode(torch.zeros(1, 1, 6400)))).all()


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 0},
        {"channels": 3},
        {"hop": 641},
        {"window": 100},
        {"books": 65},
        {"encoder_blocks": (1,)},
        {"outer": 1.5},
    ],
)
def test_wrong_configurations_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(nano(), **change)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="hopp"):
        CodecConfig.from_dict({"hopp": 640})
