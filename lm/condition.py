"""What steers the model: one typed record per piece, and the batch of plain tensors it becomes.

Every control may be absent; absent is class 0 or zeros with a flag of 0, never a guess. Dropping a control for
classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598) is the same as not giving it, and is drawn for each
sample on its own: dropping for a whole batch makes small-batch training noisy and ties the controls together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .chords import parse
from .vocab import GENRES, INSTRUMENTS, KEYS, canonical_genre, canonical_instrument, canonical_key

#: Roles a stem can have; order is the embedding's row order: append only.
ROLES: tuple[str, ...] = (
    "mix", "drums", "bass", "keys", "guitar", "strings", "brass", "reeds", "pipes", "plucked", "mallets", "synth",
    "voice", "vocals", "lead", "chords", "pad", "other",
)  # fmt: skip
#: Controls that can be dropped; ``each_stem`` drops single stems, ``all`` everything at once.
CONTROLS: tuple[str, ...] = (
    "text", "genre", "instruments", "tempo", "beat", "key", "chords", "melody", "stems", "each_stem", "all",
)  # fmt: skip
#: Frames of look-ahead beside the current frame for beat and chords: 160 ms at 50 frames a second.
AHEAD = 8
TEMPO_BINS = 64
_TEMPO = (20.0, 300.0)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The controls of one piece. Times are in seconds from frame 0 of the codes they accompany."""

    text: str | None = None
    """A caption or a prompt."""
    genre: str | None = None
    """A name or alias of :data:`descant.lm.vocab.GENRES`; stored in the table's spelling."""
    instruments: tuple[str, ...] = ()
    """Names or aliases of :data:`descant.lm.vocab.INSTRUMENTS`; stored in the table's spelling."""
    tempo: float | None = None
    """Beats per minute, 20 to 300."""
    beats_per_bar: int | None = None
    beat_offset: float = 0.0
    """Seconds from frame 0 to the first downbeat; may be negative."""
    key: str | None = None
    chords: tuple[tuple[float, float, str], ...] | None = None
    """(start s, end s, symbol), in order of their starts."""
    melody: Tensor | None = None
    """Chroma of the lead, [F, 12]; rows from frame 0."""
    stems: Mapping[str, Tensor] | None = None
    """Role of :data:`ROLES` -> codes [K, F] of that stem, from frame 0; -1 where it is not known."""
    target: str | None = None
    """The role of what is written: a stem by itself; None or ``mix`` for all that is heard together."""

    def __post_init__(self) -> None:
        if self.text is not None and not isinstance(self.text, str):
            raise ValueError(f"text must be a string, got {type(self.text).__name__}")
        if isinstance(self.instruments, str):
            raise ValueError(f"instruments must be a tuple of names, got the single string {self.instruments!r}")
        if self.genre is not None:
            object.__setattr__(self, "genre", canonical_genre(self.genre))
        object.__setattr__(self, "instruments", tuple(dict.fromkeys(map(canonical_instrument, self.instruments))))
        if self.key is not None:
            object.__setattr__(self, "key", canonical_key(self.key))
        if self.tempo is not None and not _TEMPO[0] <= self.tempo <= _TEMPO[1]:
            raise ValueError(f"tempo {self.tempo} is outside {_TEMPO[0]:g} to {_TEMPO[1]:g} beats per minute")
        if self.beats_per_bar is not None and not 1 <= self.beats_per_bar <= 16:
            raise ValueError(f"beats_per_bar {self.beats_per_bar} is outside 1 to 16")
        if not math.isfinite(self.beat_offset):
            raise ValueError(f"beat_offset {self.beat_offset} must be a finite number of seconds")
        if self.chords is not None:
            _check_chords(self.chords)
        if self.melody is not None and (self.melody.dim() != 2 or self.melody.shape[1] != 12):
            raise ValueError(f"melody must be [frames, 12], got {list(self.melody.shape)}")
        if self.melody is not None and not bool(self.melody.isfinite().all()):
            raise ValueError("melody holds values that are not finite numbers")
        if self.target is not None and self.target not in ROLES:
            raise ValueError(f"unknown target {self.target!r}: one of {', '.join(ROLES)}")
        for role, codes in (self.stems or {}).items():
            if role not in ROLES:
                raise ValueError(f"unknown stem role {role!r}: one of {', '.join(ROLES)}")
            if codes.dim() != 2 or codes.is_floating_point():
                raise ValueError(f"stem {role!r} must be whole numbers [K, F], got {list(codes.shape)} {codes.dtype}")


@dataclass(frozen=True, kw_only=True)
class ConditionBatch:
    """Conditions of B samples over F frames, as tensors. Absent is 0 everywhere."""

    text: tuple[str | None, ...]
    genre: Tensor
    """[B], 0 none, else 1 + row."""
    instruments: Tensor
    """[B, n] multi-hot float."""
    tempo: Tensor
    """[B], 0 none, else 1 + logarithmic bin between 40 and 240 beats per minute."""
    key: Tensor
    """[B], 0 none, else 1 + row."""
    beat: Tensor
    """[B, F, 5]: sine and cosine of the beat's phase, of the bar's phase (0, 0 without a metre), known."""
    chords: Tensor
    """[B, F, 25]: 12 pitch classes, 12 one-hot bass, known."""
    ahead: Tensor
    """[B, F, 30]: ``beat`` and ``chords`` of frame f + :data:`AHEAD`."""
    melody: Tensor
    """[B, F, 13]: 12 pitch classes, known."""
    stems: Tensor | None = None
    """[B, N, K, F], -1 where there is no token."""
    roles: Tensor | None = None
    """[B, N], 0 no stem, else 1 + row."""
    guidance: Tensor | None = None
    """[B], the weight of guidance a row stands for; absent is 1, the conditions as they are."""
    target: Tensor | None = None
    """[B], what is written: 0 everything, else the row of its role; absent is 0. Never dropped: it says what the tokens
    are, not what they should be like."""

    @property
    def size(self) -> int:
        """B."""
        return self.genre.shape[0]

    @property
    def frames(self) -> int:
        """F."""
        return self.beat.shape[1]

    def to(self, device: torch.device | str) -> ConditionBatch:
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def null(self) -> ConditionBatch:
        """The same shape with every control absent: the other row of classifier-free guidance."""
        return replace(_without(self, {"all": torch.ones(self.size, dtype=torch.bool)}, None), guidance=None)


def collate(
    conditions: Sequence[Condition], frames: int, start_frame: int | Sequence[int] = 0, frame_rate: float = 50.0
) -> ConditionBatch:
    """Tensors for ``frames`` frames from ``start_frame`` (one for all, or one per condition) on.

    Beats are computed at the frame's beginning, (start_frame + f) / frame_rate, in double precision; a chord counts for
    the frames whose middle it covers. What a melody or a stem does not reach is absent there.
    """
    size = len(conditions)
    starts = [start_frame] * size if isinstance(start_frame, int) else list(start_frame)
    if size == 0 or frames < 1 or len(starts) != size or frame_rate <= 0:
        raise ValueError(
            f"{size} conditions, {len(starts)} start frames, {frames} frames, {frame_rate} frames a second: "
            "give at least one condition and frame and one start per condition"
        )
    at = torch.arange(frames + AHEAD, dtype=torch.float64) + torch.tensor(starts, dtype=torch.float64)[:, None]
    beat = _beats(conditions, at / frame_rate)
    middles = (at + 0.5) / frame_rate
    chords = torch.stack([_chord_frames(c.chords, row) for c, row in zip(conditions, middles, strict=True)])
    instruments = torch.zeros(size, len(INSTRUMENTS))
    for row, condition in enumerate(conditions):
        for name in condition.instruments:
            instruments[row, _ROW_OF_INSTRUMENT[name]] = 1.0
    stems, roles = _stems(conditions, starts, frames)
    return ConditionBatch(
        text=tuple(c.text for c in conditions),
        genre=torch.tensor([0 if c.genre is None else 1 + GENRES.index(c.genre) for c in conditions]),
        instruments=instruments,
        tempo=torch.tensor([_tempo_bin(c.tempo) for c in conditions]),
        key=torch.tensor([0 if c.key is None else 1 + KEYS.index(c.key) for c in conditions]),
        beat=beat[:, :frames],
        chords=chords[:, :frames],
        ahead=torch.cat([beat[:, AHEAD:], chords[:, AHEAD:]], -1),
        melody=_melodies(conditions, starts, frames),
        stems=stems,
        roles=roles,
        target=torch.tensor([0 if c.target is None else ROLES.index(c.target) for c in conditions]),
    )


def drop(batch: ConditionBatch, probabilities: Mapping[str, float], generator: torch.Generator) -> ConditionBatch:
    """Make controls absent, each for each sample with its own probability (names of :data:`CONTROLS`).

    The draw depends on the generator and the batch's size alone, not on which names are given.
    """
    for name, share in probabilities.items():
        if name not in CONTROLS or not 0.0 <= share <= 1.0:
            raise ValueError(f"drop {name!r} with {share}: names are {', '.join(CONTROLS)}, shares 0 to 1")
    width = 0 if batch.roles is None else batch.roles.shape[1]
    noise = torch.rand(len(CONTROLS), batch.size, generator=generator)
    gone = {name: noise[row] < probabilities.get(name, 0.0) for row, name in enumerate(CONTROLS)}
    single = torch.rand(batch.size, width, generator=generator) < probabilities.get("each_stem", 0.0)
    return _without(batch, gone, single)


def _without(batch: ConditionBatch, gone: Mapping[str, Tensor], single: Tensor | None) -> ConditionBatch:
    everything = gone["all"]
    keep = {name: ~(gone.get(name, everything) | everything).to(batch.genre.device) for name in CONTROLS}
    framed = {name: keep[name][:, None, None].to(batch.beat.dtype) for name in ("beat", "chords", "melody")}
    roles = batch.roles
    if roles is not None:
        roles = roles * keep["stems"][:, None]
        if single is not None:
            roles = roles * ~single.to(roles.device)
    beats = batch.beat.shape[-1]
    ahead = torch.cat([batch.ahead[..., :beats] * framed["beat"], batch.ahead[..., beats:] * framed["chords"]], -1)
    return replace(
        batch,
        text=tuple(text if kept else None for text, kept in zip(batch.text, keep["text"].tolist(), strict=True)),
        genre=batch.genre * keep["genre"],
        instruments=batch.instruments * keep["instruments"][:, None],
        tempo=batch.tempo * keep["tempo"],
        key=batch.key * keep["key"],
        beat=batch.beat * framed["beat"],
        chords=batch.chords * framed["chords"],
        ahead=ahead,
        melody=batch.melody * framed["melody"],
        roles=roles,
    )


_ROW_OF_INSTRUMENT = {name: row for row, name in enumerate(INSTRUMENTS)}


def _check_chords(chords: Sequence[tuple[float, float, str]]) -> None:
    last = -math.inf
    for start, end, symbol in chords:
        _chord_row(symbol)
        if not (math.isfinite(start) and math.isfinite(end)) or end <= start or start < last:
            raise ValueError(f"chord {symbol!r} at {start} to {end} s: order chords by start, each with end > start")
        last = start


def _tempo_bin(tempo: float | None) -> int:
    if tempo is None:
        return 0
    share = math.log(tempo / 40.0) / math.log(240.0 / 40.0)
    return 1 + min(TEMPO_BINS - 1, max(0, int(share * TEMPO_BINS)))


@lru_cache(maxsize=4096)
def _chord_row(symbol: str) -> tuple[float, ...]:
    chord = parse(symbol)
    row = [0.0] * 25
    for pitch in chord.classes:
        row[pitch] = 1.0
    row[12 + chord.bass] = 1.0
    row[24] = 1.0
    return tuple(row)


def _beats(conditions: Sequence[Condition], at: Tensor) -> Tensor:
    """Times [B, F] (s, double) -> [B, F, 5]."""
    known = torch.tensor([[c.tempo is not None] for c in conditions])
    metre = torch.tensor([[c.tempo is not None and c.beats_per_bar is not None] for c in conditions])
    tempo = torch.tensor([[c.tempo or 0.0] for c in conditions], dtype=torch.float64)
    offset = torch.tensor([[c.beat_offset] for c in conditions], dtype=torch.float64)
    beats = (at - offset) * tempo / 60.0
    bars = beats / torch.tensor([[float(c.beats_per_bar or 1)] for c in conditions], dtype=torch.float64)
    # reduce to one turn while still in double precision
    beat, bar = ((value - value.floor()).float() * (2 * math.pi) for value in (beats, bars))
    flag = known.expand_as(beat).float()
    return torch.stack([beat.sin() * known, beat.cos() * known, bar.sin() * metre, bar.cos() * metre, flag], -1)


def _chord_frames(chords: Sequence[tuple[float, float, str]] | None, at: Tensor) -> Tensor:
    """Times [F] of frame centres (s) -> [F, 25]."""
    begin, end = float(at[0]), float(at[-1])
    seen = [chord for chord in chords or () if chord[0] <= end and chord[1] > begin]
    if not seen:
        return torch.zeros(len(at), 25)
    starts = torch.tensor([chord[0] for chord in seen], dtype=torch.float64)
    ends = torch.tensor([chord[1] for chord in seen], dtype=torch.float64)
    rows = torch.tensor([_chord_row(chord[2]) for chord in seen])
    which = torch.bucketize(at, starts, right=True) - 1
    index = which.clamp(min=0)
    active = (which >= 0) & (at < ends[index])
    return rows[index] * active[:, None]


def _melodies(conditions: Sequence[Condition], starts: Sequence[int], frames: int) -> Tensor:
    out = torch.zeros(len(conditions), frames, 13)
    for row, (condition, start) in enumerate(zip(conditions, starts, strict=True)):
        if condition.melody is not None:
            first = max(0, -start)
            part = condition.melody[max(0, start) : max(0, start + frames)]
            out[row, first : first + len(part), :12] = part
            out[row, first : first + len(part), 12] = 1.0
    return out


def _stems(
    conditions: Sequence[Condition], starts: Sequence[int], frames: int
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    width = max(len(c.stems or {}) for c in conditions)
    if not width:
        return None, None
    books = max(codes.shape[0] for c in conditions for codes in (c.stems or {}).values())
    stems = torch.full((len(conditions), width, books, frames), -1, dtype=torch.long)
    roles = torch.zeros(len(conditions), width, dtype=torch.long)
    for row, (condition, start) in enumerate(zip(conditions, starts, strict=True)):
        for column, (role, codes) in enumerate((condition.stems or {}).items()):
            first = max(0, -start)
            part = codes[:, max(0, start) : max(0, start + frames)]
            stems[row, column, : len(codes), first : first + part.shape[1]] = part
            roles[row, column] = 1 + ROLES.index(role)
    return stems, roles
