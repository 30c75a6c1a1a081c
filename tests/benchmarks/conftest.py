"""A process of this checkout without the seconds that starting one takes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import common


class ForkedProcess(common.CheckoutProcess):
    """A `CheckoutProcess` that is forked from this one, which has imported PyTorch."""

    def __init__(self, checkout: Path, code: str) -> None:
        assert checkout == common.ROOT
        (tasks, to_child), (from_child, answers) = os.pipe(), os.pipe()

        def run() -> None:
            with open(tasks) as sys.stdin, open(answers, "w") as sys.stdout:
                exec(code, {"__name__": "__main__"})

        child = multiprocessing.get_context("fork").Process(target=run)
        child.start()
        os.close(tasks)
        os.close(answers)
        self._process = SimpleNamespace(stdin=open(to_child, "w"), stdout=open(from_child), wait=child.kill)


@pytest.fixture(scope="session")
def forked_process() -> Callable[[Path, str], common.CheckoutProcess]:
    """What stands for `CheckoutProcess`, with the checkout in which the tests are."""
    return ForkedProcess
