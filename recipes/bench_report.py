"""The benchmark's page: Markdown tables with intervals, plots, and a few examples nobody picked by ear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: What two CPU cores reached in half an hour, before this codec: the floor it has to beat (books, ViSQOL, mel, SI-SDR).
FLOOR: Mapping[int, tuple[float, float, float]] = {4: (3.61, 1.79, 2.9), 8: (3.70, 1.65, 5.8)}


def write(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``main.md`` and, where matplotlib is installed, the plots beside it."""
    sections = report["sections"]
    parts = [_head(report["about"], sections)]
    for name, render in (("adherence", adherence), ("codec", codec), ("lm", lm), ("speed", speed), ("extend", extend)):
        if name in sections and "left_out" not in sections[name]:
            parts.append(render(sections[name]))
    if report.get("examples"):
        rows = [[f"[{row['file']}]({row['file']})", row["text"]] for row in report["examples"]]
        parts.append(
            "## Listen\n\nThe first held-out prompt of each of these genres, as it came out; nobody picked them by "
            "ear.\n\n" + table(["file", "sentence"], rows)
        )
    drawn = plots(folder, sections)
    if drawn:
        parts.append("## Plots\n\n" + "\n\n".join(f"![{name}]({name}.png)" for name in drawn))
    part = folder / "main.md.part"
    part.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    part.replace(folder / "main.md")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def adherence(found: Mapping[str, Any]) -> str:
    """The three rows (shuffled, ours, true clips through the codec) and the analysers' own ceiling."""
    rows = found["rows"]
    names = list(rows["ours"])
    count = len(found["prompts"])
    lines = []
    for name in names:
        ours, passed, plain = (rows[row][name] for row in ("ours", "codec", "plain"))
        lines.append(
            [name, f"{ours['shuffled']:.2f}", bounds(ours), p_value(ours["p"]), bounds(passed), p_value(passed["p"]),
             f"{plain['mean']:.2f}"]
        )  # fmt: skip
    header = ["measure", "shuffled prompts", "ours", "p", "true clips through the codec", "p", "true clips"]
    relations = "; ".join(
        f"{row}: " + ", ".join(f"{name} {value}" for name, value in found["tempo_relations"][row].items())
        for row in ("ours", "codec")
    )
    return (
        f"## Does the music follow the sentence?\n\n{count} prompts: in no training piece do their genre, "
        "key and lead instrument meet; means with 95 % bootstrap intervals over clips; p from a one-sided "
        "permutation test that re-assigns the prompts. The last column is the analysers' ceiling.\n\n"
        + table(header, lines)
        + f"\n\nTempo found, as a multiple of the tempo asked for. {relations[0].upper() + relations[1:]}."
    )


def codec(found: Mapping[str, Any]) -> str:
    """One table per kind of audio, with the floor and codebook use."""
    parts = ["## What the codec keeps"]
    for kind in ("rendered", "real"):
        if kind not in found:
            continue
        data = found[kind]
        rows = []
        for row in data["rows"]:
            mean = row["mean"]
            scores = [_triple(mean[name]) for name in ("visqol", "mel", "stft", "si_sdr")]
            rows.append([row["system"], f"{mean['kbps'][0]:.1f}", *scores])
        if kind == "real":
            rows += [[f"the floor, {books} books", f"{books / 2:.1f}", f"{v:.2f}", f"{m:.2f}", "", f"{s:.1f}"]
                     for books, (v, m, s) in FLOOR.items()]  # fmt: skip
        header = ["system", "real kbps", "ViSQOL ↑", "mel ↓", "STFT ↓", "SI-SDR, dB ↑"]
        length = data["seconds"] / data["count"]
        parts.append(f"Held-out {kind} audio, {data['count']} clips of {length:.0f} s, mono.")
        parts.append(table(header, rows))
        use = data["use"]
        header = ["book", *(str(number + 1) for number in range(len(use)))]
        lines = [
            ["efficiency", *(f"{100 * book['efficiency']:.1f} %" for book in use)],
            ["codes never used", *(str(int(book["dead"])) for book in use)],
        ]
        parts.append(f"Codebook use over {int(use[0]['frames'])} frames.\n\n" + table(header, lines))
    parts.append(
        "Opus rates are file sizes, container included. The floor is a first codec trained for 30 minutes on two "
        "cores, measured on other clips of the same kind. Distances: log10-mel over seven scales, summed; two-scale "
        "STFT."
    )
    return "\n\n".join(parts)


def lm(found: Mapping[str, Any]) -> str:
    """Cross-entropy per book beside the n-grams."""
    books = range(len(found["told"]))
    header = ["nats per token", *(f"book {book + 1}" for book in books)]
    rows = [["unigram", *(f"{v:.3f}" for v in found["unigram"])], ["bigram", *(f"{v:.3f}" for v in found["bigram"])]]
    for name, key in (
        ("ours, no conditions", "blind"),
        ("ours, another piece's conditions", "wrong"),
        ("ours, own conditions", "told"),
    ):
        rows.append([name, *(_triple(value, 3) for value in found[key])])
    return (
        f"## What the language model predicts\n\n{found['crops']} crops of 10 s from test pieces; n-grams of "
        f"{found['train_hours']:.1f} h of training tokens, the bigram's smoothing chosen on the test tokens, which "
        "flatters it.\n\n" + table(header, rows)
    )


def speed(found: Mapping[str, Any]) -> str:
    """Wall time and memory of a whole process."""
    walls = sorted(found["wall_s"])
    rows = [
        [
            f"`descant generate`, {found['seconds']:g} s, process start to file",
            f"{walls[len(walls) // 2]:.1f} s (median of {len(walls)})",
        ],
        ["peak resident memory", f"{found['peak_rss_mb']:.0f} MB"],
        ["same seed, same bytes", "yes" if found["identical"] else "NO"],
        ["`descant --help`", f"{found['help_s']:.2f} s"],
    ]
    return "## How long it takes\n\n" + table(["", "measured"], rows)


def extend(found: Mapping[str, Any]) -> str:
    """The seam beside jumps inside true clips."""
    titles = {"level": "level jump, dB", "flux": "spectral jump", "click": "click"}
    rows = []
    for name, title in titles.items():
        seams = sorted(found["seam"][name])
        real = found["real"][name]
        figures = (seams[len(seams) // 2], seams[-1], real["q50"], real["q90"], real["q99"])
        rows.append([title, *(f"{value:.2f}" for value in figures), f"{max(found['rank'][name]):.3f}"])
    header = ["measure", "seam, median", "seam, worst", "real, median", "real, 90 %", "real, 99 %", "worst rank"]
    kept = found["kept_si_sdr"]
    return (
        f"## Is the seam of `extend` audible?\n\n{found['count']} true clips continued; "
        f"{100 * found['inside_99']:.0f} % of the seams lie within the 99 % range of jumps inside true clips on all "
        f"measures; the given part comes back at {kept['mean']:.1f} dB SI-SDR "
        f"[{kept['low']:.1f}, {kept['high']:.1f}].\n\n" + table(header, rows)
    )


def plots(folder: Path, sections: Mapping[str, Any]) -> list[str]:
    """Draw what is there; nothing where matplotlib is not installed. Returns the names drawn."""
    try:
        import matplotlib
    except ImportError:
        return []
    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = []
    if "adherence" in sections:
        rows = sections["adherence"]["rows"]
        names = [name for name in rows["ours"] if "nats" not in name]
        figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
        for shift, (row, label) in enumerate((("ours", "ours"), ("codec", "true clips through the codec"))):
            means = [rows[row][name]["mean"] for name in names]
            errors = [[m - rows[row][n]["low"] for m, n in zip(means, names, strict=True)],
                      [rows[row][n]["high"] - m for m, n in zip(means, names, strict=True)]]  # fmt: skip
            places = [index + 0.3 * shift - 0.15 for index in range(len(names))]
            axes.barh(places, means, 0.28, xerr=errors, label=label, capsize=2)
        for index, name in enumerate(names):
            axes.plot([rows["ours"][name]["shuffled"]] * 2, [index - 0.35, index + 0.35], color="black")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("score; black: the same clips against shuffled prompts")
        axes.legend(loc="lower right")
        figure.savefig(folder / "adherence.png", dpi=110)
        pyplot.close(figure)
        drawn.append("adherence")
    if "codec" in sections:
        figure, grid = pyplot.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
        for kind, style in (("rendered", "--"), ("real", "-")):
            if kind not in sections["codec"]:
                continue
            for family in ("descant", "Opus"):
                rows = [row["mean"] for row in sections["codec"][kind]["rows"] if row["system"].startswith(family)]
                for axes, (name, title) in zip(
                    grid, (("visqol", "ViSQOL"), ("mel", "mel distance"), ("si_sdr", "SI-SDR, dB")), strict=True
                ):
                    colour = "C0" if family == "descant" else "C1"
                    axes.plot([row["kbps"][0] for row in rows], [row[name][0] for row in rows], style, marker="o",
                              color=colour, label=f"{family}, {kind}")  # fmt: skip
                    axes.set_title(title)
                    axes.set_xlabel("real kbps")
        grid[0].legend(fontsize=7)
        figure.savefig(folder / "codec.png", dpi=110)
        pyplot.close(figure)
        drawn.append("codec")
    return drawn


def _head(about: Mapping[str, Any], sections: Mapping[str, Any]) -> str:
    machine, weights = about["machine"], about["weights"]
    took = sum(section.get("took_s", 0) for section in sections.values())
    return (
        "# The main table\n\n"
        f"Made by `{about['command']}` in {took / 60:.0f} min on {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['threads']} threads used; descant {about['versions']['descant']}, "
        f"torch {about['versions']['torch']}. Codec {weights['codec']} "
        f"({weights['codec_parameters'] / 1e6:.1f} M parameters), language model of "
        f"{weights['lm_parameters'] / 1e6:.1f} M parameters. Every figure is also in `main.json`, clip by clip."
    )


def bounds(row: Mapping[str, float]) -> str:
    """A mean with its interval."""
    return f"**{row['mean']:.2f}** [{row['low']:.2f}, {row['high']:.2f}]"


def _triple(value: Sequence[float], digits: int = 2) -> str:
    return f"{value[0]:.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def p_value(value: float) -> str:
    """A chance, as far as it can be told from 0."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
