"""What an outcome is judged by: commands that misbehave in one way each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from models.errors import UserError
from tests.fuzz import sandbox

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and watches processes as Linux does")


def refuse() -> None:
    raise UserError("no such thing")


def leave_a_process() -> None:
    subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])


def connect() -> None:
    with socket.socket() as server:
        server.connect(("127.0.0.1", 9))


MISBEHAVIOUR: dict[str, tuple[Callable[[Path], object], str]] = {
    "traceback": (lambda _: 1 / 0, "traceback: ZeroDivisionError"),
    "two lines": (lambda _: (print("error: one", file=sys.stderr), refuse()), "2 lines of error"),
    "silent failure": (lambda _: sys.exit(3), "0 lines of error"),
    "crash": (lambda _: os.abort(), "ended by signal 6"),
    "NaN": (lambda _: print("Speech: nan"), "not finite"),
    "control characters": (lambda _: print("\x1b[2J"), "control characters"),
    "made-up line": (lambda _: print(f"a\n{sandbox.INJECTED}"), "made up"),
    "memory": (lambda _: b"x" * 600_000_000, "MB"),
    "all memory": (lambda _: bytearray(20_000_000_000), "fills the memory"),
    "reads elsewhere": (lambda elsewhere: (elsewhere / "secret").read_bytes(), "elsewhere"),
    "writes elsewhere": (lambda elsewhere: elsewhere.with_name("other").write_text("x"), "open"),
    "changes its input": (lambda _: Path("../input/given").write_text("y"), "changes its input"),
    "temporary file": (lambda _: tempfile.mkstemp(), "leaves tmp/"),
    "part": (lambda _: Path("x.npy.part").touch(), "leaves work/x.npy.part"),
    "formula": (lambda _: Path("x.csv").write_text("label\n=1+1\n"), "formula"),
    "process": (lambda _: leave_a_process(), "leaves 1 processes"),
    "thread": (lambda _: threading.Thread(target=time.sleep, args=(60,), daemon=True).start(), "leaves the threads"),
    "connection": (lambda _: connect(), "socket.connect"),
    "program": (lambda _: os.system("true"), "os.system"),
}
RIGHT: dict[str, Callable[[Path], object]] = {
    "result": lambda _: print("Speech: 0.5"),
    "refusal": lambda _: refuse(),
    "usage": lambda _: (print("usage: x\nx: error: wrong", file=sys.stderr), sys.exit(2)),
    "negative numbers in a table": lambda _: Path("x.csv").write_text("score\n-0.5\n"),
}


@pytest.fixture
def outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setattr(sandbox, "GRACE", 0.2)
    sandbox.become_subreaper()
    canary = sandbox.Canary(tmp_path / "elsewhere")

    def judged(behave: Callable[[Path], object], must_fail: bool = False) -> list[str]:
        box = sandbox.fresh(tmp_path / "box")
        (box.root / "input" / "given").write_text("x")
        result = sandbox.run(lambda _: behave(tmp_path / "elsewhere") and 0 or 0, [], box, canary)
        return sandbox.judge(result, must_fail, may_report=False)

    return judged


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_what_should_not_be_is_noticed(outcome: Callable[..., list[str]], name: str) -> None:
    behave, problem = MISBEHAVIOUR[name]
    problems = outcome(behave)
    assert any(problem in found for found in problems), problems


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_result_and_a_refusal_pass(outcome: Callable[..., list[str]], name: str) -> None:
    assert outcome(RIGHT[name]) == []


def test_what_must_fail_may_not_be_accepted(outcome: Callable[..., list[str]]) -> None:
    assert outcome(lambda _: None, must_fail=True) == ["is accepted"]
    assert outcome(lambda _: refuse(), must_fail=True) == []
