"""Makes convtasnet.npz: what torchaudio's Conv-TasNet makes of noise, with weights drawn from a seed.

``python convtasnet_made.py torchaudio/models/conv_tasnet.py``: the file of torchaudio 2.9, which needs torch alone.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch

SIZES = {"sigmoid": (2, 16, 12, 3, 6, 10, 3, 2), "relu": (3, 10, 8, 3, 4, 7, 2, 2)}


def drawn(model: torch.nn.Module, seed: int) -> None:
    """Weights in the order of the state dict, so that networks of other names have the same."""
    dice = np.random.RandomState(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.from_numpy(0.3 * dice.standard_normal(tuple(value.shape)) + 0.1))


def sound(seed: int, length: int) -> torch.Tensor:
    """Noise [2, 1, T]."""
    return torch.from_numpy(np.random.RandomState(100 + seed).standard_normal((2, 1, length))).float()


def main() -> None:
    """Write the outputs beside this file."""
    spec = importlib.util.spec_from_file_location("oracle", sys.argv[1])
    oracle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(oracle)
    made = {}
    for seed, (mask, sizes) in enumerate(SIZES.items()):
        model = oracle.ConvTasNet(*sizes, mask).eval()
        drawn(model, seed)
        with torch.no_grad():
            made[mask] = model(sound(seed, 203)).numpy()
    np.savez_compressed(Path(__file__).with_name("convtasnet.npz"), **made)


if __name__ == "__main__":
    main()
