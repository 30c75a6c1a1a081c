"""Full disks and kills wherever a piece of work changes the disk: doing it again gives what it gives without interruption."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from datasets.prepare import conversion
from models.errors import UserError
from tests.faults.injection import FULL, KILL, in_a_process, injected
from tests.faults.jobs import JOBS


@pytest.fixture(autouse=True)
def decoding_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "IS_AVAILABLE", False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[object, int]]:
    @cache
    def run(name: str) -> tuple[object, int]:
        """The result of a job without interruption, and at how many places it changes the disk."""
        folder = tmp_path_factory.mktemp("whole")
        JOBS[name].inputs(folder)
        with injected(None, FULL) as places:
            JOBS[name].work(folder)
        return JOBS[name].result(folder), places.count

    return run


def check(name: str, fault: str, at: int, expected: object, folder: Path) -> None:
    job = JOBS[name]
    folder.mkdir()
    job.inputs(folder)

    def fail() -> None:
        with injected(at, fault):
            job.work(folder)

    if fault == KILL:
        assert in_a_process(fail) == -signal.SIGKILL
    else:
        try:
            fail()
        except (OSError, UserError) as error:  # what a command reports in a line
            assert str(error)
        swept = [path for path in folder.rglob(".*.part") if path.is_file()]
        assert not swept, f"{name}, place {at}: {swept} stay"
    job.work(folder)
    assert job.result(folder) == expected, f"{name}, {fault} at place {at}"
    shutil.rmtree(folder)


@pytest.mark.parametrize("fault", [FULL, KILL])
@pytest.mark.parametrize("name", JOBS)
def test_a_fault_here_and_there(name: str, fault: str, whole: Callable, tmp_path: Path) -> None:
    expected, places = whole(name)
    first, last = (1, places) if fault == FULL else (2, places - 1)
    for at in (first, places // 2, last):
        check(name, fault, at, expected, tmp_path / str(at))


@pytest.mark.slow
@pytest.mark.parametrize("fault", [FULL, KILL])
@pytest.mark.parametrize("name", JOBS)
def test_a_fault_at_every_place(name: str, fault: str, whole: Callable, tmp_path: Path) -> None:
    expected, places = whole(name)
    for at in range(1, places + 1):
        check(name, fault, at, expected, tmp_path / str(at))
