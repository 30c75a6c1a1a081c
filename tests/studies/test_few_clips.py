from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from studies import few_clips


def _train(started: Path) -> None:
    (started / str(os.getpid())).touch()
    time.sleep(60)


def test_an_interruption_ends_the_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that run, and those that wait for their turn."""
    monkeypatch.setattr(few_clips, "get_context", lambda _: multiprocessing.get_context("fork"))
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), few_clips.training_processes(2) as pool:
        for _ in range(8):
            pool.submit(_train, tmp_path)
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 30
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)
