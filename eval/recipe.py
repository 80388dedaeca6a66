"""Recipes: every choice behind a figure, hashed, so that only like is compared with like.

The same audio scores differently under another window, hop, loudness rule, checkpoint or formula; papers' tables mix
them. A :class:`Recipe` names all of these for one judge, its digest is part of every result, and a :class:`Table`
takes results of one digest only.

The named recipes follow what the tools do, as read from their sources; what differs on purpose is in ``departs``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from .metric import Result

Tail = Literal["drop", "pad", "repeat"]
Loudness = Literal["none", "peak", "lufs"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How audio becomes vectors and vectors become a figure. Everything but ``name`` and ``departs`` is hashed."""

    name: str
    embedder: str
    """Id of the judge with version and weights digest, see :attr:`descant.eval.embed.Embedder.id`."""
    rate: int
    """Sample rate the judge hears, Hz."""
    channels: int = 1
    window: float
    """Seconds a vector is made of."""
    hop: float
    """Seconds from one window to the next."""
    tail: Tail = "drop"
    """What happens to the rest after the last whole window: dropped, padded with zeros, or repeated until full."""
    least: float = 0.0
    """Seconds a rest must have to count as a window when ``tail`` is not ``drop``."""
    limit: float | None = None
    """Only the first seconds of a clip are heard; None hears all."""
    loudness: Loudness = "none"
    """``peak``: the clip's peak is set to ``target`` dBFS; ``lufs``: its loudness to ``target`` LUFS (BS.1770-4)."""
    target: float = 0.0
    settings: tuple[tuple[str, str | float], ...] = ()
    """Settings of the metric, such as the form of a KL or a text template, sorted by name."""
    departs: str = ""
    """Where this knowingly differs from the tool it is named after."""
    version: int = 1
    """Of the arithmetic behind all recipes; raised when a figure would change."""

    def __post_init__(self) -> None:
        if not self.name or ":" in self.name:
            raise ValueError(f"a recipe's name is {self.name!r}: it needs one, without a colon")
        if self.rate <= 0 or self.channels not in (1, 2) or self.window <= 0 or self.hop <= 0:
            raise ValueError(
                f"{self.name}: rate {self.rate}, channels {self.channels}, window {self.window}, hop {self.hop}: "
                "need a positive rate, window and hop, and 1 or 2 channels"
            )
        if self.tail not in ("drop", "pad", "repeat") or self.loudness not in ("none", "peak", "lufs"):
            raise ValueError(
                f"{self.name}: tail {self.tail!r}, loudness {self.loudness!r}; allowed are drop, pad, repeat and "
                "none, peak, lufs"
            )
        if not 0 <= self.least <= self.window or (self.limit is not None and self.limit <= 0):
            raise ValueError(f"{self.name}: least is {self.least} s and limit {self.limit} s: see their documentation")
        object.__setattr__(self, "settings", tuple(sorted((str(k), v) for k, v in dict(self.settings).items())))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of SHA-256 over everything that can change a figure."""
        row = asdict(self)
        del row["name"], row["departs"]
        # floats first: 10 and 10.0 s are one window
        row = {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in row.items()}
        row["settings"] = [[k, float(v) if not isinstance(v, str) else v] for k, v in self.settings]
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def id(self) -> str:
        """``name:digest``, what results carry."""
        return f"{self.name}:{self.digest}"

    def bind(self, embedder: str) -> Recipe:
        """The same recipe with the judge that was really loaded, its weights digest in its id."""
        return replace(self, embedder=embedder)

    def setting(self, name: str) -> str | float:
        """One of ``settings``. Raises ValueError naming what there is."""
        table = dict(self.settings)
        if name not in table:
            raise ValueError(f"recipe {self.name} has no setting {name!r}; it has {', '.join(table) or 'none'}")
        return table[name]

    def to_json(self) -> dict[str, Any]:
        """Plain types, the digest beside them."""
        return asdict(self) | {"settings": dict(self.settings), "digest": self.digest}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Recipe:
        """What :meth:`to_json` gave. Raises ValueError for unknown fields or a digest that does not fit."""
        table = dict(row)
        digest = table.pop("digest", None)
        unknown = sorted(set(table) - {item.name for item in fields(cls)})
        if unknown:
            raise ValueError(f"unknown fields {unknown} in a recipe: it was written by another version of descant")
        recipe = cls(**{**table, "settings": tuple(dict(table.get("settings", {})).items())})
        if digest is not None and digest != recipe.digest:
            raise ValueError(
                f"recipe {recipe.name} says digest {digest} but hashes to {recipe.digest}: it was edited; remove the "
                "digest if that was meant"
            )
        return recipe


class RecipeMismatch(ValueError):
    """Figures of different recipes were put side by side."""


class Table:
    """Results of several systems under one recipe: ``rows[system][metric]``."""

    def __init__(self, recipe: Recipe | str) -> None:
        self.recipe = recipe if isinstance(recipe, str) else recipe.id
        self.rows: dict[str, dict[str, Result]] = {}

    def add(self, system: str, result: Result) -> None:
        """Add a result. Raises :class:`RecipeMismatch` unless its recipe has this table's digest, ValueError twice."""
        require_same(self.recipe, result.recipe)
        row = self.rows.setdefault(system, {})
        if result.metric in row:
            raise ValueError(f"{system} already has {result.metric} in this table")
        row[result.metric] = result


def require_same(first: Recipe | str, second: Recipe | str) -> None:
    """Raise :class:`RecipeMismatch` unless both recipes (or their ids) have the same digest."""
    left, right = (item if isinstance(item, str) else item.id for item in (first, second))
    if "none" in (left, right):
        raise RecipeMismatch("a figure without a recipe cannot be compared: score it with a Recipe")
    if left.rpartition(":")[2] != right.rpartition(":")[2]:
        raise RecipeMismatch(
            f"recipes {left} and {right} differ: their figures cannot be compared; score both with one recipe"
        )


def tables(results: Iterable[tuple[str, Result]]) -> list[Table]:
    """Sort (system, result) pairs into tables, one per recipe digest, in order of appearance."""
    found: dict[str, Table] = {}
    for system, result in results:
        digest = result.recipe.rpartition(":")[2]
        if digest == "none":
            require_same(result.recipe, result.recipe)
        found.setdefault(digest, Table(result.recipe)).add(system, result)
    return list(found.values())


def named(name: str) -> Mapping[str, Recipe]:
    """The recipes of a named protocol, one per metric: ``frechet``, ``kernel``, ``kl``, ``clap``, ``frechet-clap``.

    Raises ValueError naming the protocols.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no recipe is called {name!r}; there are {', '.join(PROTOCOLS)}")
    return {metric: replace(recipe, name=name) for metric, recipe in PROTOCOLS[name].items()}


def protocols() -> Sequence[str]:
    """Names of all protocols."""
    return tuple(PROTOCOLS)


_FRECHET = (("correction", "half-sample over clips"), ("splits", 8), ("seed", 0))
_KERNEL = (("bandwidth", "median of reference distances"), ("kernel", "gaussian"), ("scale", 100))

#: protocol -> metric -> recipe
PROTOCOLS: Mapping[str, Mapping[str, Recipe]] = {
    # Copet et al., "Simple and Controllable Music Generation", 2023: audiocraft with google-research's FAD
    "paper-musicgen": {
        "frechet": Recipe(
            name="paper-musicgen", embedder="vggish-google", rate=16_000, window=1.0, hop=0.5, loudness="peak",
            settings=_FRECHET,
            departs="covariances stay in float64; the plain value is the paper's, the corrected one is ours",
        ),
        "kl": Recipe(
            name="paper-musicgen", embedder="passt-s-20sec-p16-s10-ap474", rate=32_000, window=20.0, hop=20.0,
            tail="pad", least=0.15, settings=(("form", "softmax"), ("direction", "reference||generated")),
            departs="no epsilon; one value per clip, so that long clips do not count twice; a short last segment is "
            "padded, audiocraft hears it unpadded",
        ),
        "clap": Recipe(
            name="paper-musicgen", embedder="laion-clap-music_audioset_epoch_15_esc_90.14", rate=48_000, window=10.0,
            hop=10.0, tail="repeat", limit=10.0, settings=(("template", "{}"),),
            departs="the first 10 s of a clip instead of a random cut",
        ),
    },
    # Gui et al., "Adapting Frechet Audio Distance for Generative Music Evaluation", 2024: fadtk 1.1
    "fadtk-compat": {
        "frechet": Recipe(
            name="fadtk-compat", embedder="vggish-torch", rate=16_000, window=0.975, hop=0.96, settings=_FRECHET,
            departs="vectors stay in float32 instead of float16; no 16-bit copy of the audio is made",
        ),
        "frechet-clap": Recipe(
            name="fadtk-compat", embedder="laion-clap-630k-audioset-best", rate=48_000, window=10.0, hop=1.0,
            tail="pad", settings=_FRECHET, departs="as above",
        ),
    },
    # Evans et al., "Long-form music generation with latent diffusion", 2024: stable-audio-metrics
    "stable-audio-compat": {
        "frechet": Recipe(
            name="stable-audio-compat", embedder="openl3-mel256-music-512", rate=44_100, channels=2,
            window=1.0, hop=0.5, tail="pad", loudness="peak", target=-1.0, settings=_FRECHET,
        ),
        "kl": Recipe(
            name="stable-audio-compat", embedder="passt-s-swa-p16-128-ap476", rate=32_000, window=10.0, hop=5.0,
            tail="pad", loudness="peak", target=-1.0,
            settings=(("form", "softmax"), ("direction", "generated||reference")),
            departs="no epsilon; a short last window is padded",
        ),
        "clap": Recipe(
            name="stable-audio-compat", embedder="laion-clap-630k-audioset-fusion-best", rate=48_000, window=10.0,
            hop=10.0, tail="repeat", loudness="peak", target=-1.0, settings=(("template", "{}"),),
            departs="all windows of a clip instead of three random crops",
        ),
    },
    "descant-v1": {
        "frechet": Recipe(
            name="descant-v1", embedder="logmel-1", rate=32_000, window=1.0, hop=1.0, tail="pad", least=0.5,
            loudness="lufs", target=-23.0, settings=_FRECHET,
        ),
        "kernel": Recipe(
            name="descant-v1", embedder="logmel-1", rate=32_000, window=1.0, hop=1.0, tail="pad", least=0.5,
            loudness="lufs", target=-23.0, settings=_KERNEL,
        ),
        "kl": Recipe(
            name="descant-v1", embedder="descant-judge", rate=32_000, window=10.0, hop=10.0, tail="repeat", least=1.0,
            loudness="lufs", target=-23.0,
            settings=(("form", "bernoulli"), ("direction", "reference||generated")),
        ),
        "clap": Recipe(
            name="descant-v1", embedder="descant-judge", rate=32_000, window=10.0, hop=10.0, tail="repeat", least=1.0,
            loudness="lufs", target=-23.0, settings=(("template", "{}"),),
        ),
    },
}  # fmt: skip
