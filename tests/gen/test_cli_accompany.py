"""``descant accompany`` and ``descant generate`` with a melody or stems, as commands."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant import codec
from descant.codec.audio import Audio, read, write
from descant.gen import cli, stem_files
from descant.recipes import audio_of, builtin

from .made import able_folder

RATE = 24000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that hears stems, as a folder."""
    return able_folder(tmp_path_factory.mktemp("able"))


@pytest.fixture(scope="module")
def band() -> dict[str, torch.Tensor]:
    """Two seconds of stems in whole numbers of 16 bits."""
    parts = audio_of.render_piece(builtin.compose(3, "train", 4.0), RATE)
    return {role: (wav[:, : 2 * RATE] * 2**15).round() / 2**15 for role, wav in parts.items()}


@pytest.fixture
def run(player: Path, band: dict[str, torch.Tensor], tmp_path: Path, monkeypatch, capsys) -> Run:
    """Run a command where drums.wav, bass.wav and lead.wav are -> (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for role in ("drums", "bass", "lead"):
        soundfile.write(f"{role}.wav", band[role].numpy().T, RATE, "PCM_16")

    def call(*words: object, model: object = player) -> tuple[int, str, str]:
        told = ["--model", str(model), "--threads", "1"] if model else []
        status = cli.main([*map(str, words), *told])
        return (status, *capsys.readouterr())

    return call


STEMS = ("--stem", "drums=drums.wav", "--stem", "bass=bass.wav")


def test_files_add_up_and_what_was_given_comes_back_to_the_bit(run: Run, band: dict[str, torch.Tensor]) -> None:
    status, out, err = run("accompany", *STEMS, "--add", "keys,lead", "--seed", 3, "-o", "band/", "--json")
    assert status == 0, err
    row = json.loads(out)["results"][0]
    assert (row["seed"], row["given"], row["added"]) == (3, ["drums", "bass"], ["keys", "lead"])
    assert (row["file"], row["rate"], row["channels"], row["duration"]) == ("band/mix.wav", RATE, 2, 2.0)
    assert set(row["stems"]) == {"drums", "bass", "new-keys", "new-lead"}
    found = {name: read(path).wav for name, path in row["stems"].items()}
    assert all(wav.shape == (2, 2 * RATE) for wav in found.values())
    assert not row["notes"] or "turned down" not in " ".join(row["notes"])
    for role in ("drums", "bass"):
        assert torch.equal(found[role], band[role])
    # 24 bits a file: half a step each
    assert torch.allclose(sum(found.values()), read("band/mix.wav").wav, atol=3 * 2**-23)
    assert "band/mix.wav: 2 s" in err and "with keys, lead, seed 3" in err


def test_the_same_seed_is_the_same_sound(run: Run) -> None:
    for name in ("one.wav", "two.wav"):
        assert run("accompany", *STEMS, "--add", "keys", "--seed", 5, "-o", name, "--quiet")[0] == 0
    assert Path("one.wav").read_bytes() == Path("two.wav").read_bytes()
    run("accompany", *STEMS, "--add", "keys", "--seed", 6, "-o", "two.wav", "--quiet")
    assert Path("one.wav").read_bytes() != Path("two.wav").read_bytes()


def test_a_mix_is_taken_apart_and_new_parts_come_alone(run: Run, band: dict[str, torch.Tensor]) -> None:
    mix = band["drums"] + band["bass"]
    write("song.flac", Audio(mix * 0.4, RATE))
    words = ("accompany", "song.flac", "--add", "keys", "--seed", 1, "--separator", "hpss")
    assert run(*words, "-o", "all.flac", "--stems-to", "parts")[0] == 0
    names = {path.name for path in Path("parts").iterdir()}
    assert names == {"drums.flac", "other.flac", "residual.flac", "new-keys.flac"}
    whole = sum(read(path).wav for path in Path("parts").iterdir())
    assert torch.allclose(whole, read("all.flac").wav, atol=4 * 2**-23)
    assert run(*words, "-o", "new.flac", "--only-new")[0] == 0
    new = read("new.flac").wav
    assert torch.equal(new, read("parts/new-keys.flac").wav)
    assert torch.allclose(read("all.flac").wav - new, mix * 0.4, atol=1e-5)


def test_a_folder_is_read_by_the_names_of_its_files(run: Run, band: dict[str, torch.Tensor]) -> None:
    Path("stems").mkdir()
    for name, role in (("Kick", "drums"), ("snare", "drums"), ("new-bass", "bass"), ("mix", "lead")):
        soundfile.write(f"stems/{name}.wav", 0.5 * band[role].numpy().T, RATE)
    status, out, err = run("accompany", "stems", "--add", "lead", "--seed", 1, "-o", "x.wav", "--json")
    row = json.loads(out)["results"][0]
    assert status == 0 and set(row["given"]) == {"drums", "bass"}
    assert "Kick.wav is heard as drums" in err and "mix.wav" not in err
    Path("none").mkdir()
    status, _, err = run("accompany", "none", "--add", "lead", "-o", "x.wav")
    assert status == 1 and "none holds no stems" in err


def test_what_is_given_is_never_written_over(run: Run) -> None:
    Path("stems").mkdir()
    for role in ("drums", "bass"):
        Path(f"{role}.wav").replace(f"stems/{role}.wav")
    Path("link").symlink_to("stems")
    Path("lead.wav").replace("voice.wav")
    one = ("--stem", "drums=stems/drums.wav")
    kept = {path: path.read_bytes() for path in (Path("voice.wav"), *Path("stems").iterdir())}
    for words in (
        ("stems", "-o", "stems/"), ("stems", "-o", "link/"), ("stems", "-o", "x.wav", "--stems-to", "stems"),
        ("stems", "-o", "x.wav", "--stems-to", "stems/more"), ("link", "-o", "stems/drums.wav"),
        ("stems", "-o", "stems/all.wav"), (*one, "-o", "stems/"), (*one, "-o", "link/drums.wav"),
        (*one, "-o", "x.wav", "--stems-to", "stems"), ("voice.wav", "-o", "./"), ("voice.wav", "-o", "voice.wav"),
    ):  # fmt: skip
        status, _, err = run("accompany", *words, "--add", "keys", model="no-such-model")
        assert status == 2 and "choose another" in err and err.count("\n") == 1, words
    assert kept == {path: path.read_bytes() for path in (Path("voice.wav"), *Path("stems").iterdir())}
    # beside stems that are not of the names that come out there is room
    Path("stems/drums.wav").replace("stems/loop.wav")
    status, _, err = run("accompany", "--stem", "drums=stems/loop.wav", "--add", "keys", "--seed", 1, "-o", "stems/")
    assert status == 0, err
    assert Path("stems/loop.wav").read_bytes() == kept[Path("stems/drums.wav")]


def test_a_new_part_is_not_counted_twice(run: Run) -> None:
    Path("stems").mkdir()
    for name in ("strings", "new-strings", "new-bass"):
        Path(f"stems/{name}.wav").write_bytes(Path("lead.wav").read_bytes())
    status, out, _ = run("accompany", "stems", "--add", "keys", "--seed", 1, "-o", "out/", "--json")
    row = json.loads(out)["results"][0]
    assert status == 0 and set(row["given"]) == {"strings", "bass"}
    assert "new-strings.wav is left out: strings.wav is there, too" in row["notes"]
    assert torch.equal(read("out/strings.wav").wav, read("lead.wav").wav)


def test_where_the_sum_would_clip_everything_is_turned_down_alike(run: Run) -> None:
    time = np.arange(2 * RATE) / RATE
    for role, pitch in (("bass", 55), ("lead", 440)):
        soundfile.write(f"{role}.wav", 0.9 * np.sin(2 * np.pi * pitch * time), RATE, "PCM_24")
    status, _, err = run(
        "accompany", "--stem", "bass=bass.wav", "--stem", "lead=lead.wav", "--add", "keys", "--seed", 1, "-o", "out/"
    )
    assert status == 0 and "the mix and all stems are turned down by" in err
    whole = sum(read(path).wav for path in Path("out").iterdir() if path.name != "mix.wav")
    mix = read("out/mix.wav").wav
    assert torch.allclose(whole, mix, atol=3 * 2**-23) and 0.99 < float(mix.abs().max()) < 1.0


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (96000, 2), (RATE, 6)])
def test_any_rate_and_any_channels(run: Run, band: dict[str, torch.Tensor], rate: int, channels: int) -> None:
    wav = codec.audio.resample(band["drums"], RATE, rate)
    wav = torch.cat([wav, wav, wav])[:channels]
    soundfile.write("in.wav", 0.5 * wav.numpy().T, rate, "FLOAT")
    status, _, err = run("accompany", "--stem", "drums=in.wav", "--add", "keys", "--seed", 1, "-o", "out/")
    assert status == 0, err
    given, new = soundfile.read("out/drums.wav")[0], read("out/new-keys.wav")
    assert new.rate == rate and new.wav.shape == wav.shape
    assert np.array_equal(given.reshape(-1, channels), soundfile.read("in.wav")[0].reshape(-1, channels))
    assert soundfile.info("out/mix.wav").subtype == "FLOAT"
    # of surround only the front pair plays what is new
    assert new.wav[:2].any() and not new.wav[2:].any()


def test_wishes_that_contradict_the_music_are_told(run: Run) -> None:
    wav = np.zeros(8 * RATE)
    burst = np.random.default_rng(0).normal(size=500) * np.linspace(1, 0, 500)
    for beat in range(12):
        at = round(beat * RATE * 60 / 90)
        wav[at : at + 500] = 0.5 * burst
    soundfile.write("ninety.wav", wav.clip(-1, 1), RATE)
    words = ("--stem", "drums=ninety.wav", "--tempo", 120, "--seed", 1, "-o", "x.wav", "--json")
    for verb in (("accompany", "--add", "bass"), ("generate", "--genre", "rock", "--duration", 1)):
        status, out, err = run(*verb, *words)
        assert status == 0 and "note: the given music has 90 BPM: 120 is not followed" in err
        assert "120 is not followed" in " ".join(json.loads(out)["results"][0]["notes"])


def test_noise_without_beat_and_key_works_with_a_note(run: Run) -> None:
    rng = np.random.default_rng(2)
    length = 6 * RATE
    rise = np.interp(np.arange(length), np.sort(rng.uniform(0, length, 18)), rng.uniform(0.02, 0.1, 18))
    soundfile.write("murmur.wav", rng.normal(size=length) * rise, RATE)
    status, _, err = run("accompany", "--stem", "voice=murmur.wav", "--add", "keys", "--seed", 1, "-o", "x.wav")
    assert status == 0 and "neither a steady beat nor a key is heard" in err


def test_silent_and_short_stems_are_told(run: Run) -> None:
    soundfile.write("nothing.wav", np.zeros(2 * RATE), RATE)
    soundfile.write("short.wav", 0.1 * np.sin(np.arange(RATE) / 9), RATE)
    status, _, err = run(
        "accompany", *STEMS, "--stem", "keys=nothing.wav", "--stem", "lead=short.wav", "--add", "pad", "-o", "x/",
        "--seed", 1,
    )  # fmt: skip
    assert status == 0 and "the keys given are silent" in err and "the lead given end after 1.00 s" in err
    assert not read("x/keys.wav").wav.any() and not read("x/lead.wav").wav[:, RATE:].any()


BAD = [
    (("--add", "bas"), 2, "unknown part 'bas': did you mean bass"),
    (("--add", "piano"), 2, "unknown part 'piano': did you mean keys"),
    (("--add", "xyzzy"), 2, "unknown part 'xyzzy': one of drums, bass"),
    (("--add", ","), 2, "name what to add"),
    (("--add", "keys,keys"), 2, "can be added once"),
    (("--add", "keys", "--stem", "drms=drums.wav"), 2, "unknown stem 'drms': did you mean drums"),
    (("--add", "keys", "--stem", "drums.wav"), 2, "write what plays"),
    (("--add", "keys", "--stem", "drums=bass.wav"), 2, "--stem drums: given twice"),
    (("--add", "keys", "--stem", "lead=nowhere.wav"), 1, "there is no file nowhere.wav"),
    (("--add", "keys", "drums.wav"), 2, "give either a sound file or a folder"),
    (("--add", "keys", "--instruments", "pianno"), 2, "did you mean"),
    (("--add", "keys", "-o", "missing/x.wav"), 1, "no folder"),
    (("--add", "keys", "-o", "drums.wav/"), 1, "drums.wav is a file"),
    (("--add", "keys", "-o", "x.xyz"), 1, "name it with one of .wav"),
    (("--add", "keys", "-o", "out/", "--stems-to", "more"), 2, "leave --stems-to out"),
    (("--add", "keys", "-o", "-", "--json"), 2, "standard output"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "answer"), BAD)
def test_a_mistake_is_one_line_before_a_model_is_loaded(run: Run, words: tuple[str, ...], code: int, answer: str):
    before = sorted(os.listdir())
    status, out, err = run("accompany", *STEMS, *words, model="no-such-model")
    assert (status, out) == (code, "") and answer in err and err.count("\n") == 1 and "no-such-model" not in err
    assert sorted(os.listdir()) == before


def _bytes(kind: str) -> bytes:
    file = io.BytesIO()
    wav = np.sin(np.arange(2 * RATE) / 20) * 0.3
    if kind == "nan":
        wav[50] = np.nan
    wav = {"one": wav[:1], "silent": wav * 0}.get(kind, wav)
    soundfile.write(
        file, wav, RATE, format="FLAC" if kind == "cut" else "WAV", subtype="PCM_16" if kind == "cut" else "FLOAT"
    )
    return {"text": b"no sound at all" * 99, "empty": b""}.get(kind, file.getvalue()[: 9000 if kind == "cut" else None])


@pytest.mark.parametrize(
    ("kind", "answer"),
    [("text", "is no audio"), ("empty", "is empty"), ("cut", "damaged"), ("nan", "NaN"), ("one", "lasts 0.00 s"),
     ("silent", "silent")],
)  # fmt: skip
def test_bad_sound_is_one_line_and_leaves_nothing(run: Run, kind: str, answer: str) -> None:
    name = "bad.flac" if kind == "cut" else "bad.wav"
    Path(name).write_bytes(_bytes(kind))
    before = sorted(os.listdir())
    for words in (
        ("accompany", name, "--add", "keys", "--separator", "hpss"),
        ("accompany", "--stem", f"lead={name}", "--add", "keys"),
        ("generate", "jazz", "--melody", name, "--duration", 1),
        ("generate", "jazz", "--stem", f"lead={name}", "--duration", 1),
    ):
        status, out, err = run(*words, "--seed", 1, "-o", "x.wav")
        assert (status, out) == (1, "") and answer in err and err.count("\n") == 1, words
    assert sorted(os.listdir()) == before


def test_what_is_too_long_is_refused_without_being_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stem_files, "DURATION_LIMITS", (0.1, 1.0))
    status, _, err = run("accompany", *STEMS, "--add", "keys", "-o", "x.wav", model="no-such-model")
    assert status == 1 and "drums.wav lasts 2 s: at most 1 s can be worked on at once" in err
    monkeypatch.setattr(stem_files, "DURATION_LIMITS", (0.1, 600.0))
    monkeypatch.setattr(stem_files, "VALUES", 1000)
    with pytest.raises(ValueError, match="holds 96,000 samples in its 2 channels"):
        stem_files.read("drums.wav")


def test_a_model_that_cannot_says_so(run: Run, model_folder: Path) -> None:
    for words in (("accompany", *STEMS, "--add", "keys"), ("generate", "jazz", *STEMS)):
        status, _, err = run(*words, "-o", "x.wav", model=model_folder)
        assert status == 2 and err.count("\n") == 1 and not Path("x.wav").exists()


def test_interrupt_and_full_disk_leave_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir())
    real = stem_files._add

    def fail(stack, path, wav, kind, error=KeyboardInterrupt):
        real(stack, path, wav, kind)
        if path.name == "new-keys.wav":
            raise error

    monkeypatch.setattr(stem_files, "_add", fail)
    words = ("accompany", *STEMS, "--add", "keys", "--seed", 1, "--stems-to", "parts", "-o", "x.wav", "--quiet")
    assert run(*words) == (130, "", "descant accompany: interrupted\n")
    monkeypatch.setattr(stem_files, "_add", lambda *args: fail(*args, error=OSError(28, "No space left on device")))
    status, _, err = run(*words)
    assert status == 1 and "No space left" in err
    assert sorted(os.listdir()) == [*before[:0], *sorted([*before, "parts"])] and not os.listdir("parts")


def test_generate_with_melody_and_stems(run: Run) -> None:
    words = ("generate", "--genre", "funk", *STEMS, "--melody", "lead.wav", "--duration", 1, "--seed", 4)
    status, _, err = run(*words, "--count", 2, "-o", "take.wav")
    assert status == 0 and "the drums given: 2.00 s, of which 1 s are used" in err
    assert run("generate", "--genre", "funk", "--duration", 1, "--seed", 4, "-o", "free.wav")[0] == 0
    takes = [Path(name).read_bytes() for name in ("take_1.wav", "take_2.wav", "free.wav")]
    assert len(set(takes)) == 3 and all(soundfile.info(name).frames for name in ("take_1.wav", "free.wav"))
    status, _, err = run("generate", "--melody", "drums.wav", "--duration", 1, "-o", "x.wav")
    assert status == 1 and "no tune is heard" in err and err.count("\n") == 1
    status, _, err = run("generate", "--melody", "nowhere.wav", "-o", "x.wav", model="no-such-model")
    assert status == 1 and "no file nowhere.wav" in err
