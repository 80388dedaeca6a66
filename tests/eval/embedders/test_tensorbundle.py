"""TensorFlow's checkpoints: what was written is read, and nothing broken is read as anything else."""

import io
import random

import numpy as np
import pytest

from descant.eval.embedders import tensorbundle

from . import bundles
from .bundles import HEADER, bundle, field

TENSORS = {
    "conv/bias": np.arange(5, dtype=np.float32),
    "conv/kernel": np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4),
    "conv_1/kernel": np.arange(6, dtype=np.float16).reshape(2, 3),
    "empty": np.zeros((0, 4), np.float32),
    "step": np.array(7, dtype=np.int64),
    "wide": np.full((3, 1), 2.5),
    "word": np.arange(3, dtype=np.int32),
}


def read(index, data, names=tuple(TENSORS)):
    return tensorbundle.read(index, io.BytesIO(data), names)


def same(found):
    return all(
        np.array_equal(found[name], TENSORS[name]) and found[name].dtype == TENSORS[name].dtype for name in found
    )


@pytest.mark.parametrize("per_block", [1, 3, 100])
def test_reads_what_was_written(per_block):
    found = read(*bundle(TENSORS, per_block))
    assert set(found) == set(TENSORS) and same(found)


def test_reads_only_what_is_asked_for():
    index, data = bundle(TENSORS)
    spoilt = bytearray(data)
    spoilt[0] ^= 1  # in conv/bias
    assert same(read(index, bytes(spoilt), ["conv_1/kernel", "wide"]))
    with pytest.raises(ValueError, match="checksum of conv/bias"):
        read(index, bytes(spoilt), ["conv/bias"])


@pytest.mark.parametrize(
    ("data", "value"),
    # RFC 3720, appendix B.4, and the usual check value
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksum_of_the_standard(data, value):
    assert tensorbundle.crc32c(data) == value


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 1000, 4097])
def test_checksum_of_any_length(size):
    data = random.Random(size).randbytes(size)
    assert tensorbundle.crc32c(data) == bundles.crc(data)


def test_every_cut_of_the_index_is_refused():
    index, data = bundle(TENSORS)
    for end in range(len(index)):
        with pytest.raises(ValueError, match=r"index|block|checksum"):
            read(index[:end], data)


def test_no_flipped_byte_is_believed():
    index, data = bundle({"a": TENSORS["conv/bias"], "ab": TENSORS["word"]}, per_block=1)
    for place in range(len(index)):
        spoilt = bytearray(index)
        spoilt[place] ^= 0x41
        try:
            found = read(bytes(spoilt), data, ["a", "ab"])
        except ValueError as error:
            assert str(error) and "\n" not in str(error)
        else:  # the footer's padding and the handle of the unused meta block say nothing
            assert np.array_equal(found["a"], TENSORS["conv/bias"]) and np.array_equal(found["ab"], TENSORS["word"])


def test_blocks_of_nonsense_under_right_checksums_are_refused_in_words():
    draw = random.Random(0)
    items = [HEADER, *((name.encode(), bundles.entry(TENSORS[name], 0)) for name in sorted(TENSORS))]
    good = bundles.block(items)
    for _ in range(400):
        spoilt = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            spoilt[draw.randrange(len(good))] = draw.randrange(256)
        try:
            found = read(bundles.table([bytes(spoilt)]), b"\0" * 200, ["conv/bias", "step"])
        except ValueError as error:
            assert str(error)
        else:
            assert sum(value.nbytes for value in found.values()) <= 400


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_a_short_data_file_is_refused(cut):
    index, data = bundle(TENSORS)
    with pytest.raises(ValueError, match="cut short"):
        read(index, data[:cut])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 1 << 40}, "not 20"),
        ({"shape": (1 << 20, 1 << 20), "size": 4 << 40}, "cut short"),
        ({"shape": (-5,)}, "need at most 8 known dimensions"),
        ({"shape": (1,) * 9}, "need at most 8 known dimensions"),
        ({"shape": (6,)}, "20 bytes, not 24"),
        ({"offset": 1 << 60}, "cut short"),
        ({"offset": (1 << 64) - 8}, "cut short"),
        ({"dtype": 7}, "type 7"),
        ({"shard": 1}, "damaged"),
        ({"more": field(7, b"")}, "slices"),
        ({"more": b"\x7b"}, "wire type"),
        ({"more": b"\x12\x7f"}, "leaves its message"),
        ({"more": field(1, b"x")}, "no number"),
        ({"more": field(2, 1)}, "no message"),
        ({"more": b"\xff" * 11}, "runs out"),
    ],
)
def test_false_entries_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        read(*bundle(TENSORS, **{"conv/bias": change}), ["conv/bias"])


def test_false_tables_are_refused():
    items = [HEADER, (b"a", b""), (b"b", b"")]
    good = bundles.block(items)
    for index, message in (
        (bundles.table([good], kind=1), "compressed"),
        (bundles.table([good], twice=True), "out of order"),
        (bundles.table([bundles.block([HEADER, (b"b", b""), (b"a", b"")])]), "out of order"),
        (bundles.table([bundles.block(items[1:])]), "no header"),
        (bundles.table([]), "empty"),
        (bundles.table([good[:-4] + b"\xff\xff\xff\x7f"]), "restarts"),
        (bundles.table([bundles.block([HEADER, (b"k" * 5000, b"")])]), "leaves its block"),
        (bundles.table([bundles.block([(b"", field(1, 2))])]), "2 data files"),
        (bundles.table([bundles.block([(b"", field(1, 1) + field(2, 1))])]), "big-endian"),
        (b"\0" * 100, "does not end"),
        (b"\0" * (tensorbundle.INDEX_LIMIT + 1), "allowed are"),
    ):
        with pytest.raises(ValueError, match=message):
            read(index, b"", ["c"])


def test_a_name_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"has no beta, gamma: is it of another model"):
        read(*bundle(TENSORS), ["gamma", "beta", "step"])
