from dataclasses import replace

import pytest
import torch

from descant.eval import frechet_compare
from descant.eval.recipe import RecipeMismatch
from descant.eval.report import bundle, compare, results, score, tables
from descant.eval.report.score import write

from .bands import Bands, captions, clips, settings

COUNT = 16


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two systems against one reference: a good one, and one whose bands are shifted; both written."""
    root = tmp_path_factory.mktemp("compare")
    clips(root / "ref", COUNT)
    clips(root / "good", COUNT, seed=100)
    clips(root / "off", COUNT, seed=200, shift=1)
    said = captions(root / "said.csv", COUNT)
    cache = str(root / "cache")
    reports = {}
    for name in ("good", "off"):
        saved = str(root / "ref.safetensors") if name == "good" else None
        reports[name] = score.score(root / name, root / "ref", prompts=said,
                                    settings=settings(cache=cache, save_reference=saved))  # fmt: skip
        write(reports[name], root / f"report-{name}", page=False)
    return root, reports


def scored(root, name, reference, **more):
    return score.score(root / name, root / reference, prompts=root / "said.csv", settings=settings(**more))


def test_a_shipped_reference_gives_the_same_figures(runs):
    root, reports = runs
    ear = Bands()
    report = score.score(root / "good", root / "ref.safetensors", prompts=root / "said.csv", settings=settings(ear))
    assert report.results == reports["good"].results
    assert report.self_check == replace(reports["good"].self_check, groups=report.self_check.groups)
    assert [group.ok for group in report.self_check.groups] == [group.ok for group in reports["good"].self_check.groups]
    assert ear.heard == COUNT  # the reference was not heard again
    assert report.reference == reports["good"].reference


def test_a_reference_without_this_judge_says_so(runs):
    root, _ = runs

    class Other(Bands):
        id = "other-1+0123456789ab"

    report = score.score(root / "good", root / "ref.safetensors", settings=settings(Other()))
    reason = report.result("frechet@bands").reason
    assert "holds no vectors of other-1+0123456789ab under this recipe (it has: bands-1+" in reason
    assert report.result("frechet@logmel").value is not None


def test_damaged_and_foreign_reference_files(runs, tmp_path):
    root, _ = runs
    data = bytearray((root / "ref.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="its checksum differs"):
        bundle.load(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(data[:100])
    with pytest.raises(ValueError, match="is damaged"):
        bundle.load(tmp_path / "a.safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="no set of clips"):
        bundle.load(tmp_path / "b.safetensors")


def test_the_better_system_is_better_clip_by_clip(runs):
    root, reports = runs
    block = compare.against(reports["good"], reports["good"].heard, bundle.load(root / "ref.safetensors"),
                            root / "report-off")  # fmt: skip
    rows = {row["metric"]: row for row in block["rows"]}
    assert set(rows) == {item.metric for item in reports["good"].results}
    clap = rows["clap@bands"]
    assert clap["value"] > 0.5 and clap["low"] > 0 and clap["extra"]["p"] < 0.01
    assert clap["value"] == pytest.approx(
        reports["good"].result("clap@bands").value - reports["off"].result("clap@bands").value
    )
    assert "paired clip by clip" in clap["notes"] and len(block["per_clip"]["clap@bands"]) == COUNT
    kl = rows["js@bands"]
    assert kl["value"] < 0 and kl["high"] < 0
    assert rows["tempo-acc1"]["reason"].startswith("this report has no value")
    assert block["against"]["name"] == "off"


def test_frechet_distances_are_compared_on_vectors(runs):
    root, reports = runs
    theirs, reference = bundle.load(root / "report-off" / results.VECTORS), bundle.load(root / "ref.safetensors")
    mine = reports["good"].heard
    rows = compare.compare(reports["good"], results.read(root / "report-off"), mine, theirs, reference)
    row = next(item for item in rows if item.metric == "frechet@bands")
    key = next(key for key, recipe in mine.recipes.items() if recipe["embedder"] == Bands.id)
    truth = frechet_compare(mine.vectors[key], theirs.vectors[key], reference.vectors[key])
    assert row.corrected == pytest.approx(truth.corrected) and row.extra["p"] == pytest.approx(truth.extra["p"])
    # without vectors the two figures count as independent, and that is said
    rows = compare.compare(reports["good"], results.read(root / "report-off"))
    row = next(item for item in rows if item.metric == "frechet@bands")
    assert any("not paired" in note for note in row.notes)


def test_a_report_against_itself_differs_nowhere(runs):
    root, reports = runs
    report = scored(root, "good", "ref", cache=str(root / "cache"), against=str(root / "report-good" / "results.json"))
    table = report.to_json()
    results.validate(table)
    rows = [row for row in table["comparison"]["rows"] if row["value"] is not None]
    assert len(rows) > 10 and all(row["value"] == 0 for row in rows)
    assert all(row["extra"]["p"] == 1 for row in rows if "p" in row["extra"])
    assert "## This report minus good" in tables.markdown(report)
    assert report.results == reports["good"].results


def test_other_recipes_and_references_are_refused(runs):
    root, reports = runs
    report = reports["good"]

    def renamed(item):
        return replace(item, recipe=f"other:{item.recipe.rpartition(':')[2][::-1]}")

    other = replace(report, results=tuple(renamed(item) for item in report.results))
    with pytest.raises(RecipeMismatch, match="score both with the same recipes"):
        compare.compare(report, other)
    some = replace(
        report, results=tuple(renamed(item) if item.metric == "js@bands" else item for item in report.results)
    )
    rows = {item.metric: item for item in compare.compare(report, some)}
    assert "cannot be compared" in rows["js@bands"].reason and rows["kernel@bands"].value == 0
    moved = replace(report, reference=replace(report.reference, digest="0"))
    rows = {item.metric: item for item in compare.compare(report, moved)}
    assert "different references" in rows["frechet@bands"].reason and "different references" in rows["js@bands"].reason
    assert rows["clap@bands"].value == 0
    with pytest.raises(ValueError, match="no such file"):
        compare.against(report, None, None, root / "nowhere")
