"""What the entropy tables save: counted on whole files that were read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.codec import context
from descant.codec.model import Codec, nano
from descant.codec.pretrained import save
from descant.recipes import bench_codec_entropy
from descant.recipes.entropy import EntropyConfig, Net


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save(Codec(nano()).eval(), tmp_path / "codec")
    context.save(tmp_path / "codec", Net(8, 64, EntropyConfig(embed=4, hidden=8, rank=8)).tensors())
    time = np.arange(96_000) / 32000
    for name, pitch in (("a.wav", 220), ("b.flac", 330)):
        soundfile.write(tmp_path / name, 0.1 * np.sin(2 * np.pi * pitch * time), 32000)
    return tmp_path


def test_files_are_written_read_and_counted(folder: Path) -> None:
    out = folder / "entropy.json"
    words = ["--real", str(folder), "--codec", str(folder / "codec"), "--seconds", "2", "--out", str(out)]
    bench_codec_entropy.main(words)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["recordings"] == 2 and [row["books"] for row in found["rows"]] == [8, 4]
    for row in found["rows"]:
        packed, other = row["files"]["packed"], row["files"]["context"]
        # 4 s of 50 frames of 6 bits a code, and two files' headers, group headers, check sums and trailers
        assert 0 < packed["bytes"] - 200 * row["books"] * 6 // 8 < 200 and packed["saved"] == 0
        assert other["saved"] == pytest.approx(1 - other["bytes"] / packed["bytes"], abs=1e-4)
        assert packed["kbps"] == pytest.approx(8 * packed["bytes"] / 4000, abs=1e-3)
        assert set(row["saved_by_recording"]) == {"a.wav", "b.flac"}
        assert all(kind["write_x"] > 0 and kind["read_x"] > 0 for kind in row["files"].values())
    bench_codec_entropy.main([*words, "--books", "1"])
    assert [row["books"] for row in json.loads(out.read_text(encoding="utf-8"))["rows"]] == [1]


def test_a_coder_that_loses_something_is_found_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = bench_codec_entropy.loaded(str(folder / "codec"))
    tables = bench_codec_entropy.tables_of(str(folder / "codec"))
    codes = codec.encode(torch.zeros(1, 1, 32000))[0]
    honest = context.Context.decode

    def wrong(self: context.Context, *given: object) -> list[np.ndarray | None]:
        return [None if row is None else row ^ 1 for row in honest(self, *given)]  # type: ignore[arg-type]

    monkeypatch.setattr(context.Context, "decode", wrong)
    monkeypatch.setattr(context.Context, "encode", lambda self, chunks, bits: [bytes(8)] * len(chunks))
    with pytest.raises(RuntimeError, match="gives back other codes"):
        bench_codec_entropy.through(codec, codes, "entropy", tables)


def test_what_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no recordings"):
        bench_codec_entropy.middles([tmp_path / "empty"], bench_codec_entropy.loaded(str(folder / "codec")), 1.0)
    (folder / "codec" / context.FILE).unlink()
    bench_codec_entropy.tables_of.cache_clear()
    with pytest.raises(ValueError, match="no entropy tables"):
        bench_codec_entropy.main(["--real", str(folder), "--codec", str(folder / "codec"), "--out", str(folder / "x")])
