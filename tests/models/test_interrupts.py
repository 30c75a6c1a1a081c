"""Ctrl-C and SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models import interrupts
from models.interrupts import Terminated, deferred, sigterm_raises

ROOT = Path(__file__).resolve().parents[2]
HANDLERS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers_stay_as_they_are() -> object:
    before = [signal.getsignal(number) for number in HANDLERS]
    yield
    assert [signal.getsignal(number) for number in HANDLERS] == before


def test_the_first_sigterm_is_an_exception_and_the_second_is_ignored() -> None:
    cleaned = False
    with pytest.raises(Terminated), sigterm_raises():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned = True
    assert cleaned


def test_what_fails_as_a_consequence_is_no_error_of_its_own() -> None:
    with pytest.raises(Terminated), sigterm_raises():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Terminated:
            raise RuntimeError("a worker was killed") from None
    with pytest.raises(RuntimeError), sigterm_raises():
        raise RuntimeError("a mistake")


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_deferred_signal_waits_for_the_end_of_the_block(number: int, expected: type) -> None:
    reached = False
    with pytest.raises(expected) as caught, deferred() as interruption:
        signal.raise_signal(number)
        assert interruption.number == number
        reached = True
    assert reached and interrupts.exit_code(caught.value) == 128 + number


def test_a_second_ctrl_c_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), deferred():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it waited")


def test_a_fork_ends_by_sigterm_as_usual() -> None:
    reading, writing = os.pipe()
    with sigterm_raises():
        child = os.fork()
        if child == 0:
            os.write(writing, b"x")
            time.sleep(20)
            os._exit(0)
        os.read(reading, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM


@pytest.mark.parametrize("fast_exit", [False, True])
def test_a_command_sweeps_its_files_and_ends_with_143(fast_exit: bool, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from models.command import run; from models.files import replacing\n"
        "def main(argv):\n"
        "    with replacing(Path(argv[0])) as temporary:\n"
        "        temporary.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
        f"run(main, fast_exit={fast_exit})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "x")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n" and len(list(tmp_path.iterdir())) == 1
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and len(errors.splitlines()) == 1 and "SIGTERM" in errors
    assert not list(tmp_path.iterdir())


def test_an_error_ends_a_process_whose_workers_ignore_signals() -> None:
    script = (
        "import argparse, sys\n"
        "from helpers.training.builders import make_loader\n"
        "clips = iter(make_loader(range(9), argparse.Namespace(num_workers=1, cuda=False, batch_size=1)))\n"
        "next(clips)\n"
        "raise RuntimeError('a mistake')"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and result.stderr.endswith("RuntimeError: a mistake\n")
