from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

import pytest

from datasets.audio_folders import Problem, describe_skipped, find_recordings, list_recordings


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(folder: Path) -> tuple[list[str], list[Problem], Counter[str]]:
    problems: list[Problem] = []
    skipped: Counter[str] = Counter()
    paths = list(list_recordings(folder, problems=problems, skipped=skipped))
    return [path.relative_to(folder).as_posix() for path in paths], problems, skipped


def test_recordings_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["b/2.mp3", "b/10.MP3", "a.wav", "b.flac", "b/c/x.ogg", "B.wav", "z", "c.txt", "b/d.jpg", "c/e.TXT"]
    found, problems, skipped = listed(make(tmp_path, *names))
    assert found == ["B.wav", "a.wav", "b/10.MP3", "b/2.mp3", "b/c/x.ogg", "b.flac"]
    assert found == [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path / name for name in found)]
    assert problems == [] and skipped == {".txt": 2, ".jpg": 1, "": 1}


def test_hidden_files_and_folders_do_not_count(tmp_path: Path) -> None:
    make(
        tmp_path,
        "._a.wav",
        ".a.wav",
        ".Trash-1000/files/b.wav",
        ".Trashes/c.wav",
        ".git/d.wav",
        ".DS_Store",
        "in/._e.ogg",
        "in/e.ogg",
    )
    assert listed(tmp_path) == (["in/e.ogg"], [], {})
    assert listed(tmp_path / ".git")[0] == ["d.wav"]  # which was asked for


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    make(tmp_path, "site/b.ogg", "site/deeper/c.ogg", "in/z/a.ogg")
    (tmp_path / "in" / "site1").symlink_to(tmp_path / "site")
    (tmp_path / "in" / "site2").symlink_to(tmp_path / "site" / "deeper")
    (tmp_path / "in" / "y").symlink_to("z")
    (tmp_path / "in" / "x.ogg").symlink_to(tmp_path / "site" / "b.ogg")
    found, problems, _ = listed(tmp_path / "in")
    assert found == ["site1/b.ogg", "site1/deeper/c.ogg", "x.ogg", "z/a.ogg"]
    assert [problem.path.name for problem in problems] == ["site2", "y"] and all(problem.is_harmless for problem in problems)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert listed(tmp_path / "link")[0] == found


def test_a_link_to_what_is_hidden_is_followed(tmp_path: Path) -> None:
    make(tmp_path, ".store/a.ogg")
    (tmp_path / "shown").symlink_to(".store")
    assert listed(tmp_path) == (["shown/a.ogg"], [], {})


def test_loops_are_noticed(tmp_path: Path) -> None:
    make(tmp_path, "in/a/b.ogg", "out.ogg")
    for name, target in (("in/a/again", "."), ("in/a/root", ".."), ("in/above", ".."), ("in/self", "self")):
        (tmp_path / name).symlink_to(target)
    found, problems, _ = listed(tmp_path / "in")
    assert found == ["a/b.ogg"]
    assert sorted(problem.path.name for problem in problems) == ["above", "again", "root", "self"]
    assert {problem.path.name for problem in problems if problem.is_harmless} == {"again", "root"}  # out.ogg is missing


def test_links_that_hold_each_other_end(tmp_path: Path) -> None:
    make(tmp_path, "one/1.ogg", "two/2.ogg", "in/0.ogg")
    (tmp_path / "in" / "one").symlink_to(tmp_path / "one")
    (tmp_path / "one" / "two").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "one").symlink_to(tmp_path / "one")
    found, problems, _ = listed(tmp_path / "in")
    assert found == ["0.ogg", "one/1.ogg", "one/two/2.ogg"] and [str(problem.path) for problem in problems] == [
        str(tmp_path / "in" / "one" / "two" / "one")
    ]


def test_what_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.ogg", "closed/b.ogg", "z.ogg")
    (tmp_path / "gone.wav").symlink_to("/nowhere.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # file modes do not stop root
    found, problems, _ = listed(tmp_path)
    assert found == ["a.ogg", "z.ogg"]
    reasons = {problem.path.name: problem.reason for problem in problems}
    assert set(reasons) == {"closed", "gone.wav", "pipe.wav"} and "Permission denied" in reasons["closed"]
    assert all(str(problem).startswith(str(tmp_path)) and "\n" not in str(problem) for problem in problems)


def test_a_folder_must_be_one(tmp_path: Path) -> None:
    make(tmp_path, "a.ogg")
    for name, error in (("a.ogg", NotADirectoryError), ("nowhere", FileNotFoundError)):
        with pytest.raises(error, match=name):
            list(list_recordings(tmp_path / name, problems=[]))


def test_files_and_folders_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "f/b.ogg", "f/a.ogg", "x", "f/n.txt")
    (tmp_path / "f" / "gone").symlink_to("nowhere")
    with caplog.at_level(logging.WARNING):
        assert find_recordings([tmp_path / "x", tmp_path / "f"]) == [tmp_path / name for name in ("x", "f/a.ogg", "f/b.ogg")]
    assert "gone" in caplog.text


def test_what_was_passed_over_is_counted_by_kind() -> None:
    assert describe_skipped(Counter()) == ""
    assert describe_skipped(Counter({".jpg": 1, ".txt": 2})) == "3 files are no audio: .txt (2), .jpg (1)"
    assert describe_skipped(Counter({"": 1})) == "1 file is no audio: without a suffix (1)"
    assert len(describe_skipped(Counter({f".{n}": 1 for n in range(1000)}))) < 200


def test_a_folder_is_read_when_it_is_its_turn(tmp_path: Path) -> None:
    make(tmp_path, "first/1.wav", "first/2.wav", "second/3.wav")
    paths = list_recordings(tmp_path, problems=[])
    assert next(paths) == tmp_path / "first" / "1.wav"
    make(tmp_path, "second/4.wav")
    assert [path.name for path in paths] == ["2.wav", "3.wav", "4.wav"]
