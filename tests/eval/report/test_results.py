import copy

import pytest

from descant.eval.metric import Result, unavailable
from descant.eval.recipe import named
from descant.eval.report import results, tables
from descant.eval.report.results import CheckGroup, CheckRow, Plot, Report, SelfCheck, Side

RECIPE = named("descant-v1")["frechet"]
OTHER = named("descant-v1")["clap"]


def report(**more):
    values = {
        "version": "0.1.0", "created": "2026-01-01T00:00:00+00:00", "command": ("descant", "score"), "seed": 3,
        "generated": Side(name="my & clips", folder="gen", clips=2, seconds=4.0, digest="ab",
                          failures={"bad": "is | no audio"}, silent=("s",)),
        "reference": None, "recipes": {RECIPE.id: RECIPE, OTHER.id: OTHER},
        "results": (
            Result(metric="frechet@logmel", direction="lower", recipe=RECIPE.id, value=5.0, corrected=4.0, error=0.5,
                   low=3.0, high=5.0, clips=2, windows=4, notes=("few clips",), per_clip={"a": 1.0, "b": 9.0}),
            unavailable("clap@descant-judge", "higher", "needs captions | prompts", OTHER.id),
            Result(metric="genre@descant-judge", direction="higher", recipe=OTHER.id, value=0.123456, clips=2,
                   extra={"chance": 0.05}),
        ),
        "self_check": SelfCheck(groups=(CheckGroup(judge="logmel", rows=(CheckRow(name="x", value=1.0),)),)),
        "curves": {"frechet@logmel": Plot(x=(0.1, 0.2), y=(1.0, 2.0), fit={"intercept": 0.0})},
        "clips": {"a": {"file": "/no/a.wav", "seconds": 2.0, "caption": None, "conditions": {"tempo": "90 BPM"},
                        "reference": None}},
    }  # fmt: skip
    return Report(**(values | more))


def test_a_report_comes_back_from_its_table():
    table = report().to_json()
    results.validate(table)
    again = Report.from_json(table)
    assert again == report()
    assert table["results"][0]["stderr"] == 0.5 and table["results"][0]["label"] == "Fréchet distance, logmel"
    assert table["per_clip"] == {"frechet@logmel": {"a": 1.0, "b": 9.0}}
    with pytest.raises(ValueError, match="the report has no 'vendi'; it has frechet@logmel"):
        again.result("vendi")


@pytest.mark.parametrize(("path", "value", "said"), [
    (("schema",), "descant-score/9", "schema is 'descant-score/9'"),
    (("seed",), "3", "report.seed is '3': need int"),
    (("seed",), True, "report.seed is True: need int"),
    (("results", 0, "value"), None, "has neither value and reason"),
    (("results", 1, "value"), 2.0, "has both value and reason"),
    (("results", 0, "value"), float("nan"), "need a finite number"),
    (("results", 0, "direction"), "up", "direction is 'up'"),
    (("results", 0, "recipe"), "x:y", "not among the recipes"),
    (("results", 1, "metric"), "frechet@logmel", "two results have one name"),
    (("per_clip", "other"), {}, "per_clip has other"),
    (("per_clip", "frechet@logmel", "a"), "1", "need int or float"),
    (("more",), 1, "unknown .'more'."),
    (("generated", "clips"), 1.5, "report.generated.clips is 1.5"),
    (("clips", "a", "conditions"), [], "need an object"),
    (("notes",), {}, "need a list"),
])  # fmt: skip
def test_a_table_outside_the_schema_is_refused_at_its_place(path, value, said):
    table = copy.deepcopy(report().to_json())
    item = table
    for step in path[:-1]:
        item = item[step]
    item[path[-1]] = value
    with pytest.raises(ValueError, match=said):
        results.validate(table)


def test_a_missing_field_is_refused():
    table = report().to_json()
    del table["curves"]
    with pytest.raises(ValueError, match=r"lacks \['curves'\]"):
        results.validate(table)
    with pytest.raises(ValueError, match="schema is 'list'"):
        results.validate([])


def test_files_that_are_no_reports(tmp_path):
    with pytest.raises(ValueError, match="no such file; a report is written"):
        results.read(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        results.read(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="schema is None"):
        results.read(tmp_path)


def test_two_rows_of_one_name_are_refused():
    row = report().results[0]
    with pytest.raises(ValueError, match="rows named twice in one report: frechet@logmel"):
        report(results=(row, row)).to_json()


def test_markdown_has_a_table_for_each_recipe_and_reasons_in_place_of_values():
    text = tables.markdown(report())
    assert text.count("| metric |") == 2
    assert "| Fréchet distance ↓ | 4.000 ± 0.5000 | [3.000, 5.000] | 2 | 5.000 |" in text
    assert f"| {RECIPE.digest} |" in text and "needs captions \\| prompts" in text
    assert "| genre ↑ | 0.1235 |" in text and "0.05000" in text
    assert "* few clips (frechet@logmel)" in text and "Invalid" not in text
    assert "1 of my & clips left out" in text


def test_an_invalid_report_says_so_first():
    bad = CheckGroup(judge="logmel", rows=(CheckRow(name="y", value=1.0, above="x", ok=False),))
    text = tables.markdown(report(self_check=SelfCheck(groups=(bad,), reason="wrong order")))
    assert text.index("**Invalid: the self-check failed.** wrong order") < text.index("| metric |")


def test_csv_can_be_read_again_in_full():
    import csv
    import io

    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(report()))))
    assert [row["metric"] for row in rows] == [item.metric for item in report().results]
    assert float(rows[2]["value"]) == 0.123456 and rows[1]["value"] == "" and rows[1]["reason"]
    assert rows[0]["group"] == "distance" and float(rows[2]["chance"]) == 0.05


def test_latex_uses_booktabs_and_escapes_what_it_must():
    text = tables.latex(report())
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == text.count(r"\toprule") == 2
    assert r"my \& clips" in text and r"$\downarrow$" in text and r"$\pm$" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    spec = [line for line in text.splitlines() if line.startswith(r"\begin{tabular}")]
    wide = len(spec[0].split("{")[2].rstrip("}"))
    assert rows[0].replace(r"\&", "").count("&") == wide - 1


@pytest.mark.parametrize(("value", "text"), [
    (None, "–"), (0.0, "0"), (1234.56, "1235"), (12.3456, "12.35"), (0.000123456, "0.0001235"), (-3.0, "-3.000"),
    (0.5, "0.5000"), (1e-12, "1.000e-12"), (123456.0, "123456"),
])  # fmt: skip
def test_figures_have_four_digits(value, text):
    assert tables.figure(value) == text
