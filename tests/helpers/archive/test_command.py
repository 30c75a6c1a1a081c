"""What is refused before anything is computed, and what is left then; models and workers are stand-ins."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from helpers.archive import command
from helpers.archive.plan import Plan
from models.errors import UserError

MANIFEST = {"settings": {"top_k": None}, "models": []}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Write an archive of a list of three files; nothing is computed."""
    monkeypatch.setattr(command, "tagging", lambda args, version: (None, json.loads(json.dumps(MANIFEST))))
    monkeypatch.setattr(command, "started", lambda resources: nullcontext())
    monkeypatch.setattr(command, "run", lambda *_: None)

    def run(*names: str, output: Path | str = tmp_path / "out", text: Path | str | None = None) -> int:
        listed = tmp_path / "list.txt"
        listed.write_text("".join(f"{name}\n" for name in names))
        args = argparse.Namespace(input=str(listed if text is None else text), output=str(output), address=None)
        vars(args).update(decoders=None, networks=None, gpus_per_network=0.0)
        return command.write_archive(args, "1")

    return run


def test_names_that_are_there_twice_are_refused_until_they_are_not(write: Callable[..., int], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="twice: a.wav"):
            write("a.wav", "b.wav", "a.wav")
    assert write("a.wav", "b.wav") == 0
    assert [entry.source for entry in Plan(tmp_path / "out")] == ["a.wav", "b.wav"]
    with pytest.raises(UserError, match="twice: c.wav"):
        write("a.wav", "b.wav", "c.wav", "c.wav")
    assert Plan(tmp_path / "out").num_recordings == 2


def test_an_input_without_recordings_leaves_nothing(write: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recordings"):
        write()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("places", [{"text": ""}, {"output": ""}])
def test_an_empty_name_is_no_place(write: Callable[..., int], places: dict[str, str]) -> None:
    with pytest.raises(UserError, match="empty"):
        write("a.wav", **places)


def test_an_output_within_the_input_is_refused(write: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="within"):
        write("a.wav", text=tmp_path, output=tmp_path / "inner" / "out")
    assert not (tmp_path / "inner").exists()


def test_the_manifest_of_something_else_is_one_line(write: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="manifest.json"):
        write("a.wav")
