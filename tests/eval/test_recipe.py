import json
from dataclasses import replace

import pytest

from descant.eval.metric import Result, unavailable
from descant.eval.recipe import Recipe, RecipeMismatch, Table, named, protocols, require_same, tables


def test_protocols_are_all_there_and_all_different():
    assert set(protocols()) == {"paper-musicgen", "fadtk-compat", "stable-audio-compat", "descant-v1"}
    digests = [recipe.digest for name in protocols() for key, recipe in named(name).items() if key != "kernel"]
    assert len(set(digests)) == len(digests)
    for name in protocols():
        assert "frechet" in named(name)
        assert all(recipe.name == name for recipe in named(name).values())
    with pytest.raises(ValueError, match="descant-v1"):
        named("paper-musiclm")


def test_named_recipes_say_what_the_tools_do():
    google, torch_port = named("paper-musicgen")["frechet"], named("fadtk-compat")["frechet"]
    assert (google.window, google.hop, google.loudness, google.tail) == (1.0, 0.5, "peak", "drop")
    assert (torch_port.window, torch_port.hop, torch_port.loudness) == (0.975, 0.96, "none")
    assert google.rate == torch_port.rate == 16_000
    stable = named("stable-audio-compat")
    assert (stable["frechet"].rate, stable["frechet"].channels) == (44_100, 2)
    # the two tools report opposite directions
    assert stable["kl"].setting("direction") == "generated||reference"
    assert named("paper-musicgen")["kl"].setting("direction") == "reference||generated"


def test_the_digests_of_version_one_never_change():
    # published figures carry them: a change here makes old results incomparable and needs a new version
    assert {name: named(name)["frechet"].digest for name in protocols()} == {
        "paper-musicgen": "4db4e92d48d1f4e2",
        "fadtk-compat": "2ce9ba37445476ee",
        "stable-audio-compat": "61a5d1382c2ec87e",
        "descant-v1": "dd087ab33821fc99",
    }


def test_everything_that_changes_a_figure_changes_the_digest():
    base = named("descant-v1")["frechet"]
    changes = [
        {"embedder": "logmel-2"}, {"rate": 16_000}, {"channels": 2}, {"window": 2.0}, {"hop": 0.5}, {"tail": "drop"},
        {"least": 0.1}, {"limit": 10.0}, {"loudness": "none"}, {"target": -14.0}, {"settings": ()}, {"version": 2},
    ]  # fmt: skip
    digests = {base.digest} | {replace(base, **change).digest for change in changes}
    assert len(digests) == len(changes) + 1
    assert replace(base, name="other", departs="in nothing").digest == base.digest
    assert base.bind("vggish-torch-1+abc").digest != base.digest
    # how a number is written does not matter, nor the order of settings
    assert replace(base, window=1, hop=1).digest == base.digest
    assert replace(base, settings=tuple(reversed(base.settings))).digest == base.digest


def test_round_trip_refuses_what_was_edited():
    recipe = named("stable-audio-compat")["kl"]
    row = json.loads(json.dumps(recipe.to_json()))
    assert Recipe.from_json(row) == recipe
    with pytest.raises(ValueError, match="edited"):
        Recipe.from_json(row | {"hop": 2.5})
    with pytest.raises(ValueError, match="unknown fields"):
        Recipe.from_json(row | {"crop": "random"})


@pytest.mark.parametrize("change", [
    {"name": ""}, {"name": "a:b"}, {"rate": 0}, {"channels": 6}, {"window": 0.0}, {"hop": -1.0}, {"tail": "random"},
    {"loudness": "loud"}, {"least": 2.0}, {"limit": 0.0},
])  # fmt: skip
def test_refusals(change):
    with pytest.raises(ValueError):
        replace(named("descant-v1")["frechet"], **change)
    with pytest.raises(ValueError, match="no setting"):
        named("descant-v1")["frechet"].setting("crop")


def result(recipe, metric="frechet", value=1.0):
    return Result(metric=metric, direction="lower", recipe=recipe.id, value=value)


def test_only_equal_recipes_share_a_table():
    one, two = named("paper-musicgen")["frechet"], named("fadtk-compat")["frechet"]
    table = Table(one)
    table.add("a", result(one))
    table.add("b", unavailable("frechet", "lower", "no clips", one.id))
    with pytest.raises(RecipeMismatch, match="differ"):
        table.add("c", result(two))
    with pytest.raises(ValueError, match="already"):
        table.add("a", result(one))
    with pytest.raises(RecipeMismatch, match="without a recipe"):
        table.add("d", Result(metric="frechet", direction="lower", value=1.0))
    # a failed metric keeps its row
    assert table.rows["b"]["frechet"].reason == "no clips"
    # another name for the same thing is the same thing
    table.add("e", result(replace(one, name="mine")))
    require_same(one, replace(one, name="mine"))


def test_results_sort_into_tables():
    one, two = named("paper-musicgen")["frechet"], named("fadtk-compat")["frechet"]
    found = tables([("a", result(one)), ("a", result(two)), ("b", result(one)), ("b", result(two))])
    assert [table.recipe for table in found] == [one.id, two.id]
    assert [list(table.rows) for table in found] == [["a", "b"], ["a", "b"]]
    with pytest.raises(RecipeMismatch):
        tables([("a", Result(metric="frechet", direction="lower", value=1.0))])
