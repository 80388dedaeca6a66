"""The audio page of the codec report, as it is published, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Browser

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "codec-audio" / "index.html"
LOAD = """
(player) => new Promise((done) => {
  const tell = () => done([player.duration, player.error ? player.error.message : ""]);
  player.addEventListener("loadedmetadata", tell);
  player.addEventListener("error", tell);
  player.preload = "metadata";
  player.load();
})
"""

pytestmark = pytest.mark.browser


def test_every_player_has_sound_and_nothing_leaves_the_machine(browser: Browser) -> None:
    page = browser.page_of(PAGE)
    players = page.query_selector_all("audio")
    assert len(players) >= 8
    for player in players:
        seconds, error = player.evaluate(LOAD)
        assert not error and seconds == pytest.approx(10.0, abs=0.1), player.get_attribute("src")
    pictures = page.evaluate("[...document.images].map(image => [image.src, image.complete && image.naturalWidth])")
    assert len(pictures) == len(players) and all(width for _, width in pictures), pictures
    assert not browser.errors and not browser.failed and not browser.foreign


def test_a_newly_started_player_goes_on_where_the_other_was(browser: Browser) -> None:
    page = browser.page_of(PAGE)
    places = page.evaluate("""
        async () => {
          const [one, two] = document.querySelectorAll("section audio");
          await one.play();
          one.currentTime = 4.0;
          await new Promise((done) => one.addEventListener("seeked", done, {once: true}));
          await two.play();
          return [one.paused, two.paused, one.currentTime, two.currentTime];
        }
    """)
    assert places[:2] == [True, False]
    assert places[2] >= 4.0 and places[3] == pytest.approx(places[2], abs=0.5)


def test_the_page_fits_a_telephone(browser: Browser) -> None:
    page = browser.page_of(PAGE, width=360, height=640)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert not browser.errors


def test_what_reaches_out_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text('<img src="https://example.org/a.png" /><script>console.error("no"); nothing()</script>')
    browser.page_of(path)
    assert browser.foreign == ["https://example.org/a.png"] and len(browser.failed) == 1
    assert any("nothing is not defined" in error for error in browser.errors) and "no" in browser.errors
