"""Which judges hear what, under which recipe, for which rows: the plan of an evaluation.

A :class:`Judge` names a judge and where its weights are; a :class:`Hearing` is one judge under one way of cutting and
levelling, and is done once per clip however many rows need it; a :class:`Line` is a row to come, or the reason why it
cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..embed import Embedder
from ..logmel import LogMel
from ..recipe import PROTOCOLS, Recipe, Tail, named

#: The judge without weights, and the one whose weights are in the package.
LOGMEL, OWN = "logmel", "descant-judge"
#: What :func:`_lines` makes of the distances that share vectors.
_NEIGHBOURS = ("precision", "recall", "density", "coverage")
_KLS = ("kl-reference-generated", "kl-generated-reference", "js")
_SPREAD = ("diversity", "nearest", "vendi", "within-prompt")
_NEIGHBOUR_SETTINGS = (("k", 5),)
_SPREAD_SETTINGS = (("distance", "cosine of clip means"),)


@dataclass(frozen=True)
class Judge:
    """A judge by name; ``source`` is a file, a folder, an embedder that exists already, or nothing."""

    name: str
    source: Any = None

    def load(self) -> Any:
        """The embedder. Raises ValueError, FileNotFoundError or ImportError saying what is missing."""
        if self.source is not None and hasattr(self.source, "embed"):
            return self.source
        if self.name == LOGMEL:
            return LogMel()
        if self.name == OWN:
            from ..judge import load as own

            return own(self.source)
        from ..embedders import load

        return load(self.name, self.source)


@dataclass(frozen=True)
class Hearing:
    """Vectors (or, of a tagger, logits) of one judge under one way of cutting and levelling."""

    judge: str
    recipe: Recipe
    tags: bool = False

    @property
    def key(self) -> str:
        """The digest of everything that can change the vectors."""
        return self.recipe.digest


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row, or a family of rows, to come."""

    metrics: tuple[str, ...]
    """Their names without judge."""
    suffix: str
    """What stands behind ``@``."""
    recipe: Recipe
    hearing: Hearing | None = None
    reason: str | None = None
    """Why there will be no value."""

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the rows."""
        return tuple(f"{metric}@{self.suffix}" for metric in self.metrics)


@dataclass(frozen=True)
class Plan:
    """All rows that judges give, in order."""

    lines: tuple[Line, ...]
    judges: dict[str, Judge] = field(default_factory=dict)
    """Those that are used, by name."""
    opened: dict[str, Any] = field(default_factory=dict)
    """The same, loaded."""

    @property
    def hearings(self) -> tuple[Hearing, ...]:
        """What must be heard, each once."""
        return tuple({line.hearing.key: line.hearing for line in self.lines if line.hearing is not None}.values())


def plan(protocols: Sequence[str], given: Sequence[Judge] = (), own: bool = True) -> Plan:
    """Rows of the protocols with the judges at hand; judges that no protocol asks for score as ``descant-v1`` does.

    The judge without weights and the package's own need not be given; ``own`` False leaves the latter out. Raises
    ValueError for a protocol or judge that does not exist, or weights that were named but cannot be used.
    """
    for name in protocols:
        named(name)
    shelf = {judge.name: judge for judge in given}
    if len(shelf) < len(given):
        raise ValueError("a judge is named twice; name each once")
    opened: dict[str, Any] = {name: judge.load() for name, judge in shelf.items()}
    idle = set(opened)
    lines: list[Line] = []
    used: dict[str, Judge] = {}
    for protocol in protocols:
        for metric, recipe in named(protocol).items():
            if protocol == "descant-v1":
                continue
            found = _find(recipe.embedder, opened)
            if found is None:
                reason = f"needs weights: --judge {recipe.embedder}=FILE"
                lines.append(Line(metrics=_metrics(metric), suffix=protocol, recipe=recipe, reason=reason))
                continue
            idle.discard(found)
            used[found] = shelf[found]
            lines.append(_bound(found, opened[found], metric, recipe, protocol))
    if "descant-v1" in protocols:
        for name in (LOGMEL, OWN):
            if name not in opened:
                shelf[name] = Judge(name)
                judge = _own(shelf[name]) if own or name != OWN else "left out on request"
                if isinstance(judge, str):
                    lines += _missing(name, judge)
                    continue
                opened[name] = judge
            idle.add(name)
        for name in sorted(idle, key=lambda one: (one not in (LOGMEL, OWN), one != LOGMEL, one)):
            used[name] = shelf[name]
            lines += _lines(name, opened[name])
    elif idle:
        raise ValueError(
            f"no recipe of {', '.join(protocols)} asks for {', '.join(sorted(idle))}; add --recipe descant-v1 to score "
            "with it as descant does"
        )
    return Plan(tuple(lines), used, {name: opened[name] for name in used})


def hearing(name: str, judge: Embedder, recipe: Recipe, tags: bool = False) -> Hearing:
    """The part of a recipe that changes vectors: one hearing serves all metrics that cut and level alike."""
    output = (("output", "tags" if tags else "vectors"),)
    bare = replace(recipe, name="hearing", departs="", embedder=judge.id, settings=output)
    return Hearing(name, bare, tags)


def tagger_of(judge: Any) -> Any:
    """The judge's tags as an embedder of logits, or None where it has none."""
    if hasattr(judge, "tags") and not hasattr(judge, "tagger"):
        return judge
    found = getattr(judge, "tagger", None)
    return found() if callable(found) and not hasattr(found, "embed") else found


def is_joint(judge: Any) -> bool:
    """Whether the judge reads captions, too."""
    return hasattr(judge, "embed_text")


def template(recipe: Recipe) -> str:
    """How a caption is put, ``{}`` standing for it."""
    return str(dict(recipe.settings).get("template", "{}"))


def _own(judge: Judge) -> Any:
    """The embedder, or why there is none, in words."""
    try:
        return judge.load()
    except (ImportError, FileNotFoundError, ValueError) as error:
        return f"needs weights: --judge {judge.name}=FOLDER ({' '.join(str(error).split())})"


def _find(embedder: str, opened: dict[str, Any]) -> str | None:
    """The judge a recipe asks for: by the name it was given under, else by its own."""
    for name, judge in opened.items():
        known = str(judge.id).partition("+")[0]
        if embedder in (name, known, known.rpartition("-")[0]):
            return name
    return None


def _metrics(metric: str) -> tuple[str, ...]:
    return _KLS if metric == "kl" else (metric,)


def _bound(name: str, judge: Any, metric: str, recipe: Recipe, suffix: str) -> Line:
    tags = metric == "kl"
    ear = tagger_of(judge) if tags else judge
    bound = recipe.bind(judge.id if ear is None else ear.id)
    reason = None
    if ear is None:
        reason = f"{judge.id} has no tags"
    elif metric == "clap" and not is_joint(judge):
        reason = f"{judge.id} does not read captions"
    elif (ear.rate, ear.channels) != (recipe.rate, recipe.channels):
        reason = (f"{ear.id} hears {ear.channels} channels at {ear.rate} Hz, the recipe gives {recipe.channels} at "
                  f"{recipe.rate} Hz")  # fmt: skip
    if reason is not None:
        return Line(metrics=_metrics(metric), suffix=suffix, recipe=bound, reason=reason)
    heard = hearing(name, ear, recipe, tags)
    return Line(metrics=_metrics(metric), suffix=suffix, recipe=bound, hearing=heard)


def _lines(name: str, judge: Any) -> list[Line]:
    """All a judge can give by the rules of ``descant-v1``: its level, its tail, the judge's own rate and window."""
    own = PROTOCOLS["descant-v1"]
    base = own["frechet"] if name == LOGMEL else own["clap"]
    window = float(getattr(judge, "window", base.window))
    tail: Tail = "pad" if name == LOGMEL else "repeat"
    least = base.window / 2 if name == LOGMEL else min(1.0, window)
    base = replace(base, embedder=judge.id, rate=judge.rate, channels=judge.channels, window=window, hop=window,
                   tail=tail, least=least)  # fmt: skip
    table = {"frechet": own["frechet"].settings, "kernel": own["kernel"].settings}
    lines = []
    vectors = hearing(name, judge, base)
    for metric, settings in table.items():
        lines.append(Line(metrics=(metric,), suffix=name, recipe=replace(base, settings=settings), hearing=vectors))
    near = replace(base, settings=_NEIGHBOUR_SETTINGS)
    lines.append(Line(metrics=_NEIGHBOURS, suffix=name, recipe=near, hearing=vectors))
    ear = tagger_of(judge)
    if ear is not None:
        recipe = replace(base, embedder=ear.id, settings=own["kl"].settings)
        lines.append(Line(metrics=_KLS, suffix=name, recipe=recipe, hearing=hearing(name, ear, recipe, tags=True)))
    if is_joint(judge):
        recipe = replace(base, settings=own["clap"].settings)
        lines.append(Line(metrics=("clap",), suffix=name, recipe=recipe, hearing=vectors))
    if name != LOGMEL:
        recipe = replace(base, settings=_SPREAD_SETTINGS)
        lines.append(Line(metrics=_SPREAD, suffix=name, recipe=recipe, hearing=vectors))
    return lines


def _missing(name: str, reason: str) -> Iterable[Line]:
    """The rows a judge would have given, each with the reason why it does not."""
    own = PROTOCOLS["descant-v1"]
    base = own["clap"]
    settings = {
        ("frechet",): own["frechet"].settings, ("kernel",): own["kernel"].settings,
        _NEIGHBOURS: _NEIGHBOUR_SETTINGS, _KLS: own["kl"].settings, ("clap",): base.settings,
        _SPREAD: _SPREAD_SETTINGS,
    }  # fmt: skip
    for metrics, values in settings.items():
        yield Line(metrics=metrics, suffix=name, recipe=replace(base, settings=values), reason=reason)
