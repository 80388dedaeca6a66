"""The judge: one small network that hears a clip and reads a caption, trained apart from everything it judges.

Its audio and text vectors live in one space (contrastively trained, after Radford et al., "Learning Transferable Visual
Models From Natural Language Supervision", 2021, and Elizalde et al., "CLAP", 2023), and heads beside them name genre,
instruments, lead, key and tempo. It is an ``Embedder`` for distances, a ``TextEmbedder`` for the CLAP score, and
:attr:`Judge.tagger` gives the logits that a KL needs. ``recipes/judge.py`` trains it; the card beside its weights says
how well it hears.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..codec.audio import resample
from .judge_ear import RATE, Ear, Heard, hear
from .judge_text import Reader

#: Clips heard at once, to bound memory.
_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Labels and sizes."""

    genres: tuple[str, ...]
    instruments: tuple[str, ...]
    families: tuple[str, ...]
    """Family of each instrument, one for each of ``instruments``."""
    keys: tuple[str, ...]
    """24 names: twelve major keys from C on, then twelve minor ones."""
    tempi: tuple[float, ...]
    """Centres of the tempo classes, BPM, evenly spaced in log tempo."""
    thresholds: tuple[float, ...] = ()
    """Probability from which an instrument counts as present, one each; 0.5 when empty."""
    family_thresholds: tuple[float, ...] = ()
    """The same for the families, in the order of :attr:`family_names`."""
    width: int = 32
    timbre: int = 512
    rhythm: int = 128
    tonal: int = 48
    dim: int = 256
    reader: int = 192
    reader_layers: int = 2

    def __post_init__(self) -> None:
        if not self.genres or not self.instruments or len(self.families) != len(self.instruments):
            raise ValueError("a judge needs genres, instruments and one family for each instrument")
        if len(self.keys) != 24 or len(self.tempi) < 2:
            raise ValueError(f"a judge needs 24 keys and two tempi or more, got {len(self.keys)} and {len(self.tempi)}")
        for given, names, what in (
            (self.thresholds, self.instruments, "instruments"),
            (self.family_thresholds, self.family_names, "families"),
        ):
            if given and len(given) != len(names):
                raise ValueError(f"{len(given)} thresholds for {len(names)} {what}: give one each")

    @property
    def family_names(self) -> tuple[str, ...]:
        """Distinct families in order of appearance."""
        return tuple(dict.fromkeys(self.families))


@dataclass(frozen=True, kw_only=True)
class Tags:
    """What was heard in one clip."""

    genre: str
    genres: Mapping[str, float]
    """Probability of each genre, sum 1."""
    instruments: Mapping[str, float]
    """Probability of each instrument being there."""
    families: Mapping[str, float]
    """Probability of each family being there."""
    present: frozenset[str]
    """Families above their thresholds."""
    playing: frozenset[str]
    """Instruments above their thresholds."""
    lead: str
    leads: Mapping[str, float]
    """Probability of each instrument being the lead, sum 1."""
    key: str
    tempo: float
    """Centre of the likeliest tempo class, BPM."""


@dataclass(frozen=True)
class Answer:
    """Logits and vectors of B clips."""

    vector: Tensor
    """Unit vectors [B, D] of the joint space."""
    genre: Tensor
    instrument: Tensor
    family: Tensor
    lead: Tensor
    key: Tensor
    tempo: Tensor


class Judge(nn.Module):
    """The network; see :func:`load`. ``rate`` 32000 Hz, mono."""

    rate = RATE
    channels = 1

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        self.ear = Ear(config.width, config.timbre, config.rhythm, config.tonal)
        every = config.timbre + config.rhythm + 12 * config.tonal
        self.drop = nn.Dropout(0.2)
        self.genre = nn.Linear(config.timbre + config.rhythm, len(config.genres))
        self.instrument = nn.Linear(config.timbre, len(config.instruments))
        self.family = nn.Linear(config.timbre, len(config.family_names))
        self.lead = nn.Linear(config.timbre, len(config.instruments))
        self.tempo = nn.Linear(config.rhythm, len(config.tempi))
        # what the heads say is most of what a caption says
        told = len(config.genres) + 2 * len(config.instruments) + 24 + len(config.tempi)
        self.join = nn.Sequential(
            nn.Linear(every + told, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, config.dim)
        )
        self.reader = Reader(config.reader, config.reader_layers, 4, config.dim)
        self.scale = nn.Parameter(torch.tensor(2.5))

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return self.config.dim

    @property
    def id(self) -> str:
        """``descant-judge-2+`` and twelve digits of the weights' SHA-256."""
        total = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            total.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
        return f"descant-judge-2+{total.hexdigest()[:12]}"

    def forward(self, heard: Heard) -> Answer:
        """Powers of B clips (mel [B, 128, F], semitones [B, 72, G]) -> logits and unit vectors [B, D]."""
        timbre, rhythm, harmony, key = self.ear(heard)
        full, timbre = timbre, self.drop(timbre)
        genre = self.genre(torch.cat([timbre, self.drop(rhythm)], dim=1))
        instrument, lead, tempo = self.instrument(timbre), self.lead(timbre), self.tempo(rhythm)
        told = torch.cat([genre.softmax(1), instrument.sigmoid(), lead.softmax(1), key.softmax(1), tempo.softmax(1)], 1)
        vector = self.join(torch.cat([full, rhythm, harmony, told], dim=1))
        return Answer(
            functional.normalize(vector.float(), dim=1), genre, instrument, self.family(timbre), lead, key, tempo
        )

    def read(self, captions: Sequence[str]) -> Tensor:
        """N captions -> unit vectors [N, D]."""
        return functional.normalize(self.reader(list(captions)).float(), dim=1)

    @torch.no_grad()
    def embed(self, windows: Tensor) -> Tensor:
        """Windows [B, 1, T] at 32 kHz -> unit vectors [B, D] of the joint space."""
        return torch.cat([answer.vector for answer in self._answers(windows)])

    @torch.no_grad()
    def embed_text(self, captions: Sequence[str]) -> Tensor:
        """N captions, verbatim -> unit vectors [N, D] of the joint space."""
        return self.read(captions)

    @property
    def tagger(self) -> Tagger:
        """The same ear as an embedder of tag logits, for KL."""
        return Tagger(self)

    @torch.no_grad()
    def tag(self, wav: Tensor, rate: int) -> Tags:
        """Listen to [T] or [C, T] at ``rate`` Hz, of any length from 1 s on."""
        config = self.config
        mono = wav.float().reshape(-1, wav.shape[-1]).mean(dim=0)
        if mono.numel() < rate:
            raise ValueError(f"a clip of {mono.numel() / rate:.2f} s is too short to tag: need at least 1 s")
        answer = next(self._answers(resample(mono, rate, RATE)[None, None]))

        def table(names: Sequence[str], values: Tensor) -> dict[str, float]:
            return dict(zip(names, values[0].tolist(), strict=True))

        genres, leads = table(config.genres, answer.genre.softmax(1)), table(config.instruments, answer.lead.softmax(1))
        families = table(config.family_names, answer.family.sigmoid())
        instruments = table(config.instruments, answer.instrument.sigmoid())
        return Tags(
            genre=max(genres, key=genres.__getitem__),
            genres=genres,
            instruments=instruments,
            families=families,
            present=_above(families, config.family_thresholds),
            playing=_above(instruments, config.thresholds),
            lead=max(leads, key=leads.__getitem__),
            leads=leads,
            key=config.keys[int(answer.key[0].argmax())],
            tempo=config.tempi[int(answer.tempo[0].argmax())],
        )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``model.safetensors`` (half precision) and ``config.json``; each appears whole or not at all."""
        from safetensors.torch import save_file

        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        table = {k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}
        part = path / "model.safetensors.part"
        save_file({k: v.contiguous() for k, v in table.items()}, part)
        os.replace(part, path / "model.safetensors")
        part = path / "config.json.part"
        part.write_text(json.dumps(asdict(self.config), indent=1) + "\n", encoding="utf-8")
        os.replace(part, path / "config.json")

    def _answers(self, windows: Tensor) -> Any:
        for rows in torch.split(windows, _ROWS):
            yield self(hear(rows[:, 0]))


class Tagger:
    """Genre, instrument and family logits of a :class:`Judge`; ``tags`` names them."""

    rate = RATE
    channels = 1

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        config = judge.config
        self.tags: tuple[str, ...] = (*config.genres, *config.instruments)

    @property
    def id(self) -> str:
        """The judge's id with ``/tags``."""
        return f"{self.judge.id}/tags"

    @property
    def dim(self) -> int:
        """Number of tags."""
        return len(self.tags)

    @torch.no_grad()
    def embed(self, windows: Tensor) -> Tensor:
        """Windows [B, 1, T] at 32 kHz -> logits [B, tags]."""
        return torch.cat([torch.cat([answer.genre, answer.instrument], 1) for answer in self.judge._answers(windows)])


def packaged() -> Path:
    """Folder of the weights that come with the package."""
    return Path(__file__).resolve().parent.parent / "gen" / "weights" / "judge"


def load(folder: str | os.PathLike[str] | None = None) -> Judge:
    """The judge in a folder written by :meth:`Judge.save`; the one in the package by default.

    Raises ValueError when files are missing, damaged or do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = packaged() if folder is None else Path(folder)
    missing = [name for name in ("config.json", "model.safetensors") if not (path / name).is_file()]
    if missing:
        raise ValueError(f"no judge in {path}: {', '.join(missing)} missing; 'descant train judge' makes one")
    try:
        row: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
        table = load_file(path / "model.safetensors")
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} holds no judge ({error}): fetch or train it again") from None
    unknown = sorted(set(row) - {item.name for item in fields(JudgeConfig)})
    if unknown:
        raise ValueError(f"{path / 'config.json'}: unknown fields {unknown}")
    sizes: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    model = Judge(JudgeConfig(**sizes))
    wanted = model.state_dict()
    if set(table) != set(wanted) or any(table[name].shape != wanted[name].shape for name in wanted):
        raise ValueError(f"{path / 'model.safetensors'} does not fit its config.json: weights and labels disagree")
    if not all(bool(torch.isfinite(value).all()) for value in table.values()):
        raise ValueError(f"{path / 'model.safetensors'} holds NaN or infinite weights: fetch or train it again")
    model.load_state_dict({name: value.to(wanted[name].dtype) for name, value in table.items()})
    return model.eval()


def _above(chances: Mapping[str, float], limits: Sequence[float]) -> frozenset[str]:
    bars = zip(chances.items(), limits or (0.5,) * len(chances), strict=True)
    return frozenset(name for (name, value), limit in bars if value >= limit)
