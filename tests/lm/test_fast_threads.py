from pathlib import Path

import pytest
import torch

from descant.lm import fast_threads
from descant.lm.fast_threads import WORTH, Watch, advised, others, threads


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


def test_what_others_are_doing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "loadavg"
    own = tmp_path / "tasks"
    monkeypatch.setattr(fast_threads, "_RUNNING", str(told))
    monkeypatch.setattr(fast_threads, "_TASKS", str(own))
    assert others() is None
    # the one that asks, one that turns idly, one that sleeps; the last has ended
    for number, state in (("1", "R"), ("2", "R"), ("3", "S"), ("4", None)):
        (own / number).mkdir(parents=True)
        if state is not None:
            (own / number / "stat").write_text(f"{number} (python) (R) x) {state} 1 1 1\n")
    with threads(4):
        assert advised(100 * WORTH, 4) == 1
    told.write_text("0.20 0.18 0.12 3/80 11206\n")
    assert others() == 1.0
    told.write_text("0.20 0.18 0.12 6/80 11206\n")
    assert others() == 4.0
    told.write_text("0.20 0.18 0.12 0/80 11206\n")
    assert others() == 0.0
    told.write_text("what?\n")
    assert others() is None


def test_a_moments_work_of_others_does_not_change_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(fast_threads, "others", lambda: now[0])
    monkeypatch.setattr(fast_threads.os, "sched_getaffinity", lambda _: range(4), raising=False)
    with threads(4):
        watch = Watch(WORTH // 4)
        # a step alone is too small for company; a prompt's many positions are not
        assert watch.threads() == 1 and watch.threads(64) == 4
        now[0] = 4.0
        assert watch.threads(64) == 4
        assert [watch.threads(64) for _ in range(30)][-1] == 1
        now[0] = 0.0
        assert [watch.threads(64) for _ in range(60)][-1] == 4
