"""What the commands of datasets.prepare share: worker processes, and recordings of which several copies are there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datasets.hdf5_mp3 import Mp3Dataset
from datasets.prepare.conversion import Recording, Source, worker_processes, write_recordings
from models.errors import UserError


def test_a_killed_worker_is_an_error_with_advice() -> None:
    with pytest.raises(UserError, match="--num_workers"), worker_processes(1) as pool:
        pool.submit(os._exit, 1).result()


def test_an_interrupt_ends_workers_that_it_did_not_reach() -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), worker_processes(1) as pool:
        work = pool.submit(time.sleep, 100)
        while not work.running():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 60


def test_order_and_batches_do_not_change_what_is_written(tmp_path: Path) -> None:
    for seconds in (1, 2):
        soundfile.write(tmp_path / f"{seconds}.wav", 0.1 * np.ones(seconds * 8000), 8000)
    (tmp_path / "broken.wav").write_bytes(b"nothing of value")
    one, two, broken = (Source(tmp_path / f"{name}.wav") for name in (1, 2, "broken"))
    recordings = [Recording(f"{number}.mp3", (broken, one, two, one), (number % 3,)) for number in range(70)]
    report = write_recordings([*recordings, Recording("no.mp3", (broken,), ())], tmp_path / "a.hdf", 3, num_workers=3)
    assert (report.written, [name for name, _ in report.unreadable]) == (70, ["no.mp3"])
    assert len(report.duplicates) == 3 * 70
    clips = Mp3Dataset(tmp_path / "a.hdf", num_classes=3, clip_seconds=None)
    assert clips.names == [f"{number}.mp3" for number in range(70)]
    assert clips.targets().argmax(axis=1).tolist() == [number % 3 for number in range(70)]
    assert abs(len(clips[69].waveform) - 64000) < 10
