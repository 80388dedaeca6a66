import dataclasses

import pytest
import torch

from descant.codec.model import Codec, CodecConfig, Decoder, nano, tiny
from descant.codec.noise import rows as noise_rows

from .alike import check_codes


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
    wav = torch.randn(1, 1, 6400, generator=torch.Generator().manual_seed(3))
    check_codes(codec, wav, codec.encode(wav, 3), codec.encode(wav)[:, :3])


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


def test_noise_is_white_and_a_function_of_the_codes(codec: Codec) -> None:
    noise = codec.decoder.noise
    torch.testing.assert_close(noise.abs(), torch.ones(noise.shape), atol=1e-5, rtol=0)
    # neighbouring rows and neighbouring bins have nothing in common
    count = noise.numel() ** 0.5
    assert (noise[1:] * noise[:-1].conj()).mean().abs() < 5 / count
    assert (noise[..., 1:] * noise[..., :-1].conj()).mean().abs() < 5 / count
    codes = torch.randint(0, 64, (1, 8, 40), generator=torch.Generator().manual_seed(0))
    rows = noise_rows(codes)
    assert torch.equal(rows[:, 7:], noise_rows(codes[..., 7:]))
    assert rows.unique().numel() > 30 and int(rows.min()) >= 0 and int(rows.max()) < 512


def test_no_buzz_where_only_noise_sounds(codec: Codec) -> None:
    # a decoder without noise repeats one spectrum every 320 samples: its autocorrelation there is 1
    decoder = Decoder(nano()).eval()
    with torch.no_grad():
        decoder.leave.weight.zero_()
        for kind, buzz in ((0, 0.9), (3, 0.1)):
            decoder.leave.bias.view(4, -1).fill_(-20.0)
            decoder.leave.bias.view(4, -1)[kind] = 0.0
            decoder.leave.bias.view(4, -1)[1:3] = 1.0
            rows = torch.randint(0, 512, (1, 60), generator=torch.Generator().manual_seed(0))
            wav = decoder(torch.zeros(1, 60, 64), rows)[0, 0, 640:-640]
            repeat = float((wav[320:] * wav[:-320]).sum() / wav.square().sum())
            assert repeat > buzz if kind == 0 else abs(repeat) < buzz
