"""The manual: links lead somewhere, named files exist, examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import descant

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("codec", "eval", "gen", "lm", "recipes")
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "gen" / "weights").rglob("*.md")]
    if path.is_file()
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


def prose(path: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^(```|~~~).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    heads = re.findall(r"^#+\s+(.*)$", prose(path), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_files_that_are_named_exist(page: Path) -> None:
    rooms = "|".join((*ROOMS, "docs", "tests"))
    named = set(re.findall(rf"`((?:{rooms})/[\w/.-]+\.(?:py|md|json))`", prose(page)))
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_nothing_is_left_to_do(page: Path) -> None:
    assert not re.search(r"\b(TODO|TBD|FIXME|XXX|lorem ipsum)\b", prose(page))


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_has_its_page(room: str) -> None:
    page = ROOT / "docs" / f"{room}.md"
    assert page.is_file()
    assert f"]({room}.md)" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_every_page_can_be_reached_from_the_first() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in seen or not page.is_file() or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [page.parent / t.partition("#")[0] for t in LINK.findall(prose(page)) if ":" not in t]
    lost = [str(page.relative_to(ROOT)) for page in PAGES if page.resolve() not in seen]
    assert not lost


def test_examples_in_docstrings_are_true() -> None:
    names = ["descant"]
    for room in ROOMS:
        package = importlib.import_module(f"descant.{room}")
        names.append(package.__name__)
        names += [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    tried = 0
    for name in names:
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
        assert result.failed == 0, name
        tried += result.attempted
    assert tried > 0 and descant.__doc__ is not None
