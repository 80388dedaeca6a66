"""MusicGen beyond 30 s: windows as the library's generate() makes them, streams, melodies, what is kept."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from descant.codec.audio import Audio
from descant.gen import musicgen, musicgen_stream, musicgen_windows
from descant.gen.extend import extend_file
from descant.gen.generate import fade
from descant.gen.musicgen import MusicGenStudio
from descant.gen.musicgen_melody import lead
from descant.gen.musicgen_windows import Windows, Wish
from descant.gen.request import Request, RequestError
from descant.gen.stream import play, soft
from descant.lm.chroma import chroma
from descant.lm.fast import FastMusicGen
from descant.lm.sample import SamplingSettings

SIZE, AGAIN = 60, 24  # frames of a window and of what it hears again, in these tests


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(musicgen_windows, "WINDOW", SIZE / 50)
    monkeypatch.setattr(musicgen_windows, "HEARD", AGAIN / 50)


def tones(seconds: float = 1.5, rate: int = 32000) -> Audio:
    """Two notes, A and then E, with partials."""
    t = torch.arange(round(seconds * rate)) / rate
    pitch = torch.where(t < seconds / 2, 220.0, 329.63)
    wav = sum(0.3 / h * (2 * torch.pi * pitch * h * t).sin() for h in range(1, 5))
    return Audio(torch.as_tensor(wav)[None], rate)


def made(wish: Wish, studio: MusicGenStudio, frames: int, **given: Any) -> torch.Tensor:
    return torch.stack(list(Windows(studio, wish, 3, frames, **given)), 1)


@pytest.fixture
def library(folders: dict[str, Path]) -> Any:
    """Codes [K, F] by the library's generate(), window by window, written out as AudioCraft's text has it."""
    transformers = pytest.importorskip("transformers")
    helper = _helper()

    def compose(name: str, frames: int, guidance: float, melody: Audio | None = None) -> torch.Tensor:
        kind = "MusicgenMelodyForConditionalGeneration" if name == "melody" else "MusicgenForConditionalGeneration"
        model = getattr(transformers, kind).from_pretrained(folders[name]).eval()
        codes = torch.empty(8 if name == "stereo" else 4, 0, dtype=torch.long)
        offset = 0
        while codes.shape[1] < frames:
            known = codes[:, offset:]
            length = min(frames - offset, SIZE)
            given: dict[str, Any] = dict(helper.tokenizer()(["a slow blues"], return_tensors="pt"))
            given.pop("token_type_ids", None)
            if melody is not None:
                wav = np.resize(melody.wav[0].numpy(), 40 * 32000)  # begun again where it ends
                given["input_features"] = chroma(torch.from_numpy(wav[offset * 640 :][: 30 * 32000])[None])
            if known.shape[1]:
                given["decoder_input_ids"] = known
            steps = length + 3 - known.shape[1]
            found = helper.tokens(model, steps, **given, guidance_scale=guidance if guidance > 1 else None)[0]
            codes = torch.cat([codes[:, :offset], found], 1)
            offset += SIZE - AGAIN
        return codes

    return compose


def _helper() -> Any:
    path = Path(__file__).parent.parent / "lm" / "musicgen_made.py"
    spec = importlib.util.spec_from_file_location("musicgen_made", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "guidance"), [("text", 3.0), ("stereo", 1.0), ("melody", 1.0), ("melody", 3.0)]
)  # fmt: skip
def test_windows_are_those_of_the_library(
    studios: dict[str, MusicGenStudio], library: Any, name: str, guidance: float
) -> None:
    melody = tones() if name == "melody" else None
    wanted = library(name, 140, guidance, melody)
    heard = None if melody is None else lead(melody, 2.8)[0]
    found = made(
        Wish("a slow blues", SamplingSettings(temperature=0.0, top_k=0, guidance=guidance)), studios[name], 140,
        lead=heard,
    )  # fmt: skip
    assert found.shape == wanted.shape == (8 if name == "stereo" else 4, 140)
    assert len(found.unique()) > 10
    same = (found == wanted).all(0)
    # a tie of two tokens would part the two from there on; these seeds have none
    assert bool(same.all()), f"they part at frame {int((~same).nonzero()[0])}"


@pytest.mark.parametrize(
    ("name", "engine"), [("text", "fp32"), ("melody", "module"), ("melody", "fp32"), ("melody", "int8")]
)
def test_what_is_kept_changes_nothing(
    studios: dict[str, MusicGenStudio], name: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = studios[name]
    one = studio.lm if engine == "module" else FastMusicGen(studio.lm, engine)
    monkeypatch.setitem(studio.__dict__, "engine", one)
    wish = Wish("a slow blues", SamplingSettings())
    read: list[int] = []
    if isinstance(one, FastMusicGen):
        right = one._read
        monkeypatch.setattr(one, "_read", lambda x, *rest: read.append(x.shape[1]) or right(x, *rest))
    kept = made(wish, studio, 100)
    told = Windows._told
    monkeypatch.setattr(Windows, "_told", lambda *given: (told(*given)[0], None))
    again = list(read)
    read.clear()
    fresh = made(wish, studio, 100)
    # sums over a prefix that is there already are made in another order: two tokens could be as good as equally likely
    assert (kept == fresh).float().mean() > (0.99 if engine in ("module", "fp32") else 0.6)
    if name == "melody" and isinstance(one, FastMusicGen):
        assert len(again) == len(read) == 3 and again[0] == read[0]
        assert [b - a for a, b in zip(again[1:], read[1:], strict=True)] == [read[0] - 1] * 2


def test_conditions_are_made_once_for_all_windows(
    studios: dict[str, MusicGenStudio], monkeypatch: pytest.MonkeyPatch
) -> None:
    studio, calls = studios["text"], []
    right = studio.engine.ready
    monkeypatch.setattr(studio.engine, "ready", lambda *given, **named: calls.append(1) or right(*given, **named))
    made(Wish("a slow blues", SamplingSettings()), studio, 200)
    assert len(calls) == 1


def test_rows_made_ready_for_another_guidance_are_refused(studios: dict[str, MusicGenStudio]) -> None:
    engine = studios["text"].engine
    cond = studios["text"].lm.condition(["a"])
    with pytest.raises(ValueError, match="2 rows were made ready for 1 pieces"):
        engine.stream(5, cond, settings=SamplingSettings(guidance=1.0), ready=engine.ready(cond, True))


@pytest.mark.parametrize("name", ["text", "stereo", "melody"])
@pytest.mark.parametrize("seconds", [0.7, 2.5])
def test_a_stream_is_the_offline_music(studios: dict[str, MusicGenStudio], name: str, seconds: float) -> None:
    studio, melody = studios[name], tones() if name == "melody" else None
    blocks = list(studio.stream("a slow blues", seconds, melody=melody, seed=5))
    heard = torch.cat([block.wav for block in blocks], 1)
    music = studio.generate("a slow blues", duration=seconds, melody=melody, seed=5)
    wanted = soft(musicgen.decode(studio, music.codes)[:, : round(seconds * 32000)])
    assert heard.shape == wanted.shape == (2 if name == "stereo" else 1, round(seconds * 32000))
    assert (heard - fade(wanted, 32000, 0.003, 0.025)).abs().max() <= 1e-5
    # four frames at most are the first sound, however long the music
    assert blocks[0].wav.shape[1] <= 4 * 640


def test_sound_comes_after_a_dozen_frames(studios: dict[str, MusicGenStudio]) -> None:
    player = play(studios["text"], Request(text="a", seed=1))
    drawn: list[int] = []
    windows = iter(player._windows)  # type: ignore[attr-defined]
    player._codes = lambda: (drawn.append(1) or frame for frame in windows)  # type: ignore[method-assign]
    assert next(player).wav.shape[1] > 0
    assert len(drawn) <= 12


def test_endless_music_keeps_little_and_repeats_itself(studios: dict[str, MusicGenStudio]) -> None:
    studio = studios["melody"]

    def start() -> tuple[musicgen_stream.MusicGenPlayer, Iterator[Audio]]:
        player = play(studio, Request(text="a", seed=1), melody=tones())
        assert isinstance(player, musicgen_stream.MusicGenPlayer)
        return player, itertools.islice(player, 9)

    player, blocks = start()
    first = []
    for block in blocks:
        first.append(block.wav)
        assert len(player._windows._heard) <= AGAIN
        state = player._decoder.state().values()
        assert sum(held.numel() for held in state) < 200_000
    assert sum(wav.shape[1] for wav in first) > 3 * SIZE * 640
    again = [block.wav for block in start()[1]]
    assert torch.equal(torch.cat(first, 1), torch.cat(again, 1))
    assert any("begun again" in note for note in player.plan.notes)


def test_a_change_begins_a_window_at_once(studios: dict[str, MusicGenStudio]) -> None:
    studio = studios["text"]
    plain = torch.cat([block.wav for block in studio.stream("a slow blues", 2.4, seed=5)], 1)
    player = studio.stream("a slow blues", 2.4, seed=5)
    parts = [next(player).wav, next(player).wav]
    for wrong in ({"seed": 3}, {"chords": "C G"}, {"tempo": 1000}):
        with pytest.raises(RequestError):
            player.change(**wrong)  # type: ignore[arg-type]
    player.change("bossa nova", tempo=90)
    assert player.plan.text == "bossa nova. bpm: 90"
    parts += [block.wav for block in player]
    changed = torch.cat(parts, 1)
    assert changed.shape == plain.shape and bool(changed.isfinite().all())
    edge = parts[0].shape[1] + parts[1].shape[1]
    assert torch.equal(changed[:, :edge], plain[:, :edge])
    assert not torch.allclose(changed[:, edge + 20 * 640 :], plain[:, edge + 20 * 640 :], atol=1e-3)


def test_a_melody_goes_on_where_the_window_begins() -> None:
    one, notes = lead(tones(6.0), 60.0)
    assert notes == ("the melody lasts 6.0 s and is begun again where it ends",)
    # six seconds later it is the same again, three seconds later the other note comes first
    assert torch.equal(one.window(6.0), one.window(0.0))
    begin = [one.window(start)[0, 8].argmax().item() for start in (0.0, 3.0, 9.0, 12.0)]
    assert begin == [9, 4, 4, 9]
    _, notes = lead(tones(6.0), 2.0)
    assert notes == ("the melody lasts 6.0 s: its first 2 s are followed",)
    assert lead(tones(2.0), 2.0)[1] == ()
    long = Audio(tones(4.0).wav.repeat(1, 30), 32000)
    assert lead(long, 1.0)[0].wav.shape[1] <= 31 * 32000


def drums(seconds: float = 3.0) -> Audio:
    """Bursts of noise, as cymbals and snares are."""
    t = torch.arange(round(seconds * 32000)) / 32000
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    return Audio((0.3 * noise * torch.exp(-(t % 0.25) * 40))[None], 32000)


@pytest.mark.parametrize(
    ("melody", "says"),
    [
        (drums(), "no tune is heard"),
        (Audio(torch.zeros(2, 64000), 32000), "the melody is silent"),
        (Audio(torch.full((1, 64000), torch.nan), 32000), "not numbers"),
        (Audio(torch.zeros(1, 1), 32000), "give 0.5 s or more"),
        (Audio(torch.zeros(1, 0), 32000), "give 0.5 s or more"),
        (torch.zeros(40, 12), "as sound, not as numbers"),
    ],
)
def test_melodies_that_are_none(studios: dict[str, MusicGenStudio], melody: Any, says: str) -> None:
    for verb in (
        lambda: studios["melody"].generate("a", melody=melody, duration=0.5),
        lambda: studios["melody"].stream("a", 0.5, melody=melody),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            verb()
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "channels"), [("text", 1), ("stereo", 2)])
def test_files_go_on_for_several_windows(
    studios: dict[str, MusicGenStudio], name: str, channels: int, tmp_path: Path
) -> None:
    from descant.codec import audio

    draw = torch.Generator().manual_seed(1)
    given = Audio(torch.randn(channels, 44100 * 2, generator=draw) * 0.1, 44100)
    audio.write(tmp_path / "in.wav", given)
    calls: list[tuple[int, int]] = []
    more = extend_file(
        studios[name], tmp_path / "in.wav", tmp_path / "out.wav", Request(text="a", duration=2.0, seed=4),
        lambda done, of: calls.append((done, of)),
    )  # fmt: skip
    whole, old = audio.read(tmp_path / "out.wav").wav, audio.read(tmp_path / "in.wav").wav
    assert whole.shape == (channels, 44100 * 4)
    kept = 44100 * 2 - round(0.02 * 44100) - 1
    assert torch.equal(whole[:, :kept], old[:, :kept])
    assert more.codes.shape[1] == AGAIN + 101 and calls[-1] == (101, 101)
    assert any("windows of" in note for note in more.notes)
    direct = studios[name].extend(Audio(old, 44100), 2.0, "a", seed=4)
    assert torch.equal(direct.codes, more.codes)


def test_verbs_it_lacks_are_said_with_those_it_has(studios: dict[str, MusicGenStudio]) -> None:
    studio, given = studios["text"], tones(3.0)
    for verb in (
        lambda: studio.accompany(given, ["bass"]),
        lambda: studio.inpaint(given, 1.0, 2.0),
        lambda: studio.loop(given),
        lambda: studio.generate("a", stems={"drums": given}),
        lambda: play(studio, Request(text="a"), 1.0, stems={"drums": given}),
    ):
        with pytest.raises(RequestError, match=r"it can generate, stream and extend$") as caught:
            verb()
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(RequestError, match="takes no melody"):
        studio.stream("a", 1.0, melody=given)
