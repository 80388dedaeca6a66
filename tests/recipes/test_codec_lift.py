"""The level of a codec's sound, measured after training: found where known, heard, no part of its name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import descant.codec
from descant.codec import pretrained
from descant.codec.model import Codec, CodecConfig, nano
from descant.recipes import codec_books, codec_lift


class Soft(Codec):
    """A codec whose sound is its input's, too soft by 3 dB for one book and by 1 dB for more."""

    def __init__(self, wav: torch.Tensor) -> None:
        super().__init__(replace(nano(), books=3))
        self.sound = wav

    def encode(self, wav: torch.Tensor, books: int | None = None) -> torch.Tensor:
        """wav [B, C, T] -> codes [B, K, F], which only say how many they are."""
        return torch.zeros(1, books or 3, 50, dtype=torch.int64)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """codes [B, K, F] -> wav [B, C, T]."""
        return self.sound[None] * 10 ** (-(3.0 if codes.shape[1] == 1 else 1.0) / 20)


def test_a_known_loss_of_level_is_found() -> None:
    wav = 0.1 * torch.randn(1, 32000, generator=torch.Generator().manual_seed(0))
    assert codec_lift.measure(Soft(wav), {"mix": wav[None]}) == (3.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="begin with 0 dB"):
        codec_lift.measure(Soft(wav), {"mix": wav[None]}, (1.0,))
    with pytest.raises(ValueError, match="no excerpts"):
        codec_lift.measure(Soft(wav), {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    pretrained.save(Codec(nano()).eval(), tmp_path / "codec")
    return tmp_path / "codec"


def test_it_is_heard_in_decoding_and_changes_nothing_else(folder: Path) -> None:
    plain = descant.codec.load(folder)
    weights = (folder / "model.safetensors").read_bytes()
    codec_lift.apply(folder, [6.0] * 4 + [0.0] * 4)
    lifted = descant.codec.load(folder)
    assert json.loads((folder / "config.json").read_text())["config"]["lift"] == [6.0] * 4 + [0.0] * 4
    assert lifted.fingerprint == plain.fingerprint and (folder / "model.safetensors").read_bytes() == weights
    wav = torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(1)) * 0.1
    codes = plain.encode(wav)
    assert torch.equal(lifted.encode(wav), codes)
    torch.testing.assert_close(lifted.decode(codes), plain.decode(codes), atol=1e-6, rtol=0)
    few = codes[:, :4]
    assert isinstance(plain, Codec) and isinstance(lifted, Codec)
    latent, rows = plain.decode_latent(few), torch.zeros(1, 50, dtype=torch.int64)
    spec, breath = plain.decoder.parts(plain.decoder.trunk(latent))
    want = 10 ** (6 / 20) * plain.decoder.wave(spec + breath * plain.decoder.phases(rows))
    torch.testing.assert_close(lifted.decoder(latent, rows, lifted.decoder.gain(4)), want, atol=1e-6, rtol=1e-5)
    whole, stream = lifted.decode(few), lifted.decoder_stream()
    assert not torch.allclose(whole, plain.decode(few), atol=1e-4)
    streamed = torch.cat([stream.push(few[..., :7]), stream.push(few[..., 7:]), stream.finish()], -1)
    torch.testing.assert_close(streamed, whole, atol=1e-5, rtol=0)


def test_training_starts_without_it(folder: Path) -> None:
    codec_lift.apply(folder, [2.0] * 8)
    with pytest.raises(ValueError, match="already"):
        codec_lift.measure(codec_lift._codec(folder), {})
    codec = Codec(nano())
    codec_books.load(codec, str(folder))
    assert codec.config.lift == () and codec.decoder.gain(8) == 1.0


@pytest.mark.parametrize("lift", [(1.0,), (0.0,) * 7, (13.0,) * 8, (float("nan"),) * 8])
def test_levels_that_cannot_be_are_refused(lift: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="lift must be 8 levels"):
        CodecConfig(lift=lift)


def test_a_codec_of_another_family_is_refused(tmp_path: Path) -> None:
    from descant.codec.dac import DacCodec
    from descant.codec.official import DacConfig

    config = DacConfig(ratios=(2, 2), encoder_width=4, decoder_width=16, books=2, cardinality=8, code_dim=2)
    pretrained.save(DacCodec(config), tmp_path / "dac")
    with pytest.raises(ValueError, match="another family"):
        codec_lift.apply(tmp_path / "dac", [0.0, 0.0])
