"""Multi-period discriminator (Kong et al., HiFi-GAN, 2020, section 2.3).

Samples are folded into columns of a period's length, and the convolutions run along each column: what is periodic at
2, 3, 5, 7 or 11 samples, aliasing and imaging above all, stands out. At full width it is by far the largest network of
a codec's training (41 M parameters); a quarter of the width keeps most of its use at a fourteenth of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

#: Prime, so that no two of them see the same samples side by side.
PERIODS: tuple[int, ...] = (2, 3, 5, 7, 11)


class PeriodDiscriminator(nn.Module):
    """One period, in samples; width: share of the published numbers of filters."""

    def __init__(self, period: int, width: float = 1.0, channels: int = 1) -> None:
        super().__init__()
        if period < 1 or not 0 < width <= 4:
            raise ValueError(f"period must be at least 1 and width in 0..4, got {period} and {width}")
        self.period = period
        sizes = [channels, *(max(1, round(size * width)) for size in (32, 128, 512, 1024, 1024))]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(sizes[i], sizes[i + 1], (5, 1), (3 if i < 4 else 1, 1), padding=(2, 0)))
            for i in range(5)
        )
        self.score = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """wav: [B, C, T] -> score map [B, 1, about T / period / 81, period] and the layers' features."""
        missing = -wav.shape[-1] % self.period
        if missing:
            mode = "reflect" if wav.shape[-1] > missing else "constant"
            wav = nn.functional.pad(wav, (0, missing), mode=mode)
        x = wav.reshape(*wav.shape[:2], -1, self.period)
        features = []
        for layer in self.layers:
            x = nn.functional.leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.score(x), features


class MultiPeriod(nn.Module):
    """Several periods side by side; width 1.0 is the published one, 0.25 the small one."""

    def __init__(self, periods: Sequence[int] = PERIODS, width: float = 1.0, channels: int = 1) -> None:
        super().__init__()
        self.periods = nn.ModuleList(PeriodDiscriminator(period, width, channels) for period in periods)

    def forward(self, wav: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """wav: [B, C, T] -> score maps and features, a list each, one entry per period."""
        results = [period(wav) for period in self.periods]
        return [score for score, _ in results], [features for _, features in results]
