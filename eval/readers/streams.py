"""One audio stream out of a container that libsndfile cannot open, such as the five of a ``.stem.mp4``.

Needs the package ``av`` (FFmpeg's libraries in a wheel), imported only here and only when such a file is read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...codec.audio import Audio, AudioError, AudioInfo, resample, to_channels


def info(path: str | os.PathLike[str], stream: int) -> AudioInfo:
    """What the container says about its audio stream number ``stream``."""
    with _open(path) as box:
        found = _stream(box, path, stream)
        return AudioInfo(found.rate, found.channels, _samples(found), _samples(found) / found.rate, found.codec.name)


def count(path: str | os.PathLike[str]) -> int:
    """How many audio streams the container has."""
    with _open(path) as box:
        return len(box.streams.audio)


def read(
    path: str | os.PathLike[str], stream: int, rate: int | None = None, channels: int | None = None,
    start: float = 0.0, duration: float | None = None,
) -> Audio:  # fmt: skip
    """A window of one stream as wav [C, T]; like :func:`descant.codec.audio.read`.

    It is decoded from its beginning, because seeking in AAC is not exact to the sample.
    """
    if not (math.isfinite(start) and start >= 0) or (duration is not None and not duration > 0):
        raise AudioError(f"{path}: the window from {start} s of {duration} s is out of range")
    with _open(path) as box:
        found = _stream(box, path, stream)
        own = found.rate
        first = round(start * own)
        last = None if duration is None else first + max(1, round(duration * own))
        parts, at = [], 0
        for piece in _decoded(box, found, path):
            begin, at = at, at + piece.shape[1]
            if at > first:
                parts.append(piece[:, max(0, first - begin) : None if last is None else max(0, last - begin)])
            if last is not None and at >= last:
                break
    if not sum(part.shape[1] for part in parts):
        raise AudioError(f"{path}: stream {stream} ends before {start:g} s; choose an earlier start")
    wav = torch.cat(parts, dim=1)
    wav = to_channels(wav, channels or wav.shape[0])
    return Audio(resample(wav, own, rate or own), rate or own)


def blocks(path: str | os.PathLike[str], stream: int) -> Iterator[Tensor]:
    """Yield a whole stream as tensors [C, t] of a few thousand samples each, at its own rate, in bounded memory."""
    with _open(path) as box:
        yield from _decoded(box, _stream(box, path, stream), path)


def _open(path: str | os.PathLike[str]) -> Any:
    try:
        import av
    except ImportError as error:
        raise AudioError(
            f"{path}: reading this container needs the package av: pip install 'descant[mp4]'; or convert its streams "
            "to WAV files"
        ) from error
    try:
        return av.open(os.fspath(path), mode="r")
    except (av.error.FFmpegError, OSError) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise AudioError(f"{path}: cannot be opened ({said}); download it again") from error


def _stream(box: Any, path: str | os.PathLike[str], stream: int) -> Any:
    have = len(box.streams.audio)
    if not 0 <= stream < have:
        raise AudioError(f"{path}: has {have} audio streams, so none with number {stream} (counted from 0)")
    return box.streams.audio[stream]


def _samples(stream: Any) -> int:
    seconds = float((stream.duration or 0) * stream.time_base)
    return round(seconds * int(stream.rate))


def _decoded(box: Any, stream: Any, path: str | os.PathLike[str]) -> Iterator[Tensor]:
    """The stream as [C, t], frame by frame; what the encoder put before the beginning is dropped by the decoder."""
    import av

    plain = av.AudioResampler(format="fltp")
    try:
        for frame in box.decode(stream):
            for made in plain.resample(frame):
                yield torch.from_numpy(np.array(made.to_ndarray(), dtype=np.float32))
    except av.error.FFmpegError as error:
        raise AudioError(f"{path}: is damaged ({error.strerror}); download it again") from error
