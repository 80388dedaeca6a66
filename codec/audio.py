"""The audio door: files to tensors and back, at any rate and channel count.

Files are read and written by libsndfile (through soundfile): WAV, FLAC, OGG Vorbis, Opus, MP3 and a dozen studio
formats. Rates are changed by the SoX resampler (soxr, "very high quality"). Everything streams: a window or a block is
read without loading the file, and no memory is allocated on the word of a header.

Two things differ from plain soundfile, because they were measured to matter:

* soundfile seeks after every read. In MP3 and Vorbis, libsndfile's seek is not sample exact (the same file read in
  two block sizes gave two different signals), so compressed files are decoded from their beginning and the part
  before the window is dropped. PCM and FLAC files seek.
* libsndfile scales floats by 2^(bits-1) - 1 on writing and by 2^(bits-1) on reading. We scale by 2^(bits-1) both
  ways, so that a 16- or 24-bit file read and written again is the same file.

Letters: C channels, T samples. Loudness: ITU-R BS.1770-4. Down-mixing: ITU-R BS.775, rows scaled to sum to one.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from .formats import FORMATS, QUALITY, STEP, AudioError, check_format, rate_for, whole_numbers
from .loudness import loudness
from .sink import whole_file

__all__ = ["Audio", "AudioError", "AudioInfo", "blocks", "info", "loudness", "read", "resample", "to_channels", "write"]

#: Vorbis quality 0, 1, ... 10 -> nominal kilobits per second of stereo at 44.1 kHz
_VORBIS_KBPS = (64.0, 80.0, 96.0, 112.0, 128.0, 160.0, 192.0, 224.0, 256.0, 320.0, 500.0)
_H = math.sqrt(0.5)  # -3 dB
#: channels -> (left, right) weights in the order of WAV and FLAC: L R C LFE Ls Rs (Lb Rb); the LFE is dropped
_STEREO = {
    3: ((1, 0, _H), (0, 1, _H)),
    4: ((1, 0, _H, 0), (0, 1, 0, _H)),
    5: ((1, 0, _H, _H, 0), (0, 1, _H, 0, _H)),
    6: ((1, 0, _H, 0, _H, 0), (0, 1, _H, 0, 0, _H)),
    8: ((1, 0, _H, 0, _H, 0, _H, 0), (0, 1, _H, 0, 0, _H, 0, _H)),
}


@dataclass(frozen=True)
class Audio:
    """Sound: ``wav`` [C, T] float32 in -1 ... 1, and its ``rate`` in Hz."""

    wav: Tensor
    rate: int

    def __post_init__(self) -> None:
        if self.wav.dim() != 2 or not self.wav.is_floating_point():
            seen = f"{self.wav.dtype} of shape {tuple(self.wav.shape)}"
            raise AudioError(f"audio must be a float tensor [channels, samples], not {seen}; mono is wav[None]")
        if self.rate <= 0:
            raise AudioError(f"the sample rate must be a positive number of Hz, not {self.rate}")

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.wav.shape[-1] / self.rate


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says: ``rate`` in Hz, ``samples`` per channel, ``duration`` in seconds."""

    rate: int
    channels: int
    samples: int
    duration: float
    format: str


class _Source(soundfile.SoundFile):  # type: ignore[misc,unused-ignore]
    """An open file that is only ever read forwards, unless its format seeks exactly."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._exact = self.format not in ("MP3", "OGG")

    def seekable(self) -> bool:
        """Say no for MP3 and OGG, which keeps soundfile from seeking after each read."""
        return self._exact and bool(super().seekable())

    def skip(self, samples: int) -> None:
        """Go ``samples`` forwards from the beginning."""
        if self.seekable():
            self.seek(min(samples, self.frames))
            return
        while samples > 0:
            got = len(self.read(min(samples, STEP), dtype="float32", always_2d=True))
            if got == 0:
                return
            samples -= got


def _open(path: str | os.PathLike[str]) -> _Source:
    where = Path(path)
    if where.is_dir():
        raise AudioError(f"{where}: is a folder; name an audio file in it")
    if not where.exists():
        raise AudioError(f"{where}: no such file; check the name and the folder you are in")
    try:
        if where.is_file() and where.stat().st_size == 0:
            raise AudioError(f"{where}: is empty (0 bytes); export or download it again")
        with where.open("rb"):
            pass
        return _Source(where)
    except OSError as error:
        raise AudioError(f"{where}: cannot be opened ({error.strerror}); check its permissions") from error
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        todo = "convert it to WAV, FLAC, OGG, Opus or MP3"
        raise AudioError(f"{where}: is no audio this machine can read ({_said(error)}); {todo}") from error


def _said(error: Exception) -> str:
    return " ".join(str(getattr(error, "error_string", error)).split()).rstrip(".")


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read what the header of the file ``path`` says, without decoding it.

    For an MP3 without a length in its header, ``samples`` is libsndfile's estimate.
    """
    with _open(path) as source:
        kind = f"{source.format} {source.subtype}"
        return AudioInfo(source.samplerate, source.channels, source.frames, source.frames / source.samplerate, kind)


def _pieces(path: str | os.PathLike[str], start: float, samples: int | None) -> Iterator[np.ndarray]:
    """Yield [t, C] float32 of the file from ``start`` s on, ``samples`` of them or all, in steps of bounded size."""
    got = 0
    with _open(path) as source:
        first = round(start * source.samplerate)
        expected = source.frames - first
        try:
            source.skip(first)
            while samples is None or got < samples:
                ask = STEP if samples is None else min(STEP, samples - got)
                piece = source.read(ask, dtype="float32", always_2d=True)
                if not len(piece):
                    break
                if not np.isfinite(piece).all():
                    raise AudioError(f"{path}: holds NaN or infinite samples; export it again")
                got += len(piece)
                yield piece
        except (soundfile.LibsndfileError, RuntimeError) as error:
            place = f"{path}: is damaged after {(first + got) / source.samplerate:.2f} s"
            raise AudioError(f"{place} ({_said(error)}); export it again, or read only its beginning") from error
        wanted = expected if samples is None else min(samples, expected)
        _check_length(path, source, first + got, first + wanted)
    if got == 0:
        if expected < 0 or start and not expected:
            raise AudioError(f"{path}: ends before {start:g} s; choose an earlier start")
        raise AudioError(f"{path}: holds no sound (0 samples); export it again")


def _check_length(path: str | os.PathLike[str], source: _Source, got: int, announced: int) -> None:
    """Refuse OGG files that end early; MP3 headers are often only estimates, so those warn."""
    missing = (announced - got) / source.samplerate
    if source.frames >= 1 << 62 or missing < 0.1 + 0.01 * got / source.samplerate:  # a stream of unknown length
        return
    text = f"{path}: ends {missing:.2f} s before its announced end, at {got / source.samplerate:.2f} s"
    if source.format == "MP3":
        warnings.warn(f"{text}; using what is there", stacklevel=3)
    else:
        raise AudioError(f"{text}: it is damaged; export it again, or read only its beginning")


def _check(rate: int | None, channels: int | None, start: float, duration: float | None) -> None:
    if rate is not None and not 1000 <= rate <= 1_000_000:
        raise AudioError(f"a rate of {rate} Hz is out of range; use 1000 to 1000000, for instance 32000")
    if channels is not None and channels < 1:
        raise AudioError(f"{channels} channels are too few; use 1 for mono or 2 for stereo")
    if not (math.isfinite(start) and start >= 0):
        raise AudioError(f"a start of {start} s is out of range; use 0 or more")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise AudioError(f"a duration of {duration} s is out of range; use more than 0, or none for the whole file")


def _stream(
    path: str | os.PathLike[str], rate: int | None, channels: int | None, start: float, duration: float | None,
    heard: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield [C, t] of a window of the file at the rate and channels asked for, in steps of bounded size."""
    _check(rate, channels, start, duration)
    about = info(path)
    target = rate or about.rate
    count = None if duration is None else max(1, round(duration * about.rate))
    left = None if duration is None else max(1, round(duration * target))
    width = channels or about.channels
    resampler = None if target == about.rate else soxr.ResampleStream(about.rate, target, width, "float32", QUALITY)
    for piece in _pieces(path, start, count):
        if heard is not None:
            heard(len(piece))
        wav = to_channels(torch.from_numpy(piece.T.copy()), width)  # soundfile has time first
        if resampler is not None:
            wav = _push(resampler, wav)
        wav = wav if left is None else wav[:, :left]
        left = left if left is None else left - wav.shape[1]
        yield wav
    if resampler is not None:
        wav = _push(resampler, torch.zeros(width, 0), last=True)
        yield wav if left is None else wav[:, :left]


def _push(resampler: soxr.ResampleStream, wav: Tensor, last: bool = False) -> Tensor:
    """Feed [C, t] to a resampler and return what is ready, [C, t']."""
    out = resampler.resample_chunk(np.ascontiguousarray(wav.numpy().T), last)
    return torch.from_numpy(np.ascontiguousarray(out.T))


def read(
    path: str | os.PathLike[str], rate: int | None = None, channels: int | None = None,
    start: float = 0.0, duration: float | None = None,
) -> Audio:  # fmt: skip
    """Read a file, or ``duration`` seconds of it from ``start`` on, as :class:`Audio` with wav [C, T].

    ``rate`` and ``channels`` convert; without them the file's own are kept. A window is cut first and resampled then,
    so its first and last millisecond may differ from the same part of the whole file resampled. A window that runs
    past the end is shorter.
    """
    parts = list(_stream(path, rate, channels, start, duration))
    return Audio(torch.cat(parts, dim=1), rate or info(path).rate)


def blocks(
    path: str | os.PathLike[str], seconds: float = 10.0, rate: int | None = None, channels: int | None = None,
    heard: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield the file as tensors [C, T] of ``seconds`` each (the last one shorter), in bounded memory.

    The blocks laid end to end are exactly what :func:`read` returns: the resampler keeps its state between blocks.
    heard: told how many samples at the file's own rate were read, step by step; headers only estimate some lengths.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise AudioError(f"blocks of {seconds} s are out of range; use more than 0, for instance 10")
    size = max(1, round(seconds * (rate or info(path).rate)))
    waiting: list[Tensor] = []
    held = 0
    for part in _stream(path, rate, channels, 0.0, None, heard):
        waiting.append(part)
        held += part.shape[1]
        if held < size:
            continue
        joined = torch.cat(waiting, dim=1)
        whole = held // size * size
        for block in torch.split(joined[:, :whole], size, dim=1):
            yield block.clone()
        waiting, held = [joined[:, whole:]], held - whole
    if held:
        yield torch.cat(waiting, dim=1)


def resample(wav: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Change the sampling rate of ``wav`` [..., T] -> [..., round(T * to_rate / from_rate)] float32, on the CPU.

    No gradient flows through it. Quality: "very high" of the SoX resampler (pass band to 0.95 of the lower Nyquist).
    """
    if from_rate <= 0 or to_rate <= 0:
        raise AudioError(f"cannot resample from {from_rate} to {to_rate} Hz; both rates must be positive")
    wav = wav.detach().to("cpu", torch.float32)
    if from_rate == to_rate:
        return wav
    if wav.numel() == 0:
        return wav.new_zeros((*wav.shape[:-1], math.floor(wav.shape[-1] * to_rate / from_rate + 0.5)))
    flat = np.ascontiguousarray(wav.reshape(-1, wav.shape[-1]).numpy().T)
    out = soxr.resample(flat, from_rate, to_rate, quality=QUALITY)
    return torch.from_numpy(np.ascontiguousarray(out.T)).reshape(*wav.shape[:-1], -1)


def to_channels(wav: Tensor, channels: int) -> Tensor:
    """Give ``wav`` [C, T] another number of channels -> [channels, T].

    * one to many: copies;
    * surround (3, 4, 5, 6 = 5.1, 8 = 7.1, in WAV order) to stereo: ITU-R BS.775, centre and surrounds at -3 dB, no LFE;
    * surround to mono: the mean of that stereo; any other count to mono or stereo: the mean of all.

    Weights sum to one, so a down-mix never clips. Stereo is not spread to more channels.
    """
    have = wav.shape[0]
    if have == channels:
        return wav
    if channels < 1 or (have > 1 and channels > 2):
        raise AudioError(f"cannot make {channels} channels of {have}; ask for 1 or 2")
    if have == 1:
        return wav.repeat(channels, 1)
    if have in _STEREO:
        weights = torch.tensor(_STEREO[have], dtype=wav.dtype, device=wav.device)  # [2, C]
        wav = (weights / weights.sum(1, keepdim=True)) @ wav
    mono = wav.mean(0, keepdim=True)
    if channels == 1:
        return mono
    return wav if wav.shape[0] == 2 else mono.repeat(2, 1)


def write(path: str | os.PathLike[str], audio: Audio, bitrate: int | None = None) -> None:
    """Write ``audio`` in the format of the file name's suffix: .wav and .flac (24 bit), .ogg (Vorbis), .opus, .mp3.

    ``bitrate`` is in bits per second of the whole stream, for the last three (Vorbis: approximate). Opus and MP3 know
    few rates: others are resampled to the next higher one they know. The file appears whole or not at all. Samples
    beyond -1 ... 1 are clipped, with a warning; NaN is refused.
    """
    where = Path(path)
    check_format(where, audio.wav.shape[0])
    wav, rate = audio.wav.detach().to("cpu", torch.float32), audio.rate
    if wav.numel() == 0 or not bool(torch.isfinite(wav).all()):
        fault = "holds NaN or infinite samples" if wav.numel() else f"is empty (shape {tuple(wav.shape)})"
        raise AudioError(f"{where}: the signal {fault}; nothing was written")
    known = rate_for(where, rate)
    wav, rate = resample(wav, rate, known), known
    peak = float(wav.abs().max())
    if peak > 1.0:
        warnings.warn(f"{where}: the peak is {peak:.2f}; samples beyond 1 were clipped", stacklevel=2)
    options = _options(where, where.suffix.lower(), bitrate, rate, wav.shape[0])
    data = _encoded(where, wav.clamp(-1.0, 1.0), rate, options)
    try:
        with whole_file(where) as part:
            part.write_bytes(data)
    except OSError as error:
        raise AudioError(f"{where}: {error.strerror}") from error
    except ValueError as error:
        raise AudioError(str(error)) from error


def _options(where: Path, suffix: str, bitrate: int | None, rate: int, channels: int) -> dict[str, object]:
    """Translate a bit rate to libsndfile's compression level 0 (large) ... 1 (small), which each format spaces anew."""
    kind, subtype = FORMATS[suffix]
    options: dict[str, object] = {"format": kind, "subtype": subtype}
    if bitrate is None:
        if suffix != ".mp3":
            return options
        bitrate = 192_000 if rate >= 32000 else 96_000  # libsndfile's own default is a low variable rate
    if subtype == "PCM_24":
        raise AudioError(f"{where}: {kind} is lossless and has no bit rate; leave it out, or use .opus, .ogg or .mp3")
    kbps = bitrate / 1000
    if suffix == ".opus":
        low, high = 6.0 * channels, 256.0 * channels
    elif suffix == ".mp3":
        low, high = (32.0, 320.0) if rate >= 32000 else (8.0, 160.0)
        options["bitrate_mode"] = "CONSTANT"
    else:
        scale = channels / 2 * rate / 44100
        low, high = _VORBIS_KBPS[0] * scale, _VORBIS_KBPS[-1] * scale
    if not low <= kbps <= high:
        raise AudioError(f"{where}: a bit rate of {bitrate} is out of range; use {low * 1000:.0f} to {high * 1000:.0f}")
    level = (high - kbps) / (high - low)
    if suffix == ".ogg":
        level = 1 - float(np.interp(kbps / scale, _VORBIS_KBPS, np.linspace(0, 1, len(_VORBIS_KBPS))))
    return options | {"compression_level": min(level, 0.99)}  # the MP3 encoder refuses 1


def _encoded(where: Path, wav: Tensor, rate: int, options: dict[str, object]) -> memoryview:
    """Encode [C, T] in memory: a full disk then shows as a plain error of the one write that follows."""
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", samplerate=rate, channels=wav.shape[0], **options) as file:
            for part in torch.split(wav, STEP, dim=1):
                # soundfile has time first
                file.write(whole_numbers(np.ascontiguousarray(part.numpy().T), str(options["subtype"])))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        what = f"{where}: {wav.shape[0]} channels at {rate} Hz do not go into this format"
        raise AudioError(f"{what} ({_said(error)}); use .wav or .flac") from error
    return buffer.getbuffer()
