"""Sound on a page: where a file lies as seen from the page, or the sound itself as Opus, and its spectrogram as PNG."""

from __future__ import annotations

import base64
import functools
import math
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...codec.audio import Audio, AudioError, read, resample, to_channels, write
from ...codec.stft import stft
from ..embed import SUFFIXES
from .page_html import Raw, address, tag

#: Spectrogram: columns and rows of the picture, the lowest and highest pitch in Hz, the quietest and loudest in dBFS.
COLUMNS, ROWS = 320, 88
PITCHES, LEVELS = (40.0, 16_000.0), (-84.0, -12.0)
#: Seconds of a clip that its spectrogram, or its embedded copy, shows at most.
SHOWN = 30.0
_SHADES = 24
_RATE = 32_000
#: Anchors of the colours from quiet to loud: night blue, violet, rose, amber, cream.
_COLOURS = ((13, 12, 34), (62, 32, 104), (158, 48, 110), (226, 96, 72), (247, 178, 90), (253, 246, 214))


@dataclass
class Sounds:
    """Makes players for the files of a page in ``folder``, and remembers which files were missing.

    With ``embed``, files become Opus inside the page, up to ``limit`` bytes of them; the rest are referred to.
    """

    folder: Path
    embed: bool = False
    limit: int = 48_000_000
    missing: list[str] = field(default_factory=list)
    outside: int = 0
    """Files that did not go into the page because the limit was reached."""
    used: int = 0

    def place(self, file: str) -> Path:
        """A path of a report, which is relative to it or absolute."""
        return self.folder / file

    def is_sound(self, text: str) -> bool:
        """Whether a condition names an audio file."""
        return len(text) < 4096 and "\n" not in text and Path(text).suffix.lower() in SUFFIXES

    def player(self, file: str, name: str) -> Raw:
        """A player with controls, or a line that says that the file is not there."""
        source = self.source(file)
        if source is None:
            return tag("p", "file missing: ", tag("code", file), class_="missing")
        return tag("audio", controls=True, preload="none", src=source, aria_label=name)

    def source(self, file: str) -> str | None:
        """Address of a file, or the sound itself; None when the file is not there."""
        path = self.place(file)
        if not os.path.isfile(path):
            if file not in self.missing:
                self.missing.append(file)
            return None
        if self.embed:
            if self.used < self.limit:
                try:
                    data = base64.b64encode(opus(path)).decode()
                except (AudioError, OSError):
                    return address(path, self.folder)
                self.used += len(data)
                return f"data:audio/ogg;base64,{data}"
            self.outside += 1
        return address(path, self.folder)

    def picture(self, file: str, name: str) -> Raw | None:
        """The spectrogram of a file, or None when it cannot be read."""
        try:
            sound = read(self.place(file), channels=1, duration=SHOWN)
        except (AudioError, OSError):
            return None
        data = base64.b64encode(spectrogram(sound)).decode()
        words = f"Spectrogram of {name}, {PITCHES[0]:.0f} Hz to 16 kHz, {sound.duration:.1f} s"
        return tag("img", src=f"data:image/png;base64,{data}", alt=words, width=COLUMNS, height=ROWS,
                   decoding="async", data_seconds=f"{sound.duration:.3f}")  # fmt: skip


def spectrogram(sound: Audio) -> bytes:
    """The level of each pitch over time as a PNG; pitches in equal steps of a logarithm, levels in dB of full scale."""
    wav = resample(to_channels(sound.wav, 1), sound.rate, _RATE)[0]
    # at most 1500 frames, so that the memory does not grow with the clip
    levels = _levels(wav, 4096, max(256, math.ceil(wav.numel() / 1500)))  # [ROWS, F]
    across = torch.linspace(0, levels.shape[1], COLUMNS + 1).long()
    # the loudest of what falls into a column: attacks would drown in a mean
    columns = [
        levels[:, a : max(a + 1, b)].amax(1) for a, b in zip(across[:-1].tolist(), across[1:].tolist(), strict=True)
    ]
    picture = torch.stack(columns, dim=1).flip(0)
    shade = ((picture - LEVELS[0]) / (LEVELS[1] - LEVELS[0])).clamp(0, 1) * (_SHADES - 1)
    return png(shade.round().to(torch.uint8).numpy(), palette(_SHADES))


def _levels(wav: Tensor, n_fft: int, hop: int) -> Tensor:
    """wav [T] -> dBFS [ROWS, F] at pitches in equal steps of a logarithm."""
    spec = stft(wav[None], n_fft, hop)[0].abs() / (n_fft / 4)  # a full-scale sine is 1
    bins = _centres().mul(n_fft / _RATE)
    below = bins.floor().long()
    share = (bins - below)[:, None]
    rows = spec[below] * (1 - share) + spec[below + 1] * share
    # up high one row spans several bins: the loudest counts
    edges = torch.stack([bins * 0.965, bins * 1.036], dim=1).round().long()
    wide = [spec[a : max(a + 1, b)].amax(0) for a, b in edges.tolist()]
    return 20 * torch.log10(torch.maximum(rows, torch.stack(wide)).clamp_min(1e-9))


def _centres() -> Tensor:
    low, high = (math.log(pitch) for pitch in PITCHES)
    return torch.linspace(low, high - 1e-3, ROWS).exp()


@functools.lru_cache(maxsize=4)
def palette(count: int) -> bytes:
    """``count`` colours from quiet to loud, three bytes each."""
    anchors = np.asarray(_COLOURS, dtype=np.float64)
    places = np.linspace(0, len(anchors) - 1, count)
    channels = [np.interp(places, np.arange(len(anchors)), anchors[:, k]) for k in range(3)]
    return bytes(np.stack(channels, axis=1).round().astype(np.uint8).tobytes())


def png(picture: np.ndarray, colours: bytes) -> bytes:
    """An image of palette indices [rows, columns] uint8 as PNG (W3C PNG, 2nd edition: colour type 3, no filter)."""
    if picture.ndim != 2 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"a picture is {picture.dtype} of shape {picture.shape}: need uint8 [rows, columns]")
    if len(colours) % 3 or int(picture.max()) >= len(colours) // 3 or len(colours) > 768:
        raise ValueError(f"{len(colours) // 3} colours for indices up to {int(picture.max())}: need one for each")
    height, width = picture.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), picture], axis=1).tobytes()  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def opus(path: str | os.PathLike[str], bitrate: int = 64_000) -> bytes:
    """The first :data:`SHOWN` seconds of a file as Ogg Opus, the same bytes each time."""
    sound = read(path, duration=SHOWN)
    sound = Audio(to_channels(sound.wav, min(2, sound.wav.shape[0])), sound.rate)
    peak = float(sound.wav.abs().max())
    if peak > 1.0:
        sound = Audio(sound.wav / peak, sound.rate)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "sound.opus"
        write(where, sound, bitrate=bitrate)
        return same_serial(where.read_bytes())


def same_serial(data: bytes) -> bytes:
    """An Ogg stream with serial number 1 (RFC 3533, section 6): encoders draw one at random."""
    out = bytearray(data)
    place = 0
    while place < len(out):
        if out[place : place + 4] != b"OggS" or place + 27 > len(out):
            raise ValueError(f"no Ogg page at byte {place}: the stream is damaged")
        table = 27 + out[place + 26]
        size = table + sum(out[place + 27 : place + table])
        out[place + 14 : place + 18] = struct.pack("<I", 1)
        out[place + 22 : place + 26] = bytes(4)
        out[place + 22 : place + 26] = struct.pack("<I", _ogg_checksum(bytes(out[place : place + size])))
        place += size
    return bytes(out)


def _ogg_checksum(page: bytes) -> int:
    table = _ogg_table()
    total = 0
    for byte in page:
        total = (total << 8 & 0xFFFFFFFF) ^ table[total >> 24 ^ byte]
    return total


@functools.lru_cache(maxsize=1)
def _ogg_table() -> tuple[int, ...]:
    """CRC-32 of polynomial 0x04c11db7, not reflected, as Ogg has it."""
    table = []
    for k in range(256):
        value = k << 24
        for _ in range(8):
            value = (value << 1) ^ 0x04C11DB7 if value & 0x80000000 else value << 1
        table.append(value & 0xFFFFFFFF)
    return tuple(table)
