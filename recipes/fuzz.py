"""Hurt files and see what the readers of :mod:`descant.codec` do: ``descant bench fuzz``.

A small good file of every kind is changed at random, by seed: bits flipped, bytes set to extremes, cut, spliced,
repeated, and, since check sums would stop most of that at the door, header fields set to extremes *with right check
sums*. A reader may refuse a file by :class:`~descant.codec.bitstream.BitstreamError` and by nothing else, must not give
codes out of range, must not make much more sound than the file could hold, and must not need more than 64 MiB beyond
what the whole file needs.
"""

from __future__ import annotations

import io
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from ..codec import dacfile, ecdc
from ..codec.bitstream import BitstreamError, Header, Reader, Writer
from ..codec.context import Context
from ..codec.groups import Group, Shape, Trailer, read_group, read_trailer, seal
from ..codec.header import HEADER_BYTES
from .entropy import EntropyConfig, Net

#: What a hurt file may need beyond the good one, and the frames it may give beyond those it could hold.
MEMORY, FRAMES = 64 << 20, 1 << 16
_EXTREMES = (0, 1, 2, 127, 128, 254, 255)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A good file and how it is read: ``read`` returns the number of frames it gave."""

    name: str
    data: bytes
    read: Callable[[bytes], int]


@dataclass(kw_only=True)
class Report:
    """What happened: how many files, how many were refused; the worst case of each kind; failures in words."""

    files: int = 0
    refused: int = 0
    seconds: float = 0.0
    """Processor time of the slowest file."""
    ratio: float = 0.0
    """The same as a multiple of the good file's time."""
    memory: int = 0
    """Most bytes any file needed beyond the good one of its kind."""
    failures: list[str] = field(default_factory=list)


def samples(seed: int = 0) -> list[Sample]:
    """Good files of every kind: packed, with gains and changing books, entropy coded both ways, ``.ecdc``, ``.dac``."""
    rng = np.random.default_rng(seed)
    made = []
    tables = small_tables(seed)
    for name, coder, model, top in (("packed", "packed", None, 1024), ("adaptive", "entropy", None, 1024),
                                    ("context", "entropy", tables, 32)):  # fmt: skip
        bits = (top - 1).bit_length()
        header = Header(fingerprint=bytes(range(16)), rate=32000, channels=1, books=4, bits=bits, hop=640,
                        chunk_frames=20)  # fmt: skip
        file = io.BytesIO()
        with Writer(file, header, "entropy" if coder == "entropy" else "packed", model, group=3) as writer:
            held = rng.integers(0, top, (4, 1)).repeat(90, 1)  # what an entropy coder can save on
            writer.write(torch.from_numpy(held))
            writer.write(torch.from_numpy(held[:2, :50]), gain=-3.5)
            writer.write(torch.from_numpy(rng.integers(0, top, (4, 47))))
            writer.close(source=(44100, 164_934))
        made.append(Sample(name=name, data=file.getvalue(), read=_dsc(model)))
    for model_name, books in (("encodec_24khz", 4), ("encodec_48khz", 2)):
        count = 30000 if model_name == "encodec_24khz" else 60000
        codes = tuple(torch.from_numpy(rng.integers(0, 1024, (books, n))) for n in ecdc.lengths(model_name, count))
        scales = tuple(float(x) for x in rng.uniform(0.1, 1, len(codes))) if model_name == "encodec_48khz" else ()
        file = io.BytesIO()
        ecdc.write(file, ecdc.Recording(model=model_name, samples=count, codes=codes, scales=scales))
        made.append(Sample(name=model_name, data=file.getvalue(), read=_ecdc))
    meta = {"input_db": np.array([-20.0], np.float32), "original_length": 10000, "sample_rate": 44100,
            "chunk_length": 20, "channels": 1, "padding": True, "dac_version": "1.0.0"}  # fmt: skip
    file = io.BytesIO()
    row = np.empty((), object)
    row[()] = {"codes": rng.integers(0, 1024, (1, 9, 20)).astype(np.uint16), "metadata": meta}
    np.save(file, row, allow_pickle=True)
    made.append(Sample(name="dac", data=file.getvalue(), read=_dac))
    return made


def small_tables(seed: int = 0) -> Context:
    """A context model with random weights, for four books of 32 codes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Context(Net(4, 32, EntropyConfig(embed=4, hidden=8, rank=8)).tensors())


def _dsc(tables: Context | None) -> Callable[[bytes], int]:
    def read(data: bytes) -> int:
        frames = 0
        reader = Reader(io.BytesIO(data), tables)
        top = 1 << reader.header.bits
        for chunk in reader:
            if chunk.start != frames or not 0 <= int(chunk.codes.min()) <= int(chunk.codes.max()) < top:
                raise RuntimeError(f"chunk at {chunk.start}, expected {frames}, codes to {int(chunk.codes.max())}")
            frames += chunk.codes.shape[1]
        for goal in (0, frames // 2, frames - 1):
            if frames and (reader.frames is None or goal < reader.frames):
                reader.seek(goal)
                next(iter(reader), None)
        return frames

    return read


def _ecdc(data: bytes) -> int:
    return sum(codes.shape[1] for codes in ecdc.read(io.BytesIO(data)).codes)


def _dac(data: bytes) -> int:
    return int(dacfile.read(io.BytesIO(data)).codes.shape[2])


def mutate(sample: Sample, rng: np.random.Generator, others: list[Sample]) -> bytes:
    """One hurt version of a good file."""
    if sample.name in ("packed", "adaptive", "context") and rng.random() < 0.4:
        return _forge(sample.data, rng)
    data = bytearray(sample.data)
    for _ in range(int(rng.integers(1, 4))):
        kind, size = int(rng.integers(7)), len(data)
        if size < 2:
            break
        at = int(rng.integers(size)) if rng.random() < 0.6 else int(rng.integers(min(size, 96)))
        length = int(rng.integers(1, 1 + min(64, size - at)))
        if kind == 0:
            for place in rng.integers(0, size, int(rng.integers(1, 9))):
                data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.choice(_EXTREMES))
        elif kind == 2:
            data[at : at + length] = bytes([int(rng.choice(_EXTREMES))]) * length
        elif kind == 3:
            del data[at : size if rng.random() < 0.5 else at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 5))
        elif kind == 5:
            data[at : at + length] = rng.bytes(length)
        else:
            other = others[int(rng.integers(len(others)))].data
            data[at:] = other[int(rng.integers(len(other))) :]
    return bytes(data)


def _forge(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with a lie in it whose check sums are right."""
    header = Header.from_bytes(data[:HEADER_BYTES])
    kind = int(rng.integers(3))
    if kind == 0:  # a lie in the file's header
        raw = bytearray(data[: HEADER_BYTES - 4])
        at = int(rng.integers(4, len(raw)))
        raw[at : at + int(rng.integers(1, 5))] = bytes([int(rng.choice(_EXTREMES))]) * int(rng.integers(1, 5))
        raw = raw[: HEADER_BYTES - 4].ljust(HEADER_BYTES - 4, b"\xff")
        return bytes(raw) + zlib.crc32(bytes(raw)).to_bytes(4, "little") + data[HEADER_BYTES:]
    parts, trailer = list(_groups(data, header.shape)), read_trailer(data[data.rfind(b"\xd5\xe0") :])
    if kind == 1 or trailer is None:
        for at in rng.integers(0, len(parts), int(rng.integers(1, 4))):
            parts[at] = _lie(parts[at], header.shape, rng)
        tail = trailer[0].to_bytes() if trailer else b""
    else:
        big = [0, 1, 1 << 16, 1 << 31, (1 << 32) - 1]
        points = tuple((int(rng.choice(big)), int(rng.choice(big))) for _ in range(int(rng.integers(3))))
        source = (int(rng.choice(big[1:])), int(rng.choice(big))) if rng.random() < 0.5 else None
        lie = Trailer(samples=int(rng.choice(big)) << int(rng.integers(30)), frames=int(rng.choice(big)),
                      points=tuple(sorted(points)), source=source, check=0)  # fmt: skip
        tail = lie.to_bytes() if all(b[1] >= a[1] for a, b in pairwise(lie.points)) else b""
    return data[:HEADER_BYTES] + b"".join(parts) + tail


def _groups(data: bytes, shape: Shape) -> Iterator[bytes]:
    at = HEADER_BYTES
    while (found := read_group(data[at : at + 1024], shape)) is not None:
        end = at + found[1] + found[0].body
        yield data[at:end]
        at = end


def _lie(data: bytes, shape: Shape, rng: np.random.Generator) -> bytes:
    """A group whose header announces something else, or whose payload is noise under a right seal."""
    found = read_group(data, shape)
    if found is None:
        return data
    group, length = found
    row = {name: getattr(group, name) for name in ("start", "frames", "books", "coder", "gains", "tables", "sizes")}
    kind = int(rng.integers(6))
    if kind == 0:
        row["start"] = int(rng.choice([0, 1, group.start + 7, 1 << 15, 1 << 20, (1 << 32) - 1]))
    elif kind == 1:
        row["frames"] = (shape.chunk_frames,) * int(rng.integers(0, 255)) + (
            int(rng.integers(1, shape.chunk_frames + 1)),
        )
        row["sizes"], row["gains"] = (1,) * len(row["frames"]), ()
    elif kind == 2:
        row["books"] = int(rng.choice([1, 2, 3, 4, 5, 63, 64, 255]))
    elif kind == 3:
        row["coder"] = int(rng.integers(4))
        row["gains"] = tuple(int(x) for x in rng.choice([-32768, -1, 0, 32767], len(group.frames)))
    elif kind == 4:
        row["sizes"] = tuple(int(x) for x in rng.choice([0, 1, 3, 4, 5, 50, 1 << 14], len(group.sizes)))
    head = Group(**row).to_bytes(shape)
    if kind != 5:
        return head + data[length:]
    body, start = b"", group.start
    for size, frames in zip(group.sizes, group.frames, strict=True):
        chunk = rng.bytes(size)
        body += chunk + seal(start, chunk)
        start += frames
    return head + body


def run(count: int, seed: int = 0, progress: Callable[[int], None] | None = None) -> Report:
    """Hurt ``count`` files and read them. Nothing is raised: what went wrong is in the report."""
    report, good = Report(), samples(seed)
    clean = [_measure(sample.read, sample.data) for sample in good]
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        which = index % len(good)
        sample = good[which]
        data = mutate(sample, rng, good)
        error, frames, seconds, memory = _measure(sample.read, data)
        report.files += 1
        where = f"file {index} of seed {seed} ({sample.name}, {len(data)} bytes)"
        if isinstance(error, BitstreamError):
            report.refused += 1
        elif error is not None:
            report.failures.append(f"{where}: {type(error).__name__}: {error}")
        if frames > FRAMES + 8 * len(data):
            report.failures.append(f"{where}: {frames} frames out of nothing")
        extra = memory - clean[which][3]
        if extra > MEMORY:
            report.failures.append(f"{where}: needed {extra >> 20} MiB more than the good file")
        report.memory = max(report.memory, extra)
        report.seconds = max(report.seconds, seconds)
        report.ratio = max(report.ratio, seconds / max(clean[which][2], 1e-4))
        if progress is not None:
            progress(1)
    return report


def _measure(read: Callable[[bytes], int], data: bytes) -> tuple[Exception | None, int, float, int]:
    """Read ``data`` -> (what was raised, frames, processor time, most memory held)."""
    outside = tracemalloc.is_tracing()
    if not outside:
        tracemalloc.start()
    tracemalloc.reset_peak()
    held, began = tracemalloc.get_traced_memory()[0], time.process_time()
    error, frames = None, 0
    try:
        frames = read(data)
    except Exception as raised:
        error = raised
    spent, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    if not outside:
        tracemalloc.stop()
    return error, frames, spent, peak - held
