"""The server: what it makes, what it refuses, what it survives, what it leaves behind."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from descant.codec.audio import Audio
from descant.gen import serve
from descant.gen.load import Studio
from descant.gen.request import RequestError
from descant.gen.separation.registry import separate
from descant.gen.serve_http import Guard
from descant.gen.serve_jobs import Outcome, Refused, Store, Task
from descant.gen.serve_limits import Limits
from descant.gen.serve_upload import shown
from descant.gen.serve_wishes import request_of
from descant.gen.serve_work import Tools

from .made import able
from .served import Client, form, running

RATE = 16000


def wave(
    seconds: float = 1.0, channels: int = 1, kind: str = "WAV", subtype: str | None = "PCM_16", **odd: Any
) -> bytes:
    """A file with two tones that begin and end."""
    t = np.arange(round(seconds * RATE)) / RATE
    mono = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.2 * np.sin(2 * np.pi * 554 * t) * (t % 0.5 < 0.2)
    data = np.stack([mono * (1 - 0.1 * c) for c in range(channels)], 1) * odd.get("gain", 1.0)
    if "nan" in odd:
        data[-100:] = np.nan
    out = io.BytesIO()
    soundfile.write(out, data, RATE, subtype, format=kind)
    return out.getvalue()


def scale() -> bytes:
    """Three sung notes: C4, E4, G4."""
    t = np.arange(RATE // 2) / RATE
    notes = [261.63, 329.63, 392.0]
    tones = [sum(0.2 / h * np.sin(2 * np.pi * f * h * t) for h in range(1, 6)) * np.exp(-2 * t) for f in notes]
    out = io.BytesIO()
    soundfile.write(out, np.concatenate(tones), RATE, format="WAV")
    return out.getvalue()


@pytest.fixture(scope="module")
def tools(studio: Studio) -> Tools:
    return Tools(studio, "hpss")


@pytest.fixture(scope="module")
def client(tools: Tools) -> Iterator[Client]:
    with running([tools], seconds=4, given=6, upload=1_000_000, queue=8) as one:
        yield one


def hold(client: Client, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make every job wait until the event is set (or the job is called off)."""
    from descant.gen import serve_work

    event = threading.Event()

    def slow(*args: Any, **named: Any) -> Any:
        while not event.wait(0.02):
            args[2](1, 10)
        return real(*args, **named)

    real = serve_work.generate
    monkeypatch.setattr(serve_work, "generate", slow)
    return event


def test_music_is_what_the_engine_makes(client: Client, studio: Studio) -> None:
    reply = client.post("/api/generate", {"text": "slow blues", "key": "E", "duration": 1, "seed": 7})
    assert reply.headers["location"] == reply.json["url"]
    state = client.wait(reply)
    assert state["status"] == "done", state
    made = state["result"]
    assert made["seed"] == 7 and made["asked"]["key"].startswith("E") and "chords" in made["chosen"]
    (sound,) = made["sounds"]
    got = client.ask(sound["url"])
    assert got.headers["content-type"] == "audio/wav" and got.headers["x-content-type-options"] == "nosniff"
    wav, rate = soundfile.read(io.BytesIO(got.body), dtype="float32")
    assert rate == studio.codec.rate and sound["seconds"] == pytest.approx(1.0, abs=1e-3)
    told = studio.generate("slow blues", key="E", duration=1, seed=7)
    assert np.abs(wav - told.wav[0].numpy()).max() < 1e-6 + 2**-23
    part = client.ask(sound["url"], headers={"range": "bytes=0-3"})
    assert part.status == 206 and part.body == b"RIFF"
    assert "attachment" in client.ask(sound["url"] + "?download").headers["content-disposition"]


def test_fields_of_a_form_are_read_like_json(client: Client) -> None:
    state = client.wait(client.send("/api/extend", wave(2.0), duration="0.5", seed="3", tempo="100", chords="C G"))
    assert state["status"] == "done", state
    assert state["result"]["asked"]["tempo"] == 100 and state["result"]["seed"] == 3
    body = client.ask(state["result"]["sounds"][0]["url"]).body
    wav, rate = soundfile.read(io.BytesIO(body), dtype="int16")
    given, _ = soundfile.read(io.BytesIO(wave(2.0)), dtype="int16")
    kept = len(given) - RATE // 50
    assert rate == RATE and len(wav) == len(given) + RATE // 2 and np.array_equal(wav[:kept], given[:kept])


def test_stems_add_up_and_come_as_a_zip(client: Client) -> None:
    state = client.wait(client.send("/api/separate", wave(2.0, 2, "FLAC", "PCM_24"), "a.flac", residual="true"))
    assert state["status"] == "done", state
    names = [sound["name"] for sound in state["result"]["sounds"]]
    assert names == ["harmonic", "percussive", "residual"]
    archive = zipfile.ZipFile(io.BytesIO(client.ask(state["result"]["zip"]).body))
    assert archive.testzip() is None
    rows = {Path(name).stem: soundfile.read(io.BytesIO(archive.read(name)))[0] for name in archive.namelist()}
    mix, _ = soundfile.read(io.BytesIO(wave(2.0, 2, "FLAC", "PCM_24")), dtype="float32")
    assert np.abs(sum(rows.values()) - mix).max() < 1e-5
    truth = separate(Audio(torch.from_numpy(mix.T.copy()), RATE), model="hpss")
    assert np.abs(rows["harmonic"].T - truth["harmonic"].numpy()).max() < 1e-5
    one = client.wait(client.send("/api/separate", wave(), stems="percussive", separator="repet"))
    assert one["status"] == "failed" and "no stem 'percussive'" in one["error"]


def test_the_tune_of_a_lead_is_told(client: Client, tools: Tools) -> None:
    state = client.wait(client.send("/api/separate", wave(2.0), separator="repet"))
    assert state["status"] == "done", state
    tune = state["result"]["tune"]
    assert tune["of"] == "foreground" and all(0 <= a < b <= 2.1 and 36 <= p <= 101 for a, b, p in tune["notes"])


def test_parts_are_added_and_melodies_followed_where_the_model_can() -> None:
    with running([Tools(able(), "hpss")]) as client:
        about = client.ask("/api").json
        assert "accompany" in about["can"] and "bass" in about["parts"] and "mix" not in about["parts"]
        state = client.wait(client.send("/api/accompany", wave(2.0), parts="bass, keys", seed="4"))
        assert state["status"] == "done", state
        sounds = {sound["name"]: client.ask(sound["url"]).body for sound in state["result"]["sounds"]}
        assert {"mix", "new bass", "new keys", "residual"} <= set(sounds)
        rows = {name: soundfile.read(io.BytesIO(body))[0] for name, body in sounds.items()}
        mix = rows.pop("mix")
        assert len(mix) == 2 * RATE and np.abs(sum(rows.values()) - mix).max() < 1e-5
        assert "kazoo" in client.send("/api/accompany", wave(), parts="kazoo").json["error"]
        assert about["melody"]
        state = client.wait(client.send("/api/generate", scale(), "tune.wav", duration="2", seed="1"))
        assert state["status"] == "done", state
        tune = state["result"]["tune"]
        assert tune["of"] == "the melody given" and {60, 64, 67} <= {pitch for _, _, pitch in tune["notes"]}
        assert client.wait(client.post("/api/generate", {"duration": 0.5}))["status"] == "done"


def test_what_the_model_cannot_do_is_said(client: Client) -> None:
    about = client.ask("/api").json
    assert about["can"] == ["generate", "extend", "separate"] and not about["melody"]
    reply = client.send("/api/accompany", wave(), parts="bass")
    assert reply.status == 400 and "plays all instruments together" in reply.json["error"]
    assert "takes no melody" in client.send("/api/generate", wave()).json["error"]


@pytest.mark.parametrize(("given", "says"), [
    ({"tempo": 5}, "tempo 5 is outside 40 to 240"),
    ({"tempo": "fast"}, "tempo 'fast' is not a number"),
    ({"tempo": float("nan")}, "is not a number"),
    ({"genre": "polkka"}, "polkka"),
    ({"duration": 5}, "makes 4 seconds at once"),
    ({"duration": 1e9}, "duration"),
    ({"seed": -1}, "seed"),
    ({"seed": 1.5}, "seed '1.5' is not a whole number"),
    ({"text": ["a"]}, "is not a text"),
    ({"text": "x" * 3000}, "2,000"),
    ({"chords": "Hm"}, "Hm"),
    ({"guidance": "text=much"}, "guidance"),
    ({"guidance": {"volume": 3}}, "volume"),
    ({"volume": 3}, "unknown field 'volume'"),
    ([1], "must be a JSON object"),
])  # fmt: skip
def test_wishes_that_cannot_be_are_answered_in_one_line(client: Client, given: Any, says: str) -> None:
    reply = client.post("/api/generate", given)
    assert reply.status == 400 and says in reply.json["error"] and "\n" not in reply.json["error"]


def test_bodies_that_are_none(client: Client) -> None:
    kind = {"content-type": "application/json"}
    for body in (b"", b"{", b"[" * 60000, b'{"seed": ' + b"9" * 6000 + b"}", b"\xff\xfe"):
        assert client.ask("/api/generate", "POST", body, kind).status == 400, body[:20]
    assert client.ask("/api/generate", "POST", b"{}" + b" " * 70000, kind).status == 413
    assert client.ask("/api/generate", "POST", b"{}", {"content-type": "text/plain"}).status == 415
    assert client.ask("/api/extend", "POST", b"{}", kind).status == 415
    assert client.ask("/api/extend", "POST", b"", {"content-type": "multipart/form-data"}).status == 415
    body, headers = form(wave(), "a.wav", {})
    for piece in (b"", b"hello", body[: len(body) // 2], body[:-4], body[10:]):
        assert client.ask("/api/extend", "POST", piece, headers).status == 400, piece[:20]
    twice = body[: -len("--edge-of-the-form--\r\n")] + body
    assert "more than one file" in client.ask("/api/extend", "POST", twice, headers).json["error"]
    none = form(b"x", "a", {})[0].replace(b'name="file"; filename="a"', b'name="text"')
    assert "holds no file" in client.ask("/api/extend", "POST", none, headers).json["error"]
    other = body.replace(b'name="file"', b'name="song"')
    assert "in the field 'file'" in client.ask("/api/extend", "POST", other, headers).json["error"]
    assert client.ask("/api").json["jobs"]["receiving"] == 0


@pytest.mark.parametrize(("verb", "sound", "name", "says"), [
    ("extend", b"these are words, no sound" * 9, "notes.txt", "notes.txt: is no audio this machine can read"),
    ("separate", b"\0" * 5000, "zero.wav", "zero.wav: is no audio"),
    ("extend", wave(gain=0.0), "quiet.wav", "ends in silence"),
    ("extend", wave(subtype="FLOAT", nan=True), "nan.wav", "nan.wav: holds NaN or infinite samples"),
    ("extend", wave(0.05), "short.wav", "at least 0.1 s"),
    ("extend", wave(2.0)[:20_000], "cut.wav", None),
    ("separate", wave(7.0), "long.wav", "long.wav: lasts more than 6 s"),
    ("separate", wave(1.0, 6), "surround.wav", None),
    ("extend", wave(2.0, kind="MP3", subtype=None), "a.mp3", None),
    ("extend", wave(2.0, kind="OGG", subtype="VORBIS"), "a.ogg", None),
    ("extend", wave(2.0, subtype="DOUBLE"), "a.wav", None),
])  # fmt: skip
def test_sounds_of_every_kind(client: Client, verb: str, sound: bytes, name: str, says: str | None) -> None:
    fields = {"duration": "0.2"} if verb == "extend" else {}
    state = client.wait(client.send(f"/api/{verb}", sound, name, **fields))
    if says is None and state["status"] == "done":
        body = client.ask(state["result"]["sounds"][0]["url"]).body
        about = soundfile.info(io.BytesIO(body))
        assert about.frames > 0 and about.subtype in ("PCM_16", "PCM_24", "PCM_32", "FLOAT")  # what browsers play
    else:
        assert state["status"] == "failed" and (says or name) in state["error"], state
        assert "\n" not in state["error"] and str(client.folder) not in state["error"]


def test_too_much_is_refused_while_it_comes(client: Client) -> None:
    reply = client.send("/api/extend", bytes(1_500_000))
    assert reply.status == 413 and "larger than 1 MB" in reply.json["error"]
    reply = client.send("/api/extend", wave(), text="x" * 70_000)
    assert reply.status == 413
    assert client.send("/api/extend", b"").status == 400
    assert client.ask("/api").json["jobs"]["receiving"] == 0


def test_a_small_file_of_endless_sound_is_not_believed(tools: Tools) -> None:
    out = io.BytesIO()
    soundfile.write(out, np.full((500_000, 2), 0.25), 48000, format="FLAC")
    assert len(out.getvalue()) < 30_000
    with running([tools], given=600, values=400_000) as client:
        state = client.wait(client.send("/api/separate", out.getvalue(), "bomb.flac"))
        assert state["status"] == "failed" and "bomb.flac: holds more than 400,000 samples" in state["error"]


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "..\\..\\x.wav", "/abs/olute.wav", "a\0b.wav", "", "é" * 300 + ".wav"]
)
def test_names_of_files_are_never_paths(client: Client, name: str) -> None:
    before = set(client.folder.parent.iterdir())
    body, headers = form(wave(), "NAME", {"duration": "0.2"})
    reply = client.ask("/api/extend", "POST", body.replace(b"NAME", name.encode()), headers)
    assert reply.status in (202, 400)
    if reply.status == 202:
        state = client.wait(reply)
        assert "/" not in state["input"] and "\\" not in state["input"] and len(state["input"]) <= 80
    assert {path for path in client.folder.parent.iterdir() if path.name.startswith("descant")} <= before
    inside = {path.name for job in client.folder.iterdir() for path in job.iterdir()}
    assert not [name for name in inside if name != "input" and not re.fullmatch(r"[a-z-]+\.wav", name)]


def test_only_what_is_known_is_served(client: Client) -> None:
    state = client.wait(client.post("/api/generate", {"duration": 0.2, "seed": 1}))
    for path in (
        "/web/../serve.py", "/web/%2e%2e/serve.py", "/web/nothing.js", "/web/", "/api/jobs/nothing", "/etc/passwd",
        f"{state['url']}/sounds/input", f"{state['url']}/sounds/..%2f..%2fetc%2fpasswd", f"{state['url']}/sounds/",
    ):  # fmt: skip
        reply = client.ask(path)
        assert reply.status == 404 and "error" in reply.json, path
    assert client.ask("/api/generate").status == 405
    page = client.ask("/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.ask("/web/serve.js").headers["content-type"].startswith("text/javascript")
    # no separator by its place: that would load files of the sender's choice
    reply = client.send("/api/separate", wave(), separator="/tmp")
    assert reply.status == 400 and "no separator" in reply.json["error"]


def test_who_may_ask(client: Client) -> None:
    for host in ("evil.example", "evil.example:80", f"evil.example:{client.port}", ""):
        assert client.ask("/api", headers={"host": host}).status == 421, host
    for host in ("localhost", f"127.0.0.1:{client.port}", "[::1]:80", "192.168.1.7", "LOCALHOST:1"):
        assert client.ask("/api", headers={"host": host}).status == 200, host
    wish = {"duration": 0.1}
    assert client.post("/api/generate", wish, origin="https://evil.example").status == 403
    assert client.post("/api/generate", wish, origin="null").status == 403
    assert client.post("/api/generate", wish, **{"sec-fetch-site": "cross-site"}).status == 403
    assert client.post("/api/generate", wish, origin=client.address).status == 202
    reply = client.ask("/api", headers={"origin": "https://evil.example"})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_progress_comes_as_events(client: Client) -> None:
    reply = client.post("/api/generate", {"duration": 2, "seed": 2})
    link = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    link.request("GET", f"{reply.json['url']}/events")
    stream = link.getresponse()
    assert stream.getheader("content-type", "").startswith("text/event-stream")
    text = stream.read().decode()
    states = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert states[-1]["status"] == "done" and states[-1] == client.ask(reply.json["url"]).json
    shares = [state["progress"] for state in states if "progress" in state]
    assert shares == sorted(shares)


def test_jobs_are_called_off(client: Client, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    go = hold(client, tools, monkeypatch)
    first, second = (client.post("/api/generate", {"duration": 0.2, "seed": n}).json["url"] for n in (1, 2))
    while client.ask(first).json["status"] != "running":
        time.sleep(0.01)
    assert client.ask(second).json["before"] == 1
    assert client.ask(second, "DELETE").json["status"] == "cancelled"
    assert client.ask(second).json["status"] == "cancelled"
    client.ask(first, "DELETE")
    while client.ask(first).json["status"] == "running":
        time.sleep(0.01)
    assert client.ask(first).json["status"] == "cancelled"
    go.set()
    state = client.wait(client.post("/api/generate", {"duration": 0.2, "seed": 3}))
    assert state["status"] == "done"
    sound = state["result"]["sounds"][0]["url"]
    assert client.ask(state["url"], "DELETE").json["status"] == "removed"
    assert client.ask(state["url"]).status == 404 and client.ask(sound).status == 404


def test_a_failing_job_does_not_end_the_server(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from descant.gen import serve_work

    for failure, says in (
        (KeyError("odd"), "internal error, KeyError"), (SystemExit(3), "internal error, SystemExit"),
        (MemoryError(), "not enough memory"), (RuntimeError("two\nlines"), "two lines"),
    ):  # fmt: skip

        def fail(*_: Any, failure: BaseException = failure) -> Any:
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(serve_work, "generate", fail)
            state = client.wait(client.post("/api/generate", {"duration": 0.2}))
        assert state["status"] == "failed" and says in state["error"]
    assert client.wait(client.post("/api/generate", {"duration": 0.2}))["status"] == "done"


def test_a_hundred_at_once(client: Client, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    go = hold(client, tools, monkeypatch)
    with ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(lambda n: client.post("/api/generate", {"duration": 0.1, "seed": n}), range(100)))
    taken = [reply for reply in replies if reply.status == 202]
    refused = [reply for reply in replies if reply.status == 429]
    assert len(taken) + len(refused) == 100 and 8 <= len(taken) <= 9  # eight wait, one may be at work already
    assert all(int(reply.headers["retry-after"]) >= 1 and "waiting already" in reply.json["error"] for reply in refused)
    # a file is refused before it is kept
    assert client.send("/api/extend", wave(5.0)).status == 429
    go.set()
    assert all(client.wait(reply)["status"] == "done" for reply in taken)
    assert len(list(client.folder.iterdir())) <= 33


def test_a_sender_that_falls_silent_is_given_up(tools: Tools) -> None:
    body, headers = form(wave(), "a.wav", {})
    with running([tools], patience=0.3) as client, socket.create_connection(("127.0.0.1", client.port)) as link:
        head = f"POST /api/extend HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        head += f"content-type: {headers['content-type']}\r\n\r\n"
        link.sendall(head.encode() + body[:500])
        link.settimeout(30)
        assert link.recv(100).startswith(b"HTTP/1.1 408")
        assert client.ask("/api").json["jobs"]["receiving"] == 0 and not list(client.folder.iterdir())


def test_a_sender_that_hangs_up_gives_its_slot_back(client: Client) -> None:
    body, headers = form(wave(), "a.wav", {})
    with socket.create_connection(("127.0.0.1", client.port)) as link:
        head = f"POST /api/extend HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        link.sendall(f"{head}content-type: {headers['content-type']}\r\n\r\n".encode() + body[:500])
        end = time.monotonic() + 30
        while client.ask("/api").json["jobs"]["receiving"] != 1 and time.monotonic() < end:
            time.sleep(0.01)
    while client.ask("/api").json["jobs"]["receiving"] and time.monotonic() < end:
        time.sleep(0.01)
    assert client.ask("/api").json["jobs"]["receiving"] == 0


def test_results_go_when_they_are_many_old_or_large(tools: Tools) -> None:
    with running([tools], keep=2, upload=100_000, disk=400_000) as client:
        urls = [client.wait(client.post("/api/generate", {"duration": 0.2, "seed": n}))["url"] for n in range(5)]
        end = time.monotonic() + 30
        while client.ask("/api").json["jobs"]["done"] > 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert [client.ask(url).status for url in urls] == [404, 404, 404, 200, 200]
        assert len(list(client.folder.iterdir())) == 2
        state = client.wait(client.post("/api/generate", {"duration": 60}))
        assert state["status"] == "failed" and "disk space" in state["error"]
    assert not client.folder.exists()


def test_old_results_go(tmp_path: Path) -> None:
    store = Store(tmp_path, Limits(minutes=0.0005), [None])
    store.start()
    job = store.open("generate")
    store.submit(job, lambda tools, task: Outcome({}, {}, {}))
    end = time.monotonic() + 30
    while store.get(job.id) is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert store.get(job.id) is None and not list(tmp_path.iterdir())
    store.close()


def test_closing_calls_off_what_runs(tmp_path: Path) -> None:
    def forever(tools: Any, task: Task) -> Outcome:
        while True:
            task.report(1, 2)
            time.sleep(0.01)

    store = Store(tmp_path, Limits(queue=2), [None])
    store.start()
    job = store.open("generate")
    store.submit(job, forever)
    while job.status != "running":
        time.sleep(0.01)
    store.close()
    assert job.status == "cancelled"
    with pytest.raises(Refused, match="shutting down"):
        store.open("generate")


def test_two_workers_work_at_once(tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=30)

    def meet(tools: str, task: Task) -> Outcome:
        both.wait()
        return Outcome({"by": tools}, {}, {})

    store = Store(tmp_path, Limits(), ["one", "two"])
    store.start()
    jobs = [store.open("generate") for _ in range(2)]
    for job in jobs:
        store.submit(job, meet)
    end = time.monotonic() + 30
    while not all(job.finished for job in jobs) and time.monotonic() < end:
        time.sleep(0.01)
    assert {job.outcome.facts["by"] for job in jobs if job.outcome is not None} == {"one", "two"}
    store.close()


def test_few_listen_at_once(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    with running([tools], listeners=1) as client:
        go = hold(client, tools, monkeypatch)
        url = client.post("/api/generate", {"duration": 0.1}).json["url"]
        with socket.create_connection(("127.0.0.1", client.port)) as link:
            link.sendall(f"GET {url}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            assert b"text/event-stream" in link.recv(4096)
            reply = client.ask(f"{url}/events")
            assert reply.status == 503 and "retry-after" in reply.headers
        end = time.monotonic() + 30
        go.set()
        while client.ask(f"{url}/events").status != 200 and time.monotonic() < end:
            time.sleep(0.05)
        assert client.ask(f"{url}/events").status == 200


def test_names_of_the_server() -> None:
    async def nothing(*_: Any) -> None:
        raise AssertionError("never asked here")

    guard = Guard(nothing, ["studio.local", "::1"])
    assert all(guard.known(host) for host in ("studio.local:8765", "STUDIO.LOCAL", "[::1]:1", "10.0.0.3:80"))
    assert not any(guard.known(host) for host in ("studio.local.evil.example", "local", "1.2.3.4.evil.example", "[x]"))


def test_names_for_people() -> None:
    assert shown("C:\\music\\song.wav") == "song.wav" and shown("../a/b.wav") == "b.wav"
    assert shown("a\r\nb\x1b[31m.wav") == "a  b [31m.wav" and shown("") == "the file"


def test_empty_fields_are_no_wishes() -> None:
    request = request_of({"text": "", "tempo": "", "instruments": [], "seed": "5"}, Limits(), new=True)
    assert request.text is None and request.tempo is None and request.seed == 5
    with pytest.raises(RequestError, match="chords need a tempo"):
        request_of({"chords": "C G"}, Limits(), new=False)


@pytest.mark.parametrize(
    "odd", [{"queue": 0}, {"upload": -1}, {"seconds": 900.0}, {"disk": 10}, {"given": float("nan")}]
)
def test_limits_that_let_nothing_through(odd: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Limits(**odd)


def test_the_command_line_is_checked_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    from descant.gen.cli import main

    assert main(["serve", "--help"]) == 0 and "examples:" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["serve", "--port", str(taken.getsockname()[1])]) == 1
        assert "is in use: choose another with --port" in capsys.readouterr().err
    for words, status in (
        (["--workers", "0"], 2), (["--port", "70000"], 2), (["--queue", "0"], 2), (["--max-upload", "inf"], 2),
        (["--max-seconds", "900"], 2), (["--threads", "0"], 2), (["--host", "no.such.host.invalid"], 1),
        (["--model", "nowhere"], 1), (["--separator", "nothing"], 1),
    ):  # fmt: skip
        assert main(["serve", "--port", "0", *words]) == status, words
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_the_extra_one_line_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from descant.gen.cli import main

    monkeypatch.setattr(serve, "NEEDED", ("uvicorn_of_another_world",))
    assert main(["serve"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "descant serve: needs uvicorn_of_another_world: pip install 'descant[web]'"
    ]


def test_a_signal_ends_it_and_nothing_is_left(model_folder: Path, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "descant",
        "serve",
        "--port",
        "0",
        "--model",
        str(model_folder),
        "--separator",
        "hpss",
    ]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = process.stderr.readline()
        port = int(line.split("127.0.0.1:")[1].split()[0])
        client = Client(port, tmp_path)
        job = client.post("/api/generate", {"duration": 100, "seed": 1}).json
        assert list(tmp_path.iterdir()) and client.ask(job["url"]).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0 and process.stderr.read() == ""
    assert not list(tmp_path.iterdir())
