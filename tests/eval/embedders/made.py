"""Weights and sounds that are the same everywhere: drawn by numpy's frozen legacy generator, seeded by their names."""

import zlib

import numpy as np
import torch


def drawn(name, shape, scale=1.0):
    """Standard normal numbers that depend on ``name`` and ``shape`` only."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    return torch.from_numpy(np.asarray(scale * values)).float()


def weights(shapes, gain=1.0):
    """Values for {name: shape} at which signals neither vanish nor explode; variances are positive."""
    out = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            out[name] = torch.zeros(shape, dtype=torch.int64)
        elif name.endswith("running_var"):
            out[name] = 1 + 0.5 * drawn(name, shape).tanh()
        elif len(shape) > 1:
            fan = int(np.prod(shape[1:]))
            out[name] = drawn(name, shape, gain * fan**-0.5)
        elif name.endswith("weight"):
            out[name] = 1 + drawn(name, shape, 0.2)
        else:
            out[name] = drawn(name, shape, 0.2)
    return out


def shapes(module):
    """{name: shape} of a module's tensors."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def noise(name, seconds, rate, rows=1):
    """Noise of changing level and colour, [rows, 1, T]."""
    samples = round(seconds * rate)
    wav = drawn(name, (rows, 1, samples), 0.2)
    swell = torch.linspace(0.2, 1.0, samples)
    return wav * swell + 0.3 * torch.sin(torch.arange(samples) * 2 * torch.pi * 440 / rate)
