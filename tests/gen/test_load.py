import json
import shutil

import pytest
import torch

from descant.codec.audio import Audio, AudioError, read, write
from descant.codec.model import Codec, nano
from descant.gen import load as loading
from descant.gen.load import Studio, find, load
from descant.lm.model import LMConfig, TokenLM

from .made import able


@pytest.fixture
def copy(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


def test_a_folder_with_both(model_folder):
    studio = load(model_folder)
    assert studio.codec.books == 8 and studio.lm.config.books == 4
    assert not any(value.requires_grad for value in studio.codec.parameters())


def test_other_precisions_on_request(model_folder):
    small = load(model_folder, precision="int8", threads=1)
    assert small.engine.precision == "int8" and load(model_folder).engine.__class__ is TokenLM
    one, two = (small.generate("a slow blues", duration=0.4, seed=3) for _ in range(2))
    assert torch.equal(one.codes, two.codes)
    with pytest.raises(ValueError, match="precision 'int4'"):
        load(model_folder, precision="int4")


def test_a_language_model_alone_gets_the_embedded_codec(model_folder, tmp_path, monkeypatch):
    shutil.copytree(model_folder / "codec", tmp_path / "codec_tiny")
    shutil.copytree(model_folder / "lm", tmp_path / "lm_embedded")
    monkeypatch.setattr(loading, "SHELF", tmp_path)
    assert find(str(model_folder / "lm")) == (tmp_path / "codec_tiny", model_folder / "lm")
    assert load().name == "embedded"


def test_missing_embedded_weights_say_what_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHELF", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"codec_tiny.*model.safetensors.*--model"):
        load()


@pytest.mark.parametrize("part", ["codec", "lm"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_weights_are_refused_in_words(copy, part, damage):
    path = copy / part / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "garbage": b"\xff" * 4096, "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load(copy)


@pytest.mark.parametrize("part", ["codec", "lm"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', "\x00\x01"])
def test_damaged_headers_are_refused_in_words(copy, part, text):
    (copy / part / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        load(copy)


@pytest.mark.parametrize("part", ["codec", "lm"])
def test_a_missing_file_is_named(copy, part):
    (copy / part / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{part} is incomplete"):
        load(copy)


def test_a_header_that_does_not_fit_the_weights(copy):
    header = json.loads((copy / "lm" / "config.json").read_text())
    header["config"]["width"] = 64
    (copy / "lm" / "config.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=r"width|weight|config"):
        load(copy)


def test_unknown_names_and_codecs_alone(model_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="embedded"):
        load("no-such-model")
    with pytest.raises(FileNotFoundError, match=r"must hold.*none"):
        load(tmp_path)
    with pytest.raises(ValueError, match="is a codec"):
        load(model_folder / "codec")


def test_models_that_do_not_belong_together_are_refused():
    config = LMConfig(width=32, layers=1, heads=2, cardinality=32, window=32, text_vocab=64, text_width=32)
    with pytest.raises(ValueError, match="do not belong together"):
        Studio(Codec(nano()), TokenLM(config))


def test_threads_are_restored(model_folder):
    before = torch.get_num_threads()
    studio = load(model_folder, threads=before + 1)
    assert torch.get_num_threads() == before
    with studio.at_work():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="stop"), studio.at_work():
        raise RuntimeError("stop")
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads 0"):
        load(model_folder, threads=0)


def test_sound_may_be_a_file_wherever_it_is_given(tmp_path):
    studio = able(attentive=True)
    wav = 0.1 * torch.sin(torch.arange(48000) * 0.06)[None]
    write(tmp_path / "in.wav", Audio(wav, 24000))
    given = read(tmp_path / "in.wav")
    path, wishes = tmp_path / "in.wav", {"seed": 1, "genre": "jazz"}
    for verb in (
        lambda sound: studio.generate(melody=sound, duration=0.5, **wishes).codes,
        lambda sound: studio.generate(stems={"bass": sound}, duration=0.5, **wishes).codes,
        lambda sound: studio.accompany({"bass": sound}, ["keys"], **wishes).codes["keys"],
        lambda sound: studio.accompany(sound, ["keys"], **wishes).codes["keys"],
        lambda sound: studio.extend(sound, 0.5, **wishes).codes,
        lambda sound: studio.inpaint(sound, 0.8, 1.0, **wishes).codes,
        lambda sound: studio.loop(sound, 0.3, **wishes).codes,
    ):
        assert torch.equal(verb(path), verb(given)) and torch.equal(verb(str(path)), verb(given))
    with pytest.raises(AudioError):
        studio.generate(melody=tmp_path / "none.wav")
