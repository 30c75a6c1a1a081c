"""Which shards a folder, a file or a pattern means."""

from pathlib import Path

import pytest

from datasets.shards.files import find_shards


def test_folders_files_and_patterns(tmp_path: Path) -> None:
    for name in ("b.tar", "sub/a.tar", "sub/[1].tar", ".hidden/c.tar", "sub/._a.tar", "d.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "folder.tar").mkdir()
    everything = [tmp_path / name for name in ("b.tar", "sub/[1].tar", "sub/a.tar")]
    assert find_shards([tmp_path], ".tar") == everything
    assert find_shards([tmp_path / "sub" / "[1].tar"], ".tar") == everything[1:2]
    assert find_shards([tmp_path / "*.tar", tmp_path], ".tar") == everything  # each one once
    assert find_shards([tmp_path], ".parquet") == [tmp_path / "d.parquet"]
    for source in ("nowhere", "*.zip", "b.tar"):
        with pytest.raises(FileNotFoundError, match=source.replace("*", ".")):
            find_shards([tmp_path / source], ".parquet")
