import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from descant.codec import context, ecdc
from descant.codec.bitstream import Reader, Writer
from descant.codec.model import Codec, nano
from descant.codec.pretrained import save
from descant.gen import cli, cli_codec
from descant.recipes.entropy import EntropyConfig, Net


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small codec with tables for its entropy coder, and another codec without."""
    root = tmp_path_factory.mktemp("codecs")
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        save(Codec(nano()), root / name)
    torch.manual_seed(0)
    net = Net(8, 64, EntropyConfig(embed=4, hidden=8, rank=8))
    context.save(root / "one", net.tensors())
    return root


@pytest.fixture
def run(folder, tmp_path, monkeypatch, capsysbinary):
    """Run a command in an empty folder; the package has the codec ``one`` -> (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_codec, "_packaged", lambda: {"one": folder / "one"})

    def call(*words, model="one"):
        told = ["--model", str(model)] if model and words[0] == "encode" else []
        status = cli.main([*map(str, words), *told])
        out, err = capsysbinary.readouterr()
        return status, out, err.decode()

    return call


def sound(name="in.wav", seconds=3.0, rate=32000, channels=1):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(seconds * rate))[:, None] / rate
    wav = 0.2 * np.sin(2 * np.pi * 220 * (1 + np.arange(channels)) * t)
    soundfile.write(name, wav, rate)
    return Path(name)


def files(where="."):
    return sorted(str(path.relative_to(where)) for path in Path(where).rglob("*") if path.is_file())


def test_there_and_back(run):
    sound(seconds=3.123, rate=44100, channels=2)
    status, out, err = run("encode", "in.wav", "-o", "a.dsc", "--json")
    (row,) = json.loads(out)["results"]
    assert status == 0 and row["books"] == 8 and row["bytes"] == Path("a.dsc").stat().st_size
    assert row["kbps"] == pytest.approx(8 * row["bytes"] / 3.123 / 1000, rel=0.01) and "a.dsc: 3.123 s" in err
    assert run("decode", "a.dsc", "-o", "b.flac", "--quiet") == (0, b"", "")
    found = soundfile.info("b.flac")
    assert (found.samplerate, found.channels, found.frames) == (32000, 1, round(3.123 * 32000))
    assert files() == ["a.dsc", "b.flac", "in.wav"]


@pytest.mark.parametrize(("words", "books"), [
    (["--books", 3], 3), (["--kbps", 1.2], 4), (["--kbps", "0.3"], 1), (["--kbps", 2.4], 8), ([], 8),
])  # fmt: skip
def test_books_and_bit_rates(run, words, books):
    sound(seconds=0.5)
    assert run("encode", "in.wav", "-o", "a.dsc", *words)[0] == 0
    assert len(next(iter(Reader(io.BytesIO(Path("a.dsc").read_bytes())))).codes) == books


@pytest.mark.parametrize(("words", "message"), [
    (["--kbps", 1.0], "0.3 to 2.4 kbps in steps of 0.3"), (["--kbps", 24], "0.3 to 2.4"),
    (["--kbps", 0.01], "0.3 to 2.4"),
    (["--kbps", -1], "more than 0"), (["--books", 9], "one has 8"), (["--books", 0], "at least 1"),
    (["--books", 2, "--kbps", 2], "not allowed with"), (["--coder", "zip"], "invalid choice"),
])  # fmt: skip
def test_what_the_codec_cannot_do_is_a_wrong_command(run, words, message):
    sound()
    status, out, err = run("encode", "in.wav", "-o", "a.dsc", *words)
    assert status == 2 and out == b"" and message in err and err.count("\n") == 1 and files() == ["in.wav"]


def test_entropy_coding_decodes_to_the_same_sound(run, folder):
    sound()
    for coder in ("packed", "entropy"):
        assert run("encode", "in.wav", "-o", f"{coder}.dsc", "--coder", coder)[0] == 0
        assert run("decode", f"{coder}.dsc", "-o", f"{coder}.wav")[0] == 0
    assert Path("packed.wav").read_bytes() == Path("entropy.wav").read_bytes()
    # a codec without tables has the adaptive model
    assert run("encode", "in.wav", "-o", "c.dsc", "--coder", "entropy", "--json", model=folder / "two")[0] == 0
    assert run("decode", "c.dsc", "-o", "c.wav", "--model", folder / "two")[0] == 0


def test_folders_keep_their_tree(run):
    for name in ("album/one.wav", "album/disc 2/two.flac", "album/notes.txt", "more.wav"):
        sound(name, 0.4) if not name.endswith("txt") else Path(name).write_text("x")
    assert run("encode", "album", "more.wav", "-o", "coded", "--quiet") == (0, b"", "")
    assert files("coded") == ["disc 2/two.dsc", "more.dsc", "one.dsc"]
    status, out, _ = run("decode", "coded", "-o", "back", "--format", "ogg", "--json")
    assert status == 0 and files("back") == ["disc 2/two.ogg", "more.ogg", "one.ogg"]
    assert len(json.loads(out)["results"]) == 3


def test_one_bad_file_does_not_stop_the_others(run):
    sound("in/a.wav", 0.4)
    Path("in/b.wav").write_bytes(b"nonsense")
    sound("in/c.wav", 0.4)
    status, out, err = run("encode", "in", "-o", "out", "--json")
    assert status == 1 and files("out") == ["a.dsc", "c.dsc"] and "b.wav" in err and "1 of 3 files failed" in err
    assert [("error" in row) for row in json.loads(out)["results"]] == [False, True, False]


def test_two_inputs_of_one_name_are_refused(run):
    sound("a/x.wav", 0.3)
    sound("b/x.flac", 0.3)
    status, _, err = run("encode", "a/x.wav", "b/x.flac", "-o", "out")
    assert status == 2 and "two inputs would become" in err and not Path("out").exists()


def test_the_input_is_never_overwritten(run):
    sound()
    run("encode", "in.wav", "-o", "a.dsc")
    before = Path("a.dsc").read_bytes()
    Path("a.wav").symlink_to("a.dsc")
    status, _, err = run("decode", "a.dsc", "-o", "a.wav")
    assert status == 2 and "input itself" in err and Path("a.dsc").read_bytes() == before


@pytest.mark.parametrize(("words", "message"), [
    (["encode", "nothing.wav", "-o", "a.dsc"], "no file nothing.wav"),
    (["decode", "in.wav", "-o", "b.wav"], "no descant file"),
    (["encode", "in.wav", "-o", "there/is/none.dsc"], "no folder"), (["encode", "empty", "-o", "out"], "holds no"),
    (["decode", "cut.dsc", "-o", "b.wav"], "ends inside its header"),
])  # fmt: skip
def test_what_fails_says_so_in_one_line(run, words, message):
    sound()
    Path("empty").mkdir()
    Path("cut.dsc").write_bytes(b"DSC\x01abc")
    status, out, err = run(*words)
    assert status == 1 and out == b"" and message in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(("words", "message"), [
    (["encode", "in.wav", "-o", "a.mp3"], ".dsc or .ecdc"), (["decode", "a.dsc", "-o", "b.xyz"], ".wav"),
    (["encode", "in.wav"], "required"), (["encode", "-", "in.wav", "-o", "x"], "stands alone"),
    (["encode", "in.wav", "-o", "-", "--json"], "--json"), (["encode", "in.wav", "in.wav", "-o", "-"], "name a folder"),
])  # fmt: skip
def test_wrong_commands(run, words, message):
    sound()
    run("encode", "in.wav", "-o", "a.dsc")
    status, _, err = run(*words)
    assert status == 2 and message in err and err.count("\n") == 1


def test_unknown_models(run, folder):
    sound()
    status, _, err = run("encode", "in.wav", "-o", "a.dsc", model="nonesuch")
    assert status == 2 and "--model nonesuch" in err and "one" in err
    run("encode", "in.wav", "-o", "two.dsc", model=folder / "two")
    status, _, err = run("decode", "two.dsc", "-o", "b.wav")
    assert status == 1 and "none of the package's" in err and "--model" in err
    status, _, err = run("decode", "two.dsc", "-o", "b.wav", "--model", folder / "one")
    assert status == 1 and "made by another codec" in err and not Path("b.wav").exists()
    assert run("decode", "two.dsc", "-o", "b.wav", "--model", folder / "two")[0] == 0


def test_a_damaged_file_plays_and_says_what_is_lost(run):
    sound(seconds=9)
    run("encode", "in.wav", "-o", "a.dsc")
    data = bytearray(Path("a.dsc").read_bytes())
    data[len(data) // 2] ^= 1
    Path("a.dsc").write_bytes(data)
    status, out, err = run("decode", "a.dsc", "-o", "b.wav", "--json")
    row = json.loads(out)["results"][0]
    assert status == 0 and row["lost_seconds"] == 2.5 and "damaged: frames" in err
    assert soundfile.info("b.wav").frames == 9 * 32000
    facts = json.loads(run("info", "a.dsc", "--json")[1])
    assert facts["lost_seconds"] == 2.5 and facts["chunks"] == 3 and len(facts["damage"]) == 1


def test_info_of_coded_files(run):
    sound(seconds=3)
    run("encode", "in.wav", "-o", "a.dsc", "--books", 5, "--coder", "entropy")
    status, out, _ = run("info", "a.dsc", "--json")
    facts = json.loads(out)
    assert status == 0 and facts["rate"] == 32000 and facts["samples"] == 96000 and facts["seconds"] == 3
    assert facts["books"] == 5 and facts["damage"] == [] and facts["chunks"] == 2 and facts["frames"] == 150
    assert facts["kbps"] == pytest.approx(8 * Path("a.dsc").stat().st_size / 3000, abs=1e-3)
    assert "kbps" in run("info", "a.dsc")[1].decode()
    rows = tuple(torch.zeros(2, count, dtype=torch.long) for count in ecdc.lengths("encodec_24khz", 24000))
    with open("b.ecdc", "wb") as file:
        ecdc.write(file, ecdc.Recording(model="encodec_24khz", samples=24000, codes=rows))
    assert json.loads(run("info", "b.ecdc", "--json")[1])["seconds"] == 1
    Path("c.dsc").write_bytes(b"nonsense")
    status, _, err = run("info", "c.dsc")
    assert status == 1 and "c.dsc: is no descant file" in err


def test_a_failed_encode_leaves_nothing(run, monkeypatch):
    sound(seconds=9)
    Path("a.dsc").write_bytes(b"what was there")
    write, calls = Writer.write, []

    def full(self, codes, gain=0.0):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        write(self, codes, gain)

    monkeypatch.setattr(Writer, "write", full)
    status, _, err = run("encode", "in.wav", "-o", "a.dsc")
    assert status == 1 and "No space left" in err and err.count("\n") == 1
    assert files() == ["a.dsc", "in.wav"] and Path("a.dsc").read_bytes() == b"what was there"


def command(*words, **more):
    code = "import sys; from descant.gen.cli import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", code, *map(str, words)]


def test_a_killed_encode_leaves_no_half_file(folder, tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "in.wav", rng.normal(0, 0.1, 32000 * 600), 32000)
    out = tmp_path / "out"
    out.mkdir()
    words = command("encode", tmp_path / "in.wav", "-o", out / "a.dsc", "--model", folder / "one")
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if any(out.iterdir()) or process.poll() is not None:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (out / "a.dsc").exists()


def test_pipes_carry_a_file_through(folder, tmp_path):
    soundfile.write(tmp_path / "in.wav", np.random.default_rng(0).normal(0, 0.1, 32000), 32000)
    model = ("--model", str(folder / "one"), "--quiet")
    with open(tmp_path / "in.wav", "rb") as file:
        one = subprocess.Popen(command("encode", "-", "-o", "-", *model), stdin=file, stdout=subprocess.PIPE)
    two = subprocess.run(command("decode", "-", "-o", "-", *model), stdin=one.stdout, capture_output=True, timeout=120)
    assert one.wait() == 0 and two.returncode == 0 and two.stderr == b""
    assert soundfile.info(io.BytesIO(two.stdout)).frames == 32000


def test_a_full_disk_behind_standard_output(folder, tmp_path):
    soundfile.write(tmp_path / "in.wav", np.random.default_rng(0).normal(0, 0.1, 320000), 32000)
    words = command("encode", tmp_path / "in.wav", "-o", "-", "--model", folder / "one")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, timeout=120, text=True)
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_fuzz_is_a_command(monkeypatch, capsys):
    import argparse

    parser = argparse.ArgumentParser()
    cli_codec.add_fuzz(parser.add_subparsers())
    args = parser.parse_args(["fuzz", "--count", "60", "--seed", "3", "--json"])
    args.run(args)
    out, err = capsys.readouterr()
    assert json.loads(out)["files"] == 60 and json.loads(out)["failures"] == [] and "60 files" in err
