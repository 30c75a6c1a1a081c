"""models.files: what is written is complete under its name or not there, and errors name the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.files import replacing, replacing_folder, write_atomically


def full_disk() -> OSError:
    """What writing to a file that is open raises: an error without a path."""
    return OSError(28, "No space left on device")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomically(path, lambda file: file.write(b"old"))
    with replacing(path) as one, replacing(path) as other:  # two at a time
        one.write_bytes(b"new")
        other.write_bytes(b"other")
        assert path.read_bytes() == b"old"
    assert content(tmp_path) == {"new/file": b"new"}


@pytest.mark.parametrize("error", [full_disk(), KeyboardInterrupt(), ValueError("bad")])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(type(error)) as caught, replacing(path) as temporary:
        temporary.write_bytes(b"ne")
        raise error
    assert content(tmp_path) == {"file": b"old"}
    assert not isinstance(error, OSError) or str(path) in str(caught.value)


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / ".data.part" / "rest").mkdir(parents=True)  # of a run that was killed
    (tmp_path / "data").mkdir()  # an empty folder is no obstacle
    with replacing_folder(tmp_path / "data") as folder:
        (folder / "file").write_bytes(b"new")
        assert not content(tmp_path / "data")
    assert content(tmp_path) == {"data/file": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("error", [full_disk(), KeyboardInterrupt()])
def test_an_error_leaves_no_folder(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, replacing_folder(tmp_path / "data") as folder:
        (folder / "file").write_bytes(b"new")
        raise error
    assert not list(tmp_path.iterdir())
    assert not isinstance(error, OSError) or "data" in str(caught.value)


def test_a_folder_that_holds_something_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").write_bytes(b"mine")
    with pytest.raises(OSError, match="data"), replacing_folder(tmp_path / "data") as folder:
        (folder / "file").write_bytes(b"new")
    assert content(tmp_path) == {"data/mine": b"mine"}
