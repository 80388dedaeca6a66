import argparse
import json
from dataclasses import replace

import pytest

from descant.gen.cli_distances import add_distances
from descant.gen.request import RequestError
from descant.recipes.bench_eval import EvalBenchConfig, page, run

TINY = EvalBenchConfig(dims=(16,), cost_dims=(16,), repeats=1, runs=4, clips=(16, 32), windows=4, dim=6)


def test_sections_measure_what_they_say(tmp_path):
    said = []
    report = run(TINY, ("exactness", "agreement", "cost", "simulation"), said.append)
    assert len(said) == 4
    found = report["sections"]
    assert found["exactness"][0]["ours"] < 1e-12 and found["exactness"][0]["self"] <= 1e-13
    (row,) = found["agreement"]
    assert row["value"] > 0 and max(row["trace"], row["eigenvalues"]) <= 1e-7
    assert [row["dim"] for row in found["cost"]] == [16] * 4
    assert all(row["ours"] > 0 and row["scipy"] > 0 for row in found["cost"])
    rows = found["simulation"]
    assert [row["clips"] for row in rows] == [16, 32, 16, 32]
    # four runs are noisy, their sum over rows is not
    assert abs(sum(row["ours"] for row in rows)) < 0.7 * sum(row["plain"] for row in rows)
    # drawing windows with replacement finds the bias of the pool, and keeps it
    assert all(row["windows"] > 0.5 * row["plain"] for row in rows)
    text = page(json.loads(json.dumps(report)))
    assert (
        "Against the closed form" in text
        and "Agreement" in text
        and "Bias and coverage" in text
        and "Memory" not in text
    )


def test_the_same_seed_simulates_the_same_figures():
    one, two = (run(TINY, ("simulation",))["sections"] for _ in range(2))
    assert one == two


def test_workers_change_nothing():
    few = replace(TINY, runs=2, clips=(16,))
    assert run(few, ("simulation",))["sections"] == run(replace(few, workers=2), ("simulation",))["sections"]


def test_memory_is_that_of_the_work_and_not_of_the_process_that_asked():
    import subprocess
    import sys

    code = (
        "import torch\nfrom descant.recipes.bench_eval import peak_mb\n"
        "before = peak_mb(); x = torch.ones(8 << 20); print(peak_mb() - before)"
    )
    ballast = bytearray(b"x") * (600 << 20)  # what a child is charged for at first, in another way of counting
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(ballast) and 31 < float(done.stdout) < 45


def test_refusals():
    with pytest.raises(ValueError, match="16 clips"):
        EvalBenchConfig(clips=(8,))
    with pytest.raises(ValueError, match="simulation"):
        run(TINY, ("speed",))


def parse(*words):
    parser = argparse.ArgumentParser()
    add_distances(parser.add_subparsers())
    args = parser.parse_args(["distances", *words])
    args.run(args)


def test_the_command_writes_the_report(tmp_path, capsys):
    parse("--only", "simulation", "--runs", "2", "--out", str(tmp_path), "--json", "--quiet")
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == json.loads((tmp_path / "eval.json").read_text())
    assert "| 400 clips |" in (tmp_path / "eval.md").read_text()
    with pytest.raises(RequestError, match="--out"):
        parse("--only", "simulation")
    with pytest.raises(RequestError, match="2 runs"):
        parse("--runs", "1", "--json")
