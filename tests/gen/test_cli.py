import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from descant.gen import cli, cli_wishes


@pytest.fixture
def run(model_folder, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder with the tiny model -> (status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words, model=model_folder):
        told = ["--model", str(model), "--threads", "1"] if model and words[0] in ("generate", "extend") else []
        status = cli.main([*map(str, words), *told])
        return (status, *capsys.readouterr())

    return call


@pytest.fixture
def given(tmp_path):
    rng = np.random.default_rng(0)
    wav = np.sin(np.arange(32000) / 16000 * 2 * np.pi * 220)[:, None] * 0.3 + rng.normal(0, 0.01, (32000, 2))
    soundfile.write(tmp_path / "in.wav", wav, 16000)
    return tmp_path / "in.wav"


# generate


def test_generate_writes_what_it_reports(run):
    status, out, err = run(
        "generate", "an upbeat tango in D minor", "--duration", 0.5, "--seed", 7, "-o", "x.wav", "--json"
    )
    row = json.loads(out)["results"][0]
    assert status == 0 and (row["file"], row["seed"], row["duration"]) == ("x.wav", 7, 0.5)
    assert row["asked"]["key"] == "D minor" and "tempo" in row["chosen"]
    found = soundfile.info("x.wav")
    assert (found.frames, found.samplerate, found.channels) == (16000, 32000, 1)
    assert "seed 7" in err and "tango" in err


def test_quiet_is_quiet_and_the_default_name_tells_the_seed(run):
    assert run("generate", "tango", "--duration", 0.2, "--seed", 3, "--quiet") == (0, "", "")
    assert Path("descant-3.wav").is_file()


def test_count_numbers_files_and_each_is_a_run_of_its_own(run):
    status, _, _ = run("generate", "blues", "--duration", 0.3, "--seed", 10, "--count", 3, "-o", "take.wav")
    assert status == 0 and sorted(path.name for path in Path().iterdir()) == ["take_1.wav", "take_2.wav", "take_3.wav"]
    run("generate", "blues", "--duration", 0.3, "--seed", 12, "-o", "alone.wav")
    assert Path("alone.wav").read_bytes() == Path("take_3.wav").read_bytes()
    assert Path("take_1.wav").read_bytes() != Path("take_2.wav").read_bytes()


def test_options_win_over_the_sentence_with_a_note(run):
    _, out, err = run(
        "generate", "blues in A with piano", "--key", "G minor", "--instruments", "flute, nylon guitars", "--tempo", 99,
        "--chords", "Gm D7", "--duration", 0.2, "--json", "-o", "x.flac", "--guidance", 2, "--temperature", 0.8,
        "--top-k", 20, "--top-p", 0.9,
    )  # fmt: skip
    asked = json.loads(out)["results"][0]["asked"]
    assert asked["key"] == "G minor" and asked["instruments"] == ["flute", "nylon guitar"] and asked["tempo"] == 99
    assert asked["chords"] == ["Gm", "D7"] and "note: key: the option (G minor) wins" in err


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_formats(run, suffix):
    assert run("generate", "folk", "--duration", 0.3, "--seed", 1, "-o", f"x.{suffix}")[0] == 0
    assert soundfile.info(f"x.{suffix}").duration == pytest.approx(0.3, abs=0.06)


BAD_WORDS = [
    (["generate", ""], "prompt is empty"),
    (["generate", "  \n"], "prompt is empty"),
    (["generate", "x" * 10_000], "10,000 characters"),
    (["generate", "--genre", "bluse"], "did you mean blues"),
    (["generate", "--instruments", "flute,pianno"], "did you mean"),
    (["generate", "--tempo", "5"], "tempo 5 is outside 40 to 240"),
    (["generate", "--tempo", "900"], "tempo 900 is outside 40 to 240"),
    (["generate", "--tempo", "quick"], "invalid float value"),
    (["generate", "--key", "H##"], "unknown key 'H##'"),
    (["generate", "--chords", "Gm ?"], "unknown chord '?'"),
    (["generate", "--duration", "0"], "duration 0 is outside"),
    (["generate", "--duration", "-1"], "duration -1 is outside"),
    (["generate", "--duration", "10800"], "duration 10800 is outside 0.1 to 600 seconds"),
    (["generate", "--duration", "nan"], "duration nan is outside"),
    (["generate", "--count", "0"], "count 0 is outside 1 to 64"),
    (["generate", "--count", "65"], "count 65 is outside 1 to 64"),
    (["generate", "--seed", "-5"], "seed -5 is no whole number"),
    (["generate", "--threads", "0"], "threads 0 is outside"),
    (["generate", "blues", "--durration", "3"], "unrecognized arguments"),
    (["generate", "-o", "-", "--json"], "standard output"),
    (["extend"], "FILE"),
    (["no-such-command"], "invalid choice"),
    (["train", "codec", "tiny", "steps", "--data", "a", "--dev", "b", "--out", "c"], "key=value"),
    (["train", "codec", "huge", "--data", "a", "--dev", "b", "--out", "c"], "unknown codec recipe 'huge'"),
    (["train", "lm", "nano", "stepps=3", "--data", "a", "--dev", "b", "--out", "c"], "unknown setting 'stepps'"),
]


@pytest.mark.parametrize(("words", "answer"), BAD_WORDS)
def test_a_wrong_command_line_is_one_line_and_status_2(run, words, answer):
    status, out, err = run(*words, model=None)
    assert status == 2 and out == "" and answer in err
    assert err.count("\n") == 1 and "Traceback" not in err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("missing/x.wav", "no folder"), ("x.aiffx", "name it with one of .wav"), ("x", "name it with"),
        (".", "name it with"), ("dir.wav", "not an ordinary file"),
    ],
)  # fmt: skip
def test_unwritable_output_is_told_before_a_model_is_loaded(run, name, answer, tmp_path):
    (tmp_path / "dir.wav").mkdir()
    status, _, err = run("generate", "blues", "-o", name, model="no-such-model")
    assert status == 1 and answer in err and "no-such-model" not in err and err.count("\n") == 1


def test_an_output_that_cannot_be_opened(run, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    status, _, err = run("generate", "blues", "-o", "x.wav", model="no-such-model")
    assert status == 1 and "cannot write x.wav: Permission denied" in err


def test_missing_and_corrupt_weights(run, tmp_path, model_folder):
    status, _, err = run("generate", "blues", "-o", "x.wav", model="no-such-model")
    assert status == 1 and "no model 'no-such-model'" in err and err.count("\n") == 1
    for part in ("codec", "lm"):
        folder = tmp_path / "m" / part
        folder.mkdir(parents=True)
        for path in (model_folder / part).iterdir():
            (folder / path.name).write_bytes(path.read_bytes()[: 900 if path.suffix == ".safetensors" else None])
    status, _, err = run("generate", "blues", "-o", "x.wav", model="m")
    assert status == 1 and "safetensors" in err and err.count("\n") == 1 and not Path("x.wav").exists()


def test_interrupt_and_internal_errors(run, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("descant.gen.generate.generate", interrupt)
    status, _, err = run("generate", "blues", "-o", "x.wav")
    assert status == 130 and err == "descant generate: interrupted\n"

    def fail(*args):
        raise TypeError("odd\nthing")

    monkeypatch.setattr("descant.gen.generate.generate", fail)
    status, _, err = run("generate", "blues", "-o", "x.wav")
    assert status == 1 and "internal error, TypeError: odd thing" in err and err.count("\n") == 1
    assert "Traceback" in run("generate", "blues", "-o", "x.wav", "--debug")[2]


# extend


def test_extend(run, given):
    status, out, err = run("extend", given, "--seconds", 0.5, "--seed", 2, "-o", "longer.wav", "--json")
    row = json.loads(out)["results"][0]
    found = soundfile.info("longer.wav")
    assert status == 0 and (found.frames, found.samplerate, found.channels) == (40000, 16000, 2)
    assert row["given"] == 2.0 and row["duration"] == 0.5 and "mono" in err
    before, after = soundfile.read(given, dtype="int16")[0], soundfile.read("longer.wav", dtype="int16")[0]
    assert np.array_equal(before[:-320], after[: 32000 - 320])


def test_extend_default_name_and_in_place(run, given):
    assert run("extend", given, "--seconds", 0.2)[0] == 0
    assert soundfile.info("in-extended.wav").frames == 35200
    assert run("extend", given, "--seconds", 0.2, "-o", given)[0] == 0
    assert soundfile.info(given).frames == 35200


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus", "mp3"])
def test_extend_other_formats(run, tmp_path, suffix):
    wav = np.sin(np.arange(48000) / 48000 * 2 * np.pi * 330) * 0.3
    soundfile.write(
        tmp_path / f"in.{suffix}", wav, 48000, **({"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {})
    )
    assert run("extend", f"in.{suffix}", "--seconds", 0.5, "-o", f"out.{suffix}")[0] == 0
    assert soundfile.info(f"out.{suffix}").duration == pytest.approx(1.5, abs=0.06)


def test_extend_to_a_format_that_lacks_the_rate(run, tmp_path):
    soundfile.write(tmp_path / "in.wav", np.sin(np.arange(44100) / 20) * 0.3, 44100)
    status, _, err = run("extend", "in.wav", "--seconds", 0.5, "-o", "out.opus")
    assert status == 0 and "resampled from 44100 to 48000 Hz" in err
    assert soundfile.info("out.opus").duration == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"", "in.wav"),
        (b"RIFF\x00\x00\x00\x00WAVEjunk" + b"\x00" * 99, "in.wav"),
        (b"not a sound at all" * 50, "in.wav"),
    ],
)
def test_extend_a_corrupt_file(run, tmp_path, content, answer):
    (tmp_path / "in.wav").write_bytes(content)
    status, out, err = run("extend", "in.wav", "-o", "out.wav")
    assert status == 1 and answer in err and err.count("\n") == 1 and out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


@pytest.mark.parametrize(("samples", "answer"), [(np.zeros(16000), "silence"), (np.ones(800) * 0.1, "0.050 s")])
def test_extend_silence_and_too_short(run, tmp_path, samples, answer):
    soundfile.write(tmp_path / "in.wav", samples, 16000)
    status, _, err = run("extend", "in.wav", "-o", "out.wav")
    assert status == 1 and answer in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_extend_a_file_that_is_not_there(run):
    status, _, err = run("extend", "nowhere.wav")
    assert status == 1 and "no file nowhere.wav" in err


# info and the rest


def test_info(run, given, model_folder):
    status, out, _ = run("info", given, "--json")
    row = json.loads(out)
    assert status == 0 and (row["rate"], row["channels"], row["samples"]) == (16000, 2, 32000)
    status, out, _ = run("info", model_folder, "--json")
    row = json.loads(out)
    assert status == 0 and row["codec"]["rate"] == 32000 and row["lm"]["parameters"] > 1000
    assert "parameters" in run("info", model_folder)[1]
    assert run("info", "nowhere")[0] == 1


def test_no_command_shows_help_and_fails(capsys):
    assert cli.main([]) == 2
    assert "examples:" in capsys.readouterr().err


@pytest.mark.parametrize("command", [
    "generate", "extend", "accompany", "inpaint", "loop", "info", "prepare", "train", "bench", "render",
])  # fmt: skip
def test_every_command_has_help_with_examples(command, capsys):
    assert cli.main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "examples:" in out and f"descant {command}" in out


def test_version(capsys):
    import descant

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"descant {descant.__version__}\n"


def _python(*words, **more):
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, timeout=120, check=False, **more)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from descant.gen import cli; cli.main(['--help']); cli.main(['generate', '--tempo', '5']);"
        "print([name for name in ('torch', 'numpy', 'soundfile') if name in sys.modules])"
    )
    assert _python("-c", code).stdout.decode().splitlines()[-1] == "[]"


def test_sound_on_standard_output_and_no_sockets(model_folder, tmp_path):
    code = (
        "import sys, socket\n"
        "def no(*a, **k): raise AssertionError('a socket was opened')\n"
        "socket.socket.__init__ = socket.socket.connect = no; socket.create_connection = socket.getaddrinfo = no\n"
        "from descant.gen.cli import main\n"
        "sys.exit(main(['generate', 'blues', '--duration', '0.3', '--seed', '1', '-o', '-', '--model', sys.argv[1]]))"
    )
    done = _python("-c", code, model_folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    (tmp_path / "x.wav").write_bytes(done.stdout)
    assert soundfile.info(tmp_path / "x.wav").frames == 9600 and b"seed 1" in done.stderr


def test_a_closed_pipe_is_no_traceback(model_folder, tmp_path):
    code = "import sys; from descant.gen.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["-c", code, "generate", "blues", "--duration", "0.2", "--model", str(model_folder), "-o", "-"]
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(120) == 1 and "Traceback" not in err and "Exception" not in err


def test_interrupt_of_a_process_is_130_and_leaves_nothing(model_folder, tmp_path):
    import signal

    code = "import sys; from descant.gen.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["generate", "blues", "--duration", "600", "--model", str(model_folder), "-o", "x.wav"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        # a shell's background job ignores SIGINT, and hands that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    err = process.stderr.read().decode()
    assert process.wait(60) == 130 and err == "descant generate: interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_threads_follow_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cli_wishes.default_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= cli_wishes.default_threads() <= 4


def test_written_files_follow_the_umask(run, given):
    old = os.umask(0o027)
    try:
        run("extend", given, "--seconds", 0.2, "-o", "out.wav")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat("out.wav").st_mode) == 0o640
