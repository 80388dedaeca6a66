"""Tables from strangers: damaged, hostile, in the wrong encoding; the good rows always survive."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import pytest
import yaml

from descant.eval.readers import plainyaml, table
from descant.eval.readers.clip import ReaderError

HEAD = "a,b,c\n"


def read(path: Path, text: str | bytes) -> tuple[list[list[str]], list[tuple[int, str]]]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    rows = list(table.rows(path, ("a", "b")))
    return [list(row.values.values()) for row in rows if not row.problem], [
        (row.line, row.problem) for row in rows if row.problem
    ]


def test_good_tables_read_as_python_reads_them(tmp_path: Path) -> None:
    out = io.StringIO()
    want = [['x "y"', "line\nbreak", "ü, 音"], ["", "'", "1"], ["end", '""', " "]]
    csv.writer(out).writerows([["a", "b", "c"], *want])
    path = tmp_path / "t.csv"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        for text in (out.getvalue(), out.getvalue().replace("\r\n", "\n")):
            assert read(path, text.encode(encoding)) == (want, [])


def test_carriage_returns_alone_are_line_ends(tmp_path: Path) -> None:
    assert read(tmp_path / "t.csv", "a,b,c\r1,2,3\r4,5,6\r") == ([["1", "2", "3"], ["4", "5", "6"]], [])


def test_a_quote_that_never_closes_costs_one_row(tmp_path: Path) -> None:
    text = HEAD + '1,"2,3\n4,"5, five",6\n7,8,9\n' * 3
    rows, bad = read(tmp_path / "t.csv", text)
    assert rows == [["4", "5, five", "6"], ["7", "8", "9"]] * 3
    assert [line for line, _ in bad] == [2, 5, 8] and "not closed" in bad[0][1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"1,2\n", "2 values for 3 columns"), (b"1,2,3,4\n", "4 values"), (b"1,caf\xe9,3\n", "not UTF-8"),
        (b"1,\0,3\n", "zero bytes"), (b"1," + b"x" * 200_000 + b",3\n", "longer than"),
        (b"1," + b"x" * 3_000_000 + b",3\n", "longer than"), (b'1,"x"y,3\n', "expected after"),
        (b'1,"' + b"\n" * 5000 + b"\n", "not closed"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_and_the_rest_is_read(tmp_path: Path, line: bytes, said: str) -> None:
    rows, bad = read(tmp_path / "t.csv", HEAD.encode() + b"1,2,3\n" + line + b"4,5,6\n")
    assert rows[0] == ["1", "2", "3"] and rows[-1] == ["4", "5", "6"]
    assert bad[0][0] == 3 and said in bad[0][1]


def test_headers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text, said in (("x,y\n1,2\n", "must name a, b; it says x, y"), ("", "it says nothing"), ("a,b,a\n", "twice")):
        with pytest.raises(ReaderError, match=said):
            read(path, text)
    with pytest.raises(ReaderError, match="cannot be opened"):
        list(table.rows(tmp_path / "gone.csv"))


def test_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    lines = ['{"a": 1}', "", "[1]", '{"a": NaN}', "{", "[" * 100_000, '{"b": "é"}']
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    rows = list(table.json_rows(path))
    assert [(line, row) for line, row, _ in rows if row is not None] == [(1, {"a": 1}), (7, {"b": "é"})]
    assert [line for line, row, said in rows if row is None and said] == [3, 4, 5, 6]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ReaderError, match="breaks off"):
        list(table.json_rows(path))


def test_a_description_of_a_clip_is_never_large(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"a": "x" * (1 << 24)}))
    with pytest.raises(ReaderError, match="16 MiB"):
        table.load_json(path)


def test_numbers_and_truths() -> None:
    assert table.number(" 1.5 ") == 1.5 and table.number("") is None and table.truth("True") and not table.truth("0")
    for bad in ("nan", "inf", "x", "1,5"):
        with pytest.raises(ReaderError, match="no number"):
            table.number(bad)
    with pytest.raises(ReaderError, match="neither"):
        table.truth("maybe")


def test_links_are_followed_once_and_never_out_of_the_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "deep").mkdir(parents=True)
    outside.mkdir()
    for path in (root / "a.wav", outside / "b.wav", root / ".hidden.wav", root / "notes.txt"):
        path.touch()
    (root / "again.wav").symlink_to(root / "a.wav")
    (root / "away.wav").symlink_to(outside / "b.wav")
    (root / "away2.wav").symlink_to(outside / "b.wav")
    (root / "gone.wav").symlink_to(root / "nowhere.wav")
    (root / "deep" / "loop").symlink_to(root)
    assert table.audio_below(root) == ([root / "a.wav"], [root / "away.wav", root / "away2.wav"])
    assert table.audio_below(root, links=True) == ([root / "a.wav", root / "away.wav"], [])


YAML = [
    "a: 1\nb: -2.5\nc: true\nd: 'no'\ne: no\nf: null\ng:\nh: ~\ni: 1e5\nj: 1.0e+5\nk: .5\nl: 007x\n",
    "stems:\n  S00:\n    x: 1\n    y: a (b) c\n  S01: {}\n  S02: []\nlast: end\n",
    "list:\n- a\n- 'b: c'\n- 3\nafter: [1, 'x, y', z, \"q\\u00e9\"]\n",
    "list:\n  - name: x\n    more:\n      deep: 1\n  - name: y\n  -\n",
    "text: a long line that goes\n  on in the next one\n  and the next\n"
    "quoted: 'it''s\n  here'\nurl: http://x.y/z#frag # note\n",
    '# comment\n---\n"quoted key": "a: b"\ntime: 12:30:45x\n',
]


@pytest.mark.parametrize("text", YAML)
def test_yaml_is_read_as_pyyaml_reads_it(text: str) -> None:
    assert plainyaml.parse(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n  - - 1\n", "list"), ("a: &x 1\n", "line 1: '&'"),
        ("a: |\n  text\n", r"line 1: '\|'"), ("a: !!python/object:os.system x\n", "'!'"),
        ("a: 1\na: 2\n", "line 2: a is there twice"), ("a: 1\n   b: 2\nc\n", "line"), ("just words\n", "expected"),
        ("- 1\n- 2\n", "a list"), ("", "is empty"), ("a: 'x\n", "not closed"), ("a: [1, [2]]\n", "plain lists"),
        ("".join(f"{' ' * n}a:\n" for n in range(40)), "too deeply"),
    ],
)  # fmt: skip
def test_yaml_beyond_that_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ReaderError, match=said):
        plainyaml.parse(text)
