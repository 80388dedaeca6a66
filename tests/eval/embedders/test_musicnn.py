"""musicnn against the package's own TensorFlow graph (stored), and how its weights are found.

Needs the weights: ``pip install --no-deps musicnn==0.1.0``, as ``make test`` does.
"""

import ast
import importlib.util
import sys
import zipfile
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from descant.codec.audio import Audio
from descant.eval.embed import embed_audio
from descant.eval.embedders import musicnn
from descant.eval.recipe import Recipe

from .bundles import bundle

GOLDEN = Path(__file__).parents[2] / "golden"
MODELS = tuple(musicnn.MODELS)
PACKAGE = "musicnn"


def made():
    """The module that made the stored outputs, for its signals."""
    spec = importlib.util.spec_from_file_location("musicnn_made", GOLDEN / "musicnn_made.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MADE = made()
CLIPS = torch.from_numpy(np.stack(list(MADE.signals().values())))[:, None]
LOADED = {}


def judge(model="MTT_musicnn"):
    if model not in LOADED:
        LOADED[model] = musicnn.load(model=model)
    return LOADED[model]


def stored(model, kind):
    with np.load(GOLDEN / "musicnn.npz", allow_pickle=False) as table:
        return torch.from_numpy(table[f"{model}/{kind}"])


def installed():
    return Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0])


@pytest.mark.parametrize("model", MODELS)
def test_network_equals_the_original_graph(model):
    # in float64, so that what is left is TensorFlow's own rounding, the same on every machine
    network = musicnn.load(model=model).network.double()
    with torch.no_grad():
        logits, vectors = network(torch.from_numpy(MADE.patch()).double())
    assert (logits.sigmoid() - stored(model, "tags")[3:]).abs().max() <= 1e-6
    assert (vectors - stored(model, "vectors")[3:]).abs().max() <= 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_audio_to_tags_equals_the_package(model):
    # librosa's transform and ours differ in the last bit of float32; now and then a value is rounded to another float16
    near = 2e-5 if "vgg" in model else 4e-6
    found = judge(model).tagger.embed(CLIPS).sigmoid()
    assert (found - stored(model, "tags")[:3]).abs().max() <= near
    assert (judge(model).embed(CLIPS) - stored(model, "vectors")[:3]).abs().max() <= 100 * near
    assert found.argmax(dim=1).tolist() == stored(model, "tags")[:3].argmax(dim=1).tolist()


def test_spectrogram_is_librosas_in_float16():
    for clip in CLIPS[:, 0]:
        mel = librosa.feature.melspectrogram(
            y=clip.numpy(), sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
        ).T[:187]
        wanted = np.log10(10_000 * mel.astype(np.float16) + 1)
        assert wanted.dtype == np.float16 and np.isfinite(wanted).all()
        found = musicnn.patches(clip[None])[0].numpy()
        assert found.shape == (187, 96) and np.array_equal(found, found.astype(np.float16))
        differ = np.abs(found - wanted.astype(np.float32))
        # a mel value rounded the other way is 1 / 1024 off at most: 0.0005 in the logarithm, and its own rounding
        assert (differ > 0).mean() < 1e-3 and (differ <= 5e-4 + 2.0 * np.spacing(wanted).astype(np.float32)).all()


def test_loud_sound_goes_on_where_float16_ends():
    loud = (CLIPS / CLIPS.abs().amax(dim=2, keepdim=True))[:, 0]
    mel = librosa.feature.melspectrogram(
        y=loud.numpy(), sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
    ).transpose(0, 2, 1)[:, :187]
    with np.errstate(over="ignore"):
        assert np.isinf(10_000 * mel.astype(np.float16)).any()  # where the package's own front end gives infinity
    found = musicnn.patches(loud).numpy()
    np.testing.assert_allclose(found, np.log10(1 + 10_000 * mel), atol=4e-3)
    assert torch.isfinite(judge().embed(loud[:, None])).all()


def test_a_window_is_the_same_in_any_company():
    ear = judge()
    clips = torch.cat([CLIPS, CLIPS.flip(2)])
    together = ear.embed(clips)
    alone = torch.cat([ear.embed(clip[None]) for clip in clips])
    assert together.shape == (6, 200) and together.dtype == torch.float32
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_levelled_clips_are_heard_alike():
    ear = judge()
    recipe = Recipe(name="levelled", embedder=ear.id, rate=16_000, window=3.0, hop=3.0, loudness="lufs", target=-23.0)
    clips = {name: Audio(gain * CLIPS[1], 16_000) for name, gain in (("loud", 1.0), ("quiet", 0.25))}
    level, raw = (embed_audio(clips, ear, one).vectors.data for one in (recipe, recipe.bind(ear.id)))
    assert torch.equal(level, raw)
    apart = (ear.embed(CLIPS[1:2]) - ear.embed(0.25 * CLIPS[1:2])).norm() / level[0].norm()
    assert (level[0] - level[1]).norm() / level[0].norm() < 1e-3 < 0.1 < apart


def test_tags_are_the_packages_in_its_order():
    text = (installed() / "configuration.py").read_text(encoding="utf-8")
    lists = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    }
    assert judge("MTT_musicnn").tagger.tags == tuple(lists["MTT_LABELS"])
    assert judge("MSD_vgg").tags == tuple(lists["MSD_LABELS"])


def test_tagger_is_an_embedder_of_its_own():
    ear = judge()
    tagger = ear.tagger
    assert (tagger.rate, tagger.channels, tagger.dim, len(tagger.tags)) == (16_000, 1, 50, 50)
    assert tagger.id != ear.id and tagger.id.startswith("musicnn-mtt-tags-1+") and ear.id.startswith("musicnn-mtt-1+")
    assert torch.equal(tagger.embed(CLIPS), ear.logits(CLIPS))
    assert tagger.embed(CLIPS[:0]).shape == (0, 50)
    assert len({judge(model).id for model in MODELS}) == 4


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least 512 samples"):
        judge().embed(torch.zeros(1, 1, 511))
    with pytest.raises(ValueError, match=r"windows of 3 s, not of 2 s"):
        judge("MTT_vgg").embed(torch.zeros(1, 1, 32_000))
    with pytest.raises(ValueError, match=r"\[B, 1, T\]"):
        judge().embed(torch.zeros(1, 2, 48_000))
    assert torch.isfinite(judge().embed(torch.zeros(1, 1, 512))).all()


def test_wheel_folder_variable_and_package_are_one(tmp_path, monkeypatch):
    model, package = "MTT_vgg", installed()
    wheel = tmp_path / "musicnn-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in (".index", ".data-00000-of-00001"):
            archive.write(package / model / file, f"musicnn/{model}/{file}")
    wanted = judge(model).id
    for path in (wheel, package, package.parent, package / model):
        assert musicnn.load(path, model).id == wanted
    monkeypatch.setenv(musicnn.VARIABLE, str(wheel))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert musicnn.load(model=model).id == wanted
    with pytest.raises(FileNotFoundError, match="has no musicnn/MSD_vgg"):
        musicnn.load(model="MSD_vgg")
    wheel.write_bytes(wheel.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="no wheel, or damaged"):
        musicnn.load(model=model)


def test_damage_inside_the_wheel_is_seen(tmp_path):
    wheel = tmp_path / "bad.whl"
    data = np.frombuffer((installed() / "MTT_vgg" / ".data-00000-of-00001").read_bytes(), np.uint8) ^ 1
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(installed() / "MTT_vgg" / ".index", "musicnn/MTT_vgg/.index")
        archive.writestr("musicnn/MTT_vgg/.data-00000-of-00001", bytes(data))
    with pytest.raises(ValueError, match=r"bad\.whl, MTT_vgg: the checksum of .* does not fit"):
        musicnn.load(wheel, "MTT_vgg")


def test_without_weights_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.delenv(musicnn.VARIABLE, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps musicnn"):
        musicnn.load()
    with pytest.raises(FileNotFoundError, match=r"no such file or folder"):
        musicnn.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"has no MTT_musicnn/\.index"):
        musicnn.load(tmp_path)
    monkeypatch.setenv(musicnn.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"gone \(DESCANT_MUSICNN\)"):
        musicnn.load()
    with pytest.raises(ValueError, match="MTT_musicnn, MSD_musicnn, MTT_vgg, MSD_vgg"):
        musicnn.load(model="MSD_musicnn_big")


def test_weights_of_another_model_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no MTT_vgg"):
        musicnn.load(installed() / "MTT_musicnn", "MTT_vgg")
    folder = tmp_path / "mine"
    folder.mkdir()
    for file in (".index", ".data-00000-of-00001"):
        (folder / file).write_bytes((installed() / "MTT_vgg" / file).read_bytes())
    with pytest.raises(ValueError, match=r"the checkpoint has no .*is it of another model"):
        musicnn.load(folder)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (2, 2, 2), (7, 3, 2, 5), (1, 1, 0, 1)])
def test_weights_of_other_shapes_are_refused(tmp_path, shape):
    network = musicnn.Musicnn()
    index, data = bundle({name: np.zeros(shape, np.float32) for name in musicnn.names(network).values()}, 20)
    (tmp_path / ".index").write_bytes(index)
    (tmp_path / ".data-00000-of-00001").write_bytes(data)
    with pytest.raises(ValueError, match="of other shape"):
        musicnn.load(tmp_path)


def test_nothing_of_the_package_is_imported():
    judge()
    assert not {"tensorflow", PACKAGE} & set(sys.modules)
