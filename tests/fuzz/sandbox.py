"""Run a command in a forked process with limits, in a folder that is looked at before and afterwards."""

from __future__ import annotations

import atexit
import contextlib
import csv
import ctypes
import faulthandler
import logging
import multiprocessing.util
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models import command

SECONDS = 120.0  # until a command hangs, on a busy machine
CPU_SECONDS = 10
MEMORY = 500e6  # bytes above what the process had when it was forked
ADDRESS_SPACE = 6 << 30  # bytes above it: beyond, allocations fail
GRACE = 2.0  # seconds in which the processes of a command may end after it

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
_WATCHED = 0x1 | 0x2 | 0x4 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200  # inotify(7): read, written, changed, opened, moved, made, removed
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGING = {f"os.{name}" for name in ("remove", "rename", "mkdir", "rmdir", "symlink", "link", "truncate", "chmod")}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.])")
INJECTED = "INJECTED"  # what attacks put behind a newline
OWNED = "owned"  # name of a file that attacks try to write


@dataclass
class Sandbox:
    """The folders of a command: `input` is given, `work` is where it runs, the others should stay as they are."""

    root: Path

    def __post_init__(self) -> None:
        for name in ("input", "work", "resources", "tmp", "home"):
            (self.root / name).mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        folders = {"EFFICIENTAT_RESOURCES": "resources", "TMPDIR": "tmp", "HOME": "home", "XDG_CACHE_HOME": "home"}
        return {name: str(self.root / folder) for name, folder in folders.items()}


@dataclass
class Outcome:
    code: int  # of the process; negative: the signal that ended it
    out: str
    err: str
    problems: list[str]


class Canary:
    """A folder that nothing may touch, with a file to read; notices accesses also below Python."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.secret = folder / "secret"
        self.secret.write_bytes(b"secret\n" * 100)
        self._libc = ctypes.CDLL(None)
        self._watch = self._libc.inotify_init1(os.O_NONBLOCK)
        if self._libc.inotify_add_watch(self._watch, os.fsencode(folder), _WATCHED) < 0:
            raise OSError(f"{folder} cannot be watched")

    def touched(self) -> bool:
        """Whether anything was opened or written since the last call."""
        try:
            return bool(os.read(self._watch, 1 << 16))
        except BlockingIOError:
            return False


def become_subreaper() -> None:
    """Make processes whose parent has ended children of this one, where `run` finds them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(
    main: Callable[[Sequence[str] | None], int],
    argv: Sequence[str],
    box: Sandbox,
    canary: Canary,
    *,
    stdin: Path | None = None,
    environment: dict[str, str] | None = None,
    server: int | None = None,
    resumes: bool = False,
) -> Outcome:
    """Run a command as its command line would.

    With a `server`, the process of one, it may connect. One that `resumes` may leave a .part in its folder.
    """
    before = _listing(box.root / "input")
    memory = _own_memory()
    canary.touched()
    child = os.fork()
    if child == 0:
        _child(main, argv, box, stdin, environment or {}, server is not None)
    problems = []
    status, usage = _wait(child)
    if status is None:
        problems.append(f"takes more than {SECONDS:g} s")
        os.killpg(child, signal.SIGKILL)
        _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    if seconds > CPU_SECONDS:
        problems.append(f"takes {seconds:.0f} s of the processor")
    if (grown := usage.ru_maxrss * 1024 - memory) > MEMORY:
        problems.append(f"takes {grown / 1e6:.0f} MB")
    if left := _left_processes(server):
        problems.append(f"leaves {left} processes")
    after = _listing(box.root / "input")
    if any(after.get(path) != stat for path, stat in before.items()):
        problems.append("changes its input")
    if new := [path for path in after.keys() - before.keys() if not path.endswith(".npy")]:  # but for the index of shards
        problems.append(f"writes {new[0]}")
    if canary.touched():
        problems.append("opens or writes a file elsewhere")
    problems += _left_files(box.root, resumes)
    if not (box.root / "violations").exists():
        return Outcome(code, "", "", [*problems, "did not start"])
    out, err, violations = ((box.root / name).read_text(errors="surrogateescape") for name in ("out", "err", "violations"))
    problems += violations.splitlines()[:3]
    return Outcome(code, out, err, problems)


def judge(outcome: Outcome, must_fail: bool, may_report: bool) -> list[str]:
    """What is wrong with an outcome; nothing, if it is a right result or one line and a non-zero exit code.

    `may_report`: a command that lists what it could not use, and ends with 1.
    """
    code, problems = outcome.code, list(outcome.problems)
    text = outcome.out + outcome.err
    errors = [line for line in outcome.err.splitlines() if "error: " in line]
    if code < 0:
        problems.append(f"ended by signal {-code}")
    if "Traceback (most recent call last)" in text:
        last = next(
            (line for line in reversed(outcome.err.splitlines()) if re.match(r"\w[\w.]*(Error|Exception|Exit)\b", line)), ""
        )
        problems.append(f"traceback: {last[:150]}")
    elif code == 0 and must_fail:
        problems.append("is accepted")
    elif code == 0 and re.search(
        r"\b(nan|inf)\b", outcome.out.replace("ROC: nan", "")
    ):  # which classes without negative clips have
        problems.append("a result is not finite")
    elif code > 0 and len(errors) != 1 and not (may_report and outcome.out.strip()):
        problems.append(f"{len(errors)} lines of error")
    if any("memory is full" in line for line in errors):
        problems.append("fills the memory")
    if _CONTROL.search(text):
        problems.append("prints control characters")
    if re.search(rf"^{INJECTED}", text, re.MULTILINE):
        problems.append("prints a line that the input made up")
    return problems


def _wait(child: int) -> tuple[int | None, resource.struct_rusage | None]:
    end = time.monotonic() + SECONDS
    pause = 0.001
    while time.monotonic() < end:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        time.sleep(pause)
        pause = min(0.02, 1.5 * pause)
    return None, None


def _left_processes(server: int | None) -> int:
    """Wait for processes whose parent has ended; end those that go on, and return how many they were."""
    end, left = time.monotonic() + GRACE, 0
    ours = Path("/proc/self/task", str(os.getpid()), "children")
    while children := {int(pid) for pid in ours.read_text().split()} - {server}:
        if time.monotonic() > end:
            left, end = len(children), end + GRACE
            for pid in children:
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)
    return left


def _left_files(root: Path, resumes: bool) -> list[str]:
    """Temporary files of a command, files where it should write none, and cells of tables that a spreadsheet would compute."""
    problems = []
    for path in (path for name in ("work", "resources", "tmp", "home") for path in (root / name).rglob("*")):
        name = path.relative_to(root).as_posix()
        is_part = path.name.endswith(".part") and not (resumes and name.startswith("work/"))
        if name.startswith(("tmp/", "home/")) or is_part or path.name.startswith("."):
            problems.append(f"leaves {name}")
        elif path.suffix == ".csv" and path.is_file():
            cells = []
            with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file, contextlib.suppress(csv.Error):
                cells = [cell for row in csv.reader(file) for cell in row]
            problems += [f"{name} has the formula {cell[:20]!r}" for cell in cells if _FORMULA.match(cell)][:1]
    if (root / OWNED).exists():
        problems.append("writes a file outside its folder")
    return problems[:3]


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (stat.st_size, stat.st_mtime_ns) for path in folder.rglob("*") if not path.is_dir() and (stat := path.lstat())
    }


def _own_memory() -> int:
    """Bytes that a fork shares at once; pages of libraries come as they are used, and count as the command's."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def _child(
    main: Callable[[Sequence[str] | None], int],
    argv: Sequence[str],
    box: Sandbox,
    stdin: Path | None,
    environment: dict[str, str],
    may_connect: bool,
) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(box.root / "work")
        os.environ.update(box.environment() | environment)
        tempfile.tempdir = None
        os.dup2(os.open(stdin or os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(box.root / name, os.O_WRONLY | os.O_CREAT), number)
        log = os.open(box.root / "violations", os.O_WRONLY | os.O_CREAT)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE, size + ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (2 * CPU_SECONDS, 2 * CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdin = open(0, encoding="utf-8", closefd=False)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
        _forget_the_parents_end()
        sys.argv = ["command", *argv]
        sys.addaudithook(_watch(str(box.root), log, may_connect))
        try:
            command.run(main)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
            code = 1
        threading._shutdown()  # what Python does at its end
        atexit._run_exitfuncs()
        others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        for thread in others:
            thread.join(GRACE)
        if left := [thread.name for thread in others if thread.is_alive()]:
            os.write(log, f"leaves the threads {', '.join(left)}\n".encode())
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _forget_the_parents_end() -> None:
    """Leave what the parent would do at its end to it: pytest removes folders, torch takes longer than a command."""
    faulthandler.disable()
    atexit._clear()
    for finalizer in weakref.finalize._registry:
        finalizer.atexit = False
    atexit.register(weakref.finalize._exitfunc)
    atexit.register(multiprocessing.util._exit_function)
    atexit.register(logging.shutdown)


def _watch(root: str, log: int, may_connect: bool) -> Callable[[str, tuple], None]:
    """An audit hook that writes down changes of files elsewhere, connections, and programs other than Python, git and dpkg-deb."""

    def is_elsewhere(path: object) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        path = os.path.abspath(os.fsdecode(path))
        return not path.startswith((root + "/", "/dev/", "/proc/self/"))

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            wrong = isinstance(args[2], int) and args[2] & _WRITING and is_elsewhere(args[0])
        elif event in _CHANGING:
            wrong = is_elsewhere(args[0]) or (event in ("os.rename", "os.link") and is_elsewhere(args[1]))
        elif event in ("socket.connect", "socket.getaddrinfo"):
            wrong = not may_connect and not (event == "socket.connect" and isinstance(args[1], (str, bytes)))
        elif event == "subprocess.Popen":
            wrong = args[0] not in (sys.executable, "git", "dpkg-deb")
        else:
            wrong = event in ("os.system", "os.exec")
        if wrong:
            os.write(log, f"{event} {' '.join(map(repr, args))[:150]}\n".encode("utf-8", "backslashreplace"))

    return hook


def fresh(folder: Path) -> Sandbox:
    """An empty sandbox in place of an earlier one."""
    shutil.rmtree(folder, ignore_errors=True)
    return Sandbox(folder)
