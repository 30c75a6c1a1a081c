"""Full disks and kills wherever a piece of work changes the disk: doing it again gives what it gives without interruption."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from datasets.prepare import conversion
from models.errors import UserError
from tests.faults.injection import FULL, KILL, Places, in_a_process, injected
from tests.faults.jobs import JOBS


@pytest.fixture(autouse=True)
def decoding_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "IS_AVAILABLE", False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[object, Places]]:
    @cache
    def run(name: str) -> tuple[object, Places]:
        """The result of a job without interruption, and the places at which it changes the disk."""
        folder = tmp_path_factory.mktemp("whole")
        JOBS[name].inputs(folder)
        with injected(None, FULL) as places:
            JOBS[name].work(folder)
        return JOBS[name].result(folder), places

    return run


def check(name: str, fault: str, at: int, expected: object, folder: Path) -> None:
    job = JOBS[name]
    folder.mkdir()
    job.inputs(folder)

    def fail() -> None:
        with injected(at, fault):
            job.work(folder)

    if fault == KILL:
        code = in_a_process(fail)
        assert code == -signal.SIGKILL or (code == 0 and name == "training")  # which may write one place less the second time
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
def test_a_fault_in_the_middle(name: str, fault: str, whole: Callable, tmp_path: Path) -> None:
    expected, places = whole(name)
    check(name, fault, places.count * 2 // 3, expected, tmp_path / "here")


@pytest.mark.parametrize("action", [signal.SIG_IGN, signal.SIG_DFL])  # the write fails, or kills the process
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_an_hdf5_file_that_libhdf5_cannot_write_to_its_end(share: float, action: int, whole: Callable, tmp_path: Path) -> None:
    """In C code faults cannot be injected: here the system refuses what is behind a share of the file's size."""
    expected, _ = whole("packing")
    JOBS["packing"].work(tmp_path)
    limit = round(share * (tmp_path / "a.hdf").stat().st_size)
    (tmp_path / "a.hdf").unlink()

    def work() -> None:
        signal.signal(signal.SIGXFSZ, action)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        JOBS["packing"].work(tmp_path)

    assert in_a_process(work) == (1 if action == signal.SIG_IGN else -signal.SIGXFSZ)
    assert not (tmp_path / "a.hdf").exists()
    JOBS["packing"].work(tmp_path)
    assert JOBS["packing"].result(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize("fault", [FULL, KILL])
@pytest.mark.parametrize("name", JOBS)
def test_a_fault_at_every_place(name: str, fault: str, whole: Callable, tmp_path: Path) -> None:
    """Of the 540 writes of a training's checkpoints, each file's first, last and every tenth."""
    expected, places = whole(name)
    for at in places.different(10) if name == "training" else range(1, places.count + 1):
        check(name, fault, at, expected, tmp_path / str(at))
