import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from descant.codec.audio import Audio, AudioError, loudness, read
from descant.eval.embed import audio_files, embed_audio, embed_files, windows
from descant.eval.frechet import frechet_distance
from descant.eval.logmel import LogMel
from descant.eval.recipe import Recipe, named
from descant.eval.vectors import Vectors, join, of

RECIPE = named("descant-v1")["frechet"]


def noise(seed, seconds, rate=32_000, channels=1):
    return 0.2 * torch.randn(channels, int(seconds * rate), generator=torch.Generator().manual_seed(seed))


def write(path, wav, rate=32_000):
    soundfile.write(path, wav.T.numpy(), rate, subtype="FLOAT")
    return path


class Tape:
    """An embedder that hands back what it hears, and how it was batched."""

    id, rate, channels = "tape", 1000, 1

    def __init__(self, dim):
        self.dim, self.batches = dim, []

    def embed(self, windows):
        self.batches.append(windows.shape[0])
        return windows[:, 0]


def tape(window, hop, tail, least=0.0, **more):
    return Recipe(name="t", embedder="tape", rate=1000, window=window, hop=hop, tail=tail, least=least, **more)


def cut(samples, recipe, piece):
    ramp = torch.arange(1.0, samples + 1)[None]
    parts = torch.split(ramp, piece, dim=1)
    return [window[0].tolist() for window in windows(parts, recipe)]


@pytest.mark.parametrize("piece", [1, 3, 100])
@pytest.mark.parametrize(("window", "hop", "tail", "least", "starts"), [
    (0.004, 0.004, "drop", 0.0, [1, 5]),
    (0.004, 0.004, "pad", 0.0, [1, 5, 9]),
    (0.004, 0.004, "pad", 0.003, [1, 5]),
    (0.004, 0.002, "drop", 0.0, [1, 3, 5, 7]),
    (0.004, 0.002, "pad", 0.0, [1, 3, 5, 7, 9]),
    (0.002, 0.005, "drop", 0.0, [1, 6]),
    (0.02, 0.02, "drop", 0.0, []),
    (0.02, 0.02, "repeat", 0.0, [1]),
])  # fmt: skip
def test_windows_of_ten_samples(piece, window, hop, tail, least, starts):
    found = cut(10, tape(window, hop, tail, least), piece)
    size = round(window * 1000)
    for row, start in zip(found, starts, strict=True):
        truth = [value if value <= 10 else 0 for value in range(start, start + size)]
        if tail == "repeat":
            truth = [1 + index % 10 for index in range(size)]
        assert row == truth


def test_one_clip_alone_and_in_a_crowd_is_the_same():
    # the same window in batches of 1 and of 32
    ear, wavs = LogMel(), torch.stack([noise(seed, 1.0) for seed in range(32)])
    crowd = ear.embed(wavs)
    alone = torch.cat([ear.embed(wav[None]) for wav in wavs])
    assert float((crowd - alone).abs().max()) <= 1e-5
    clips = {f"{seed:02d}": Audio(noise(seed, 3.3), 32_000) for seed in range(4)}
    together = embed_audio(clips, ear, RECIPE).vectors
    for index, (name, clip) in enumerate(clips.items()):
        single = embed_audio({name: clip}, ear, RECIPE).vectors
        assert torch.equal(single.data, together.data[together.clip == index])
        assert single.windows == 3  # 0.3 s are less than the recipe's 0.5


def test_batches_are_bounded():
    ear = Tape(10)
    embed_audio({"a": Audio(noise(0, 1.0, 1000), 1000)}, ear, tape(0.01, 0.01, "drop"))
    assert sum(ear.batches) == 100 and max(ear.batches) <= 32


@pytest.mark.parametrize(("rule", "target"), [("peak", -1.0), ("lufs", -23.0), ("none", 0.0)])
def test_levels(tmp_path, rule, target):
    path = write(tmp_path / "a.wav", 0.1 * noise(1, 2.0, 8000), 8000)
    ear = Tape(16_000)
    ear.rate = 8000
    recipe = replace(tape(2.0, 2.0, "drop"), rate=8000, loudness=rule, target=target)
    heard = embed_files({"a": path}, ear, recipe).vectors.data
    if rule == "peak":
        assert 20 * np.log10(float(heard.abs().max())) == pytest.approx(target, abs=1e-4)
    elif rule == "lufs":
        assert loudness(heard, 8000) == pytest.approx(target, abs=0.01)
    else:
        assert torch.equal(heard, read(path).wav)


def test_loudness_of_a_long_file_ignores_its_silences(tmp_path):
    wav = torch.cat([0.3 * noise(1, 90, 8000), torch.zeros(1, 8000 * 200), 0.3 * noise(2, 50, 8000)], dim=1)
    path = write(tmp_path / "long.wav", wav, 8000)
    ear = Tape(8000 * 30)
    ear.rate = 8000
    recipe = replace(tape(30.0, 30.0, "drop"), rate=8000, loudness="lufs", target=-23.0)
    heard = embed_files({"a": path}, ear, recipe).vectors.data.reshape(1, -1)
    assert loudness(heard, 8000) == pytest.approx(-23, abs=0.3)


def test_gain_does_not_change_vectors_of_a_levelled_recipe():
    wav = noise(1, 2.0)
    loud, soft = (embed_audio({"a": Audio(gain * wav, 32_000)}, LogMel(), RECIPE).vectors.data for gain in (1.0, 0.01))
    assert torch.allclose(loud, soft, atol=1e-4)


def test_rates_and_channels_are_brought_to_the_recipe(tmp_path):
    tone = torch.sin(2 * torch.pi * 440 * torch.arange(48_000 * 2) / 48_000)[None]
    files = {"stereo48": write(tmp_path / "a.wav", tone.repeat(2, 1), 48_000)}
    for rate in (22_050, 44_100):
        wav = torch.sin(2 * torch.pi * 440 * torch.arange(rate * 2) / rate)[None]
        files[f"mono{rate}"] = write(tmp_path / f"{rate}.wav", wav, rate)
    found = embed_files(files, LogMel(), RECIPE).vectors
    first = found.data[found.clip == 0]
    for clip in (1, 2):
        # tones alike, but not the edges of what was resampled: windows of one file differ by no more
        assert float((found.data[found.clip == clip] - first)[:, :40].abs().median()) < 0.02


def test_files_in_memory_and_on_disk_agree(tmp_path):
    wav = noise(5, 25.0)
    path = write(tmp_path / "a.wav", wav)
    disk, memory = embed_files({"a": path}, LogMel(), RECIPE), embed_audio({"a": Audio(wav, 32_000)}, LogMel(), RECIPE)
    assert torch.allclose(disk.vectors.data, memory.vectors.data, atol=1e-5)
    short = replace(RECIPE, limit=10.0)
    assert embed_files({"a": path}, LogMel(), short).vectors.windows == 10
    assert embed_audio({"a": Audio(wav, 32_000)}, LogMel(), short).vectors.windows == 10


def test_a_bad_file_is_named_and_counted_and_the_run_goes_on(tmp_path):
    for index in range(5):
        write(tmp_path / f"good{index}.wav", noise(index, 2.0))
    write(tmp_path / "nan.wav", torch.full((1, 32_000), torch.nan))
    write(tmp_path / "short.wav", noise(0, 0.02))
    write(tmp_path / "silent.wav", torch.zeros(1, 32_000))
    (tmp_path / "corrupt.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVE junk")
    (tmp_path / "empty.flac").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no audio")
    files = audio_files(tmp_path)
    seen = []
    found = embed_files(files, LogMel(), RECIPE, progress=seen.append)
    assert set(found.failures) == {"nan", "short", "corrupt", "empty"}
    assert "0.02 s long" in found.failures["short"] and "0.5 s" in found.failures["short"]
    assert found.silent == ("silent",)
    assert len(found.vectors.names) == 6 and "silent" in found.vectors.names
    assert len(seen) == len(files) == 10
    result = frechet_distance(found.vectors, found.vectors, RECIPE).with_left_out(found.failures)
    assert result.left_out == 4 and any("corrupt" in note for note in result.notes)
    with pytest.raises(AudioError):
        embed_files(files, LogMel(), RECIPE, strict=True)


def test_nothing_to_hear_is_a_result_with_a_reason(tmp_path):
    found = embed_files(audio_files(tmp_path), LogMel(), RECIPE)
    assert found.vectors.windows == 0
    assert "generated set holds no clip" in frechet_distance(found.vectors, found.vectors, RECIPE).reason
    with pytest.raises(ValueError, match="no such folder"):
        audio_files(tmp_path / "none")


def test_names_of_files(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("a.wav", "b/a.wav", "b/c.wav", "b/c.flac", "d.txt"):
        (tmp_path / name).touch()
    assert list(audio_files(tmp_path)) == ["a", "b/a", "b/c.flac", "b/c.wav"]


def test_recipe_and_ear_must_fit():
    clips = {"a": Audio(noise(0, 1.0), 32_000)}
    with pytest.raises(ValueError, match="bind"):
        embed_audio(clips, LogMel(), RECIPE.bind("vggish"))
    ear = LogMel(rate=16_000)
    with pytest.raises(ValueError, match="16000"):
        embed_audio(clips, ear, RECIPE.bind(ear.id))
    assert ear.id != LogMel().id
    with pytest.raises(ValueError, match="windows"):
        LogMel().embed(torch.zeros(1, 2, 32_000))


class Broken(Tape):
    def embed(self, windows):
        return torch.full((windows.shape[0], self.dim), torch.nan)


def test_an_ear_that_gives_nan_fails_the_clip_not_the_run():
    found = embed_audio({"a": Audio(noise(0, 1.0, 1000), 1000)}, Broken(10), tape(0.01, 0.01, "drop"))
    assert "NaN" in found.failures["a"] and found.vectors.windows == 0


def test_logmel_hears_what_it_should():
    ear, clean = LogMel(), noise(1, 1.0)
    low = torch.nn.functional.avg_pool1d(clean[None], 16, 1, 8)[0][:, :32_000]
    tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(32_000) / 32_000)[None]
    pulse = clean * (torch.arange(32_000) % 8000 < 1000)
    a, b, c, d = ear.embed(torch.stack([clean, low, tone, pulse])).split(1)
    assert float(b[0, 35:40].mean()) < float(a[0, 35:40].mean()) - 1  # treble is gone, in decades
    assert int(c[0, 120:].argmax()) == 9  # A
    assert float(d[0, 80:120].mean()) > 2 * float(a[0, 80:120].mean())  # more motion
    assert a.shape == (1, ear.dim) == (1, 132)


def test_a_long_file_is_never_held_whole(tmp_path):
    # ten minutes at 32 kHz are 77 MB in float32, 154 in float64
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 32_000, 1, "PCM_16") as file:
        block = noise(0, 10.0)[0].numpy()
        for _ in range(60):
            file.write(block)
    code = f"""
import resource
from descant.eval.embed import embed_files
from descant.eval.logmel import LogMel
from descant.eval.recipe import named
recipe = named("descant-v1")["frechet"]
import dataclasses
recipe = dataclasses.replace(recipe, hop=5.0)
from pathlib import Path
def peak():  # on Linux a process has its parent's peak on its account, which would hide its own
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
embed_files({{"a": {str(path)!r}}}, LogMel(), dataclasses.replace(recipe, limit=70.0))
before = peak()
found = embed_files({{"a": {str(path)!r}}}, LogMel(), recipe)
print(found.vectors.windows, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 120
    assert grown * 1024 < 60e6


def test_vectors_keep_their_clips_through_everything(tmp_path):
    data = torch.arange(12.0).reshape(6, 2)
    one = of(data, ["b", "a", "b", "c", "a", "b"])
    tidy = one.ordered()
    assert tidy.names == ("a", "b", "c") and tidy.clip.tolist() == [0, 0, 1, 1, 1, 2]
    assert tidy.data[:, 0].tolist() == [2, 8, 0, 4, 10, 6]
    assert tidy.means().data[0].tolist() == [5, 6] and tidy.counts.tolist() == [2, 3, 1]
    assert one.take(torch.tensor([2, 0])).names == ("c", "b")
    parts = join([one.take(torch.tensor([1])), one.take(torch.tensor([2, 0]))])
    assert torch.equal(parts.ordered().data, tidy.data)
    tidy.save(tmp_path / "reference.safetensors", RECIPE.id)
    back = Vectors.load(tmp_path / "reference.safetensors", RECIPE.id)
    assert torch.equal(back.data, tidy.data) and back.names == tidy.names
    with pytest.raises(ValueError, match="differ"):
        Vectors.load(tmp_path / "reference.safetensors", RECIPE.bind("other").id)
    (tmp_path / "reference.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="damaged"):
        Vectors.load(tmp_path / "reference.safetensors", RECIPE.id)


@pytest.mark.parametrize(("data", "clip", "names"), [
    (torch.zeros(2, 3).half(), torch.zeros(2, dtype=torch.int64), ("a",)),
    (torch.zeros(6), torch.zeros(6, dtype=torch.int64), ("a",)),
    (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), ("a",)),
    (torch.zeros(2, 3), torch.tensor([0, 2]), ("a", "b")),
    (torch.zeros(2, 3), torch.tensor([-1, 0]), ("a", "b")),
    (torch.zeros(2, 3), torch.tensor([0, 0]), ("a", "b")),
    (torch.zeros(2, 3), torch.tensor([0, 1]), ("a", "a")),
])  # fmt: skip
def test_sets_that_do_not_fit_are_refused(data, clip, names):
    with pytest.raises(ValueError):
        Vectors(data, clip, names)


def test_arrays_become_sets():
    for values in (np.zeros((3, 2)), [[0.0, 1.0]] * 3, torch.zeros(3, 2).half()):
        found = of(values)
        assert len(found.names) == 3 and found.data.dtype in (torch.float32, torch.float64)
    with pytest.raises(ValueError, match="row"):
        of(torch.zeros(3, 2), ["a"])
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        of(torch.zeros(3))
    with pytest.raises(ValueError, match="dimensions"):
        join([of(torch.zeros(3, 2)), of(torch.zeros(3, 4))])
