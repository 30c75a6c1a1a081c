"""Attacks and random damage on every entry point; the whole of it is python -m tests.fuzz."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and watches processes as Linux does")


def attack(printed: Path, *options: object) -> None:
    """Run the command in a fork, whose own forks the attacks are."""

    def run() -> None:
        with open(printed, "w") as sys.stdout:
            sys.stderr = sys.stdout
            sys.exit(fuzz.main([*map(str, options)]))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == 0, printed.read_text()


def test_forty_inputs(tmp_path: Path) -> None:
    attack(tmp_path / "printed", "--count", 34, "--attacks", 6, "--quick")


@pytest.mark.slow
def test_a_thousand_inputs(tmp_path: Path) -> None:
    attack(tmp_path / "printed", "--count", 1000, "--attacks", 500)
