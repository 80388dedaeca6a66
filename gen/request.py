"""What is asked for, and what is decided from it before a note is sampled.

A :class:`Request` holds what a person typed, in a sentence or as options; :func:`resolve` turns it into a
:class:`Plan`: options win over the sentence, and what nobody said (genre, tempo, key, metre, chords) is chosen by the
seed within what the genre allows. The plan says which was which. Nothing here needs torch, so that a mistake in a
command is answered at once.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..lm import chords as chord_symbols
from ..lm import vocab
from . import prompt
from .prompt import METRE_LIMITS, TEMPO_LIMITS, Wish

if TYPE_CHECKING:
    from ..lm.condition import Condition
    from ..lm.sample import SamplingSettings

#: Shortest and longest music that can be asked for at once, in seconds.
DURATION_LIMITS = (0.1, 600.0)
#: Most chords that can be typed.
CHORD_LIMIT = 512
_SEEDS = 1 << 63
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}


class RequestError(ValueError):
    """Something was asked for that cannot be: what was seen, what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A wish for music. Everything may be left out. Raises RequestError on values that cannot be served."""

    text: str | None = None
    """A sentence, at most 2,000 characters."""
    genre: str | None = None
    """A name or alias of :data:`descant.lm.vocab.GENRES`."""
    instruments: Sequence[str] = ()
    """Names or aliases of :data:`descant.lm.vocab.INSTRUMENTS`; one text may hold several, between commas."""
    tempo: float | None = None
    """Quarter notes per minute, 40 to 240."""
    key: str | None = None
    """Such as ``G minor``, ``F#`` or ``Bbm``."""
    beats_per_bar: int | None = None
    """2 to 7."""
    chords: Sequence[str] = ()
    """Symbols such as ``Gm`` or ``D7``, one a bar, repeated to the end; one text may hold several."""
    duration: float = 10.0
    """Seconds, 0.1 to 600."""
    seed: int | None = None
    """The same seed gives the same music; None draws one."""
    temperature: float = 1.0
    top_k: int = 250
    top_p: float = 1.0
    guidance: float | Mapping[str, float] = 3.0
    """How strictly the wishes are followed, 0 to 20; 1 is plain sampling. Or a weight for each of several controls,
    such as ``{"text": 4, "key": 2}``; names as in :data:`descant.lm.guidance.NAMES`, ``rest`` for all others."""
    nested: bool = False
    """With a weight per control: each on top of those named before it, instead of each alone."""
    negative: str | None = None
    """A sentence to lead away from; it counts as far as ``guidance`` is more than 1."""

    def __post_init__(self) -> None:
        low, high = DURATION_LIMITS
        _between("duration", self.duration, low, high, "seconds; make longer music in parts with 'descant extend'")
        if self.tempo is not None:
            _between("tempo", self.tempo, *TEMPO_LIMITS, "beats per minute")
        if self.beats_per_bar is not None:
            _between("beats per bar", self.beats_per_bar, *METRE_LIMITS, "")
        _between("temperature", self.temperature, 0.0, 10.0, "")
        _between("top-k", self.top_k, 0, 1 << 20, "(0 keeps all)")
        _between("top-p", self.top_p, 0.001, 1.0, "")
        self._check_guidance()
        if self.seed is not None and not (isinstance(self.seed, int) and 0 <= self.seed < _SEEDS):
            raise RequestError(f"seed {self.seed!r} is no whole number from 0 to {_SEEDS - 1}")
        instruments = _words(self.instruments, ",")
        chords = _words(self.chords, ", |")
        try:
            if self.text is not None:
                object.__setattr__(self, "text", prompt.clean(self.text))
            if self.negative is not None:
                object.__setattr__(self, "negative", prompt.clean(self.negative))
            if self.genre is not None:
                object.__setattr__(self, "genre", prompt.genre(self.genre))
            if self.key is not None:
                object.__setattr__(self, "key", vocab.canonical_key(self.key))
            object.__setattr__(self, "instruments", tuple(dict.fromkeys(map(prompt.instrument, instruments))))
            object.__setattr__(self, "chords", tuple(chord_symbols.parse(symbol).symbol for symbol in chords))
        except ValueError as error:
            raise RequestError(str(error)) from None
        if len(self.chords) > CHORD_LIMIT:
            raise RequestError(f"{len(self.chords)} chords: at most {CHORD_LIMIT} are read")

    @property
    def sampling(self) -> SamplingSettings:
        """How tokens are drawn."""
        from ..lm.sample import SamplingSettings

        return SamplingSettings(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, guidance=self.guidance, nested=self.nested
        )

    def stressing(self, control: str, times: float) -> Request:
        """The same with ``control`` counting ``times`` as much as the rest: nested guidance, one number told apart.

        Weights that were given by name, and guidance of up to 1, which leads nowhere, stay as they are.
        """
        if isinstance(self.guidance, Mapping) or self.guidance <= 1:
            return self
        return replace(self, guidance={"rest": self.guidance, control: times}, nested=True)

    @property
    def away(self) -> Condition | None:
        """What guidance leads away from: :attr:`negative`, read like any sentence; None leads away from no wish."""
        if self.negative is None:
            return None
        from ..lm.condition import Condition

        wish = prompt.parse_prompt(self.negative)
        return Condition(
            text=self.negative, genre=wish.genre, instruments=wish.instruments, tempo=wish.tempo, key=wish.key
        )

    def _check_guidance(self) -> None:
        if not isinstance(self.guidance, Mapping):
            _between("guidance", self.guidance, 0.0, 20.0, "")
            if self.nested:
                raise RequestError("nested guidance needs a weight for each of several controls, such as text=3,key=2")
            return
        from ..lm.guidance import checked

        for name, weight in self.guidance.items():
            _between(f"guidance of {name}", weight, 0.0, 20.0, "")
        try:
            checked(self.guidance)
        except ValueError as error:
            raise RequestError(str(error)) from None
        object.__setattr__(self, "guidance", dict(self.guidance))

    def seeded(self) -> Request:
        """The same with a seed: its own, or a fresh one of six digits."""
        return self if self.seed is not None else replace(self, seed=random.SystemRandom().randrange(1_000_000))


def seed_of(seed: int, number: int) -> int:
    """The seed of stretch ``number`` of a piece; the first one's, 0, is the piece's own.

    The same noise twice would be heard as a loop. Neighbouring numbers get seeds that are far apart (steps of the
    golden ratio of a word, Knuth, The Art of Computer Programming 3, section 6.4).
    """
    return (seed ^ (number * 0x9E3779B97F4A7C15)) % _SEEDS


def guidance_of(typed: str) -> float | dict[str, float]:
    """``3`` or ``text=3,key=2``."""
    weights = {}
    for part in typed.split(","):
        name, equals, number = (piece.strip() for piece in part.rpartition("="))
        try:
            weights[name] = float(number)
        except ValueError:
            raise RequestError(
                f"guidance {typed!r}: type a number such as 3, or one each such as text=3,key=2"
            ) from None
        if bool(equals) != bool(name):
            raise RequestError(f"guidance {typed!r}: a name is missing before '='")
    if "" in weights and len(weights) > 1 or typed.count(",") >= len(weights):
        raise RequestError(f"guidance {typed!r}: type one number, or names with one number each")
    return weights.get("", weights)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with every gap filled. ``asked`` and ``chosen`` say who decided what; ``notes`` what to know."""

    seed: int
    text: str | None
    """What the text encoder reads."""
    genre: str | None
    instruments: tuple[str, ...]
    tempo: float | None
    beats_per_bar: int | None
    key: str | None
    chords: tuple[tuple[float, float, str], ...] | None
    """(start s, end s, symbol) from the first sample on."""
    asked: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether it steers nothing."""
        values = (self.text, self.genre, self.tempo, self.key, self.chords)
        return not self.instruments and all(value is None for value in values)

    def condition(self, beat_offset: float = 0.0, shift: float = 0.0) -> Condition:
        """The record the language model reads; ``beat_offset`` and ``shift`` (of the chords) in seconds."""
        from ..lm.condition import Condition

        chords = self.chords and tuple((start + shift, end + shift, name) for start, end, name in self.chords)
        return Condition(
            text=self.text, genre=self.genre, instruments=self.instruments, tempo=self.tempo, key=self.key,
            beats_per_bar=self.beats_per_bar, beat_offset=beat_offset, chords=chords or None,
        )  # fmt: skip


def resolve(request: Request) -> Plan:
    """Decide everything for new music: options, then the sentence, then the seed within what the genre allows."""
    from .plan import default_metre, plan_chords, tempo_range

    request = request.seeded()
    seed = request.seed or 0
    said = _said(request)
    wish, asked, notes = said.wish, said.asked, said.notes
    chosen: dict[str, Any] = {}
    genre = asked.get("genre")
    if genre is None:
        genre = chosen["genre"] = _draw(seed, "genre", _fitting(asked, wish))
    beats = asked.get("beats_per_bar")
    if beats is None:
        beats = chosen["beats_per_bar"] = default_metre(genre)
    tempo = asked.get("tempo")
    if tempo is None:
        tempo = chosen["tempo"] = _tempo(seed, wish, tempo_range(genre))
    key = asked.get("key")
    if key is None and request.chords:
        key = chosen["key"] = key_of(request.chords)
    elif key is None:
        modes = [name for name in vocab.KEYS if wish.mode is None or name.endswith(wish.mode)]
        key = chosen["key"] = _draw(seed, "key", modes)
    length = request.duration + 1.0  # the model looks a little ahead
    if request.chords:
        chords = lay_out(request.chords, 60.0 / tempo * beats, length)
    else:
        chords = plan_chords(genre, key, tempo, beats, length, seed)
        chosen["chords"] = [symbol for start, _, symbol in chords if start < request.duration]
    return Plan(
        seed=seed, text=said.text, genre=genre, instruments=asked.get("instruments", ()), tempo=tempo,
        beats_per_bar=beats, key=key, chords=chords, asked=_plain(asked), chosen=chosen, notes=tuple(notes),
    )  # fmt: skip


def resolve_continuation(request: Request) -> Plan:
    """Decide for music that goes on: only what was said; the rest is in the music already."""
    request = request.seeded()
    said = _said(request)
    asked, notes = said.asked, said.notes
    if said.wish.tempo_range or said.wish.pace:
        notes.append("words for a tempo are left to the music given; type --tempo to state it")
    tempo = asked.get("tempo")
    chords = None
    if request.chords:
        if tempo is None:
            raise RequestError("chords need a tempo here: add --tempo with the tempo of the music given")
        chords = lay_out(request.chords, 60.0 / tempo * asked.get("beats_per_bar", 4), request.duration + 1.0)
    # where the bar begins is not known in given music: only the beat is told
    return Plan(
        seed=request.seed or 0, text=said.text, genre=asked.get("genre"), instruments=asked.get("instruments", ()),
        tempo=tempo, beats_per_bar=None, key=asked.get("key"), chords=chords, asked=_plain(asked), notes=tuple(notes),
    )  # fmt: skip


def lay_out(symbols: Sequence[str], bar: float, seconds: float) -> tuple[tuple[float, float, str], ...]:
    """One chord per bar of ``bar`` seconds, repeated until ``seconds`` are covered."""
    return tuple((i * bar, (i + 1) * bar, symbols[i % len(symbols)]) for i in range(max(1, math.ceil(seconds / bar))))


def key_of(symbols: Sequence[str]) -> str:
    """The key that holds most of the chords' notes; the first and last chord tip the balance."""

    def fit(name: str) -> float:
        tonic, mode = name.split()
        root = vocab.TONICS.index(tonic)
        scale = {(root + step) % 12 for step in _SCALES[mode]}
        # a minor key's dominant borrows the leading note
        scale |= {(root + 11) % 12} if mode == "minor" else set()
        inside = sum(len(scale & set(chord.classes)) / len(chord.classes) for chord in read) / len(read)
        third = (root + (4 if mode == "major" else 3)) % 12
        home = sum(chord.root == root and third in chord.classes for chord in (read[0], read[-1]))
        return inside + 0.15 * home - (0.02 if mode == "minor" else 0.0)

    read = [chord_symbols.parse(symbol) for symbol in symbols]
    return max(vocab.KEYS, key=fit)


@dataclass(frozen=True)
class _Said:
    wish: Wish
    asked: dict[str, Any]
    notes: list[str]
    text: str | None


def _said(request: Request) -> _Said:
    """Sentence and options joined."""
    wish = Wish(text="") if request.text is None else prompt.parse_prompt(request.text)
    asked: dict[str, Any] = {}
    notes, clash = list(wish.notes), False
    for name in ("genre", "tempo", "key", "beats_per_bar", "instruments"):
        typed, read = getattr(request, name) or None, getattr(wish, name) or None
        if typed is not None or read is not None:
            asked[name] = typed if typed is not None else read
        if typed is not None and read is not None and set(_many(typed)) != set(_many(read)):
            label = name.replace("_", " ")
            clash = clash or not set(_many(read)) <= set(_many(typed))
            notes.append(f"{label}: the option ({_show(typed)}) wins over the sentence ({_show(read)})")
    if request.chords:
        asked["chords"] = request.chords
    if wish.without:
        notes.append(f"without {', '.join(wish.without)}: not asked for, but nothing forbids the model to play it")
    if request.text is not None and wish.empty and not asked:
        notes.append("nothing in the sentence was recognised as a genre, instrument, tempo, key or metre")
    if request.text is not None:
        asked["text"] = request.text
    if request.negative is not None:
        asked["negative"] = request.negative
    # a text that says the opposite of the options would pull against them
    if clash:
        notes.append("the sentence contradicts the options and is kept from the model's text encoder")
    return _Said(wish, asked, notes, None if clash else request.text)


def _fitting(asked: dict[str, Any], wish: Wish) -> list[str]:
    """Genres that fit the metre and tempo asked for; all when none does."""
    from .plan import default_metre, tempo_range

    names = list(vocab.GENRES)
    beats, tempo = asked.get("beats_per_bar"), asked.get("tempo")
    span = (tempo, tempo) if tempo is not None else wish.tempo_range
    if beats is not None:
        names = [name for name in names if default_metre(name) == beats] or names
    if span is not None:
        near = [name for name in names if tempo_range(name)[0] <= span[1] and span[0] <= tempo_range(name)[1]]
        names = near or names
    return names


def _tempo(seed: int, wish: Wish, span: tuple[float, float]) -> float:
    low, high = span
    if wish.pace is not None:
        low, high = (low + share * (high - low) for share in wish.pace)
    if wish.tempo_range is not None:
        # the words meet the genre's own range where they can
        slow, fast = wish.tempo_range
        low, high = (max(low, slow), min(high, fast)) if max(low, slow) <= min(high, fast) else (slow, fast)
    return float(round(low + (high - low) * _share(seed, "tempo")))


def _share(seed: int, what: str) -> float:
    return random.Random(f"{what}:{seed}").random()


def _draw(seed: int, what: str, names: list[str]) -> str:
    return names[int(_share(seed, what) * len(names))]


def _between(name: str, value: float, low: float, high: float, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        shown = f"{value:g}" if isinstance(value, (int, float)) else repr(value)
        raise RequestError(f"{name} {shown} is outside {low:g} to {high:g} {unit}".rstrip())


def _words(value: object, separators: str) -> list[str]:
    """A sequence of names, or one text that holds several."""
    parts = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
    for separator in separators:
        parts = [piece for part in parts for piece in str(part).split(separator)]
    return [part.strip() for part in parts if part.strip()]


def _many(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _show(value: object) -> str:
    return ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in _many(value))


def _plain(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
