import io
import os
import pickletools
import struct

import numpy as np
import pytest
import torch

from descant.codec import dacfile
from descant.codec.bitstream import BitstreamError

META = {"input_db": np.array([-21.5], np.float32), "original_length": 9000, "sample_rate": 44100, "chunk_length": 20,
        "channels": 2, "padding": True, "dac_version": "1.0.0"}  # fmt: skip
CODES = np.random.default_rng(0).integers(0, 1024, (2, 9, 20)).astype(np.uint16)


def saved(found):
    file = io.BytesIO()
    row = np.empty((), object)
    row[()] = found
    np.save(file, row, allow_pickle=True)
    return file.getvalue()


def made(codes=CODES, **meta):
    return {"codes": codes, "metadata": {**META, **meta}}


def test_what_numpy_saves_is_read():
    for codes in (CODES, np.asfortranarray(CODES), CODES.astype(">u2"), CODES.astype(np.int64), CODES[:, ::2]):
        found = dacfile.read(io.BytesIO(saved(made(codes))))
        assert np.array_equal(found.codes.numpy(), codes) and found.codes.dtype == torch.int64
        assert (found.levels, found.samples, found.rate, found.channels) == ((-21.5,), 9000, 44100, 2)
        assert found.padding is True and found.chunk_length == 20


def test_numpy_numbers_and_long_texts_are_read():
    row = made(input_db=np.float32(-3.25), dac_version="1" * 70000, original_length=1 << 33)
    found = dacfile.read(io.BytesIO(saved(row)))
    assert found.levels == (-3.25,) and found.samples == 1 << 33


def test_names_of_the_older_numpy_are_read():
    data = saved(made())
    start = data.index(b"\x80")
    body = data[start:].replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
    assert b"numpy.core" in body and np.array_equal(dacfile.read(io.BytesIO(data[:start] + body)).codes, CODES)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path):
    trap = tmp_path / "trap"
    for row in (Evil(trap), {"codes": Evil(trap)}, made(input_db=Evil(trap)), [Evil(trap)]):
        with pytest.raises(BitstreamError, match="mkdir"):
            dacfile.read(io.BytesIO(saved(row)))
    assert not trap.exists()


@pytest.mark.parametrize("row", [
    {}, [], None, 5, "text", {"codes": 1}, {"codes": CODES}, made(np.zeros((2, 9), np.uint16)),
    made(CODES.astype(np.float32)), made(np.zeros((2, 9, 0), np.uint16)), made(np.zeros((2, 65, 3), np.uint16)),
    made(np.full((2, 9, 20), 20000, np.uint16)), made(-CODES.astype(np.int32)), made(channels=1), made(channels=True),
    made(original_length=0), made(original_length=-5), made(original_length="9"), made(original_length=1 << 50),
    made(sample_rate=10**9), made(chunk_length=0), made(chunk_length=21), made(padding=1), made(input_db="loud"),
    made(input_db=np.array([np.nan])), made(input_db=np.array([1, 2, 3])), made(np.array([[[{}]]], object)),
    made(input_db={1: 2}), made(input_db=1 << 80), made(np.array([["a"]])), made(input_db=b"12"),
])  # fmt: skip
def test_other_contents_are_refused_in_one_way(row):
    with pytest.raises(BitstreamError):
        dacfile.read(io.BytesIO(saved(row)))


def test_cut_anywhere_it_is_refused():
    data = saved(made())
    for end in range(len(data)):
        with pytest.raises(BitstreamError):
            dacfile.read(io.BytesIO(data[:end]))


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda op: op.name)
def test_every_opcode_is_handled_or_refused(opcode):
    """Each opcode of pickle, at the end of a good file and at its beginning: an answer or a BitstreamError."""
    data = saved(made())
    start = data.index(b"\x80")
    code = opcode.code.encode("latin1")
    for tail in (b"", b"\0" * 8, b"\xff" * 16, b"a\nb\n", struct.pack("<Q", 1 << 40)):
        good = data[start:]
        for body in (good[:-1] + code + tail + b".", code + tail + good, b"(" + code + tail + b"."):
            with pytest.raises(BitstreamError) if code != b"." else pytest.raises(Exception):
                found = dacfile.read(io.BytesIO(data[:start] + body))
                # what changes nothing may be passed over, and then the file is the good one
                assert np.array_equal(found.codes, CODES)
                raise BitstreamError


@pytest.mark.parametrize("change", [(b"'|O'", b"'<f'"), (b"'shape': ()", b"'shape':(9)"), (b"\x93NUMPY", b"\x93NUMPX"),
                                    (b"False", b"True ")])  # fmt: skip
def test_other_numpy_files_are_refused(change):
    with pytest.raises(BitstreamError):
        dacfile.read(io.BytesIO(saved(made()).replace(*change, 1)))
    file = io.BytesIO()
    np.save(file, CODES)
    with pytest.raises(BitstreamError):
        dacfile.read(io.BytesIO(file.getvalue()))


class Dac:
    """A codec whose sound is a code's number, held for a frame."""

    rate, channels, hop, books, cardinality = 44100, 1, 512, 9, 1024

    class config:
        decoder_ratios = (8, 8, 4, 2)

    def decode(self, codes):
        return codes[:, :1].float().repeat_interleave(512, 2) / 1024 * torch.sin(torch.arange(codes.shape[2] * 512) / 9)


def test_sound_has_the_length_and_the_level_of_the_original():
    from descant.codec.audio import loudness

    found = dacfile.read(io.BytesIO(saved(made(input_db=np.array([-30.0])))))
    wav = dacfile.to_wav(Dac(), found)
    assert wav.shape == (1, 2, 9000) and loudness(wav[0], 44100) == pytest.approx(-30, abs=0.3)
    half = dacfile.read(io.BytesIO(saved(made(sample_rate=22050, original_length=4000))))
    assert dacfile.to_wav(Dac(), half).shape == (1, 2, 4000)


def test_windows_without_padding_are_cropped_as_convolutions_crop():
    """The length of an unpadded decoder, by torch's own layers."""
    for ratios, frames in (((8, 8, 4, 2), 40), ((8, 5, 4, 2), 33)):
        x = torch.zeros(1, 1, frames)
        x = torch.nn.Conv1d(1, 1, 7)(x)
        for ratio in ratios:
            x = torch.nn.ConvTranspose1d(1, 1, 2 * ratio, ratio)(x)
            for dilation in (1, 3, 9):
                x = torch.nn.Conv1d(1, 1, 7, dilation=dilation)(x)
        assert dacfile._unpadded(frames, ratios) == torch.nn.Conv1d(1, 1, 7)(x).shape[2]
    codes = np.concatenate([CODES] * 8, 2)
    row = made(codes, padding=False, chunk_length=80, original_length=60000)
    wav = dacfile.to_wav(Dac(), dacfile.read(io.BytesIO(saved(row))))
    assert wav.shape == (1, 2, 60000)
    with pytest.raises(BitstreamError, match="too short"):
        dacfile.to_wav(Dac(), dacfile.read(io.BytesIO(saved(made(padding=False, chunk_length=10)))))


def test_the_wrong_codec_is_refused():
    codec = Dac()
    codec.books = 4
    with pytest.raises(ValueError, match="9 books"):
        dacfile.to_wav(codec, dacfile.read(io.BytesIO(saved(made()))))
