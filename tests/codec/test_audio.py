"""The audio door against libsndfile used plainly, scipy's and librosa's resampling, and pyloudnorm."""

from __future__ import annotations

import errno
import math
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pyloudnorm
import pytest
import soundfile
import torch
from scipy.signal import resample_poly
from torch import Tensor

from descant.codec import audio
from descant.codec.audio import Audio, AudioError, blocks, info, loudness, read, resample, to_channels, write
from descant.codec.loudness import k_weighting

SUFFIXES = ("wav", "flac", "ogg", "opus", "mp3")


def tune(seconds: float = 2.0, rate: int = 32000, channels: int = 2) -> Tensor:
    """Sweeps under 5 kHz, another one in each channel, [C, T]."""
    t = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    rows = [0.4 * torch.sin(2 * math.pi * (200 * (c + 1) + 300 * t) * t) for c in range(channels)]
    return torch.stack(rows).float()


def level(error: Tensor, signal: Tensor) -> float:
    """Error relative to the signal in dB."""
    return float(10 * torch.log10(error.square().mean() / signal.square().mean() + 1e-20))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str, channels: int) -> None:
    wav, path = tune(rate=48000, channels=channels), tmp_path / f"a.{suffix}"
    write(path, Audio(wav, 48000))
    found = read(path)
    assert found.rate == 48000 and found.wav.shape == wav.shape and found.wav.dtype == torch.float32
    assert info(path).samples == wav.shape[1] and info(path).duration == found.duration
    middle = slice(4800, -4800)
    limit = -130 if suffix in ("wav", "flac") else -20
    assert level((found.wav - wav)[:, middle], wav[:, middle]) < limit


@pytest.mark.parametrize(("subtype", "bits"), [("PCM_16", 16), ("PCM_24", 24)])
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_16_and_24_bit_files_survive_a_round_trip_exactly(tmp_path: Path, subtype: str, bits: int, suffix: str) -> None:
    steps = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), size=(5000, 2), dtype=np.int32)
    soundfile.write(tmp_path / f"in.{suffix}", steps << (32 - bits), 44100, subtype=subtype)
    write(tmp_path / f"out.{suffix}", read(tmp_path / f"in.{suffix}"))
    again, _ = soundfile.read(tmp_path / f"out.{suffix}", dtype="int32")
    assert np.array_equal(again >> (32 - bits), steps)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seconds", [0.013, 0.3, 1.0, 9.0])
@pytest.mark.parametrize(("rate", "channels"), [(None, None), (44100, 1), (16000, None)])
def test_blocks_are_exactly_what_read_returns(
    tmp_path: Path, suffix: str, seconds: float, rate: int | None, channels: int | None
) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, Audio(tune(2.7, 48000), 48000))
    whole = read(path, rate, channels)
    parts = list(blocks(path, seconds, rate, channels))
    assert torch.equal(torch.cat(parts, 1), whole.wav)
    assert {part.shape[1] for part in parts[:-1]} <= {round(seconds * whole.rate)}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("start", [0.0, 0.7, 1.3371])
def test_a_window_is_that_part_of_the_file(tmp_path: Path, suffix: str, start: float) -> None:
    # libsndfile's own seek is off by up to hundreds of samples in MP3 and Vorbis
    path = tmp_path / f"a.{suffix}"
    write(path, Audio(tune(3.0, 48000), 48000))
    whole, first = read(path).wav, round(start * 48000)
    assert torch.equal(read(path, start=start, duration=0.5).wav, whole[:, first : first + 24000])
    assert torch.equal(read(path, start=start).wav, whole[:, first:])


@pytest.mark.parametrize(("start", "duration", "samples"), [(0.0, 1.0, 22050), (1.5, 9.0, 11025), (0.25, 1e-9, 1)])
def test_a_resampled_window_has_the_length_asked_for(
    tmp_path: Path, start: float, duration: float, samples: int
) -> None:
    write(tmp_path / "a.wav", Audio(tune(2.0), 32000))
    assert read(tmp_path / "a.wav", 22050, 1, start, duration).wav.shape == (1, samples)


@pytest.mark.parametrize(("old", "new"), [(48000, 32000), (32000, 48000), (44100, 32000), (96000, 16000)])
def test_resampling_agrees_with_scipy(old: int, new: int) -> None:
    wav = tune(1.0, old)
    ours = resample(wav, old, new)
    gcd = math.gcd(old, new)
    theirs = torch.from_numpy(resample_poly(wav.double().numpy(), new // gcd, old // gcd, axis=1)).float()
    assert ours.shape == (2, math.floor(wav.shape[1] * new / old + 0.5))
    middle = slice(new // 10, -new // 10)
    size = min(ours.shape[1], theirs.shape[1])
    assert level((ours[:, :size] - theirs[:, :size])[:, middle], theirs[:, :size][:, middle]) < -40
    true = tune(1.0, new)[:, : ours.shape[1]]  # the same sweep drawn at the other rate is the real answer
    assert level((ours - true)[:, middle], true[:, middle]) < -90


def test_resampling_removes_what_the_new_rate_cannot_hold_like_librosa() -> None:
    t = torch.arange(48000, dtype=torch.float64) / 48000
    tone = torch.sin(2 * math.pi * 15000 * t).float()
    ours = resample(tone, 48000, 16000)
    theirs = librosa.resample(tone.numpy(), orig_sr=48000, target_sr=16000, res_type="soxr_vhq")
    assert float(ours[800:-800].abs().max()) < 1e-4
    assert np.allclose(ours.numpy(), theirs, atol=1e-6)


@pytest.mark.parametrize("shape", [(100,), (2, 100), (3, 2, 100), (2, 0)])
def test_resampling_keeps_leading_dimensions(shape: tuple[int, ...]) -> None:
    assert resample(torch.zeros(shape), 16000, 32000).shape == (*shape[:-1], 2 * shape[-1])
    assert resample(torch.ones(shape), 16000, 16000).shape == shape


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_agrees_with_pyloudnorm(rate: int, channels: int) -> None:
    rng = np.random.default_rng(channels)
    envelope = np.repeat(10 ** rng.uniform(-3, -0.3, 12), rate // 2)[:, None]  # quiet parts, so that the gates matter
    noise = (rng.standard_normal((len(envelope), channels)) * envelope * 0.3).astype(np.float32)
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    assert loudness(torch.from_numpy(noise.T.copy()), rate) == pytest.approx(
        meter.integrated_loudness(noise.astype(np.float64)), abs=0.05
    )


def test_loudness_of_the_reference_tone_and_of_silence() -> None:
    # BS.1770: a full-scale 997 Hz sine in one channel reads -3.01 LUFS
    t = torch.arange(3 * 48000, dtype=torch.float64) / 48000
    tone = torch.sin(2 * math.pi * 997 * t)[None].float()
    assert loudness(tone, 48000) == pytest.approx(-3.01, abs=0.02)
    assert loudness(torch.cat([tone, torch.zeros_like(tone)], 1), 48000) == pytest.approx(-3.01, abs=0.3)  # gated
    assert loudness(torch.zeros(2, 48000), 48000) == -math.inf
    assert math.isfinite(loudness(tone[:, :4800], 48000))
    surround = torch.zeros(6, tone.shape[1])
    surround[4] = tone
    assert loudness(surround, 48000) == pytest.approx(-3.01 + 10 * math.log10(1.41), abs=0.02)


def test_the_k_weighting_at_48_khz_is_the_printed_one() -> None:
    (b1, a1), (b2, a2) = k_weighting(48000)
    assert b1 == pytest.approx((1.53512485958697, -2.69169618940638, 1.19839281085285), abs=1e-9)
    assert a1 == pytest.approx((1.0, -1.69065929318241, 0.73248077421585), abs=1e-9)
    assert b2 == (1.0, -2.0, 1.0)
    assert a2 == pytest.approx((1.0, -1.99004745483398, 0.99007225036621), abs=1e-9)


def test_channels() -> None:
    wav = torch.rand(2, 50) * 2 - 1
    assert torch.equal(to_channels(wav, 2), wav)
    assert torch.allclose(to_channels(wav, 1), wav.mean(0, keepdim=True))
    assert torch.equal(to_channels(wav[:1], 6), wav[:1].repeat(6, 1))
    assert to_channels(torch.rand(7, 50), 2).shape == (2, 50)
    with pytest.raises(AudioError, match="ask for 1 or 2"):
        to_channels(wav, 6)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 8])
def test_surround_is_mixed_down_without_clipping(count: int) -> None:
    for signs in (torch.ones(count, 1), -torch.ones(count, 1)):
        assert float(to_channels(signs, 2).abs().max()) <= 1.0 + 1e-6


def test_5_1_keeps_sides_apart_and_drops_the_effects() -> None:
    left, right, centre, effects, back_left, back_right = torch.eye(6).unbind(1)
    mix = to_channels(torch.stack([left, right, centre, effects, back_left, back_right]), 2)
    assert mix[0, 1] == 0 and mix[1, 0] == 0 and mix[0, 5] == 0 and mix[1, 4] == 0
    assert mix[0, 2] == mix[1, 2] == mix[0, 4] == mix[1, 5]
    assert mix[0, 2] / mix[0, 0] == pytest.approx(math.sqrt(0.5))
    assert float(mix[:, 3].abs().max()) == 0


@pytest.mark.parametrize(("suffix", "rate", "becomes"), [("opus", 32000, 48000), ("opus", 16000, 16000),
                                                         ("mp3", 96000, 48000), ("mp3", 10000, 11025)])  # fmt: skip
def test_formats_with_few_rates_get_the_next_higher(tmp_path: Path, suffix: str, rate: int, becomes: int) -> None:
    write(tmp_path / f"a.{suffix}", Audio(tune(1.0, rate), rate))
    assert info(tmp_path / f"a.{suffix}").rate == becomes
    assert info(tmp_path / f"a.{suffix}").duration == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(("suffix", "tolerance"), [("opus", 0.15), ("mp3", 0.05), ("ogg", 0.4)])
@pytest.mark.parametrize("bitrate", [64000, 128000])
def test_bit_rates(tmp_path: Path, suffix: str, tolerance: float, bitrate: int) -> None:
    noise = torch.randn(2, 48000 * 4, generator=torch.Generator().manual_seed(0)) * 0.1
    write(tmp_path / f"a.{suffix}", Audio(noise, 48000), bitrate=bitrate + 10000 if suffix == "ogg" else bitrate)
    measured = (tmp_path / f"a.{suffix}").stat().st_size * 8 / 4
    assert measured == pytest.approx(bitrate, rel=tolerance)


@pytest.mark.parametrize(("name", "bitrate"), [("a.wav", 64000), ("a.mp3", 1000), ("a.opus", 10**7), ("a.ogg", 3)])
def test_impossible_bit_rates_are_refused(tmp_path: Path, name: str, bitrate: int) -> None:
    with pytest.raises(AudioError, match=r"bit rate"):
        write(tmp_path / name, Audio(tune(0.1, 48000), 48000), bitrate=bitrate)
    assert list(tmp_path.iterdir()) == []


def test_peaks_are_clipped_with_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="peak is 2.00"):
        write(tmp_path / "a.wav", Audio(torch.tensor([[0.5, 2.0, -2.0]]), 8000))
    assert read(tmp_path / "a.wav").wav[0].tolist() == pytest.approx([0.5, 1.0, -1.0], abs=1e-6)


def one_line(error: pytest.ExceptionInfo[AudioError]) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) > 20
    return text


def spoil(kind: str, path: Path) -> None:
    """Make a bad file of a good one."""
    data = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no music\n" * 100)
    elif kind == "header only":
        path.write_bytes(data[:20])
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(len(data)))


@pytest.mark.parametrize("kind", ["empty", "text", "header only", "noise"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("use", [read, info, lambda path: list(blocks(path))])
def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, kind: str, suffix: str, use: Callable[[Path], object]
) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, Audio(tune(0.5, 48000), 48000))
    spoil(kind, path)
    with pytest.raises(AudioError) as error:
        use(path)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus"])
def test_a_garbled_file_is_refused_where_the_decoder_notices(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, Audio(tune(4.0, 48000), 48000))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(0).bytes(4000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"damaged") as error:
        read(path)
    assert "export it again" in one_line(error)


def test_a_truncated_flac_is_refused_and_its_beginning_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    write(path, Audio(tune(4.0, 48000), 48000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match="damaged after"):
        read(path)
    assert read(path, duration=0.5).duration == 0.5


def test_a_truncated_mp3_gives_what_is_there_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write(path, Audio(tune(4.0, 48000), 48000))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert 0 < read(path).duration < 4.0


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        read(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="is a folder"):
        read(tmp_path)


def test_a_file_without_samples_and_a_start_past_the_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "zero.wav", np.zeros((0, 2)), 8000)
    with pytest.raises(AudioError, match="no sound"):
        read(tmp_path / "zero.wav")
    write(tmp_path / "a.wav", Audio(tune(1.0), 32000))
    for start in (1.0, 5.0, 1e6):
        with pytest.raises(AudioError, match="choose an earlier start"):
            read(tmp_path / "a.wav", start=start)


def test_nan_is_refused_both_ways(tmp_path: Path) -> None:
    for bad in (math.nan, math.inf):
        wav = torch.tensor([[0.0, bad, 0.0]])
        with pytest.raises(AudioError, match="NaN"):
            write(tmp_path / "a.wav", Audio(wav, 8000))
        soundfile.write(tmp_path / "b.wav", wav.T.numpy(), 8000, subtype="FLOAT")
        with pytest.raises(AudioError, match="NaN"):
            read(tmp_path / "b.wav")
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("asked", [{"rate": 0}, {"rate": -8000}, {"channels": 0}, {"start": -1.0}, {"start": math.nan},
                                   {"duration": 0.0}, {"duration": -2.0}, {"duration": math.inf}])  # fmt: skip
def test_senseless_windows_are_refused(tmp_path: Path, asked: dict[str, float]) -> None:
    write(tmp_path / "a.wav", Audio(tune(0.1), 32000))
    with pytest.raises(AudioError, match=r"use|out of range"):
        read(tmp_path / "a.wav", **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_senseless_blocks_are_refused(tmp_path: Path, seconds: float) -> None:
    write(tmp_path / "a.wav", Audio(tune(0.1), 32000))
    with pytest.raises(AudioError, match="out of range"):
        list(blocks(tmp_path / "a.wav", seconds))


def test_audio_is_a_float_matrix_with_a_rate() -> None:
    assert Audio(torch.zeros(2, 16000), 32000).duration == 0.5
    with pytest.raises(AudioError, match=r"wav\[None\]"):
        Audio(torch.zeros(16000), 32000)
    with pytest.raises(AudioError, match="float"):
        Audio(torch.zeros(1, 5, dtype=torch.int16), 32000)
    with pytest.raises(AudioError, match="positive"):
        Audio(torch.zeros(1, 5), 0)


def test_unknown_formats_and_too_many_channels(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"\.wav, \.flac"):
        write(tmp_path / "a.xyz", Audio(tune(0.1), 32000))
    with pytest.raises(AudioError, match="MP3 holds 1 or 2"):
        write(tmp_path / "a.mp3", Audio(tune(0.1, channels=6), 32000))
    write(tmp_path / "a.flac", Audio(tune(0.1, channels=6), 32000))
    assert read(tmp_path / "a.flac", channels=2).wav.shape == (2, 3200)
    with pytest.raises(AudioError, match=r"no sound|empty"):
        write(tmp_path / "b.wav", Audio(torch.zeros(2, 0), 32000))


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    write(path, Audio(tune(0.1), 32000))
    before = path.read_bytes()

    def full(old: str, new: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(audio.os, "replace", full)
    with pytest.raises(AudioError, match="free some space"):
        write(path, Audio(tune(0.2), 32000))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_unwritable_places_are_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no folder"):
        write(tmp_path / "missing" / "a.wav", Audio(tune(0.1), 32000))
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match="not an ordinary file"):
        write(tmp_path / "folder.wav", Audio(tune(0.1), 32000))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.wav"]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", Audio(tune(0.1), 32000))
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_header_that_lies_about_its_length_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((100, 1), np.float32), 8000)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    assert read(path).wav.shape[1] <= 200
