import io
import re
import struct
import zlib
from pathlib import Path

import pytest
import torch

from descant.codec import groups
from descant.codec import header as headers
from descant.codec.bitstream import BitstreamError, Header, Reader, Writer
from descant.codec.groups import Group, read_group, seal

SHAPE = {"rate": 32000, "channels": 1, "bits": 10, "hop": 640, "chunk_frames": 100}
FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def header(books=4, **more):
    return Header(**{"fingerprint": bytes(range(16)), "books": books, **SHAPE, **more})


def codes(frames, books=4, seed=0, top=1024):
    return torch.randint(0, top, (books, frames), generator=torch.Generator().manual_seed(seed))


def written(rows, head=None, step=37, coder="packed", samples=None, **more):
    file = io.BytesIO()
    with Writer(file, head or header(len(rows)), coder, **more) as writer:
        for part in rows.split(step, 1):
            writer.write(part)
        writer.close(samples)
    return file.getvalue()


def read(data, **more):
    reader = Reader(io.BytesIO(data), **more)
    return list(reader), reader


def joined(chunks):
    return torch.cat([chunk.codes for chunk in chunks], 1)


class Pipe(io.RawIOBase):
    """Bytes that come a few at a time and cannot be sought."""

    def __init__(self, data, step=7):
        self.data, self.step, self.at = data, step, 0

    def readable(self):
        return True

    def seekable(self):
        return False

    def readinto(self, target):
        piece = self.data[self.at : self.at + min(self.step, len(target))]
        target[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


# what goes in comes out


@pytest.mark.parametrize("frames", [1, 99, 100, 101, 1500, 1501, 3217])
@pytest.mark.parametrize("coder", ["packed", "entropy"])
def test_codes_come_back(frames, coder):
    rows = codes(frames)
    rows[:, frames // 2 :] = rows[:, frames // 2, None]
    chunks, reader = read(written(rows, coder=coder))
    assert torch.equal(joined(chunks), rows) and not reader.damage and reader.frames == frames
    assert reader.samples == frames * 640
    assert [chunk.start for chunk in chunks] == list(range(0, frames, 100))
    assert not any(chunk.damaged for chunk in chunks)


@pytest.mark.parametrize(("books", "bits"), [(1, 1), (3, 7), (64, 14), (8, 10)])
def test_any_number_of_books_and_bits(books, bits):
    rows = codes(150, books, top=1 << bits)
    head = header(books, bits=bits)
    assert torch.equal(joined(read(written(rows, head))[0]), rows)


def test_books_and_gain_may_vary_from_chunk_to_chunk():
    file = io.BytesIO()
    plan = [(4, 100, 0.0), (2, 250, -3.25), (2, 100, 6.5), (3, 10, 6.5), (4, 300, 0.0)]
    rows = [codes(frames, books, seed) for seed, (books, frames, _) in enumerate(plan)]
    with Writer(file, header(4)) as writer:
        for row, (_, _, gain) in zip(rows, plan, strict=True):
            writer.write(row, gain)
    chunks, reader = read(file.getvalue())
    at = 0
    for row, (books, frames, gain) in zip(rows, plan, strict=True):
        mine = [chunk for chunk in chunks if at <= chunk.start < at + frames]
        assert torch.equal(joined(mine), row) and {chunk.gain for chunk in mine} == {gain}
        assert all(len(chunk.codes) == books for chunk in mine)
        at += frames
    assert not reader.damage


def test_every_chunk_may_have_a_gain_of_its_own():
    file = io.BytesIO()
    gains = [0.0, -2.5, -2.5, 127.99609375, -128.0, 0.0, 0.00390625] * 5
    with Writer(file, header()) as writer:
        for seed, gain in enumerate(gains):
            writer.write(codes(100, seed=seed), gain)
    chunks, reader = read(file.getvalue())
    assert [chunk.gain for chunk in chunks] == gains and not reader.damage


def test_a_pipe_of_small_pieces_will_do():
    rows = codes(1777)
    data = written(rows)
    reader = Reader(io.BufferedReader(Pipe(data), 16))
    assert torch.equal(joined(list(reader)), rows) and reader.samples == 1777 * 640 and not reader.damage
    with pytest.raises(ValueError, match="cannot seek"):
        reader.seek(0)


def test_group_of_one_is_written_at_once():
    file = io.BytesIO()
    writer = Writer(file, header(), group=1)
    writer.write(codes(200))
    assert torch.equal(joined(list(Reader(io.BytesIO(file.getvalue())))), codes(200))


def test_samples_and_pre_skip_are_kept():
    data = written(codes(50), header(pre_skip=123, samples=31000), samples=31000)
    reader = Reader(io.BufferedReader(Pipe(data, 1 << 16)))
    assert (reader.samples, reader.header.pre_skip) == (31000, 123)
    assert read(written(codes(2), header(pre_skip=200)))[1].samples == 2 * 640 - 200


def test_nothing_written_is_a_file_of_nothing():
    chunks, reader = read(written(codes(0)))
    assert chunks == [] and reader.frames == 0 and reader.samples == 0 and not reader.damage


# the format is what docs/format.md says


def test_the_example_of_the_manual():
    blocks = re.findall(r"```\n((?:[0-9a-f]{2}[ \n])+)```", FORMAT.read_text(encoding="utf-8"))
    data = bytes.fromhex(" ".join(blocks[0].split()))
    rows = torch.tensor([[1, 2, 3, 4, 5], [10, 11, 12, 13, 14]])
    head = header(2, bits=4, chunk_frames=2, samples=3000)
    file = io.BytesIO()
    with Writer(file, head) as writer:
        writer.write(rows, gain=-1.5)
        writer.close(3000)
    assert file.getvalue() == data
    chunks, reader = read(data)
    assert torch.equal(joined(chunks), rows) and {chunk.gain for chunk in chunks} == {-1.5}
    assert reader.samples == 3000 and reader.header == head


def test_the_trailers_of_the_manual_with_and_without_a_source():
    plain, more = (bytes.fromhex(text) for text in re.findall(r"^(d5 e0 [0-9a-f ]+)$", FORMAT.read_text(), re.M))
    assert groups.read_trailer(plain) == (groups.Trailer(samples=3000, frames=5, check=0x72AB5EA4), 14)
    source = groups.Trailer(samples=3000, frames=5, source=(44100, 4134), check=0x72AB5EA4)
    assert source.to_bytes() == more and groups.read_trailer(more) == (source, len(more))


@pytest.mark.parametrize("seekable", [True, False])
def test_the_source_is_known_where_its_rate_differs(seekable):
    for source, want in (((44100, 4134), (44100, 4134)), ((32000, 3000), None), (None, None)):
        file = io.BytesIO()
        with Writer(file, header()) as writer:
            writer.write(codes(5))
            writer.close(3000, source)
        reader = Reader(io.BytesIO(file.getvalue()) if seekable else io.BufferedReader(Pipe(file.getvalue())))
        list(reader)
        assert reader.source == want and reader.samples == 3000 and not reader.damage
    for bad in ((0, 1), (1_000_001, 1), (44100, -1)):
        with pytest.raises(ValueError, match="a source has"), Writer(io.BytesIO(), header()) as writer:
            writer.close(source=bad)
    # a rate of zero under a right check sum
    forged = groups.Trailer(samples=1, frames=1, source=(0, 1), check=0).to_bytes()
    assert groups.read_trailer(forged) is None


def test_a_reader_written_from_the_manual_alone():
    """An independent implementation of the packed format, in the words of docs/format.md."""
    rows = codes(1723, 3)
    data = written(rows, header(3))
    magic, _, rate, channels, books, bits, hop, _, full, _, check = struct.unpack("<4s16sIBBBHHHQI", data[:45])
    assert (magic, rate, channels, hop, check) == (b"DSC\x01", 32000, 1, 640, zlib.crc32(data[:41]))
    at, found = 45, []
    while data[at : at + 2] == b"\xd5\xca":
        begin = at
        flags, count, start = struct.unpack_from("<BBI", data, at + 2)
        at += 8
        frames = [full] * count
        if flags & 16:
            frames[-1] = int.from_bytes(data[at : at + 2], "little")
            at += 2
        assert flags & ~16 == 0 and crc(data[begin:at]) == int.from_bytes(data[at : at + 2], "little")
        at += 2
        for length in frames:
            size = (books * length * bits + 7) // 8
            body = data[at : at + size]
            assert crc(start.to_bytes(4, "little") + body) == int.from_bytes(data[at + size : at + size + 2], "little")
            number = int.from_bytes(body, "little")
            found += [number >> bits * i & (1 << bits) - 1 for i in range(books * length)]
            at, start = at + size + 2, start + length
    assert torch.equal(torch.tensor(found).reshape(-1, books).t(), rows)
    assert data[at : at + 2] == b"\xd5\xe0" and crc(data[at:-2]) == int.from_bytes(data[-2:], "little")
    assert int.from_bytes(data[at + 2 : at + 4], "little") == len(data) - at
    assert zlib.crc32(data[:at]) == int.from_bytes(data[-6:-2], "little")


def crc(data):
    """CRC-16/IBM-3740, bit by bit; its catalogued check value is 29B1 for "123456789"."""
    value = 0xFFFF
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ 0x1021 * (value >> 15)) & 0xFFFF
    return value


def test_the_check_sum_is_the_catalogued_one():
    from descant.codec.packing import crc16

    assert crc(b"123456789") == crc16(b"123456789") == 0x29B1


@pytest.mark.parametrize(("kbps", "books"), [(2, 4), (4, 8)])
def test_a_minute_costs_at_most_one_percent_more_than_its_codes(kbps, books):
    head = header(books, chunk_frames=125)  # two and a half seconds, as Header.of has it
    assert len(written(codes(3000, books), head)) <= 1.009 * kbps * 1000 * 60 / 8
    # with a level that changes now and then
    file = io.BytesIO()
    with Writer(file, head) as writer:
        for seed, gain in enumerate((3.0, 4.5, 0.0)):
            writer.write(codes(1000, books, seed), gain)
    assert len(file.getvalue()) <= 1.01 * kbps * 1000 * 60 / 8


# damage


@pytest.mark.parametrize("coder", ["packed", "entropy"])
def test_a_flipped_bit_costs_its_chunk_and_no_other(coder):
    rows = codes(2000)
    rows[:, ::2] = rows[:, 1::2]
    data = bytearray(written(rows, coder=coder))
    data[45 + 10 + 3 * 502 + 40] ^= 16
    chunks, reader = read(bytes(data))
    lost = [chunk for chunk in chunks if chunk.damaged]
    assert len(lost) == 1 and [(row.start, row.frames) for row in reader.damage] == [(lost[0].start, 100)]
    for chunk in chunks:
        if not chunk.damaged:
            assert torch.equal(chunk.codes, rows[:, chunk.start : chunk.start + chunk.codes.shape[1]])
    # concealed with the chunk before, a little softer
    before = next(chunk for chunk in chunks if chunk.start == lost[0].start - 100)
    assert torch.equal(lost[0].codes, before.codes) and lost[0].gain == before.gain - 6


@pytest.mark.parametrize("where", [10, 5000, 9000])
@pytest.mark.parametrize("change", ["remove", "insert", "overwrite"])
def test_after_any_burst_the_rest_plays(where, change):
    rows = codes(4000)
    data = written(rows, group=4)
    at = 45 + where
    rest = {
        "remove": data[at + 300 :],
        "insert": b"\xd5\xca" * 50 + data[at:],
        "overwrite": bytes(300) + data[at + 300 :],
    }
    chunks, reader = read(data[:at] + rest[change])
    out = joined(chunks)
    assert out.shape == rows.shape and sum(row.frames for row in reader.damage) <= 800
    good = torch.cat([torch.full((chunk.codes.shape[1],), not chunk.damaged) for chunk in chunks])
    assert torch.equal(out[:, good], rows[:, good]) and good.sum() >= 3200


def test_many_lost_chunks_fade_to_silence():
    data = bytearray(written(codes(4000), group=1))
    size = 10 + 502
    for chunk in range(10, 30):
        data[45 + chunk * size + 100] ^= 1
    lost = [chunk for chunk in read(bytes(data))[0] if chunk.damaged]
    # one report for what was lost in a row
    assert [(row.start, row.frames) for row in read(bytes(data))[1].damage] == [(1000, 2000)]
    assert len(lost) == 20 and [chunk.gain for chunk in lost[:3]] == [-6, -12, -18] and lost[-1].gain == -96


def test_damage_at_the_beginning_is_silent():
    data = bytearray(written(codes(300), group=1))
    data[60] ^= 1
    first = read(bytes(data))[0][0]
    assert first.damaged and first.gain == -96 and not first.codes.any()


def test_cut_at_every_byte():
    rows = codes(130)
    data = written(rows, header(chunk_frames=20), group=2)
    for end in range(len(data)):
        try:
            reader = Reader(io.BytesIO(data[:end]))
            out = list(reader)
        except BitstreamError:
            assert end < 45
            continue
        assert reader.damage and not any(chunk.damaged for chunk in out)
        if out:
            assert torch.equal(joined(out), rows[:, : sum(chunk.codes.shape[1] for chunk in out)])


def test_a_wrong_chunk_with_a_right_check_sum_in_another_place_is_found():
    data = bytearray(written(codes(200), group=1))
    size = 10 + 502
    first, second = data[55 : 45 + size], data[55 + size : 45 + 2 * size]
    data[55 : 45 + size], data[55 + size : 45 + 2 * size] = second, first
    assert sum(row.frames for row in read(bytes(data))[1].damage) == 200


def test_codes_beyond_the_codec_are_damage():
    rows = codes(300) % 1001
    rows[2, 150] = 1001
    chunks, reader = read(written(rows), cardinality=1001)
    assert [(row.start, row.frames) for row in reader.damage] == [(100, 100)]
    assert all(int(chunk.codes.max()) < 1001 for chunk in chunks)


def test_something_after_the_end_is_reported_and_not_read():
    data = written(codes(50))
    chunks, reader = read(data + data)
    assert torch.equal(joined(chunks), codes(50)) and "after the end" in str(reader.damage[0])


# lies


def forged(start=0, frames=(100,), **more):
    sizes = more.pop("sizes", tuple((4 * n * 10 + 7) // 8 for n in frames))
    return Group(start=start, frames=frames, books=more.pop("books", 4), sizes=sizes, **more)


@pytest.mark.parametrize("group", [
    forged(start=(1 << 32) - 100), forged(start=1 << 20), forged(frames=(100,) * 255, sizes=(1,) * 255, coder=2),
])  # fmt: skip
def test_forged_headers_make_no_hours_of_sound(group):
    shape = header().shape
    data = header().to_bytes() + group.to_bytes(shape) + bytes(600) + written(codes(200))[45:]
    chunks, reader = read(data)
    assert sum(chunk.codes.shape[1] for chunk in chunks) <= 50_000 and reader.damage


def test_a_chain_of_jumps_makes_no_hours_of_sound_either():
    shape = header(1).shape
    data = header(1).to_bytes()
    for jump in range(1, 400):
        group = Group(start=32000 * jump, frames=(1,), books=1, sizes=(2,))
        data += group.to_bytes(shape) + b"\0\0" + seal(group.start, b"\0\0")
    frames = sum(chunk.codes.shape[1] for chunk in read(data)[0])
    assert 32000 <= frames <= (1 << 15) + 8 * len(data) + 400


def test_limits_are_checked_before_anything_is_read():
    shape = Header(**{**SHAPE, "fingerprint": bytes(16), "books": 64, "chunk_frames": 4096}).shape
    huge = Group(start=0, frames=(4096,) * 5, books=64, sizes=(1,) * 5, coder=2)
    assert read_group(huge.to_bytes(shape), shape) is None
    fine = Group(start=0, frames=(4096,) * 4, books=64, sizes=(1,) * 4, coder=2)
    assert read_group(fine.to_bytes(shape), shape) is not None


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: b"RIFF" + d[4:], "no descant file"), (lambda d: d[:44], "ends inside its header"),
    (lambda d: d[:3] + b"\x02" + d[4:], "version 2"), (lambda d: d[:9] + b"!" + d[10:], "damaged header"),
    (lambda d: b"", "no descant file"),
])  # fmt: skip
def test_headers_that_are_none(change, message):
    with pytest.raises(BitstreamError, match=message):
        Reader(io.BytesIO(change(written(codes(3)))))


@pytest.mark.parametrize(("place", "value"), [(24, 0), (25, 65), (26, 15), (26, 0), (31, 255), (20, 255)])
def test_impossible_headers_with_right_check_sums(place, value):
    raw = bytearray(header().to_bytes()[:-4])
    raw[place : place + 2] = bytes([value]) * 2 if place in (31, 20) else bytes([value, raw[place + 1]])
    if place == 20:
        raw[20:24] = b"\xff" * 4
    with pytest.raises(BitstreamError, match="impossible header"):
        Reader(io.BytesIO(bytes(raw) + zlib.crc32(bytes(raw)).to_bytes(4, "little")))


# seeking


def test_seek_finds_every_frame():
    rows = codes(5000)
    data = written(rows, group=2)
    for _ in range(2):
        file = io.BytesIO(b"before" + data)
        file.seek(6)
        reader = Reader(file)
        for frame in (4999, 0, 99, 100, 1234, 3000, 17):
            start = reader.seek(frame)
            chunk = next(iter(reader))
            assert chunk.start == start <= frame < start + chunk.codes.shape[1] and not chunk.damaged
            assert torch.equal(chunk.codes, rows[:, start : start + chunk.codes.shape[1]])
    with pytest.raises(ValueError, match="outside the file"):
        reader.seek(5000)


def test_seek_works_without_a_trailer_and_goes_on_to_the_end():
    rows = codes(2500)
    reader = Reader(io.BytesIO(written(rows)[:-10]))
    assert reader.frames is None and reader.seek(1750) == 1700
    assert torch.equal(joined(list(reader)), rows[:, 1700:])


# what writers refuse


@pytest.mark.parametrize(("rows", "gain", "message"), [
    (torch.zeros(5, 3, dtype=torch.long), 0, "whole numbers"), (torch.zeros(4, 3), 0, "whole numbers"),
    (torch.full((4, 3), 1024), 0, "0..1023"), (torch.full((4, 3), -1), 0, "0..1023"),
    (torch.zeros(4, 3, dtype=torch.long), 128, "gain"), (torch.zeros(4, 3, dtype=torch.long), float("nan"), "gain"),
])  # fmt: skip
def test_writers_refuse_what_does_not_fit(rows, gain, message):
    with pytest.raises(ValueError, match=message):
        Writer(io.BytesIO(), header()).write(rows, gain)


def test_a_failed_block_writes_no_trailer():
    file = io.BytesIO()
    with pytest.raises(RuntimeError), Writer(file, header()) as writer:
        writer.write(codes(50))
        raise RuntimeError
    assert b"\xd5\xe0" not in file.getvalue()


@pytest.mark.parametrize(
    "wrong", [{"bits": 15}, {"books": 0}, {"fingerprint": b"short"}, {"samples": -1}, {"hop": 1 << 16}]
)
def test_headers_refuse_what_the_format_cannot_say(wrong):
    with pytest.raises(ValueError):
        header(**wrong)
    assert headers.HEADER_BYTES == 45
