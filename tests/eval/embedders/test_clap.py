"""CLAP against transformers' own model, feature extractor and tokeniser; LAION's key layout is written out here."""

import json

import numpy as np
import pytest
import torch
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizerFast

from descant.codec.audio import Audio
from descant.eval.clap import clap_score
from descant.eval.embed import embed_audio
from descant.eval.embedders import clap, load
from descant.eval.recipe import Recipe
from descant.eval.vectors import Vectors

from .made import noise, shapes, weights

BOOK = "630k-audioset-best"
CAPTIONS = ["a slow tune", "Slow: a FAST tune", "a " * 90]


def model(fused, eps=1e-5):
    """A small ClapModel with two kinds of blocks: plain and shifted windows."""
    audio = {"patch_embeds_hidden_size": 8, "hidden_size": 16, "depths": [2, 1], "num_attention_heads": [2, 4],
             "num_hidden_layers": 2, "enable_fusion": fused, "fusion_type": "aff_2d" if fused else None}  # fmt: skip
    text = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1,
            "intermediate_size": 96, "max_position_embeddings": 90, "layer_norm_eps": eps}  # fmt: skip
    net = ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=24)).eval()
    indices = ("relative_position_index", "position_ids", "token_type_ids")
    state = weights({name: shape for name, shape in shapes(net).items() if not name.endswith(indices)}, 1.5)
    state["audio_model.audio_encoder.batch_norm.running_mean"] -= 30.0
    state["audio_model.audio_encoder.batch_norm.running_var"] *= 300.0
    net.load_state_dict(state, strict=False)
    return net


#: LAION's names within the audio branch
AUDIO = [
    ("batch_norm.", "bn0."), (".attention.self.relative", ".attn.relative"), (".layernorm_before.", ".norm1."),
    (".attention.output.dense.", ".attn.proj."), (".layernorm_after.", ".norm2."), (".output.dense.", ".mlp.fc2."),
    (".intermediate.dense.", ".mlp.fc1."), (".attention.self.query.", ".attn.qkv."),
]  # fmt: skip


def laions(state):
    """A ClapModel's tensors as LAION's training wrote them, with the parts that ClapModel leaves out."""
    out = {}
    for name, value in state.items():
        branch, _, rest = name.partition(".")
        if branch == "audio_model":
            rest = rest.removeprefix("audio_encoder.")
            if ".self.key." in rest or ".self.value." in rest:
                continue
            if ".self.query." in rest:
                value = torch.cat([state[name.replace("query", part)] for part in ("query", "key", "value")])
            for theirs, ours in AUDIO:
                rest = rest.replace(theirs, ours)
            out[f"audio_branch.{rest}"] = value
        elif branch == "text_model":
            if rest != "embeddings.token_type_ids":
                out[f"text_branch.{rest}"] = value
        else:
            out[name.replace(".linear1.", ".0.").replace(".linear2.", ".2.")] = value
    out["audio_branch.layers.0.blocks.1.attn_mask"] = torch.zeros(64, 64, 64)
    out["audio_branch.tscam_conv.weight"] = torch.zeros(527, 16, 2, 3)
    out["audio_branch.logmel_extractor.melW"] = torch.zeros(513, 64)
    out |= {
        f"{side}_transform.sequential.{n}.weight": torch.zeros(24, 24) for side in ("audio", "text") for n in (0, 3)
    }
    return out


def tokeniser(folder):
    """A small RoBERTa tokeniser: bytes, and merges for a few letters."""
    from tokenizers.pre_tokenizers import ByteLevel

    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "tu", "ne", "tune"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt u\nn e\ntu ne\n")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "fused"])
def pair(request, tmp_path_factory):
    """(reference, judge): the judge read from LAION's layout, as its checkpoints nest it."""
    folder = tmp_path_factory.mktemp("clap")
    net = model(request.param)
    state = {f"module.{name}": value for name, value in laions(net.state_dict()).items()}
    torch.save({"epoch": np.float64(15.0), "name": "run", "state_dict": state}, folder / f"{BOOK}.pt")
    tokeniser(folder)
    return net, load(f"laion-clap-{BOOK}", folder)


@torch.no_grad()
def truth(net, wavs, low=50):
    """By transformers alone: [N, D]. No clip counts as longer than 10 s, which its extractor would draw by lot."""
    fused = net.config.audio_config.enable_fusion
    extractor = ClapFeatureExtractor(frequency_min=low, frequency_max=14_000)
    table = extractor(
        [wav.numpy() for wav in wavs], truncation="fusion" if fused else "rand_trunc", padding="repeatpad",
        sampling_rate=48_000, return_tensors="pt",
    )  # fmt: skip
    longer = torch.zeros(len(wavs), 1, dtype=torch.bool)
    found = net.get_audio_features(input_features=table["input_features"].float(), is_longer=longer)
    return found if isinstance(found, torch.Tensor) else found.pooler_output


def test_audio_is_transformers(pair):
    net, judge = pair
    wavs = [noise("full", 10.0, 48_000)[0, 0], noise("half", 4.1, 48_000)[0, 0], noise("tick", 0.02, 48_000)[0, 0]]
    expected = truth(net, wavs)
    assert float((expected[0] - expected[1]).abs().max()) > 1e-3, "the clips must differ for this to mean something"
    found = torch.cat([judge.embed(wav[None, None]) for wav in wavs])
    assert (judge.rate, judge.dim, judge.window) == (48_000, 24, 10.0)
    assert float((found - expected).abs().max()) <= 1e-5
    assert float((found.norm(dim=1) - 1).abs().max()) <= 1e-6


def test_text_is_transformers_verbatim_and_padded_to_77(pair, tmp_path):
    net, judge = pair
    tokeniser(tmp_path)
    table = RobertaTokenizerFast.from_pretrained(tmp_path)(
        CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    assert table["input_ids"].shape == (3, 77)
    with torch.no_grad():
        expected = net.get_text_features(input_ids=table["input_ids"], attention_mask=table["attention_mask"])
    expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    found = judge.embed_text(CAPTIONS)
    assert float((found - expected).abs().max()) <= 1e-5
    assert float((found[0] - found[1]).abs().max()) > 1e-3
    alone = torch.cat([judge.embed_text([caption]) for caption in CAPTIONS])
    assert float((found - alone).abs().max()) <= 1e-5
    assert judge.embed_text([]).shape == (0, 24)
    assert judge.network.config.text_config.layer_norm_eps == 1e-5, "RoBERTa's, not ClapTextConfig's 1e-12"


def test_alone_and_in_a_crowd_twice_and_silent(pair):
    judge = pair[1]
    crowd = noise("crowd", 1.0, 48_000, rows=judge.rows + 1)
    rows = judge.embed(crowd)
    for place in (0, judge.rows - 1, judge.rows):
        assert float((judge.embed(crowd[place : place + 1]) - rows[place]).abs().max()) <= 1e-5
    assert torch.equal(judge.embed(crowd), rows)
    assert bool(torch.isfinite(judge.embed(torch.zeros(1, 1, 48_000))).all())


def test_nothing_is_cut_at_random(pair):
    with pytest.raises(ValueError, match=r"a window of 30 s: laion-clap-.* set the recipe's window to 10"):
        pair[1].embed(torch.zeros(1, 1, 30 * 48_000))


def test_a_folder_in_transformers_format_is_the_same_judge(pair, tmp_path):
    net, judge = pair
    net.save_pretrained(tmp_path)
    found = load("clap", tmp_path)
    wav = noise("folder", 2.0, 48_000)
    assert found.id.partition("+")[2] == judge.id.partition("+")[2]
    assert float((found.embed(wav) - judge.embed(wav)).abs().max()) <= 1e-6
    with pytest.raises(FileNotFoundError, match="holds no tokeniser: put vocab"):
        found.embed_text(["x"])
    # its own bank where its feature extractor has other edges
    ClapFeatureExtractor(frequency_min=0, frequency_max=14_000).save_pretrained(tmp_path)
    wide = load("clap", tmp_path)
    assert float((wide.embed(wav) - truth(net, [wav[0, 0]], low=0)).abs().max()) <= 1e-5


def test_a_score_end_to_end(pair):
    judge = pair[1]
    recipe = Recipe(name="t", embedder=judge.id, rate=48_000, window=10.0, hop=10.0, tail="repeat")
    clips = {name: Audio(noise(name, 1.0, 48_000)[0], 48_000) for name in ("a", "b", "c")}
    heard = embed_audio(clips, judge, recipe).vectors
    said = Vectors(judge.embed_text(CAPTIONS), torch.arange(3), ("a", "b", "c"))
    scores = [clap_score(heard, said, CAPTIONS, recipe).value for _ in range(2)]
    assert scores[0] == scores[1] and -1 <= scores[0] <= 1


def test_what_is_no_clap_is_refused(tmp_path):
    state = laions(model(False).state_dict())
    name = f"laion-clap-{BOOK}"
    for change, message in (
        ({"audio_branch.norm.weight": None}, "lacks audio_model.audio_encoder.norm.weight"),
        ({"visual.conv1.weight": torch.zeros(1)}, "visual.conv1.weight belongs to no LAION-CLAP model"),
        ({"audio_branch.bn0.weight": None}, "no LAION-CLAP model with HTSAT and RoBERTa"),
        ({"text_projection.2.bias": torch.zeros(25)}, "has another shape of text_projection.linear2.bias"),
    ):
        torch.save({key: value for key, value in (state | change).items() if value is not None}, tmp_path / "x.pt")
        with pytest.raises(ValueError, match=message):
            load(name, tmp_path / "x.pt")


def test_repeated_whole_then_silent():
    wav = torch.arange(1.0, 4.0)[None] * torch.ones(1, 1)
    out = clap.repeated(torch.nn.functional.interpolate(wav[None], size=180_000)[0], "x")
    assert out.shape == (1, 480_000)
    assert torch.equal(out[:, :180_000], out[:, 180_000:360_000])
    assert not bool(out[:, 360_000:].any())
