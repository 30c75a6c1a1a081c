"""Fixtures of archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.archive import archives


@pytest.fixture
def write_archive(tmp_path: Path) -> Callable[..., str]:
    """Write a small archive of a name, see `archives.write`."""
    return lambda name, *shards, **options: archives.write(tmp_path / name, *shards, **options)


@pytest.fixture
def random_vectors() -> Callable[[int], np.ndarray]:
    return lambda count: np.random.default_rng(0).standard_normal((count, archives.SIZE)).astype(np.float16)
