import io
import tracemalloc

import numpy as np
import pytest

from descant.codec.bitstream import BitstreamError
from descant.recipes import fuzz


def test_two_thousand_hurt_files():
    report = fuzz.run(2000, seed=1)
    assert report.failures == [] and report.files == 2000
    assert report.memory <= fuzz.MEMORY
    # some are refused and some are read, or the mutations hurt nothing or everything
    assert 400 < report.refused < 1900


def test_good_files_are_good_and_cover_every_kind():
    rows = fuzz.samples()
    assert [row.name for row in rows] == ["packed", "adaptive", "context", "encodec_24khz", "encodec_48khz", "dac"]
    assert all(row.read(row.data) > 0 for row in rows)
    assert rows[0].read(rows[0].data) == 187
    # entropy coding is in use, so that its decoders are fuzzed
    assert len(rows[1].data) < len(rows[0].data)


def test_cut_at_every_byte():
    for sample in fuzz.samples():
        for end in range(len(sample.data)):
            try:
                assert sample.read(sample.data[:end]) <= sample.read(sample.data)
            except BitstreamError:
                continue


@pytest.mark.parametrize("raised", [KeyError("x"), MemoryError(), RecursionError(), EOFError()])
def test_other_exceptions_are_failures(monkeypatch, raised):
    def broken(data):
        if len(data) != 100:
            raise raised
        return 1

    monkeypatch.setattr(fuzz, "samples", lambda seed: [fuzz.Sample(name="dac", data=bytes(100), read=broken)])
    report = fuzz.run(60)
    assert report.failures and type(raised).__name__ in report.failures[0]


def test_greed_is_a_failure(monkeypatch):
    def greedy(data):
        return len(np.zeros(90 << 20, np.uint8)) if len(data) != 100 else 1

    monkeypatch.setattr(fuzz, "samples", lambda seed: [fuzz.Sample(name="dac", data=bytes(100), read=greedy)])
    report = fuzz.run(40)
    assert any("MiB more" in text for text in report.failures) and any(
        "out of nothing" in text for text in report.failures
    )
    assert not tracemalloc.is_tracing()


def test_forged_files_pass_the_check_sums():
    """Lies with right check sums reach the checks behind them: most forged files have a readable header."""
    sample, readable = fuzz.samples()[0], 0
    for seed in range(100):
        data = fuzz._forge(sample.data, np.random.default_rng(seed))
        try:
            fuzz.Reader(io.BytesIO(data))
            readable += 1
        except BitstreamError as error:
            assert "damaged header" not in str(error)
    assert readable >= 60
