import importlib.util
import math
import sys
import types

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch

from descant.eval import toeplitz
from descant.eval.reconstruction import si_sdr
from descant.eval.separation import (
    BssSettings,
    bss_eval,
    consistency,
    median,
    si_scores,
    silence,
    utterance_sdr,
    windowed_sdr,
)

RATE = 8000
#: Short filters keep the peer quick; one test runs the standard 512.
TAPS = 96
NAMES = ("sdr", "isr", "sir", "sar")


@pytest.fixture(scope="module")
def museval():
    """museval's metrics module by itself: the package around it wants ffmpeg and pandas, the module does not."""
    found = importlib.util.find_spec("museval")
    if found is None or not found.submodule_search_locations:
        return reference_module()
    path = f"{found.submodule_search_locations[0]}/metrics.py"
    spec = importlib.util.spec_from_file_location("museval_metrics", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["museval_metrics"] = module
    spec.loader.exec_module(module)
    return module


def reference_module():
    """The definition of BSS Eval 4 written out densely, for machines without museval."""
    return types.SimpleNamespace(bss_eval=dense_bss_eval)


def dense_bss_eval(reference, estimate, window, hop, taps=512, **ignored):
    taps = ignored.get("filters_len", taps)
    sources, length, channels = reference.shape

    def delayed(parts, start=0, stop=None):
        columns = []
        for part in parts:
            for channel in part[start:stop].T:
                first = np.concatenate([channel, np.zeros(taps - 1)])
                columns.append(scipy.linalg.toeplitz(first, np.zeros(taps)))
        return np.concatenate(columns, axis=1)

    def pad(part):
        return np.concatenate([part, np.zeros((taps - 1, channels))])

    whole = delayed(reference)
    alone = [delayed(reference[i : i + 1]) for i in range(sources)]
    count = int((length - window + hop) // hop) if window < length else 1
    out = np.full((4, sources, count), np.nan)
    for j in range(sources):
        every = np.linalg.lstsq(whole, pad(estimate[j]), rcond=None)[0]
        own = np.linalg.lstsq(alone[j], pad(estimate[j]), rcond=None)[0]
        for w in range(count):
            cut = slice(w * hop, min(w * hop + window, length))
            silent = [np.all(part[cut] == 0) for part in (*reference, *estimate)]
            if any(silent):
                continue
            true, heard = pad(reference[j, cut]), pad(estimate[j, cut])
            filtered = delayed(reference[j : j + 1], cut.start, cut.stop) @ own
            full = delayed(reference, cut.start, cut.stop) @ every
            for row, (top, bottom) in enumerate(
                ((true, heard - true), (true, filtered - true), (filtered, full - filtered), (full, heard - full))
            ):
                out[row, j, w] = 10 * np.log10((top**2).sum() / (bottom**2).sum())
    return (*out, None)


def scene(sources=3, channels=2, seconds=3.0, seed=0, kind="coloured"):
    """Coloured noise sources and estimates with interference, filtering and noise, quantised as files are."""
    noise = np.random.default_rng(seed)
    length = int(seconds * RATE)
    wav = scipy.signal.lfilter([1], [1, -0.9], noise.standard_normal((sources, channels, length)))
    if kind == "bands":
        for index in range(sources):
            low = 0.02 * 2.5**index
            wav[index] = scipy.signal.sosfilt(scipy.signal.butter(2, [low, 3 * low], "band", output="sos"), wav[index])
    if kind == "mono":
        wav[:, 1] = wav[:, 0]
    wav = np.round(wav / np.abs(wav).max(axis=(1, 2), keepdims=True) * 10_000) / 32_768
    mix = wav.sum(axis=0)
    heard = 0.8 * wav + 0.06 * mix + 0.03 * np.roll(wav, 3, axis=-1) + 0.004 * noise.standard_normal(wav.shape)
    return wav, np.round(heard * 32_768) / 32_768


def theirs(module, wav, heard, **options):
    options = {"window": RATE, "hop": RATE, "filters_len": TAPS, **options}
    return module.bss_eval(wav.transpose(0, 2, 1), heard.transpose(0, 2, 1), **options)[:4]


def ours(wav, heard, **options):
    found = bss_eval(torch.tensor(wav), torch.tensor(heard), RATE, BssSettings(**{"taps": TAPS, **options}))
    return [getattr(found, name).numpy() for name in NAMES]


@pytest.mark.parametrize(("kind", "channels"), [("coloured", 2), ("coloured", 1), ("bands", 2)])
def test_bss_eval_is_musevals(museval, kind, channels):
    wav, heard = scene(channels=channels, kind=kind)
    for name, mine, other in zip(NAMES, ours(wav, heard), theirs(museval, wav, heard), strict=True):
        assert mine.shape == other.shape == (3, 3)
        assert np.abs(mine - other).max() <= (1e-10 if name == "sdr" else 1e-6), name


@pytest.mark.parametrize("options", [{"window": 0.5, "hop": 0.25}, {"window": math.inf, "hop": 1}, {"taps": 512}])
def test_windows_hops_and_taps_are_musevals(museval, options):
    wav, heard = scene(sources=2, seconds=2.4, seed=1, channels=1 if "taps" in options else 2)
    window = options.get("window", 1.0) * RATE
    named = {"window": int(window) if math.isfinite(window) else 10**9, "hop": int(options.get("hop", 1) * RATE)}
    if "taps" in options:
        named["filters_len"] = options["taps"]
    for mine, other in zip(ours(wav, heard, **options), theirs(museval, wav, heard, **named), strict=True):
        assert mine.shape == other.shape
        assert np.abs(mine - other).max() <= 1e-6


def test_a_silent_window_is_nan_for_all_sources_as_in_museval(museval):
    wav, heard = scene(seed=2)
    wav[1, :, RATE : 2 * RATE] = 0
    heard[2, :, 2 * RATE :] = 0
    for mine, other in zip(ours(wav, heard), theirs(museval, wav, heard), strict=True):
        assert np.array_equal(np.isnan(mine), np.isnan(other))
        assert np.isnan(mine[:, 1:]).all()
        assert not np.isnan(mine[:, 0]).any()
    apart = bss_eval(torch.tensor(wav), torch.tensor(heard), RATE, BssSettings(silence="own", taps=TAPS))
    assert apart.silent == [0, 1, 1]
    assert torch.equal(apart.sdr.isnan(), apart.sar.isnan())


def test_a_source_silent_throughout_is_refused_or_left_out():
    wav, heard = scene(seed=3)
    wav[2] = 0
    with pytest.raises(ValueError, match="reference 2 is silent"):
        ours(wav, heard)
    found = bss_eval(torch.tensor(wav), torch.tensor(heard), RATE, BssSettings(silence="own", taps=TAPS))
    assert found.sdr[2].isnan().all()
    alone = ours(wav[:2], heard[:2])
    for name, other in zip(NAMES, alone, strict=True):
        assert np.allclose(getattr(found, name)[:2].numpy(), other, atol=1e-8)
    with pytest.raises(ValueError, match="estimate 1 is silent"):
        ours(*(lambda a, b: (a, b * np.array([1, 0, 1])[:, None, None]))(*scene()))


def test_equal_channels_make_no_trouble(museval):
    wav, heard = scene(kind="mono", seed=4)
    for mine, other in zip(ours(wav, heard), theirs(museval, wav, heard), strict=True):
        assert np.abs(mine - other).max() <= 1e-6


def test_sdr_alone_is_the_same_sdr():
    wav, heard = scene(seed=5)
    wav[0, :, :RATE] = 0
    alone = windowed_sdr(torch.tensor(wav), torch.tensor(heard), RATE).numpy()
    assert np.array_equal(alone, ours(wav, heard)[0], equal_nan=True)


def test_perfect_estimates_are_infinite_and_medians_ignore_nan():
    wav, _ = scene(seed=6)
    wav[0, :, :RATE] = 0
    found = windowed_sdr(torch.tensor(wav), torch.tensor(wav), RATE)
    assert found[:, 0].isnan().all()
    assert found[:, 1:].isinf().all()
    table = torch.tensor([[1.0, math.nan, 3.0, 8.0], [4.0, 2.0, math.nan, math.nan], [math.nan] * 4])
    assert np.allclose(median(table).numpy()[:2], np.nanmedian(table.numpy()[:2], axis=1))
    assert median(table)[2].isnan()
    scores = bss_eval(*map(torch.tensor, scene()), RATE, BssSettings(taps=TAPS))
    assert scores.medians()["sar"][0] == pytest.approx(np.median(scores.sar[0].numpy()))


def test_utterance_sdr_by_hand():
    reference = torch.tensor([[[1.0, -1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    estimate = reference + torch.tensor([0.1, -0.1])
    found = utterance_sdr(reference, estimate, delta=1e-7)
    assert float(found[0]) == pytest.approx(20.0, abs=1e-4)
    assert float(found[1]) == pytest.approx(10 * math.log10(1e-7 / (0.04 + 1e-7)))
    assert float(utterance_sdr(reference, reference)[1]) == 0


def test_si_scores():
    wav, heard = (torch.tensor(part) for part in scene(channels=1, seed=7))
    found = si_scores(wav, heard)
    other = [si_sdr(wav[i], heard[i]) for i in range(3)]
    assert found.sdr.tolist() == pytest.approx(other, abs=0.01)  # that one removes the mean
    assert torch.allclose(si_scores(wav, 3 * heard).sdr, found.sdr)
    # orthogonal parts: 1 / SDR = 1 / SIR + interference-relative 1 / SAR
    lost = 10 ** (-found.sir / 10) + 10 ** (-found.sar / 10) * (1 + 10 ** (-found.sir / 10))
    assert torch.allclose(10 ** (-found.sdr / 10), lost, rtol=1e-9)
    wav[0] = 0
    assert si_scores(wav, heard).sdr[0].isnan()


def test_silence_tells_what_sdr_cannot():
    wav = torch.zeros(1, 1, 4 * RATE)
    wav[:, :, : 2 * RATE] = 0.5
    heard = wav.clone()
    heard[:, :, 3 * RATE :] = 0.1
    heard[:, :, :RATE] = 0
    found = silence(wav, heard, RATE)
    assert int(found.windows[0]) == 2
    assert float(found.predicted[0]) == pytest.approx((-80 + -20) / 2)
    assert float(found.missed[0]) == pytest.approx((10 * math.log10(0.25) - 80) / 2)
    assert silence(wav + 0.1, heard, RATE).predicted[0].isnan()


def test_consistency():
    stems = torch.tensor(scene()[0])
    assert consistency(stems.sum(dim=0), stems) == -math.inf
    assert consistency(stems.sum(dim=0) * 1.1, stems) == pytest.approx(20 * math.log10(0.1 / 1.1), abs=1e-6)
    with pytest.raises(ValueError, match="shape"):
        consistency(stems, stems)


@pytest.mark.parametrize("size", [1, 3])
def test_toeplitz_systems_are_solved(size):
    generator = torch.Generator().manual_seed(size)
    wav = torch.randn(size, 5000, generator=generator, dtype=torch.float64)
    right = torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    found = toeplitz.correlations(wav, torch.cat([wav, right]), 33)
    for lag in (0, 7, 32):
        assert torch.allclose(found[lag], wav[:, : 5000 - lag] @ torch.cat([wav, right])[:, lag:].T, atol=1e-9)
    x = toeplitz.solve(found[None, :, :, :size], found[None, :, :, size:])[0]
    dense = np.block([
        [found[i - k, :, :size].numpy() if i >= k else found[k - i, :, :size].numpy().T for k in range(33)]
        for i in range(33)
    ])  # fmt: skip
    expected = np.linalg.solve(dense, found[:, :, size:].reshape(-1, 2).numpy())
    assert np.allclose(x.reshape(-1, 2).numpy(), expected, atol=1e-12)
    assert torch.allclose(toeplitz.product(found[None, :, :, :size], x[None])[0], found[:, :, size:], atol=1e-9)


def test_bad_arguments_are_refused():
    wav = torch.ones(2, 1, 100)
    with pytest.raises(ValueError, match=r"\[N, C, T\]"):
        bss_eval(wav, wav[:1], RATE)
    with pytest.raises(ValueError, match="NaN"):
        utterance_sdr(wav, wav * math.nan)
    for options in ({"window": 0}, {"taps": 0}, {"silence": "drop"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            BssSettings(**options)
