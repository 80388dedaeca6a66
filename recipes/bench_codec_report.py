"""The page of the codec report: tables with intervals, what they mean, and what they do not say."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .bench_report import table

#: Measure -> column head and digits.
COLUMNS: Mapping[str, tuple[str, int]] = {
    "visqol": ("ViSQOL ↑", 2), "mel": ("mel ↓", 2), "stft": ("STFT ↓", 2), "si_sdr": ("SI-SDR, dB ↑", 1),
    "loudness": ("loudness error, LU ↓", 2), "bandwidth": ("bandwidth error, kHz ↓", 1),
    "side": ("side error, dB ↓", 1),
}  # fmt: skip
_DIFFERENCES = ("visqol", "mel", "stft", "si_sdr")


def write(folder: Path, report: Mapping[str, Any], drawn: Sequence[str], page: bool) -> None:
    """Write ``codec.md`` beside its plots."""
    parts = [head(report), quality(report), differences(report), use(report), speed(report)]
    if drawn:
        parts.append("## Plots\n\nBands are 95 % intervals.\n\n" + "\n\n".join(f"![{n}]({n}.png)" for n in drawn))
    if page:
        parts.append("## Listen\n\n[Players beside spectrograms](codec-audio/index.html), a page that works offline.")
    parts.append(notes(report))
    part = folder / "codec.md.part"
    part.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    os.replace(part, folder / "codec.md")


def head(report: Mapping[str, Any]) -> str:
    """Where the figures come from."""
    about = report["about"]
    machine, versions, settings = about["machine"], about["versions"], about["settings"]
    lines = [
        f"{name}: {codec['rate'] / 1000:g} kHz, {codec['channels']} channel{'s' * (codec['channels'] > 1)}, "
        f"{codec['books']} books of {codec['cardinality']} at {codec['frame_rate']:g} frames/s"
        + (f", {codec['parameters'] / 1e6:.1f} M parameters" if codec["parameters"] else "")
        + f", fingerprint `{codec['fingerprint']}`"
        for name, codec in about["codecs"].items()
    ]
    minutes = settings["clips"] * settings["seconds"] / 60
    return (
        f"# The codec report\n\nMade by `{about['command']}` on {machine['cpu']}, {machine['cores']} cores; descant "
        f"{versions['descant']}, torch {versions['torch']}, libsndfile {versions['libsndfile'].split('-')[-1]}, "
        f"visqol-python {versions['visqol-python']}. {settings['clips']} excerpts of {settings['seconds']:g} s "
        f"({minutes:.1f} min) from {about['recordings']} held-out recordings, scored at "
        f"{settings['rate'] / 1000:g} kHz with {settings['channels']} channel{'s' * (settings['channels'] > 1)}"
        + (f", the first {settings['visqol_clips']} by ViSQOL" if settings["visqol_clips"] < settings["clips"] else "")
        + ". Every figure is also in `codec.json`, excerpt by excerpt.\n\n"
        + "\n".join(f"* {line}" for line in lines)
    )


def quality(report: Mapping[str, Any]) -> str:
    """The main table."""
    rows = report["systems"]
    measures = [name for name in COLUMNS if any(name in row["mean"] for row in rows)]
    titles = {"kbps": "real kbps", "coded_kbps": "entropy-coded kbps"}
    rates = [name for name in titles if any(name in row["mean"] for row in rows)]
    lines = []
    for row in rows:
        mean = row["mean"]
        kbps = [f"{mean[name][0]:.2f}" if name in mean else "–" for name in rates]
        name = f"**{row['system']}**" if row["ours"] else row["system"]
        lines.append([name, *kbps, *(bounds(mean[m], COLUMNS[m][1]) if m in mean else "" for m in measures)])
    header = ["system", *(titles[name] for name in rates), *(COLUMNS[m][0] for m in measures)]
    return "## What is kept\n\nMeans with 95 % intervals.\n\n" + table(header, lines)


def differences(report: Mapping[str, Any]) -> str:
    """Ours minus Opus at the nearest bytes, and the rate at which Opus scores the same."""
    lines, equal = [], []
    for row in report["paired"]:
        other = row["minus"][row["nearest"]]
        lines.append(
            [row["system"], f"{row['kbps']:.2f}", row["nearest"], f"{other['kbps']:.2f}",
             *(bounds(other[m], COLUMNS[m][1], True) for m in _DIFFERENCES)]
        )  # fmt: skip
        equal.append(
            [row["system"], f"{row['kbps']:.2f}", *(_rate(row["opus_kbps_for_the_same"][m]) for m in _DIFFERENCES)]
        )
    heads = [COLUMNS[m][0] for m in _DIFFERENCES]
    return (
        "## Beside Opus\n\nThe same excerpts through both, codec minus Opus, at the rate of Opus whose files are "
        "nearest in size; differences from every other rate are in `codec.json`.\n\n"
        + table(["codec", "real kbps", "Opus", "real kbps", *heads], lines)
        + "\n\nReal kbps at which Opus reaches the same mean score, straight lines drawn between its rates.\n\n"
        + table(["codec", "real kbps", *heads], equal)
    )


def use(report: Mapping[str, Any]) -> str:
    """How the codebooks are used."""
    parts = []
    for name, books in report["use"].items():
        frames = int(books[0]["frames"])
        header = [name, *(f"book {number}" for number in range(1, len(books) + 1))]
        lines = [
            ["efficiency", *(f"{100 * book['efficiency']:.1f} %" for book in books)],
            ["corrected", *(f"{100 * book['corrected']:.1f} %" for book in books)],
            ["codes never used", *(str(int(book["dead"])) for book in books)],
        ]
        parts.append(f"{name}, {frames} frames, each counted once.\n\n" + table(header, lines))
    return (
        "## How the codebooks are used\n\nEfficiency is the entropy of the codes over that of equally likely ones; "
        "*corrected* adds what a count of this size misses on average (Miller, 1955).\n\n" + "\n\n".join(parts)
    )


def speed(report: Mapping[str, Any]) -> str:
    """Times real time on one core."""
    columns = {
        "encode": "encode", "decode": "decode",
        "encode_stream_x": "encode, stream", "decode_stream_x": "decode, stream",
        "coder_encode_x": "entropy coder alone, encode", "coder_decode_x": "entropy coder alone, decode",
        "encode_latency_ms": "encoder's delay, ms", "decode_latency_ms": "decoder's delay, ms",
    }  # fmt: skip
    rows = report["speed"]
    shown = [name for name in columns if any(name in row for row in rows.values())]
    lines = [[name, *(_short(row[one]) if one in row else "" for one in shown)] for name, row in rows.items()]
    return (
        "## Speed\n\nTimes real time on one core of the machine above, in CPU time, all books, the best of several "
        "runs. Opus (16 kbps a channel) and MP3 (64) through libsndfile. A stream's delay counts the frame it waits "
        "for.\n\n" + table(["codec", *(columns[name] for name in shown)], lines)
    )


def notes(report: Mapping[str, Any]) -> str:
    """Definitions, and what limits the figures."""
    means = {row["system"]: row["mean"] for row in report["systems"]}
    late = [f"{name} {mean['delay'][0]:.0f}" for name, mean in means.items() if mean.get("delay", [0])[0] >= 1]
    soft = max(abs(mean.get("gain", [0.0])[0]) for mean in means.values())
    lossy = [clip for clip in report["clips"] if clip.get("source", "").lower().endswith((".ogg", ".mp3", ".opus"))]
    stereo = report["about"]["settings"]["channels"] == 2
    lines = [
        "*Real kbps*: 8 x bytes of the whole file over its length, headers included: packed `.dsc`, "
        "Ogg Opus and MP3 (constant rate) as libsndfile writes them. Short files carry their headers over few seconds, "
        "which weighs on all of them alike. Codecs that normalise segments are charged for "
        "raw codes and 32 bits a segment.",
        *(["*Entropy-coded kbps*: the same file with the codec's entropy tables, as `descant encode` writes it unless "
           "told otherwise; the sound is the same. The curves and comparisons go by the packed file."]
          if any("coded_kbps" in mean for mean in means.values()) else []),
        "*Intervals* resample whole recordings, not excerpts: excerpts of one piece are alike.",
        "*Alignment*: Opus and MP3 were shifted by the delay that cross-correlation finds, file by file, before scoring"
        + (f" (mean samples: {', '.join(late)})" if late else "") + "; our codecs are "
        "scored as `descant encode` and `descant decode` give them, others as their authors run them. "
        f"libsndfile's MP3 encoder plays {soft:.2f} dB softer, which was undone, too.",
        "*ViSQOL* (audio mode), 1 to 4.73, and *mel* (log10, seven scales, summed) hardly notice phase: see what "
        "random phase scores. *SI-SDR* sees only the waveform and forgives level and polarity: see the flipped row. A "
        "codec that makes new noise for noise loses SI-SDR without being heard to. No measure here replaces listeners.",
        "*STFT*: magnitudes and log powers at two scales. *Loudness error*: |difference| by ITU-R BS.1770-4. "
        "*Bandwidth error*: |difference| of the highest 250 Hz band within 60 dB of the original's strongest.",
    ]  # fmt: skip
    if stereo:
        lines.append(
            "*Side error*: |difference| of the energy of (left - right) / 2. Distances are means over channels."
        )
    else:
        lines.append("One channel: nothing here says how a stereo image survives.")
    if lossy:
        lines.append(
            f"{len(lossy)} of the {len(report['clips'])} excerpts come from recordings that were published in a lossy "
            "format; the best quality measurable here is that of those files."
        )
    licences = sorted({clip["licence"] for clip in report["clips"] if "licence" in clip})
    if licences:
        lines.append(f"Licences of the recordings: {', '.join(licences)}; each excerpt's is in `codec.json`.")
    return "## How to read this\n\n" + "\n".join(f"* {line}" for line in lines)


def bounds(value: Sequence[float], digits: int, signed: bool = False) -> str:
    """``mean [low, high]``; identity's hundreds of decibels as ``> 100``."""
    if value[0] > 100:
        return "> 100"
    sign = "+" if signed else ""
    return f"{value[0]:{sign}.{digits}f} [{value[1]:.{digits}f}, {value[2]:.{digits}f}]"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _rate(value: Sequence[Any] | None) -> str:
    if value is None:
        return ""
    return f"{value[1]:.1f}" if value[0] == "=" else f"{value[0]} {value[1]:.1f}"
