from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import descant.codec
from descant.codec import audio
from descant.codec.bitstream import BitstreamError, Header, Reader, Writer
from descant.codec.files import decode_file, decoded_blocks, encode_file
from descant.codec.levels import LIMITS, RANGE, Envelope, curve, gain_of
from descant.codec.model import Codec, nano, tiny_stereo

from .alike import check_codes


@pytest.fixture(scope="module")
def mono() -> Codec:
    torch.manual_seed(0)
    return Codec(nano()).eval()


@pytest.fixture(scope="module")
def stereo() -> Codec:
    torch.manual_seed(1)
    from dataclasses import replace

    return Codec(replace(nano(), channels=2)).eval()


def music(channels: int, seconds: float, rate: int = 32000, rms: float = 0.05) -> Tensor:
    """Chords over noise [C, T] at a level the codecs leave alone."""
    rng = torch.Generator().manual_seed(7)
    time = torch.arange(round(seconds * rate)) / rate
    pitch = (
        torch.tensor([110.0, 220.0, 277.2, 329.6, 440.0])[:, None] * (1 + 0.01 * torch.arange(channels))[:, None, None]
    )
    wav = torch.sin(6.2832 * pitch * time).sum(1) + 0.3 * torch.randn(channels, len(time), generator=rng)
    return wav * rms / wav.square().mean().sqrt()


def wav_file(path: Path, wav: Tensor, rate: int = 32000) -> Path:
    soundfile.write(path, wav.T.numpy(), rate, subtype="FLOAT", format="WAV")
    return path


def codes_of(path: Path) -> Tensor:
    with path.open("rb") as file:
        return torch.cat([chunk.codes for chunk in Reader(file)], 1)


def gains_of(path: Path) -> list[float]:
    with path.open("rb") as file:
        return [chunk.gain for chunk in Reader(file)]


def samples_of_a_chunk(codec: Codec) -> int:
    return Header.of(codec).chunk_frames * codec.hop


def test_ordinary_music_gives_the_codes_and_the_sound_of_the_codec(mono: Codec, tmp_path: Path) -> None:
    wav = music(1, 5.3)
    done = encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", mono, books=3)
    codes = mono.encode(wav[None], 3)
    assert (done.samples, done.frames, done.books) == (wav.shape[1], codes.shape[2], 3)
    assert done.size == (tmp_path / "a.dsc").stat().st_size
    found = codes_of(tmp_path / "a.dsc")[None]
    check_codes(mono, wav[None], found, codes)
    assert set(gains_of(tmp_path / "a.dsc")) == {0.0}
    back = decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono)
    assert (back.samples, back.rate, back.damage) == (wav.shape[1], 32000, ())
    heard = audio.read(tmp_path / "b.wav")
    torch.testing.assert_close(heard.wav, mono.decode(found)[0, :, : wav.shape[1]].clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 2, 639, 640, 641, 64000, 64001, 128000])
def test_length_is_kept_to_the_sample(mono: Codec, tmp_path: Path, samples: int) -> None:
    wav = music(1, 4.0)[:, :samples]
    encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", mono)
    decode_file(tmp_path / "a.dsc", tmp_path / "b.flac", mono)
    assert audio.info(tmp_path / "b.flac").samples == samples


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 88200, 96000, 192000])
@pytest.mark.parametrize(("channels", "cut"), [(1, 0), (2, 1), (1, 37)])
def test_any_rate_and_back(mono: Codec, tmp_path: Path, rate: int, channels: int, cut: int) -> None:
    wav = music(channels, 1.1, rate)
    wav = wav[:, : wav.shape[1] - cut]
    encode_file(wav_file(tmp_path / "a.wav", wav, rate), tmp_path / "a.dsc", mono)
    back = decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono, rate=rate)
    info = audio.info(tmp_path / "b.wav")
    assert (info.rate, info.channels, back.rate) == (rate, 1, rate)
    assert info.samples == back.samples == wav.shape[1]


@pytest.mark.parametrize("samples", [1, 2, 5, 640, 44099, 44100, 44101])
def test_the_length_comes_back_at_the_rate_of_the_source(mono: Codec, tmp_path: Path, samples: int) -> None:
    for rate in (44100, 192000, 7350):
        encode_file(wav_file(tmp_path / "a.wav", music(1, 7.0, rate)[:, :samples], rate), tmp_path / "a.dsc", mono)
        sink = io.BytesIO()  # out of a pipe, too, where the length stands at the end
        decode_file(_piped((tmp_path / "a.dsc").read_bytes()), sink, mono, rate=rate)
        assert soundfile.info(io.BytesIO(sink.getvalue())).frames == samples
        for other in (16000, 11025, 48000, 96000):  # at another rate the same duration, by the length at the source's
            decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono, rate=other)
            assert audio.info(tmp_path / "b.wav").samples == round(samples * other / rate)


def test_an_mp3_comes_back_as_long_as_it_decodes(mono: Codec, tmp_path: Path) -> None:
    audio.write(tmp_path / "a.mp3", audio.Audio(music(2, 2.03, 44100), 44100))
    encode_file(tmp_path / "a.mp3", tmp_path / "a.dsc", mono)
    back = decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono, rate=44100)
    assert back.samples == audio.read(tmp_path / "a.mp3").wav.shape[1]


def test_a_length_that_cannot_be_is_not_believed(mono: Codec, tmp_path: Path) -> None:
    for lie in (0, 44100 - 100, 44100 + 100, 1 << 60):
        with (tmp_path / "a.dsc").open("wb") as file, Writer(file, Header.of(mono)) as writer:
            writer.write(torch.zeros(8, 50, dtype=torch.int64))
            writer.close(32000, source=(44100, lie))
        assert decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono, rate=44100).samples == 44100


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_any_number_of_channels(name: str, channels: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    codec: Codec = request.getfixturevalue(name)
    wav = music(channels, 0.5)
    wav = wav * 0.05 / audio.to_channels(wav, codec.channels).square().mean().sqrt()  # down-mixing makes it quieter
    encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", codec)
    mapped = audio.to_channels(wav, codec.channels)[None]
    check_codes(codec, mapped, codes_of(tmp_path / "a.dsc")[None], codec.encode(mapped))


@pytest.mark.parametrize(("suffix", "rate"), [(".flac", 32000), (".ogg", 32000), (".mp3", 32000), (".opus", 48000)])
def test_formats(mono: Codec, tmp_path: Path, suffix: str, rate: int) -> None:
    source = tmp_path / f"a{suffix}"
    audio.write(source, audio.Audio(music(2, 3.0), 32000))
    done = encode_file(source, tmp_path / "a.dsc", mono)
    back = decode_file(tmp_path / "a.dsc", tmp_path / f"b{suffix}", mono)
    info = audio.info(tmp_path / f"b{suffix}")
    assert info.rate == back.rate == rate
    assert back.samples == round(done.samples * rate / 32000) and abs(info.samples - back.samples) < 0.1 * rate


def test_pipes(mono: Codec, tmp_path: Path) -> None:
    path = wav_file(tmp_path / "a.wav", music(1, 4.5))
    encode_file(path, tmp_path / "a.dsc", mono)
    for source in (io.BytesIO(path.read_bytes()), _piped(path.read_bytes())):
        sink = io.BytesIO()
        encode_file(source, sink, mono)
        assert sink.getvalue() == (tmp_path / "a.dsc").read_bytes()
    decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono)
    sink = io.BytesIO()
    decode_file(_piped((tmp_path / "a.dsc").read_bytes()), sink, mono)
    assert sink.getvalue() == (tmp_path / "b.wav").read_bytes()


def _piped(data: bytes) -> io.BufferedReader:
    """The reading end of a pipe that somebody fills."""
    read, write = os.pipe()

    def fill() -> None:
        with os.fdopen(write, "wb") as file:
            file.write(data)

    threading.Thread(target=fill, daemon=True).start()
    return os.fdopen(read, "rb")


def test_entropy_coding_changes_the_bytes_only(mono: Codec, tmp_path: Path) -> None:
    path = wav_file(tmp_path / "a.wav", torch.cat([music(1, 2.0), torch.zeros(1, 96000)], 1))
    plain = encode_file(path, tmp_path / "a.dsc", mono)
    small = encode_file(path, tmp_path / "b.dsc", mono, coder="entropy")
    assert small.size < plain.size
    assert torch.equal(codes_of(tmp_path / "a.dsc"), codes_of(tmp_path / "b.dsc"))


def test_opposite_sides_have_a_level(stereo: Codec, tmp_path: Path) -> None:
    side = music(1, 4.0, rms=0.001)
    wav = torch.cat([side, -side])
    encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", stereo)
    assert gains_of(tmp_path / "a.dsc") == pytest.approx([-60 - RANGE[0]] * 2, abs=0.1)
    # what the codec was given is at the border of its range, and still has its sides
    louder = wav * 10 ** (-(-60 - RANGE[0]) / 20)
    agree = (codes_of(tmp_path / "a.dsc") == stereo.encode(louder[None])[0]).float().mean()
    assert agree > 0.9


def test_gain_is_that_of_all_channels_and_limited() -> None:
    assert gain_of(torch.full((1, 9), 0.05)) == 0.0
    assert gain_of(torch.full((1, 9), 1.0)) == pytest.approx(-RANGE[1])
    assert gain_of(torch.tensor([[1e-3, 1e-3], [-1e-3, -1e-3]])) == pytest.approx(-60 - RANGE[0])
    assert gain_of(torch.zeros(2, 9)) == LIMITS[0] == gain_of(torch.full((1, 9), 1e-20))
    assert gain_of(torch.full((1, 9), 1e6)) == LIMITS[1]
    assert gain_of(torch.full((1, 9), 1e-3)) * 256 % 1 == 0


def test_the_curve_is_smooth_and_never_lifts_the_louder_neighbour() -> None:
    gains = [0.0, -40.0, -60.0, -60.0, 12.0, 0.0, 0.0]
    envelope = Envelope(32000)
    parts = [envelope.push(gain, 64000) for gain in gains] + [envelope.finish()]
    assert [len(part) for part in parts] == [0, *[64000] * len(gains)]
    level = 20 * torch.cat(parts).double().log10()
    assert level.diff().abs().max() < 72 / (0.2 * 32000) + 1e-3
    own = torch.tensor(gains).repeat_interleave(64000)
    assert (level >= own - 1e-3).all()  # encoding divides by it: never louder than the chunk's own gain makes it
    for index, gain in enumerate(gains):
        assert level[index * 64000 + 32000] == pytest.approx(gain, abs=1e-3)
    assert len(curve(0.0, -30.0, 0.0, 3, 32000)) == 3


def test_levels_are_restored(mono: Codec, tmp_path: Path) -> None:
    """A codec that returned what it got would return the file, whatever the gains do in between."""

    class Mirror:
        rate, channels, hop, books, cardinality, frame_rate = 32000, 1, 640, 1, 2, 50.0
        fingerprint = bytes(16)

        def encoder_stream(self, books: int | None = None) -> Mirror:
            self.seen: list[Tensor] = []
            self.given = 0
            return self

        def decoder_stream(self) -> Mirror:
            self.sound = torch.nn.functional.pad(torch.cat(self.seen, 2), (0, 640))
            return self

        def push(self, x: Tensor) -> Tensor:
            if x.is_floating_point():
                self.seen.append(x)
                return torch.zeros(1, 1, x.shape[2] // 640, dtype=torch.int64)
            self.given += x.shape[2] * 640
            return self.sound[..., self.given - x.shape[2] * 640 : self.given]

        def finish(self) -> Tensor:
            return torch.zeros(1, 1, 0, dtype=torch.int64)

    codec = Mirror()
    chunk = samples_of_a_chunk(codec)  # type: ignore[arg-type]
    wav = music(1, 6.6 * chunk / 32000)
    wav[:, chunk : round(2.4 * chunk)] *= 1e-3
    wav[:, round(2.4 * chunk) : 3 * chunk] *= 10
    wav[:, 4 * chunk : 5 * chunk] = 0
    encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", codec)  # type: ignore[arg-type]
    assert len(set(gains_of(tmp_path / "a.dsc"))) > 2
    inside = torch.cat(codec.seen, 2)[0]
    levels = [10 * float(part.square().mean().log10()) for part in inside.split(chunk, 1)]
    # ramps take a part of the quiet chunks, so they stay a little above their goal
    assert all(RANGE[0] - 6 < level < RANGE[1] + 0.1 for level in levels if level > -80)
    with (tmp_path / "a.dsc").open("rb") as file:
        heard = torch.cat(list(decoded_blocks(Reader(file), codec)), 1)  # type: ignore[arg-type]
    torch.testing.assert_close(heard, wav, atol=1e-6, rtol=1e-5)


def test_quiet_music_is_coded_better_with_its_gain(tmp_path: Path) -> None:
    codec = descant.codec.load("tiny")
    wav = music(1, 4.0, rms=10 ** (-62 / 20))

    def quality(heard: Tensor) -> float:
        share = (heard * wav).sum() / wav.square().sum()
        return float(10 * ((share * wav).square().sum() / (heard - share * wav).square().sum()).log10())

    encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", codec)
    with (tmp_path / "a.dsc").open("rb") as file:
        with_gain = torch.cat(list(decoded_blocks(Reader(file), codec)), 1)
    without = codec.decode(codec.encode(wav[None]))[0, :, : wav.shape[1]]
    assert quality(with_gain) > quality(without) + 1.0


def test_silence_stays_silent(tmp_path: Path) -> None:
    codec = descant.codec.load("tiny")
    encode_file(wav_file(tmp_path / "a.wav", torch.zeros(1, 100_000)), tmp_path / "a.dsc", codec)
    decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", codec)
    assert audio.read(tmp_path / "b.wav").wav.abs().max() < 1e-4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros((0, 1), np.float32), "no sound"),
        (np.full((900, 1), np.nan, np.float32), "NaN"),
        (np.full((900, 2), np.inf, np.float32), "NaN or infinite"),
        (None, "no audio"),
        (b"", "empty"),
    ],
)
def test_bad_audio_is_refused_and_leaves_nothing(
    mono: Codec, tmp_path: Path, data: np.ndarray | bytes | None, message: str
) -> None:
    source = tmp_path / "a.wav"
    if isinstance(data, np.ndarray):
        soundfile.write(source, data, 32000, subtype="FLOAT")
    else:
        source.write_bytes(b"rubbish" * 99 if data is None else data)
    with pytest.raises(audio.AudioError, match=message):
        encode_file(source, tmp_path / "a.dsc", mono)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_bad_options(mono: Codec, tmp_path: Path) -> None:
    path = wav_file(tmp_path / "a.wav", music(1, 0.5))
    encode_file(path, tmp_path / "a.dsc", mono)
    for books in (0, 9):
        with pytest.raises(ValueError, match="books"):
            encode_file(path, tmp_path / "c.dsc", mono, books=books)
    with pytest.raises(ValueError, match="unknown coder"):
        encode_file(path, tmp_path / "c.dsc", mono, coder="zip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\.flac"):
        decode_file(tmp_path / "a.dsc", tmp_path / "b.xyz", mono)
    with pytest.raises(ValueError, match="rate"):
        decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono, rate=0)
    with pytest.raises(FileNotFoundError, match="folder"):
        encode_file(path, tmp_path / "no" / "c.dsc", mono)
    with pytest.raises(audio.AudioError, match="no such file"):
        encode_file(tmp_path / "none.wav", tmp_path / "c.dsc", mono)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.dsc", "a.wav"]


def test_a_file_of_another_codec_is_refused(mono: Codec, stereo: Codec, tmp_path: Path) -> None:
    encode_file(wav_file(tmp_path / "a.wav", music(1, 0.5)), tmp_path / "a.dsc", mono)
    with pytest.raises(BitstreamError, match="another codec"):
        decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", stereo)
    with pytest.raises(BitstreamError, match="no descant file"):
        decode_file(tmp_path / "a.wav", tmp_path / "b.wav", mono)
    assert not (tmp_path / "b.wav").exists()


def test_damage_is_reported_and_the_rest_plays(mono: Codec, tmp_path: Path) -> None:
    chunk = samples_of_a_chunk(mono)
    wav = music(1, 6 * chunk / 32000)
    encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", mono)
    clean = decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", mono)
    data = bytearray((tmp_path / "a.dsc").read_bytes())
    data[len(data) * 7 // 12] ^= 0xFF  # the middle of the fourth of six chunks
    (tmp_path / "a.dsc").write_bytes(data)
    broken = decode_file(tmp_path / "a.dsc", tmp_path / "c.wav", mono)
    assert broken.samples == clean.samples and len(broken.damage) == 1
    one, two = audio.read(tmp_path / "b.wav").wav, audio.read(tmp_path / "c.wav").wav
    torch.testing.assert_close(one[:, : 3 * chunk - 1000], two[:, : 3 * chunk - 1000], atol=1e-6, rtol=0)
    assert not torch.allclose(one, two, atol=1e-3)
    start = (broken.damage[0].start + broken.damage[0].frames) * 640 + 64000  # by then the codec has forgotten
    torch.testing.assert_close(one[:, start:], two[:, start:], atol=1e-4, rtol=0)


def test_pre_skip_and_length_are_obeyed_whatever_they_say(mono: Codec) -> None:
    codes = mono.encode(music(1, 3.0)[None])
    whole = mono.decode(codes)[0]
    for skip, samples in ((700, 50_000), (0, 1), (65535, 9999), (5, 0), (0, 10**12)):
        file = io.BytesIO()
        header = Header.of(mono, samples=samples, pre_skip=skip)
        with Writer(file, header) as writer:
            writer.write(codes[0])
            writer.close(samples)
        file.seek(0)
        parts = list(decoded_blocks(Reader(file), mono))
        heard = torch.cat(parts, 1) if parts else torch.zeros(1, 0)
        torch.testing.assert_close(heard, whole[:, skip : skip + samples], atol=1e-5, rtol=0)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """The system is told to refuse files beyond 1000 bytes, as a full disk would."""
    wav_file(tmp_path / "a.wav", music(1, 30.0))
    code = f"""
import resource, signal, sys, torch
from descant.codec.files import decode_file, encode_file
from descant.codec.model import Codec, nano
torch.manual_seed(0)
codec, at = Codec(nano()).eval(), {os.fspath(tmp_path)!r}
encode_file(at + "/a.wav", at + "/a.dsc", codec)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for act, source, target in ((encode_file, "/a.wav", "/b.dsc"), (decode_file, "/a.dsc", "/b.wav")):
    try:
        act(at + source, at + target, codec)
    except OSError as error:
        assert "cannot be written" in str(error) and at + target in str(error), error
    else:
        raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.dsc", "a.wav"]


def test_a_killed_encode_leaves_no_file_under_the_name(tmp_path: Path) -> None:
    wav_file(tmp_path / "a.wav", music(1, 60.0))
    (tmp_path / "b.dsc").write_bytes(b"the old one")
    code = f"""
import os, signal, torch
from descant.codec.files import encode_file
from descant.codec.model import Codec, nano
at = {os.fspath(tmp_path)!r}
def stop(done, total):
    if done > 30 * 32000:
        os.kill(os.getpid(), signal.SIGKILL)
for name in ("a.dsc", "b.dsc"):
    if os.fork() == 0:
        encode_file(at + "/a.wav", at + "/" + name, Codec(nano()).eval(), progress=stop)
    os.wait()
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=100, check=True)
    assert not (tmp_path / "a.dsc").exists() and (tmp_path / "b.dsc").read_bytes() == b"the old one"


def test_progress_goes_forward_and_ends_at_the_end(mono: Codec, tmp_path: Path) -> None:
    path = wav_file(tmp_path / "a.wav", music(1, 7.0))
    for act, source, target in ((encode_file, path, "a.dsc"), (decode_file, tmp_path / "a.dsc", "b.wav")):
        seen: list[tuple[int, int | None]] = []
        act(source, tmp_path / target, mono, progress=lambda done, whole: seen.append((done, whole)))  # noqa: B023
        assert [row[0] for row in seen] == sorted(row[0] for row in seen)
        assert seen[-1] == (224000, 224000) and len(seen) > 3


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Four minutes of stereo in a process that may grow by much less than they would take in memory."""
    wav = music(2, 10.0, 44100)
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 44100, 2) as file:
        for _ in range(24):
            file.write(wav.T.numpy())
    code = f"""
import resource, torch
from dataclasses import replace
from pathlib import Path
from descant.codec.files import decode_file, encode_file
from descant.codec.model import Codec, nano
at, codec = {os.fspath(tmp_path)!r}, Codec(replace(nano(), channels=2)).eval()
def peak():  # on Linux a process has its parent's peak on its account, which would hide its own
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
import soundfile
soundfile.write(at + "/s.wav", soundfile.read(at + "/a.flac", 44100 * 20)[0], 44100)
encode_file(at + "/s.wav", at + "/s.dsc", codec)
decode_file(at + "/s.dsc", at + "/s2.wav", codec)
before = peak()
encode_file(at + "/a.flac", at + "/a.dsc", codec)
decode_file(at + "/a.dsc", at + "/b.flac", codec)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 25e6  # the sound alone would be 61 MB at the codec's rate
    assert audio.info(tmp_path / "b.flac").samples == (240 * 32000)


def test_the_stereo_preset_keeps_sides_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = Codec(tiny_stereo()).eval()
    wav = music(2, 1.0)
    encode_file(wav_file(tmp_path / "a.wav", wav), tmp_path / "a.dsc", codec)
    decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", codec)
    heard = audio.read(tmp_path / "b.wav").wav
    assert heard.shape == wav.shape and not torch.equal(heard[0], heard[1])
