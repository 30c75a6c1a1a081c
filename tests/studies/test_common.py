"""What studies of several trainings share: an interruption loses nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models import interrupts
from studies import common

# In the place of a training: it needs a while to write its checkpoint.
TRAINING = """
import os, pathlib, signal, sys, time

def save(*_):
    time.sleep(1)
    pathlib.Path(f"saved_{os.getpid()}").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
pathlib.Path(f"ready_{os.getpid()}").touch()
time.sleep(100)
"""


def one_script(folder: Path) -> None:
    common.run_python([folder / "ex_audioset.py"], "training", folder, 1)


def two_at_a_time(folder: Path) -> None:
    common.train_all({("arm", seed): [] for seed in range(4)}, folder, jobs=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("work", "count"), [(one_script, 1), (two_at_a_time, 2)])
def test_trainings_write_their_checkpoints_before_an_interrupted_study_ends(
    work: Callable[[Path], None], count: int, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches the whole process group of a terminal, SIGTERM the study alone. No further training begins."""
    (tmp_path / "ex_audioset.py").write_text(TRAINING)
    monkeypatch.setattr(common, "ROOT", tmp_path)

    def interrupt() -> None:
        while len(ready := list(tmp_path.glob("ready_*"))) < count:
            time.sleep(0.05)
        for process in ready if number == signal.SIGINT else []:
            os.kill(int(process.name.removeprefix("ready_")), number)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of a job in the background it is ignored
    try:
        with interrupts.sigterm_raises():
            thread = threading.Thread(target=interrupt, daemon=True)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                work(tmp_path)
            thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    ready, saved = ({path.name.partition("_")[2] for path in tmp_path.glob(f"{what}_*")} for what in ("ready", "saved"))
    assert ready == saved and len(saved) == count
