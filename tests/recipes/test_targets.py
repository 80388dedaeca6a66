"""What descant prepare DIR -o SHARDS makes of songs, and how it goes on when it was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.codec import load
from descant.gen import cli
from descant.gen.separation import registry
from descant.recipes import targets, targets_sound
from descant.recipes.targets import TargetSettings, prepare
from descant.recipes.targets_files import read_record, shard_path
from descant.recipes.targets_read import TargetSet

from .targets_made import RATE, clicks, codec_folder, song_folder, stems, tone


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return codec_folder(tmp_path_factory.mktemp("codec") / "nano")


@pytest.fixture(scope="module")
def cheap(codec: Path) -> TargetSettings:
    return TargetSettings(separator="hpss", codec=str(codec))


@pytest.fixture
def separations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was separated."""
    seen: list[str] = []
    before = targets_sound._taken_apart

    def count(clip, *rest):
        for number, block in enumerate(before(clip, *rest)):
            if number == 0:
                seen.append(clip.id)
            yield block

    monkeypatch.setattr(targets_sound, "_taken_apart", count)
    return seen


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("songs/*/*.safetensors"))


def test_a_mix_is_separated_encoded_and_read_back(tmp_path, cheap, separations):
    parts = stems()
    wav = sum(parts.values())
    soundfile.write(tmp_path / "song.wav", wav, RATE, subtype="FLOAT")
    done = prepare(tmp_path, tmp_path / "out", cheap)
    assert (done.made, done.separated, done.failed, separations) == (1, 1, [], ["song"])
    data = TargetSet(tmp_path / "out")
    window = data.window(0, 0, 10_000)
    assert window.kind == "separated" and set(window.roles) == {"drums", "other"}
    # the codes of the mix are the codec's own
    from descant.codec import audio

    codec = load(cheap.codec)
    mono = audio.resample(torch.from_numpy(wav.T).float(), RATE, codec.rate).mean(0)
    whole = codec.encode(mono[None, None], 4)[0]
    assert window.mix.shape == whole.shape and float((window.mix == whole).float().mean()) > 0.97
    # and those of a stem of what the separator makes
    made = registry.get("hpss").separate(audio.resample(torch.from_numpy(wav.T).float(), RATE, 32000), 32000)
    hits = codec.encode(made["percussive"].mean(0)[None, None], 4)[0]
    found = window.stems[window.roles.index("drums")]
    assert float((found[0] == hits[0]).float().mean()) > 0.9
    assert window.active.all() and window.chroma.shape == (window.mix.shape[1], 12)


def test_true_stems_are_used_and_their_tune_is_found(tmp_path, cheap, separations):
    parts = stems()
    song_folder(tmp_path / "music" / "song", parts, sum(parts.values()))
    done = prepare(tmp_path / "music", tmp_path / "out", cheap)
    assert (done.separated, separations, done.totals["kinds"]) == (0, [], {"true": 1})
    window = TargetSet(tmp_path / "out").window(0, 0, 1000)
    assert set(window.roles) == {"vocals", "bass", "drums"}
    tune, times = window.pitch, (torch.arange(len(window.pitch)) + 0.5) / 50
    for number, note in enumerate([72, 74, 76, 72, 79, 77]):
        inside = (times > number * 0.5 + 0.08) & (times < number * 0.5 + 0.42)
        assert (tune[inside] - note).abs().max() < 0.3
    drums = TargetSet(tmp_path / "out").songs[0]["record"]
    assert drums["leak_db"] < -15


def test_stems_that_are_not_of_the_mix_are_reported_and_not_used(tmp_path, cheap, separations):
    parts = stems()
    other = tone([60, 62], 3.0)[: len(parts["bass"])]
    song_folder(tmp_path / "music" / "song", parts, np.stack([other, other], 1))
    done = prepare(tmp_path / "music", tmp_path / "out", cheap)
    row = TargetSet(tmp_path / "out").songs[0]
    assert separations == ["song"] and row["record"]["kind"] == "separated"
    assert "do not add up" in row["record"]["notes"][0] and done.totals["noted"] == 1
    assert "do not add up" in (tmp_path / "out" / "README.md").read_text()
    # unless their sum is asked for
    trusted = prepare(tmp_path / "music", tmp_path / "sum", replace(cheap, trust=True))
    row = TargetSet(tmp_path / "sum").songs[0]
    assert trusted.totals["kinds"] == {"true": 1} and "their sum is taken" in row["record"]["notes"][0]


def test_stems_at_another_level_than_the_mix_are_brought_to_it(tmp_path, cheap):
    parts = stems()
    song_folder(tmp_path / "music" / "song", parts, 0.5 * sum(parts.values()))
    prepare(tmp_path / "music", tmp_path / "out", cheap)
    record = TargetSet(tmp_path / "out").songs[0]["record"]
    assert record["kind"] == "true" and "+6.0 dB" in record["notes"][0]
    song_folder(tmp_path / "half" / "song", {n: 0.5 * w for n, w in parts.items()}, 0.5 * sum(parts.values()))
    prepare(tmp_path / "half", tmp_path / "same", cheap)
    assert record["level_db"] == TargetSet(tmp_path / "same").songs[0]["record"]["level_db"]


def test_stems_of_other_rates_and_lengths_are_lined_up(tmp_path, cheap):
    parts, fast = stems(rate=RATE), stems(rate=44100)
    folder = song_folder(tmp_path / "music" / "song", parts, sum(parts.values()))
    soundfile.write(folder / "vocals.wav", fast["vocals"], 44100, subtype="FLOAT")
    # the bass ends a second early, in the mix too
    short = parts["bass"][:-RATE]
    soundfile.write(folder / "bass.wav", short, RATE, subtype="FLOAT")
    mix = parts["vocals"] + parts["drums"]
    mix[: len(short)] += short
    soundfile.write(folder / "mixture.wav", mix, RATE, subtype="FLOAT")
    prepare(tmp_path / "music", tmp_path / "out", cheap)
    window = TargetSet(tmp_path / "out").window(0, 0, 1000)
    bass = window.active[window.roles.index("bass")]
    assert window.kind == "true" and window.mix.shape[1] == 150
    assert bass[:90].all() and not bass[115:].any()


def test_a_recording_of_one_stem_is_that_stem_as_it_is(tmp_path, cheap):
    line = tone([72, 74, 76], 3.0)
    soundfile.write(tmp_path / "solo.wav", line, RATE, subtype="FLOAT")
    parts = {"vocals": np.stack([line, line], 1), "drums": np.zeros((len(line), 2))}
    song_folder(tmp_path / "music" / "song", parts, parts["vocals"])
    prepare(tmp_path / "music", tmp_path / "out", cheap)
    row = TargetSet(tmp_path / "out").songs[0]["record"]
    assert row["single"] and row["stems"] == ["vocals"] and row["silent"] == ["drums"]
    window = TargetSet(tmp_path / "out").window(0, 0, 1000)
    assert torch.equal(window.mix, window.stems[0]) and (~window.pitch.isnan()).float().mean() > 0.8


def test_a_second_run_separates_nothing_and_changes_nothing(tmp_path, cheap, separations):
    soundfile.write(tmp_path / "a.wav", stems()["vocals"], RATE)
    soundfile.write(tmp_path / "b.wav", stems()["bass"], RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    first = prepare(tmp_path, tmp_path / "out", cheap)
    seen = {path: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    card = (tmp_path / "out" / "README.md").read_text()
    assert first.made == 2 and len(first.failed) == 1 and len(separations) == 2
    again = prepare(tmp_path, tmp_path / "out", cheap)
    assert (again.made, again.kept, again.separated, len(again.failed)) == (0, 2, 0, 1) and len(separations) == 2
    assert seen == {path: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    assert card == (tmp_path / "out" / "README.md").read_text()
    # what is lost is made again, the same bytes
    lost = shards(tmp_path / "out")[0]
    data = lost.read_bytes()
    lost.unlink()
    assert prepare(tmp_path, tmp_path / "out", cheap).made == 1 and lost.read_bytes() == data


def test_the_listing_is_made_again_from_the_shards(tmp_path, cheap, separations):
    soundfile.write(tmp_path / "a.wav", stems()["vocals"], RATE)
    prepare(tmp_path, tmp_path / "out", cheap)
    listing = (tmp_path / "out" / "songs.jsonl.gz").read_bytes()
    (tmp_path / "out" / "songs.jsonl.gz").write_bytes(listing[:40])
    (tmp_path / "out" / "state.json").write_text("{")
    assert prepare(tmp_path, tmp_path / "out", cheap).kept == 1 and len(separations) == 1
    assert (tmp_path / "out" / "songs.jsonl.gz").read_bytes() == listing


def test_the_same_sound_twice_is_prepared_once(tmp_path, cheap, separations):
    for name in ("a", "copy of a"):
        soundfile.write(tmp_path / f"{name}.wav", stems()["vocals"], RATE)
    done = prepare(tmp_path, tmp_path / "out", cheap)
    assert done.made == 1 and done.duplicates == [{"id": "copy of a", "of": "a"}] and separations == ["a"]


def test_what_cannot_be_used_is_skipped_with_the_reason(tmp_path, cheap):
    good = stems()["vocals"]
    soundfile.write(tmp_path / "good.ogg", good, RATE)
    soundfile.write(tmp_path / "long.flac", np.tile(good, (2, 1)), RATE)
    whole = (tmp_path / "long.flac").read_bytes()
    (tmp_path / "long.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    (tmp_path / "empty.flac").write_bytes(b"")
    (tmp_path / "text.mp3").write_text("no music")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "fast.wav", good[:4000], 2_000_000)
    done = prepare(tmp_path, tmp_path / "out", cheap)
    reasons = {row["id"]: row["reason"] for row in done.failed}
    assert done.made == 1 and set(reasons) == {"long", "silent", "nan", "empty", "text", "none", "fast"}
    assert "silent" in reasons["silent"] and "NaN" in reasons["nan"] and "damaged" in reasons["long"]
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert prepare(tmp_path, tmp_path / "out", cheap, retry=True).made == 0
    soundfile.write(tmp_path / "silent.wav", good, RATE)
    assert prepare(tmp_path, tmp_path / "out", cheap).made == 1


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22050, 2), (44100, 6), (96000, 1)])
def test_any_rate_and_any_channels(tmp_path, cheap, rate, channels):
    wav = tone([60, 64, 67], 1.5, rate)
    soundfile.write(tmp_path / "a.wav", np.stack([wav] * channels, 1), rate, subtype="PCM_16")
    prepare(tmp_path, tmp_path / "out", cheap)
    window = TargetSet(tmp_path / "out").window(0, 0, 1000)
    assert window.mix.shape == (4, 75) and (window.pitch[5:20] - 60).abs().max() < 0.3


def test_tokens_take_few_bytes(tmp_path, codec):
    parts = stems(24.0)
    song_folder(tmp_path / "music" / "song", parts, sum(parts.values()))
    done = prepare(tmp_path / "music", tmp_path / "out", TargetSettings(separator="hpss", codec=str(codec)))
    (shard,) = shards(tmp_path / "out")
    # the codec here has 64 tokens a book, 6 bits; those of 1,024 take 10, and 100 bytes a row-second more
    packed = 50 * (5 - 3)
    assert shard.stat().st_size / (24.0 * 4) + packed <= 400
    assert done.totals["bytes"] == shard.stat().st_size


def test_keys_depend_on_sound_and_on_everything_done_to_it(tmp_path, cheap, codec):
    soundfile.write(tmp_path / "a.wav", stems()["vocals"], RATE)
    keys = set()
    torch.manual_seed(1)
    from descant.codec import pretrained
    from descant.codec.model import Codec, nano

    pretrained.save(Codec(nano()).eval(), tmp_path / "another")
    variants = [
        cheap, replace(cheap, books=2), replace(cheap, separator="centre"), replace(cheap, trust=True),
        replace(cheap, codec=str(tmp_path / "another")),
    ]  # fmt: skip
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", stems()["vocals"], RATE)
    for number, settings in enumerate(variants):
        prepare(tmp_path / "music", tmp_path / f"out{number}", settings)
        keys |= {path.stem for path in shards(tmp_path / f"out{number}")}
    soundfile.write(tmp_path / "music" / "a.wav", stems()["bass"], RATE)
    prepare(tmp_path / "music", tmp_path / "out0", cheap)
    keys |= {path.stem for path in shards(tmp_path / "out0")}
    assert len(keys) == len(variants) + 1
    with pytest.raises(ValueError, match="another separator"):
        prepare(tmp_path / "music", tmp_path / "out0", replace(cheap, separator="centre"))


def test_labels_are_kept_and_refreshed_without_work(tmp_path, cheap, separations):
    soundfile.write(tmp_path / "a.wav", stems()["vocals"], RATE)
    (tmp_path / "a.json").write_text(json.dumps({"caption": "a song", "genre": "rock", "licence": "CC0-1.0"}))
    prepare(tmp_path, tmp_path / "out", cheap)
    (tmp_path / "a.json").write_text(json.dumps({"caption": "a tune", "genre": "nonsense", "tempo": 100}))
    prepare(tmp_path, tmp_path / "out", cheap)
    condition = TargetSet(tmp_path / "out").window(0, 0, 50).condition
    assert (condition.text, condition.genre, condition.tempo) == ("a tune", None, 100) and len(separations) == 1
    assert "CC0-1.0" not in (tmp_path / "out" / "README.md").read_text()


def test_rendered_pieces_have_their_labels_and_true_stems(tmp_path, cheap):
    from descant.recipes import builtin
    from descant.recipes.piece import write_pieces

    made = [builtin.compose(seed, duration=4.0) for seed in range(2)]
    write_pieces(tmp_path / "train.jsonl.gz", made)
    done = prepare(tmp_path, tmp_path / "out", cheap)
    data = TargetSet(tmp_path / "out", kinds=["rendered"])
    assert done.totals["kinds"] == {"rendered": 2} and len(data) == 2
    piece = next(piece for piece in made if piece.id == data.songs[0]["id"])
    window = data.window(0, 50, 100)
    assert window.condition.key == piece.key and window.condition.tempo == piece.tempo
    assert window.condition.beat_offset == -1.0 and window.condition.text in piece.captions
    assert set(window.roles) <= {stem.role for stem in piece.stems} | {"other"}
    assert prepare(tmp_path / "train.jsonl.gz", tmp_path / "out", cheap).kept == 2


def test_several_processes_make_what_one_makes(tmp_path, cheap):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", tone([60 + number, 64, 67], 1.0), RATE)
    (tmp_path / "bad.wav").write_bytes(b"bad")
    one = prepare(tmp_path, tmp_path / "one", cheap)
    two = prepare(tmp_path, tmp_path / "two", cheap, workers=2)
    assert one.to_dict() == two.to_dict()
    names = [[path.name for path in shards(tmp_path / name)] for name in ("one", "two")]
    assert names[0] == names[1] and len(names[0]) == 3
    assert [p.read_bytes() for p in shards(tmp_path / "one")] == [p.read_bytes() for p in shards(tmp_path / "two")]


def test_a_killed_run_goes_on_and_leaves_no_half_files(tmp_path, cheap):
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", tone([60 + number, 64, 67], 6.0), RATE)
    words = ["prepare", str(tmp_path), "-o", str(tmp_path / "out"), "--separator", "hpss", "--codec", cheap.codec]
    code = f"import sys; from descant.gen.cli import main; sys.exit(main({[*words, '--workers', '2', '--quiet']!r}))"
    run = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        end = time.monotonic() + 120
        while not shards(tmp_path / "out") and run.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        # its workers see that it is gone: a group without members cannot be signalled
        while time.monotonic() < end:
            try:
                os.killpg(run.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the workers outlived their parent")
    finally:
        if run.poll() is None:
            run.kill()
    finished = {path: path.stat().st_mtime_ns for path in shards(tmp_path / "out")}
    assert 1 <= len(finished) <= 4 and all(read_record(path) for path in finished)
    (tmp_path / "out" / "songs" / "ab").mkdir(exist_ok=True)
    (tmp_path / "out" / "songs" / "ab" / ".abc.1-2.safetensors").write_bytes(b"half")
    done = prepare(tmp_path, tmp_path / "out", cheap)
    assert done.made == 4 - len(finished) and done.kept == len(finished)
    assert all(path.stat().st_mtime_ns == seen for path, seen in finished.items())
    assert not list((tmp_path / "out").rglob(".*.safetensors"))


def test_a_full_disk_is_one_line_and_what_was_finished_stays(tmp_path, cheap, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone([60], 1.0), RATE)
    soundfile.write(tmp_path / "b.wav", tone([62], 1.0), RATE)
    before, calls = targets.write_shard, []

    def full(*rest):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return before(*rest)

    monkeypatch.setattr(targets, "write_shard", full)
    with pytest.raises(OSError, match="No space"):
        prepare(tmp_path, tmp_path / "out", cheap)
    monkeypatch.setattr(targets, "write_shard", before)
    done = prepare(tmp_path, tmp_path / "out", cheap)
    assert (done.made, done.kept, done.failed) == (1, 1, [])


def test_one_run_at_a_time(tmp_path, cheap):
    soundfile.write(tmp_path / "a.wav", tone([60], 1.0), RATE)
    from descant.recipes.targets_files import only_one

    (tmp_path / "out").mkdir()
    with only_one(tmp_path / "out"), pytest.raises(ValueError, match="another run"):
        prepare(tmp_path, tmp_path / "out", cheap)
    assert prepare(tmp_path, tmp_path / "out", cheap).made == 1


def test_the_command(tmp_path, cheap, capsys, monkeypatch):
    (tmp_path / "music").mkdir()
    soundfile.write(tmp_path / "music" / "a.wav", tone([60, 64], 1.0), RATE)
    tools = ["--separator", "hpss", "--codec", cheap.codec, "--workers", "1"]
    out = str(tmp_path / "out")
    assert cli.main(["prepare", str(tmp_path / "music"), "-o", out, *tools, "--json"]) == 0
    seen = capsys.readouterr()
    row = json.loads(seen.out)
    assert row["made"] == 1 and row["totals"]["songs"] == 1 and "1 songs made" in seen.err
    assert cli.main(["prepare", "targets", str(tmp_path / "music"), "-o", out, *tools, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert cli.main(["prepare", str(tmp_path / "nowhere"), "-o", out]) == 2
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.wav").write_bytes(b"bad")
    assert cli.main(["prepare", str(tmp_path / "bad"), "-o", str(tmp_path / "none"), *tools, "--json"]) == 1
    seen = capsys.readouterr()
    assert json.loads(seen.out)["totals"]["songs"] == 0 and "nothing in" in seen.err
    # the other kinds are where they were
    assert cli.main(["prepare", "stems"]) == 2 and "descant prepare stems" in capsys.readouterr().err
    assert cli.main(["prepare", "--help"]) == 0 and "judge" in capsys.readouterr().out


def test_a_damaged_folder_says_so(tmp_path, cheap):
    with pytest.raises(FileNotFoundError, match="descant prepare"):
        TargetSet(tmp_path)
    soundfile.write(tmp_path / "a.wav", tone([60], 1.0), RATE)
    prepare(tmp_path, tmp_path / "out", cheap)
    data = TargetSet(tmp_path / "out")
    shard_path(tmp_path / "out", data.songs[0]["key"]).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        data.window(0, 0, 10)
    with pytest.raises(ValueError, match="frames"):
        TargetSet(tmp_path / "out").window(0, 60, 10)


def test_memory_does_not_grow_with_the_song(tmp_path, cheap):
    """A hundred seconds more of four rows in stereo at 32 kHz are 102 MB, and would be held more than once."""
    line = tone([60, 64, 67, 72], 2.0, 8000) + clicks(2.0, 8000)
    for name, times in (("short", 25), ("long", 75)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.tile(line, times), 8000)
    code = (
        "import sys, torch\n"
        "from descant.recipes.bench_eval import peak_mb\n"
        "from descant.recipes.targets import TargetSettings, prepare\n"
        "torch.set_num_threads(1)\n"
        f"settings = TargetSettings(separator='centre', codec={cheap.codec!r})\n"
        "prepare('short', 'one', settings)\n"
        "before = peak_mb()\n"
        "prepare('long', 'two', settings)\n"
        "print(peak_mb() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    # tools loaded a second time and what the first song did not fill take some; the song held whole takes over 200
    assert float(done.stdout) < 130
