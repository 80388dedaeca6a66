"""``descant bench melody``: is the tune that makes conditions the one that was written, and is the leak meter right?

Songs are packed stems of the test split (``descant prepare stems``) with the pieces they were rendered from. The tune
is followed in the true lead and in the lead that a separator takes out of the mix, and compared with the written notes:
the top one where several sound. The meter's figures between separated stems, which need no truth, stand beside those
against the true stems.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..codec.sink import whole_file
from ..eval.melody import track
from ..gen.melody import tune
from ..gen.separation.registry import get
from .piece import Piece, read_pieces
from .stems_data import StemCorpus, excerpt
from .targets_leak import WINDOW, LeakMeter

#: Frames per second of the comparison: those of the embedded codec.
FRAMES = 50.0
#: The measures of Poliner et al., "Melody Transcription From Music Audio: Approaches and Evaluation", 2007.
MEASURES: tuple[str, ...] = ("pitch", "chroma", "recall", "alarm", "overall")
#: Leaks above this, dB, are those a training set should know.
LOUD = -15.0
#: A false alarm further than this from any note, in seconds, is no note that rings on.
FAR = 0.3


def scores(reference: np.ndarray, heard: np.ndarray) -> dict[str, float]:
    """Compare two tunes [F], MIDI pitches with NaN in rests, as mir_eval does; NaN where there is nothing to count.

    ``pitch`` and ``chroma``: share of the frames with a note in which it is heard within 50 cents, octaves counted or
    not; ``recall`` and ``alarm``: share of the frames with a note, and of those without, in which one is heard;
    ``overall``: share of all frames that are right.
    """
    note, sung = ~np.isnan(reference), ~np.isnan(heard)
    apart = np.nan_to_num(heard - reference, nan=1e3)
    right = note & sung & (np.abs(apart) < 0.5)
    folded = note & sung & (np.abs(apart - 12 * np.floor(apart / 12 + 0.5)) < 0.5)
    return {
        "pitch": _share(right, note), "chroma": _share(folded, note), "recall": _share(sung & note, note),
        "alarm": _share(sung & ~note, ~note), "overall": float((right | (~note & ~sung)).mean()),
    }  # fmt: skip


def written(notes: Sequence[Sequence[float]], frames: int) -> np.ndarray:
    """The top line of notes (onset s, length s, pitch, ...) as MIDI pitches [frames], NaN in rests."""
    line = np.full(frames, np.nan)
    times = (np.arange(frames) + 0.5) / FRAMES
    for onset, length, pitch, *_ in notes:
        inside = (times >= onset) & (times < onset + length)
        line[inside] = np.fmax(line[inside], pitch)
    return line


def report(
    data: str | os.PathLike[str], pieces: str | os.PathLike[str], model: str = "embedded", songs: int | None = None,
    said: Callable[[str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Score the follower and the leak meter on the first ``songs`` of a packed corpus (None: all).

    Raises ValueError for a corpus that is not of these pieces or has no leads, and for a separator of other stems.
    """
    corpus, separator = StemCorpus(data), get(model)
    known = {piece.id: piece for piece in read_pieces(pieces)}
    count = min(songs or len(corpus), len(corpus))
    lost = [name for name in corpus.names[:count] if name not in known]
    if lost or "lead" not in corpus.stems:
        raise ValueError(f"{pieces} does not hold the pieces of {data}, such as {(lost or ['one with a lead'])[0]}")
    if not set(corpus.stems) <= set(separator.stems):
        raise ValueError(f"{model} makes {', '.join(separator.stems)}: these songs are of {', '.join(corpus.stems)}")
    rows: list[dict[str, Any]] = []
    leaks: list[tuple[float, float, float]] = []
    spent = 0.0
    for song in range(count):
        if said is not None:
            said(f"{corpus.names[song]} ({song + 1} of {count})")
        stems = corpus.song(song)
        found = separator.separate(stems.sum(0), corpus.rate)
        made = torch.stack([found[name] for name in corpus.stems])
        place = corpus.stems.index("lead")
        leads = {"true": stems[place], "separated": made[place]}
        row, cpu = _followed(known[corpus.names[song]], leads, corpus.rate)
        spent += cpu
        rows += [{"song": corpus.names[song], "font": corpus.fonts[song], **row}] if row else []
        leaks += _leaks(stems.mean(1), made.mean(1), corpus.rate)
    if not rows:
        raise ValueError(f"no song of {data} has a lead")
    seconds = sum(corpus.lengths[:count]) / corpus.rate
    return {
        "schema": "descant-bench-melody/1", "descant": __version__, "model": model, "songs": count, "leads": len(rows),
        "minutes": round(seconds / 60, 1), "fonts": sorted(set(corpus.fonts[:count])),
        "cpu": round(spent / (2 * seconds), 4), "means": _means(rows), "leak": _meter(leaks), "rows": rows,
    }  # fmt: skip


def write(folder: str | os.PathLike[str], found: Mapping[str, Any]) -> list[Path]:
    """Write ``melody.json`` and ``melody.md`` into a folder; returns both."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {"melody.json": json.dumps(found, indent=1) + "\n", "melody.md": page(found)}
    for name, text in files.items():
        with whole_file(folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def page(found: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    leak = found["leak"]
    lines = [
        "# Tunes and leaks", "",
        f"{found['leads']} leads of {found['songs']} songs of the test split ({found['minutes']:g} minutes, rendered "
        f"with {', '.join(found['fonts'])}), against the written notes, the top one where several sound; a frame is "
        f"{1000 / FRAMES:g} ms. Means over songs, measures as in mir_eval. `descant.gen.melody` makes conditions; "
        "`descant.eval.melody` is the judge's, and shares nothing with it. A note that rings on past its written end, "
        f"in a room or on a string, is a false alarm; alarms over {FAR:g} s from any note stand apart.", "",
        "| follower | heard in | raw pitch | raw chroma | voicing recall | false alarm | overall | alarm, far |",
        "| :-- | :-- | --: | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    for who, name in (("tune", "descant.gen.melody"), ("judge", "descant.eval.melody")):
        for where, text in (
            ("true", "the true lead"),
            ("separated", f"the lead {found['model']} takes out of the mix"),
        ):
            row = found["means"][f"{who} {where}"]
            lines.append(f"| {name} | {text} | " + " | ".join(f"{row[m]:.3f}" for m in (*MEASURES, "far")) + " |")
    lines += [
        "", f"`descant.gen.melody` takes {found['cpu']:.4f} CPU seconds of one thread a second of sound.", "",
        "## The leak meter", "",
        f"How much of one stem is in another, dB, in windows of {WINDOW:g} s: as the meter sees it between separated "
        f"stems, which needs no truth, and between a separated and a true one. {leak['pairs']} pairs of stems that "
        "play.", "",
        "| | |", "| :-- | --: |",
        f"| leaks above {LOUD:g} dB against the true stems | {leak['loud']:.3f} |",
        f"| of them the meter sees between separated stems | {leak['seen']:.3f} |",
        f"| pairs that it calls loud | {leak['called']:.3f} |",
        f"| it reads more than the truth by, median | {leak['over']:.1f} dB |",
        f"| pairs in which it reads less than the truth by more than 1 dB | {leak['under']:.3f} |",
        f"| between true stems, which leak nothing, it reads above {LOUD:g} dB | {leak['false']:.3f} |",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _followed(piece: Piece, leads: Mapping[str, Tensor], rate: int) -> tuple[dict[str, Any] | None, float]:
    """Scores of a song's lead by follower and place, and the CPU seconds of ours; None for a song without a lead."""
    seconds = leads["true"].shape[-1] / rate
    part = next((stem for stem in excerpt(piece, seconds).stems if stem.role == "lead"), None)
    frames = math.ceil(round(seconds * FRAMES, 6))
    line = written(part.notes if part is not None else (), frames)
    if part is None or np.isnan(line).all():
        return None, 0.0
    made: dict[str, Any] = {"instrument": part.instrument, "genre": piece.genre}
    start = time.process_time()
    tunes = {where: tune(wav, rate, FRAMES).numpy() for where, wav in leads.items()}
    spent = time.process_time() - start
    for where, wav in leads.items():
        made[f"tune {where}"] = scores(line, tunes[where]) | {"far": _far(line, tunes[where])}
        # the judge's frames lie on multiples of 20 ms, ours between them
        judged = track(wav, rate).numpy()[:frames]
        line_then = line[: len(judged)]
        made[f"judge {where}"] = scores(line_then, judged) | {"far": _far(line_then, judged)}
    return made, spent


def _far(line: np.ndarray, heard: np.ndarray) -> float | None:
    """Share of the frames far from every note in which one is heard; None where a lead never rests for so long."""
    reach = round(FAR * FRAMES)
    near = np.convolve(~np.isnan(line), np.ones(2 * reach + 1), "same") > 0.5
    return float((~np.isnan(heard[~near])).mean()) if not near.all() else None


def _leaks(true: Tensor, made: Tensor, rate: int) -> list[tuple[float, float, float]]:
    """For windows and pairs of stems that play: the meter between separated ones, against the truth, between true."""
    count = len(true)
    meter = LeakMeter(2 * count, rate)
    meter.push(torch.cat([made, true]))
    found = meter.finish().float()
    live = [n for n in range(count) if float(true[n].square().mean()) > 1e-7]
    return [
        (float(window[a, b]), float(window[a, count + b]), float(window[count + a, count + b]))
        for window in found for a in live for b in live if a != b
    ]  # fmt: skip


def _meter(rows: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    blind, truth, clean = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    loud = truth > LOUD
    return {
        "pairs": len(rows), "loud": float(loud.mean()),
        "seen": float((blind[loud] > LOUD).mean()) if loud.any() else 1.0,
        "called": float((blind > LOUD).mean()), "over": float(np.median(blind - truth)),
        "under": float((blind < truth - 1).mean()), "false": float((clean > LOUD).mean()),
    }  # fmt: skip


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    names = [f"{who} {where}" for who in ("tune", "judge") for where in ("true", "separated")]
    found = {}
    for name in names:
        columns = {m: [row[name][m] for row in rows if row[name][m] is not None] for m in (*MEASURES, "far")}
        found[name] = {m: round(float(np.nanmean(values or [0.0])), 4) for m, values in columns.items()}
    return found


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else math.nan
