"""Codes and samples of the official architectures against the transformers library: same weights, same numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DacModel, EncodecModel

import descant.codec
from descant.codec import official
from descant.codec.contract import Segment
from descant.codec.dac import DacCodec
from descant.codec.encodec import EncodecCodec
from descant.codec.transformers_format import canonical

from .alike import check_codes, check_segment
from .foreign import DAC, ENCODEC, dac, encodec, noise, saved


def compare_encodec(model, codec: EncodecCodec, wav: torch.Tensor, bandwidth: float) -> None:
    """Segment by segment: equal codes and scales; then the whole signal's samples."""
    with torch.no_grad():
        want = model.encode(wav, bandwidth=bandwidth)
        audio = model.decode(
            want.audio_codes, want.audio_scales, last_frame_pad_length=want.last_frame_pad_length
        ).audio_values
    got = codec.segments(wav, want.audio_codes.shape[2])
    assert len(got) == len(want.audio_codes)
    same: list[Segment] = []
    for index, (segment, codes, scale) in enumerate(zip(got, want.audio_codes, want.audio_scales, strict=True)):
        if index == len(got) - 1:
            codes = codes[..., : codes.shape[-1] - want.last_frame_pad_length]
        theirs = torch.ones(1) if scale is None else scale.view(-1)
        torch.testing.assert_close(segment.scale, theirs, rtol=1e-6, atol=0)
        check_segment(codec, wav, index, segment, codes)
        same.append(Segment(codes, theirs))
    mine = codec.from_segments(same, audio.shape[-1])
    assert float((mine - audio).abs().max()) <= 1e-6


@pytest.fixture(scope="module", params=list(ENCODEC))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    model = encodec(request.param)
    folder = saved(model, tmp_path_factory.mktemp("encodec") / request.param)
    return model, descant.codec.load(folder), folder


def test_encodec_is_the_reference(pair) -> None:
    model, codec, _ = pair
    assert isinstance(codec, EncodecCodec)
    config = model.config
    wav = noise(1, codec.channels, int(0.4 * codec.rate) + 77)
    compare_encodec(model, codec, wav, config.target_bandwidths[-1])
    compare_encodec(model, codec, 0.3 * wav[..., 999:9000], config.target_bandwidths[0])
    codes = codec.segments(wav)[0].codes
    assert len(codes.unique()) > 20  # a lookup that always says the same proves nothing


@pytest.mark.parametrize("length", [1, 2, 7, 319, 321, 2000])
def test_encodec_pads_short_signals_alike(pair, length: int) -> None:
    model, codec, _ = pair
    compare_encodec(model, codec, noise(1, codec.channels, length), model.config.target_bandwidths[0])


def test_the_trainable_network_is_the_fast_one(pair) -> None:
    _, codec, _ = pair
    wav = noise(2, codec.channels, 5 * codec.hop)
    with torch.no_grad():
        latent = codec.encoder(wav)
        codes = codec.quantizer.encode(latent)
        audio = codec.decoder(codec.quantizer.decode(codes))
    check_codes(codec, wav, codec.encode(wav), codes)
    mine = codec.decode(codes)  # of a segmented model at its inner level, an RMS of 1
    assert float((mine - audio).abs().max()) <= 1e-5 * float(audio.abs().max())


def test_what_is_saved_is_read_by_the_library(pair, tmp_path: Path) -> None:
    model, codec, _ = pair
    codec.save(tmp_path / "back", format="transformers")
    back, loading = EncodecModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(loading[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs, mine = model.state_dict(), back.state_dict()
    assert theirs.keys() == mine.keys() and all(torch.equal(theirs[key], mine[key]) for key in theirs)
    then, now = model.config.to_dict(), back.config.to_dict()
    for name in (
        "sampling_rate",
        "chunk_length_s",
        "overlap",
        "norm_type",
        "use_causal_conv",
        "num_filters",
        "pad_mode",
    ):
        assert then[name] == now[name]
    assert list(then["upsampling_ratios"]) == list(now["upsampling_ratios"])


def test_a_second_segment_of_one_sample() -> None:
    model = encodec("48k", num_filters=8)
    codec = EncodecCodec(replace(official.encodec48(), filters=8))
    codec.load_state_dict(canonical(model.state_dict()))
    codec.eval().requires_grad_(False)
    for length in (47520, 47521):  # the second segment begins at 47520
        compare_encodec(model, codec, noise(1, 2, length), 6.0)


@pytest.mark.parametrize("name", list(DAC))
def test_dac_is_the_reference(name: str, tmp_path: Path) -> None:
    model = dac(name)
    codec = descant.codec.load(saved(model, tmp_path / name))
    assert isinstance(codec, DacCodec)
    wav = noise(1, 1, 10 * codec.hop)
    with torch.no_grad():
        for books in (codec.books, 2):
            want = model.encode(wav, books).audio_codes
            codes = codec.encode(wav, books)
            check_codes(codec, wav, codes, want)
            audio = model.decode(audio_codes=want).audio_values
            mine = codec.decode(want)
            assert mine.shape == (1, 1, 10 * codec.hop)  # odd strides lose samples: they are silence here
            assert float((mine[:, 0, : audio.shape[-1]] - audio).abs().max()) <= 1e-6
            assert not mine[..., audio.shape[-1] :].any()
    assert len(want.unique()) > 5
    codec.save(tmp_path / "back", format="transformers")
    back, loading = DacModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(loading[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    theirs, mine = model.state_dict(), back.state_dict()
    assert theirs.keys() == mine.keys() and all(torch.equal(theirs[key], mine[key]) for key in theirs)
