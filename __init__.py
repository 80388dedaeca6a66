"""descant: music from a sentence, offline.

The repository is the package: ``descant.codec.rvq`` is ``codec/rvq.py``. Rooms: ``codec`` (samples <-> tokens), ``lm``
(tokens -> tokens), ``gen`` (what a musician does), ``eval`` (numbers), ``recipes`` (runs).

    >>> import descant
    >>> sorted(descant.__all__)[:4]
    ['Audio', 'AudioError', 'Music', 'Request']

Names of the front door and the rooms are imported when they are first used, so that ``import descant`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import codec, eval, gen, lm, recipes
    from .codec.audio import Audio, AudioError, read, write
    from .gen.generate import Music
    from .gen.load import Studio, accompany, extend, generate, load
    from .gen.request import Request, RequestError
    from .gen.separation.registry import separate
    from .gen.separation.stems import Stems

__version__ = "0.1.0"

__all__ = [
    "Audio",
    "AudioError",
    "Music",
    "Request",
    "RequestError",
    "Stems",
    "Studio",
    "__version__",
    "accompany",
    "codec",
    "eval",
    "extend",
    "gen",
    "generate",
    "lm",
    "load",
    "read",
    "recipes",
    "separate",
    "write",
]

_DOORS = {
    "Audio": "codec.audio",
    "AudioError": "codec.audio",
    "Music": "gen.generate",
    "Request": "gen.request",
    "RequestError": "gen.request",
    "Stems": "gen.separation.stems",
    "Studio": "gen.load",
    "accompany": "gen.load",
    "extend": "gen.load",
    "generate": "gen.load",
    "load": "gen.load",
    "read": "codec.audio",
    "separate": "gen.separation.registry",
    "write": "codec.audio",
}
_ROOMS = ("codec", "eval", "gen", "lm", "recipes")


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name in _DOORS:
        found = getattr(import_module(f"{__name__}.{_DOORS[name]}"), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
