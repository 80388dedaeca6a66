"""Models without values: nothing is drawn, and a compiler nobody asked for is not loaded."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from descant.lm.model import LMConfig, TokenLM
from descant.lm.shapes import shapes_only


def test_shapes_are_those_of_the_model() -> None:
    config = LMConfig(width=32, layers=2, heads=2, targets=3)
    made = {name: value.shape for name, value in TokenLM(config).state_dict().items()}
    with shapes_only():
        found = TokenLM(config).state_dict()
    assert {name: value.shape for name, value in found.items()} == made
    assert {value.device.type for value in found.values()} == {"meta"}
    drawn = nn.init.normal_(torch.zeros(100))
    assert drawn.device.type == "cpu" and float(drawn.std()) > 0.5


def test_a_model_is_loaded_and_played_without_torchs_compiler() -> None:
    # its import takes more than a second, before anything sounds
    play = (
        "import sys; from descant.gen.load import load; next(load(threads=1).stream('slow jazz', seconds=1, seed=1)); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", play], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
