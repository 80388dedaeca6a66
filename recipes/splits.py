"""What is held out from training, decided by hashes of names so that it never depends on order, count or seed.

Three things are kept apart: styles (in genres that have several), tunes, and combinations of genre, lead instrument and
key. Benchmarks ask :func:`held_out` the same question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS: tuple[str, ...] = ("train", "dev", "test")
#: Share of the combinations, tunes and styles that only the test split may use.
TEST_SHARE = 0.1
#: Share of the tunes that only the dev split may use.
DEV_SHARE = 0.05
#: A genre with fewer styles than this shares them among the splits, so that every split has every genre.
FEWEST_STYLES = 4


def held_out(genre: str, instrument: str, key: str) -> bool:
    """True for the tenth of (genre, lead instrument, key) combinations that occur in the test split alone."""
    return unit("combination", genre, instrument, key) < TEST_SHARE


def tune_split(tune: str) -> str:
    """The split a tune belongs to, by its id."""
    place = unit("tune", tune)
    return "test" if place < TEST_SHARE else "dev" if place < TEST_SHARE + DEV_SHARE else "train"


def styles_of(genre: str, names: Sequence[str], split: str) -> tuple[str, ...]:
    """Those of a genre's style names that a split may use.

    With :data:`FEWEST_STYLES` or more, a tenth (at least one) belongs to test alone; train and dev share the rest.
    """
    check(split)
    ordered = sorted(dict.fromkeys(names), key=lambda name: unit("style", genre, name))
    if len(ordered) < FEWEST_STYLES:
        return tuple(ordered)
    kept = max(1, round(len(ordered) * TEST_SHARE))
    return tuple(ordered[:kept] if split == "test" else ordered[kept:])


def seed_of(split: str, index: int, seed: int) -> int:
    """The seed of a split's piece number ``index``: 48 bits of a hash, so no two splits share any."""
    return int.from_bytes(_hash("piece", check(split), str(index), str(seed))[:6], "big")


def unit(*parts: str) -> float:
    """A hash of the parts as a number in [0, 1)."""
    return int.from_bytes(_hash(*parts)[:6], "big") / 2**48


def check(split: str) -> str:
    """Return ``split``. Raises ValueError if it is not one of :data:`SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    return split


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()
