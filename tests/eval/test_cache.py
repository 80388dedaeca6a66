import subprocess
import sys
from dataclasses import replace

import pytest
import soundfile
import torch

from descant.eval.cache import Cache
from descant.eval.embed import digest, embed_files
from descant.eval.logmel import LogMel
from descant.eval.recipe import named

RECIPE = named("descant-v1")["frechet"]


class Counting(LogMel):
    """Counts the windows it hears."""

    heard = 0

    @property
    def id(self):
        return "logmel-1"

    def embed(self, windows):
        Counting.heard += windows.shape[0]
        return super().embed(windows)


def write(path, seed, seconds=2.0):
    wav = 0.2 * torch.randn(int(32_000 * seconds), generator=torch.Generator().manual_seed(seed))
    soundfile.write(path, wav.numpy(), 32_000, subtype="FLOAT")
    return path


@pytest.fixture
def files(tmp_path):
    (tmp_path / "audio").mkdir()
    return {f"clip{seed}": write(tmp_path / "audio" / f"{seed}.wav", seed) for seed in range(4)}


def test_what_was_heard_is_not_heard_again(tmp_path, files):
    Counting.heard = 0
    cache = Cache(tmp_path / "cache")
    first = embed_files(files, Counting(), RECIPE, cache)
    assert Counting.heard == 8 and (cache.hits, cache.misses) == (0, 4)
    again = Cache(tmp_path / "cache")
    second = embed_files(files, Counting(), RECIPE, again)
    assert Counting.heard == 8 and (again.hits, again.misses) == (4, 0)
    assert torch.equal(first.vectors.data, second.vectors.data) and first.vectors.names == second.vectors.names
    plain = embed_files(files, LogMel(), RECIPE)
    assert torch.equal(plain.vectors.data, second.vectors.data)


def test_content_counts_and_not_the_name(tmp_path, files):
    cache = Cache(tmp_path / "cache")
    first = embed_files(files, LogMel(), RECIPE, cache)
    # renamed: a hit; changed under the old name: a miss
    moved = files["clip0"].rename(tmp_path / "audio" / "other.wav")
    write(files["clip1"], seed=99)
    changed = {**files, "clip0": moved}
    second = embed_files(changed, LogMel(), RECIPE, cache)
    assert (cache.hits, cache.misses) == (3, 5)
    same = [torch.equal(first.vectors.data[first.vectors.clip == i], second.vectors.data[second.vectors.clip == i])
            for i in range(4)]  # fmt: skip
    assert same == [True, False, True, True]


def test_recipes_and_judges_do_not_share_entries(tmp_path, files):
    cache = Cache(tmp_path / "cache")
    audio = digest(files["clip0"])
    changed = [replace(RECIPE, **change) for change in ({"hop": 0.5}, {"target": -20.0}, {"version": 2})]
    keys = {cache.key(audio, recipe) for recipe in (RECIPE, RECIPE.bind("logmel-1+x"), *changed)}
    assert len(keys) == 5
    assert cache.key(audio, replace(RECIPE, name="other")) in keys
    assert cache.key(digest(files["clip1"]), RECIPE) not in keys


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "junk", "swap"])
def test_a_damaged_entry_is_found_out_and_written_anew(tmp_path, files, damage):
    cache = Cache(tmp_path / "cache")
    one = {"clip0": files["clip0"]}
    good = embed_files(one, LogMel(), RECIPE, cache).vectors.data
    path = cache.path(cache.key(digest(files["clip0"]), RECIPE))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-5])
    elif damage == "flip":
        data[-200] ^= 1
        path.write_bytes(data)
    elif damage == "swap":
        # a whole entry, but of another clip
        embed_files({"x": files["clip1"]}, LogMel(), RECIPE, cache)
        path.write_bytes(cache.path(cache.key(digest(files["clip1"]), RECIPE)).read_bytes())
    else:
        path.write_bytes(b"" if damage == "empty" else b"\x10" + b"\xff" * 99)
    after = Cache(tmp_path / "cache")
    assert torch.equal(embed_files(one, LogMel(), RECIPE, after).vectors.data, good)
    assert (after.damaged, after.hits) == (1, 0)
    healed = Cache(tmp_path / "cache")
    embed_files(one, LogMel(), RECIPE, healed)
    assert (healed.damaged, healed.hits) == (0, 1)


def test_failures_are_not_kept(tmp_path, files):
    cache = Cache(tmp_path / "cache")
    short = {"short": write(tmp_path / "short.wav", 1, 0.02)}
    assert embed_files(short, LogMel(), RECIPE, cache).failures
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_silence_is_remembered(tmp_path):
    soundfile.write(tmp_path / "s.wav", torch.zeros(32_000).numpy(), 32_000)
    for _ in range(2):
        assert embed_files({"s": tmp_path / "s.wav"}, LogMel(), RECIPE, Cache(tmp_path / "cache")).silent == ("s",)


def test_a_shared_cache_may_be_read_only(tmp_path, files):
    embed_files({"clip0": files["clip0"]}, LogMel(), RECIPE, Cache(tmp_path / "cache"))
    shared = Cache(tmp_path / "cache", readonly=True)
    embed_files(files, LogMel(), RECIPE, shared)
    assert (shared.hits, shared.misses) == (1, 3)
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1


def test_processes_may_share_a_cache(tmp_path, files):
    code = """
import sys
from pathlib import Path
from descant.eval.cache import Cache
from descant.eval.embed import audio_files, embed_files
from descant.eval.logmel import LogMel
from descant.eval.recipe import named
found = embed_files(audio_files(sys.argv[1]), LogMel(), named("descant-v1")["frechet"], Cache(sys.argv[2]))
assert len(found.vectors.names) == 4
"""
    folders = [str(tmp_path / "audio"), str(tmp_path / "cache")]
    workers = [subprocess.Popen([sys.executable, "-c", code, *folders]) for _ in range(2)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    entries = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(entries) == 4 and all(path.suffix == ".safetensors" for path in entries)
    after = Cache(tmp_path / "cache")
    embed_files(files, LogMel(), RECIPE, after)
    assert (after.hits, after.damaged) == (4, 0)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="key"):
        Cache(tmp_path).get("../../etc/passwd")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        Cache(tmp_path / "file")
