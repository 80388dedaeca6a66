"""The comparison of RoFormers with the package they come from."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from descant.recipes import bench_roformer

_SMALL: dict[str, Any] = {**bench_roformer.SIZE, "dim": 16, "depth": 2, "dim_head": 8, "heads": 2}


def test_costs_and_differences_are_measured() -> None:
    found = bench_roformer.report(0.5, _SMALL)
    assert found["package"]["version"] and found["difference"] < 1e-5 and found["snr"] > 25
    assert all(found[who][kind] > 0 for who in ("ours", "package") for kind in ("fp32", "bf16"))
    text = "\n".join(bench_roformer.section(found))
    assert "| descant |" in text and "| BS-RoFormer " in text and "largest difference" in text


def test_without_the_package_ours_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sum(value.numel() for value in bench_roformer.package(_SMALL).parameters())  # type: ignore[union-attr]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = bench_roformer.report(0.3, _SMALL)
    assert found["package"] is None and found["ours"]["fp32"] > 0
    assert found["millions"] == round(weights / 1e6, 1)
    assert "BS-RoFormer 1" not in "\n".join(bench_roformer.section(found))
