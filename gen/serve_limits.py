"""What a server lets in, and how much it keeps: every size that could grow has a bound here."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .request import DURATION_LIMITS


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of a server. Raises ValueError for values that would let nothing through."""

    upload: int = 200_000_000
    """Bytes of a file that is sent."""
    body: int = 65_536
    """Bytes of a request's text."""
    seconds: float = 120.0
    """Of music that is made at once."""
    given: float = 600.0
    """Seconds of music that is given."""
    values: int = 128_000_000
    """Samples times channels of music that is given, however small its file."""
    queue: int = 16
    """Requests that wait, those that are still being sent included."""
    keep: int = 32
    """Finished jobs that are kept."""
    minutes: float = 60.0
    """How long they are kept."""
    disk: int = 4_000_000_000
    """Bytes of all files together."""
    patience: float = 30.0
    """Seconds of silence after which a sender is given up."""
    listeners: int = 64
    """Open streams of progress."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < 1 << 50:
                raise ValueError(f"{field.name} {value:g} must be more than 0")
        if not DURATION_LIMITS[0] <= self.seconds <= DURATION_LIMITS[1]:
            low, high = DURATION_LIMITS
            raise ValueError(f"music of {self.seconds:g} s at once is outside {low:g} to {high:g} s")
        if self.disk < 2 * self.upload:
            raise ValueError(
                f"{self.disk / 1e6:g} MB of disk hold no upload of {self.upload / 1e6:g} MB and what is made of it: "
                "allow twice as much, or smaller uploads"
            )
