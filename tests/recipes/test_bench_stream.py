"""The figures of streams and long files: what is measured is what is done, in processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import descant.codec
from descant.codec.model import Codec, nano
from descant.codec.pretrained import save
from descant.recipes import bench_stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    save(Codec(nano()).eval(), tmp_path_factory.mktemp("codec") / "nano")
    return tmp_path_factory.getbasetemp() / "codec0" / "nano"


def test_something_to_code_has_the_level_it_says() -> None:
    wav = bench_stream.chords(2.0, 32000, 2)
    assert wav.shape == (2, 64000) and float(wav.square().mean().sqrt()) == pytest.approx(0.1, rel=1e-4)
    assert torch.equal(wav, bench_stream.chords(2.0, 32000, 2)) and not torch.equal(wav[0], wav[1])


def test_speed_counts_every_way(folder: Path) -> None:
    codec = descant.codec.load(folder)
    found = bench_stream.speed(codec, seconds=4, block=4)
    assert set(found) == {
        "encode_x", "decode_x", "encode_stream_x", "decode_stream_x", "encode_frame_ms", "decode_frame_ms",
        "encode_latency_ms", "decode_latency_ms",
    }  # fmt: skip
    assert all(value > 0 for value in found.values())
    assert (found["encode_latency_ms"], found["decode_latency_ms"]) == (55.0, 15.0)


def test_gain_matters_only_outside_of_the_range(folder: Path) -> None:
    codec, clip = descant.codec.load(folder), bench_stream.chords(1.0, 32000, 1)
    quiet, ordinary = bench_stream.level(codec, [clip], (-70, -25))
    assert ordinary["plain"] == ordinary["with_gain"] and quiet["plain"] != quiet["with_gain"]


def test_a_long_file_is_measured_in_processes_of_their_own(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "stream.json"
    words = ["--only", "memory", "--minutes", "0.5", "--codec", str(folder), "--out", str(out)]
    threads = torch.get_num_threads()
    bench_stream.main(words)
    torch.set_num_threads(threads)
    found = json.loads(out.read_text(encoding="utf-8"))["memory"]
    assert found["samples"] == 30 * 32000  # half a minute of 44.1 kHz stereo, at the codec's rate
    # torch alone takes more than 100 MiB: the figures are of whole processes, and of theirs, not of this one
    assert all(100 < found[f"{act}_mib"] < 700 and found[f"{act}_cpu_s"] > 0 for act in ("encode", "decode"))
