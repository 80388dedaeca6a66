import json
import os
import socket
from dataclasses import replace

import pytest
import soundfile
import torch

from descant.eval import Recipe, audio_files, embed_files, frechet_distance, kl
from descant.eval.logmel import LogMel
from descant.eval.report import names, results, score
from descant.eval.report.judges import Judge
from descant.eval.report.score import ScoreSettings, check_target, write

from .bands import Bands, captions, clips, settings, tone

COUNT = 16


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two sets of clips, captions, and what scoring them gave."""
    root = tmp_path_factory.mktemp("score")
    clips(root / "gen", COUNT, seed=100)
    clips(root / "ref", COUNT, seed=0)
    captions(root / "said.csv", COUNT)
    report = score.score(root / "gen", root / "ref", prompts=root / "said.csv",
                         settings=settings(cache=str(root / "cache")))  # fmt: skip
    return root, report


def test_every_metric_has_a_row_with_a_value_or_a_reason(made):
    _, report = made
    found = {names.split(item.metric)[0] for item in report.results}
    assert found == set(names.METRICS) - {"frechet-clap"}  # that one is of fadtk's protocol alone
    for item in report.results:
        assert (item.value is None) != (item.reason is None)
        assert item.recipe in report.recipes
    table = report.to_json()
    results.validate(table)
    assert report.valid and table["valid"]


def test_distances_are_those_of_the_functions_behind_them(made):
    root, report = made
    item = report.result("frechet@logmel")
    recipe = report.recipes[item.recipe]
    sides = [embed_files(audio_files(root / side), LogMel(), recipe).vectors for side in ("gen", "ref")]
    assert item.corrected == pytest.approx(frechet_distance(*sides, recipe).corrected, rel=1e-6)
    ear = Bands().tagger
    item = report.result("kl-reference-generated@bands")
    recipe = report.recipes[item.recipe]
    sides = [embed_files(audio_files(root / side), ear, recipe).vectors for side in ("gen", "ref")]
    truth = kl(*sides, form="bernoulli", recipe=recipe)["KL(reference||generated)"]
    assert item.value == pytest.approx(truth.value, rel=1e-6) and item.clips == COUNT


def test_captions_are_read_and_have_a_chance_level(made):
    _, report = made
    item = report.result("clap@bands")
    assert item.value > item.extra["chance"] + 0.3 and item.extra["audio_to_text R@1"] > 0.9
    assert report.clips["c03"]["caption"] == "band 3"


def test_what_was_not_given_is_named(made):
    _, report = made
    assert "--labels" in report.result("tempo-acc1").reason
    assert "--stems" in report.result("stems-onset").reason
    assert "3 s" in report.result("repetition").reason


def test_the_record_comes_back(made, tmp_path):
    _, report = made
    folder = write(report, tmp_path / "out", page=False)
    again = results.read(folder)
    assert again.results == report.results and again.curves == report.curves
    assert again.self_check == report.self_check and again.recipes == dict(report.recipes)
    row = json.loads((folder / "results.json").read_text())["clips"]["c00"]
    assert (folder / row["file"]).is_file() and (folder / row["reference"]).is_file()
    assert not [path for path in tmp_path.iterdir() if path.name != "out"]


def test_a_page_is_written_and_a_failing_one_leaves_nothing(made, tmp_path, monkeypatch):
    _, report = made
    from descant.eval.report import page

    def fail(folder):
        raise ValueError("no page today")

    monkeypatch.setattr(page, "write_page", fail)
    with pytest.raises(ValueError, match="no page"):
        write(report, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_earlier_report_is_replaced_and_nothing_else_is(made, tmp_path):
    _, report = made
    write(report, tmp_path / "out", page=False)
    (tmp_path / "out" / "answers.json").write_text("{}")
    (tmp_path / "out" / "index.html").write_text("the page of an earlier report")
    write(replace(report, seed=9), tmp_path / "out", page=False)
    assert results.read(tmp_path / "out").seed == 9 and (tmp_path / "out" / "answers.json").is_file()
    assert not (tmp_path / "out" / "index.html").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("work of years")
    with pytest.raises(ValueError, match="name a new folder"):
        check_target(tmp_path / "mine")
    with pytest.raises(ValueError, match="is a file"):
        check_target(tmp_path / "mine" / "thesis.txt")


def test_a_stopped_run_goes_on_where_it_was(tmp_path):
    clips(tmp_path / "gen", 6)

    def stop(what, done, count):
        if done == 4:
            raise KeyboardInterrupt

    ear = Bands()
    with pytest.raises(KeyboardInterrupt):
        score.score(tmp_path / "gen", settings=settings(ear, cache=str(tmp_path / "cache"), progress=stop))
    before = ear.heard
    first = score.score(tmp_path / "gen", settings=settings(ear, cache=str(tmp_path / "cache")))
    assert before == 4 and ear.heard == 6  # one window a clip; the tagger hears by itself
    second = score.score(tmp_path / "gen", settings=settings(Bands()))
    assert first.results == second.results


def test_figures_do_not_depend_on_the_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.undo()  # what a process pool talks through is no network
    clips(tmp_path / "gen", 3)
    found = []
    for jobs in (1, 2):
        found.append(score.score(tmp_path / "gen", settings=ScoreSettings(own_judge=False, jobs=jobs)))
    assert found[0].results == found[1].results and found[0].generated == found[1].generated


def bad_folder(root):
    """Of nine files two can be used by all: one is too short for judges, one silent, five are no clips."""
    folder = clips(root / "bad", 2)
    soundfile.write(folder / "nan.wav", torch.full((RATE,), float("nan")).numpy(), RATE, subtype="FLOAT")
    soundfile.write(folder / "short.wav", tone(1, 5, 0.02).numpy(), RATE)
    soundfile.write(folder / "silent.wav", torch.zeros(RATE).numpy(), RATE)
    soundfile.write(folder / "wide.wav", torch.stack([tone(1, 6, 1.0, 44_100)] * 2).T.numpy(), 44_100)
    soundfile.write(folder / "low.wav", tone(1, 7, 1.0, 8000).numpy(), 8000)
    (folder / "corrupt.wav").write_bytes(b"RIFF no wave at all")
    (folder / "empty.flac").write_bytes(b"")
    return folder


RATE = 16_000


def test_bad_clips_are_named_and_counted_and_the_run_goes_on(tmp_path):
    report = score.score(bad_folder(tmp_path), settings=settings())
    assert set(report.generated.failures) == {"nan", "short", "corrupt", "empty"}
    assert report.generated.clips == 6 and report.generated.silent == ("silent",)
    assert any("4 clips of bad could not be used" in note for note in report.notes)
    item = report.result("vendi@bands")
    assert item.left_out >= 4 and any("corrupt" in note and "no audio" in note for note in item.notes)
    loud = report.result("loudness")
    assert loud.clips == 5 and any("silent" in note for note in loud.notes)
    results.validate(report.to_json())
    with pytest.raises(ValueError, match="corrupt"):
        score.score(bad_folder(tmp_path), settings=settings(strict=True))


def test_a_corrupt_reference_clip_does_not_unpair_the_rest(tmp_path):
    clips(tmp_path / "gen", 4, seed=9)
    clips(tmp_path / "ref", 4)
    (tmp_path / "ref" / "c02.wav").write_bytes(b"RIFF")
    report = score.score(tmp_path / "gen", tmp_path / "ref", settings=settings())
    item = report.result("js@bands")
    assert item.clips == 3 and item.left_out == 1 and any("c02 (reference)" in note for note in item.notes)
    assert "too few to halve" in report.self_check.reason and report.valid


@pytest.mark.parametrize("count", [0, 1])
def test_few_clips(tmp_path, count):
    folder = clips(tmp_path / "gen", count)
    clips(tmp_path / "ref", 2)
    if count == 0:
        with pytest.raises(ValueError, match="holds no audio files"):
            score.score(folder, settings=settings())
        return
    report = score.score(folder, tmp_path / "ref", settings=settings())
    assert "1 clips" in report.result("diversity").reason
    results.validate(report.to_json())


def test_nothing_usable_and_no_folder(tmp_path):
    (tmp_path / "gen").mkdir()
    (tmp_path / "gen" / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match=r"none of the 1 files of .* can be used, such as a:"):
        score.score(tmp_path / "gen", settings=settings())
    with pytest.raises(ValueError, match="no such folder"):
        score.score(tmp_path / "nowhere", settings=settings())
    clips(tmp_path / "ok", 1)
    with pytest.raises(ValueError, match="no such file; a reference file"):
        score.score(tmp_path / "ok", tmp_path / "ref.safetensors", settings=settings())


def test_captions_that_do_not_match_are_named_with_counts(tmp_path):
    clips(tmp_path / "gen", 4)
    (tmp_path / "said.csv").write_text("file,caption\nc00.wav,band 0\nc01,band 1\nother.wav,band 2\nmore.wav,band 3\n")
    report = score.score(tmp_path / "gen", None, prompts=tmp_path / "said.csv", settings=settings())
    item = report.result("clap@bands")
    assert item.clips == 2 and item.left_out == 2 and "2 clips have no caption: c02, c03" in item.notes
    assert any("2 entries of said.csv have no clip: other.wav, more.wav" in note for note in report.notes)
    assert report.inputs["prompts"]["spare"] == ["other.wav", "more.wav"]
    with pytest.raises(ValueError, match="are not named in"):
        score.score(tmp_path / "gen", None, prompts=tmp_path / "said.csv", settings=settings(strict=True))
    (tmp_path / "said.csv").write_text("file,caption\nx.wav,band 0\n")
    with pytest.raises(ValueError, match="none of its 1 entries names one of the 4 clips"):
        score.score(tmp_path / "gen", None, prompts=tmp_path / "said.csv", settings=settings())


def test_foreign_protocols_say_what_they_need_or_use_what_is_given(tmp_path):
    clips(tmp_path / "gen", 3)
    chosen = settings(recipes=("descant-v1", "paper-musicgen"))
    report = score.score(tmp_path / "gen", settings=chosen)
    assert report.result("frechet@paper-musicgen").reason == "needs weights: --judge vggish-google=FILE"
    assert "passt" in report.result("js@paper-musicgen").reason

    class Foreign(Bands):
        id = "vggish-google-1+0123456789ab"

    chosen = ScoreSettings(
        own_judge=False, recipes=("paper-musicgen",), judges=(Judge("mine", Foreign()),), self_check=False
    )
    clips(tmp_path / "ref", 3)
    report = score.score(tmp_path / "gen", tmp_path / "ref", settings=chosen)
    item = report.result("frechet@paper-musicgen")
    assert item.value is not None and report.recipes[item.recipe].embedder == Foreign.id
    with pytest.raises(ValueError, match="asks for bands; add --recipe descant-v1"):
        score.score(tmp_path / "gen", settings=settings(recipes=("fadtk-compat",)))
    with pytest.raises(ValueError, match="no recipe is called 'v9'"):
        score.score(tmp_path / "gen", settings=settings(recipes=("v9",)))


def test_a_recipe_of_another_judge_is_another_recipe(made):
    _, report = made
    one, two = (report.result(f"frechet@{name}").recipe for name in ("logmel", "bands"))
    assert one != two and isinstance(report.recipes[one], Recipe)


def test_a_corrupt_file_among_a_thousand_is_named_counted_and_left_out(tmp_path):
    # one content under a thousand names: it is heard once, and found again by its bytes
    source = clips(tmp_path / "one", 1) / "c00.wav"
    (tmp_path / "gen").mkdir()
    for n in range(1000):
        os.link(source, tmp_path / "gen" / f"c{n:04d}.wav")
    (tmp_path / "gen" / "c0500.wav").unlink()
    (tmp_path / "gen" / "c0500.wav").write_bytes(b"RIFF no wave at all")
    chosen = ScoreSettings(own_judge=False, cache=str(tmp_path / "cache"))
    report = score.score(tmp_path / "gen", settings=chosen)
    assert set(report.generated.failures) == {"c0500"} and report.generated.clips == 999
    item = report.result("loudness")
    assert item.clips == 999 and item.left_out == 1 and any("c0500" in note for note in item.notes)
    with pytest.raises(ValueError, match=r"c0500.*--strict stops here"):
        score.score(tmp_path / "gen", settings=replace(chosen, strict=True))


def test_the_front_door_takes_a_recipe(tmp_path):
    from descant import eval as room

    clips(tmp_path / "gen", 2)
    chosen = ScoreSettings(own_judge=False, self_check=False)
    report = room.score(tmp_path / "gen", tmp_path / "gen", "paper-musicgen", settings=chosen)
    assert isinstance(report, room.Report) and "frechet@paper-musicgen" in [item.metric for item in report.results]
    assert "frechet@logmel" not in [item.metric for item in report.results]
    with pytest.raises(ValueError, match="no recipe is called 'v9'"):
        room.score(tmp_path / "gen", None, ["descant-v1", "v9"], settings=chosen)
