"""What the rows of a report are called, which way is better, and in which group of a table they stand."""

from __future__ import annotations

from collections.abc import Mapping

from ..metric import Direction

#: metric -> (label, direction, group). A row's name is the metric, or ``metric@judge``.
METRICS: Mapping[str, tuple[str, Direction, str]] = {
    "frechet": ("Fréchet distance", "lower", "distance"),
    "frechet-clap": ("Fréchet distance", "lower", "distance"),
    "kernel": ("kernel distance (KAD, x100)", "lower", "distance"),
    "precision": ("precision", "higher", "distance"),
    "recall": ("recall", "higher", "distance"),
    "density": ("density", "higher", "distance"),
    "coverage": ("coverage", "higher", "distance"),
    "kl-reference-generated": ("KL(reference||generated)", "lower", "distance"),
    "kl-generated-reference": ("KL(generated||reference)", "lower", "distance"),
    "js": ("Jensen-Shannon divergence", "lower", "distance"),
    "clap": ("audio-text score (CLAP)", "higher", "adherence"),
    "tempo-acc1": ("tempo within 4 %", "higher", "adherence"),
    "tempo-acc2": ("tempo or a multiple within 4 %", "higher", "adherence"),
    "key-exact": ("key, exact", "higher", "adherence"),
    "key-mirex": ("key, MIREX score", "higher", "adherence"),
    "genre": ("genre", "higher", "adherence"),
    "instruments": ("instruments, F1", "higher", "adherence"),
    "melody": ("melody, pitch class heard in time", "higher", "adherence"),
    "melody-transposed": ("melody, best of 12 transpositions", "higher", "adherence"),
    "melody-chroma": ("melody, chroma cosine (circular)", "higher", "adherence"),
    "stems-onset": ("onsets shared with the given stems", "higher", "stems"),
    "stems-pulse": ("pulse shared with the given stems", "higher", "stems"),
    "stems-grid": ("onsets on the given stems' beat", "higher", "stems"),
    "stems-chroma": ("pitch classes shared with the given stems", "higher", "stems"),
    "stems-leakage": ("given stems copied into the clip, dB", "none", "stems"),
    "kept-si-sdr": ("given stem kept, SI-SDR dB", "higher", "stems"),
    "kept-onset": ("given stem kept, onset F1", "higher", "stems"),
    "kept-chroma": ("given stem kept, pitch classes", "higher", "stems"),
    "sound": ("clips without a defect", "higher", "sound"),
    "silence": ("share of silence", "lower", "sound"),
    "clipping": ("share of clipped samples", "lower", "sound"),
    "dc": ("DC offset", "lower", "sound"),
    "dropouts": ("dropouts a clip", "lower", "sound"),
    "comb": ("steady lines of a frame rate, dB", "lower", "sound"),
    "loudness": ("loudness, LUFS", "none", "sound"),
    "peak": ("peak, dBFS", "none", "sound"),
    "bandwidth": ("bandwidth, Hz", "none", "sound"),
    "repetition": ("share of a clip heard before in it", "none", "diversity"),
    "diversity": ("distance between clips", "none", "diversity"),
    "nearest": ("distance to the nearest clip", "none", "diversity"),
    "vendi": ("effective number of clips (Vendi)", "none", "diversity"),
    "within-prompt": ("distance between clips of one prompt", "none", "diversity"),
}
#: Groups in the order of tables.
GROUPS: Mapping[str, str] = {
    "distance": "Distance from the reference",
    "adherence": "Does it follow",
    "stems": "Does it fit the stems",
    "sound": "Is it sound",
    "diversity": "Is it varied",
}
ARROWS: Mapping[str, str] = {"lower": "↓", "higher": "↑", "none": ""}


def split(name: str) -> tuple[str, str]:
    """``metric@judge`` -> (metric, judge); the judge is empty where there is none."""
    metric, _, judge = name.partition("@")
    return metric, judge


def label(name: str) -> str:
    """What a row is called in a table. Raises ValueError for a name that is none."""
    metric, judge = split(name)
    _known(metric)
    text = METRICS[metric][0]
    return f"{text}, {judge}" if judge else text


def direction(name: str) -> Direction:
    """Which way is better."""
    metric, _ = split(name)
    _known(metric)
    return METRICS[metric][1]


def group(name: str) -> str:
    """The key of the row's group in :data:`GROUPS`."""
    metric, _ = split(name)
    _known(metric)
    return METRICS[metric][2]


def _known(metric: str) -> None:
    if metric not in METRICS:
        raise ValueError(f"no metric is called {metric!r}; there are {', '.join(METRICS)}")
