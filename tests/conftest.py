"""One thread for every test: sizes are tiny here, and on a busy machine a second thread makes seconds into minutes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


def pytest_configure() -> None:
    """Before anything of the suite runs, module and session fixtures and processes of their own included."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What a test sets does not reach the next one."""
    yield
    torch.set_num_threads(1)
