"""Any number of channels through methods that know one or two."""

from __future__ import annotations

import torch
from torch import Tensor

#: Which channels belong together, in the order of WAV and FLAC: left and right, centre, bass, pairs of surrounds.
_GROUPS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((0,),),
    2: ((0, 1),),
    3: ((0, 1), (2,)),
    5: ((0, 1), (2,), (3, 4)),
    6: ((0, 1), (2,), (3,), (4, 5)),
    8: ((0, 1), (2,), (3,), (4, 5), (6, 7)),
}


class Channels:
    """Turns ``count`` channels into items of ``wanted`` channels, and their stems back."""

    def __init__(self, count: int, wanted: int | None) -> None:
        if wanted not in (None, 1, 2):
            raise ValueError(f"a method works on 1 or 2 channels, or on any, not on {wanted}")
        self.count, self.wanted = count, wanted
        if wanted is None:
            self.groups: tuple[tuple[int, ...], ...] = (tuple(range(count)),)
        elif wanted == 1:
            self.groups = tuple((number,) for number in range(count))
        else:
            pairs = tuple(tuple(range(n, min(n + 2, count))) for n in range(0, count, 2))
            self.groups = _GROUPS.get(count, pairs)

    def split(self, wav: Tensor) -> Tensor:
        """[P, C, T] -> [P * G, C', T]: single channels are doubled for methods that want two."""
        rows = []
        for group in self.groups:
            part = wav[:, list(group)]
            rows.append(part.expand(-1, 2, -1) if self.wanted == 2 and len(group) == 1 else part)
        return torch.stack(rows, 1).flatten(0, 1)

    def join(self, stems: Tensor, pieces: int) -> Tensor:
        """[P * G, N, C', T] -> [P, N, C, T], the inverse of :meth:`split`: doubled channels are averaged."""
        rows = stems.reshape(pieces, len(self.groups), *stems.shape[1:])
        out = rows.new_zeros((pieces, stems.shape[1], self.count, stems.shape[-1]))
        for place, group in enumerate(self.groups):
            part = rows[:, place]
            if part.shape[2] > len(group):
                part = part.mean(2, keepdim=True)
            out[:, :, list(group)] = part
        return out
