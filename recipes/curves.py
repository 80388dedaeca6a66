"""A training log as a picture: ``log.jsonl`` of :mod:`descant.recipes.loop` -> PNG."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def read(log: str | os.PathLike[str]) -> dict[str, list[tuple[int, float]]]:
    """Each figure's (step, value) pairs, by name. Raises FileNotFoundError without a log."""
    rows: dict[str, list[tuple[int, float]]] = {}
    for line in Path(log).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in ("step", "time"):
                rows.setdefault(name, []).append((row["step"], value))
    return rows


def plot(
    log: str | os.PathLike[str],
    out: str | os.PathLike[str],
    panels: Sequence[Sequence[str]],
    levels: Mapping[str, float] | None = None,
) -> None:
    """Draw one panel per group of figure names into the PNG ``out``; ``levels`` are named horizontal lines.

    A level is drawn in the panel whose first figure its name starts with. Raises ValueError for names the log lacks.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = read(log)
    missing = sorted({name for panel in panels for name in panel} - set(rows))
    if missing:
        raise ValueError(f"{log} has no {', '.join(missing)}; it has {', '.join(sorted(rows))}")
    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.5), squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for name in panel:
            steps, values = zip(*rows[name], strict=True)
            axis.plot(steps, values, label=name, linewidth=1)
        for name, value in (levels or {}).items():
            if name.startswith(panel[0]):
                axis.axhline(value, linestyle=":", linewidth=1, color="gray")
                axis.annotate(name, (0.01, value), xycoords=("axes fraction", "data"), fontsize=7)
        axis.set_xlabel("step")
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=80)
    pyplot.close(figure)
