import pytest
import torch

from descant.lm.pattern import NAMES, CoarseFirst, Flat, Order, Pattern, delay, named, undelay

PATTERNS = [
    Pattern.delayed(4),
    Pattern.parallel(3),
    Pattern((0, 0, 1, 1, 2, 2)),
    Pattern((0, 3, 1)),
    Pattern.delayed(1),
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_revert_is_the_exact_inverse_and_every_cell_is_where_the_rule_says(pattern: Pattern, frames: int) -> None:
    codes = torch.randint(0, 50, (2, pattern.books, frames))
    sequence = pattern.apply(codes, 50)
    assert sequence.shape == (2, pattern.books, pattern.steps(frames))
    assert torch.equal(pattern.revert(sequence), codes)
    expected = torch.full_like(sequence, 50)
    for b in range(2):
        for k in range(pattern.books):
            for t in range(frames):
                expected[b, k, 1 + t + pattern.delays[k]] = codes[b, k, t]
    assert torch.equal(sequence, expected)


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_mask_marks_each_token_once(pattern: Pattern) -> None:
    mask = pattern.mask(6)
    assert torch.equal(mask, (pattern.apply(torch.zeros(1, pattern.books, 6, dtype=torch.long), 9) == 0)[0])
    assert mask.sum(1).tolist() == [6] * pattern.books


def test_delay_of_four_books_by_hand() -> None:
    codes = torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]])
    rows = [[0, 1, 2, 3, 0, 0, 0], [0, 0, 4, 5, 6, 0, 0], [0, 0, 0, 7, 8, 9, 0], [0, 0, 0, 0, 10, 11, 12]]
    assert delay(codes, 0).tolist() == [rows]
    assert torch.equal(undelay(delay(codes, 0)), codes)


def test_a_longer_piece_begins_like_a_shorter_one() -> None:
    codes = torch.randint(0, 9, (1, 4, 12))
    assert torch.equal(delay(codes, 9)[:, :, :6], delay(codes[:, :, :5], 9)[:, :, :6])


def test_zero_frames() -> None:
    assert delay(torch.empty(1, 3, 0, dtype=torch.long), 7).tolist() == [[[7] * 3] * 3]


@pytest.mark.parametrize("shape", [(4, 5), (1, 3, 5), (1, 4, 5, 1)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Pattern.delayed(4).apply(torch.zeros(shape, dtype=torch.long), 0)


def test_bad_patterns_and_short_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="delays"):
        Pattern(())
    with pytest.raises(ValueError, match="delays"):
        Pattern((0, -1))
    with pytest.raises(ValueError, match="shorter"):
        undelay(torch.zeros(1, 4, 3, dtype=torch.long))


def test_orders_by_name() -> None:
    orders = [Pattern.delayed(3), Pattern.parallel(3), Flat(3), CoarseFirst(3)]
    assert [named(name, 3) for name in NAMES] == orders
    assert [order.endless for order in orders] == [True, True, True, False] and CoarseFirst(1).endless
    with pytest.raises(ValueError, match="unknown pattern 'spiral': delay, parallel, flat, coarse-first"):
        named("spiral", 3)


ORDERS: list[Order] = [*PATTERNS, Flat(1), Flat(4), CoarseFirst(1), CoarseFirst(4)]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("frames", [0, 1, 5])
def test_every_order_goes_back_exactly_and_keeps_each_token_once(order: Order, frames: int) -> None:
    codes = torch.randint(0, 50, (2, order.books, frames), generator=torch.Generator().manual_seed(frames))
    sequence = order.apply(codes, 50)
    assert sequence.shape == (2, order.books, order.steps(frames))
    assert torch.equal(order.revert(sequence), codes)
    mask = order.mask(frames)
    assert torch.equal(mask.expand(2, -1, -1), sequence != 50)
    assert mask.sum(1).tolist() == [frames] * order.books and not mask[:, 0].any()
    # the coarser codebook of a frame is never later than the finer one
    places = order.places(frames)
    assert bool((places[1:] >= places[:1]).all())


def test_flat_and_coarse_first_by_hand() -> None:
    codes = torch.tensor([[[1, 2], [3, 4], [5, 6]]])
    assert Flat(3).apply(codes, 0).tolist() == [[[0, 1, 0, 0, 2, 0, 0], [0, 0, 3, 0, 0, 4, 0], [0, 0, 0, 5, 0, 0, 6]]]
    assert CoarseFirst(3).apply(codes, 0).tolist() == [[[0, 1, 2, 0, 0], [0, 0, 0, 3, 4], [0, 0, 0, 5, 6]]]


def test_sequences_of_no_whole_number_of_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="whole number"):
        Flat(3).revert(torch.zeros(1, 3, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="whole number"):
        CoarseFirst(3).revert(torch.zeros(1, 3, 4, dtype=torch.long))
    for bad in (Flat, CoarseFirst):
        with pytest.raises(ValueError, match="at least one"):
            bad(0)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("frames", [1, 5])
def test_what_steps_are_told_and_the_keys_of_their_noise(order: Order, frames: int) -> None:
    """A step is told of the frame whose tokens it predicts, the latest of several; step s predicts what is at s + 1."""
    rows = torch.arange(frames)[None, :, None]
    told = order.spread(rows)[0, :, 0].tolist()
    assert len(told) == order.inputs(frames) == order.steps(frames) - 1 - order.tail
    places = order.places(frames).tolist()
    for step, frame in enumerate(told):
        there = [t for row in places for t, place in enumerate(row) if place == step + 1]
        # in a pattern of delays without a book of delay 0 nothing of its own frame may be there yet
        assert not there or max(there) <= frame and (max(there) == frame or 0 not in getattr(order, "delays", (0,)))
    keys = {}
    for book, row in enumerate(places):
        for frame, place in enumerate(row):
            key = order.moment(place, frames)
            # longer pieces draw the same tokens by the same noise
            assert key == order.moment(int(order.places(frames + 3)[book, frame]), frames + 3)
            assert key == (place if isinstance(order, Pattern) else 1 + frame)
            keys[key, book] = frame
    assert len(keys) == frames * order.books
