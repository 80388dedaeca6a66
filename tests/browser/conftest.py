"""Our HTML pages in a real Chromium, for tests marked ``browser``: the machine brings Chromium, Python only playwright.

``make test`` leaves these tests out; ``make test-browser`` and ``.ci/run`` run them. CHROMIUM names another executable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:  # the plain suite collects this folder, too, on machines without playwright
    from playwright.sync_api import BrowserContext, Page, Request

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
QUIET = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
#: What a page may ask for: files, a server of the test's own, and what the page holds itself.
SCHEMES, HOSTS = ("file", "data", "blob", "about"), ("localhost", "127.0.0.1", "[::1]")


def local(url: str) -> bool:
    """Whether a request stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in SCHEMES or parts.netloc.rsplit(":", 1)[0] in HOSTS


@dataclass
class Browser:
    """An offline Chromium and what its pages did."""

    context: BrowserContext
    requests: list[str] = field(default_factory=list)
    """Every address that was asked for."""
    failed: list[str] = field(default_factory=list)
    """Requests that came to nothing, with the reason."""
    errors: list[str] = field(default_factory=list)
    """Messages of the console at level error, and uncaught exceptions."""

    def page_of(self, path: str | os.PathLike[str], width: int = 1280, height: int = 800) -> Page:
        """Open a file, or an address on localhost, and wait until it is loaded."""
        text = os.fspath(path)
        address = text if "://" in text else Path(text).resolve(strict=True).as_uri()
        page = self.context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", self._note_failure)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        page.goto(address, wait_until="load")
        return page

    def _note_failure(self, request: Request) -> None:
        # a player that knows enough breaks its own request off
        if request.resource_type != "media" or "ERR_ABORTED" not in (request.failure or ""):
            self.failed.append(f"{request.url}: {request.failure}")

    @property
    def foreign(self) -> list[str]:
        """Requests that would have left this machine."""
        return [url for url in self.requests if not local(url)]


@pytest.fixture(scope="session")
def _chromium() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.fail(f"there is no {CHROMIUM}: install Chromium, or name it with CHROMIUM=...")
    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        yield process
        process.close()


@pytest.fixture
def browser(_chromium: object) -> Iterator[Browser]:
    """A fresh profile whose pages reach nothing outside this machine; what they tried is in ``foreign``."""
    context = _chromium.new_context()  # type: ignore[attr-defined]
    context.route("**/*", lambda route: route.continue_() if local(route.request.url) else route.abort())
    yield Browser(context)
    context.close()
