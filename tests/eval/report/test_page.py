"""The report's page: what it says, that nothing in a report can break out of it, that it stays small and the same."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from descant.eval.metric import Result
from descant.eval.report.page import write_page
from descant.eval.report.page_clips import bands, choose
from descant.eval.report.page_compare import judgement
from descant.eval.report.page_html import Raw, address, data_block, duration, number, tag

from .page_made import FILE, NASTY, report, save


class Outline(HTMLParser):
    """Elements, attributes and text of a page, and whether what was opened was closed."""

    VOID = frozenset({"meta", "img", "input", "br", "hr", "link", "source"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack[-1] == tag, (tag, self.stack[-3:])
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.text.append(data)

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]


def outline(folder: Path) -> Outline:
    return Outline((folder / "index.html").read_text(encoding="utf-8"))


def test_it_says_what_was_scored_and_what_came_out(tmp_path: Path) -> None:
    written = write_page(save(tmp_path, report(tmp_path)))
    page = outline(tmp_path)
    text = "".join(page.text)
    assert written.bytes == written.path.stat().st_size and not written.missing and not page.stack
    wanted = ("Valid", "6.500", "not corrected 9", "95%: 5.500 to 7.500", "not computed", "12 clips", "Seed 0",
              "A minor", "Not scored: 1 clip", "1 silent clip", "The line meets 0 at 6.5", "descant-v1:")  # fmt: skip
    for words in wanted:
        assert words in text, words
    assert len(page.all("article")) == 12
    # 12 clips, 10 references, one melody, the player of the table
    assert len(page.all("audio")) == 12 + 10 + 1 + 1
    assert len(page.all("svg")) >= 2 + 4 + 1 + 2
    for drawing in page.all("svg"):
        assert drawing["role"] == "img" and drawing["aria-label"]


def test_a_failed_self_check_is_the_first_thing_said(tmp_path: Path) -> None:
    write_page(save(tmp_path, report(tmp_path, ok=False)))
    text = "".join(outline(tmp_path).text)
    assert text.index("Not valid") < text.index("Fréchet distance")
    assert "Do not use its figures" in text and "'codec reconstruction' is not above 'reference halves'" in text


def test_without_a_check_it_says_so(tmp_path: Path) -> None:
    made = report(tmp_path, clips=3)
    write_page(save(tmp_path, replace(made, self_check=replace(made.self_check, groups=(), reason="asked not to"))))
    assert "Not checked" in "".join(outline(tmp_path).text)


def test_no_text_of_a_report_becomes_markup(tmp_path: Path) -> None:
    write_page(save(tmp_path, report(tmp_path)))
    raw = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Outline(raw)
    own = [attributes for attributes in page.all("script") if attributes.get("type") != "application/json"]
    assert len(own) == 1 and not own[0], "one script, and it is ours"
    assert "<script>document" not in raw and "\u202e" not in raw
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert not [a for _, attributes in page.elements for a in attributes if a == "style"]
    shown = NASTY.replace("\u202e", "\ufffd")
    assert "".join(page.text).count(shown) >= 8, "and yet it can be read"


def test_the_policy_names_the_one_script_and_style(tmp_path: Path) -> None:
    write_page(save(tmp_path, report(tmp_path, clips=3)))
    raw = (tmp_path / "index.html").read_text(encoding="utf-8")
    policy = next(a["content"] for a in Outline(raw).all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy and "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for name in ("script", "style"):
        found = re.findall(rf"<{name}>(.*?)</{name}>", raw, re.DOTALL)
        assert len(found) == 1
        digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy


def test_it_refers_to_nothing_outside(tmp_path: Path) -> None:
    write_page(save(tmp_path, report(tmp_path)))
    for element, attributes in outline(tmp_path).elements:
        for name in ("src", "href", "srcset", "action", "data-src", "poster"):
            value = attributes.get(name)
            if value is None:
                continue
            assert value.startswith(("#", "data:image/png;base64,")) or element in ("audio", "button"), value
            if element in ("audio", "button"):
                assert (tmp_path / unquote(value)).is_file(), value


def test_a_file_name_full_of_signs_is_found(tmp_path: Path) -> None:
    assert (
        address(tmp_path / "gen" / FILE, tmp_path)
        == "gen/a%20%231%2050%25%20%22q%22%20%27%C3%A9%27%20%3F%26%3Cb%3E.wav"
    )
    assert address(tmp_path / "other" / "a.wav", tmp_path / "out") == "../other/a.wav"
    assert address(tmp_path / "javascript:alert(1)", tmp_path) == "javascript%3Aalert%281%29"


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    made = report(tmp_path, clips=4)
    for embed in (False, True):
        write_page(save(tmp_path, made), embed=embed)
        first = (tmp_path / "index.html").read_bytes()
        write_page(tmp_path, embed=embed)
        assert (tmp_path / "index.html").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_missing_sounds_are_named(tmp_path: Path) -> None:
    made = report(tmp_path, clips=6)
    (tmp_path / "gen" / "02.wav").unlink()
    (tmp_path / "gen" / "04.wav").write_bytes(b"no sound at all")
    written = write_page(save(tmp_path, made))
    assert written.missing == ("gen/02.wav",)
    text = "".join(outline(tmp_path).text)
    assert "file missing: gen/02.wav" in text and "Not where the report says: 1 sound" in text
    assert len(outline(tmp_path).all("img")) == 6 + 4 - 2, "no picture of what is missing or damaged"


def test_embedded_sounds_lie_in_the_page_up_to_a_limit(tmp_path: Path) -> None:
    save(tmp_path, report(tmp_path, clips=4))
    whole = write_page(tmp_path, embed=True)
    sources = [str(a["src"]) for a in outline(tmp_path).all("audio") if "src" in a]
    assert whole.outside == 0 and all(s.startswith("data:audio/ogg;base64,") for s in sources)
    assert base64.b64decode(sources[0].partition(",")[2])[:4] == b"OggS"
    part = write_page(tmp_path, embed=True, limit=20_000)
    sources = [str(a["src"]) for a in outline(tmp_path).all("audio") if "src" in a]
    embedded = [s for s in sources if s.startswith("data:")]
    assert 0 < len(embedded) < len(sources) and part.outside == len(sources) - len(embedded)
    assert part.bytes < whole.bytes


def test_a_large_report_stays_bounded() -> None:
    per_clip = {f"m{k}": {f"clip {n:04d}": float((n * (2 * k + 3)) % 997) for n in range(1000)} for k in range(15)}
    chosen = choose(per_clip, dict.fromkeys(per_clip, "lower"))
    assert len(chosen.clips) <= 150 and chosen.size >= 3
    assert all(len(table["best"]) == len(table["worst"]) == chosen.size for table in chosen.bands.values())


@pytest.mark.parametrize(("count", "sizes"), [(1, (0, 1, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (7, (2, 2, 2)),
                                              (29, (9, 9, 9)), (30, (10, 10, 10)), (100, (10, 10, 10))])  # fmt: skip
def test_bands_do_not_overlap(count: int, sizes: tuple[int, int, int]) -> None:
    values = {f"{k:03d}": float(k) for k in range(count)}
    for direction, best in (("lower", "000"), ("higher", f"{count - 1:03d}"), ("none", f"{count - 1:03d}")):
        found = bands(values, direction)
        assert tuple(len(found[name]) for name in ("best", "middle", "worst")) == sizes
        every = [clip for row in found.values() for clip in row]
        assert len(set(every)) == len(every)
        if count > 1:
            assert found["best"][0] == best
    if count == 100:
        assert found["middle"][0] == "054" and found["middle"][-1] == "045", "around the median"


def test_a_comparison_says_which_way_and_how_surely(tmp_path: Path) -> None:
    row = {"direction": "lower", "low": -3.0, "high": -1.0}
    assert judgement(row) == ("better", "good") and judgement(row | {"direction": "higher"}) == ("worse", "bad")
    assert (
        judgement(row | {"high": 1.0})[0] == "no clear difference"
        and judgement(row | {"low": None})[0] == "no interval"
    )
    assert judgement(row | {"direction": "none"})[0] == "lower"
    made = report(tmp_path, clips=3)
    rows = [{"metric": "frechet", "label": "Fréchet distance", "direction": "lower", "value": -2.0, "corrected": None,
             "low": -3.0, "high": -1.0, "level": 0.95, "clips": 3, "notes": [NASTY], "reason": None,
             "extra": {"first": 6.5, "second": 8.5, "p": 0.001}},
            {"metric": "clap", "direction": "higher", "value": None, "reason": f"no {NASTY}", "extra": {},
             "notes": []}]  # fmt: skip
    block = {"schema": "descant-comparison/1", "against": {"name": NASTY, "created": "then", "digest": "ef" * 32,
             "valid": False}, "rows": rows, "per_clip": {}}  # fmt: skip
    write_page(save(tmp_path, replace(made, comparison=block)))
    text = "".join(outline(tmp_path).text)
    for words in ("better", "\u22122", "8.500", "p = 0.0010", "failed its own self-check", "Not compared: 1 row"):
        assert words in text, words


def test_reports_with_next_to_nothing_have_a_page(tmp_path: Path) -> None:
    made = report(tmp_path, clips=2)
    recipe = next(iter(made.recipes))
    none = Result(metric="frechet", direction="lower", recipe=recipe, reason="one clip is too few")
    empty = replace(made, reference=None, results=(none,), clips={}, curves={}, inputs={}, notes=())
    write_page(save(tmp_path, empty))
    text = "".join(outline(tmp_path).text)
    assert "one clip is too few" in text and "lists no clips" in text


def test_a_folder_without_a_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        write_page(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": "other/9"}')
    with pytest.raises(ValueError, match="schema is 'other/9'"):
        write_page(tmp_path)
    with pytest.raises(ValueError, match="limit is -1"):
        write_page(tmp_path, limit=-1)


def test_markup_is_escaped_unless_it_is_ours() -> None:
    assert tag("p", "<b>&\"'") == "<p>&lt;b&gt;&amp;&quot;&#x27;</p>"
    assert tag("p", Raw("<b>x</b>"), 3, None) == "<p><b>x</b>3</p>"
    assert tag("a", "x", href='"><script>', class_="k", hidden=True, title=None) == (
        '<a href="&quot;&gt;&lt;script&gt;" class="k" hidden>x</a>'
    )
    assert tag("p", "a\x00b\ud800") == "<p>a\ufffdb\ufffd</p>"
    block = data_block("x", {"</script><!--": "&"})
    assert block.count("<") == 2 and "\\u003c/script" in block
    assert html.unescape(tag("i", NASTY)) == f"<i>{NASTY}</i>".replace("\u202e", "\ufffd")


@pytest.mark.parametrize(("value", "text"), [
    (0.0, "0"), (12.0, "12"), (1.23456, "1.235"), (-0.5, "\u22120.5000"), (123456.7, "123457"),
    (0.00012346, "0.0001235"), (1.2e-9, "1.200e\u221209"), (3.2e12, "3.200e+12"),
    (float("nan"), "none"), (None, "none"),
])  # fmt: skip
def test_numbers_are_for_people(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(9.5, "9.5 s"), (60, "1 min"), (200, "3 min 20 s"), (3840, "1 h 4 min"),
                                               (None, "unknown length")])  # fmt: skip
def test_durations_are_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
