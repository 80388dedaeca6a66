"""The report's page and the listening tests, used as a person uses them, in a real browser."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.image
import numpy as np
import pytest

from descant.eval.report.listening import Item, Pair, Study, read_answers, write_ab, write_mushra
from descant.eval.report.page import write_page

from ..eval.report.page_made import FILE, NASTY, report, save, tone

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .conftest import Browser

pytestmark = pytest.mark.browser

LENGTH = """
(player) => new Promise((done) => {
  player.addEventListener("loadedmetadata", () => done(player.duration));
  player.addEventListener("error", () => done(player.error.message));
  player.preload = "metadata";
  player.load();
})
"""
PLACE = """
(player) => new Promise((done) => {
  const look = () => { if (player.currentTime) done(player.currentTime); else setTimeout(look, 10); };
  look();
})
"""
ORDER = """
[...document.querySelectorAll("#clips-table tbody tr")].filter((row) => !row.hidden)
  .map((row) => row.cells[%d].dataset.value)
"""


def clean(browser: Browser) -> None:
    """Nothing went wrong, and nothing but files was asked for."""
    assert not browser.errors and not browser.failed
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data", "blob"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with its page, in a folder whose own name is awkward."""
    place = tmp_path_factory.mktemp("page") / "a report #1 & é"
    place.mkdir()
    write_page(save(place, report(place)))
    return place


def test_the_page_opens_without_a_word_of_complaint(browser: Browser, folder: Path) -> None:
    page = browser.page_of(folder / "index.html")
    name = f"run {NASTY}".replace("\u202e", "\ufffd")
    assert page.title() == f"{name} against {name}: descant score", "and no script of a caption changed it"
    assert page.locator(".verdict strong").inner_text() == "Valid"
    assert page.locator("svg.plot").count() > 8 and page.locator(".card:visible").count() == 12
    widths = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert widths == [320] * 22
    clean(browser)


def test_every_player_finds_its_sound(browser: Browser, folder: Path) -> None:
    page = browser.page_of(folder / "index.html")
    players = page.query_selector_all(".card audio")
    assert len(players) == 12 + 10 + 1
    assert any(FILE[:3] in (player.evaluate("p => decodeURIComponent(p.src)")) for player in players)
    for player in players:
        assert player.evaluate(LENGTH) == pytest.approx(1.0, abs=0.01)
    clean(browser)


def test_embedded_sounds_play_after_the_files_are_gone(browser: Browser, tmp_path: Path) -> None:
    write_page(save(tmp_path, report(tmp_path, clips=3)), embed=True)
    for path in (tmp_path / "gen").iterdir():
        path.unlink()
    page = browser.page_of(tmp_path / "index.html")
    for player in page.query_selector_all(".card audio"):
        assert player.evaluate(LENGTH) == pytest.approx(1.0, abs=0.1)
    clean(browser)


def test_one_player_at_a_time_and_a_spectrogram_is_a_place_to_start(browser: Browser, folder: Path) -> None:
    page = browser.page_of(folder / "index.html")
    page.locator(".card .spec:visible").first.click(position={"x": 150, "y": 20})
    page.locator(".spec.on").wait_for()
    first = page.locator(".card:visible audio").first
    place = first.evaluate(PLACE)
    width = page.locator(".card .spec:visible").first.bounding_box()
    assert width and place >= 0.9 * 150 / width["width"], "started where the click was"
    states = page.evaluate("""
        async () => {
          const [one, two] = [...document.querySelectorAll(".card audio")];
          one.loop = two.loop = true;
          await one.play(); await two.play();
          const both = [one.paused, two.paused];
          await one.play();
          return [...both, one.paused, two.paused];
        }
    """)
    assert states == [True, False, False, True]
    clean(browser)


def test_cards_are_ranked_by_the_metric_that_is_chosen(browser: Browser, folder: Path) -> None:
    page = browser.page_of(folder / "index.html")
    names = "b => [...document.querySelectorAll(`.band[data-band=${b}] .card h4`)].map(h => h.textContent)"
    assert page.evaluate(names, "best")[1:] == ["clip 01", "clip 02", "clip 03"]
    assert page.evaluate(names, "worst") == ["clip 08", "clip 09", "clip 10", "clip 11"]
    page.select_option("#ranking", "clap")
    score = {name: (7 * k) % 12 for k, name in enumerate(["first", *(f"clip {k:02d}" for k in range(1, 12))])}
    best = sorted(score, key=lambda name: -score[name])[:4]
    assert page.evaluate(names, "best") == best
    assert page.locator(".values li.chosen").first.inner_text().startswith("Audio-text score")
    page.fill("#find-card", "NUMBER 7")
    assert page.locator(".card:visible h4").all_inner_texts() == ["clip 07"]
    clean(browser)


def test_the_table_sorts_by_click_and_by_key_and_is_searched(browser: Browser, folder: Path) -> None:
    page = browser.page_of(folder / "index.html")
    heads = page.locator("#clips-table thead button")
    heads.nth(2).click()
    up = page.evaluate(ORDER % 2)
    assert [float(v) for v in up] == sorted(map(float, up))
    assert page.locator("#clips-table th[aria-sort=ascending]").count() == 1
    heads.nth(2).focus()
    page.keyboard.press("Enter")
    assert page.evaluate(ORDER % 2) == up[::-1]
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    scores = page.evaluate(ORDER % 3)
    assert [float(v) for v in scores] == sorted(map(float, scores)) and scores != up
    page.fill("#find-row", "clip 1")
    assert page.evaluate(ORDER % 0) == [n for n in page.evaluate(ORDER % 0) if n.startswith("clip 1")]
    assert page.locator("#row-count").inner_text() == "2 of 12 clips"
    page.fill("#find-row", "")
    page.locator("#clips-table .play").first.click()
    assert page.locator("#dock").is_visible()
    assert page.locator("#dock-player").evaluate("p => p.play().then(() => p.duration)") == pytest.approx(1.0, abs=0.01)
    page.click("#dock-close")
    assert page.locator("#dock").is_hidden() and page.locator("#dock-player").evaluate("p => p.paused")
    clean(browser)


def test_it_is_dark_in_the_dark_and_fits_a_telephone(browser: Browser, folder: Path) -> None:
    page = browser.page_of(folder / "index.html", width=360, height=700)
    colours = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        seen = [page.evaluate(f"getComputedStyle(document.body).{what}") for what in ("backgroundColor", "color")]
        colours[scheme] = [sum(map(int, colour[4:-1].split(","))) for colour in seen]
        picture = matplotlib.image.imread(io.BytesIO(page.screenshot()), format="png")
        colours_seen = len(np.unique((picture[..., :3] * 15).round().reshape(-1, 3), axis=0))
        assert colours_seen > 20, "not blank"
    (paper, ink), (night, chalk) = colours["light"], colours["dark"]
    assert paper > 700 > 100 > ink and night < 100 < 700 < chalk
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    clean(browser)


def test_a_link_to_a_recipe_opens_it(browser: Browser, folder: Path) -> None:
    page = browser.page_of(folder / "index.html")
    page.locator(".recipe a").first.click()
    assert page.locator("details.recipe-box[open]").count() == 1
    clean(browser)


def test_a_report_that_failed_says_so_in_the_first_screen(browser: Browser, tmp_path: Path) -> None:
    write_page(save(tmp_path, replace(report(tmp_path, clips=3, ok=False), clips={}, curves={})))
    page = browser.page_of(tmp_path / "index.html")
    box = page.locator(".verdict.bad").bounding_box()
    assert box and box["y"] + box["height"] < 800
    clean(browser)


# --- listening tests


def made(folder: Path) -> dict[str, Path]:
    from descant.codec.audio import write

    pitches = {"original": 220.0, "oneton": 330.0, "another": 440.0}
    for name, pitch in pitches.items():
        write(folder / f"{name}.wav", tone(pitch, seconds=0.5))
    return {name: folder / f"{name}.wav" for name in pitches}


def meaning(key: Path) -> dict[str, str]:
    """Sound -> system."""
    rows = json.loads(key.read_text())["items"].values()
    return {code: name for item in rows for code, name in item["sounds"].items()}


def begin(browser: Browser, folder: Path, listener: str) -> Page:
    page = browser.page_of(folder / "index.html")
    page.fill("#listener", listener)
    page.keyboard.press("Enter")
    return page


def ready(page: Page, count: int) -> None:
    page.locator("#trial:not([aria-busy])").wait_for()
    page.locator("#count", has_text=f"Item {count} ").wait_for()


def hear(page: Page) -> None:
    """Play every sound of the item until the page counts it as heard."""
    for place in range(page.locator("#trial .sound").count()):
        page.locator("#trial .sound").nth(place).click()
        page.locator("#trial .sound").nth(place).and_(page.locator(".heard")).wait_for()


def saved(page: Page, path: Path) -> Path:
    page.locator("#end").wait_for()
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(path)
    return path


def test_a_blind_pair_is_answered_and_read(browser: Browser, tmp_path: Path) -> None:
    sounds = made(tmp_path)
    pairs = [Pair(name=f"p{k}", sounds={n: sounds[n] for n in ("oneton", "another")}, caption=NASTY) for k in range(3)]
    key = write_ab(tmp_path / "test", pairs, seed=5)
    meant = meaning(key)
    page = begin(browser, tmp_path / "test", "Ann #1")
    for count in (1, 2, 3):
        ready(page, count)
        assert page.locator("#caption").inner_text().startswith("<script>")
        assert not page.is_enabled("#next")
        if count < 3:
            codes = [b.get_attribute("data-code") for b in page.query_selector_all("#trial .sound")]
            page.locator("#answer input").nth(next(k for k, c in enumerate(codes) if meant[str(c)] == "oneton")).check()
        else:
            page.get_by_label("No preference").check()
        assert not page.is_enabled("#next") and "still to be heard" in page.inner_text("#hint")
        hear(page)
        page.click("#next")
    answers = saved(page, tmp_path / "ann.json")
    (choice,) = read_answers([answers], key).choices
    assert (choice.first, choice.wins, choice.losses, choice.ties) == ("another", 0, 2, 1)
    assert choice.by_listener == {"Ann #1": (0, 2, 1)}
    clean(browser)


def test_abx_hides_which_is_x(browser: Browser, tmp_path: Path) -> None:
    sounds = made(tmp_path)
    key = write_ab(tmp_path / "test", [Pair(name="p", sounds={n: sounds[n] for n in ("oneton", "another")})], 5, "abx")
    page = begin(browser, tmp_path / "test", "Ann")
    ready(page, 1)
    assert [b.get_attribute("data-code") for b in page.query_selector_all("#trial .sound")][2] == "x"
    for number in ("1", "2", "3"):
        page.keyboard.press(number)
        page.locator("#trial .sound.heard").nth(int(number) - 1).wait_for()
    page.get_by_label("X is B").check()
    page.click("#next")
    answers = saved(page, tmp_path / "ann.json")
    row = json.loads(answers.read_text())["answers"][0]
    assert row["x"] in row["order"] and row["choice"] == row["order"][1]
    assert read_answers([answers], key).choices[0].wins == (row["x"] == row["choice"])
    clean(browser)


def test_mushra_is_rated_left_resumed_and_read(browser: Browser, tmp_path: Path) -> None:
    sounds = made(tmp_path)
    items = [Item(name=f"item {k}", reference=sounds["original"], sounds={n: sounds[n] for n in ("oneton", "another")})
             for k in range(2)]  # fmt: skip
    key = write_mushra(tmp_path / "test", items, seed=5, study=Study(title="How close?"))
    meant = meaning(key)
    wanted = {"reference": 100, "anchor 3500 Hz": 20, "oneton": 80, "another": 60}
    page = begin(browser, tmp_path / "test", "Bo")
    orders = []
    for count in (1, 2):
        ready(page, count)
        hear(page)
        sliders = page.locator("#answer input[type=range]")
        orders.append([meant[str(s.get_attribute("data-code"))] for s in sliders.all()])
        assert sorted(orders[-1]) == sorted(wanted)
        for place, system in enumerate(orders[-1]):
            assert not page.is_enabled("#next")
            sliders.nth(place).focus()
            if system == "reference":
                page.keyboard.press("End")
            else:
                sliders.nth(place).fill(str(wanted[system]))
        page.click("#next")
        if count == 1:  # closed in the middle: the answers are kept
            ready(page, 2)
            page.reload()
            page.get_by_role("button", name="Go on as Bo, item 2").click()
    found = read_answers([saved(page, tmp_path / "bo.json")], key)
    assert {name: result.value for name, result in found.ratings.items()} == wanted
    assert found.listeners == ("Bo",) and set(found.items) == {"item 0", "item 1"}
    clean(browser)


def test_sounds_play_in_step_and_loop(browser: Browser, tmp_path: Path) -> None:
    sounds = made(tmp_path)
    write_ab(tmp_path / "test", [Pair(name="p", sounds={n: sounds[n] for n in ("oneton", "another")})], 5)
    page = begin(browser, tmp_path / "test", "Cy")
    ready(page, 1)
    page.keyboard.press("1")
    page.locator("#trial .sound.heard").first.wait_for()
    page.keyboard.press("2")
    # a quarter of a second of each, and the keys between them: the loop has gone on
    page.locator("#trial .sound.heard").nth(1).wait_for()
    assert page.inner_text("#play").endswith("Pause")
    page.click("#from")
    assert " to 0.5 s" in page.inner_text("#region")
    page.click("#whole")
    assert page.inner_text("#region") == ""
    page.click("#play")
    assert page.inner_text("#play").endswith("Play")
    clean(browser)


def test_a_lost_sound_is_told(browser: Browser, tmp_path: Path) -> None:
    sounds = made(tmp_path)
    write_ab(tmp_path / "test", [Pair(name="p", sounds={n: sounds[n] for n in ("oneton", "another")})], 5)
    for path in (tmp_path / "test" / "sounds").iterdir():
        path.unlink()
    page = begin(browser, tmp_path / "test", "Di")
    page.locator("#trouble", has_text="could not be loaded").wait_for()
    assert not page.is_enabled("#next")
