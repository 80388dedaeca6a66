import dataclasses
import math
import time

import pytest
import torch

from descant.lm.chords import parse
from descant.lm.condition import AHEAD, CONTROLS, ROLES, Condition, ConditionBatch, collate, drop
from descant.lm.model import TokenLM
from descant.lm.vocab import GENRES, INSTRUMENTS, KEYS

STEM = torch.arange(8).view(2, 4)


def full(frames: int = 30) -> Condition:
    return Condition(
        text="slow jazz", genre="jazz", instruments=("piano", "drums"), tempo=120.0, beats_per_bar=4, beat_offset=-0.1,
        key="Gm", chords=((0.0, 0.3, "Gm7"), (0.3, 5.0, "C/E")), melody=torch.ones(frames, 12),
        stems={"drums": torch.ones(4, frames, dtype=torch.long), "bass": torch.ones(4, frames, dtype=torch.long)},
    )  # fmt: skip


def same(a: ConditionBatch, b: ConditionBatch) -> bool:
    def equal(x: object, y: object) -> bool:
        return torch.equal(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else x == y

    return all(equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_names_become_rows() -> None:
    batch = collate([full(), Condition()], 10)
    assert batch.genre.tolist() == [1 + GENRES.index("jazz"), 0]
    assert batch.key.tolist() == [1 + KEYS.index("G minor"), 0]
    rows = batch.instruments.nonzero()[:, 1].tolist()
    assert [INSTRUMENTS[row] for row in rows] == ["acoustic piano", "drums"]
    assert batch.text == ("slow jazz", None)
    assert batch.size == 2 and batch.frames == 10


@pytest.mark.parametrize(("tempo", "row"), [(20, 1), (40, 1), (98, 33), (239.9, 64), (300, 64), (None, 0)])
def test_tempo_bins_are_logarithmic(tempo: float | None, row: int) -> None:
    assert collate([Condition(tempo=tempo)], 1).tempo.tolist() == [row]


def test_beat_and_bar_phase_at_every_frame() -> None:
    condition = Condition(tempo=97.3, beats_per_bar=3, beat_offset=0.37)
    batch = collate([condition, condition], 400, start_frame=[0, 123456], frame_rate=50.0)
    for row, start in enumerate((0, 123456)):
        for frame in range(400):
            beats = ((start + frame) / 50.0 - 0.37) * 97.3 / 60
            angle, bar = 2 * math.pi * beats, 2 * math.pi * beats / 3
            expected = torch.tensor([math.sin(angle), math.cos(angle), math.sin(bar), math.cos(bar), 1.0])
            assert torch.allclose(batch.beat[row, frame], expected, atol=2e-5)
    without = collate([Condition(tempo=97.3, beat_offset=0.37)], 4).beat[0]
    assert torch.equal(without[:, 2:4], torch.zeros(4, 2))
    assert torch.equal(without[:, :2], batch.beat[0, :4, :2])
    assert not collate([Condition()], 4).beat.any()


def test_chords_at_every_frame() -> None:
    chords = ((0.0, 0.305, "Gm7"), (0.305, 0.6, "C/E"), (0.8, 1.0, "Bb"))
    batch = collate([Condition(chords=chords)], 60)
    for frame in range(60):
        row = torch.zeros(25)
        for start, end, symbol in chords:
            if start <= (frame + 0.5) / 50 < end:
                chord = parse(symbol)
                row[list(chord.classes)] = 1
                row[12 + chord.bass] = 1
                row[24] = 1
        assert torch.equal(batch.chords[0, frame], row), frame


def test_ahead_is_the_later_frame_also_past_the_end() -> None:
    condition = full(50)
    long, short = collate([condition], 40), collate([condition], 20)
    assert torch.allclose(short.ahead, torch.cat([long.beat, long.chords], -1)[:, AHEAD : 20 + AHEAD])


def test_a_later_start_is_a_slice() -> None:
    condition = dataclasses.replace(full(30), melody=torch.rand(30, 12), stems={"bass": torch.randint(0, 9, (4, 25))})
    whole, part = collate([condition], 40), collate([condition], 20, start_frame=15)
    for name in ("beat", "chords", "ahead", "melody"):
        assert torch.allclose(getattr(whole, name)[:, 15:35], getattr(part, name), atol=1e-5), name
    assert whole.stems is not None and part.stems is not None
    assert torch.equal(whole.stems[..., 15:35], part.stems)
    assert whole.melody[0, 29, 12] == 1 and whole.melody[0, 30, 12] == 0
    assert part.stems[0, 0, 0, 9] >= 0 and part.stems[0, 0, 0, 10] == -1
    early = collate([condition], 20, start_frame=-5)
    assert torch.equal(early.melody[0, 5:], whole.melody[0, :15]) and not early.melody[0, :5].any()


def test_stems_of_unequal_number_and_depth() -> None:
    batch = collate(
        [Condition(stems={"bass": STEM}), Condition(stems={"drums": STEM[:1], "lead": STEM}), Condition()], 4
    )
    assert batch.stems is not None and batch.roles is not None
    assert batch.stems.shape == (3, 2, 2, 4)
    assert batch.roles.tolist() == [
        [1 + ROLES.index("bass"), 0], [1 + ROLES.index("drums"), 1 + ROLES.index("lead")], [0, 0],
    ]  # fmt: skip
    assert batch.stems[1, 0].tolist() == [[0, 1, 2, 3], [-1] * 4]


def test_null_equals_conditions_never_given() -> None:
    null = collate([full(), full()], 30).null()
    never = collate([Condition(), Condition()], 30)
    assert same(dataclasses.replace(null, stems=None, roles=None), never)
    assert null.roles is not None and not null.roles.any()


@torch.no_grad()
def test_an_absent_stem_and_melody_add_exactly_nothing(model: TokenLM) -> None:
    null = collate([full()], 30).null()
    never = model.prepare(collate([Condition()], 30)).added
    assert torch.equal(model.prepare(null).added, never)
    # a stem of 4 frames is there for 4 frames
    added = model.prepare(collate([Condition(stems={"bass": STEM})], 30)).added
    assert torch.equal(added[:, 4:], never[:, 4:]) and bool((added != never)[:, :4].any(-1).all())


@pytest.mark.parametrize("control", [name for name in CONTROLS if name not in ("all", "each_stem")])
@torch.no_grad()
def test_each_control_is_heard_and_can_be_dropped_alone(model: TokenLM, control: str) -> None:
    batch = collate([full()], 30)
    dropped = drop(batch, {control: 1.0}, torch.Generator())
    missing = {"beat": "tempo", "each_stem": "stems"}.get(control, control)
    value = {"instruments": ()}.get(missing)
    absent = collate([dataclasses.replace(full(), **{missing: value})], 30)
    one, other = model.prepare(batch), model.prepare(dropped)
    assert max((a - b).abs().max() for a, b in zip(one, other, strict=True)) > 1e-3
    if control in ("tempo", "beat"):
        both = drop(dropped, {"beat": 1.0, "tempo": 1.0}, torch.Generator())
        assert all(torch.equal(a, b) for a, b in zip(model.prepare(both), model.prepare(absent), strict=True))
    else:
        assert all(torch.equal(a, b) for a, b in zip(other, model.prepare(absent), strict=True))


def test_drop_is_drawn_per_sample_and_independently() -> None:
    batch = collate([full(4)] * 4000, 4)
    out = drop(batch, {"text": 0.3, "genre": 0.5, "all": 0.1, "each_stem": 0.25}, torch.Generator().manual_seed(0))
    text = torch.tensor([value is None for value in out.text]).float()
    genre = (out.genre == 0).float()
    assert out.roles is not None
    key = (out.key == 0).float()
    # four standard deviations of a share of 4000
    assert key.mean().item() == pytest.approx(0.1, abs=0.02)
    assert text.mean().item() == pytest.approx(1 - 0.7 * 0.9, abs=0.031)
    assert genre.mean().item() == pytest.approx(1 - 0.5 * 0.9, abs=0.032)
    kept = key == 0
    pair = torch.corrcoef(torch.stack([text[kept], genre[kept]]))[0, 1]
    assert abs(pair) < 0.07
    stems = (out.roles[kept] == 0).float()
    assert stems.mean().item() == pytest.approx(0.25, abs=0.03)
    assert abs(torch.corrcoef(stems.T)[0, 1]) < 0.07
    gone = ~kept
    assert not out.beat[gone].any() and not out.chords[gone].any() and not out.instruments[gone].any()


def test_drop_depends_on_the_generator_alone() -> None:
    batch = collate([full(4)] * 64, 4)
    one = drop(batch, {"genre": 0.5}, torch.Generator().manual_seed(5))
    other = drop(batch, {"text": 0.9, "genre": 0.5, "stems": 0.2}, torch.Generator().manual_seed(5))
    assert torch.equal(one.genre, other.genre)
    assert same(drop(batch, {}, torch.Generator()), batch)


@torch.no_grad()
def test_stems_longer_than_the_window_are_read_in_overlapping_pieces(model: TokenLM) -> None:
    stems = torch.randint(0, 40, (4, 70), generator=torch.Generator().manual_seed(0))
    changed = stems.clone()
    changed[:, 60] = (changed[:, 60] + 1) % 40
    rows = [model.prepare(collate([Condition(stems={"bass": codes})], 70)).added[0] for codes in (stems, changed)]
    assert rows[0].shape == (70, 32)
    difference = (rows[0] - rows[1]).abs().amax(1)
    assert difference[60] > 1e-3 and difference[60 - 3] > 0 and difference[63] > 0
    assert difference[: 60 - model.config.window].max() == 0
    for frames in range(14, 40):
        assert model.prepare(collate([Condition(stems={"bass": stems})], frames)).added.shape == (1, frames, 32)


def test_collate_is_fast() -> None:
    chords = tuple((2.0 * i, 2.0 * i + 2, ("Gm7", "C7", "F", "Bb")[i % 4]) for i in range(60))
    told = [dataclasses.replace(full(600), melody=None, stems=None, chords=chords) for _ in range(16)]
    best = math.inf
    for _ in range(5):
        begin = time.process_time()
        collate(told, 512)
        best = min(best, time.process_time() - begin)
    # 2 to 3 ms where it was written; a step of training must not wait for it
    assert best < 0.03


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tempo": 19.0}, "20 to 300"), ({"tempo": 301.0}, "20 to 300"), ({"tempo": float("nan")}, "20 to 300"),
        ({"beats_per_bar": 0}, "1 to 16"), ({"beats_per_bar": 17}, "1 to 16"), ({"beat_offset": math.inf}, "finite"),
        ({"genre": "polkacore"}, "did you mean"), ({"instruments": ("kazoooo",)}, "did you mean"),
        ({"instruments": "piano"}, "tuple"), ({"key": "H minor"}, "unknown key"), ({"text": 7}, "string"),
        ({"chords": ((0.0, 1.0, "Hm"),)}, "unknown chord"), ({"chords": ((1.0, 1.0, "C"),)}, "order chords"),
        ({"chords": ((1.0, 2.0, "C"), (0.0, 1.0, "F"))}, "order chords"),
        ({"chords": ((0.0, float("nan"), "C"),)}, "order chords"),
        ({"melody": torch.zeros(4, 11)}, "12"), ({"melody": torch.full((4, 12), math.nan)}, "finite"),
        ({"stems": {"kazoo": STEM}}, "unknown stem role"), ({"stems": {"bass": STEM.float()}}, "whole numbers"),
        ({"stems": {"bass": STEM[0]}}, "whole numbers"),
    ],
)  # fmt: skip
def test_bad_conditions_say_what_is_wrong(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Condition(**wrong)  # type: ignore[arg-type]


def test_bad_batches_say_what_is_wrong(model: TokenLM) -> None:
    for arguments in (([], 4), ([Condition()], 0), ([Condition()], 4, [0, 1])):
        with pytest.raises(ValueError, match="at least one condition"):
            collate(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="names are"):
        drop(collate([Condition()], 2), {"colour": 0.5}, torch.Generator())
    with pytest.raises(ValueError, match="shares"):
        drop(collate([Condition()], 2), {"text": 1.5}, torch.Generator())
    for stem in (torch.full((4, 2), 40), torch.zeros(5, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match="books of 40 fit"):
            model.prepare(collate([Condition(stems={"bass": stem})], 2))
