from __future__ import annotations

import argparse
import logging
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.audio import AudioError
from datasets.prepare.command_line import command_parser
from helpers import cli
from models import errors
from models.assets import AssetError
from models.command import printable
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
    for parser in (argparse.ArgumentParser(formatter_class=cli.HelpFormatter), command_parser("esc50", "a command")):
        parser.add_argument_group("more").add_argument("--more", help="more")
        assert parser.format_help().count("--debug") == 1 and "--debug" not in parser.format_usage()


def test_a_missing_package_is_one_line_that_names_what_to_install(failing_message: Callable[..., str]) -> None:
    def main(argv: object) -> int:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    message = failing_message(main)
    assert "torch" in message and "requirements.txt" in message and "onnx" in message


def test_an_installed_package_names_itself(failing_message: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def main(argv: object) -> int:
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    monkeypatch.setattr(errors, "IS_CHECKOUT", False)
    assert "efficientat[imagenet]" in failing_message(main)


@pytest.mark.parametrize("fast_exit", [False, True])
def test_buffered_output_and_exit_code_of_a_command(fast_exit: bool, tmp_path: Path) -> None:
    script = (
        "import sys, logging; from models.command import run; from models.errors import UserError\n"
        "def main(argv):\n"
        "    print('printed'); logging.info('logged'); sys.stderr.write('unfinished')\n"
        "    if argv: raise {'user': UserError, 'interrupt': KeyboardInterrupt}[argv[0]]('a mistake')\n"
        f"    return 0\nrun(main, fast_exit={fast_exit})"
    )
    for argv, code in (([], 0), (["user"], 1), (["interrupt"], 130)):
        with open(tmp_path / "out", "w") as out, open(tmp_path / "err", "w") as err:
            assert subprocess.run([sys.executable, "-c", script, *argv], cwd=ROOT, stdout=out, stderr=err).returncode == code
        assert (tmp_path / "out").read_text() == "printed\n"
        assert (tmp_path / "err").read_text().startswith("logged\nunfinished")
    with open("/dev/full", "w") as full:
        result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode != 0 and "No space left" in result.stderr


@pytest.mark.parametrize("lines", [1, 10**5])  # a single one is buffered until the end
@pytest.mark.parametrize("fast_exit", [False, True])
def test_a_reader_that_leaves_ends_the_program_quietly(fast_exit: bool, lines: int) -> None:
    script = f"from models.command import run\nrun(lambda argv: [print(i) for i in range({lines})] and 0, fast_exit={fast_exit})"
    reader = "true" if lines == 1 else "head -1"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} | {reader}; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == ("141\n" if lines == 1 else "0\n141\n") and result.stderr == ""


HOSTILE = "a\x1b[31m\n\x9b\u202eb"
SHOWN = "a\\u001b[31m\\n\\u009b\\u202eb"


def test_control_characters_are_escaped_and_all_others_kept() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("\r\t\x7f\u2028\u2066\udcff") == "\\r\\t\\u007f\\u2028\\u2066\\udcff"
    for text in ("Grüße, 音楽, مرحبا\u200f, \U0001f468\u200d\U0001f469", Path("a b/c.wav"), ""):
        assert printable(text) == str(text)


def test_errors_and_logs_hold_no_control_characters(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as in a command

    def main(argv: object) -> int:
        logging.getLogger("x").warning("%s and %s", HOSTILE, "b")
        raise UserError(HOSTILE)

    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(SystemExit):
        cli.run(main)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["a\\u001b[31m", "  \\u009b\\u202eb and b", "error: a\\u001b[31m \\u009b\\u202eb"]
