"""Everything the codec report scores: codecs of ours and of others, Opus, MP3, and the controls that keep us honest."""

from __future__ import annotations

import hashlib
import inspect
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..codec import bitstream, context, files, levels, load, stft
from ..codec.audio import resample, to_channels
from ..codec.contract import Codec, SegmentedCodec
from . import bench_codec_classical as classical
from .bench_codec_classical import Heard, fit

OPUS_RATES: tuple[int, ...] = (6, 8, 12, 16, 24, 32)
MP3_RATES: tuple[int, ...] = (24, 32, 48, 64)


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the report: plain data, so that it can travel to another process."""

    name: str
    family: str
    """The curve it lies on."""
    kind: str
    """``codec``, ``opus``, ``mp3`` or ``control``."""
    source: str = ""
    """Folder or name of a codec; name of a control."""
    books: int = 0
    kbps: float = 0.0
    """Nominal rate of Opus and MP3."""
    ours: bool = False
    mark: str
    """What its scores depend on besides the audio: weights and code, or library."""

    def apply(self, wav: Tensor, rate: int) -> Heard:
        """What it makes of wav [C, T] at ``rate`` Hz."""
        if self.kind == "codec":
            codec = loaded(self.source)
            if self.ours:
                return through_file(codec, wav, rate, self.books, tables_of(self.source))
            return neural(codec, wav, rate, self.books)
        if self.kind == "control":
            return Heard(CONTROLS[self.source](wav, rate), None)
        return (classical.opus if self.kind == "opus" else classical.mp3)(wav, rate, self.kbps)


def systems(
    codecs: Mapping[str, str], peers: Mapping[str, str], rate: int, channels: int, anchors: bool = True
) -> list[System]:
    """Rows for codecs of ours and of others (name shown -> folder), then, as ``anchors``, Opus, MP3 and the controls.

    rate and channels are those of the scored audio: Opus and MP3 get the rates of :data:`OPUS_RATES` and
    :data:`MP3_RATES` for every channel.
    """
    rows = []
    for shown, (source, ours) in {
        **{name: (folder, False) for name, folder in peers.items()},
        **{name: (folder, True) for name, folder in codecs.items()},
    }.items():
        codec = loaded(source)
        if codec.channels > channels:
            raise ValueError(f"{shown} is stereo: score it with channels=2")
        mark = codec_mark(codec, tables_of(source) if ours else None)
        for books in rates_of(codec):
            name = f"{shown}, {books} book{'s' * (books > 1)}"
            rows.append(System(name=name, family=shown, kind="codec", source=source, books=books, ours=ours, mark=mark))
    rows.sort(key=lambda row: not row.ours)
    if not anchors:
        return rows
    kind = "mono" if channels == 1 else "stereo"
    mark = _library_mark()
    for family, code, offered in (("Opus", "opus", OPUS_RATES), ("MP3", "mp3", MP3_RATES)):
        for each in offered:
            kbps = each * channels
            rows.append(System(name=f"{family} {kind} {kbps}", family=family, kind=code, kbps=float(kbps), mark=mark))
    own = _source_mark((sys.modules[__name__],))
    for name in CONTROLS:
        if not name.startswith("low-pass") or float(name.split()[1]) * 2000 < rate:
            rows.append(System(name=name, family="control", kind="control", source=name, mark=own))
    return rows


def rates_of(codec: Codec) -> list[int]:
    """The numbers of books to score: an eighth, a quarter, half, three quarters and all of them."""
    return sorted({max(1, round(codec.books * share)) for share in (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)})


@torch.no_grad()
def through_file(codec: Codec, wav: Tensor, rate: int, books: int, tables: context.Context | None = None) -> Heard:
    """What ``descant encode`` and ``descant decode`` make of wav [C, T] at ``rate`` Hz -> [C, T], level and all.

    The file is the packed one; with ``tables`` the size of the entropy-coded one is told beside it.
    """
    import soundfile

    source, target = io.BytesIO(), io.BytesIO()
    soundfile.write(source, wav.T.contiguous().numpy(), rate, format="WAV", subtype="FLOAT")
    source.seek(0)
    size = files.encode_file(source, target, codec, books=books).size
    data = target.getvalue()
    back = torch.cat(list(files.decoded_blocks(bitstream.Reader(io.BytesIO(data)), codec)), dim=-1)
    back = fit(resample(to_channels(back, wav.shape[0]), codec.rate, rate), wav.shape[-1])
    chunks = list(bitstream.Reader(io.BytesIO(data)))
    bits = sum(raw_bits(codec, chunk.codes) for chunk in chunks)
    coded = None if tables is None else len(recoded(data, tables))
    return Heard(back, size, bits=bits, coded=coded)


def recoded(data: bytes, tables: context.Context) -> bytes:
    """The same ``.dsc`` file with its codes entropy-coded."""
    reader, buffer = bitstream.Reader(io.BytesIO(data)), io.BytesIO()
    with bitstream.Writer(buffer, reader.header, "entropy", tables) as writer:
        for chunk in reader:
            writer.write(chunk.codes, chunk.gain)
        writer.close(reader.samples)
    return buffer.getvalue()


@lru_cache(maxsize=8)
def tables_of(source: str) -> context.Context | None:
    """The entropy coder's tables beside a codec's weights; None where there are none."""
    packed = Path(__file__).resolve().parent.parent / "gen" / "weights" / f"codec_{source}"
    folder = Path(source) if Path(source).is_dir() else packed
    return context.load(folder) if folder.is_dir() else None


@torch.no_grad()
def neural(codec: Codec, wav: Tensor, rate: int, books: int) -> Heard:
    """Encode and decode as its authors do, and take the bytes of a ``.dsc`` file: wav [C, T] at ``rate`` Hz -> [C, T].

    A codec that normalises segments is charged for its raw codes and 32 bits of scale a segment, without a container.
    """
    given = to_channels(resample(wav, rate, codec.rate), codec.channels)[None]
    segmented = _segmented(codec)
    if segmented is not None:
        parts = segmented.segments(given, books)
        bits = sum(raw_bits(codec, part.codes) + 32 for part in parts)
        back, size = segmented.from_segments(parts, given.shape[-1])[0], -(-bits // 8)
    else:
        codes = codec.encode(given, books)
        bits, size = raw_bits(codec, codes), len(file_of(codec, codes, given.shape[-1]))
        back = codec.decode(codes)[0]
    back = to_channels(fit(back, given.shape[-1]), wav.shape[0])
    return Heard(fit(resample(back, codec.rate, rate), wav.shape[-1]), size, 0, bits)


def raw_bits(codec: Codec, codes: Tensor) -> int:
    """Bits of codes [B, K, F] without any container."""
    return codes.numel() * (codec.cardinality - 1).bit_length()


def file_of(codec: Codec, codes: Tensor, samples: int) -> bytes:
    """The ``.dsc`` file of codes [1, K, F], packed."""
    buffer = io.BytesIO()
    with bitstream.Writer(buffer, bitstream.Header.of(codec, books=codes.shape[1], samples=samples)) as writer:
        writer.write(codes[0])
        writer.close(samples)
    return buffer.getvalue()


def codes_of(codec: Codec, wav: Tensor, rate: int) -> Tensor:
    """All books' codes [K, F] of wav [C, T] at ``rate`` Hz, segments laid end to end."""
    given = to_channels(resample(wav, rate, codec.rate), codec.channels)[None]
    segmented = _segmented(codec)
    if segmented is not None:
        return torch.cat([part.codes[0] for part in segmented.segments(given)], dim=-1)
    return codec.encode(given)[0]


def _segmented(codec: Codec) -> SegmentedCodec | None:
    # isinstance would ask for every attribute, and a fingerprint hashes all weights; EnCodec's 24 and 32 kHz models
    # have the method, too, but cut nothing
    cuts = hasattr(codec, "segments") and getattr(codec, "segmented", True)
    return cast(SegmentedCodec, codec) if cuts else None


@lru_cache(maxsize=8)
def loaded(source: str) -> Codec:
    """A codec by name or folder, loaded once a process."""
    codec: Codec = load(source)
    return codec


def codec_mark(codec: Codec, tables: context.Context | None = None) -> str:
    """What a codec's scores depend on: weights, configuration, entropy tables, and the code of its layers and files."""
    names = {type(part).__module__ for part in codec.modules()} if isinstance(codec, torch.nn.Module) else set()
    names |= {type(codec).__module__, *(one.__name__ for one in (bitstream, files, levels, stft))}
    own = __name__.partition(".")[0]
    playback = getattr(getattr(codec, "config", None), "lift", ())  # which the fingerprint leaves out
    digest = hashlib.sha256(bytes(codec.fingerprint) + f"{tables.identity if tables else 0} {playback}".encode())
    for name in sorted(name for name in names if name.split(".")[0] == own):
        digest.update(_code(name))
    return digest.hexdigest()[:16]


def _library_mark() -> str:
    import soundfile

    return f"{soundfile.__libsndfile_version__} {_source_mark((classical,))}"


def _source_mark(modules: tuple[Any, ...]) -> str:
    return hashlib.sha256(b"".join(_code(one.__name__) for one in modules)).hexdigest()[:12]


@lru_cache(maxsize=64)
def _code(module: str) -> bytes:
    # once a process: what runs is what was read at the beginning, whatever somebody edits meanwhile
    return Path(inspect.getfile(sys.modules[module])).read_bytes()


def random_phase(wav: Tensor, rate: int) -> Tensor:
    """Every magnitude kept, every phase thrown away: wav [C, T] -> [C, T], windows of 32 ms, one fixed draw."""
    window = 4 * round(rate * 0.032 / 4)
    length = -(-wav.shape[-1] // (window // 4)) * (window // 4)
    spec = stft.analyse(fit(wav, length), window, window // 4)
    angle = torch.rand(spec.shape, generator=torch.Generator().manual_seed(0)) * (2 * torch.pi)
    return fit(stft.synthesise(torch.polar(spec.abs(), angle), window, window // 4), wav.shape[-1])


def low_pass(wav: Tensor, rate: int, cut: float) -> Tensor:
    """Nothing above ``cut`` Hz, everything below 200 Hz less, linear between; no delay. wav [C, T] -> [C, T]."""
    spec = torch.fft.rfft(wav.double())
    bins = torch.arange(spec.shape[-1]) * (rate / wav.shape[-1])
    kept: Tensor = torch.fft.irfft(spec * ((cut - bins) / 200).clamp(0, 1), wav.shape[-1])
    return kept.float()


def _identity(wav: Tensor, rate: int) -> Tensor:
    return wav.clone()


def _flipped(wav: Tensor, rate: int) -> Tensor:
    return -wav


def _halved(wav: Tensor, rate: int) -> Tensor:
    return 0.5 * wav


#: What each measure says about sound that is not coded at all.
CONTROLS: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "identity": _identity,
    "polarity flipped": _flipped,
    "6 dB softer": _halved,
    "random phase": random_phase,
    "low-pass 3.5 kHz": partial(low_pass, cut=3500.0),
    "low-pass 8 kHz": partial(low_pass, cut=8000.0),
    "low-pass 12 kHz": partial(low_pass, cut=12_000.0),
}
