"""archive.py with Ray: once from end to end; and with workers, drivers and machines that are killed (make test-archive)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from helpers.archive.inputs import list_inputs
from helpers.archive.output import Output
from helpers.archive.plan import Plan
from helpers.archive.pool import QUIET

ROOT = Path(__file__).resolve().parent.parent
MODEL = ("--model_name", "mn04_distilled", "--backend", "onnx")
LIMIT = 900.0  # seconds that a run may take on a busy machine


def write_recordings(folder: Path, count: int, seconds: float) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        length = round(8000 * seconds * rng.uniform(0.2, 1))
        soundfile.write(folder / f"{number:03}.wav", 0.3 * rng.standard_normal(length), 8000)
    (folder / "broken.wav").write_text("this is no sound")
    return folder


def rows(output: Path) -> list[dict[str, Any]]:
    return [row for batch in Output(output).rows() for row in batch.to_pylist()]


def command(folder: Path, output: Path, *options: str) -> list[str]:
    return [sys.executable, str(ROOT / "archive.py"), str(folder), "--output", str(output), *MODEL, *options]


def run(folder: Path, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, output, *options), capture_output=True, text=True, timeout=LIMIT, cwd=output.parent)


def test_archive_from_end_to_end(tmp_path: Path) -> None:
    folder = write_recordings(tmp_path / "recordings", 3, 1.0)
    result = run(folder, tmp_path / "out", "--decoders", "1", "--networks", "1")
    assert result.returncode == 1, result.stderr  # a recording failed
    assert "4 recordings, 1 failed (1 audio)" in result.stdout
    assert "Traceback" not in result.stderr
    found = rows(tmp_path / "out")
    assert [row["source"] for row in found] == ["000.wav", "001.wav", "002.wav", "broken.wav"]
    assert [row["error_kind"] for row in found] == [None, None, None, "audio"]
    assert all(len(row["scores"]) == 527 for row in found[:3])
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["recordings"] == 4
    assert not list((tmp_path / "out" / "staging").glob("*"))


# What is killed: `make test-archive`


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("inputs") / "recordings", 159, 30.0)


@pytest.fixture(scope="module")
def expected(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    output = plan(recordings, tmp_path_factory.mktemp("expected") / "out")
    result = run(recordings, output)
    assert "160 recordings, 1 failed (1 audio)" in result.stdout, result.stderr
    return rows(output)


def plan(folder: Path, output: Path) -> Path:
    """Plan many small tasks, so that a run is interrupted between some of them."""
    Plan(output).extend(list_inputs(str(folder)), 80, 8)
    return output


def parents() -> dict[int, tuple[int, str]]:
    """Process -> its parent and its command."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text().rpartition(")")[2].split()
            found[int(path.name)] = int(status[1]), (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def workers(ancestor: int, name: str) -> list[int]:
    """Return the processes below another one whose command begins with `ray::` and holds a name."""
    processes = parents()

    def is_below(process: int) -> bool:
        while process in processes:
            process = processes[process][0]
            if process == ancestor:
                return True
        return False

    return [process for process, (_, line) in processes.items() if line.startswith("ray::") and name in line and is_below(process)]


def staged(output: Path) -> int:
    return len(list((output / "staging").glob("*/task-*.parquet"))) + 10 * len(list((output / "data").glob("shard-*.parquet")))


def wait(for_what: Callable[[], Any]) -> Any:
    end = time.monotonic() + LIMIT
    while not (found := for_what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture
def started(recordings: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run."""
    output = plan(recordings, tmp_path / "out")
    with subprocess.Popen(
        command(recordings, output), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        yield process, output
        process.kill()


@pytest.mark.archive
@pytest.mark.parametrize("name", ["NetworkStep", "DecodeStep"])
def test_a_killed_worker_loses_nothing(
    started: tuple[subprocess.Popen[str], Path], expected: list[dict[str, Any]], name: str
) -> None:
    process, output = started
    worker, *_ = wait(lambda: workers(process.pid, name))
    wait(lambda: staged(output) >= 2)
    os.kill(worker, signal.SIGKILL)
    printed, errors = process.communicate(timeout=LIMIT)
    assert "160 recordings, 1 failed (1 audio)" in printed, errors
    assert rows(output) == expected


@pytest.mark.archive
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_driver_is_resumed(
    started: tuple[subprocess.Popen[str], Path], recordings: Path, expected: list[dict[str, Any]], number: int
) -> None:
    process, output = started
    wait(lambda: staged(output) >= 3)
    below = workers(process.pid, "")
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "Traceback" not in errors
    wait(lambda: not set(below) & set(parents()))  # no worker is left behind
    before = staged(output)
    assert 3 <= before
    result = run(recordings, output)
    assert "160 recordings, 1 failed (1 audio)" in result.stdout, result.stderr
    assert rows(output) == expected
    report = json.loads((output / "report.json").read_text())
    assert report["last_run"]["recordings"] <= 160 - 7 * 3  # what was there was not computed again


@pytest.mark.archive
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_line_and_resumed_when_there_is_room(
    recordings: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "none", str(output)]).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        plan(recordings, output)
        result = run(recordings, output)
        assert result.returncode == 1
        assert "No space left on device" in result.stderr
        assert len(result.stderr.strip().splitlines()) <= 2, result.stderr  # a line of progress may be there
        assert len(rows(output)) < 160
        subprocess.run(["mount", "-o", "remount,size=64m", str(output)], check=True)
        result = run(recordings, output)
        assert "160 recordings, 1 failed (1 audio)" in result.stdout, result.stderr
        assert rows(output) == expected
    finally:
        subprocess.run(["umount", str(output)], check=True)


@pytest.mark.archive
def test_two_machines_share_the_work_and_one_of_them_is_lost(
    recordings: Path, expected: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    output = plan(recordings, tmp_path / "out")
    machine = {"num_cpus": 1, "object_store_memory": 300 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=machine)
    try:
        other = cluster.add_node(**machine)
        cluster.wait_for_nodes()
        raylets = [node.all_processes["raylet"][0].process.pid for node in (cluster.head_node, other)]
        options = ("--address", cluster.address, "--decoders", "2", "--networks", "2")
        with subprocess.Popen(
            command(recordings, output, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            wait(lambda: staged(output) >= 2)
            assert [len(workers(raylet, "NetworkStep")) for raylet in raylets] == [1, 1]
            cluster.remove_node(other, allow_graceful=False)
            printed, errors = process.communicate(timeout=LIMIT)
        assert "160 recordings, 1 failed (1 audio)" in printed, errors
        assert rows(output) == expected
    finally:
        cluster.shutdown()
