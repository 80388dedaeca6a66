import importlib
import io
import json
import struct
import sys
import types

import numpy as np
import pytest
import torch

from descant.codec import ecdc
from descant.codec.bitstream import BitstreamError
from descant.codec.contract import Segment
from descant.codec.ecdc import Recording


@pytest.fixture(scope="module")
def package():
    """The encodec package, whose import of torchaudio is met by an empty module."""
    stubs = {}
    for name in ("torchaudio", "torchaudio.functional", "torchaudio.transforms"):
        if name not in sys.modules:
            stubs[name] = types.ModuleType(name)
    sys.modules.update(stubs)
    try:
        compress = importlib.import_module("encodec.compress")  # encodec.compress is also a function
    finally:
        for name in stubs:
            sys.modules.pop(name, None)
    return types.SimpleNamespace(EncodecModel=compress.EncodecModel, compress=compress)


class Made:
    """Stands for the package's model: it gives the codes it was told to, so that no network need run."""

    bits_per_codebook = 10

    def __init__(self, name, frames, scales):
        self.name, self.frames, self.scales = name, frames, scales

    def encode(self, _):
        scales = [None] * len(self.frames) if not self.scales else [torch.tensor([scale]) for scale in self.scales]
        return list(zip([codes[None] for codes in self.frames], scales, strict=True))


def recording(model="encodec_24khz", samples=30000, books=4, seed=0):
    rng = np.random.default_rng(seed)
    codes = tuple(torch.from_numpy(rng.integers(0, 1024, (books, count))) for count in ecdc.lengths(model, samples))
    scales = tuple(struct.unpack("f", struct.pack("f", x))[0] for x in rng.uniform(0.01, 2, len(codes)))
    return Recording(model=model, samples=samples, codes=codes, scales=scales if model == "encodec_48khz" else ())


def written(row):
    file = io.BytesIO()
    ecdc.write(file, row)
    return file.getvalue()


CASES = [("encodec_24khz", 30000, 2), ("encodec_24khz", 1, 32), ("encodec_24khz", 320 * 7, 3),
         ("encodec_48khz", 48000, 2), ("encodec_48khz", 47521, 16), ("encodec_48khz", 200001, 4)]  # fmt: skip


@pytest.mark.parametrize(("model", "samples", "books"), CASES)
def test_the_bytes_are_those_of_the_package(package, model, samples, books):
    row = recording(model, samples, books)
    theirs = package.compress.compress(Made(model, row.codes, row.scales), torch.zeros(1, samples), use_lm=False)
    assert written(row) == theirs
    back = ecdc.read(io.BytesIO(theirs))
    assert back.samples == samples and back.scales == row.scales
    assert all(torch.equal(a, b) for a, b in zip(back.codes, row.codes, strict=True))


@pytest.mark.parametrize(("model", "samples", "books"), CASES)
def test_the_package_reads_what_we_write(package, model, samples, books, monkeypatch):
    row = recording(model, samples, books)
    seen = []

    class Reader:
        """As much of the package's model as its reader asks for."""

        sample_rate, frame_rate = row.kind.rate, row.kind.rate // 320
        segment_length, segment_stride = row.kind.segment, row.kind.stride
        normalize, bits_per_codebook = row.kind.segment is not None, 10

        def to(self, _):
            return self

        def decode(self, frames):
            seen.extend(frames)
            return torch.zeros(1, 1, samples)

    monkeypatch.setitem(package.compress.MODELS, model, Reader)
    package.compress.decompress(written(row))
    assert all(torch.equal(a[0][0], b) for a, b in zip(seen, row.codes, strict=True))
    assert [None if s is None else float(s) for _, s in seen] == list(row.scales or [None])


def test_a_real_model_of_the_package_writes_files_we_read(package):
    torch.manual_seed(0)
    model = package.EncodecModel._get_model([1.5, 3.0], sample_rate=24000, channels=1, name="encodec_24khz").eval()
    for layer in model.quantizer.vq.layers:  # untrained books hold zeros, which would hide everything
        layer._codebook.embed.normal_()
        layer._codebook.inited.fill_(True)
    model.set_target_bandwidth(3.0)
    wav = torch.randn(1, 5000) * 0.1
    data = package.compress.compress(model, wav, use_lm=False)
    with torch.no_grad():
        wanted = model.encode(wav[None])[0][0][0]
    found = ecdc.read(io.BytesIO(data))
    assert torch.equal(found.codes[0], wanted) and found.samples == 5000 and written(found) == data


def test_lengths_of_segments():
    assert list(ecdc.lengths("encodec_48khz", 47521)) == [149, 1]
    assert list(ecdc.lengths("encodec_48khz", 47520)) == [149]
    assert list(ecdc.lengths("encodec_24khz", 24001)) == [76]


def file_of(meta, body=b""):
    data = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
    return struct.pack("!4sBI", b"ECDC", 0, len(data)) + data + body


GOOD = {"m": "encodec_24khz", "al": 640, "nc": 2, "lm": False}


@pytest.mark.parametrize(("data", "message"), [
    (b"", "no .ecdc"), (b"RIFFxxxxxxxxx", "no .ecdc"), (b"ECDC\0", "ends inside"),
    (struct.pack("!4sBI", b"ECDC", 0, 1 << 31), "header of"), (struct.pack("!4sBI", b"ECDC", 1, 10), "version 1"),
    (file_of({**GOOD, "lm": True}), "language model"), (file_of({**GOOD, "m": "encodec_1khz"}), "unknown model"),
    (file_of({**GOOD, "m": ["x"]}), "unknown model"), (file_of({**GOOD, "al": 1 << 50}), "1.."),
    (file_of({**GOOD, "al": -1}), "1.."), (file_of({**GOOD, "al": 0}), "1.."), (file_of({**GOOD, "al": True}), "1.."),
    (file_of({**GOOD, "al": 1.5}), "1.."), (file_of({**GOOD, "nc": 100}), "1.."), (file_of({**GOOD, "nc": 0}), "1.."),
    (file_of({"m": "encodec_24khz"}), "language model"), (file_of([1, 2]), "no mapping"),
    (file_of(b"{"), "nothing useful"), (file_of(b"[" * 4000), "nothing useful"),
    (file_of(b"\xff\xfe"), "nothing useful"),
    (file_of(b'{"al": ' + b"9" * 4000), "nothing useful"), (file_of(GOOD, bytes(4)), "ends early"),
    (file_of({**GOOD, "al": 1 << 40}, bytes(100)), "ends early"),
    (file_of(GOOD, bytes(6)), "goes on after"),
    (file_of({**GOOD, "m": "encodec_48khz", "al": 1 << 40}, bytes(100)), "scaled by 0"),
    (file_of({**GOOD, "m": "encodec_48khz"}, struct.pack("!f", float("nan")) + bytes(5)), "scaled by nan"),
])  # fmt: skip
def test_hostile_files_are_refused_in_one_way(data, message):
    with pytest.raises(BitstreamError, match=message):
        ecdc.read(io.BytesIO(data))


def test_cut_anywhere_it_is_refused():
    data = written(recording("encodec_48khz", 60000, 2))
    for end in range(len(data)):
        with pytest.raises(BitstreamError):
            ecdc.read(io.BytesIO(data[:end]))


@pytest.mark.parametrize("change", [
    {"samples": 31000}, {"codes": (torch.full((4, 94), 1024),)}, {"scales": (1.0,)},
    {"codes": (torch.zeros(33, 94, dtype=torch.long),)}, {"model": "other"},
])  # fmt: skip
def test_recordings_that_fit_no_file_are_refused(change):
    row = recording()
    fields = {"model": row.model, "samples": row.samples, "codes": row.codes, "scales": row.scales, **change}
    with pytest.raises(ValueError):
        ecdc.write(io.BytesIO(), Recording(**fields))


class Codec48:
    """The contract of a codec in segments, with codes that are its input's sign."""

    rate, channels, hop, books, cardinality, frame_rate, fingerprint = 48000, 2, 320, 16, 1024, 150.0, bytes(16)

    def encode(self, *given, **more):
        pytest.fail("a recording in segments goes through segments() and from_segments() alone")

    decode = decode_latent = encoder_stream = decoder_stream = save = encode

    def segments(self, wav, books=None):
        rows = ecdc.lengths("encodec_48khz", wav.shape[-1])
        return [Segment(torch.full((1, books, n), i + 1), torch.tensor([0.5 * (i + 1)])) for i, n in enumerate(rows)]

    def from_segments(self, segments, length):
        assert [float(s.scale) for s in segments] == [0.5 * (i + 1) for i in range(len(segments))]
        assert all((s.codes == i + 1).all() and s.codes.dim() == 3 for i, s in enumerate(segments))
        return torch.zeros(1, 2, length)


def test_sound_goes_in_and_out_through_the_codec():
    codec = Codec48()
    row = ecdc.of_wav(codec, torch.zeros(1, 2, 100000), 3)
    back = ecdc.read(io.BytesIO(written(row)))
    assert len(back.codes) == 3 and back.scales == (0.5, 1.0, 1.5)
    assert ecdc.to_wav(codec, back).shape == (1, 2, 100000)
    with pytest.raises(ValueError, match="encodec_24khz"):
        ecdc.to_wav(codec, recording())
