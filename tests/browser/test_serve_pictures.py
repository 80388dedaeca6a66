"""The manual's pictures of ``descant serve``, made with the models of the package.

``PICTURES=docs/images make test-browser`` writes them there anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..gen.served import Client, running
from .test_serve_page import made, opened, quiet

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from .conftest import Browser

pytestmark = pytest.mark.browser
LARGEST = 150_000  # bytes
MANUAL = Path(__file__).resolve().parents[2] / "docs" / "images"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    from descant.gen.load import load
    from descant.gen.serve_work import Tools

    with running([Tools(load("embedded", threads=1))], keep=8) as one:
        yield one


def taken(page: Page | Locator, path: Path) -> None:
    """What is seen, in 96 colours, which suffice for a page and make a small file."""
    from PIL import Image

    seen = Image.open(BytesIO(page.screenshot())).convert("RGB")
    seen.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < LARGEST


def groove(path: Path) -> Path:
    """Drums alone, eight seconds of the built-in composer's."""
    from descant.codec.audio import Audio, write
    from descant.recipes import audio_of, builtin

    stems = audio_of.render_piece(builtin.compose(4, "test", 8.0, "rock"), 32000)
    write(path, Audio(0.7 * stems["drums"] / stems["drums"].abs().max(), 32000))
    return path


def test_the_pictures_of_the_manual(browser: Browser, client: Client, tmp_path: Path) -> None:
    folder = Path(os.environ.get("PICTURES", tmp_path))
    page = opened(browser, client, 1120)
    page.set_viewport_size({"width": 1120, "height": 720})
    page.get_by_label("What to play").fill("an upbeat bossa nova in G minor with flute and nylon guitar")
    page.get_by_label("Seconds").fill("6")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Generate", exact=True).click()
    made(page)
    taken(page, folder / "serve-generate.png")
    page.get_by_role("button", name="Separate this").click()
    page.locator("#tab-separate[aria-selected=true]").wait_for()
    page.get_by_role("button", name="Separate", exact=True).click()
    made(page, 2)
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 400, "height": 900})
    page.reload()
    made(page, 2)
    page.evaluate("document.querySelector('#results').scrollIntoView()")
    taken(page, folder / "serve-stems.png")
    taken(page.locator("figure"), folder / "serve-tune.png")
    quiet(browser)
    page = opened(browser, client, 1120)
    page.set_viewport_size({"width": 1120, "height": 900})
    page.get_by_role("tab", name="Accompany").click()
    page.set_input_files("#file", groove(tmp_path / "drums.wav"))
    page.get_by_role("checkbox", name="bass").check()
    page.get_by_role("checkbox", name="keys").check()
    page.get_by_label("Seed").fill("3")
    page.get_by_role("button", name="Accompany", exact=True).click()
    page.locator("article h4", has_text="New bass").wait_for(timeout=60_000)
    made(page)
    page.evaluate("document.querySelector('#results').scrollIntoView()")
    taken(page, folder / "serve-accompany.png")
    quiet(browser)
    for name in ("serve-generate.png", "serve-stems.png", "serve-tune.png", "serve-accompany.png"):
        assert (MANUAL / name).stat().st_size < LARGEST, "the manual shows them"
