"""Attacks and random damage on every entry point; the whole of it is python -m tests.fuzz."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and watches processes as Linux does")


def attack(*options: object) -> None:
    command = [sys.executable, "-m", "tests.fuzz", *map(str, options)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + result.stdout


def test_a_hundred_inputs() -> None:
    attack("--count", 85, "--attacks", 15, "--quick")


@pytest.mark.slow
def test_a_thousand_inputs() -> None:
    attack("--count", 1000, "--attacks", 500)
