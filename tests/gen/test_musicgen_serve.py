"""The server with MusicGens: what is offered is what they can, and what they cannot is refused before it waits."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from descant.gen.musicgen import MusicGenStudio
from descant.gen.serve_work import Tools

from .served import running

RATE = 16000


def tone(seconds: float = 1.0, gain: float = 0.3, channels: int = 1) -> bytes:
    t = np.arange(round(seconds * RATE)) / RATE
    wav = gain * sum(np.sin(2 * np.pi * 330 * h * t) / h for h in range(1, 5))
    out = io.BytesIO()
    soundfile.write(out, np.stack([wav] * channels, 1), RATE, format="WAV")
    return out.getvalue()


def test_a_melody_model_takes_melodies(studios: dict[str, MusicGenStudio]) -> None:
    with running([Tools(studios["melody"], "hpss")]) as client:
        about = client.ask("/api").json
        assert about["can"] == ["generate", "extend", "separate"] and about["melody"] and not about["parts"]
        assert {"text", "tempo", "seed", "guidance"} <= set(about["wishes"])
        assert not {"chords", "beats_per_bar", "negative", "nested"} & set(about["wishes"])
        state = client.wait(client.send("/api/generate", tone(), "hum.wav", text="blues", duration="0.4", seed="2"))
        assert state["status"] == "done", state
        (sound,) = state["result"]["sounds"]
        assert (sound["rate"], sound["channels"], sound["seconds"]) == (32000, 1, 0.4)
        assert state["result"]["tune"]["of"] == "the melody given"
        assert any("its first 0.4 s" in note for note in state["result"]["notes"])
        plain = client.wait(client.post("/api/generate", {"text": "blues", "duration": 0.4, "seed": 2}))
        bodies = [client.ask(one["result"]["sounds"][0]["url"]).body for one in (state, plain)]
        assert bodies[0] != bodies[1]
        state = client.wait(client.send("/api/generate", tone(gain=0.0), "still.wav", duration="0.4"))
        assert state["status"] == "failed" and "the melody is silent" in state["error"]


def test_a_stereo_model_extends_and_refuses_the_rest(studios: dict[str, MusicGenStudio]) -> None:
    with running([Tools(studios["stereo"], "hpss")]) as client:
        about = client.ask("/api").json
        assert about["can"] == ["generate", "extend", "separate"] and not about["melody"]
        assert about["model"]["channels"] == 2
        state = client.wait(client.send("/api/extend", tone(channels=2), duration="0.3", text="more", seed="1"))
        assert state["status"] == "done", state
        body = client.ask(state["result"]["sounds"][0]["url"]).body
        wav, rate = soundfile.read(io.BytesIO(body))
        assert rate == RATE and wav.shape == (round(1.3 * RATE), 2)
        for reply, says in (
            (client.send("/api/generate", tone()), "takes no melody"),
            (client.send("/api/accompany", tone(), parts="bass"), "it can generate, stream and extend"),
            (client.post("/api/generate", {"chords": "C G"}), "does not take chords"),
            (client.post("/api/generate", {"guidance": {"text": 3}}), "one weight of guidance"),
            (client.send("/api/extend", tone(), negative="hiss"), "does not take negative"),
        ):
            assert reply.status == 400 and says in reply.json["error"], reply.json
        assert client.ask("/api").json["jobs"]["receiving"] == 0


@pytest.mark.parametrize("name", ["index.html", "serve.js"])
def test_the_page_asks_what_there_is(studios: dict[str, MusicGenStudio], name: str) -> None:
    with running([Tools(studios["text"], "hpss")]) as client:
        page = client.ask(f"/web/{name}").body.decode()
        wishes = client.ask("/api").json["wishes"]
    if name == "serve.js":
        assert "about.wishes.includes" in page and "about.melody" in page.replace("?.", ".")
    else:
        assert all(f'name="{wish}"' in page for wish in wishes if wish not in ("top_k", "top_p", "nested"))
