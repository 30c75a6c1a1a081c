from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers import cli

ROOT = Path(__file__).resolve().parents[2]


def test_a_full_gpu_is_one_line_with_advice(failing_message: Callable[..., str]) -> None:
    def main(argv: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    message = failing_message(main)
    assert "--batch_size" in message and "2 GiB" in message


def test_errors_name_the_process_they_come_from(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> int:
        raise ValueError("a mistake")

    for rank, expected in (("0", "error: a mistake\n"), ("3", "process 3: error: a mistake\n")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as end:
            cli.run(main)
        assert end.value.code == 1 and capsys.readouterr().err == expected


def test_a_missing_package_is_one_line_that_says_what_to_install(failing_message: Callable[..., str]) -> None:
    def main(argv: object) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    message = failing_message(main)
    assert "torch" in message and "requirements.txt" in message and "onnx" in message


def test_a_reader_that_leaves_ends_the_program_quietly() -> None:
    script = "from helpers import cli\ncli.run(lambda argv: [print(i) for i in range(10**5)] and 0)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "0\n141\n" and result.stderr == ""
