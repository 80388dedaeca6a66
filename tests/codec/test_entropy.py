import io
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from descant.codec import context, load
from descant.codec.bitstream import BitstreamError, Header, Reader, Writer
from descant.codec.context import Context
from descant.codec.entropy import Adaptive
from descant.codec.model import Codec, nano
from descant.codec.pretrained import save
from descant.codec.rans import TOTAL, Lanes, Stream, encode_stream
from descant.recipes import entropy
from descant.recipes.corpus import Packer
from descant.recipes.entropy import EntropyConfig, Net

SMALL = {"embed": 4, "hidden": 16, "rank": 8}


def net(seed=0, books=3, cardinality=32, scale=1.0):
    torch.manual_seed(seed)
    made = Net(books, cardinality, EntropyConfig(**SMALL))
    with torch.no_grad():
        for value in made.parameters():
            value.mul_(scale)
    made.clip()
    return made


def tables(**more):
    return Context(net(**more).tensors())


def noise(frames, books=3, top=32, seed=0):
    return np.random.default_rng(seed).integers(0, top, (books, frames))


# the coder of symbols


def test_streams_come_back_in_step_and_alone():
    rng = np.random.default_rng(0)
    streams, plans = [], []
    for length in (300, 200, 1):
        edges = np.sort(rng.choice(np.arange(1, TOTAL), (length, 5)), 1)
        edges = np.concatenate([np.zeros((length, 1), int), edges, np.full((length, 1), TOTAL)], 1)
        edges += np.arange(7) - np.minimum(edges + np.arange(7), TOTAL) + np.minimum(edges, TOTAL - 6 + np.arange(7))
        which = rng.integers(0, 6, length)
        starts, ends = edges[np.arange(length), which], edges[np.arange(length), which + 1]
        keep = ends > starts
        starts, sizes = starts[keep], (ends - starts)[keep]
        plans.append((starts, sizes))
        streams.append(encode_stream(starts.tolist(), sizes.tolist(), seed=length * 1000))
    lanes = Lanes(streams)
    for at in range(300):
        live = sum(len(starts) > at for starts, _ in plans)
        slots = lanes.slots(live)
        start, size = (np.array([plan[i][at] for plan in plans[:live]]) for i in (0, 1))
        if live:
            assert ((slots >= start) & (slots < start + size)).all()
            lanes.take(start, size)
    seeds, whole = lanes.finish()
    assert whole.all() and seeds.tolist() == [300000, 200000, 1000]
    for data, (starts, sizes), seed in zip(streams, plans, seeds, strict=True):
        stream = Stream(data)
        for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
            assert start <= stream.slot < start + size
            stream.take(start, size)
        assert stream.finish() == seed


def test_a_stream_is_as_short_as_information_allows():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 3000, 2000)
    ideal = (16 - np.log2(sizes)).sum()
    assert ideal / 8 <= len(encode_stream([0] * 2000, sizes.tolist())) <= ideal / 8 + 5


def test_a_stream_that_lost_or_got_bytes_is_found_out():
    data = encode_stream([5] * 50, [7] * 50, seed=99)
    for wrong in (data[:-1], data + b"\0", data[1:]):
        stream = Stream(wrong)
        for _ in range(50):
            stream.take(5, 7)
        assert stream.finish() is None


# the adaptive model


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (4, 100), (8, 37), (64, 3)])
@pytest.mark.parametrize("bits", [1, 5, 10, 14])
def test_adaptive_brings_codes_back(shape, bits):
    rng = np.random.default_rng(0)
    for repeats in (False, True):
        codes = rng.integers(0, 1 << bits, shape)
        if repeats:
            codes[:] = codes[:, :1]
        coded = Adaptive().encode([codes], bits)
        (back,) = Adaptive().decode(coded, shape[0], [shape[1]], bits)
        assert np.array_equal(back, codes)


def test_adaptive_saves_what_repeats_and_costs_nothing_in_a_file():
    held = np.repeat(noise(1, 8, 1024), 100, 1)
    assert len(Adaptive().encode([held], 10)[0]) < 80 < 1000
    rows = torch.from_numpy(noise(1000, 8, 1024))
    sizes = []
    for coder in ("packed", "entropy"):
        file = io.BytesIO()
        with Writer(file, Header(fingerprint=bytes(16), rate=8000, channels=1, books=8, bits=10, hop=160), coder) as w:
            w.write(rows)
        sizes.append(len(file.getvalue()))
    assert sizes[0] == sizes[1]


def test_the_example_of_the_manual():
    codes = np.array([[5, 5, 5, 5, 7], [9, 9, 9, 9, 9]])
    assert Adaptive().encode([codes], 4)[0] == bytes.fromhex("197959010195")


# the context model


@pytest.mark.parametrize("frames", [[1], [2, 1], [100, 100, 37], [5] * 20])
@pytest.mark.parametrize("books", [1, 2, 3])
def test_context_brings_codes_back(frames, books):
    model = tables(scale=2.0)
    chunks = [noise(count, books, seed=i) for i, count in enumerate(frames)]
    coded = model.encode(chunks, 5)
    for back, codes in zip(model.decode(coded, books, frames, 5), chunks, strict=True):
        assert np.array_equal(back, codes)
    # each chunk alone, and in another company
    for data, codes in zip(coded, chunks, strict=True):
        assert np.array_equal(model.decode([data], books, [codes.shape[1]], 5)[0], codes)
    assert model.encode(chunks[::-1], 5) == coded[::-1]


def test_shares_are_those_of_exact_arithmetic():
    """The network of docs/format.md in Python's whole numbers and fractions, without numpy and without floats."""
    w = {name: value.tolist() for name, value in net(scale=3.0).tensors().items()}
    codes = noise(23, 3, seed=3)
    table, value = [], 1 << 40
    for _ in range(1024):
        table.append((value + (1 << 19)) >> 20)
        value = value * 4228380000 >> 32

    def q(total, shift):
        return min(127, max(0, (total + (1 << shift - 1)) >> shift))

    def code(t, k):
        return w["embed"][k][codes[k, t]] if t >= 0 else [0] * 4

    books, width, rank = range(3), range(16), range(8)
    first, starts, sizes = [], np.zeros_like(codes), np.zeros_like(codes)
    for t in range(codes.shape[1]):
        past = [(i, k, e, x) for i in range(4) for k in books for e, x in enumerate(code(t - 1 - i, k))]
        first.append([q(sum(x * w["first"][i][k][e][h] for i, k, e, x in past) + w["first_bias"][h], 8) for h in width])
        seen = [(i, h, x) for i in range(4) if t >= 4 * i for h, x in enumerate(first[t - 4 * i])]
        second = [q(sum(x * w["second"][i][h][g] for i, h, x in seen) + w["second_bias"][g], 7) for g in width]
        for k in books:
            z = []
            for r in rank:
                total = w["middle_bias"][k][r] + sum(second[h] * w["history"][h][k][r] for h in width)
                total += sum(x * w["recent"][i][j][e][k][r] for i, j, e, x in past if i < 2)
                total += sum(x * w["inside"][j][e][k][r] for j in range(k) for e, x in enumerate(code(t, j)))
                z.append(q(total, 7))
            logits = [sum(z[r] * w["out"][k][r][c] for r in rank) + w["out_bias"][k][c] for c in range(32)]
            top = max(logits)
            weights = [table[min(1023, (top - logit) // 16)] for logit in logits]
            unit = ((TOTAL - 32) << 32) // sum(weights)
            shares = [1 + (weight * unit >> 32) for weight in weights]
            shares[logits.index(top)] += TOTAL - sum(shares)
            starts[k, t], sizes[k, t] = sum(shares[: codes[k, t]]), shares[codes[k, t]]
    found = Context(net(scale=3.0).tensors()).shares(codes)
    assert np.array_equal(found[0], starts) and np.array_equal(found[1], sizes)


def test_the_order_of_summation_does_not_matter():
    """What makes the coder portable: inputs permuted, so that every dot product is summed in another order."""
    made = net(scale=3.0).tensors()
    order = np.random.default_rng(0).permutation(16)
    other = dict(made)
    for name in ("first", "first_bias", "second_bias"):
        other[name] = made[name][..., order]
    other["second"] = made["second"][:, order][:, :, order]
    other["history"] = made["history"][order]
    codes = noise(60)
    for a, b in zip(Context(made).shares(codes), Context(other).shares(codes), strict=True):
        assert np.array_equal(a, b)


def test_the_exponential_is_one():
    found = context.exponentials()
    assert np.abs(found - 2**20 * np.exp(-np.arange(1024) / 64)).max() <= 0.51
    # exp(-1/64) as the sum of its series, in whole numbers: the constant of the format
    term = total = Fraction(1)
    for n in range(1, 12):
        term *= Fraction(-1, 64 * n)
        total += term
    assert round(total * 2**32) == 4228380000


def test_training_sees_what_the_coder_spends():
    made = net(seed=5, scale=2.0)
    codes = torch.from_numpy(noise(200)).unflatten(1, (4, 50)).transpose(0, 1).contiguous()
    keep = torch.tensor([3, 3, 2, 1])
    bits = made(codes, keep).detach()
    model = Context(made.tensors())
    for row, kept, seen in zip(codes, keep.tolist(), bits, strict=True):
        spent = 16 - np.log2(model.shares(row[:kept].numpy())[1])
        # training multiplies in bfloat16, so single codes differ a little, and their mean less
        assert np.abs(spent - seen[:kept].numpy()).mean() < 0.12
        assert abs(spent.mean() - seen[:kept].mean().item()) < 0.1
        assert not seen[kept:].any()


def test_training_learns_what_there_is_to_learn():
    """Codes of which half repeat the frame before, and whose second book follows from the first."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(8):
        first = np.empty(400, int)
        first[0] = 3
        for t in range(1, 400):
            first[t] = first[t - 1] if rng.random() < 0.5 else rng.integers(16)
        rows.append(np.stack([first, (first * 5 + 3) % 16]))
    config = EntropyConfig(embed=8, hidden=24, rank=16, steps=120, batch=8, chunk=40, rate=2e-2)
    bits = entropy.measure(entropy.train(rows[:7], 16, config), rows[7:], 40)
    # 3.04 bits are in the first book, 0 in the second; 4 each without learning
    assert bits[0] < 3.6 and bits[1] < 0.5
    short = replace(config, steps=3)
    one, two = (entropy.train(rows[:7], 16, short) for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("channels", [1, 2])
def test_tables_are_fitted_to_a_codec_and_a_corpus(tmp_path, channels):
    torch.manual_seed(0)
    save(Codec(replace(nano(), channels=channels)), tmp_path / "codec")
    for name in ("train", "dev"):
        packer = Packer(tmp_path / name, 32000, channels)
        packer.add("noise", "real", 0.1 * torch.randn(channels, 32000 * 5))
        packer.add("click", "mix", torch.ones(channels, 100))
        packer.close()
    said = []
    config = EntropyConfig(**SMALL, steps=2, batch=2, chunk=50)
    path = entropy.fit(tmp_path / "codec", tmp_path / "train", tmp_path / "dev", config, said.append)
    model = context.load(tmp_path / "codec")
    assert path.name == context.FILE and model is not None and (model.books, model.cardinality) == (8, 64)
    assert said[-1].startswith("4 books") and "8 books: " in said[-2]
    vectors = entropy.vectors_of(load(tmp_path / "codec"))
    assert vectors is not None and [list(row.shape) for row in vectors] == [[64, 8]] * 8
    if channels == 2:
        save(Codec(nano()), tmp_path / "mono")
        with pytest.raises(ValueError, match="2 channels"):
            entropy.fit(tmp_path / "mono", tmp_path / "train", config=config)


def test_tables_are_kept_in_a_file_and_named_in_it(tmp_path):
    made = net().tensors()
    context.save(tmp_path, made)
    assert [path.name for path in tmp_path.iterdir()] == ["entropy.safetensors"]
    back = context.load(tmp_path)
    assert back is not None and back.identity == Context(made).identity != tables(seed=1).identity
    assert context.load(tmp_path / "..") is None
    (tmp_path / "entropy.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="no entropy tables"):
        context.load(tmp_path)


@pytest.mark.parametrize("wrong", ["missing", "shape", "kind", "loud"])
def test_tables_that_could_not_be_exact_are_refused(wrong):
    made = net().tensors()
    if wrong == "missing":
        del made["out"]
    elif wrong == "shape":
        made["history"] = made["history"][:-1]
    elif wrong == "kind":
        made["out"] = made["out"].astype(np.int16)
    else:
        made["out_bias"] = np.full_like(made["out_bias"], 1 << 23)
    with pytest.raises(ValueError):
        Context(made)


def coded_file(rows, model):
    file = io.BytesIO()
    header = Header(fingerprint=bytes(16), rate=8000, channels=1, books=3, bits=5, hop=160, chunk_frames=50)
    with Writer(file, header, "entropy", model) as writer:
        writer.write(torch.from_numpy(rows))
    return file.getvalue()


def test_a_file_needs_the_tables_it_was_written_with():
    rows = noise(400, top=4) * 7
    context_model = Context(entropy.train([rows], 32, EntropyConfig(**SMALL, steps=40, batch=4, chunk=50, rate=3e-2)))
    data = coded_file(rows, context_model)
    assert len(data) < 0.8 * rows.size * 5 / 8 < len(coded_file(rows, None))
    out = torch.cat([chunk.codes for chunk in Reader(io.BytesIO(data), context_model)], 1)
    assert np.array_equal(out.numpy(), rows)
    for model in (None, tables(seed=9)):
        with pytest.raises(BitstreamError, match="tables"):
            list(Reader(io.BytesIO(data), model))
    assert Reader(io.BytesIO(data)).survey().coders == ("entropy",)
    hurt = bytearray(data)
    hurt[-60] ^= 1
    reader = Reader(io.BytesIO(bytes(hurt)), context_model)
    out = torch.cat([chunk.codes for chunk in reader], 1).numpy()
    assert (out == rows).all(0).sum() >= 350 and sum(row.frames for row in reader.damage) == 50


def test_nonsense_under_a_right_check_sum_is_no_code():
    model = tables()
    rng = np.random.default_rng(0)
    found = model.decode([rng.bytes(20) for _ in range(30)], 3, [20] * 30, 5)
    assert sum(row is None for row in found) >= 29
    assert model.decode([b"1234"], 3, [2], 6) == [None] and model.decode([b"1234"], 4, [2], 5) == [None]
