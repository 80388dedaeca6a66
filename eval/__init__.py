"""Numbers: analysers and scores that share nothing with what they judge.

Distances between sets of clips: ``frechet_distance``, ``kernel_distance``, ``neighbours``; between paired clips:
``kl``; between clips and captions: ``clap_score``. Their inputs come from ``embed_files`` under a ``Recipe``, their
output is a ``Result``. ``score`` does all of it to a folder of clips and gives a ``Report``. Always ``descant.eval``:
the bare name would hide Python's own ``eval``.

``rhythm`` and ``tonality`` measure tempo and key, ``tagger`` names genre and instruments, ``reconstruction`` compares
a codec's output with its input, ``seam`` looks at joins, ``statistics`` says how sure a figure is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cache import Cache
    from .clap import clap_score
    from .collect import Batch, Collect, FrechetStream
    from .coverage import neighbours
    from .divergence import kl
    from .embed import Embedded, Embedder, audio_files, embed_audio, embed_files
    from .frechet import frechet_compare, frechet_distance, frechet_infinity
    from .gaussian import Gaussian, Statistics
    from .kernel import kernel_distance
    from .logmel import LogMel
    from .metric import Metric, Result, load_state, save_state, synchronise
    from .recipe import Recipe, RecipeMismatch, Table, named, tables
    from .report.results import Report
    from .report.score import ScoreSettings, score
    from .separation import bss_eval
    from .vectors import Vectors

_DOORS = {
    "Batch": "collect",
    "Cache": "cache",
    "Collect": "collect",
    "Embedded": "embed",
    "Embedder": "embed",
    "FrechetStream": "collect",
    "Gaussian": "gaussian",
    "LogMel": "logmel",
    "Metric": "metric",
    "Recipe": "recipe",
    "RecipeMismatch": "recipe",
    "Report": "report.results",
    "Result": "metric",
    "ScoreSettings": "report.score",
    "Statistics": "gaussian",
    "Table": "recipe",
    "Vectors": "vectors",
    "audio_files": "embed",
    "bss_eval": "separation",
    "clap_score": "clap",
    "embed_audio": "embed",
    "embed_files": "embed",
    "frechet_compare": "frechet",
    "frechet_distance": "frechet",
    "frechet_infinity": "frechet",
    "kernel_distance": "kernel",
    "kl": "divergence",
    "load_state": "metric",
    "named": "recipe",
    "neighbours": "coverage",
    "save_state": "metric",
    "score": "report.score",
    "synchronise": "metric",
    "tables": "recipe",
}

__all__ = [
    "Batch",
    "Cache",
    "Collect",
    "Embedded",
    "Embedder",
    "FrechetStream",
    "Gaussian",
    "LogMel",
    "Metric",
    "Recipe",
    "RecipeMismatch",
    "Report",
    "Result",
    "ScoreSettings",
    "Statistics",
    "Table",
    "Vectors",
    "audio_files",
    "bss_eval",
    "clap_score",
    "embed_audio",
    "embed_files",
    "frechet_compare",
    "frechet_distance",
    "frechet_infinity",
    "kernel_distance",
    "kl",
    "load_state",
    "named",
    "neighbours",
    "save_state",
    "score",
    "synchronise",
    "tables",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _DOORS:
        found = getattr(import_module(f"{__name__}.{_DOORS[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(sorted(_DOORS))}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_DOORS))
