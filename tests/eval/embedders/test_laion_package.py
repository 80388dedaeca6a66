"""The adapter of the laion-clap package: which calls it makes. A stand-in has the package's documented methods."""

import sys
import types

import pytest
import torch
from torch import nn

from descant.eval.embedders import load

from .test_clap import laions, model

NAME = "laion-clap-630k-audioset-best-package"


class Module(nn.Module):
    """laion_clap.CLAP_Module's documented face; its network only keeps what it is given."""

    def __init__(self, enable_fusion=False, device=None, amodel="HTSAT-tiny", tmodel="roberta"):
        super().__init__()
        self.made = (enable_fusion, device, amodel, tmodel)
        self.model = nn.Module()
        self.model.logit_scale_a = nn.Parameter(torch.zeros(()))
        self.model.load_state_dict = self.fill
        self.calls = []

    def fill(self, state):
        self.given = state

    def get_audio_embedding_from_data(self, x, use_tensor=False):
        self.calls.append((tuple(x.shape), use_tensor))
        return torch.nn.functional.normalize(x[:, :24], dim=-1)

    def get_text_embedding(self, x, tokenizer=None, use_tensor=False):
        self.calls.append((list(x), use_tensor))
        return torch.ones(len(x), 24)


@pytest.fixture
def file(tmp_path):
    state = laions(model(False).state_dict())
    # the package knows HTSAT by its first stage's 96, 128 or 256 channels
    state["audio_branch.patch_embed.proj.weight"] = torch.zeros(96, 1, 4, 4)
    state["text_branch.embeddings.position_ids"] = torch.zeros(1, 90)
    torch.save({"state_dict": state}, tmp_path / "630k-audioset-best.pt")
    return tmp_path


def test_without_the_package_the_extra_is_named(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "laion_clap", None)
    with pytest.raises(
        ValueError, match=r"pip install 'descant\[laion-clap\]'.* or load laion-clap-630k-audioset-best"
    ):
        load(NAME, file)


def test_the_calls_it_makes(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "laion_clap", types.SimpleNamespace(CLAP_Module=Module))
    judge = load(NAME, file)
    module = judge.module
    assert module.made == (False, "cpu", "HTSAT-tiny", "roberta")
    assert "audio_branch.bn0.weight" in module.given and not any("position_ids" in name for name in module.given)
    assert (judge.rate, judge.channels, judge.dim) == (48_000, 1, 24)
    assert judge.id.startswith(f"{NAME}-1+")
    rows = judge.embed(torch.rand(11, 1, 480_000))
    # rows of a batch one call, tensors in and out: without them the package would round to 16 bits
    assert module.calls == [((8, 480_000), True), ((3, 480_000), True)] and rows.shape == (11, 24)
    module.calls.clear()
    assert judge.embed_text(["A b", "c"]).shape == (2, 24)
    assert module.calls == [(["A b", "c"], True)]
    with pytest.raises(ValueError, match="laion-clap would cut 10 s out of it at random"):
        judge.embed(torch.zeros(1, 1, 480_001))
