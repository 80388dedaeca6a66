import numpy as np
import pytest
import torch

from descant.recipes import packed
from descant.recipes.flops import Meter, crop_flops
from descant.recipes.lm import LMTask
from descant.recipes.tokens import TokenSet, ngram_baselines

from .lm_runs import shards, small


@pytest.mark.parametrize(("cardinality", "books", "wide"), [(1024, 4, 5), (2048, 4, 6), (1000, 1, 2), (2, 3, 1)])
def test_packing_gives_back_every_token(cardinality: int, books: int, wide: int) -> None:
    bits = packed.width(cardinality)
    codes = np.random.default_rng(0).integers(0, cardinality, (50, books)).astype(np.uint16)
    codes[0], codes[1] = 0, cardinality - 1
    rows = packed.pack(codes, bits)
    assert rows.shape == (50, wide) and rows.dtype == np.uint8
    assert np.array_equal(packed.unpack(rows, books, bits), codes)
    # highest bit first: 4 tokens of 10 bits are one number of 40
    if wide == 5:
        one = int.from_bytes(rows[7].tobytes(), "big")
        assert [one >> 10 * (3 - k) & 1023 for k in range(4)] == codes[7].tolist()


def test_a_packed_folder_trains_as_the_other(tmp_path) -> None:
    source = shards(tmp_path / "tokens")
    size = packed.convert(source, tmp_path / "packed")
    assert size < 128 + 400 * 3 + 1  # 4 tokens of 5 bits
    plain, mapped = TokenSet(source), TokenSet(tmp_path / "packed")
    assert isinstance(mapped.codes[0]._rows, np.memmap)
    assert mapped.hours == plain.hours and len(mapped.pieces) == 4
    for a, b in zip(*(data.draw(6, 30, torch.Generator().manual_seed(1)) for data in (plain, mapped)), strict=True):
        assert torch.equal(a.codes, b.codes) and a.condition == b.condition
    assert ngram_baselines(plain, plain, 32, 4) == ngram_baselines(mapped, mapped, 32, 4)
    figures = LMTask(small(), mapped, plain).validate(LMTask(small(), plain, plain).lm)
    assert figures["bigram_0"] < figures["unigram_0"] < figures["ce_0"] + 0.5


def test_what_cannot_be_packed_or_read_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="10 bits hold"):
        packed.pack(np.array([[1024]]), 10)
    with pytest.raises(ValueError, match="whole numbers"):
        packed.pack(np.array([[0.5]]), 10)
    source = shards(tmp_path / "tokens")
    packed.convert(source, tmp_path / "packed")
    path = tmp_path / "packed" / "tokens-00000.npy"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="prepare the tokens again"):
        TokenSet(tmp_path / "packed")
    np.save(path, np.zeros((400, 2), np.uint8))
    with pytest.raises(ValueError, match=r"does not fit its folder's tokens\.json"):
        TokenSet(tmp_path / "packed")
    for wrong in (b"", b"PK\x03\x04 no archive"):
        (source / "tokens-00000.npz").write_bytes(wrong)
        with pytest.raises(ValueError, match="prepare the tokens again"):
            TokenSet(source)
    np.savez(source / "tokens-00000.npz", codes=np.zeros((400, 4), np.uint16))
    with pytest.raises(ValueError, match="no token shard: 'starts"):
        TokenSet(source)
    for text in ("", "[]", '{"rate": 32000}', '{"rate": 32000, "hop": 0, "books": 4, "cardinality": 32}'):
        (source / "tokens.json").write_text(text)
        with pytest.raises(ValueError, match="does not say what the tokens are of"):
            TokenSet(source)
    with pytest.raises(ValueError, match="into itself"):
        packed.convert(source, source)


@pytest.mark.parametrize(("pattern", "steps"), [("delay", 24), ("flat", 96), ("coarse-first", 48)])
def test_arithmetic_is_what_torch_counts(tmp_path, pattern: str, steps: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    data = TokenSet(shards(tmp_path / "tokens"))
    settings = {"batch": "1", "drop_all": "1", "lm.pattern": pattern, "lm.window": "128"}
    task = LMTask(small(**settings), data, data)
    (codes, batch), = task._parts(0)  # fmt: skip
    with FlopCounterMode(display=False) as forward:
        task.lm.loss(codes, batch)
    counted = forward.get_flop_counts()
    layers = [f"Stack.blocks.{n}.{name}" for n in range(2) for name in ("qkv", "out", "up", "down")]
    products = sum(sum(counted[name].values()) for name in (*layers, "Linear"))
    # causal attention over 6 positions of the prefix and the steps, in two layers: half of two products each
    assert crop_flops(task.lm, 24) / 3 == products + 2 * (2 * 2 * (6 + steps) ** 2 * 16 / 2)


def test_the_meter_says_tokens_and_share(monkeypatch) -> None:
    clock = iter([10.0, 12.0, 15.0])
    monkeypatch.setattr("descant.recipes.flops.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("descant.recipes.flops.peak", lambda device, bf16: 1000.0)
    meter = Meter(50.0, 96, torch.device("cpu"), False, 2)
    meter.step(4)  # the first step is not counted: it waits for things that later ones do not
    assert meter.look() == {}
    meter.step(4)
    meter.step(4)
    assert meter.look() == {"tokens/s": 4 * 96, "mfu": 4 * 50 / 2000}
    meter.step(6)
    assert meter.look()["tokens/s"] == 2 * 96
