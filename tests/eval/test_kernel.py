import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from descant.eval import vectors as sets
from descant.eval.kernel import kernel_distance, median_distance
from descant.eval.recipe import named


def clips(seed, count, windows, dim, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(count, 1, dim, generator=generator) + torch.randn(count, windows, dim, generator=generator)
    return sets.of((data * 0.5**0.5 + shift).reshape(-1, dim), torch.arange(count).repeat_interleave(windows))


def naive(x, y, sigma, keep_x=None, keep_y=None):
    """Squared MMD from full matrices, numpy alone; ``keep`` are the pairs that count."""

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * sigma**2))

    keep_x = ~np.eye(len(x), dtype=bool) if keep_x is None else keep_x
    keep_y = ~np.eye(len(y), dtype=bool) if keep_y is None else keep_y
    return 100 * (kernel(x, x)[keep_x].mean() + kernel(y, y)[keep_y].mean() - 2 * kernel(x, y).mean())


def test_agrees_with_the_definition():
    x, y = clips(1, 40, 5, 6, 0.1), clips(2, 30, 4, 6)
    result = kernel_distance(x, y)
    a, b = x.data.double().numpy(), y.data.double().numpy()
    apart = np.sqrt(((b[:, None] - b[None]) ** 2).sum(-1))[np.triu_indices(len(b), 1)]
    sigma = np.sort(apart)[(len(apart) - 1) // 2]
    assert result.extra["bandwidth"] == pytest.approx(sigma, rel=1e-12)
    assert result.value == pytest.approx(naive(a, b, sigma), abs=1e-9)
    other = [x.clip[:, None].numpy() != x.clip[None].numpy(), y.clip[:, None].numpy() != y.clip[None].numpy()]
    assert result.corrected == pytest.approx(naive(a, b, sigma, *other), abs=1e-9)
    assert result.extra["at 2 bandwidths"] == pytest.approx(naive(a, b, 2 * sigma, *other), abs=1e-9)
    # the jackknife, leaving clips out for good
    values = []
    for item, keep in ((0, x), (1, y)):
        row = []
        for clip in range(len(keep.names)):
            left = [keep.clip.numpy() != clip if place == item else slice(None) for place in (0, 1)]
            masks = [mask[part][:, part] for mask, part in zip(other, left, strict=True)]
            row.append(naive(a[left[0]], b[left[1]], sigma, *masks))
        values.append((len(row) - 1) * np.var(row))
    assert result.error == pytest.approx(math.sqrt(sum(values)), rel=1e-6)


def test_blocks_do_not_show():
    # 1024 windows are a block: clips lie across its edge
    x, y = clips(1, 300, 7, 4, 0.1), clips(2, 160, 7, 4)
    result = kernel_distance(x, y)
    a, b = x.data.double().numpy(), y.data.double().numpy()
    sigma = result.extra["bandwidth"]
    keep = [item.clip[:, None].numpy() != item.clip[None].numpy() for item in (x, y)]
    assert result.corrected == pytest.approx(naive(a, b, sigma, *keep), abs=1e-8)


def test_the_bandwidth_is_the_references_alone():
    y = clips(2, 50, 4, 6)
    near, far = kernel_distance(clips(1, 50, 4, 6), y), kernel_distance(clips(1, 50, 4, 6, 3.0), y)
    assert near.extra["bandwidth"] == far.extra["bandwidth"] == median_distance(y)
    assert far.corrected > near.corrected
    stored = kernel_distance(clips(1, 50, 4, 6), y, bandwidth=near.extra["bandwidth"])
    assert stored.value == near.value
    # beyond 2000 windows a subset stands for all
    many = clips(3, 900, 4, 6)
    apart = torch.pdist(many.data[::2].double()).median()
    assert median_distance(many) == pytest.approx(float(apart), rel=0.02)


def test_unbiased_where_windows_of_a_clip_resemble_each_other():
    plain, corrected, held = [], [], 0
    for run in range(120):
        result = kernel_distance(clips(2 * run, 40, 5, 4), clips(9001 + 2 * run, 40, 5, 4), factors=())
        plain.append(result.value)
        corrected.append(result.corrected)
        held += result.low <= 0 <= result.high
    error = np.std(corrected) / math.sqrt(120)
    assert abs(np.mean(corrected)) < 3 * error
    assert np.mean(plain) > 10 * error
    assert held / 120 >= 0.9


def test_order_does_not_matter():
    x, y = clips(1, 40, 5, 6, 0.2), clips(2, 30, 5, 6)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert kernel_distance(x.take(order), y) == kernel_distance(x, y)


def test_memory_does_not_grow_with_pairs():
    # in a process of its own, because the peak of this one is already high
    code = """
import resource, torch
from descant.eval.kernel import kernel_distance
from descant.eval.vectors import of
from pathlib import Path
def peak():  # on Linux a process has its parent's peak on its account, which would hide its own
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
x, y = torch.randn(6000, 64), torch.randn(6000, 64)
kernel_distance(of(x[:2200]), of(y[:2200]))
before = peak()
kernel_distance(of(x), of(y))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    # three full matrices of doubles would be 864 MB, one in single precision 144; threads keep blocks of their own
    assert int(done.stdout) * 1024 < 120e6


@pytest.mark.parametrize("bad", [torch.zeros(0, 4), torch.zeros(1, 4), torch.full((5, 4), torch.inf)])
def test_what_cannot_be_computed_has_a_reason(bad):
    recipe = named("descant-v1")["kernel"]
    good = clips(1, 20, 3, 4)
    for result in (kernel_distance(bad, good, recipe), kernel_distance(good, bad, recipe)):
        assert result.value is None and result.reason and result.recipe == recipe.id


def test_silence_and_single_clips():
    good = clips(1, 20, 3, 4)
    assert "all equal" in kernel_distance(good, torch.zeros(9, 4)).reason
    assert kernel_distance(torch.zeros(9, 4), good).value > 0
    one = kernel_distance(clips(2, 1, 5, 4), good)
    assert one.value is not None and one.corrected is None and one.low is None
    two = kernel_distance(clips(2, 2, 5, 4), good)
    assert two.corrected is not None and two.low is None
    with pytest.raises(ValueError, match="dimensions"):
        kernel_distance(clips(1, 20, 3, 4), clips(1, 20, 3, 5))
