"""How fast codecs are on one core: times real time, in CPU time, encoding and decoding apart."""

from __future__ import annotations

import io
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..codec import bitstream
from ..codec.audio import resample, to_channels
from ..codec.context import Context
from ..codec.contract import Codec
from . import bench_stream
from .bench_codec_classical import decoded, mp3_file, mp3_rate, opus_file

#: Runs of which the best counts: everything else that a machine does only ever adds time.
REPEATS = 5


def of_codec(
    codec: Codec, wav: Tensor, rate: int, streams: bool = False, tables: Context | None = None
) -> dict[str, float]:
    """Speed with all books on wav [C, T] at ``rate`` Hz: {"encode": times real time, "decode": the same}.

    streams: measure the streams of :mod:`descant.recipes.bench_stream`, too; tables: and the entropy coder alone.
    """
    given = to_channels(resample(wav, rate, codec.rate), codec.channels)[None]
    codes = codec.encode(given)
    seconds = wav.shape[-1] / rate
    found = {
        "encode": seconds / best(partial(codec.encode, given)),
        "decode": seconds / best(partial(codec.decode, codes)),
    }
    if streams:
        with one_thread():
            found |= bench_stream.speed(codec, 20)
    if tables is not None:
        found |= of_coder(codec, codes[0], tables)
    return found


def of_coder(codec: Codec, codes: Tensor, tables: Context) -> dict[str, float]:
    """Speed of the entropy coder alone, from codes [K, F] to a ``.dsc`` file in memory and back, a full group."""
    header = bitstream.Header.of(codec, books=codes.shape[0])
    length = 15 * header.chunk_frames
    codes = codes.repeat(1, -(-length // codes.shape[1]))[:, :length]

    def write() -> bytes:
        buffer = io.BytesIO()
        with bitstream.Writer(buffer, header, "entropy", tables) as writer:
            writer.write(codes)
        return buffer.getvalue()

    data, seconds = write(), length * codec.hop / codec.rate
    return {
        "coder_encode_x": seconds / best(write),
        "coder_decode_x": seconds / best(lambda: list(bitstream.Reader(io.BytesIO(data), tables, codec.cardinality))),
    }


def of_file_formats(wav: Tensor, rate: int) -> dict[str, dict[str, float]]:
    """Speed of Opus at 16 and MP3 at 64 kbps a channel through libsndfile, in memory, on wav [C, T] at ``rate`` Hz."""
    seconds, found = wav.shape[-1] / rate, {}
    at = mp3_rate(rate, 64)
    for name, given, write in (
        ("Opus", resample(wav, rate, 48_000), partial(opus_file, rate=48_000, kbps=16 * wav.shape[0])),
        ("MP3", resample(wav, rate, at), partial(mp3_file, rate=at, kbps=64 * wav.shape[0])),
    ):
        data = write(given)
        found[name] = {
            "encode": seconds / best(partial(write, given)),
            "decode": seconds / best(partial(decoded, data)),
        }
    return found


def best(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least CPU time in seconds of ``work`` on one thread; the first run only counts where it takes seconds."""
    times: list[float] = []
    with one_thread():
        for _ in range(1 + repeats):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
            if times[0] > 5:
                return times[0]
    return min(times[1:])


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def processor() -> str:
    """The name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
