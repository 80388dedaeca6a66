"""Audio files to ``.dsc`` files and back, of any length in bounded memory.

A file is read in chunks of a few seconds, resampled and mapped to the codec's rate and channels, brought to a level
the codec codes well (:mod:`descant.codec.levels`), and encoded by a stream; decoding does the opposite and gives as
many samples as were encoded. Sources and targets are paths or open binary files, pipes included. What is written under
a name appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import torch
from torch import Tensor

from . import audio
from .bitstream import BitstreamError, Damage, Header, Reader, Writer
from .contract import Codec
from .levels import Envelope, gain_of, range_of
from .sink import binary, sound

if TYPE_CHECKING:
    from .entropy import Coder

#: Told how many samples at the codec's rate are done, and how many there are (None: not known yet).
Progress = Callable[[int, "int | None"], None]
Source = str | os.PathLike[str] | BinaryIO
#: Changes of level smaller than this, in dB, do not change the gain of a chunk.
HOLD_DB = 3.0


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What was encoded: ``samples`` at the codec's rate, token ``frames``, ``books`` each, ``size`` bytes written."""

    samples: int
    frames: int
    books: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """What was decoded: ``samples`` at ``rate``, how many of them were ``clipped``, and what was damaged."""

    samples: int
    rate: int
    clipped: int
    damage: tuple[Damage, ...]


def encode_file(
    source: Source, target: Source, codec: Codec, *, books: int | None = None,
    coder: Literal["packed", "entropy"] = "packed", tables: Coder | None = None, progress: Progress | None = None,
) -> Encoded:  # fmt: skip
    """Encode an audio file of any format, rate and channel count into a ``.dsc`` file.

    source: audio, wav [C', T] at any rate; target: codes int64 [K, F] with a gain per chunk, as
    :mod:`descant.codec.bitstream` writes them. books: how many (None: all); tables: for ``coder="entropy"``. Raises
    AudioError for audio that cannot be used, ValueError for options the codec does not have, OSError for a full disk.
    """
    header = Header.of(codec, books=books)
    if not 1 <= header.books <= codec.books:
        raise ValueError(f"books must lie in 1..{codec.books}, got {books}")
    with _local(source) as path, binary(target) as file:
        counted = _Counted(file)
        with Writer(cast(BinaryIO, counted), header, coder, tables) as writer:
            samples = _encode(path, codec, writer, progress)  # closes it
            frames = writer.frames
    return Encoded(samples=samples, frames=frames, books=header.books, size=counted.size)


def decode_file(
    source: Source, target: Source, codec: Codec, *, rate: int | None = None, tables: Coder | None = None,
    progress: Progress | None = None,
) -> Decoded:  # fmt: skip
    """Decode a ``.dsc`` file into an audio file, exactly as many samples as were encoded.

    source: codes int64 [K, F]; target: wav [C, T], its format said by the suffix of its name, WAV into a pipe. rate:
    the file's rate (None: the codec's; Opus and MP3 take the next one they know). The file is exactly as long as what
    was encoded: n samples at r Hz become round(n * rate / r). Damaged chunks are concealed and reported. Raises
    BitstreamError for a file that is none of ours or was made by another codec.
    """
    if rate is not None and not 1000 <= rate <= 1_000_000:
        raise ValueError(f"a rate of {rate} Hz is out of range; use 1000 to 1000000, for instance 44100")
    with contextlib.ExitStack() as stack:
        if isinstance(source, str | os.PathLike):
            source = stack.enter_context(Path(source).open("rb"))
        reader = Reader(source, tables, codec.cardinality)
        _check_fits(reader.header, codec)
        path = stack.enter_context(_or_pipe(target))
        sink = stack.enter_context(sound(path, codec.rate, codec.channels, rate, reader.samples))
        for wav in decoded_blocks(reader, codec, progress):
            # from a pipe this is known when the last block is there
            if reader.source is not None:
                sink.total = round(reader.source[1] * sink.rate / reader.source[0])
            sink.add(wav)
        if sink.empty:
            raise BitstreamError("holds no sound (0 frames); encode it again")
    return Decoded(samples=sink.samples, rate=sink.rate, clipped=sink.clipped, damage=tuple(reader.damage))


def decoded_blocks(reader: Reader, codec: Codec, progress: Progress | None = None) -> Iterator[Tensor]:
    """Yield the sound of a ``.dsc`` file as tensors [C, T], a chunk each, trimmed to its exact length."""
    skip, done = reader.header.pre_skip, 0
    held = torch.zeros(codec.channels, 0)
    for wav in _levelled(reader, codec):
        held = torch.cat([held, wav[:, skip:]], 1)
        skip = max(0, skip - wav.shape[1])
        # of the last frame only a part may count, and how much may stand at the very end of the file
        ready = held.shape[1] - codec.hop
        if reader.samples is not None:
            held = held[:, : reader.samples - done]
            ready = min(ready, held.shape[1])
        if ready > 0:
            done += ready
            yield held[:, :ready]
            held = held[:, ready:].clone()
            if progress is not None:
                progress(done, reader.samples)
    held = held if reader.samples is None else held[:, : reader.samples - done]
    if held.shape[1]:
        yield held
    if progress is not None:
        progress(done + held.shape[1], done + held.shape[1])


def _levelled(reader: Reader, codec: Codec) -> Iterator[Tensor]:
    """Decode chunk after chunk and give each its level: [C, T], a little late at first."""
    decoder, envelope = codec.decoder_stream(), Envelope(codec.rate)
    wav, factors = torch.zeros(codec.channels, 0), torch.zeros(0)
    device = _device(codec)
    for chunk in reader:
        wav = torch.cat([wav, decoder.push(chunk.codes[None].to(device))[0].cpu()], 1)
        factors = torch.cat([factors, envelope.push(chunk.gain, chunk.codes.shape[1] * codec.hop)])
        ready = min(wav.shape[1], len(factors))
        yield wav[:, :ready] * factors[:ready]
        wav, factors = wav[:, ready:].clone(), factors[ready:].clone()
    wav = torch.cat([wav, decoder.finish()[0].cpu()], 1)
    factors = torch.cat([factors, envelope.finish()])
    yield wav * factors


def _encode(path: Path, codec: Codec, writer: Writer, progress: Progress | None) -> int:
    """Encode an audio file chunk by chunk, close the writer and return the samples at the codec's rate."""
    size, device = writer.header.chunk_frames, _device(codec)
    encoder = codec.encoder_stream(writer.header.books)
    codes = torch.zeros(writer.header.books, 0, dtype=torch.int64)
    gains: deque[float] = deque()
    about = audio.info(path)
    expected = max(1, round(about.duration * codec.rate))
    samples, heard = 0, _Sum()
    for wav, gain in _brought_to_level(path, codec, size * codec.hop, heard.add):
        gains.append(gain)
        samples += wav.shape[1]
        codes = torch.cat([codes, encoder.push(wav[None].to(device))[0].cpu()], 1)
        while codes.shape[1] >= size:
            writer.write(codes[:, :size], gains.popleft())
            codes = codes[:, size:].clone()
        if progress is not None:
            progress(min(samples, expected), expected)
    if heard.total and not samples:
        # a sample or two at a high rate are none at ours: a moment of silence stands for them
        encoder.push(torch.zeros(1, codec.channels, 1, device=device))
        gains.append(0.0)
        samples = 1
    codes = torch.cat([codes, encoder.finish()[0].cpu()], 1)
    for part in torch.split(codes, size, 1) if codes.shape[1] else ():
        writer.write(part, gains.popleft())
    writer.close(samples, source=(about.rate, heard.total))
    if progress is not None:
        progress(samples, samples)
    return samples


def _brought_to_level(
    path: Path, codec: Codec, size: int, heard: Callable[[int], None]
) -> Iterator[tuple[Tensor, float]]:
    """Read chunks [C, T] of ``size`` samples, each with the gain that belongs on its decoded sound."""
    envelope, span = Envelope(codec.rate), range_of(codec)
    held: tuple[Tensor, float] | None = None
    for wav in audio.blocks(path, size / codec.rate, codec.rate, codec.channels, heard):
        gain = gain_of(wav, span)
        # a gain that stays costs the file next to nothing; the coder does not hear a few decibels
        if held is not None and abs(gain - held[1]) < HOLD_DB:
            gain = held[1]
        # whole frames, for that is what the decoder knows of
        factors = envelope.push(gain, -(-wav.shape[1] // codec.hop) * codec.hop)
        if held is not None:
            yield held[0] / factors[: held[0].shape[1]], held[1]
        held = (wav, gain)
    if held is not None:
        yield held[0] / envelope.finish()[: held[0].shape[1]], held[1]


@contextlib.contextmanager
def _or_pipe(target: Source) -> Iterator[Path]:
    """A path to write sound to; for a pipe a temporary WAV file, which goes into it when all went well."""
    if isinstance(target, str | os.PathLike):
        yield Path(target)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decoded.wav"
        yield path
        with path.open("rb") as file:
            shutil.copyfileobj(file, target, 1 << 20)
        target.flush()


@contextlib.contextmanager
def _local(source: Source) -> Iterator[Path]:
    """A path to read ``source`` from; pipes are copied to a temporary file, because most formats must be searched."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_file() or path.is_dir() or not path.exists():
            yield path
            return
        with path.open("rb") as file, _local(file) as copy:
            yield copy
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "standard input"
        with copy.open("wb") as into:
            shutil.copyfileobj(source, into, 1 << 20)
        yield copy


def _check_fits(header: Header, codec: Codec) -> None:
    if header.fingerprint != codec.fingerprint:
        seen, wanted = header.fingerprint.hex(), codec.fingerprint.hex()
        raise BitstreamError(f"was made by another codec ({seen[:8]}, not {wanted[:8]}); name the one that made it")
    theirs = (header.rate, header.channels, header.hop)
    ours = (codec.rate, codec.channels, codec.hop)
    if theirs != ours or header.books > codec.books:
        raise BitstreamError(f"does not fit its codec (rate, channels, hop {theirs}, not {ours}); encode it again")


def _device(codec: Codec) -> torch.device:
    parameters = getattr(codec, "parameters", None)
    return next(parameters()).device if callable(parameters) else torch.device("cpu")


class _Sum:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, count: int) -> None:
        """Add ``count``."""
        self.total += count


class _Counted:
    """A binary file that counts what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size = file, 0

    def write(self, data: bytes) -> int:
        """Write bytes."""
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        """Hand on what is buffered."""
        self._file.flush()
