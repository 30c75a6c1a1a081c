from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from helpers import cli


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
