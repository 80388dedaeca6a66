"""The entropy tables of the package: they are those of its codec, lose nothing, save, and are asked for by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import descant.codec
from descant.codec import context
from descant.codec.bitstream import BitstreamError, Header, Reader, Writer
from descant.codec.context import Context
from descant.codec.files import decode_file, encode_file
from descant.codec.model import Codec
from descant.codec.pretrained import save

FOLDER = Path(descant.codec.__file__).resolve().parents[1] / "gen" / "weights" / "codec_tiny"


@pytest.fixture(scope="module")
def tables() -> Context:
    found = context.load(FOLDER)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def others(tables: Context) -> Context:
    """The same tables but for one number."""
    from safetensors.numpy import load_file

    tensors = load_file(FOLDER / context.FILE)
    tensors["out_bias"][0, 0] += 1
    return Context(tensors)


@pytest.fixture(scope="module")
def codes() -> Tensor:
    """Ten seconds of chords that decay, as the shipped codec writes them: [8, 500]."""
    rng, time = torch.Generator().manual_seed(0), torch.arange(320_000) / 32000
    pitch = 110 * 2 ** (torch.tensor([0, 7, 12, 16, 19])[:, None] / 12) * 2 ** ((time // 2 % 4) * 5 / 12)
    wav = (torch.sin(6.2832 * pitch * time).sum(0) * torch.exp(-2 * (time % 0.5)))[None]
    wav = 0.03 * wav + 0.002 * torch.randn(wav.shape, generator=rng)
    codec = descant.codec.load("tiny")
    made: Tensor = codec.encode(wav[None])[0]
    return made


def written(codec: Codec, codes: Tensor, tables: Context | None) -> bytes:
    file = io.BytesIO()
    with Writer(file, Header.of(codec, books=len(codes)), "entropy" if tables else "packed", tables) as writer:
        writer.write(codes)
    return file.getvalue()


def test_they_are_those_of_the_codec(tables: Context) -> None:
    codec = descant.codec.load("tiny")
    assert (tables.books, tables.cardinality) == (codec.books, codec.cardinality)


@pytest.mark.parametrize("books", [1, 4, 8])
def test_music_comes_back_and_takes_less(tables: Context, codes: Tensor, books: int) -> None:
    codec, rows = descant.codec.load("tiny"), codes[:books]
    data, plain = written(codec, rows, tables), written(codec, rows, None)
    reader = Reader(io.BytesIO(data), tables, codec.cardinality)
    assert torch.equal(torch.cat([chunk.codes for chunk in reader], 1), rows) and not reader.damage
    assert len(data) < 0.85 * len(plain)  # repeating chords are easier than most music


def test_what_they_never_saw_comes_back_too(tables: Context) -> None:
    draw = np.random.default_rng(0)
    chunks = [draw.integers(0, 1024, (8, 125)), np.zeros((8, 125), np.int64), draw.integers(0, 1024, (3, 1))]
    for rows in chunks:
        (back,) = tables.decode(tables.encode([rows], 10), len(rows), [rows.shape[1]], 10)
        assert np.array_equal(back, rows)


def test_saved_again_they_are_the_same(tables: Context, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    context.save(tmp_path, load_file(FOLDER / context.FILE))
    again = context.load(tmp_path)
    assert again is not None and again.identity == tables.identity


def test_other_tables_are_told_in_one_sentence(tables: Context, others: Context, codes: Tensor, tmp_path: Path) -> None:
    codec = descant.codec.load("tiny")
    assert others.identity != tables.identity
    (tmp_path / "a.dsc").write_bytes(written(codec, codes[:, :125], tables))
    for wrong, message in ((others, "entropy coded with other tables"), (None, "with tables of its codec")):
        with pytest.raises(BitstreamError, match=message) as error:
            decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", codec, tables=wrong)
        assert "\n" not in str(error.value) and "load the codec that wrote it" in str(error.value)
    assert not (tmp_path / "b.wav").exists()


def test_another_codec_refuses_the_file_first(tables: Context, codes: Tensor, tmp_path: Path) -> None:
    codec = descant.codec.load("tiny")
    (tmp_path / "a.dsc").write_bytes(written(codec, codes[:, :125], tables))
    torch.manual_seed(0)
    save(Codec(codec.config).eval(), tmp_path / "other")
    with pytest.raises(BitstreamError, match="made by another codec"):
        decode_file(tmp_path / "a.dsc", tmp_path / "b.wav", descant.codec.load(tmp_path / "other"), tables=tables)


def test_files_with_and_without_them_sound_the_same(tables: Context, tmp_path: Path) -> None:
    import soundfile

    codec, time = descant.codec.load("tiny"), np.arange(96_000) / 32000
    soundfile.write(tmp_path / "a.wav", 0.1 * np.sin(2 * np.pi * 220 * time) * np.exp(-2 * (time % 1)), 32000)
    sizes, heard = [], []
    for coder in ("packed", "entropy"):
        name = tmp_path / f"{coder}.dsc"
        sizes.append(encode_file(tmp_path / "a.wav", name, codec, coder=coder, tables=tables).size)  # type: ignore[arg-type]
        decode_file(name, tmp_path / "b.wav", codec, tables=tables)
        heard.append((tmp_path / "b.wav").read_bytes())
    assert heard[0] == heard[1] and sizes[1] < sizes[0]
