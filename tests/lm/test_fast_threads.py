import pytest
import torch

from descant.lm.fast_threads import WORTH, advised, threads


def test_one_thread_where_more_would_wait_for_each_other() -> None:
    with threads(8):
        assert advised(WORTH - 1, 8, 0.0) == 1
        assert advised(100 * WORTH, 8, 8.0) == 1
        assert advised(100 * WORTH, 2, 30.0) == 1
        assert advised(100 * WORTH, 8, 0.0) == 8
        assert advised(100 * WORTH, 8, 5.2) == 3
        assert advised(3 * WORTH, 8, 0.0) == 3
        assert 1 <= advised(100 * WORTH) <= 8


def test_never_more_than_torch_is_set_to_use_and_set_back_afterwards() -> None:
    before = torch.get_num_threads()
    with threads(2):
        assert torch.get_num_threads() == 2
        assert advised(100 * WORTH, 16, 0.0) == 2
        with pytest.raises(ValueError, match="cannot read"):
            advised(-1)
    assert torch.get_num_threads() == before
