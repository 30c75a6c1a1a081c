from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.tagger.run_files import RunFile
from models.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [f"{number} \udce9.wav" for number in range(12)]


def run(path: Path, *, resume: bool = False, stop_after: int | None = None, options: dict[str, object] | None = None) -> None:
    """Write three rows for each source but the fourth, which fails; break off in the middle of one."""
    with RunFile(path, options or {"top_k": 3}, resume=resume) as file:
        for number, source in enumerate(SOURCES):
            if source in file.done:
                continue
            rows = 0 if number == 3 else 3
            for row in range(rows):
                file.write(f"{number} {row}\n".encode())
                if number == stop_after and row == 1:
                    raise KeyboardInterrupt
            file.finish_recording(source, rows=rows, failed=not rows, warnings=number == 5)
        assert (file.recordings, file.rows, file.failed, file.with_warnings) == (12, 33, 1, 1)
        assert [done.source for done in file.finished()] == SOURCES


def test_a_resumed_run_gives_the_same_file(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "x", stop_after=4)
    assert (tmp_path / "x").read_text().splitlines()[-1] == "4 1"  # what was written is there
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "x", resume=True, stop_after=7)
    run(tmp_path / "x", resume=True)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole", "x"]


def test_killed_at_any_byte(tmp_path: Path) -> None:
    """Both files may end anywhere, and the data may be behind or ahead of the progress."""
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "x", stop_after=11)
    data, progress = (tmp_path / "x").read_bytes(), (tmp_path / "x.progress").read_bytes()
    draw = random.Random(0)
    for _ in range(60):
        (tmp_path / "x").write_bytes(data[: draw.randrange(len(data))])
        (tmp_path / "x.progress").write_bytes(progress[: draw.randrange(len(progress))])
        run(tmp_path / "x", resume=True)
        assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()
    (tmp_path / "x.progress").write_bytes(progress)
    (tmp_path / "x").unlink()
    run(tmp_path / "x", resume=True)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_power_failure_costs_the_recordings_behind_the_damage(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "x", stop_after=9)
    progress = (tmp_path / "x.progress").read_bytes().splitlines(keepends=True)
    for damage in (b"\0" * 40 + b"\n", b"\xff\n", b"7\n"):
        (tmp_path / "x.progress").write_bytes(b"".join([*progress[:5], damage, *progress[6:]]))
        run(tmp_path / "x", resume=True)
        assert (tmp_path / "x").read_bytes() == (tmp_path / "whole").read_bytes()
    (tmp_path / "x.progress").write_bytes(b"\0\n")
    with pytest.raises(UserError, match="damaged"):
        run(tmp_path / "x", resume=True)


def test_an_unfinished_run_is_not_overwritten_nor_mixed_with_another(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "x", stop_after=4)
    before = (tmp_path / "x").read_bytes()
    with pytest.raises(ValueError, match="--resume"):
        run(tmp_path / "x")
    with pytest.raises(ValueError, match="top_k 3, not 5"):
        run(tmp_path / "x", resume=True, options={"top_k": 5})
    assert (tmp_path / "x").read_bytes() == before


def test_what_is_complete_stays_until_the_first_row_and_is_known_as_complete(tmp_path: Path) -> None:
    assert not RunFile(tmp_path / "x", {}, resume=True).is_complete
    (tmp_path / "x").write_text("old rows")
    assert RunFile(tmp_path / "x", {}, resume=True).is_complete
    with pytest.raises(KeyboardInterrupt), RunFile(tmp_path / "x", {}, resume=False):
        raise KeyboardInterrupt
    assert (tmp_path / "x").read_text() == "old rows"
    run(tmp_path / "x")
    assert "old" not in (tmp_path / "x").read_text()


def test_the_failure_of_the_first_recording_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError), RunFile(tmp_path / "x", {}, resume=False) as file:
        file.write(b"the window before the damage\n")
        raise UserError("damaged")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locks")
def test_two_runs_do_not_write_to_one_file(tmp_path: Path) -> None:
    with RunFile(tmp_path / "x", {}, resume=False) as first:
        first.write(b"row\n")
        with pytest.raises(ValueError, match="another process"), RunFile(tmp_path / "x", {}, resume=True) as second:
            second.write(b"other\n")
        with pytest.raises(ValueError, match="--resume"):
            RunFile(tmp_path / "x", {}, resume=False)
    assert (tmp_path / "x").read_bytes() == b"row\n"
    early = RunFile(tmp_path / "x", {}, resume=False)
    with RunFile(tmp_path / "x", {}, resume=False) as other:
        other.write(b"first\n")
        with pytest.raises(ValueError, match="another process"), early:
            early.write(b"late\n")
    assert (tmp_path / "x").read_bytes() == b"first\n"


def test_a_file_that_cannot_be_opened_leaves_no_progress(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "x", {}, resume=False)
    (tmp_path / "x").mkdir()
    with pytest.raises(OSError), file:
        file.write(b"row\n")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit the size of files otherwise")
def test_a_full_disk_leaves_whole_rows(tmp_path: Path) -> None:
    """In a process that may write 1000 bytes to a file."""
    code = """
import resource, signal, sys
from pathlib import Path
from helpers.tagger.run_files import RunFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with RunFile(Path(sys.argv[1]), {}, resume=False) as file:
        for number in range(100):
            file.write(b"x" * 69 + b"\\n")
            file.finish_recording(str(number), rows=1, failed=False, warnings=0)
except OSError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "x"], cwd=ROOT, capture_output=True, text=True)
    assert os.fspath(tmp_path / "x") in result.stdout and result.returncode == 0, result.stderr
    content = (tmp_path / "x").read_bytes()
    assert len(content) == 14 * 70 and content.endswith(b"x\n")
