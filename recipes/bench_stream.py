"""How fast, how late and how large: the codec on long files and piece by piece.

``python -m descant.recipes.bench_stream --out stream.json`` measures on one core, in CPU time:

* ``speed``: encoding and decoding 60 s in blocks of 10 s, whole and as a stream, and single frames;
* ``level``: SI-SDR of music made quieter or louder, coded as it is and with the gain a file carries per chunk;
* ``memory``: the largest resident memory of a process that encodes, and of one that decodes, a stereo file of an hour.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from ..codec import audio, load
from ..codec.contract import Codec
from ..codec.files import decode_file, encode_file
from ..codec.levels import gain_of
from ..eval.reconstruction import si_sdr

#: RMS levels in dB of full scale at which the gain is tried.
LEVELS: tuple[int, ...] = (-80, -70, -60, -50, -40, -30, -20, -12, -6, -3)

_log = logging.getLogger(__name__)


def chords(seconds: float, rate: int, channels: int, seed: int = 0) -> Tensor:
    """Something to code where no recording is at hand: tones and noise [C, T], -20 dB RMS."""
    rng = torch.Generator().manual_seed(seed)
    at = torch.arange(round(seconds * rate)) / rate
    pitch = 55 * 2 ** (torch.randint(0, 60, (channels, 12, 1), generator=rng) / 12)
    wav = (torch.sin(6.2832 * pitch * at) * torch.sin(pitch / 99 * at)).sum(1)
    wav = wav + 0.2 * torch.randn(wav.shape, generator=rng)
    return 0.1 * wav / wav.square().mean().sqrt()


def speed(codec: Codec, seconds: int = 60, block: int = 10) -> dict[str, float]:
    """Times real time of encode and decode in blocks, of the streams in the same blocks; milliseconds per frame."""
    count = block * codec.rate
    blocks = [chords(block, codec.rate, codec.channels, seed)[None] for seed in range(-(-seconds // block))]
    codes = [codec.encode(wav) for wav in blocks]
    length = len(blocks) * count / codec.rate
    encoder, decoder, single = codec.encoder_stream(), codec.decoder_stream(), codec.decoder_stream()
    piece = codec.encoder_stream()
    frames = [codes[0][..., index : index + 1] for index in range(200)]
    pieces = torch.split(blocks[0][..., : 200 * codec.hop], codec.hop, -1)
    return {
        "encode_x": length / _spent(lambda: [codec.encode(wav) for wav in blocks]),
        "decode_x": length / _spent(lambda: [codec.decode(row) for row in codes]),
        "encode_stream_x": length / _spent(lambda: [encoder.push(wav) for wav in blocks]),
        "decode_stream_x": length / _spent(lambda: [decoder.push(row) for row in codes]),
        "encode_frame_ms": 1000 * _spent(lambda: [piece.push(wav) for wav in pieces]) / len(pieces),
        "decode_frame_ms": 1000 * _spent(lambda: [single.push(row) for row in frames]) / len(frames),
        "encode_latency_ms": 1000 * (codec.hop + encoder.latency) / codec.rate,
        "decode_latency_ms": 1000 * decoder.latency / codec.rate,
    }


def _spent(work: Callable[[], object], rounds: int = 3) -> float:
    """CPU seconds of the fastest of a few rounds, after one to warm up."""
    work()
    best = float("inf")
    for _ in range(rounds):
        before = time.process_time()
        work()
        best = min(best, time.process_time() - before)
    return best


def level(codec: Codec, clips: Sequence[Tensor], levels: Sequence[int] = LEVELS) -> list[dict[str, float]]:
    """Mean SI-SDR in dB of clips [C, T] at several RMS levels: as they are, and brought to the codec's range."""
    rows = []
    for target in levels:
        plain: list[float] = []
        lifted: list[float] = []
        for clip in clips:
            wav = clip * 10 ** (target / 20) / clip.square().mean().sqrt()
            factor = 10 ** (gain_of(wav) / 20)
            for kept, scale in ((plain, 1.0), (lifted, factor)):
                if scale == 1.0 and kept is lifted:
                    kept.append(plain[-1])
                    continue
                heard = codec.decode(codec.encode(wav[None] / scale))[0, :, : wav.shape[1]] * scale
                kept.append(si_sdr(wav, heard))
        rows.append({"dbfs": target, "plain": sum(plain) / len(plain), "with_gain": sum(lifted) / len(lifted)})
        _log.info("level %s", rows[-1])
    return rows


def memory(codec: str, minutes: float = 60.0) -> dict[str, float]:
    """MiB of resident memory at most, and CPU seconds, of two processes that encode and decode a long stereo file."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        blocks = [chords(10.0, 44100, 2, seed).T.numpy() for seed in range(5)]
        with soundfile.SoundFile(at / "a.flac", "w", 44100, 2, "PCM_16") as file:
            for index in range(round(minutes * 6)):
                file.write(blocks[index % len(blocks)])
        del blocks
        for act, source, target in (("encode", "a.flac", "a.dsc"), ("decode", "a.dsc", "b.flac")):
            command = [
                sys.executable,
                "-m",
                f"{__package__}.bench_stream",
                "--child",
                act,
                str(at / source),
                str(at / target),
            ]
            subprocess.run([*command, "--codec", codec, "--out", str(at / "use.json")], check=True)
            use = json.loads((at / "use.json").read_text(encoding="utf-8"))
            figures |= {f"{act}_mib": use["mib"], f"{act}_cpu_s": use["cpu_s"]}
            _log.info("memory %s", figures)
        figures["samples"] = audio.info(at / "b.flac").samples
    return figures


def _child(act: str, source: str, target: str, codec: str) -> dict[str, float]:
    from .bench_codec_systems import tables_of

    tables = tables_of(codec)  # files as `descant encode` writes them
    if act == "encode":
        encode_file(source, target, load(codec), coder="entropy", tables=tables)
    else:
        decode_file(source, target, load(codec), tables=tables)
    use = resource.getrusage(resource.RUSAGE_SELF)
    kib = use.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's ru_maxrss begins with what the parent had; this one is our own
        kib = next(float(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return {"mib": kib / 1024, "cpu_s": use.ru_utime + use.ru_stime}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what was asked for and write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m descant.recipes.bench_stream", description=__doc__)
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--codec", default="tiny", help="name or folder")
    parser.add_argument("--only", nargs="+", choices=("speed", "level", "memory"))
    parser.add_argument("--real", help="folder of recordings for the level section; synthetic chords without it")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the file of the memory section")
    parser.add_argument("--child", nargs=3, metavar=("ACT", "SOURCE", "TARGET"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if args.child:
        act, source, target = args.child
        found: dict[str, Any] = _child(act, source, target, args.codec)
    else:
        chosen = args.only or ("speed", "level", "memory")
        found = {"codec": args.codec, "torch": torch.__version__, "machine": platform.processor() or platform.machine()}
        codec = load(args.codec)
        if "speed" in chosen:
            found["speed"] = speed(codec)
            _log.info("speed %s", found["speed"])
        if "level" in chosen:
            files = sorted(path for path in Path(args.real).iterdir() if path.suffix == ".flac") if args.real else []
            clips = [audio.read(p, codec.rate, codec.channels, 20, 6).wav for p in files[:: max(1, len(files) // 8)]]
            found["level"] = level(codec, clips or [chords(8.0, codec.rate, codec.channels, seed) for seed in range(8)])
        if "memory" in chosen:
            found["memory"] = memory(args.codec, args.minutes)
    Path(args.out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
