"""Fixtures of the tests of helpers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def stored() -> Callable[..., tuple[Path, Path]]:
    """Write a teacher's logits and their index into a folder: a list of names as text, a dict as a pickle."""

    def store(
        folder: Path, logits: np.ndarray, index: dict[str, int] | list[str], protocol: int | None = None
    ) -> tuple[Path, Path]:
        preds = folder / "teacher.npy"
        np.save(preds, logits)
        if isinstance(index, list):
            path = folder / "teacher.txt"
            path.write_text("".join(f"{name}\n" for name in index), encoding="utf-8")
        else:
            path = folder / "index.pkl"
            path.write_bytes(pickle.dumps(index, protocol))
        return preds, path

    return store
