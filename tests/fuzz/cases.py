"""Inputs and what becomes of them."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot  # noqa: F401  what commands import late is imported before they are forked
import torch._dynamo  # noqa: F401
import tqdm

from helpers.probing import runs as probe_runs
from models import download
from tests.fuzz import entries, sandbox, undamaged
from tests.fuzz.entries import KINDS, Entry, Kind


@dataclass(frozen=True)
class Attack:
    """An input made to do harm; `make` gets the undamaged content and the folder that nothing may touch."""

    kind: Kind
    name: str
    make: Callable[[bytes, Path], bytes]
    must_fail: bool = True
    serve: Callable[[], tuple[int, int]] | None = None  # starts a server for the downloads, and returns its process and port


@dataclass(frozen=True)
class Case:
    kind: Kind
    entry: Entry
    name: str
    make: Callable[[bytes, Path], bytes]
    must_fail: bool = False
    must_work: bool = False
    serve: Callable[[], tuple[int, int]] | None = None


class Lab:
    """Folders in which cases are run, one after the other."""

    def __init__(self, folder: Path, quick: bool = False) -> None:
        torch.set_num_threads(1)
        gc.freeze()
        tqdm.tqdm.monitor_interval = 0  # no thread for each progress bar
        for name in ("TIMEOUT_S", "ANSWER_S", "SLOWEST_S"):  # of downloads
            setattr(download, name, 3.0)
        probe_runs.ProcessPoolExecutor = lambda processes, _: ThreadPoolExecutor(processes)
        self.good = folder / "good"
        self.good.mkdir()
        if (child := os.fork()) == 0:  # so that this process stays one of which forks are made: without other threads
            code = 1
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    undamaged.write(self.good, quick)
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("the undamaged files could not be written")
        self.canary = sandbox.Canary(folder / "elsewhere")
        self._box = folder / "box"
        sandbox.become_subreaper()

    def run(self, case: Case) -> list[str]:
        """What is wrong with the outcome of a case."""
        box = sandbox.fresh(self._box)
        kind, folder = case.kind, box.root / "input"
        path = folder / kind.file
        path.parent.mkdir(parents=True, exist_ok=True)
        kind.companions(self.good, folder)
        given = case.make((self.good / kind.undamaged).read_bytes(), self.canary.secret)
        path.write_bytes(given)
        argv = entries.arguments(case.entry, kind, folder, self.good)
        stdin = path if case.entry.is_streamed else None
        server, port = case.serve() if case.serve else (None, 9)  # 9: a port that refuses
        try:
            address = {"EFFICIENTAT_RELEASE_URL": f"http://127.0.0.1:{port}/", "no_proxy": "*"}
            outcome = sandbox.run(
                case.entry.main,
                argv,
                box,
                self.canary,
                stdin=stdin,
                environment=address,
                server=server,
                resumes=case.entry.resumes,
            )
        finally:
            if server:
                os.kill(server, signal.SIGKILL)
                os.waitpid(server, 0)
        problems = sandbox.judge(outcome, case.must_fail, case.entry.may_report)
        if path.is_file() and path.read_bytes() == given:  # what is in it was not written by the command
            name = os.path.relpath(path, box.root)
            problems = [problem for problem in problems if not problem.startswith(f"{name} has")]
        if case.must_work and outcome.code != 0:
            problems.append(f"ends with {outcome.code}: {outcome.err[-300:]}")
        return problems


def undamaged_cases() -> Iterator[Case]:
    """Each kind through each of its entry points as it is."""
    for kind in KINDS:
        for entry in kind.entries:
            if entry.name != "models.convert":  # which takes other networks' weights
                yield Case(kind, entry, "undamaged", lambda content, _: content, must_work=True)
