"""The page of ``descant serve`` in a real browser, with a model small enough to be random."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

from ..gen.conftest import model_folder, studio  # noqa: F401
from ..gen.made import able
from ..gen.served import Client, running

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from descant.gen.load import Studio

    from .conftest import Browser

pytestmark = pytest.mark.browser
DONE = "article:has(a.button)"


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[Client]:  # noqa: F811
    from descant.gen.serve_work import Tools

    with running([Tools(studio, "hpss")], seconds=30) as one:
        yield one


@pytest.fixture
def take(tmp_path: Path) -> Path:
    path = tmp_path / "take.wav"
    t = np.arange(32000) / 16000
    soundfile.write(path, np.stack([0.3 * np.sin(2 * np.pi * 220 * t), 0.2 * np.sin(2 * np.pi * 330 * t)], 1), 16000)
    return path


def opened(browser: Browser, client: Client, width: int = 1280) -> Page:
    page = browser.page_of(client.address, width=width)
    page.locator("#genre option").nth(5).wait_for(state="attached")
    return page


def made(page: Page, count: int = 1) -> None:
    """Wait for so many results, drawn; the page's own rules forbid waiting by a script."""
    from playwright.sync_api import expect

    page.locator(DONE).nth(count - 1).wait_for(timeout=60_000)
    expect(page.locator("canvas.picture:not([data-drawn])")).to_have_count(0, timeout=60_000)


def quiet(browser: Browser) -> None:
    assert not browser.errors and not browser.failed and not browser.foreign


def test_a_sentence_becomes_music_that_is_heard_and_saved(browser: Browser, client: Client, tmp_path: Path) -> None:
    page = opened(browser, client)
    page.get_by_label("What to play").fill("a slow blues in E with piano")
    page.get_by_label("Seconds").fill("2")
    page.get_by_label("Seed").fill("7")
    page.get_by_text("Typed wishes").click()
    page.get_by_label("Tempo").fill("90")
    page.keyboard.press("Control+Enter")
    made(page)
    player = page.locator("article audio")
    assert player.evaluate(
        "a => new Promise(d => { if (a.duration) d(a.duration); else a.onloadedmetadata = () => d(a.duration) })"
    ) == pytest.approx(2.0, abs=0.05)
    assert player.evaluate("a => a.play().then(() => !a.paused)")
    drawn = page.evaluate("""[...document.querySelectorAll('article canvas')].map(canvas => {
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(Array.from({length: data.length / 4}, (_, i) => data[4 * i] + 256 * data[4 * i + 3])).size;
    })""")
    assert len(drawn) == 2 and drawn[0] >= 2 and drawn[1] > 20, "waveform and spectrogram show something"
    plan = page.locator("article dl").inner_text()
    assert "7" in plan and "90 BPM" in plan and "E " in plan
    assert "done" in page.locator("[role=status]").inner_text()
    with page.expect_download() as saved:
        page.locator("article a:text-is('WAV')").click()
    saved.value.save_as(tmp_path / "saved.wav")
    assert saved.value.suggested_filename == "descant-generate-7-music.wav"
    assert soundfile.info(tmp_path / "saved.wav").duration == pytest.approx(2.0, abs=0.01)
    page.get_by_label("Seed").fill("")
    page.get_by_role("button", name="Use seed 7").click()
    assert page.get_by_label("Seed").input_value() == "7"
    page.reload()
    made(page)
    assert page.locator("article h3").inner_text() == "a slow blues in E with piano", "a reload keeps the results"
    page.get_by_role("button", name="Remove: a slow blues").click()
    page.locator("#none").wait_for()
    quiet(browser)


def test_a_file_is_continued_and_the_result_taken_apart(
    browser: Browser, client: Client, take: Path, tmp_path: Path
) -> None:
    page = opened(browser, client)
    page.get_by_role("tab", name="Extend").click()
    page.get_by_role("button", name="Extend", exact=True).click()
    assert "Choose a file first" in page.get_by_role("alert").inner_text()
    page.set_input_files("#file", take)
    page.get_by_label("Seconds to add").fill("1")
    page.get_by_role("button", name="Extend", exact=True).click()
    made(page)
    page.get_by_role("button", name="Separate this").click()
    page.locator("#tab-separate[aria-selected=true]").wait_for()
    page.get_by_label("What the stems leave").check()
    page.get_by_role("button", name="Separate", exact=True).click()
    made(page, 2)
    names = page.locator("article").first.locator("h4").all_inner_texts()
    assert [name.split()[0].split("\n")[0] for name in names] == ["Harmonic", "Percussive", "Residual"]
    with page.expect_download() as saved:
        page.locator("article").first.get_by_role("link", name="All as ZIP").click()
    saved.value.save_as(tmp_path / "all.zip")
    archive = zipfile.ZipFile(tmp_path / "all.zip")
    lengths = {soundfile.info(io.BytesIO(archive.read(name))).frames for name in archive.namelist()}
    assert len(archive.namelist()) == 3 and lengths == {48000}
    places = page.evaluate("""
        async () => {
          const [one, two] = document.querySelector("article").querySelectorAll("audio");
          await one.play();
          one.currentTime = 1.0;
          await new Promise((done) => one.addEventListener("seeked", done, {once: true}));
          await two.play();
          return [one.paused, two.paused, two.currentTime];
        }
    """)
    assert places[:2] == [True, False] and places[2] >= 1.0, "the same place of the next stem"
    quiet(browser)


def test_mistakes_are_said_where_they_are_made(browser: Browser, client: Client, tmp_path: Path) -> None:
    page = opened(browser, client)
    page.get_by_text("Typed wishes").click()
    page.get_by_label("Chords, one a bar").fill("Hm")
    page.get_by_role("button", name="Generate", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert "Hm" in page.get_by_role("alert").inner_text()
    words = tmp_path / "<b>notes.txt"
    words.write_text("no sound at all")
    page.get_by_role("tab", name="Separate").click()
    page.set_input_files("#file", words)
    page.get_by_role("button", name="Separate", exact=True).click()
    page.locator("article .error").wait_for()
    said = page.locator("article .error").inner_text()
    assert "<b>notes.txt: is no audio this machine can read" in said and page.locator("article b").count() == 0
    assert browser.errors and all("400 (Bad Request)" in error for error in browser.errors)  # the browser's own line
    assert not browser.failed and not browser.foreign


def test_by_keyboard_alone(browser: Browser, client: Client) -> None:
    page = opened(browser, client)
    page.locator("#tab-generate").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-extend" and page.locator("#given").is_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.keyboard.type("waltz")
    page.keyboard.press("Tab")
    page.keyboard.type("2")
    assert page.evaluate("[document.activeElement.id, document.querySelector('#text').value]") == ["duration", "waltz"]
    names = page.evaluate("""[...document.querySelectorAll('input, select, textarea, button, audio')]
      .filter(one => one.checkVisibility() && !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
      .map(one => one.outerHTML)""")
    assert not names, "everything has a label"
    quiet(browser)


def test_what_is_recorded_is_a_wav(browser: Browser, client: Client) -> None:
    page = opened(browser, client)
    page.evaluate("""() => {
      navigator.mediaDevices.getUserMedia = async () => {  // no machine of ours has a microphone
        const context = new AudioContext(), out = context.createMediaStreamDestination();
        const tone = context.createOscillator();
        tone.connect(out);
        tone.start();
        return out.stream;
      };
    }""")
    page.get_by_role("tab", name="Separate").click()
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.wait_for_timeout(700)
    page.get_by_role("button", name="Stop").click()
    page.locator("#chosen:has-text('recording.wav')").wait_for()
    page.get_by_role("button", name="Separate", exact=True).click()
    made(page)
    assert page.locator("article h3").inner_text() == "recording.wav"
    quiet(browser)


def test_parts_are_added_with_a_model_that_can(browser: Browser, take: Path) -> None:
    from descant.gen.serve_work import Tools

    with running([Tools(able(), "hpss")]) as client:
        page = opened(browser, client)
        page.set_input_files("#file", take)  # a melody, while this tab is open
        page.get_by_role("tab", name="Accompany").click()
        assert page.locator("#preview").is_hidden(), "a melody is not taken for what is accompanied"
        page.set_input_files("#file", take)
        page.get_by_role("checkbox", name="bass").check()
        page.get_by_role("button", name="Accompany", exact=True).click()
        made(page)
        names = [name.split("\n")[0] for name in page.locator("article h4").all_inner_texts()]
        assert names[0].startswith("Mix") and any(name.startswith("New bass") for name in names)
        quiet(browser)


@pytest.mark.parametrize("width", [360, 820])
def test_the_page_fits_a_telephone(browser: Browser, client: Client, take: Path, width: int) -> None:
    page = opened(browser, client, width)
    page.get_by_role("tab", name="Separate").click()
    page.set_input_files("#file", take)
    page.get_by_role("button", name="Separate", exact=True).click()
    made(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate(
        f"[...document.querySelectorAll('main *')].filter(one => one.getBoundingClientRect().right > {width}).length"
    )
    assert not wide
    quiet(browser)
