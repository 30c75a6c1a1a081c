from __future__ import annotations

import zipfile
from pathlib import Path

from datasets.prepare.downloads import Download


def test_hidden_files_and_folders_do_not_count(tmp_path: Path) -> None:
    for name in (".Trash-1000/files/a.wav", ".b.wav", "in/.zips/c.zip", "in/d.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "._e.zip").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("f.wav", b"x")
    download = Download(tmp_path)
    assert [download.find(f"{name}.wav") is not None for name in "abdf"] == [False, False, True, True]
