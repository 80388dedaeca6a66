from pathlib import Path

import pytest

from descant.recipes import bench_scaling as scaling

ROOT = Path(__file__).resolve().parents[2]


def test_layers_are_counted_and_parameters_are_the_papers() -> None:
    for name, config in scaling.SHAPES.items():
        layer = scaling.count(config)
        parameters, _ = scaling.sizes(config, layer)
        assert parameters / 1e9 == pytest.approx(float(name.split()[0]), rel=0.06)
        # twelve widths squared in self-attention and perceptron, two in cross-attention, both ways of attention
        linear = 2 * scaling.STEPS * 14 * config.width**2 + 2 * scaling.WORDS * 2 * config.width**2
        attention = 4 * scaling.STEPS * (scaling.STEPS + scaling.WORDS) * config.width
        assert layer.forward == pytest.approx(linear + attention, rel=0.01)
        assert layer.backward == pytest.approx(2 * layer.forward, rel=0.02)


def test_states_shrink_with_the_stage_and_the_gpus() -> None:
    whole = [scaling.states(10**9, stage, 1) for stage in (1, 2, 3)]
    assert whole == [24e9] * 3
    spread = [scaling.states(10**9, stage, 8) for stage in (1, 2, 3)]
    assert spread == [13.5e9, 10e9, 3e9]


def test_plans_fit_and_choose_the_lowest_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scaling.count(scaling.SHAPES["3.3 B"])
    wide = scaling.plan("3.3 B", layer, 64)
    assert wide.stage == 1 and not wide.checkpointing and wide.crops * wide.parts == 3
    assert wide.mfu[0] < wide.mfu[1] <= scaling.REACHED["3.3 B"] + 1e-9
    monkeypatch.setattr(scaling, "MEMORY", 24e9)
    tight = scaling.plan("3.3 B", layer, 64)
    assert tight.stage == 3 and tight.states + tight.activations < 24e9
    monkeypatch.setattr(scaling, "MEMORY", 2e9)
    with pytest.raises(ValueError, match="does not fit on 64 GPUs"):
        scaling.plan("3.3 B", layer, 64)


def test_the_page_has_the_tables_that_the_command_makes(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "scaling.md").read_text()
    page = tmp_path / "page.md"
    page.write_text(text)
    scaling.write(page)
    # bytes kept depend on this torch's kernels; what was counted, and what follows from it, does not
    made, there = ([row.split("|") for row in t.splitlines() if " B |" in row] for t in (page.read_text(), text))
    assert len(made) == 12 and [row[:7] for row in made] == [row[:7] for row in there]
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no lines"):
        scaling.write(page)
