"""The GPU's part of the language models' page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .bench_report import table


def gpu_part(found: Mapping[str, Any]) -> str:
    """What :func:`descant.recipes.bench_lm_gpu.measure` found, as Markdown."""
    if "missing" in found:
        return f"## On a GPU\n\nnot measured: {found['missing']}"
    about = found["about"]
    base = found.get("library")
    rows = []
    for row in found["decoding"]:
        # the library ran a piece of MusicGen's shape alone
        fair = base is not None and row["pieces"] == 1 and row["name"].startswith("MusicGen")
        times = f"{row['steps_s'] / base['steps_s']:.1f}x" if base is not None and fair else ""
        rows.append([row["name"], str(row["pieces"]), f"{row['steps_s']:.0f}", times, f"{row['x']:.1f}",
                     f"{row['first_s']:.1f}"])  # fmt: skip
    if base is not None:
        rows.append([f"{base['name']}, nothing drawn", "1", f"{base['steps_s']:.0f}", "1.0x", f"{base['x']:.1f}", ""])
    header = ["", "pieces at once", "steps a second", "transformers' times", "times real time in all",
              "s more for the first piece"]  # fmt: skip
    trained = [
        [row["name"], f"{row['parameters'] / 1e6:.0f} M", f"{row['crops']} x {row['frames']}", f"{row['tokens_s']:.0f}",
         f"{100 * row['mfu']:.0f} %", f"{row['memory_gib']:.1f}"]
        for row in found["training"]
    ]  # fmt: skip
    titles = ["", "weights", "crops x frames", "tokens a second", "MFU", "GiB at most"]
    return (
        f"## On a GPU\n\n{about['device']}, torch {about['torch']}, CUDA {about['cuda']}, bfloat16. Decoding with "
        f"guidance, {found['frames']} frames, on the clock; the first piece of a shape also records the steps.\n\n"
        f"{table(header, rows)}\n\nTraining: the recipe's step on tokens that are there.\n\n{table(titles, trained)}"
    )
