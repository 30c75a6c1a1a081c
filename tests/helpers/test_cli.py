from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.audio import AudioError
from helpers import cli
from models.assets import AssetError
from models.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_a_full_gpu_is_one_line_with_advice(failing_message: Callable[..., str]) -> None:
    def main(argv: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    message = failing_message(main)
    assert "--batch_size" in message and "2 GiB" in message


def test_errors_name_their_rank(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> int:
        raise UserError("a mistake")

    for rank, expected in (("0", "error: a mistake\n"), ("3", "rank 3: error: a mistake\n")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit) as end:
            cli.run(main)
        assert end.value.code == 1 and capsys.readouterr().err == expected


@pytest.mark.parametrize("error", [UserError("x"), AudioError("x"), AssetError("x"), FileNotFoundError("x"), MemoryError("x")])
def test_what_users_can_mend_is_one_line(error: Exception, failing_message: Callable[..., str]) -> None:
    def main(argv: object) -> int:
        raise error

    assert failing_message(main).endswith("x")


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), KeyError("x"), RuntimeError("x"), AssertionError("x")])
def test_mistakes_in_the_code_keep_their_traceback(error: Exception) -> None:
    def main(argv: object) -> int:
        raise error

    with pytest.raises(type(error)):
        cli.run(main)


def test_errors_of_loader_workers_are_distinguished(failing_message: Callable[..., str]) -> None:
    """Torch raises the worker's class again, with the worker's traceback as the message."""

    class Clips(Dataset):
        def __init__(self, error: Exception) -> None:
            self.error = error

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            raise self.error

    def load(error: Exception) -> int:
        return len(list(DataLoader(Clips(error), num_workers=1)))

    assert failing_message(lambda argv: load(AudioError("clip: 7 is damaged"))) == "error: clip: 7 is damaged"
    with pytest.raises(ValueError):
        cli.run(lambda argv: load(ValueError("a mistake")))


@pytest.mark.parametrize("argv", [["--debug", "--lr", "1"], ["--lr", "1", "--debug"]])
def test_debug_shows_the_traceback_of_any_error(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: object) -> int:
        assert argv == ["--lr", "1"]
        raise UserError("a mistake")

    monkeypatch.setattr(sys, "argv", ["script.py", *argv])
    with pytest.raises(UserError):
        cli.run(main)


def test_help_lists_debug_once() -> None:
    parser = argparse.ArgumentParser(formatter_class=cli.HelpFormatter)
    parser.add_argument_group("more").add_argument("--more", help="more")
    assert parser.format_help().count("--debug") == 1 and "--debug" not in parser.format_usage()


def test_a_missing_package_is_one_line_that_names_what_to_install(failing_message: Callable[..., str]) -> None:
    def main(argv: object) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    message = failing_message(main)
    assert "torch" in message and "requirements.txt" in message and "onnx" in message


def test_a_reader_that_leaves_ends_the_program_quietly() -> None:
    script = "from helpers import cli\ncli.run(lambda argv: [print(i) for i in range(10**5)] and 0)"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "0\n141\n" and result.stderr == ""
